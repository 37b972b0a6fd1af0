//! scan.l's rules one by one, then whole statements.

use super::HoleKind::{Comment, DollarString, EscapeString, Number, OtherString, String as Plain};
use super::*;

fn scan(text: &[u8]) -> Shape {
    let mut shape = Shape::default();
    shape
        .scan(text)
        .unwrap_or_else(|fault| panic!("{:?}: {fault:?}", String::from_utf8_lossy(text)));
    shape
}

fn holes(text: &str) -> Vec<(&str, HoleKind)> {
    let shape = scan(text.as_bytes());
    let piece = |h: &Hole| (&text[h.start as usize..h.end as usize], h.kind);
    shape.holes.iter().map(piece).collect()
}

fn key(text: &str) -> String {
    String::from_utf8(scan(text.as_bytes()).key).unwrap()
}

fn pieces(text: &str) -> Vec<&str> {
    scan(text.as_bytes())
        .pieces(text.as_bytes())
        .map(|p| &text[p])
        .collect()
}

#[test]
fn plain_strings() {
    assert_eq!(holes("'a'"), [("'a'", Plain)]);
    assert_eq!(holes("''"), [("''", Plain)]);
    assert_eq!(holes("'it''s'"), [("'it''s'", Plain)]);
    assert_eq!(holes("''''"), [("''''", Plain)]);
    assert_eq!(
        holes(r"'a\' 'b'"),
        [(r"'a\'", Plain), ("'b'", Plain)],
        "a backslash is a byte like others"
    );
    assert_eq!(holes("x='a'and y='b'"), [("'a'", Plain), ("'b'", Plain)]);
    assert_eq!(holes("N'a' n'b'"), [("N'a'", Plain), ("n'b'", Plain)]);
    assert_eq!(holes("'--' '/*'"), [("'--'", Plain), ("'/*'", Plain)]);
    assert_eq!(holes("'\"' '$$'"), [("'\"'", Plain), ("'$$'", Plain)]);
}

#[test]
fn strings_go_on_after_a_line_end() {
    for text in [
        "'a'\n'b'",
        "'a'\r'b'",
        "'a' \t\n\n \u{c} 'b'",
        "'a'--x\n'b'",
        "'a' -- 'x' \n -- y\n'b'",
        "'a'\n-- it's\n'b'",
        "'a'\n'b'\n'c'",
        "'a'\u{b}\n'b'",
    ] {
        assert_eq!(holes(text), [(text, Plain)], "{text:?}");
    }
    assert_eq!(holes("'a' 'b'").len(), 2);
    assert_eq!(holes("'a'\n"), [("'a'", Plain)]);
    assert_eq!(holes("'a'\n-1"), [("'a'", Plain), ("1", Number)]);
    assert_eq!(holes("'a'\n- -'b'").len(), 2);
    assert_eq!(
        holes("'a' /* \n */ 'b'"),
        [("'a'", Plain), ("/* \n */", Comment), ("'b'", Plain)]
    );
    assert_eq!(holes("'a'\n/**/'b'").len(), 3);
    assert_eq!(holes("'a' --'b'"), [("'a'", Plain), ("--'b'", Comment)]);
    assert_eq!(holes("'a'\nE'b'"), [("'a'", Plain), ("E'b'", EscapeString)]);
    assert_eq!(
        holes("E'a\\''\n'b\\''"),
        [("E'a\\''\n'b\\''", EscapeString)]
    );
    assert_eq!(holes("B'1'\n'0'"), [("B'1'\n'0'", OtherString)]);
    assert_eq!(
        holes("$$a$$\n'b'"),
        [("$$a$$", DollarString), ("'b'", Plain)]
    );
    assert_eq!(
        holes("'a'\n'b''c' 'd'"),
        [("'a'\n'b''c'", Plain), ("'d'", Plain)]
    );
}

#[test]
fn escape_strings() {
    assert_eq!(holes(r"E'it\'s'"), [(r"E'it\'s'", EscapeString)]);
    assert_eq!(
        holes(r"e'\\' 'x'"),
        [(r"e'\\'", EscapeString), ("'x'", Plain)]
    );
    assert_eq!(holes(r"E'\\\'''x'"), [(r"E'\\\'''x'", EscapeString)]);
    assert_eq!(holes("E'\\\n'"), [("E'\\\n'", EscapeString)]);
    assert_eq!(
        holes(r"'\'; DELETE FROM t; --'"),
        [(r"'\'", Plain), ("--'", Comment)]
    );
}

