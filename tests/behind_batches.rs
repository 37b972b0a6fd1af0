//! A Query that comes behind messages without a Sync is part of their transaction, on however many hosts: compared with one Postgres.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::protocol::{Script, Step, compare, step, twins};
use crate::support::raw::{d, done, pbe, q, s};
use crate::support::{Hosts, Proxy, Raw, wait_until};

/// Users of every shard.
const USERS: [i64; 4] = [1, 2, 5, 6];

fn insert(user: i64) -> Vec<u8> {
    pbe(
        &format!("INSERT INTO photos (user_id, caption) VALUES ({user}, 'behind')"),
        &[],
    )
}

/// What is there, and away with it.
fn look() -> Vec<Step> {
    let all = "SELECT user_id, caption FROM photos WHERE caption LIKE 'behind%' ORDER BY user_id, caption";
    let gone = "DELETE FROM photos WHERE user_id IN (1, 2, 5, 6) AND caption LIKE 'behind%'";
    vec![step(&[s(), q(all)], 2), step(&[q(gone)], 1)]
}

fn scripts() -> Vec<Script> {
    let update = "UPDATE photos SET caption = caption || '!' WHERE user_id IN (1, 2, 5, 6) AND caption = 'behind'";
    let queries: [(&'static str, Vec<u8>); 9] = [
        ("a write of all hosts", q(update)),
        (
            "a write of all hosts that fails",
            q(
                "UPDATE photos SET caption = (1 / (user_id - user_id))::text WHERE user_id IN (1, 2, 5, 6) AND caption = 'behind'",
            ),
        ),
        (
            "a read of all hosts",
            q("SELECT count(*) FROM photos WHERE caption = 'behind'"),
        ),
        (
            "a read of all hosts that fails",
            q("SELECT sum(1 / (user_id - user_id)) FROM photos WHERE caption = 'behind'"),
        ),
        (
            "a read of one user",
            q("SELECT caption FROM photos WHERE user_id = 6 AND caption = 'behind'"),
        ),
        (
            "a read of one user that fails",
            q("SELECT 1 / (user_id - 6) FROM photos WHERE user_id = 6"),
        ),
        (
            "a write of another user",
            q("INSERT INTO photos (user_id, caption) VALUES (6, 'behind it')"),
        ),
        (
            "COPY",
            [
                q("COPY photos (user_id, caption) FROM STDIN"),
                d("1\tbehind that\n2\tbehind that\n6\tbehind that\n"),
                done(),
            ]
            .concat(),
        ),
        (
            "COPY that fails",
            [
                q("COPY photos (user_id, caption) FROM STDIN"),
                d("1\tbehind that\n6\tbehind\tmore\n"),
                done(),
            ]
            .concat(),
        ),
    ];
    let mut scripts = Vec::new();
    for (name, query) in queries {
        let mut steps = Vec::new();
        for batch in [&USERS[..1], &USERS[3..], &USERS[..]] {
            let batch: Vec<u8> = batch.iter().flat_map(|user| insert(*user)).collect();
            steps.push(step(&[batch, query.clone()], 1));
            steps.extend(look());
        }
        scripts.push((name, steps));
    }
    scripts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_behind_a_batch_is_part_of_its_transaction() {
    compare(scripts(), &Proxy::start(&twins().await.hosts)).await;
}

/// A table that the proxy has yet to hear of is no error, and the batch stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_new_does_not_undo_what_was_done_before() {
    let hosts = Hosts::provisioned(1, 2).await;
    let proxy = Proxy::start(&hosts);
    let direct = hosts.client(0).await;
    let made = AtomicUsize::new(0);
    // The catalog is not read twice in a moment: then the table is unknown indeed, and the batch is undone with the Query.
    wait_until("a new table is known when it is named", || async {
        let table = format!("later_{}", made.fetch_add(1, Ordering::Relaxed));
        for shard in 0..2 {
            let sql = format!("CREATE TABLE shard_{shard:04}.{table} (user_id bigint)");
            direct.batch_execute(&sql).await.unwrap();
        }
        let mut raw = Raw::connect(proxy.addr());
        let read = q(&format!("SELECT count(*) FROM {table} WHERE user_id = 1"));
        let answer = raw.ask(&[insert(1), read].concat(), 1);
        let known = answer.contains(&"D 0".to_owned());
        let there = raw.query("SELECT caption FROM photos WHERE user_id = 1");
        assert_eq!(there.contains(&"D behind".to_owned()), known, "{answer:?}");
        known
    })
    .await;
}

/// What the batch has written is committed with the block that it becomes part of, or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_behind_a_batch_is_committed_with_it_or_not_at_all() {
    let hosts = Hosts::provisioned(2, 8).await;
    for shard in 0..8 {
        let late = format!(
            "SET search_path = shard_{shard:04};
             ALTER TABLE follows ADD CONSTRAINT late UNIQUE (target_id) DEFERRABLE INITIALLY DEFERRED"
        );
        let client = hosts.client(hosts.owner(shard)).await;
        client.batch_execute(&late).await.unwrap();
    }
    let proxy = Proxy::start(&hosts);
    // Users of either host: what fails does so when its host commits, be it the first or the last.
    let [here, there] = [0, 1].map(|host| (1..8).find(|u| hosts.owner(*u) == host).unwrap());
    for (first, then) in [(here, there), (there, here)] {
        let mut raw = Raw::connect(proxy.addr());
        let follow = |user: i64| pbe(&format!("INSERT INTO follows VALUES ({user}, 9)"), &[]);
        let batch = [follow(first.into()), follow(first as i64 + 8), q("BEGIN")].concat();
        let began = raw.ask(&batch, 1);
        assert!(began.contains(&"C BEGIN".to_owned()), "{began:?}");
        raw.query(&format!("INSERT INTO follows VALUES ({then}, 8)"));
        let ended = raw.query("COMMIT");
        assert!(ended[0].contains("23505"), "{ended:?}");
        let there = raw.query(&format!(
            "SELECT source_id FROM follows WHERE source_id IN ({first}, {then})"
        ));
        assert!(there.iter().all(|line| !line.starts_with('D')), "{there:?}");
    }
}
