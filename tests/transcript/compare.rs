//! Whether two servers have answered the same: message by message, byte by byte, but for what [`same`] leaves out.

use super::client::Answer;

/// The place of the first difference.
pub fn difference(postgres: &[Answer], presplit: &[Answer]) -> Option<usize> {
    let longest = postgres.len().max(presplit.len());
    (0..longest).find(|i| match (postgres.get(*i), presplit.get(*i)) {
        (Some(a), Some(b)) => same(a) != same(b) && !is_unusable_key(a, b),
        _ => true,
    })
}

/// An answer without what may differ. This is the whole list:
/// * key data (left out by the client already), and the order of the ParameterStatus messages at login (sorted there);
/// * the OID of a table in RowDescription: each database numbers its own;
/// * in errors and notices the source file, line and routine: an error of presplit's own has none, and they are another
///   in each version of Postgres; the schema: that of the shard. Values of a field, such as the name of a function in
///   CONTEXT, may name that schema, too;
/// * the words about a parameter that is no value of the key's type ([`is_unusable_key`]);
/// * the CONTEXT of a cancelled statement: how far it had come.
fn same(answer: &Answer) -> Answer {
    let Answer::Message(tag, body) = answer else {
        return answer.clone();
    };
    let body = match tag {
        b'T' => columns(body),
        b'E' | b'N' => fields(body),
        _ => body.clone(),
    };
    Answer::Message(*tag, body)
}

/// A key's value that is none of the column's type is refused by presplit, before a server could.
fn is_unusable_key(postgres: &Answer, presplit: &Answer) -> bool {
    let is = |answer: &Answer, code: &[u8]| {
        let code = [b"\0C", code, b"\0"].concat();
        matches!(answer, Answer::Message(b'E', body) if body.windows(code.len()).any(|w| w == code))
    };
    is(postgres, b"22P02") && is(presplit, b"SR007")
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
    let cancelled = body.windows(7).any(|w| w == b"\0C57014");
    let kept = fields.filter(|f| !(b"FLRs".contains(&f[0]) || cancelled && f[0] == b'W'));
    let kept: Vec<&[u8]> = kept.collect();
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