#[test]
fn a_prefix_begins_a_token() {
    assert_eq!(holes(r"typeE'\'"), [(r"'\'", Plain)]);
    assert_eq!(holes(r"_e'\'"), [(r"'\'", Plain)]);
    assert_eq!(
        holes(r"$e'\''"),
        [(r"e'\''", EscapeString)],
        "a lone $ is a token of its own"
    );
    assert_eq!(key("ab'1'"), "ab\u{2}");
    assert_eq!(holes("\u{e9}b'1'"), [("'1'", Plain)]);
    assert_eq!(holes("1E'a'"), [("1", Number), ("E'a'", EscapeString)]);
    assert_eq!(holes("\"x\"E'a'"), [("E'a'", EscapeString)]);
    assert_eq!(holes("E 'a'"), [("'a'", Plain)]);
    assert_eq!(holes("u& 'a'"), [("'a'", Plain)]);
    assert_eq!(holes("u &'a'"), [("'a'", Plain)]);
    assert_eq!(
        holes("xu&'a'"),
        [("'a'", Plain)],
        "xu is a word, & an operator"
    );
}

#[test]
fn bit_and_unicode_strings() {
    assert_eq!(
        holes("B'101' x'1F'"),
        [("B'101'", OtherString), ("x'1F'", OtherString)]
    );
    assert_eq!(
        holes("B'1''0'"),
        [("B'1'", OtherString), ("'0'", Plain)],
        "no doubled quotes here"
    );
    assert_eq!(
        holes(r"U&'d\0061''t' u&'x'"),
        [(r"U&'d\0061''t'", OtherString), ("u&'x'", OtherString)]
    );
    assert_eq!(
        holes(r"U&'\' 'x'"),
        [(r"U&'\'", OtherString), ("'x'", Plain)]
    );
    assert_eq!(
        holes("U&'a' UESCAPE '!'"),
        [("U&'a'", OtherString), ("'!'", Plain)]
    );
    assert_eq!(holes("U&\"a'b\" 'c'"), [("'c'", Plain)]);
}

#[test]
fn dollar_strings() {
    assert_eq!(holes("$$body$$"), [("$$body$$", DollarString)]);
    assert_eq!(holes("$$$$"), [("$$$$", DollarString)]);
    assert_eq!(
        holes("$t$bo$$dy'$x$t$"),
        [("$t$bo$$dy'$x$t$", DollarString)]
    );
    assert_eq!(
        holes("$t$a$T$t$ 1"),
        [("$t$a$T$t$", DollarString), ("1", Number)]
    );
    assert_eq!(
        holes("$a$ $b$a$ 1"),
        [("$a$ $b$a$", DollarString), ("1", Number)]
    );
    assert_eq!(
        holes("$$ $a$$ 1"),
        [("$$ $a$$", DollarString), ("1", Number)]
    );
    assert_eq!(holes("$_1$;$_1$"), [("$_1$;$_1$", DollarString)]);
    assert_eq!(
        holes("$\u{e9}$'$\u{e9}$"),
        [("$\u{e9}$'$\u{e9}$", DollarString)]
    );
    assert_eq!(
        holes("a$b$ 'x' c$b$"),
        [("'x'", Plain)],
        "an identifier may hold $"
    );
    assert_eq!(holes("$1$$x$$"), [("$$x$$", DollarString)]);
    assert_eq!(holes("1$$x$$"), [("1", Number), ("$$x$$", DollarString)]);
    assert_eq!(holes("$tag 'x'"), [("'x'", Plain)]);
    assert_eq!(holes("$a b$ 'x'"), [("'x'", Plain)]);
    assert_eq!(holes("$-$ 1"), [("1", Number)]);
    assert_eq!(holes("$"), []);
}

#[test]
fn parameters_stay() {
    assert_eq!(key("$1 = $23::int8"), "$1 = $23::int8");
    assert_eq!(key("$1abc"), "$1abc");
    assert_eq!(key("$1'x'"), "$1\u{2}");
    assert_eq!(key("$1.5"), "$1\u{1}");
}

