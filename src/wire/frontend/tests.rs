//! Exact bytes of each message, and bodies that lie.

use super::*;

fn wrote(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn exact_bytes() {
    let cases: &[(Vec<u8>, &[u8])] = &[
        (wrote(|o| query(o, b"SELECT 1")), b"Q\0\0\0\x0dSELECT 1\0"),
        (
            wrote(|o| parse(o, b"s", b"SELECT $1", [23, 0])),
            b"P\0\0\0\x1as\0SELECT $1\0\0\x02\0\0\0\x17\0\0\0\0",
        ),
        (
            wrote(|o| bind_renamed(o, b"p", b"s", b"\0\0\0\0\0\0")),
            b"B\0\0\0\x0ep\0s\0\0\0\0\0\0\0",
        ),
        (
            wrote(|o| describe(o, Kind::Statement, b"s")),
            b"D\0\0\0\x07Ss\0",
        ),
        (wrote(|o| close(o, Kind::Portal, b"")), b"C\0\0\0\x06P\0"),
        (
            wrote(|o| execute(o, b"p", 100)),
            b"E\0\0\0\x0ap\0\0\0\0\x64",
        ),
        (wrote(sync), b"S\0\0\0\x04"),
        (wrote(flush), b"H\0\0\0\x04"),
        (wrote(terminate), b"X\0\0\0\x04"),
        (wrote(|o| copy_data(o, b"1\t2\n")), b"d\0\0\0\x081\t2\n"),
        (wrote(copy_done), b"c\0\0\0\x04"),
        (wrote(|o| copy_fail(o, b"no")), b"f\0\0\0\x07no\0"),
        (
            wrote(|o| startup(o, &[("user", "a"), ("database", "d")])),
            b"\0\0\0\x1b\0\x03\0\0user\0a\0database\0d\0\0",
        ),
        (
            wrote(|o| cancel_request(o, b"\0\0\0\x07key!")),
            b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07key!",
        ),
        (wrote(|o| password(o, b"pw")), b"p\0\0\0\x07pw\0"),
        (
            wrote(|o| sasl_initial_response(o, "M", b"abc")),
            b"p\0\0\0\x0dM\0\0\0\0\x03abc",
        ),
        (wrote(|o| sasl_response(o, b"abc")), b"p\0\0\0\x07abc"),
    ];
    for (written, expected) in cases {
        assert_eq!(written, expected);
    }
}

#[test]
fn parse_views() {
    let body = b"name\0SELECT $1, $2\0\0\x02\0\0\0\x17\0\0\x10\0";
    let view = Parse::decode(body).unwrap();
    assert_eq!(view.name, b"name");
    assert_eq!(view.query, b"SELECT $1, $2");
    assert_eq!(view.types.len(), 2);
    assert!(view.types.iter().eq([23, 4096]));
    assert_eq!((view.types.get(1), view.types.get(2)), (Some(4096), None));
    assert_eq!(Oids::from_bytes(view.types.as_bytes()), view.types);
    assert_eq!(Oids::from_bytes(b"\0\0\0\x17\0\0").len(), 1);

    assert_eq!(Parse::decode(b""), Err(DecodeFault::NoNul));
    assert_eq!(Parse::decode(b"n\0SELECT"), Err(DecodeFault::NoNul));
    assert_eq!(Parse::decode(b"n\0q\0\0"), Err(DecodeFault::Short));
    assert_eq!(
        Parse::decode(b"n\0q\0\xff\xff\0\0"),
        Err(DecodeFault::Short)
    );
    assert_eq!(Parse::decode(b"n\0q\0\0\0x"), Err(DecodeFault::Trailing));
}

#[test]
fn bind_views() {
    let one_format =
        b"p\0st\0\0\x01\0\x01\0\x03\0\0\0\x02hi\xff\xff\xff\xff\0\0\0\0\0\x02\0\x00\0\x01";
    let view = Bind::decode(one_format).unwrap();
    assert_eq!((view.portal, view.statement), (&b"p"[..], &b"st"[..]));
    assert_eq!(view.rest, &one_format[5..]);
    assert_eq!(view.param_count(), 3);
    assert_eq!(view.param(0), Some((1, Some(&b"hi"[..]))));
    assert_eq!(view.param(1), Some((1, None)));
    assert_eq!(view.param(2), Some((1, Some(&b""[..]))));
    assert_eq!(view.param(3), None);
    assert!(view.result_formats().eq([0, 1]));

    let each = b"\0\0\0\x02\0\0\0\x01\0\x02\0\0\0\x01a\0\0\0\x01b\0\0";
    let view = Bind::decode(each).unwrap();
    let params: Vec<_> = view.params().collect();
    assert_eq!(params, [(0, Some(&b"a"[..])), (1, Some(&b"b"[..]))]);

    let text = b"\0\0\0\0\0\x01\0\0\0\x01a\0\x01\0\x01";
    assert_eq!(
        Bind::decode(text).unwrap().param(0),
        Some((0, Some(&b"a"[..])))
    );
    // One format for all is fine for none at all.
    assert_eq!(
        Bind::decode(b"\0\0\0\x01\0\x01\0\0\0\0").unwrap().param(0),
        None
    );
}

#[test]
fn binds_that_lie() {
    use DecodeFault::*;
    let cases: &[(&[u8], DecodeFault)] = &[
        (b"", NoNul),
        (b"p\0", NoNul),
        (b"\0\0", Short),
        (b"\0\0\0\x02\0\0", Short),
        (b"\0\0\0\0\0\x01", Short),
        (b"\0\0\0\0\0\x01\0\0\0\x05abcd", Short),
        (b"\0\0\0\0\0\x01\x7f\xff\xff\xffabcd\0\0", Short),
        (b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", Short),
        (b"\0\0\0\0\0\0\0\x01", Short),
        (b"\0\0\0\0\0\0\0\0\0", Trailing),
    ];
    for (body, fault) in cases {
        assert_eq!(Bind::decode(body), Err(*fault), "{body:?}");
    }
    let two_for_one = Bind::decode(b"\0\0\0\x02\0\0\0\0\0\x01\0\0\0\0\0\0").unwrap();
    assert_eq!(two_for_one.unfit_formats(), Some(2));
    // 65,535 parameters, not -1.
    let mut body = b"\0\0\0\0\xff\xff".to_vec();
    body.resize(body.len() + 4 * 65_535, 0xff);
    body.extend_from_slice(b"\0\0");
    let view = Bind::decode(&body).unwrap();
    assert_eq!(view.params().filter(|(_, v)| v.is_none()).count(), 65_535);
}

#[test]
fn the_other_views() {
    let describe = Describe::decode(b"Sname\0").unwrap();
    assert_eq!(
        (describe.kind, describe.name),
        (Kind::Statement, &b"name"[..])
    );
    assert_eq!(
        Describe::decode(b"xname\0"),
        Err(DecodeFault::DescribeKind(b'x'))
    );
    assert_eq!(Describe::decode(b""), Err(DecodeFault::NoData));
    assert_eq!(Close::decode(b"P\0").unwrap().kind, Kind::Portal);
    assert_eq!(Close::decode(b"\0\0"), Err(DecodeFault::CloseKind(0)));
    assert_eq!(Close::decode(b"P"), Err(DecodeFault::NoNul));
    let execute = Execute::decode(b"\0\xff\xff\xff\xff").unwrap();
    assert_eq!((execute.portal, execute.max_rows), (&b""[..], -1));
    assert_eq!(Execute::decode(b"\0\0\0\0"), Err(DecodeFault::Short));
    assert_eq!(Query::decode(b"x\0").unwrap().text, b"x");
    assert_eq!(Query::decode(b"x\0y\0"), Err(DecodeFault::Trailing));
    assert_eq!(CopyFail::decode(b"why\0").unwrap().reason, b"why");
    assert_eq!(PasswordMessage::decode(b"pw\0").unwrap().password, b"pw");
    assert_eq!(
        FunctionCall::decode(b"\0\0\x04\xd2rest").unwrap().function,
        1234
    );
    let none = SaslInitialResponse::decode(b"M\0\xff\xff\xff\xff").unwrap();
    assert_eq!((none.mechanism, none.response), (&b"M"[..], None));
    assert_eq!(no_body(b""), Ok(()));
    assert_eq!(no_body(b"\0"), Err(DecodeFault::Trailing));
}
