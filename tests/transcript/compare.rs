//! Whether two servers have answered the same: message by message, byte by byte, but for what [`same`] leaves out.

use super::client::Answer;

/// The place of the first difference.
pub fn difference(postgres: &[Answer], presplit: &[Answer]) -> Option<usize> {
    let (postgres, presplit) = (&in_order(postgres), &in_order(presplit));
    let longest = postgres.len().max(presplit.len());
    (0..longest).find(|i| match (postgres.get(*i), presplit.get(*i)) {
        (Some(a), Some(b)) => !alike(a, b),
        _ => true,
    })
}

/// Whether two answers are the same, or known not to be.
pub fn alike(postgres: &Answer, presplit: &Answer) -> bool {
    same(postgres) == same(presplit)
        || is_unusable_key(postgres, presplit)
        || is_lost_portal(postgres, presplit)
        || is_unknown_table(postgres, presplit)
}

/// ParameterStatus messages that come together, by their names; notifications behind all else; no CommandComplete in front of an error
/// of the commit.
pub fn in_order(answers: &[Answer]) -> Vec<Answer> {
    let notified = |answer: &&Answer| matches!(answer, Answer::Message(b'A', _));
    let others = answers.iter().filter(|answer| !notified(answer));
    let mut answers: Vec<Answer> = others
        .chain(answers.iter().filter(notified))
        .cloned()
        .collect();
    let untimely = |pair: &[Answer]| {
        matches!(pair[0], Answer::Message(b'C', _)) && is_error(&pair[1], "23503")
    };
    while let Some(at) = answers.windows(2).position(untimely) {
        answers.remove(at);
    }
    let status = |answer: &Answer| matches!(answer, Answer::Message(b'S', _));
    for together in answers.chunk_by_mut(|a, b| status(a) && status(b)) {
        together.sort_by_key(|answer| match answer {
            Answer::Message(b'S', body) => body.clone(),
            _ => Vec::new(),
        });
    }
    answers
}

/// An answer without what may differ. This is the whole list:
/// * key data (left out by the client already), and the order of ParameterStatus messages that come together;
/// * the OID of a table in RowDescription: each database numbers its own;
/// * in errors and notices the source file, line and routine: an error of presplit's own has none, and they are another
///   in each version of Postgres; the schema: that of the shard, and in CONTEXT the shard's for `public`;
/// * whether CommandComplete comes in front of an error of the commit (a deferred constraint): of the last statement of a Query it does
///   not on Postgres, and does through presplit if the session acts on that statement (EXECUTE) in a transaction of its own making;
/// * the position of an argument of EXECUTE that is of a wrong type: it is found when the server runs it under a name of ours, which may be
///   longer;
/// * the words about a parameter that is no value of the key's type ([`is_unusable_key`]);
/// * the words about a table that is not there ([`is_unknown_table`]);
/// * the process that has sent a notification, and when that comes: Postgres keeps it until the session is idle, which it is not behind
///   COMMIT AND CHAIN;
/// * of which of two errors a portal of a failed block is, and that one is none if its Bind failed ([`is_lost_portal`]);
/// * whether a SERIALIZABLE transaction fails because of what other streams do at the same time: such a stream is run again
///   ([`is_beaten`]);
/// * the CONTEXT of a cancelled statement: how far it had come.
fn same(answer: &Answer) -> Answer {
    let Answer::Message(tag, body) = answer else {
        return answer.clone();
    };
    let body = match tag {
        b'T' => columns(body),
        b'E' | b'N' => fields(body),
        b'A' => body.get(4..).unwrap_or_default().to_vec(),
        _ => body.clone(),
    };
    Answer::Message(*tag, body)
}

/// A key's value that is none of the column's type is refused by presplit, before a server could.
fn is_unusable_key(postgres: &Answer, presplit: &Answer) -> bool {
    let codes = ["22P02", "08P01", "42804"];
    codes.iter().any(|code| is_error(postgres, code)) && is_error(presplit, "SR007")
}

/// Presplit says so itself, or in which shard.
fn is_unknown_table(postgres: &Answer, presplit: &Answer) -> bool {
    let codes = ["42P01", "SR003"];
    is_error(postgres, "42P01") && codes.iter().any(|code| is_error(presplit, code))
}

/// Whether a failed block still has a portal: that of a message that the server ignored because of the error, too. If the error
/// was that of its Bind, Postgres has it half made and executes it as an empty query.
fn is_lost_portal(postgres: &Answer, presplit: &Answer) -> bool {
    let codes = ["25P02", "34000"];
    let is = |answer: &Answer| codes.iter().any(|code| is_error(answer, code));
    let half_made = matches!(postgres, Answer::Message(b'I', _)) && is_error(presplit, "25P02");
    half_made || is(postgres) && is(presplit)
}

/// Whether a transaction was aborted for the sake of another's. (Postgres locks pages of rows and of indexes for that, so that
/// streams about other users may be in its way.)
pub fn is_beaten(answers: &[Answer]) -> bool {
    answers.iter().any(|answer| is_error(answer, "40001"))
}

pub fn is_error(answer: &Answer, code: &str) -> bool {
    let code = format!("\0C{code}\0").into_bytes();
    matches!(answer, Answer::Message(b'E', body) if body.windows(code.len()).any(|w| w == code))
}

fn columns(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let mut at = 2;
    while at < body.len() {
        let name = body[at..].iter().position(|b| *b == 0).unwrap();
        let oid = &mut body[at + name + 1..at + name + 5];
        let some = oid.iter().any(|b| *b != 0);
        oid.copy_from_slice(&u32::from(some).to_be_bytes());
        at += name + 19;
    }
    body
}

fn fields(body: &[u8]) -> Vec<u8> {
    let fields = body.split(|b| *b == 0).filter(|f| !f.is_empty());
    let has = |text: &[u8]| body.windows(text.len()).any(|w| w == text);
    let cancelled = has(b"\0C57014");
    let argument = has(b" cannot be coerced to the expected type ");
    let kept = fields.filter(|f| {
        !(b"FLRs".contains(&f[0]) || cancelled && f[0] == b'W' || argument && f[0] == b'P')
    });
    let mut kept: Vec<Vec<u8>> = kept.map(<[u8]>::to_vec).collect();
    for field in kept.iter_mut().filter(|f| b"Wq".contains(&f[0])) {
        while let Some(at) = field.windows(6).position(|w| w == b"shard_") {
            field.splice(at..at + 10, *b"public");
        }
    }
    kept.join(&b'\n')
}

/// For a person.
pub fn show(answer: &Answer) -> String {
    match same(answer) {
        Answer::Message(tag, body) => {
            let body = body.escape_ascii().to_string();
            let body = body.replace("\\n", " | ");
            let cut: String = body.chars().take(400).collect();
            format!("{} {cut}", char::from(tag))
        }
        Answer::End(why) => why,
    }
}
