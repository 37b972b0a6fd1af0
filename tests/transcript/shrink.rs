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
            if fewer.len() < best.len() && differs(&fewer) {
                best = fewer;
                smaller = true;
            } else {
                at += size;
            }
        }
        if tries >= TRIES || size == 1 && !smaller {
            return best;
        }
        size = if size == 1 { 1 } else { size.div_ceil(2) };
    }
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
