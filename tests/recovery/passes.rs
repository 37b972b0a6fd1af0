//! Single passes of the recovery, beside sessions that are at work, and many of them at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use presplit::ops::recovery::{self, Hosts as Recovery};
use presplit::twophase::{self, Board, Name, Readiness};
use tokio_postgres::Client;

use super::{GONE, Site, state, write};
use crate::support::{self, Hosts, wait_until};

#[tokio::test]
async fn what_a_session_has_or_has_told_its_client() {
    let site = Site::new(2).await;
    let hosts = Recovery::of(&site.map(), None);
    hosts.connect(true).await;
    let (a, b) = (&hosts.all[0], &hosts.all[1]);
    assert_eq!(hosts.readiness(a), Readiness::Ready(site.homes[0]));
    let board = Board::new();
    let none = HashSet::new();
    let look = async || {
        recovery::pass(&hosts, b, &board, &none, true)
            .await
            .unwrap()
    };

    // A session is at work on it: left alone, and not even shown.
    let ticket = board.begin("a", site.homes[0], 1, b"key");
    let name = ticket.name().clone();
    site.prepare(1, &name).await;
    assert!(look().await.in_doubt.is_empty());
    assert_eq!(site.state(1, &name).await, "prepared");
    drop(ticket);
    assert_eq!(look().await.rolled_back, std::slice::from_ref(&name));
    assert_eq!(site.state(1, &name).await, "nothing");

    // A client knows that it is committed: no decision host is asked, and nobody looks at b before it is so.
    let mut told = site.name(0);
    told.home.database += 99;
    site.prepare(1, &told).await;
    assert!(look().await.committed.is_empty());
    board.owe("b", &told);
    board.forget(&told);
    assert!(board.take_done().is_empty());
    let owed = board.owed("b");
    let look = recovery::pass(&hosts, b, &board, &owed, true)
        .await
        .unwrap();
    assert_eq!(look.committed, [told.clone()]);
    assert_eq!(site.state(1, &told).await, "committed");
    assert!(board.is_settled("b"));
    assert_eq!(board.take_done(), [told.clone()]);

    // Rows of what sessions have done are deleted; those of a host that is down are kept for later.
    let done = site.name(0);
    site.decide(0, &done, &[1]).await;
    board.forget(&done);
    recovery::delete_done(&hosts, &board).await;
    assert_eq!(site.rows(0).await, 0);
    assert!(board.take_done().is_empty());
    let mut site = site;
    site.hosts.clusters[0].stop();
    board.forget(&done);
    recovery::delete_done(&hosts, &board).await;
    assert_eq!(board.take_done(), [done]);
}

#[tokio::test]
async fn a_row_is_swept_only_when_no_database_can_need_it() {
    let mut site = Site::new(3).await;
    site.make_table(0).await;
    let hosts = Recovery::of(&site.map(), None);
    hosts.connect(true).await;
    let (needed, spent, foreign) = (site.name(0), site.name(0), site.name(0));
    site.prepare(1, &needed).await;
    site.decide(0, &needed, &[1]).await;
    site.decide(0, &spent, &[1, 2]).await;
    let part = site.begin(0, &foreign).await;
    let place = format!("d={:x}.1", site.homes[0].system);
    let decide = twophase::decide(&foreign, [place].into_iter());
    part.batch_execute(&decide).await.unwrap();
    // Copied from another database, and none of ours.
    let copy = Name {
        home: site.homes[1],
        ..site.name(0)
    };
    let a = site.client(0).await;
    let sql = format!("INSERT INTO presplit.decision VALUES ('{copy}', '{{}}'), ('x', '{{}}')");
    a.batch_execute(&sql).await.unwrap();

    let rows = &recovery::rows_of(&hosts).await.unwrap()[0];
    assert_eq!(rows.needed, std::slice::from_ref(&needed));
    assert_eq!(rows.spent, std::slice::from_ref(&spent));
    let unsure: Vec<&str> = rows.unsure.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(unsure.len(), 3, "{rows:?}");
    assert!(unsure.contains(&foreign.to_string().as_str()), "{rows:?}");

    // With a host that does not answer nothing is certain.
    site.hosts.clusters[2].stop();
    assert!(
        recovery::sweep(&hosts)
            .await
            .unwrap_err()
            .contains("host c")
    );
    assert_eq!(site.rows(0).await, 5);
    site.hosts.clusters[2].start();
    hosts.connect(true).await;
    assert_eq!(recovery::sweep(&hosts).await, Ok(1));
    assert_eq!(site.rows(0).await, 4);
    // Nothing is lost of the one that is needed.
    let board = Board::new();
    let look = recovery::pass(&hosts, &hosts.all[1], &board, &HashSet::new(), true).await;
    assert_eq!(look.unwrap().committed, [needed]);
    assert_eq!(recovery::sweep(&hosts).await, Ok(1));
}

/// What a session of a test knows of a transaction when it ends, or is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Committed,
    /// It was killed before it asked for the decision.
    NotDecided,
    /// It was killed while it waited for an answer.
    Unknown,
}

