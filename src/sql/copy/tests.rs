//! Rows and fields against a byte-by-byte rendering of Postgres' own rules, and cases that are easy to get wrong.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn options(format: Format) -> Options {
    Options {
        format,
        ..Options::default()
    }
}

/// What comes out of the data when it is given in pieces that end at `cuts`.
fn split(options: &Options, data: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, u64, Step) {
    let mut splitter = Splitter::new(options, true).unwrap();
    let (mut rows, mut at, mut lines) = (Vec::new(), 0, 0);
    let ends = cuts.iter().map(|cut| (*cut, false));
    for (end, whole) in ends.chain([(data.len(), true)]) {
        loop {
            match splitter.next(&data[at..end.max(at)], whole) {
                Step::Row(row) => {
                    rows.push(data[at..at + row.body].to_vec());
                    lines += row.lines;
                    at += row.len;
                }
                Step::More if !whole => break,
                other => return (rows, lines, other),
            }
        }
    }
    unreachable!("whole data has an end");
}

fn all_fields(options: &Options, row: &[u8], n: usize) -> Vec<Option<Option<Vec<u8>>>> {
    let splitter = Splitter::new(options, true).unwrap();
    let wanted: Vec<usize> = (0..n).collect();
    let mut found = Vec::new();
    splitter.fields(row, &wanted, &mut |at, field| {
        assert_eq!(at, found.len());
        found.push(match field {
            Field::Missing => None,
            Field::Null => Some(None),
            Field::Value(value) => Some(Some(value.into_owned())),
        });
    });
    found
}

/// `CopyReadLineText` of Postgres 15, byte by byte over all of the data.
fn lines_of_postgres(data: &[u8], csv: Option<(u8, u8)>) -> (Vec<Vec<u8>>, u64, Step) {
    let (mut rows, mut at, mut eol, mut lineno) = (Vec::new(), 0, b'?', 0u64);
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    let newline = |fault| Step::Bad(fault);
    loop {
        let start = at;
        let mut line_no = 1;
        let (mut first, mut in_quote, mut last_was_esc) = (true, false, false);
        let (quote, escape) = csv.map_or((0, 0), |(q, e)| (q, if q == e { 0 } else { e }));
        let end = loop {
            if at >= data.len() {
                if at > start {
                    rows.push(data[start..].to_vec());
                    lineno += line_no;
                }
                return (rows, lineno, Step::End);
            }
            let here = at;
            let c = data[at];
            at += 1;
            if csv.is_some() {
                if in_quote && c == escape {
                    last_was_esc = !last_was_esc;
                }
                if c == quote && !last_was_esc {
                    in_quote = !in_quote;
                }
                if c != escape {
                    last_was_esc = false;
                }
                if in_quote && c == (if eol == b'n' { b'\n' } else { b'\r' }) {
                    line_no += 1;
                }
            }
            if c == b'\r' && !in_quote {
                if eol == b'?' || eol == b'b' {
                    if byte(at) == b'\n' && at < data.len() {
                        at += 1;
                        eol = b'b';
                    } else if eol == b'b' {
                        return (rows, lineno, newline(LineFault::Return(csv.is_some())));
                    } else {
                        eol = b'r';
                    }
                } else if eol == b'n' {
                    return (rows, lineno, newline(LineFault::Return(csv.is_some())));
                }
                break here;
            }
            if c == b'\n' && !in_quote {
                if eol == b'r' || eol == b'b' {
                    return (rows, lineno, newline(LineFault::Newline(csv.is_some())));
                }
                eol = b'n';
                break here;
            }
            if c == b'\\' && (csv.is_none() || first) {
                if at >= data.len() && csv.is_none() {
                    rows.push(data[start..].to_vec());
                    return (rows, lineno + line_no, Step::End);
                }
                if byte(at) == b'.' {
                    let mut look = at + 1;
                    let mut not = None;
                    if eol == b'b' {
                        match byte(look) {
                            b'\n' => not = Some(LineFault::MarkerStyle),
                            b'\r' => {}
                            _ => not = Some(LineFault::MarkerCorrupt),
                        }
                        look += 1;
                    }
                    let c2 = byte(look);
                    if not.is_none() && c2 != b'\r' && c2 != b'\n' {
                        not = Some(LineFault::MarkerCorrupt);
                    }
                    match (not, csv.is_some()) {
                        (Some(fault), false) => return (rows, lineno, Step::Bad(fault)),
                        (Some(_), true) => {}
                        (None, _) => {
                            let fits = match eol {
                                b'n' | b'b' => c2 == b'\n',
                                b'r' => c2 == b'\r',
                                _ => true,
                            };
                            if !fits {
                                return (rows, lineno, Step::Bad(LineFault::MarkerStyle));
                            }
                            if here > start {
                                rows.push(data[start..here].to_vec());
                                lineno += line_no;
                            }
                            return (rows, lineno, Step::End);
                        }
                    }
                } else if csv.is_none() {
                    at += 1;
                }
            }
            first = false;
        };
        rows.push(data[start..end].to_vec());
        lineno += line_no;
    }
}