#[test]
fn numbers() {
    for text in [
        "0",
        "42",
        "1.5",
        "1.",
        ".5",
        "1e5",
        "1E+5",
        "1.e-5",
        ".5e10",
        "1.5e3",
        "0x1F",
        "0b01",
        "0o17",
        "1_000",
        "1_0.0_1e1_0",
        "007",
    ] {
        assert_eq!(holes(text), [(text, Number)], "{text}");
        assert_eq!(holes(&format!("({text})")), [(text, Number)], "{text}");
    }
    assert_eq!(holes("1..2"), [("1", Number), ("2", Number)]);
    assert_eq!(holes("1...5"), [("1", Number), (".5", Number)]);
    assert_eq!(holes("1.5.5"), [("1.5", Number), (".5", Number)]);
    assert_eq!(holes("1.5..5"), [("1.5", Number), ("5", Number)]);
    assert_eq!(
        holes("-1 - -2 +3"),
        [("1", Number), ("2", Number), ("3", Number)],
        "signs are no part of it"
    );
    assert_eq!(key("tags[1:2]"), "tags[\u{1}:\u{1}]");
    assert_eq!(key("a.5"), "a\u{1}");
    assert_eq!(key("a.b.c"), "a.b.c");
    assert_eq!(key("t1.c2_3"), "t1.c2_3");
    assert_eq!(key("x::numeric(10,2)"), "x::numeric(\u{1},\u{1})");
}

#[test]
fn junk_after_a_number_is_the_next_token() {
    for (text, key_wanted) in [
        ("123abc", "\u{1}abc"),
        ("1e", "\u{1}e"),
        ("1e+", "\u{1}e+"),
        ("1.a", "\u{1}a"),
        ("0x", "\u{1}x"),
        ("0xg", "\u{1}xg"),
        ("0b2", "\u{1}b2"),
        ("0x_", "\u{1}x_"),
        ("1__0", "\u{1}__0"),
        ("1_", "\u{1}_"),
        ("1._5", "\u{1}_5"),
        ("1and", "\u{1}and"),
        ("1e5e5", "\u{1}e5"),
        ("0x1Fg", "\u{1}g"),
    ] {
        assert_eq!(key(text), key_wanted, "{text}");
    }
}

#[test]
fn comments() {
    assert_eq!(
        holes("1 -- x\n2"),
        [("1", Number), ("-- x", Comment), ("2", Number)]
    );
    assert_eq!(holes("--x\r1"), [("--x", Comment), ("1", Number)]);
    assert_eq!(holes("--"), [("--", Comment)]);
    assert_eq!(holes("/**/1"), [("/**/", Comment), ("1", Number)]);
    assert_eq!(holes("/***/1"), [("/***/", Comment), ("1", Number)]);
    assert_eq!(holes("/*/ */1"), [("/*/ */", Comment), ("1", Number)]);
    assert_eq!(
        holes("/* /* */ ' */1"),
        [("/* /* */ ' */", Comment), ("1", Number)]
    );
    assert_eq!(holes("/*//**/*/1"), [("/*//**/*/", Comment), ("1", Number)]);
    assert_eq!(holes("/* -- */1"), [("/* -- */", Comment), ("1", Number)]);
    assert_eq!(holes("-- /*\n1"), [("-- /*", Comment), ("1", Number)]);
    assert_eq!(key("a/*x*/b"), "a\u{6}b");
}

#[test]
fn a_comment_ends_an_operator() {
    assert_eq!(
        holes("1+/*x*/2"),
        [("1", Number), ("/*x*/", Comment), ("2", Number)]
    );
    assert_eq!(holes("1=--x"), [("1", Number), ("--x", Comment)]);
    assert_eq!(holes("1---2"), [("1", Number), ("---2", Comment)]);
    assert_eq!(holes("*/*x*/1"), [("/*x*/", Comment), ("1", Number)]);
    assert_eq!(holes("//*x*/1"), [("/*x*/", Comment), ("1", Number)]);
    assert_eq!(holes("-/*--*/1"), [("/*--*/", Comment), ("1", Number)]);
    assert_eq!(holes("/--*1"), [("--*1", Comment)]);
    assert_eq!(holes("@-1 !=- 3"), [("1", Number), ("3", Number)]);
    assert_eq!(holes("5 * / 2 - 1").len(), 3);
}

#[test]
fn quoted_identifiers_stay() {
    assert_eq!(key("\"a'b\" \"c\"\"'d\""), "\"a'b\" \"c\"\"'d\"");
    assert_eq!(key("\"--\"\"/*\"; \"$$\""), "\"--\"\"/*\"; \"$$\"");
    assert_eq!(key("U&\"\\0061'\"1"), "U&\"\\0061'\"\u{1}");
    assert_eq!(key("\"1\".\"x2\""), "\"1\".\"x2\"");
}

