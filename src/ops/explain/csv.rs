//! Records of a CSV file (RFC 4180, as Postgres writes it), each with the line that it begins in.

/// One record.
pub(super) struct Record {
    /// The line that it begins in, counted from 1.
    pub(super) line: usize,
    /// Its fields, without quotes.
    pub(super) fields: Vec<String>,
}

impl Record {
    /// The field of this number; empty if there is none.
    pub(super) fn field(&self, n: usize) -> &str {
        self.fields.get(n).map_or("", String::as_str)
    }
}

/// The records of a text. A quoted field that does not end ends with the text.
pub(super) fn records(text: &str) -> impl Iterator<Item = Record> + '_ {
    let mut rest = text;
    let mut line = 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let before = rest;
        let record = Record {
            line,
            fields: take_record(&mut rest),
        };
        line += before[..before.len() - rest.len()].matches('\n').count();
        Some(record)
    })
}

fn take_record(rest: &mut &str) -> Vec<String> {
    let mut fields = Vec::new();
    loop {
        fields.push(take_field(rest));
        let Some(behind) = rest.strip_prefix(',') else {
            break;
        };
        *rest = behind;
    }
    *rest = rest.strip_prefix('\r').unwrap_or(rest);
    *rest = rest.strip_prefix('\n').unwrap_or(rest);
    fields
}

/// Takes one field, up to the comma or line end behind it.
fn take_field(rest: &mut &str) -> String {
    let mut field = String::new();
    while let Some(quoted) = rest.strip_prefix('"') {
        let end = quoted.find('"').unwrap_or(quoted.len());
        field.push_str(&quoted[..end]);
        *rest = quoted.get(end + 1..).unwrap_or("");
        if rest.starts_with('"') {
            field.push('"');
        }
    }
    let end = rest.find([',', '\n', '\r']).unwrap_or(rest.len());
    field.push_str(&rest[..end]);
    *rest = &rest[end..];
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_lines() {
        let text = "a,\"b\"\"c\n,d\",\r\n\n\"x\",\"\"\n1,\"open";
        let found: Vec<(usize, Vec<String>)> = records(text).map(|r| (r.line, r.fields)).collect();
        let row = |fields: &[&str]| fields.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            found,
            [
                (1, row(&["a", "b\"c\n,d", ""])),
                (3, row(&[""])),
                (4, row(&["x", ""])),
                (5, row(&["1", "open"])),
            ]
        );
    }
}
