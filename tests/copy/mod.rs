//! COPY of sharded tables: the same data goes to one Postgres and through the proxy; answers and rows must be the same,
//! each row in its own shard.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use presplit::ops::demo::SCHEMA;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::OnceCell;

use crate::support::raw::{b, done, dp, e, fail, frame, h, p, q, s};
use crate::support::{Cluster, Hosts, Proxy, Raw};

const SHARDS: u32 = 8;
/// More tables, in every shard and in the one Postgres.
const TABLES: &str = "
CREATE TABLE notes (before text, user_id bigint NOT NULL, n int, after text);
CREATE TABLE made (twice bigint GENERATED ALWAYS AS (n * 2) STORED, n int, user_id bigint);
CREATE TABLE small (user_id smallint PRIMARY KEY, \"odd name\" text);
";

struct Twins {
    one: Hosts,
    two: Hosts,
    plain: Cluster,
}

async fn provisioned(hosts: usize) -> Hosts {
    let hosts = Hosts::provisioned(hosts, SHARDS).await;
    for shard in 0..SHARDS {
        let client = hosts.client(hosts.owner(shard)).await;
        let sql = format!("SET search_path TO shard_{shard:04}; {TABLES}");
        client.batch_execute(&sql).await.unwrap();
    }
    hosts
}

async fn twins() -> &'static Twins {
    static TWINS: OnceCell<Twins> = OnceCell::const_new();
    TWINS
        .get_or_init(|| async {
            let plain = Cluster::new();
            let direct = plain.client().await;
            direct.batch_execute(SCHEMA).await.unwrap();
            direct.batch_execute(TABLES).await.unwrap();
            Twins {
                one: provisioned(1).await,
                two: provisioned(2).await,
                plain,
            }
        })
        .await
}

impl Twins {
    fn plain(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.plain.port()))
    }
}

/// Tests that write the same tables wait for each other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Every row of a table, sorted, as text; past the proxy. Panics if one is in a shard that is not its own.
async fn rows_of(hosts: &Hosts, table: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for i in 0..hosts.clusters.len() {
        let of_shard = |shard: u32| {
            format!(
                "SELECT t::text, mod(mod(user_id, {SHARDS}) + {SHARDS}, {SHARDS})::int, {shard}::int FROM shard_{shard:04}.{table} t"
            )
        };
        let shards = (0..SHARDS).filter(|shard| hosts.owner(*shard) == i);
        let sql: Vec<String> = shards.map(of_shard).collect();
        let client = hosts.client(i).await;
        for row in client.query(&sql.join(" UNION ALL "), &[]).await.unwrap() {
            let (text, own, shard): (String, i32, i32) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(own, shard, "{text}");
            rows.push(text);
        }
    }
    rows.sort();
    rows
}

async fn rows_of_plain(plain: &Cluster, table: &str) -> Vec<String> {
    let client = plain.client().await;
    let sql = format!("SELECT t::text FROM {table} t");
    let mut rows: Vec<String> = client
        .query(&sql, &[])
        .await
        .unwrap()
        .iter()
        .map(|r| r.get(0))
        .collect();
    rows.sort();
    rows
}

async fn empty(twins: &Twins, table: &str) {
    let truncate = format!("DELETE FROM {table}");
    twins
        .plain
        .client()
        .await
        .batch_execute(&truncate)
        .await
        .unwrap();
    for hosts in [&twins.one, &twins.two] {
        for i in 0..hosts.clusters.len() {
            let shards = (0..SHARDS).filter(|shard| hosts.owner(*shard) == i);
            let sql: Vec<String> = shards
                .map(|shard| format!("DELETE FROM shard_{shard:04}.{table};"))
                .collect();
            hosts
                .client(i)
                .await
                .batch_execute(&sql.concat())
                .await
                .unwrap();
        }
    }
}

fn cd(data: &[u8]) -> Vec<u8> {
    frame(b'd', data)
}

fn cut(data: &[u8], pieces: usize) -> Vec<u8> {
    let size = data.len().div_ceil(pieces).max(1);
    data.chunks(size).map(cd).collect::<Vec<_>>().concat()
}

fn converse(addr: SocketAddr, bytes: &[u8], ready: usize) -> Vec<String> {
    let run = || {
        let mut raw = Raw::connect(addr);
        raw.show_context = true;
        raw.ask(bytes, ready)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        vec![
            panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "panicked".to_owned()),
        ]
    })
}