#[test]
fn what_does_not_end_is_a_fault() {
    for (text, at) in [
        ("x 'a", 2),
        ("'a'\n'b", 0),
        (r"'a''", 0),
        (r"E'a\'", 0),
        (r"E'\", 0),
        ("  B'1", 2),
        ("U&'a", 0),
        ("x = \"a", 4),
        ("\"a\"\"", 0),
        ("U&\"a", 0),
        ("/* x", 0),
        ("/*/", 0),
        ("/* /* */", 0),
        ("1 + /*", 4),
        ("$$a", 0),
        ("$t$a$$", 0),
        ("$t$a$t", 0),
        ("$$$", 0),
    ] {
        let fault = Shape::default().scan(text.as_bytes());
        assert_eq!(fault, Err(ShapeFault::Unterminated { at }), "{text:?}");
    }
}

#[test]
fn keys_tell_shapes_apart() {
    assert_eq!(key("SELECT 1, 'x' -- c"), key("SELECT 22.5, 'y''z' -- dd"));
    assert_eq!(key("x = E'a' OR $$b$$"), "x = \u{3} OR \u{4}");
    let different = [
        "x = 1",
        "x = '1'",
        "x = E'1'",
        "x = $$1$$",
        "x = B'1'",
        "x = $1",
        "x =1",
        "X = 1",
        "x = -1",
        "x = 1 /**/",
    ];
    for (n, a) in different.iter().enumerate() {
        for b in &different[n + 1..] {
            assert_ne!(key(a), key(b), "{a} {b}");
        }
    }
}

#[test]
fn marker_bytes_in_the_text_make_it_opaque() {
    assert!(!scan(b"SELECT 1, '\x01\x02', /* \x03 */ $$\x06$$").opaque);
    assert!(scan(b"SELECT \x01").opaque);
    assert!(scan(b"SELECT \"a\x06\"").opaque);
    assert!(scan(b"SELECT u&\"\x02\"").opaque);
    assert!(!scan(b"SELECT \x07 \x0b").opaque);
    let mut shape = scan(b"\x01");
    shape.scan(b"SELECT 1").unwrap();
    assert!(!shape.opaque, "a new scan begins anew");
}

#[test]
fn bytes_that_are_no_utf8() {
    let text = b"SELECT caf\xe9 = '\xff\xfe', \"\xc3\" FROM \xe9t1 WHERE x = 1";
    let shape = scan(text);
    assert_eq!(
        shape.holes.iter().map(|h| h.kind).collect::<Vec<_>>(),
        [Plain, Number]
    );
    assert_eq!(
        shape.key,
        b"SELECT caf\xe9 = \x02, \"\xc3\" FROM \xe9t1 WHERE x = \x01"
    );
}

#[test]
fn hints_are_noticed() {
    for text in [
        "/* presplit: key=1 */",
        "-- presplit: key=1",
        "--Presplit :",
        "/* a: b, presplit\n: all */",
        "1 /*x*/ -- y presplit:",
    ] {
        assert!(scan(text.as_bytes()).hinted, "{text}");
    }
    for text in [
        "'presplit: key=1'",
        "/* presplit */",
        "/* x: presplit */",
        "$$ -- presplit: $$",
        "SELECT 1",
    ] {
        assert!(!scan(text.as_bytes()).hinted, "{text}");
    }
}

#[test]
fn statements_of_a_text() {
    assert_eq!(pieces("SELECT 1"), ["SELECT 1"]);
    assert_eq!(pieces(" SELECT 1 ;\n"), ["SELECT 1"]);
    assert_eq!(pieces("a; b;;c"), ["a", "b", "c"]);
    assert_eq!(pieces(";;"), [""; 0]);
    assert_eq!(pieces("/* x */; -- y"), [""; 0]);
    assert_eq!(pieces(""), [""; 0]);
    assert_eq!(
        pieces("a /* ; */; /* b */ b -- ;\n;"),
        ["a /* ; */", "/* b */ b -- ;"]
    );
    assert_eq!(pieces("';' ; \";\" ; $$;$$"), ["';'", "\";\"", "$$;$$"]);
    assert_eq!(pieces("x, ';'"), ["x, ';'"]);
    assert_eq!(
        pieces("1;2"),
        ["1", "2"],
        "a literal alone is something to refuse, not nothing"
    );
    assert_eq!(
        pieces("CREATE RULE r AS ON INSERT TO t DO (a; b); c"),
        ["CREATE RULE r AS ON INSERT TO t DO (a; b)", "c"]
    );
    assert_eq!(pieces("a); b"), ["a)", "b"]);
    assert_eq!(pieces("(a; b"), ["(a; b"]);
    assert_eq!(
        pieces("BEGIN; UPDATE t SET x = 1; END; c"),
        ["BEGIN", "UPDATE t SET x = 1", "END", "c"]
    );
}

#[test]
fn bodies_of_sql_functions_hold_semicolons() {
    let f = "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT t.end, 1 AS case; END";
    assert_eq!(pieces(f), [f]);
    assert_eq!(
        pieces(&format!("a; {f}; /* x */ {f} ;b;")),
        ["a", f, &format!("/* x */ {f}"), "b"]
    );
    let p = "create procedure p(begin int) begin atomic insert into t values (1); end";
    assert_eq!(pieces(&format!("{p};c;d")), [p, "c", "d"]);
    for f in [
        "CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1 end; END",
        "CREATE FUNCTION h() RETURNS int COST 5 BEGIN ATOMIC ; SELECT 1; END",
        "CREATE FUNCTION i() RETURNS void BEGIN /* x */ ATOMIC END",
        "CREATE FUNCTION j() RETURNS int BEGIN ATOMIC SELECT CASE WHEN (1) = 2 THEN 3 END AS begin; END",
    ] {
        assert_eq!(pieces(&format!("{f}; c; d")), [f, "c", "d"]);
    }
    let old = "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1; SELECT 2'";
    assert_eq!(
        pieces(&format!("{old}; atomic; b")),
        [old, "atomic", "b"],
        "only BEGIN ATOMIC opens a body"
    );
    assert_eq!(pieces("CREATE TABLE t (begin int); atomic; b").len(), 3);
    assert_eq!(
        pieces("CREATE VIEW function AS SELECT 1 begin; atomic; b").len(),
        3
    );
    let open = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2;";
    assert_eq!(
        pieces(open),
        [open],
        "an open body is one statement, which Postgres refuses"
    );
}

#[test]
fn whole_statements() {
    let text = r#"SELECT "p"."id" FROM "p" WHERE "p"."user_id" = 42 AND caption = E'a\'b' AND x <> '{1,2}'::int8[] LIMIT 21;"#;
    assert_eq!(
        holes(text),
        [
            ("42", Number),
            (r"E'a\'b'", EscapeString),
            ("'{1,2}'", Plain),
            ("21", Number)
        ]
    );
    assert_eq!(
        key(text),
        "SELECT \"p\".\"id\" FROM \"p\" WHERE \"p\".\"user_id\" = \u{1} AND caption = \u{3} AND x <> \u{2}::int8[] LIMIT \u{1};"
    );
    assert_eq!(
        holes(
            r"select E'it\'s', U&'d\0061t\+000061', B'101', X'1F', N'x', $$body$$, $tag$bo$$dy$tag$;"
        ),
        [
            (r"E'it\'s'", EscapeString),
            (r"U&'d\0061t\+000061'", OtherString),
            ("B'101'", OtherString),
            ("X'1F'", OtherString),
            ("N'x'", Plain),
            ("$$body$$", DollarString),
            ("$tag$bo$$dy$tag$", DollarString),
        ]
    );
    assert_eq!(
        holes(
            r#"SELECT * FROM "Photos" "p" WHERE "p"."userId"=1 AND "p"."caption" LIKE '%\%%' ESCAPE '\';"#
        ),
        [("1", Number), (r"'%\%%'", Plain), (r"'\'", Plain)]
    );
    assert_eq!(holes("WHERE photos.user_id = %(user_id_1)s"), []);
    assert_eq!(
        holes("data->>'a', data->'b'->0, data#>'{a}', data - 'k'").len(),
        5
    );
    assert_eq!(
        holes(
            "SELECT -1, - 1, +1, 1 - -1, @ -5, |/ 25, 5 !=- 3, ~1, 2 ^ 3, 7 % 3, 1 # 2, 1 << 2, !!5"
        )
        .len(),
        19
    );
}

#[test]
fn every_statement_of_the_fixture_is_one_piece_a_line() {
    let text = include_str!("../../../tests/fixtures/orm.sql");
    let shape = scan(text.as_bytes());
    assert!(!shape.opaque && !shape.hinted);
    let pieces = pieces(text);
    // One statement a line, but for the string that goes on in the next.
    assert_eq!(pieces.len(), text.lines().count() - 1);
    assert!(pieces.contains(&"SELECT 'a'\n'b'"));
    for piece in pieces {
        assert_eq!(scan(piece.as_bytes()).semicolons.len(), 0, "{piece}");
    }
}
