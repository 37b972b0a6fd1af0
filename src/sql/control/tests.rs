//! What is a control statement and what isn't; each refusal was tried on Postgres 15.

mod settings;

use super::*;

fn read(text: &str) -> Option<Control> {
    let mut shape = Shape::default();
    shape.scan(text.as_bytes()).unwrap();
    parse(text.as_bytes(), &shape)
}

fn begin(
    isolation: Option<Isolation>,
    read_only: Option<bool>,
    deferrable: Option<bool>,
) -> Option<Control> {
    Some(Control::Begin(BeginOptions {
        isolation,
        read_only,
        deferrable,
    }))
}

fn name(text: &str) -> String {
    text.to_string()
}

#[test]
fn transactions() {
    use Isolation::*;
    for text in [
        "BEGIN",
        "begin;",
        " Begin Work ; ;",
        "BEGIN TRANSACTION",
        "START TRANSACTION",
        "/* x */ BEGIN -- y",
    ] {
        assert_eq!(read(text), begin(None, None, None), "{text}");
    }
    assert_eq!(
        read("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"),
        begin(Some(RepeatableRead), Some(true), None)
    );
    assert_eq!(
        read("START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE, NOT DEFERRABLE"),
        begin(Some(ReadCommitted), Some(false), Some(false))
    );
    assert_eq!(
        read("BEGIN READ ONLY READ WRITE"),
        begin(None, Some(false), None)
    );
    assert_eq!(
        read("BEGIN WORK DEFERRABLE ISOLATION LEVEL SERIALIZABLE"),
        begin(Some(Serializable), None, Some(true))
    );
    assert_eq!(
        read("BEGIN ISOLATION LEVEL READ UNCOMMITTED"),
        begin(Some(ReadUncommitted), None, None)
    );
    for text in [
        "COMMIT",
        "COMMIT WORK",
        "END",
        "END TRANSACTION",
        "commit and no chain",
    ] {
        assert_eq!(read(text), Some(Control::Commit { chain: false }), "{text}");
    }
    assert_eq!(
        read("END WORK AND CHAIN"),
        Some(Control::Commit { chain: true })
    );
    for text in [
        "ROLLBACK",
        "ABORT",
        "ABORT WORK AND NO CHAIN",
        "ROLLBACK TRANSACTION",
    ] {
        assert_eq!(
            read(text),
            Some(Control::Rollback { chain: false }),
            "{text}"
        );
    }
    assert_eq!(
        read("ROLLBACK AND CHAIN"),
        Some(Control::Rollback { chain: true })
    );
}

#[test]
fn savepoints_and_two_phases() {
    assert_eq!(
        read("SAVEPOINT \"s139_x1\";"),
        Some(Control::Savepoint(name("s139_x1")))
    );
    assert_eq!(
        read("SAVEPOINT Sp_1"),
        Some(Control::Savepoint(name("sp_1")))
    );
    assert_eq!(
        read("SAVEPOINT between"),
        Some(Control::Savepoint(name("between")))
    );
    assert_eq!(
        read("RELEASE SAVEPOINT a"),
        Some(Control::Release(name("a")))
    );
    assert_eq!(read("RELEASE sp1"), Some(Control::Release(name("sp1"))));
    assert_eq!(
        read("RELEASE savepoint"),
        Some(Control::Release(name("savepoint")))
    );
    assert_eq!(
        read("RELEASE savepoint savepoint"),
        Some(Control::Release(name("savepoint")))
    );
    assert_eq!(
        read("ROLLBACK TO sp1"),
        Some(Control::RollbackTo(name("sp1")))
    );
    assert_eq!(
        read("ROLLBACK WORK TO SAVEPOINT \"A\"\"b\""),
        Some(Control::RollbackTo(name("A\"b")))
    );
    assert_eq!(
        read("PREPARE TRANSACTION 'x''y'"),
        Some(Control::PrepareTransaction(name("x'y")))
    );
    assert_eq!(
        read("COMMIT PREPARED $$x$$"),
        Some(Control::CommitPrepared(name("x")))
    );
    assert_eq!(
        read("ROLLBACK PREPARED E'\\x41'"),
        Some(Control::RollbackPrepared(name("A")))
    );
}