/// The answers to both must be the same, and then the rows of `table`, which is empty before and behind.
async fn compare(
    table: &str,
    name: &str,
    bytes: &[u8],
    ready: usize,
    (hosts, proxy): (&Hosts, &Proxy),
    faults: &mut Vec<String>,
) {
    let twins = twins().await;
    let (expected, got) = (
        converse(twins.plain(), bytes, ready),
        converse(proxy.addr(), bytes, ready),
    );
    if expected != got {
        faults.push(format!(
            "{name}:\n  postgres: {expected:#?}\n  presplit: {got:#?}"
        ));
    }
    let copied = |line: &String| line.starts_with("C COPY ") && line != "C COPY 0";
    if !expected.iter().chain(&got).any(copied) {
        return;
    }
    let (expected, got) = (
        rows_of_plain(&twins.plain, table).await,
        rows_of(hosts, table).await,
    );
    if expected != got {
        faults.push(format!(
            "rows of {name}:\n  postgres: {expected:#?}\n  presplit: {got:#?}"
        ));
    }
    empty(twins, table).await;
}

fn binary(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
    let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for row in rows {
        out.extend((row.len() as i16).to_be_bytes());
        for field in row {
            match field {
                None => out.extend((-1i32).to_be_bytes()),
                Some(value) => {
                    out.extend((value.len() as i32).to_be_bytes());
                    out.extend(value);
                }
            }
        }
    }
    out.extend(b"\xff\xff");
    out
}

fn note(before: &str, user: i64, n: Option<i32>, after: &str) -> Vec<Option<Vec<u8>>> {
    vec![
        Some(before.as_bytes().to_vec()),
        Some(user.to_be_bytes().to_vec()),
        n.map(|n| n.to_be_bytes().to_vec()),
        Some(after.as_bytes().to_vec()),
    ]
}

