//! Makes a stream that shows a difference smaller: drops messages for as long as there is still one.

use super::message::Message;

/// Runs of it, at most.
const TRIES: usize = 300;

/// The smallest stream found for which `differs`.
pub fn shrink(messages: &[Message], mut differs: impl FnMut(&[Message]) -> bool) -> Vec<Message> {
    let mut best = messages.to_vec();
    let mut tries = 0;
    let mut size = best.len().div_ceil(2);
    loop {
        let mut smaller = false;
        let mut at = 0;
        while at < best.len() && tries < TRIES {
            let mut fewer = best.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            let fewer = tidy(fewer);
            tries += 1;
            if fewer.len() < best.len() && keeps_its_copies(&fewer, &best) && differs(&fewer) {
                best = fewer;
                smaller = true;
            } else {
                at += size;
            }
        }
        if tries >= TRIES || size == 1 && !smaller {
            return with_shorter_texts(best, differs);
        }
        size = if size == 1 { 1 } else { size.div_ceil(2) };
    }
}

/// Without statements of messages that have several.
fn with_shorter_texts(
    mut best: Vec<Message>,
    mut differs: impl FnMut(&[Message]) -> bool,
) -> Vec<Message> {
    for at in 0..best.len() {
        let mut piece = 0;
        while let Message::Query(sql) = &best[at] {
            let mut pieces: Vec<&str> = sql.split("; ").collect();
            if pieces.len() == 1 || piece == pieces.len() {
                break;
            }
            pieces.remove(piece);
            let mut fewer = best.clone();
            fewer[at] = Message::Query(pieces.join("; "));
            match keeps_its_copies(&fewer, &best) && differs(&fewer) {
                true => best = fewer,
                false => piece += 1,
            }
        }
    }
    best
}

/// Without waits for what need not come: outside COPY a server may keep answers to itself until Sync, Flush or Query.
fn tidy(messages: Vec<Message>) -> Vec<Message> {
    let mut kept: Vec<Message> = Vec::new();
    for message in messages {
        let waits = matches!(
            message,
            Message::Pause | Message::Cancel | Message::CancelNothing
        );
        let before = kept.iter().rev().find(|m| {
            !matches!(
                m,
                Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) | Message::Pause
            )
        });
        let answered = matches!(
            before,
            Some(
                Message::Sync
                    | Message::Flush
                    | Message::Query(_)
                    | Message::Cancel
                    | Message::CancelNothing
            )
        );
        if !waits || answered {
            kept.push(message);
        }
    }
    kept
}

/// COPYs from the client are there as a whole, or not at all. (Another message in the middle of one ends the connection.)
fn keeps_its_copies(fewer: &[Message], before: &[Message]) -> bool {
    let count = |messages: &[Message]| {
        let (mut begun, mut data, mut ended) = (0, 0, 0);
        for message in messages {
            match message {
                Message::Query(sql) | Message::Parse { sql, .. } => {
                    begun += usize::from(sql.contains("STDIN"));
                }
                Message::CopyData(_) => data += 1,
                Message::CopyDone | Message::CopyFail(_) => ended += 1,
                _ => {}
            }
        }
        (begun, data, ended)
    };
    let (fewer, before) = (count(fewer), count(before));
    fewer.0 <= fewer.2 && (fewer == before || fewer.0 < before.0)
}