/// `CopyReadAttributesCSV`; `None`: unterminated.
fn csv_of_postgres(row: &[u8], quote: u8, escape: u8, null: &[u8]) -> Vec<Option<Option<Vec<u8>>>> {
    let (mut fields, mut at) = (Vec::new(), 0);
    loop {
        let start = at;
        let (mut out, mut saw_quote, mut found) = (Vec::new(), false, false);
        let end = 'field: loop {
            loop {
                let end = at;
                if at >= row.len() {
                    break 'field end;
                }
                let c = row[at];
                at += 1;
                if c == b',' {
                    found = true;
                    break 'field end;
                }
                if c == quote {
                    saw_quote = true;
                    break;
                }
                out.push(c);
            }
            loop {
                if at >= row.len() {
                    fields.push(None);
                    return fields;
                }
                let c = row[at];
                at += 1;
                if c == escape
                    && let Some(next) = row.get(at).filter(|n| **n == escape || **n == quote)
                {
                    out.push(*next);
                    at += 1;
                    continue;
                }
                if c == quote {
                    break;
                }
                out.push(c);
            }
        };
        let is_null = !saw_quote && &row[start..end] == null;
        fields.push(Some((!is_null).then_some(out)));
        if !found {
            return fields;
        }
    }
}

#[test]
fn random_data_is_cut_as_postgres_does() {
    let mut random = StdRng::seed_from_u64(7);
    let csv = |quote: &[u8], escape: &[u8]| Options {
        quote: Some(quote.to_vec()),
        escape: Some(escape.to_vec()),
        ..options(Format::Csv)
    };
    let kinds = [
        (options(Format::Text), None),
        (options(Format::Csv), Some((b'"', b'"'))),
        (csv(b"\"", b"\\"), Some((b'"', b'\\'))),
        (csv(b"\\", b"\\"), Some((b'\\', b'\\'))),
        (csv(b"'", b"!"), Some((b'\'', b'!'))),
    ];
    let alphabets: [&[u8]; 3] = [b"a,\n\"\\.!'", b"a,\r\n\"\\.", b"a,\r\"\\.'!\n\t"];
    for round in 0..60_000 {
        let (options, quotes) = &kinds[round % kinds.len()];
        let alphabet = alphabets[random.random_range(0..alphabets.len())];
        let len = random.random_range(0..24);
        let data: Vec<u8> = (0..len)
            .map(|_| alphabet[random.random_range(0..alphabet.len())])
            .collect();
        let mut cuts: Vec<usize> = (0..random.random_range(0..4))
            .map(|_| random.random_range(0..=data.len()))
            .collect();
        cuts.sort_unstable();
        let expected = lines_of_postgres(&data, *quotes);
        let shown = String::from_utf8_lossy(&data).into_owned();
        assert_eq!(
            split(options, &data, &cuts),
            expected,
            "{shown:?} {cuts:?} {options:?}"
        );
        if let Some((quote, escape)) = quotes {
            for row in expected.0 {
                let expected = csv_of_postgres(&row, *quote, *escape, b"");
                let ours = all_fields(options, &row, expected.len());
                assert_eq!(ours, expected, "{:?}", String::from_utf8_lossy(&row));
                assert_eq!(
                    all_fields(options, &row, expected.len() + 1).pop(),
                    Some(None)
                );
            }
        }
    }
}