/// Statement and data; the rows are of `notes`.
fn copies() -> Vec<(&'static str, Vec<u8>)> {
    let text: &[u8] =
        b"a\t1\t10\tx\nb\t2\t\\N\ty\\tz\nc\t-3\t1\t\\N\nd\t1\t2\t\\\\.\ne\t 12 \t3\tl\\\nm\n";
    let csv: &[u8] = b"a,1,2,x\n\"b,\"\"\n\",2,,\"\"\n\\.x,3,4,\"\\.\"\n,\"4\",5,\n";
    let mut all: Vec<(&str, Vec<u8>)> = vec![
        ("COPY notes FROM STDIN", text.to_vec()),
        ("COPY notes FROM STDIN", b"".to_vec()),
        ("COPY notes FROM STDIN", b"a\t1\t10\tx".to_vec()),
        (
            "COPY notes FROM STDIN",
            b"a\t1\t10\tx\n\\.\nb\t2\t3\ty\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN",
            b"a\t1\t10\tx\\.\nb\t2\t3\ty\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN",
            b"a\t1\t10\tx\r\nb\t2\t3\ty\r\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN",
            b"a\t1\t10\tx\rb\t2\t3\ty\r".to_vec(),
        ),
        (
            "COPY notes (user_id, after) FROM STDIN",
            b"1\tx\n2\ty\n".to_vec(),
        ),
        (
            "COPY notes (after, user_id) FROM STDIN (DELIMITER '|', NULL '')",
            b"x|1\n|2\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN DELIMITERS ';' WITH NULL 'none'",
            b"x;1;2;none\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (HEADER)",
            b"what\tever\na\t1\t10\tx\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (HEADER match)",
            b"before\tuser_id\tn\tafter\na\t1\t10\tx\nb\t2\t10\tx\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (HEADER match)",
            b"before\tuser\tn\tafter\na\t1\t10\tx\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (HEADER match)",
            b"before\tuser_id\tn\tafter\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (HEADER match)",
            b"before\tn\tafter\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN WHERE n > 3",
            b"a\t1\t10\tx\nb\t2\t3\ty\nc\t3\t4\tz\n".to_vec(),
        ),
        ("COPY notes FROM STDIN (FORMAT csv)", csv.to_vec()),
        (
            "COPY notes FROM STDIN CSV",
            [csv, b"\\.\nrubbish\n"].concat(),
        ),
        (
            "COPY notes FROM STDIN (FORMAT csv, HEADER, DELIMITER ';', QUOTE '''', ESCAPE '\\')",
            b"'a\nb';b;c;d\n'x\\'y\n';7;8;'\\\\'\nz;9;;\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (FORMAT csv, NULL '-', FORCE_NOT_NULL (before), FORCE_NULL (after))",
            b"-,1,-,\"-\"\n\"-\",2,3,-\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (FORMAT csv)",
            b"a,1,2,x\r\nb,2,3,\"y\r\n\"\r\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (FORMAT csv, ENCODING 'latin1')",
            b"\xe4,1,2,\xdf\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (ENCODING 'latin1')",
            b"\xe4\t1\t2\t\xdf\n".to_vec(),
        ),
        (
            "COPY notes FROM STDIN (FORMAT binary)",
            binary(&[
                note("a", 1, Some(2), "x"),
                note("", -2, None, "y\n"),
                note("z", 7, Some(8), ""),
            ]),
        ),
        ("COPY BINARY notes FROM STDIN", binary(&[])),
        (
            "COPY notes FROM STDIN BINARY",
            binary(&[note("a", 1, Some(2), "x")])[..48].to_vec(),
        ),
        ("COPY made FROM STDIN", b"3\t4\n5\t6\n".to_vec()),
        ("COPY small FROM STDIN", b"1\tx\n2\ty\n".to_vec()),
        (
            "COPY small (\"odd name\", user_id) FROM STDIN",
            b"x\t1\n".to_vec(),
        ),
    ];
    // What Postgres refuses.
    let bad: [(&str, &[u8]); 33] = [
        (
            "COPY notes FROM STDIN",
            b"a\t1\t2\tx\nb\t2\tx\ty\nc\t3\t4\tz\n",
        ),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\nb\t2\t3\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\nb\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\n\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\nb\t2\t3\ty\tz\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\nb\tfive\t3\ty\n"),
        (
            "COPY notes FROM STDIN",
            b"a\t1\t2\tx\nb\t99999999999999999999\t3\ty\n",
        ),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\nb\t1.5\t3\ty\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\nb\t\t3\ty\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\nb\t\\N\t3\ty\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\nb\t2\t3\ty\r\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\r\nb\t2\t3\ty\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\rb\t2\t3\ty\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\n\\.x\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\n\\.\r"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\n\\."),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\n\xff\t2\t3\ty\n"),
        ("COPY notes FROM STDIN", b"a\t1\t2\tx\na\0\t2\t3\ty\n"),
        ("COPY notes FROM STDIN CSV", b"a,1,2,x\nb,2,3,\"y\n"),
        ("COPY notes FROM STDIN CSV", b"a,1,2,x\n\"b,2,3,y\n"),
        (
            "COPY notes FROM STDIN CSV",
            b"a,1,2,\"x\n\n\"\n\"b\n\",2,three,y\n",
        ),
        ("COPY notes FROM STDIN CSV", b"a,1,2,x\nb,2,3,y\r\n"),
        ("COPY notes FROM STDIN CSV", b"a,1,2,x\r\nb,2,3,y\n"),
        ("COPY notes FROM STDIN CSV HEADER", b"a,b\n1\n"),
        (
            "COPY notes FROM STDIN (FORMAT csv, HEADER match)",
            b"before,user_id,n,after\na,1,2,x\nb,2,c,d\n",
        ),
        (
            "COPY notes FROM STDIN (FORMAT binary)",
            b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x04\0\0",
        ),
        (
            "COPY notes FROM STDIN (FORMAT binary)",
            b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xffmore",
        ),
        (
            "COPY notes FROM STDIN (FORMAT binary)",
            b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x01a",
        ),
        ("COPY notes FROM STDIN (FORMAT binary)", b"PGCOPX\n"),
        (
            "COPY notes FROM STDIN (FORMAT binary)",
            b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0\xff\xff",
        ),
        ("COPY notes FROM STDIN (FORMAT binary)", b""),
        ("COPY small FROM STDIN", b"1\tx\n2\ty\n1\tz\n"),
        ("COPY small FROM STDIN", b"1\tx\n70000\ty\n"),
    ];
    all.extend(bad.map(|(sql, data)| (sql, data.to_vec())));
    // What is refused before there is any data.
    for sql in [
        "COPY notes (user_id, nosuch) FROM STDIN",
        "COPY notes (user_id, user_id) FROM STDIN",
        "COPY notes FROM STDIN (DELIMITER 'ab')",
        "COPY notes FROM STDIN (QUOTE '|')",
        "COPY notes FROM STDIN (FORMAT csv, FORMAT csv)",
        "COPY notes FROM STDIN (FORMAT csv, DELIMITER '\"')",
        "COPY notes FROM STDIN (FORCE_NULL (n))",
        "COPY notes FROM STDIN (ENCODING 'nonsense')",
        "COPY notes FROM STDIN (FREEZE)",
        "COPY notes FROM STDIN WHERE nosuch > 1",
        "COPY notes FROM STDIN WHERE",
        "COPY made (twice, user_id) FROM STDIN",
    ] {
        all.push((sql, b"a\t1\t2\tx\n".to_vec()));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_in_is_that_of_postgres() {
    let _turn = TURN.lock().await;
    for hosts in [&twins().await.one, &twins().await.two] {
        copy_in_to_is_that_of_postgres(hosts).await;
    }
}

async fn copy_in_to_is_that_of_postgres(hosts: &Hosts) {
    let proxy = Proxy::start(hosts);
    let mut faults = Vec::new();
    for table in ["notes", "made", "small"] {
        empty(twins().await, table).await;
    }
    for (sql, data) in copies() {
        let table = sql
            .split([' ', '('])
            .find(|w| ["notes", "made", "small"].contains(w))
            .unwrap();
        let shown = String::from_utf8_lossy(&data).into_owned();
        let bytes = [q(sql), cut(&data, 7), done(), q("SELECT 1")].concat();
        compare(
            table,
            &format!("{sql} {shown:?}"),
            &bytes,
            2,
            (hosts, &proxy),
            &mut faults,
        )
        .await;
        let pbe = [p("", sql), b("", "", &[]), dp(""), e("", 0)].concat();
        let bytes = [pbe, h(), cut(&data, 2), done(), s(), q("SELECT 1")].concat();
        compare(
            table,
            &format!("extended {sql} {shown:?}"),
            &bytes,
            2,
            (hosts, &proxy),
            &mut faults,
        )
        .await;
    }
    assert!(
        faults.is_empty(),
        "{} differ\n{}",
        faults.len(),
        faults.join("\n")
    );
    // What was refused has left nothing.
    for table in ["notes", "made", "small"] {
        assert_eq!(rows_of(hosts, table).await, [""; 0]);
    }
}

/// One conversation with the proxy alone.
fn talk(proxy: &Proxy, bytes: &[u8], ready: usize) -> String {
    converse(proxy.addr(), bytes, ready).join("\n")
}

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
    let broken = format!("{data}a\t5\tnone\tx\n");
    let bytes = [
        q("COPY notes FROM STDIN"),
        cut(broken.as_bytes(), 1),
        done(),
        q("SELECT 1"),
    ]
    .concat();
    let said = talk(&proxy, &bytes, 2);
    assert!(
        said.contains("WCOPY notes, line 20001, column n: \"none\""),
        "{said}"
    );
    assert_eq!(rows_of(hosts, "notes").await, [""; 0]);
    // An error in the beginning: the rest, in one long message, is ignored.
    let broken = format!("a\t5\tnone\tx\n{data}");
    let bytes = [
        q("COPY notes FROM STDIN"),
        cut(broken.as_bytes(), 1),
        done(),
        q("SELECT 1"),
    ]
    .concat();
    let said = talk(&proxy, &bytes, 2);
    assert!(
        said.contains("WCOPY notes, line 1, column n: \"none\"") && said.contains("D 1"),
        "{said}"
    );
    let long = "x".repeat(70_000);
    let bytes = [
        q("COPY notes FROM STDIN"),
        cd(format!("a\t5\t1\t{long}").as_bytes()),
        done(),
    ]
    .concat();
    let said = talk(&proxy, &bytes, 1);
    assert!(
        said.contains("C54000") && said.contains("copy_held_bytes"),
        "{said}"
    );
    assert_eq!(rows_of(hosts, "notes").await, [""; 0]);
}

