//! Where an error is in the text that the client sent, which is not the one that the server was sent.

use super::*;

/// An error with its position mapped back to the client's text, if it concerns a text that we changed.
pub(in crate::session) fn error_back(
    client: &Client,
    link: &Link,
    owed: Option<&Reply>,
    view: &ErrorView<'_>,
    message: &[u8],
) -> Vec<u8> {
    let position = view
        .get(b'P')
        .and_then(|p| std::str::from_utf8(p).ok()?.parse::<u32>().ok());
    let original = position.and_then(|position| match owed {
        _ if link.sent_text.is_some() => {
            let schema = |shard| link.map.schema(shard);
            link.sent_text.as_ref()?.original_position(position, schema)
        }
        Some(Reply::Query(_) | Reply::Part) => {
            let inside = |p: &&SentPiece| position > p.from && position <= p.from + p.len + 1;
            let piece = link.sent_pieces.iter().find(inside)?;
            let whole = query_text(client.pending())?;
            let before = char_count(whole.get(..piece.text.start)?);
            let Some(shard) = piece.shard else {
                return Some(before + position - piece.from);
            };
            let text = whole.get(piece.text.clone())?;
            let mut shape = Shape::default();
            shape.scan(text).ok()?;
            let schema = link.map.schema(shard);
            Some(
                before
                    + piece.prepared.original_position(
                        position - piece.from,
                        text,
                        &shape.holes,
                        schema,
                    ),
            )
        }
        Some(Reply::Parse {
            statement,
            shard: Some(shard),
            ..
        }) => {
            let schema = link.map.schema(*shard);
            Some(statement.prepared.original_position(
                position,
                &statement.text,
                &statement.holes,
                schema,
            ))
        }
        _ => None,
    });
    let Some(position) = original else {
        return message.to_vec();
    };
    let mut error = Vec::new();
    view.with_field_replaced(&mut error, b'E', b'P', position.to_string().as_bytes());
    error
}

/// The text of the Query message at the front of `pending`.
fn query_text(pending: &[u8]) -> Option<&[u8]> {
    let header = frame::header(pending).ok()??;
    pending.get(frame::HEADER..header.len.checked_sub(1)?)
}