#[test]
fn text_fields() {
    let text = options(Format::Text);
    let some = |bytes: &[u8]| Some(Some(bytes.to_vec()));
    let one = |row: &[u8]| all_fields(&text, row, 1).remove(0);
    assert_eq!(
        all_fields(&text, b"1\t\\N\t\tx\\\ty", 5),
        [some(b"1"), Some(None), some(b""), some(b"x\ty"), None]
    );
    assert_eq!(
        one(b"\\x41\\x4\\xg\\101\\60a\\777"),
        some(b"A\x04xgA0a\xff")
    );
    assert_eq!(
        one(b"\\b\\f\\n\\r\\t\\v\\\\\\N"),
        some(b"\x08\x0c\n\r\t\x0b\\N")
    );
    assert_eq!(one(b"a\\"), some(b"a"));
    assert_eq!(one(b""), some(b""));
    let empty_null = Options {
        null: Some(Vec::new()),
        delimiter: Some(b"|".to_vec()),
        ..text
    };
    assert_eq!(
        all_fields(&empty_null, b"|\\N|a\tb", 3),
        [Some(None), some(b"N"), some(b"a\tb")]
    );
}

fn binary_row(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = (fields.len() as i16).to_be_bytes().to_vec();
    for field in fields {
        match field {
            None => row.extend((-1i32).to_be_bytes()),
            Some(value) => {
                row.extend((value.len() as i32).to_be_bytes());
                row.extend_from_slice(value);
            }
        }
    }
    row
}

#[test]
fn binary_rows_in_any_pieces() {
    let rows = [
        binary_row(&[Some(b"12345678"), None, Some(b"")]),
        binary_row(&[None, Some(b"x\n\\.\n"), Some(b"yz")]),
        binary_row(&[]),
    ];
    let mut data = rows.concat();
    let options = options(Format::Binary);
    for trailer in [&b""[..], b"\xff\xff"] {
        data.extend_from_slice(trailer);
        for cut in 0..=data.len() {
            let (found, lines, end) = split(&options, &data, &[cut]);
            assert_eq!((found, lines, end), (rows.to_vec(), 3, Step::End), "{cut}");
        }
    }
    assert_eq!(
        all_fields(&options, &rows[0], 4),
        [
            Some(Some(b"12345678".to_vec())),
            Some(None),
            Some(Some(Vec::new())),
            None
        ]
    );
    for broken in [
        &b"\0\x01\0\0"[..],
        b"\0",
        b"\0\x01\0\0\0\x05abc",
        b"\0\x01\xff\xff\xff\xfe",
        b"\xff\xfe",
        b"\xff\xffx",
    ] {
        assert_eq!(split(&options, broken, &[]).2, Step::Broken, "{broken:?}");
    }
}

#[test]
fn options_that_postgres_refuses_have_no_splitter() {
    let of = |format, set: &dyn Fn(&mut Options)| {
        let mut options = options(format);
        set(&mut options);
        Splitter::new(&options, true).is_some()
    };
    assert!(of(Format::Text, &|o| o.delimiter = Some(b"|".to_vec())));
    assert!(!of(Format::Text, &|o| o.delimiter = Some(b"ab".to_vec())));
    assert!(!of(Format::Text, &|o| o.delimiter = Some(b"a".to_vec())));
    assert!(!of(Format::Text, &|o| o.delimiter = Some(b"\n".to_vec())));
    assert!(!of(Format::Csv, &|o| o.delimiter = Some(b"\"".to_vec())));
    assert!(!of(Format::Csv, &|o| o.quote = Some(b"".to_vec())));
    assert!(of(Format::Csv, &|o| o.escape = Some(b"\\".to_vec())));
}