/// Random bytes, most of which mean something to COPY.
fn random_data(random: &mut StdRng, csv: bool) -> Vec<u8> {
    let mut data = Vec::new();
    let end: &[u8] = [&b"\n"[..], b"\r\n", b"\r"][random.random_range(0..3)];
    let separator = if csv { b',' } else { b'\t' };
    for _ in 0..random.random_range(0..6) {
        let odd: [&[u8]; 20] = [
            b"a",
            b"x\\ty",
            b"\\N",
            b"",
            b"\"q\"",
            b"\"a,\"\"b\"",
            b"\"\n\"",
            b"\\\n",
            b"\\.",
            b"'",
            b"\"",
            b"\\x41",
            b"\r",
            b"\n",
            b"\xc3\xa4",
            b"\xff",
            b"\\\\",
            b"\\101",
            b" ",
            b"\0",
        ];
        let mut word = || match random.random_range(0..12) {
            // Hostile values are rare, so that many rows are good.
            0..4 => odd[random.random_range(0..odd.len())].to_vec(),
            _ => vec![b'b' + random.random_range(0..20)],
        };
        let (before, after) = (word(), word());
        let user: &[u8] = [
            &b"1"[..],
            b"2",
            b"-5",
            b" 7",
            b"\\065",
            b"\"4\"",
            b"12",
            b"13",
            b"x",
            b"",
        ][random.random_range(0..if csv { 8 } else { 9 })];
        let n: &[u8] = [&b"1"[..], b"2", b"77", b"99999999999"][random.random_range(0..3)];
        let fields = [&before[..], user, n, &after];
        data.extend(fields.join(&separator));
        data.extend_from_slice(if random.random_range(0..30) == 0 {
            b"\n"
        } else {
            end
        });
    }
    data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_data_is_taken_as_by_postgres() {
    let _turn = TURN.lock().await;
    for hosts in [&twins().await.one, &twins().await.two] {
        random_data_for_is_taken_as_by_postgres(hosts).await;
    }
}

async fn random_data_for_is_taken_as_by_postgres(hosts: &Hosts) {
    let proxy = Proxy::start(hosts);
    let mut random = StdRng::seed_from_u64(42);
    let (mut faults, mut refused) = (Vec::new(), 0);
    let twins = twins().await;
    for _ in 0..250 {
        let csv = random.random_range(0..2) == 0;
        let data = random_data(&mut random, csv);
        let sql = if csv {
            "COPY notes FROM STDIN CSV"
        } else {
            "COPY notes FROM STDIN"
        };
        let bytes = [q(sql), cut(&data, random.random_range(1..5)), done()].concat();
        let (expected, got) = (
            converse(twins.plain(), &bytes, 1),
            converse(proxy.addr(), &bytes, 1),
        );
        // Of several errors in the data, another one may be met first.
        let same = expected == got || {
            let errors = |lines: &[String]| lines.iter().any(|l| l.starts_with('E'));
            errors(&expected) && errors(&got)
        };
        refused += usize::from(expected != got);
        if !same {
            let data = String::from_utf8_lossy(&data).into_owned();
            faults.push(format!(
                "{sql} {data:?}:\n  postgres: {expected:#?}\n  presplit: {got:#?}"
            ));
        }
    }
    let (expected, got) = (
        rows_of_plain(&twins.plain, "notes").await,
        rows_of(hosts, "notes").await,
    );
    empty(twins, "notes").await;
    assert!(
        faults.is_empty(),
        "{} differ\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert_eq!(expected, got);
    assert!(
        expected.len() > 100 && refused < 25,
        "{} rows, {refused} other errors",
        expected.len()
    );
}

/// The data of a COPY TO, its rows sorted: a line (or, in binary, all of it) each.
fn copied_out(addr: SocketAddr, sql: &str, extended: bool) -> Vec<String> {
    let bytes = match extended {
        false => q(sql),
        true => [p("", sql), b("", "", &[]), dp(""), e("", 0), s()].concat(),
    };
    let mut lines = converse(addr, &bytes, 1);
    if sql.contains("binary") {
        // As one line: how the bytes are cut into messages does not matter.
        let (data, mut others): (Vec<String>, Vec<String>) =
            lines.into_iter().partition(|l| l.starts_with("d "));
        let mut bytes: Vec<char> = data.iter().flat_map(|l| l[2..].chars()).collect();
        bytes.sort_unstable();
        others.push(bytes.into_iter().collect());
        return others;
    }
    let first = lines.iter().position(|l| l.starts_with("d ")).unwrap_or(0);
    let header = usize::from(sql.contains("HEADER"));
    if let Some(data) = lines.get_mut(first + header..) {
        data.sort();
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_out_is_that_of_postgres() {
    let _turn = TURN.lock().await;
    let twins = twins().await;
    empty(twins, "notes").await;
    let (one, two) = (Proxy::start(&twins.one), Proxy::start(&twins.two));
    let statements = [
        "COPY notes TO STDOUT",
        "COPY notes (user_id, after) TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)",
        "COPY notes TO STDOUT WITH CSV HEADER",
        "COPY notes TO STDOUT (HEADER)",
        "COPY notes TO STDOUT (FORMAT binary)",
        "COPY (SELECT after, user_id FROM notes WHERE n > 10) TO STDOUT (FORMAT csv, HEADER)",
        "COPY (SELECT n FROM notes) TO STDOUT (FORMAT binary)",
        "COPY (SELECT n FROM notes WHERE user_id = 3) TO STDOUT (FORMAT binary)",
        "COPY (SELECT FROM notes) TO STDOUT (FORMAT binary)",
        "COPY (SELECT 10 / (n - 33) FROM notes WHERE user_id = 33) TO STDOUT",
        "COPY notes (nosuch) TO STDOUT",
        "COPY notes TO STDOUT (DELIMITER 'ab')",
        "COPY countries TO STDOUT",
    ];
    for filled in [false, true] {
        if filled {
            let rows: Vec<String> = (0..200)
                .map(|n| format!("b{n}\t{}\t{n}\t\\N\n", n % 61))
                .collect();
            let bytes = [
                q("COPY notes FROM STDIN"),
                cd(rows.concat().as_bytes()),
                done(),
            ]
            .concat();
            assert!(converse(twins.plain(), &bytes, 1).contains(&"C COPY 200".to_owned()));
            assert!(talk(&one, &bytes, 1).contains("C COPY 200"));
            for host in [0..4, 4..8] {
                let of_host = |n: &&String| {
                    host.contains(&(n.split('\t').nth(1).unwrap().parse::<i64>().unwrap() % 8))
                };
                let rows: Vec<&String> = rows.iter().filter(of_host).collect();
                let data: String = rows.iter().map(|row| row.as_str()).collect();
                let bytes = [q("COPY notes FROM STDIN"), cd(data.as_bytes()), done()].concat();
                assert!(talk(&two, &bytes, 1).contains(&format!("C COPY {}", rows.len())));
            }
        }
        for sql in statements {
            for extended in [false, true] {
                let expected = copied_out(twins.plain(), sql, extended);
                for proxy in [&one, &two] {
                    assert_eq!(copied_out(proxy.addr(), sql, extended), expected, "{sql}");
                }
            }
        }
    }
    // One shard fails: the error ends the data, and the session goes on.
    let sql = "COPY (SELECT 10 / (n - 33) FROM notes) TO STDOUT";
    for proxy in [&one, &two] {
        let said = talk(
            proxy,
            &[
                q(sql),
                q("BEGIN"),
                q(sql),
                q("SELECT 1"),
                q("ROLLBACK"),
                q("SELECT 1"),
            ]
            .concat(),
            6,
        );
        let wanted = "C22012 | Mdivision by zero";
        assert!(
            said.matches(wanted).count() == 2
                && said.contains("C25P02")
                && said.ends_with("D 1\nC SELECT 1\nZ I"),
            "{said}"
        );
    }
    for sql in [
        "COPY (SELECT n FROM notes ORDER BY n) TO STDOUT",
        "COPY (SELECT count(*) FROM notes) TO STDOUT",
    ] {
        assert!(talk(&two, &q(sql), 1).contains("CSR0"), "{sql}");
    }
    empty(twins, "notes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_in_psql() {
    let _turn = TURN.lock().await;
    let twins = twins().await;
    empty(twins, "notes").await;
    let proxy = Proxy::start(&twins.one);
    let file = twins.one.dir().join("notes.csv");
    std::fs::write(&file, "before,user_id,n,after\n\"a\nb\",1,2,x\nc,7,8,\n").unwrap();
    let run = |command: &str| {
        let out = std::process::Command::new("psql")
            .args(["-X", "-v", "ON_ERROR_STOP=1", "-c", command, &proxy.url()])
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    let path = file.display();
    assert_eq!(
        run(&format!(
            "\\copy notes from '{path}' (format csv, header match)"
        )),
        "COPY 2\n"
    );
    let out = twins.one.dir().join("out.csv");
    assert_eq!(
        run(&format!("\\copy notes to '{}' csv header", out.display())),
        "COPY 2\n"
    );
    assert_eq!(
        std::fs::read_to_string(out).unwrap(),
        std::fs::read_to_string(file).unwrap()
    );
    assert_eq!(rows_of(&twins.one, "notes").await.len(), 2);
    empty(twins, "notes").await;
}
