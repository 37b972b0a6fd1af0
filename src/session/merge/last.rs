//! Parts of groups and of DISTINCT are collected, and one server makes the answer of them by a last statement.

use tokio_postgres::types::{Kind as TypeKind, Type};

use super::{ARMS, Arms, Asked, Described, Failed, Step, column_types};
use crate::route::{Final, Piece, TextKey, Values};
use crate::session::Session;
use crate::session::errors::Fault;
use crate::session::gather::Shards;
use crate::wire::backend::ErrorView;
use crate::wire::body::Body;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frame;
use crate::wire::frontend::{self, Kind};

impl Session {
    /// Collects the parts of all shards and has one server make the answer of them.
    pub(super) async fn put_together(
        &mut self,
        asked: &Asked<'_>,
        last: &Final,
        whole: &Described,
        parts: &Described,
        hosts: &[Shards],
    ) -> Step<u64> {
        let arrays = parts.columns.iter().map(|oid| array_of(*oid));
        let arrays: Vec<u32> = arrays.collect::<Option<_>>().ok_or_else(|| {
            let column = parts.columns.iter().find(|oid| array_of(**oid).is_none());
            let name = column
                .and_then(|oid| Type::from_oid(*oid))
                .map_or("of the app".to_owned(), |t| t.name().to_owned());
            cannot(format!("values of type {name} can't be put together"))
        })?;
        let by_bytes = self.texts_by_bytes();
        let text = last_text(
            last,
            &asked.values,
            &parts.columns,
            whole.params.len(),
            by_bytes,
        )?;
        for (host, shards) in hosts {
            let Some(i) = self.links.iter().position(|l| l.host == *host) else {
                continue;
            };
            let arms = Arms {
                part: &last.part,
                tail: "",
                most: ARMS,
                params: &whole.params,
                results: &[1],
            };
            self.ask_arms(i, asked, &arms, shards);
        }
        let mut columns = vec![Column::default(); parts.columns.len()];
        let (mut rows, mut bytes) = (0u32, 0);
        let mut at = 0;
        loop {
            match self.next_of_all(hosts, &mut at).await? {
                Err(Failed) => return Ok(Err(Failed)),
                Ok(None) => break,
                Ok(Some(row)) => {
                    rows += 1;
                    bytes += row.len();
                    let most = self.map.proxy.limits.gather_rows;
                    if rows > most {
                        return Err(Fault::limit(
                            &format!("{rows} rows of several shards that must be held at once"),
                            "gather_rows",
                            u64::from(most),
                        ));
                    }
                    self.check_held(bytes)?;
                    let mut body = Body(&row);
                    body.u16()?;
                    for column in &mut columns {
                        column.push(body.value()?);
                    }
                }
            }
        }
        let values: Vec<Vec<u8>> = columns
            .iter()
            .zip(&parts.columns)
            .map(|(column, oid)| column.array(*oid))
            .collect();
        let Some(first) = self.asked_links(hosts).first().copied() else {
            return Ok(Ok(0));
        };
        self.run_last(first, asked, &text, &arrays, &values, whole)
            .await
    }

    pub(super) async fn run_last(
        &mut self,
        i: usize,
        asked: &Asked<'_>,
        text: &str,
        arrays: &[u32],
        values: &[Vec<u8>],
        whole: &Described,
    ) -> Step<u64> {
        let results: Vec<i16> = (0..whole.columns.len())
            .map(|n| asked.result_format(n))
            .collect();
        let types = whole.params.iter().chain(arrays).copied();
        let types: Vec<u32> = types.collect();
        let link = &mut self.links[i];
        frontend::parse(
            &mut link.outbox,
            b"",
            text.as_bytes(),
            types.iter().copied(),
        );
        frontend::describe(&mut link.outbox, Kind::Statement, b"");
        asked.write_bind(values, &results, &mut link.outbox);
        frontend::execute(&mut link.outbox, b"", 0);
        frontend::sync(&mut link.outbox);
        link.unsynced = true;
        loop {
            let (tag, len) = self.next_message(i).await?;
            if tag == b'T' {
                self.have(i, len).await?;
                let types = column_types(&self.links[i].unread()[frame::HEADER..len])?;
                if types != whole.columns {
                    return Err(cannot(
                        "the columns made of the parts have other types than the statement's"
                            .to_owned(),
                    ));
                }
                self.skip_message(i, len).await?;
                break;
            }
            if tag == b'E' {
                break;
            }
            self.skip_message(i, len).await?;
        }
        let mut given = 0;
        loop {
            match self.next_row(i).await? {
                Err(Failed) => return Ok(Err(Failed)),
                Ok(None) => return Ok(Ok(given)),
                Ok(Some(row)) => {
                    given += 1;
                    self.give(&row, None).await?;
                }
            }
        }
    }
}

pub(super) fn cannot(what: String) -> Fault {
    Fault::statement(
        ErrorFields::error(
            SqlState::NOT_MERGEABLE,
            format!("the rows of several shards can't be merged exactly: {what}"),
        )
        .hint(
            "Ask one shard at a time: put the key into the statement, or /* presplit: shard=N */.",
        ),
    )
}

pub(super) fn own_collation() -> Fault {
    cannot("texts with a collation of their own are compared".to_owned())
}

pub(super) fn refused_text(error: &[u8]) -> Fault {
    let view = ErrorView::decode(error).ok();
    let message = view.as_ref().and_then(|view| view.get(b'M'));
    cannot(String::from_utf8_lossy(message.unwrap_or_default()).into_owned())
}

