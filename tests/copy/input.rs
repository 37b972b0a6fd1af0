//! COPY FROM STDIN: data of every form, good and bad.

use super::{TURN, compare, cut, empty, rows_of, twins};
use crate::support::raw::{b, done, dp, e, h, p, q, s};
use crate::support::{Hosts, Proxy};

pub fn binary(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
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

pub fn note(before: &str, user: i64, n: Option<i32>, after: &str) -> Vec<Option<Vec<u8>>> {
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