/// Waits for an answer no longer than a moment. What was asked for goes on.
async fn killed(work: impl Future<Output = bool>) -> bool {
    let wait = Duration::from_micros(rand::random_range(0..2000));
    tokio::time::timeout(wait, work).await.unwrap_or(false)
}

/// Commits a transaction over three hosts by the protocol, and is killed at `step`, with what it has asked for under way.
async fn commit(clients: &[Client; 3], name: &Name, places: &[String], step: usize) -> Told {
    let begin = format!("BEGIN; {}; {}", twophase::mark(name), write(name));
    for client in clients {
        client.batch_execute(&begin).await.unwrap();
    }
    let [decision, b, c] = clients;
    let both = async |sql: String| {
        let (b, c) = tokio::join!(b.batch_execute(&sql), c.batch_execute(&sql));
        b.is_ok() && c.is_ok()
    };
    match step {
        0 => return Told::NotDecided,
        1 => {
            killed(both(twophase::prepare(name))).await;
            return Told::NotDecided;
        }
        _ => assert!(both(twophase::prepare(name)).await, "{name}"),
    }
    let decide = twophase::decide(name, places.iter());
    let decided = async || decision.batch_execute(&decide).await.is_ok();
    match step {
        2 => return Told::NotDecided,
        3 => {
            return match killed(decided()).await {
                true => Told::Committed,
                false => Told::Unknown,
            };
        }
        _ => assert!(decided().await, "{name}"),
    }
    let carry_out = both(twophase::commit_prepared(name));
    match step {
        4 => {}
        5 => drop(killed(carry_out).await),
        // Recovery may come first, which is an error here, and as good.
        _ => drop(carry_out.await),
    }
    Told::Committed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_recoveries_beside_many_sessions_that_are_killed() {
    let site = Site::new(3).await;
    for i in 0..3 {
        site.make_table(i).await;
    }
    let places: Vec<String> = (0..3).map(|i| site.place(i)).collect();
    let configs: Vec<_> = (0..3)
        .map(|i| site.hosts.clusters[i].config().dbname("shop").clone())
        .collect();
    let homes = site.homes.clone();
    let stop = Arc::new(AtomicBool::new(false));

    let recoveries: Vec<_> = (0..3)
        .map(|_| {
            let (map, stop) = (site.map(), stop.clone());
            tokio::spawn(async move {
                let hosts = Recovery::of(&map, None);
                hosts.connect(true).await;
                let (board, none) = (Board::new(), HashSet::new());
                let mut ended = 0;
                while !stop.load(Ordering::Relaxed) {
                    for host in &hosts.all {
                        let look = recovery::pass(&hosts, host, &board, &none, true)
                            .await
                            .unwrap();
                        ended += look.committed.len() + look.rolled_back.len();
                    }
                    recovery::sweep(&hosts).await.unwrap();
                }
                ended
            })
        })
        .collect();
    let sessions: Vec<_> = (0..6u64)
        .map(|session| {
            let (configs, places, homes) = (configs.clone(), places.clone(), homes.clone());
            tokio::spawn(async move {
                let mut all = Vec::new();
                let mut held = None;
                for number in 0..100 {
                    let first = rand::random_range(0..3usize);
                    let order = [first, (first + 1) % 3, (first + 2) % 3];
                    let name = Name {
                        home: homes[first],
                        proxy: GONE,
                        number: session << 20 | number,
                        host: Hosts::name(first),
                    };
                    let clients = match held.take() {
                        Some((of, clients)) if of == first => clients,
                        _ => [
                            support::connect(&configs[order[0]]).await,
                            support::connect(&configs[order[1]]).await,
                            support::connect(&configs[order[2]]).await,
                        ],
                    };
                    let step = rand::random_range(0..10);
                    let places = [places[order[1]].clone(), places[order[2]].clone()];
                    let told = commit(&clients, &name, &places, step).await;
                    if step > 5 {
                        held = Some((first, clients));
                    }
                    all.push((name, told));
                }
                all
            })
        })
        .collect();
    let mut all = Vec::new();
    for session in sessions {
        all.extend(session.await.unwrap());
    }
    let clients = [
        site.client(0).await,
        site.client(1).await,
        site.client(2).await,
    ];
    for client in &clients {
        wait_until("nothing is prepared, and no row is left", || async {
            let sql = "SELECT (SELECT count(*) FROM pg_prepared_xacts) + (SELECT count(*) FROM presplit.decision)";
            client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut ended = 0;
    for recovery in recoveries {
        ended += recovery.await.unwrap();
    }
    assert!(ended > 100, "{ended}");
    for (name, told) in &all {
        let states = [
            state(&clients[0], name).await,
            state(&clients[1], name).await,
            state(&clients[2], name).await,
        ];
        assert!(
            states.iter().all(|state| *state == states[0]),
            "{name} {told:?}: {states:?}"
        );
        match told {
            Told::Committed => assert_eq!(states[0], "committed", "{name}"),
            Told::NotDecided => assert_eq!(states[0], "nothing", "{name}"),
            Told::Unknown => {}
        }
    }
}
