//! Single statements over several hosts, beside one Postgres and beside each other.

use super::{A, B, C, Twins};
use crate::support::raw::{self, Raw};

/// Single statements over several hosts, in each protocol; what fails on one host, also at the end, leaves nothing on any.
#[tokio::test(flavor = "multi_thread")]
async fn statements_over_several_hosts_are_as_on_one_postgres() {
    let twins = Twins::new("").await;
    let (mut ours, mut plain) = twins.clients();
    let users = |n: i64, name: &str| {
        let row = |id: i64| format!("({}, '{name}')", id + n);
        let rows = [A, B, C, A + 1].map(row).join(", ");
        format!("INSERT INTO users (id, name) VALUES {rows}")
    };
    let follows = |rows: &[(i64, i64)]| {
        let rows: Vec<String> = rows.iter().map(|(s, t)| format!("({s}, {t})")).collect();
        let rows = rows.join(", ");
        format!(
            "INSERT INTO follows (source_id, target_id) VALUES {rows} RETURNING source_id, target_id"
        )
    };
    let (begin, commit, savepoint) = (
        "BEGIN".to_owned(),
        "COMMIT".to_owned(),
        "SAVEPOINT s".to_owned(),
    );
    for n in 0..3 {
        let m = n * 9 * 100;
        let late = 10_000 * (n + 1);
        let statements = [
            users(m, "first"),
            // A key is there on the second host; on the first; on the third.
            format!(
                "INSERT INTO users (id, name) VALUES ({}, 'x'), ({}, 'x'), ({}, 'x')",
                A + m + 2,
                B + m,
                C + m + 2
            ),
            format!(
                "INSERT INTO users (id, name) VALUES ({}, 'x'), ({}, 'x'), ({}, 'x')",
                C + m + 2,
                B + m + 2,
                A + m
            ),
            format!(
                "INSERT INTO users (id, name) VALUES ({}, 'x'), ({}, NULL)",
                A + m + 2,
                C + m + 2
            ),
            follows(&[
                (C + m, late),
                (A + m, late + 1),
                (B + m, late + 2),
                (B + m + 9, late + 7),
            ]),
            // Looked at when the transaction ends: twice the same target, of one user on the first, second, third host.
            follows(&[
                (A + m, late + 3),
                (B + m, late + 4),
                (C + m, late + 5),
                (A + m + 9, late + 1),
            ]),
            follows(&[
                (A + m, late + 3),
                (B + m, late + 4),
                (B + m + 9, late + 2),
                (C + m, late + 5),
            ]),
            follows(&[
                (A + m, late + 3),
                (C + m, late + 5),
                (C + m + 9, late),
                (B + m, late + 4),
            ]),
            format!(
                "UPDATE follows SET target_id = target_id + 50 WHERE source_id IN ({}, {})",
                A + m,
                C + m
            ),
            format!(
                "UPDATE follows SET target_id = {late} + 70 WHERE source_id IN ({}, {}, {})",
                A + m,
                B + m,
                B + m + 9
            ),
            format!("DELETE FROM users WHERE id IN ({}, {}, 1)", B + m, C + m),
            begin.clone(),
            users(m + 18, "in a block"),
            savepoint.clone(),
            users(m + 27, "undone"),
            users(m, "fails"),
            "SELECT 1".into(),
            "ROLLBACK TO s".into(),
            format!(
                "UPDATE users SET name = name || '!' WHERE id IN ({}, {})",
                A + m + 18,
                C + m + 18
            ),
            commit.clone(),
            begin.clone(),
            follows(&[(A + m, late + 6), (A + m + 9, late + 51), (B + m, late + 4)]),
            commit.clone(),
            format!(
                "{}; {}",
                users(m + 36, "with others"),
                users(m + 45, "with others")
            ),
            format!(
                "{}; {}",
                users(m + 54, "with others"),
                follows(&[(B + m, late + 8), (B + m + 9, late + 2), (C + m, late + 9)])
            ),
            "SELECT count(*) FROM users".into(),
            "SELECT count(*) FROM follows".into(),
        ];
        for text in &statements {
            let bytes = match n {
                0 => raw::q(text),
                _ if text.contains(';') => raw::q(text),
                1 => [raw::pbde(text, &[]), raw::s()].concat(),
                _ => [raw::pbe(text, &[]), raw::h(), raw::s()].concat(),
            };
            let words = |answer: Vec<String>| {
                // What is wrong is said by another host, or of another row first.
                let mut answer: Vec<String> = answer
                    .into_iter()
                    .map(|l| {
                        if l.starts_with("E ") {
                            l.chars().take(20).collect()
                        } else {
                            l
                        }
                    })
                    .collect();
                answer.sort();
                answer
            };
            let (got, expected) = (ours.ask(&bytes, 1), plain.ask(&bytes, 1));
            assert_eq!(words(got.clone()), words(expected), "{text}: {got:?}");
            let (ours, plain) = twins.rows().await;
            assert!(
                ours == plain,
                "after {text}: {} and {} rows",
                ours.len(),
                plain.len()
            );
        }
    }
    twins.assert_clean().await;
}

/// Many at once, in all orders of their rows, and all of it adds up: no two wait for each other for ever.
#[tokio::test(flavor = "multi_thread")]
async fn statements_over_the_same_hosts_take_turns() {
    let twins = Twins::new("").await;
    let addr = twins.proxy.addr();
    let rows = format!("({A}, '0'), ({B}, '0'), ({C}, '0')");
    let put = format!("INSERT INTO users (id, name) VALUES {rows}");
    assert_eq!(Raw::connect(addr).query(&put)[0], "C INSERT 0 3");
    let country = "INSERT INTO countries (code, name) VALUES ('xx', '0')";
    assert_eq!(Raw::connect(addr).query(country)[0], "C INSERT 0 1");
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let ids = [[A, B, C], [C, B, A], [B, A, C], [C, A, B]][n].map(|id| id.to_string());
            std::thread::spawn(move || {
                let mut client = Raw::connect(addr);
                let update = format!(
                    "UPDATE users SET name = name::int + 1 WHERE id IN ({})",
                    ids.join(", ")
                );
                let country = "UPDATE countries SET name = name::int + 1 WHERE code = 'xx'";
                for _ in 0..10 {
                    assert_eq!(client.query(&update), ["C UPDATE 3", "Z I"]);
                    assert_eq!(client.query(country), ["C UPDATE 1", "Z I"]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let found = Raw::connect(addr).query("SELECT name FROM users");
    assert_eq!(
        found.iter().filter(|l| *l == "D 40").count(),
        3,
        "{found:?}"
    );
    for i in 0..3 {
        let sql = "SELECT name FROM countries WHERE code = 'xx'";
        let row = twins.hosts.client(i).await.query_one(sql, &[]).await;
        assert_eq!(row.unwrap().get::<_, String>(0), "40");
    }
    twins.assert_clean().await;
}