/// The text of the last statement: the parts are parameters behind those of the client.
fn last_text(
    last: &Final,
    values: &Values<'_>,
    types: &[u32],
    params: usize,
    by_bytes: bool,
) -> Result<String, Fault> {
    let mut columns = last.texts.iter().zip(types);
    if columns.any(|(text, oid)| *text == TextKey::Loose && is_text(*oid)) {
        return Err(own_collation());
    }
    let mut text = String::new();
    for piece in &last.last {
        match piece {
            Piece::Own(words) => text.push_str(words),
            // No table is named there, so there is no schema to be put in.
            Piece::Copy(span) => {
                text.push_str(&String::from_utf8_lossy(span.of(values.text, values.holes)))
            }
            Piece::Column(n) => text.push_str(&format!("c{}", n + 1)),
            Piece::Compared(n) => text.push_str(&compared(*n, last, types, by_bytes)?),
            Piece::TypeOf(n) => text.push_str(&type_name(types[*n])),
            Piece::Mean(sum, count) => text.push_str(&mean(*sum, *count, types)?),
            Piece::Columns => {
                let names: Vec<String> = (1..=types.len()).map(|n| format!("c{n}")).collect();
                text.push_str(&names.join(", "));
            }
            Piece::Parts => {
                let names: Vec<String> = (1..=types.len()).map(|n| format!("c{n}")).collect();
                let arrays: Vec<String> = (1..=types.len())
                    .map(|n| format!("${}", params + n))
                    .collect();
                text.push_str(&format!(
                    " FROM unnest({}) AS parts({})",
                    arrays.join(", "),
                    names.join(", ")
                ));
            }
        }
    }
    Ok(text)
}

/// Types that have a collation.
fn is_text(oid: u32) -> bool {
    matches!(oid, 25 | 1043 | 1042)
}

fn compared(n: usize, last: &Final, types: &[u32], by_bytes: bool) -> Result<String, Fault> {
    let key = last.texts.get(n).copied().unwrap_or(TextKey::Default);
    match key {
        TextKey::Bytes if is_text(types[n]) && !by_bytes => {
            Ok(format!("(c{} COLLATE pg_catalog.\"C\")", n + 1))
        }
        TextKey::Either if is_text(types[n]) && !by_bytes => Err(own_collation()),
        TextKey::Other | TextKey::Loose if is_text(types[n]) => Err(own_collation()),
        _ => Ok(format!("c{}", n + 1)),
    }
}

fn type_name(oid: u32) -> String {
    match Type::from_oid(oid) {
        Some(known) => format!("pg_catalog.\"{}\"", known.name()),
        None => "pg_catalog.text".to_owned(),
    }
}

/// avg() of partial sums, as Postgres divides them: whole numbers and numeric as numeric, float8 as float8.
fn mean(sum: usize, count: usize, types: &[u32]) -> Result<String, Fault> {
    let divided = |of: &str| {
        format!(
            "(CAST(sum(c{}) AS pg_catalog.{of}) / nullif(CAST(sum(c{}) AS pg_catalog.{of}), 0))",
            sum + 1,
            count + 1
        )
    };
    match types[sum] {
        20 | 1700 => Ok(divided("numeric")),
        701 => Ok(divided("float8")),
        _ => Err(cannot("avg() of this type".to_owned())),
    }
}

/// The array type whose elements are of a type, if it is one of Postgres' own.
fn array_of(element: u32) -> Option<u32> {
    if matches!(Type::from_oid(element)?.kind(), TypeKind::Array(_)) {
        return None;
    }
    // Types of Postgres' catalog have OIDs below this (access/transam.h, FirstGenbkiObjectId). `int2vector` and
    // `oidvector` have elements too, but are no arrays of their types.
    (1..10_000u32).find(|oid| {
        Type::from_oid(*oid).is_some_and(|array| {
            array.name().starts_with('_')
                && matches!(array.kind(), TypeKind::Array(of) if of.oid() == element)
        })
    })
}

/// The values of a column, as the elements of an array in binary form (arrayfuncs.c, array_send).
#[derive(Clone, Default)]
struct Column {
    count: u32,
    nulls: bool,
    elements: Vec<u8>,
}

impl Column {
    fn push(&mut self, value: Option<&[u8]>) {
        self.count += 1;
        match value {
            None => {
                self.nulls = true;
                self.elements.extend((-1i32).to_be_bytes());
            }
            Some(bytes) => {
                self.elements.extend((bytes.len() as u32).to_be_bytes());
                self.elements.extend_from_slice(bytes);
            }
        }
    }

    fn array(&self, element: u32) -> Vec<u8> {
        let dimensions = u32::from(self.count > 0);
        let mut bytes = Vec::with_capacity(20 + self.elements.len());
        for word in [dimensions, u32::from(self.nulls), element] {
            bytes.extend(word.to_be_bytes());
        }
        if self.count > 0 {
            bytes.extend(self.count.to_be_bytes());
            bytes.extend(1u32.to_be_bytes());
            bytes.extend_from_slice(&self.elements);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_array_type_of_a_type() {
        let of = |element: Type| array_of(element.oid());
        assert_eq!(of(Type::INT2), Some(Type::INT2_ARRAY.oid()));
        assert_eq!(of(Type::OID), Some(Type::OID_ARRAY.oid()));
        assert_eq!(of(Type::TEXT), Some(Type::TEXT_ARRAY.oid()));
        assert_eq!(of(Type::TEXT_ARRAY), None);
    }
}