#[test]
fn what_postgres_refuses_is_left_to_it() {
    for text in [
        "",
        ";",
        "/* x */",
        "'BEGIN'",
        "\"begin\"",
        "BEGIN (implicit);",
        "BEGIN; SELECT 1",
        "BEGIN WORK TRANSACTION",
        "BEGIN , READ ONLY",
        "BEGIN READ ONLY,",
        "BEGIN READ",
        "BEGIN ISOLATION LEVEL",
        "BEGIN ISOLATION LEVEL REPEATABLE",
        "BEGIN NOT",
        "BEGIN 1",
        "BEGIN$",
        "START",
        "START WORK",
        "COMMIT AND",
        "COMMIT AND NO",
        "COMMIT NO CHAIN",
        "COMMIT TO a",
        "COMMIT PREPARED",
        "COMMIT PREPARED x",
        "COMMIT PREPARED N'x'",
        "COMMIT PREPARED 'a' 'b'",
        "ROLLBACK AND CHAIN TO a",
        "ROLLBACK TO",
        "ROLLBACK TO 'a'",
        "ABORT TO a",
        "SAVEPOINT",
        "SAVEPOINT select",
        "SAVEPOINT left",
        "SAVEPOINT a.b",
        "SAVEPOINT \"\"",
        "SAVEPOINT $1",
        "SAVEPOINT U&\"a\" UESCAPE '!'",
        "RELEASE SAVEPOINT a b",
        "SET",
        "SET x",
        "SET x =",
        "SET x TO",
        "SET x = DEFAULT, 1",
        "SET x = 1,",
        "SET x = 1 2",
        "SET x := 1",
        "SET x == 1",
        "SET x = 5abc",
        "SET x = +-5",
        "SET x = $1",
        "SET x = a.b",
        "SET x = select",
        "SET x = B'1'",
        "SET left.a TO 1",
        "SET a.left TO 1",
        "SET a..b = 1",
        "SET a.5 = 1",
        "SET x FROM",
        "SET x FROM CURRENT 1",
        "SET TRANSACTION",
        "SET TRANSACTION SNAPSHOT",
        "SET TRANSACTION SNAPSHOT 'x', READ ONLY",
        "SET SESSION CHARACTERISTICS AS TRANSACTION",
        "SET SESSION CONSTRAINTS ALL DEFERRED",
        "SET CONSTRAINTS DEFERRED",
        "SET NAMES utf8",
        "SET TIME ZONE",
        "SET TIME ZONE left",
        "SET TIME ZONE 'a', 'b'",
        "SET TIME ZONE INTERVAL '1' HOUR TO",
        "SET ROLE",
        "SET ROLE select",
        "SET CATALOG 'x'",
        "SET SCHEMA x",
        "RESET",
        "RESET a b",
        "SHOW",
        "SHOW all.x",
        "SHOW x.all",
        "DISCARD",
        "DISCARD ALL PLANS",
        "PREPARE q",
        "PREPARE q AS",
        "PREPARE q AS BEGIN",
        "PREPARE q() AS SELECT 1",
        "PREPARE q (int AS SELECT 1",
        "PREPARE q AS SELECT 1; SELECT 2",
        "EXECUTE",
        "EXECUTE q()",
        "EXECUTE q(1",
        "EXECUTE q 1",
        "DEALLOCATE",
        "DEALLOCATE PREPARE a b",
        "DECLARE c CURSOR",
        "DECLARE c CURSOR FOR",
        "DECLARE c CURSOR FOR UPDATE t SET a = 1",
        "DECLARE c NO CURSOR FOR SELECT 1",
        "FETCH",
        "FETCH all",
        "FETCH FROM from",
        "FETCH 5c",
        "FETCH absolute c",
        "FETCH absolute 5",
        "MOVE forward from",
        "CLOSE",
        "CLOSE a, b",
        "LISTEN",
        "LISTEN *",
        "LISTEN 'a'",
        "NOTIFY a, b",
        "NOTIFY a,",
        "LOCK",
        "LOCK TABLE",
        "LOCK t IN MODE",
        "LOCK t IN SHARE",
        "LOCK t NOWAIT NOWAIT",
        "LOCK ONLY (t",
        "EXPLAIN SELECT 1",
        "EXPLAIN (ROUTE)",
        "EXPLAIN (ANALYZE, ROUTE) SELECT 1",
        "EXPLAIN (ROUTE, FORMAT JSON) SELECT 1",
        "EXPLAIN (FORMAT TEXT) SELECT 1",
        "EXPLAIN (ROUTE false) SELECT 1",
        "EXPLAIN (ROUTE) SELECT 1; SELECT 2",
        "RELOAD x",
        "SELECT 1",
        "deallocates x",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn reset_show_discard() {
    assert_eq!(read("RESET ALL;"), Some(Control::Reset(None)));
    assert_eq!(
        read("RESET Presplit.Key"),
        Some(Control::Reset(Some(name("presplit.key"))))
    );
    assert_eq!(
        read("RESET TIME ZONE"),
        Some(Control::Reset(Some(name("timezone"))))
    );
    assert_eq!(read("RESET time"), Some(Control::Reset(Some(name("time")))));
    assert_eq!(
        read("RESET SESSION AUTHORIZATION"),
        Some(Control::Reset(Some(name("session_authorization"))))
    );
    assert_eq!(
        read("SHOW TRANSACTION ISOLATION LEVEL;"),
        Some(Control::Show(name("transaction_isolation")))
    );
    assert_eq!(
        read("SHOW default_transaction_isolation"),
        Some(Control::Show(name("default_transaction_isolation")))
    );
    assert_eq!(read("SHOW ALL"), Some(Control::Show(name("all"))));
    assert_eq!(
        read("SHOW transaction"),
        Some(Control::Show(name("transaction")))
    );
    assert_eq!(read("DISCARD ALL;"), Some(Control::Discard(Discard::All)));
    assert_eq!(
        read("DISCARD plans"),
        Some(Control::Discard(Discard::Plans))
    );
    assert_eq!(
        read("DISCARD SEQUENCES"),
        Some(Control::Discard(Discard::Sequences))
    );
    assert_eq!(
        read("DISCARD TEMPORARY"),
        Some(Control::Discard(Discard::Temp))
    );
}

#[test]
fn prepared_statements_and_cursors() {
    let text = "PREPARE q (bigint, numeric(10, 2)) AS SELECT * FROM photos WHERE user_id = $1 ; ";
    let Some(Control::Prepare {
        name: q,
        at,
        types: 2,
        body,
    }) = read(text)
    else {
        panic!()
    };
    assert_eq!((q.as_str(), &text[at]), ("q", "q"));
    assert_eq!(&text[body], "SELECT * FROM photos WHERE user_id = $1");
    let text = "PREPARE transaction AS (SELECT 1)";
    let Some(Control::Prepare {
        name: q,
        types: 0,
        body,
        ..
    }) = read(text)
    else {
        panic!()
    };
    assert_eq!((q.as_str(), &text[body]), ("transaction", "(SELECT 1)"));
    let execute = |explain| {
        let name = name("q");
        Some(Control::Execute { name, explain })
    };
    for text in ["EXECUTE Q(f(1), ';')", "EXECUTE q", "execute q (1);"] {
        assert_eq!(read(text), execute(false), "{text}");
    }
    for text in [
        "EXPLAIN EXECUTE q",
        "EXPLAIN ANALYZE VERBOSE EXECUTE q (1)",
        "EXPLAIN (ANALYZE, FORMAT json) EXECUTE q (1)",
    ] {
        assert_eq!(read(text), execute(true), "{text}");
    }
    for text in [
        "EXECUTE q ()",
        "EXECUTE q (1) x",
        "EXPLAIN SELECT 1",
        "EXPLAIN EXECUTE",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
    assert_eq!(read("DEALLOCATE ALL"), Some(Control::Deallocate(None)));
    assert_eq!(
        read("DEALLOCATE PREPARE ALL"),
        Some(Control::Deallocate(None))
    );
    assert_eq!(
        read("DEALLOCATE PREPARE"),
        Some(Control::Deallocate(Some(name("prepare"))))
    );
    assert_eq!(
        read("DEALLOCATE PREPARE \"Q\""),
        Some(Control::Deallocate(Some(name("Q"))))
    );

    let text =
        "DECLARE \"_django_curs_1\" NO SCROLL CURSOR WITH HOLD FOR SELECT 1 WHERE 'a' = 'b' -- x";
    let Some(Control::Declare {
        name: cursor,
        hold: true,
        query,
    }) = read(text)
    else {
        panic!()
    };
    assert_eq!(
        (cursor.as_str(), &text[query]),
        ("_django_curs_1", "SELECT 1 WHERE 'a' = 'b'")
    );
    let text = "declare no binary no scroll insensitive cursor without hold for (table t)";
    assert!(matches!(
        read(text),
        Some(Control::Declare { hold: false, .. })
    ));
    for (text, cursor) in [
        ("FETCH FORWARD 100 FROM \"C 1\";", "C 1"),
        ("FETCH 100 FROM c1", "c1"),
        ("FETCH c1", "c1"),
        ("FETCH next", "next"),
        ("FETCH next next", "next"),
        ("FETCH forward", "forward"),
        ("FETCH IN c", "c"),
        ("FETCH -5 c", "c"),
        ("FETCH + 5 in c", "c"),
        ("FETCH ALL c", "c"),
        ("FETCH BACKWARD ALL IN c", "c"),
        ("FETCH RELATIVE -1 c", "c"),
        ("FETCH forward forward", "forward"),
        ("FETCH LAST FROM c", "c"),
    ] {
        assert_eq!(
            read(text),
            Some(Control::Fetch {
                cursor: name(cursor),
                is_move: false
            }),
            "{text}"
        );
    }
    assert_eq!(
        read("MOVE FORWARD 10 IN c1"),
        Some(Control::Fetch {
            cursor: name("c1"),
            is_move: true
        })
    );
    assert_eq!(
        read("CLOSE \"C\""),
        Some(Control::ClosePortal(Some(name("C"))))
    );
    assert_eq!(read("CLOSE ALL"), Some(Control::ClosePortal(None)));
}

#[test]
fn the_rest() {
    assert_eq!(
        read("LISTEN \"chan\";"),
        Some(Control::Listen(name("chan")))
    );
    assert_eq!(read("UNLISTEN *"), Some(Control::Unlisten(None)));
    assert_eq!(
        read("UNLISTEN chan"),
        Some(Control::Unlisten(Some(name("chan"))))
    );
    assert_eq!(read("NOTIFY \"chan\", 'payload'"), Some(Control::Notify));
    for text in [
        "LOCK TABLE photos IN SHARE ROW EXCLUSIVE MODE",
        "LOCK a.b, ONLY c, ONLY (d), e *",
        "LOCK photos NOWAIT",
        "LOCK a.table in share mode nowait",
    ] {
        assert_eq!(read(text), Some(Control::Lock), "{text}");
    }
    for text in [
        "EXPLAIN (ROUTE) SELECT 1",
        "explain (route true, format text) SELECT 1;",
        "EXPLAIN (FORMAT TEXT, ROUTE) SELECT 1",
    ] {
        let Some(Control::ExplainRoute { query }) = read(text) else {
            panic!("{text}")
        };
        assert_eq!(&text[query], "SELECT 1");
    }
    assert_eq!(read("reload;"), Some(Control::Reload));
}

#[test]
fn a_long_name_is_cut_as_postgres_cuts_it() {
    let long = "e".repeat(62) + "\u{e9}\u{e9}";
    assert_eq!(
        read(&format!("SAVEPOINT {long}")),
        Some(Control::Savepoint("e".repeat(62)))
    );
}

#[test]
fn what_may_be_kept_by_shape() {
    for text in [
        "SET a = 1",
        "SET a = 'b'",
        "SET a = b",
        "PREPARE TRANSACTION 'x'",
        "DECLARE c CURSOR FOR SELECT 1",
    ] {
        assert!(read(text).unwrap().depends_on_literals(), "{text}");
    }
    for text in [
        "BEGIN",
        "SAVEPOINT a",
        "RESET ALL",
        "FETCH 5 c",
        "SET a TO DEFAULT",
        "NOTIFY a, 'b'",
        "EXECUTE q(1)",
    ] {
        assert!(!read(text).unwrap().depends_on_literals(), "{text}");
    }
}

/// One statement with an odd value must not spoil all others of its shape.
#[test]
fn what_a_statement_is_hangs_on_no_literal_or_is_not_kept_by_shape() {
    for text in [
        "FETCH 99999999999 FROM c",
        "MOVE FORWARD 1.5 IN c",
        "FETCH -0xfffffffffffffffffffffffffffffffffff c",
        "NOTIFY a, E'\\0'",
        "NOTIFY a, B'1'",
    ] {
        assert!(read(text).is_some(), "{text}");
    }
    let hangs = |text: &str| {
        let mut shape = Shape::default();
        shape.scan(text.as_bytes()).unwrap();
        assert_eq!(parse(text.as_bytes(), &shape), None, "{text}");
        hangs_on_literals(text.as_bytes(), &shape)
    };
    for text in [
        "SET a = E'\\0'",
        "PREPARE TRANSACTION E'\\v'",
        "set a = -0xfffffffffffffffffffffffffffffffffff",
    ] {
        assert!(hangs(text), "{text}");
    }
    for text in ["SET a = = 1 /* x */", "SELECT 1", "SET a b c -- x"] {
        assert_eq!(hangs(text), text.contains("= 1"), "{text}");
    }
}
