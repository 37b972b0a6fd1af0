//! COPY that is refused, given up or cut off leaves nothing; what is long is not held.

use super::input::{binary, note};
use super::{TURN, cd, cut, empty, rows_of, talk, twins};
use crate::support::raw::{b, done, e, fail, p, q, s};
use crate::support::{Hosts, Proxy, Raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_done_leaves_nothing() {
    let _turn = TURN.lock().await;
    let twins = twins().await;
    let (one, two) = (Proxy::start(&twins.one), Proxy::start(&twins.two));
    empty(twins, "notes").await;
    empty(twins, "photos").await;
    let is = |said: String, wanted: &[&str]| {
        for words in wanted {
            assert!(said.contains(words), "no {words:?} in:\n{said}");
        }
    };
    let copy = |sql: &str, data: &str| [q(sql), cut(data.as_bytes(), 3), done()].concat();
    let notes = "COPY notes FROM STDIN";
    // Two hosts that are not to be written on by one transaction.
    let map = twins.two.dir().join("apart.toml");
    let apart = twins.two.map_text(1, "cross_host = \"refuse\"");
    std::fs::write(&map, apart).unwrap();
    let apart = Proxy::serve(&map, &[]);
    let both = copy(notes, "a\t1\t1\tx\nb\t2\t1\tx\nc\t5\t1\tx\n");
    let refused = [
        "G ",
        "CSR002",
        "host \"a\" and on host \"b\"",
        "WCOPY notes, line 3",
    ];
    is(talk(&apart, &both, 1), &refused);
    assert_eq!(rows_of(&twins.two, "notes").await, [""; 0]);
    // In a block, which goes on to its end; rows of one host before it are the block's.
    let first = copy(notes, "a\t5\t1\tx\n");
    let block = [q("BEGIN"), first.clone(), both, q("COMMIT")].concat();
    is(
        talk(&apart, &block, 4),
        &["COPY 1", "CSR002", "Z E", "ROLLBACK\nZ I"],
    );
    let block = [q("BEGIN"), first, copy(notes, "c\t1\t1\tx\n"), q("COMMIT")].concat();
    is(
        talk(&apart, &block, 4),
        &["COPY 1", "CSR002", "Z E", "ROLLBACK\nZ I"],
    );
    assert_eq!(rows_of(&twins.two, "notes").await, [""; 0]);
    // Rows of whichever one host.
    for user in [1, 5] {
        let block = [
            q("BEGIN"),
            copy(notes, &format!("a\t{user}\t1\tx\n")),
            q("COMMIT"),
        ]
        .concat();
        is(talk(&two, &block, 3), &["COPY 1\nZ T", "COMMIT\nZ I"]);
        is(
            talk(&two, &copy(notes, &format!("b\t{user}\t1\tx\n")), 1),
            &["COPY 1\nZ I"],
        );
        let header = "COPY notes FROM STDIN (FORMAT csv, HEADER match)";
        let data = format!("before,user_id,n,after\nc,{user},1,x\n");
        is(talk(&two, &copy(header, &data), 1), &["COPY 1\nZ I"]);
        let binary = binary(&[note("d", user, None, "")]);
        let sql = "COPY notes FROM STDIN (FORMAT binary)";
        is(
            talk(&two, &[q(sql), cut(&binary, 3), done()].concat(), 1),
            &["COPY 1\nZ I"],
        );
        let pbe = [
            p("", notes),
            b("", "", &[]),
            e("", 0),
            s(),
            cd(format!("e\t{user}\t1\tx\n").as_bytes()),
            done(),
            s(),
        ];
        is(talk(&two, &pbe.concat(), 1), &["COPY 1\nZ I"]);
    }
    assert_eq!(rows_of(&twins.two, "notes").await.len(), 10);
    empty(twins, "notes").await;
    // A key that has no shard.
    is(
        talk(
            &one,
            &copy(
                "COPY photos (id, user_id) FROM STDIN",
                "1025\t1\n1026\t1\n\\N\t1\n",
            ),
            1,
        ),
        &["C23502", "line 3"],
    );
    is(
        talk(
            &one,
            &copy("COPY photos (id, user_id) FROM STDIN", "1\t0\n1024\t2\n"),
            1,
        ),
        &["CSR002", "WCOPY photos, line 2, column id: \"1024\""],
    );
    is(
        talk(&one, &copy("COPY photos (id) FROM STDIN", "1\n999999\n"), 1),
        &["C23502"],
    );
    // A hint, or a schema, says more than the rows do.
    for sql in [
        "COPY notes FROM STDIN /* presplit: shard=3 */",
        "COPY shard_0003.notes FROM STDIN",
        "/* presplit: key=11 */ COPY notes FROM STDIN",
    ] {
        is(
            talk(&one, &copy(sql, "a\t3\t1\tx\nb\t11\t1\tx\n"), 1),
            &["COPY 2"],
        );
        is(
            talk(&two, &copy(sql, "a\t3\t1\tx\nb\t4\t1\tx\n"), 1),
            &["CSR002", "WCOPY notes, line 2, column user_id: \"4\""],
        );
    }
    assert_eq!(rows_of(&twins.one, "notes").await.len(), 6);
    assert_eq!(rows_of(&twins.two, "notes").await, [""; 0]);
    empty(twins, "notes").await;
    // The client gives up.
    let gives_up = [
        q(notes),
        cd(b"a\t1\t1\tx\nb\t2"),
        fail("no more"),
        q("SELECT 1"),
    ]
    .concat();
    is(
        talk(&one, &gives_up, 2),
        &[
            "C57014",
            "COPY from stdin failed: no more",
            "WCOPY notes, line 2",
            "D 1",
        ],
    );
    // The client goes.
    for shard in [1, 5] {
        let mut raw = Raw::connect(two.addr());
        raw.send(&[q(notes), cd(format!("a\t{shard}\t1\tx\n").as_bytes())].concat());
        raw.until(|line| line.starts_with('G'));
    }
    // A host goes; see also the sessions' own tests.
    let mut raw = Raw::connect(one.addr());
    raw.send(&[q(notes), cd(b"a\t1\t1\tx\n")].concat());
    raw.until(|line| line.starts_with('G'));
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY shard%' AND state = 'active'";
    twins.one.client(0).await.batch_execute(kill).await.unwrap();
    let said = raw.until_ready(1).join("\n");
    is(said, &["C57P01", "Z I"]);
    raw.send(&[cd(b"b\t2\t1\tx\n"), done()].concat());
    is(raw.query("SELECT 1").join("\n"), &["D 1"]);
    assert_eq!(rows_of(&twins.one, "notes").await, [""; 0]);
    assert_eq!(rows_of(&twins.two, "notes").await, [""; 0]);
    // Files.
    is(
        talk(&one, &q("COPY notes FROM '/etc/passwd'"), 1),
        &["C0A000", "\\copy"],
    );
    is(
        talk(&one, &q("COPY (SELECT 1) TO PROGRAM 'cat'"), 1),
        &["C0A000"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_more_than_may_be_held() {
    let _turn = TURN.lock().await;
    for hosts in [&twins().await.one, &twins().await.two] {
        much_more_than_may_be_held_for(hosts).await;
    }
}

async fn much_more_than_may_be_held_for(hosts: &Hosts) {
    let twins = twins().await;
    empty(twins, "notes").await;
    let map = hosts.dir().join("tight.toml");
    let limits = "[proxy.limits]\ncopy_held_bytes = 65536\n";
    std::fs::write(&map, hosts.map_text(1, limits)).unwrap();
    let proxy = Proxy::serve(&map, &[]);
    let mut data = String::new();
    let long = "x".repeat(300);
    for n in 0..20_000 {
        data.push_str(&format!("{n}\t{}\t{n}\t{long}\n", n % 77));
    }
    // In one message, in many, and with an error in the end.
    for pieces in [1, 1000] {
        let bytes = [
            q("COPY notes FROM STDIN"),
            cut(data.as_bytes(), pieces),
            done(),
        ]
        .concat();
        assert!(talk(&proxy, &bytes, 1).contains("C COPY 20000"));
        let rows = rows_of(hosts, "notes").await;
        assert_eq!(rows.len(), 20_000);
        // The rows of a shard are in the order in which they came.
        let sql = "SELECT count(*) FROM (SELECT n, lag(n) OVER (ORDER BY ctid) AS before FROM shard_0003.notes) t WHERE before > n";
        let row = hosts.client(0).await.query_one(sql, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0);
        empty(twins, "notes").await;
    }
    let copied = |data: &str| {
        let copy = q("COPY notes FROM STDIN");
        let bytes = [copy, cd(data.as_bytes()), done(), q("SELECT 1")].concat();
        talk(&proxy, &bytes, 2)
    };
    let said = copied(&format!("{data}a\t5\tnone\tx\n"));
    assert!(
        said.contains("WCOPY notes, line 20001, column n: \"none\""),
        "{said}"
    );
    assert_eq!(rows_of(hosts, "notes").await, [""; 0]);
    // An error in the beginning: the rest, in one long message, is ignored.
    let said = copied(&format!("a\t5\tnone\tx\n{data}"));
    assert!(
        said.contains("WCOPY notes, line 1, column n: \"none\"") && said.contains("D 1"),
        "{said}"
    );
    let long = "x".repeat(70_000);
    let said = copied(&format!("a\t5\t1\t{long}"));
    assert!(
        said.contains("C54000") && said.contains("copy_held_bytes"),
        "{said}"
    );
    assert_eq!(rows_of(hosts, "notes").await, [""; 0]);
}
