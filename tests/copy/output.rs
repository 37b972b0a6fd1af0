//! COPY TO STDOUT of rows of several shards.

use std::net::SocketAddr;

use super::{TURN, cd, converse, empty, talk, twins};
use crate::support::Proxy;
use crate::support::raw::{b, done, dp, e, p, q, s};

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
