//! `presplit doctor`: what it says, what it resolves, and what only a person may decide.

use presplit::ops::demo::SCHEMA;
use presplit::ops::provision::{self, Options};

use super::{Site, doctor};
use crate::support::wait_until;

#[tokio::test]
async fn the_doctor_explains_and_resolves() {
    let mut site = Site::new(3).await;
    let report = provision::run(&site.map(), SCHEMA, Options::default())
        .await
        .unwrap();
    assert!(report.is_complete(), "{report}");
    let (well, said) = site.doctor(&[]);
    assert!(well && said.ends_with("all well\n"), "{said}");
    assert!(
        said.contains("PostgreSQL 1") && said.contains("max_prepared_transactions is 100"),
        "{said}"
    );

    let (decided, undecided, open, spent) =
        (site.name(0), site.name(0), site.name(0), site.name(0));
    for name in [&decided, &undecided, &open] {
        site.prepare(1, name).await;
    }
    site.decide(0, &decided, &[1]).await;
    site.decide(0, &spent, &[1]).await;
    let part = site.begin(0, &open).await;
    let b = site.client(1).await;
    b.batch_execute("BEGIN; INSERT INTO side.t VALUES ('theirs'); PREPARE TRANSACTION 'theirs'")
        .await
        .unwrap();
    let (well, said) = site.doctor(&[]);
    assert!(!well && said.contains("2 things to do"), "{said}");
    for words in [
        &format!("TO DO: {decided}, prepared "),
        "s ago by app: to be committed",
        &format!("TO DO: {undecided}, prepared "),
        "to be rolled back",
        "presplit doctor --resolve",
        &format!("under way: {open}"),
        "never touched by presplit: \"theirs\"",
        "decision rows that are needed: 1",
        "decision rows of no more use: 1",
    ] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    for name in [&decided, &undecided, &open] {
        assert_eq!(site.state(1, name).await, "prepared");
    }
    // A person has no say while it is known, or can be.
    let named = decided.to_string();
    let (done, said) = site.doctor(&["--rollback", &named]);
    assert!(
        !done && said.contains("nothing was done") && said.contains("to be committed"),
        "{said}"
    );
    let (done, said) = site.doctor(&["--commit", &open.to_string()]);
    assert!(!done && said.contains("is open"), "{said}");
    let (done, said) = site.doctor(&["--commit", "theirs"]);
    assert!(
        !done && said.contains("not the name of a transaction of presplit"),
        "{said}"
    );
    let (done, said) = site.doctor(&["--commit", &spent.to_string()]);
    assert!(
        !done && said.contains("prepared on no host of the map"),
        "{said}"
    );

    let (well, said) = site.doctor(&["--resolve"]);
    assert!(
        well && said.contains("committed now") && said.contains("rolled back now"),
        "{said}"
    );
    assert_eq!(site.state(1, &decided).await, "committed");
    assert_eq!(site.state(1, &undecided).await, "nothing");
    assert_eq!(site.state(1, &open).await, "prepared");
    assert_eq!(site.rows(0).await, 0);
    let theirs = "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'theirs'";
    assert_eq!(b.query_one(theirs, &[]).await.unwrap().get::<_, i64>(0), 1);

    // Once it is older than a commit takes, the process that keeps it open is named.
    let pid: i32 = part
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let file = site.hosts.map_file();
    wait_until("the doctor names who keeps it open", || async {
        let (well, said) = doctor(&file, &[]);
        !well
            && said.contains(&format!("pg_terminate_backend({pid})"))
            && said.contains("idle in transaction")
    })
    .await;
    part.batch_execute("ROLLBACK").await.unwrap();

    site.hosts.clusters[0].stop();
    let (well, said) = site.doctor(&["--resolve"]);
    assert!(
        !well && said.contains("it can't be reached") && said.contains("decision host down"),
        "{said}"
    );
    let (done, said) = site.doctor(&["--rollback", &open.to_string()]);
    assert!(!done && said.contains("host a can't be asked"), "{said}");
    assert_eq!(site.state(1, &open).await, "prepared");
}

#[tokio::test]
async fn by_hand_only_what_nobody_can_know() {
    let site = Site::new(2).await;
    for i in [0, 1] {
        site.make_table(i).await;
    }
    // Their decision host was a database that is no more.
    let lost = || {
        let mut name = site.name(0);
        name.home.database += 99;
        name
    };
    let (commit, roll_back, copied) = (lost(), lost(), lost());
    for name in [&commit, &roll_back, &copied] {
        for i in [0, 1] {
            site.prepare(i, name).await;
        }
    }
    let (well, said) = site.doctor(&["--resolve"]);
    assert!(!well && said.contains("6 things to do"), "{said}");
    assert!(
        said.contains(&format!(
            "pg_try_advisory_xact_lock_shared({})",
            commit.key()
        )),
        "{said}"
    );
    let (done, said) = site.doctor(&["--commit", &commit.to_string()]);
    assert!(
        done && said.contains("host a: committed") && said.contains("host b: committed"),
        "{said}"
    );
    let (done, said) = site.doctor(&["--rollback", &roll_back.to_string()]);
    assert!(done && said.contains("host b: rolled back"), "{said}");
    // A row of it anywhere proves that it is committed.
    let b = site.client(1).await;
    let sql = format!("INSERT INTO presplit.decision VALUES ('{copied}', '{{}}')");
    b.batch_execute(&sql).await.unwrap();
    let (done, said) = site.doctor(&["--rollback", &copied.to_string()]);
    assert!(
        !done && said.contains("host b has its decision row"),
        "{said}"
    );
    for i in [0, 1] {
        assert_eq!(site.state(i, &commit).await, "committed");
        assert_eq!(site.state(i, &roll_back).await, "nothing");
        assert_eq!(site.state(i, &copied).await, "prepared");
    }
}
