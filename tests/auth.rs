//! Who may come in, and as whom we go to the hosts.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use crate::support::raw::{frame, q, startup};
use crate::support::{Hosts, Proxy, Raw, connect, wait_until};

/// A proxy with this map text, in a directory of its own.
fn serve(text: &str) -> (tempfile::TempDir, Proxy) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shardmap.toml");
    std::fs::write(&file, text).unwrap();
    let proxy = Proxy::serve(&file, &[]);
    (dir, proxy)
}

/// The verifier that Postgres makes of a password.
async fn verifier(hosts: &Hosts, password: &str) -> String {
    let direct = hosts.client(0).await;
    let sql = format!(
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE tmp PASSWORD '{}'",
        password.replace('\'', "''")
    );
    direct.batch_execute(&sql).await.unwrap();
    let row = direct
        .query_one(
            "SELECT rolpassword FROM pg_authid WHERE rolname = 'tmp'",
            &[],
        )
        .await
        .unwrap();
    direct.batch_execute("DROP ROLE tmp").await.unwrap();
    row.get(0)
}

async fn refused(config: &Config) -> (String, String, Option<String>) {
    let error = config.connect(NoTls).await.err().expect("it was let in");
    let db = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(db.severity(), "FATAL");
    (
        db.code().code().to_owned(),
        db.message().to_owned(),
        db.hint().map(str::to_owned),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_who_they_say() {
    let hosts = Hosts::provisioned(1, 2).await;
    let verifier = verifier(&hosts, "pass'wörd").await;
    let users = format!("[users.app]\n\n[users.guarded]\npassword = \"{verifier}\"\n");
    let (_dir, proxy) = serve(&hosts.map_text(1, "").replace("[users.app]\n", &users));
    let with = |user: &str, password: Option<&str>| {
        let mut config = proxy.config();
        config.user(user);
        password.map(|p| config.password(p));
        config
    };
    let one = connect(&with("guarded", Some("pass'wörd"))).await;
    assert_eq!(
        one.query_one("SELECT 1", &[])
            .await
            .unwrap()
            .get::<_, i32>(0),
        1
    );
    connect(&with("app", None)).await;
    connect(&with("app", Some("any"))).await;
    // A wrong password and an unknown user can't be told apart.
    let (code, message, _) = refused(&with("guarded", Some("wrong"))).await;
    assert_eq!(
        (&*code, &*message),
        (
            "28P01",
            "password authentication failed for user \"guarded\""
        )
    );
    let (code, message, _) = refused(&with("nobody", Some("wrong"))).await;
    assert_eq!(
        (&*code, &*message),
        (
            "28P01",
            "password authentication failed for user \"nobody\""
        )
    );
    let (code, ..) = refused(&with("guarded", Some(""))).await;
    assert_eq!(code, "28P01");
    // A database that isn't here, only for those who got in.
    let (code, message, hint) = refused(with("app", None).dbname("shop")).await;
    assert_eq!(
        (&*code, &*message),
        ("3D000", "database \"shop\" does not exist")
    );
    assert!(hint.unwrap().contains("\"app\""));
    let (code, ..) = refused(with("guarded", Some("wrong")).dbname("shop")).await;
    assert_eq!(code, "28P01");
    // A setting of the startup packet that is wrong.
    let (code, message, _) = refused(with("app", None).options("-c TimeZone=Nowhere")).await;
    assert_eq!(code, "22023", "{message}");
    let (code, ..) = refused(with("app", None).options("-c nosuch=1")).await;
    assert_eq!(code, "42704");
    let (code, ..) = refused(with("app", None).options("-c standard_conforming_strings=off")).await;
    assert_eq!(code, "0A000");
    // Cleartext instead of SCRAM: a password message where a SASL one is due.
    let mut raw = Raw::open(
        proxy.addr(),
        &startup(0, &[("user", "guarded"), ("database", "app")]),
    );
    raw.until(|line| line.starts_with("R "));
    raw.send(&frame(b'p', b"pass'word\0"));
    let end = raw.until(|_| false);
    assert!(
        end[0].starts_with("E VFATAL") && end.last().unwrap() == "EOF",
        "{end:?}"
    );
    assert!(!proxy.log().contains("pass'"), "no password in the log");
    connect(&with("guarded", Some("pass'wörd"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_clients_are_told_so() {
    let hosts = Hosts::provisioned(1, 2).await;
    let (_dir, proxy) = serve(&hosts.map_text(1, "[proxy.limits]\nclients = 3\n"));
    let mut clients: Vec<Raw> = (0..3).map(|_| Raw::connect(proxy.addr())).collect();
    let (code, message, hint) = refused(&proxy.config()).await;
    assert_eq!(
        (&*code, &*message),
        ("53300", "sorry, too many clients already")
    );
    assert!(hint.unwrap().contains("clients"));
    // Those who are in go on, and a place that becomes free is taken.
    assert_eq!(clients[0].query("SELECT 1")[1], "D 1");
    clients.pop();
    wait_until("there is a place", || async {
        proxy.config().connect(NoTls).await.is_ok()
    })
    .await;
    // Operators get in all the same.
    let mut console = proxy.config();
    console.dbname("presplit");
    let _more = Raw::connect(proxy.addr());
    connect(&console).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocol_versions_are_negotiated() {
    let hosts = Hosts::provisioned(1, 2).await;
    let proxy = Proxy::start(&hosts);
    let params = [("user", "app"), ("database", "app")];
    let open = |minor: u16, params: &[(&str, &str)]| {
        let mut raw = Raw::open(proxy.addr(), &startup(minor, params));
        let welcome = raw.until_ready(1);
        (raw, welcome)
    };
    let (raw, welcome) = open(0, &params);
    assert_eq!((raw.key.len(), welcome.len()), (8, 2), "{welcome:?}");
    let (mut raw, welcome) = open(2, &params);
    assert_eq!(
        (raw.key.len(), welcome.len()),
        (36, 2),
        "a long cancel key, nothing to negotiate: {welcome:?}"
    );
    assert_eq!(raw.query("SELECT 1")[1], "D 1");
    // What is newer than we know, and options that we don't.
    let (mut raw, welcome) = open(9, &params);
    assert!(
        welcome[0].starts_with("v ") || welcome[1].starts_with("v "),
        "{welcome:?}"
    );
    assert_eq!(raw.query("SELECT 1")[1], "D 1");
    let (mut raw, welcome) = open(0, &[params[0], params[1], ("_pq_.nosuch", "1")]);
    assert!(
        welcome
            .iter()
            .any(|l| l.starts_with("v ") && l.contains("_pq_.nosuch")),
        "{welcome:?}"
    );
    assert_eq!(raw.query("SELECT 1")[1], "D 1");
    // The long key cancels.
    let (mut slow, _) = open(2, &params);
    slow.send(&q("SELECT pg_sleep(30)"));
    let direct = hosts.client(0).await;
    wait_until("it sleeps", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        direct.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let cancel = |key: &[u8]| {
        let len = 8 + key.len() as u32;
        [&len.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), key].concat()
    };
    // Not with a key that is nearly right.
    let mut wrong = slow.key.clone();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(
        Raw::open(proxy.addr(), &cancel(&wrong)).until(|_| false),
        ["EOF"]
    );
    assert_eq!(
        Raw::open(proxy.addr(), &cancel(&wrong[..8])).until(|_| false),
        ["EOF"]
    );
    let sleepers = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    // An answer is there only when what is to be passed on has been.
    let asleep: i64 = direct.query_one(sleepers, &[]).await.unwrap().get(0);
    assert_eq!(asleep, 1);
    assert_eq!(
        Raw::open(proxy.addr(), &cancel(&slow.key)).until(|_| false),
        ["EOF"]
    );
    let answer = slow.until_ready(1);
    assert!(answer.iter().any(|l| l.contains("C57014")), "{answer:?}");
    assert_eq!(slow.query("SELECT 1")[1], "D 1");
    // Version 2, and replication.
    let mut old = Raw::open(
        proxy.addr(),
        &[&8u32.to_be_bytes()[..], &131_072u32.to_be_bytes()].concat(),
    );
    // The answer is in that version's own form, which has no length.
    assert_eq!(old.until(|_| false).last().unwrap(), "EOF");
    let mut replication = Raw::open(
        proxy.addr(),
        &startup(0, &[params[0], params[1], ("replication", "database")]),
    );
    let answer = replication.until(|_| false);
    assert!(
        answer
            .iter()
            .any(|l| l.contains("C0A000") && l.contains("replication")),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_logged_in_to_by_every_method() {
    let hosts = Hosts::provisioned(2, 8).await;
    for (i, cluster) in hosts.clusters.iter().enumerate() {
        let direct = hosts.client(i).await;
        let roles = "SET password_encryption = 'md5'; CREATE ROLE old LOGIN SUPERUSER PASSWORD 'old word';
            SET password_encryption = 'scram-sha-256'; CREATE ROLE new LOGIN SUPERUSER PASSWORD 'new:w@rd/%';
            CREATE ROLE bare LOGIN SUPERUSER PASSWORD 'plain'";
        direct.batch_execute(roles).await.unwrap();
        let file = cluster.socket_dir().join("pg_hba.conf");
        let rules = "host all old 127.0.0.1/32 md5\nhost all new 127.0.0.1/32 scram-sha-256\nhost all bare 127.0.0.1/32 password\n";
        let old = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{rules}{old}")).unwrap();
        direct
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
        // The rule is in force once a login without a password is refused.
        let mut config = cluster.config();
        config.user("new");
        wait_until("the rules are in force", || async {
            config.connect(NoTls).await.is_err()
        })
        .await;
    }
    let ports = [hosts.clusters[0].port(), hosts.clusters[1].port()];
    let text = hosts.map_text(1, "");
    let a = |user: &str| {
        text.replace(
            &format!("app@127.0.0.1:{}", ports[0]),
            &format!("{user}@127.0.0.1:{}", ports[0]),
        )
    };
    let both = |a_user: &str, b_user: &str| {
        a(a_user).replace(
            &format!("app@127.0.0.1:{}", ports[1]),
            &format!("{b_user}@127.0.0.1:{}", ports[1]),
        )
    };
    let (old, new, bare) = ("old:old%20word", "new:new%3Aw%40rd%2F%25", "bare:plain");
    for (on_a, on_b) in [(old, new), (new, bare)] {
        let (_dir, proxy) = serve(&both(on_a, on_b));
        let mut raw = Raw::connect(proxy.addr());
        for (key, user) in [(1, on_a), (5, on_b)] {
            let found = raw.query(&format!("SELECT current_user FROM (SELECT 1) x LEFT JOIN photos ON user_id = {key} AND false WHERE true /* presplit: key={key} */"));
            assert_eq!(
                found[1],
                format!("D {}", user.split(':').next().unwrap()),
                "{found:?}"
            );
        }
    }
    // A wrong password of one host: its statements say so, the others go on.
    let (_dir, proxy) = serve(&both(new, "old:wrong"));
    let mut raw = Raw::connect(proxy.addr());
    assert_eq!(
        raw.query("SELECT count(*) FROM photos WHERE user_id = 1")[1],
        "D 0"
    );
    let answer = raw.query("SELECT count(*) FROM photos WHERE user_id = 5");
    assert!(
        answer[0].contains("C28P01") && answer[0].contains("host \"b\""),
        "{answer:?}"
    );
    assert!(!answer[0].contains("wrong"), "{answer:?}");
    assert_eq!(
        raw.query("SELECT count(*) FROM photos WHERE user_id = 1")[1],
        "D 0"
    );
    // Another role at the hosts for a client of ours.
    let users =
        "[users.app]\n\n[users.boss]\nserver_user = \"new\"\nserver_password = \"new:w@rd/%\"\n";
    let (_dir, proxy) = serve(&text.replace("[users.app]\n", users));
    let mut app = Raw::connect(proxy.addr());
    let mut boss = Raw::open(
        proxy.addr(),
        &startup(0, &[("user", "boss"), ("database", "app")]),
    );
    boss.until_ready(1);
    for key in [1, 5] {
        let sql = format!("SELECT current_user, count(*) FROM photos WHERE user_id = {key}");
        assert_eq!(boss.query(&sql)[1], "D new|0");
        assert_eq!(app.query(&sql)[1], "D app|0");
    }
    assert_eq!(app.parameter("session_authorization"), Some("app"));
    assert_eq!(
        boss.parameter("session_authorization"),
        Some("new"),
        "what the login said is of the right role"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_tells_the_parameters_that_are_in_force() {
    let hosts = Hosts::provisioned(1, 2).await;
    let (_dir, proxy) = serve(&hosts.map_text(1, "").replace("pool = 10", "pool = 1"));
    let zone = ("TimeZone", "Asia/Tokyo");
    let mut first = Raw::with(proxy.addr(), &[zone]);
    assert_eq!(first.parameter("TimeZone"), Some("Asia/Tokyo"));
    assert_eq!(first.query("SHOW TimeZone")[1], "D Asia/Tokyo");
    // The only server connection has this zone already; the server does not say so again.
    let second = Raw::with(proxy.addr(), &[zone, ("application_name", "second")]);
    assert_eq!(second.parameter("TimeZone"), Some("Asia/Tokyo"));
    assert_eq!(second.parameter("application_name"), Some("second"));
    let mut third = Raw::with(proxy.addr(), &[("DateStyle", "German, DMY")]);
    assert_eq!(third.parameter("DateStyle"), Some("German, DMY"));
    assert_ne!(third.parameter("TimeZone"), Some("Asia/Tokyo"));
    // And as they change.
    third.show_parameters = true;
    assert_eq!(
        third.query("SET TimeZone = 'Europe/Vienna'"),
        ["C SET", "S TimeZone=Europe/Vienna", "Z I"]
    );
    assert_eq!(first.query("SELECT 1")[1], "D 1");
    assert_eq!(third.query("SELECT 1").len(), 4, "nothing is said twice");
    assert_eq!(third.query("RESET TimeZone").len(), 3);
    let plain = Raw::connect(proxy.addr());
    assert_eq!(third.parameter("TimeZone"), plain.parameter("TimeZone"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_in_without_users() {
    let hosts = Hosts::provisioned(1, 2).await;
    let (_dir, proxy) = serve(&hosts.map_text(1, "").replace("[users.app]\n", ""));
    let error = proxy.config().connect(NoTls).await.err().unwrap();
    assert_eq!(
        error.code(),
        Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION),
        "{error:?}"
    );
    assert!(
        error
            .as_db_error()
            .unwrap()
            .hint()
            .unwrap()
            .contains("[users.NAME]")
    );
}
