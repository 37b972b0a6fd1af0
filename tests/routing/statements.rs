//! Statements of one user, of no user, and those whose user a hint or the session says.

use super::{Eye, hosts, rows, shard_of};
use crate::support::Proxy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_one_user_go_to_the_user() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let client = proxy.client().await;
    for me in [1003i64, 1006] {
        let shard = shard_of(me);
        let run = async |sql: &str| {
            let sql = sql.replace("ME", &me.to_string());
            client
                .simple_query(&sql)
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        };
        run("INSERT INTO users (id, name, country) VALUES (ME, 'me', 'at')").await;
        run("INSERT INTO follows VALUES (ME, 1), (ME, 2), (ME, 3)").await;
        assert_eq!(
            eye.places("follows", &format!("source_id = {me}")).await,
            vec![Some(shard); 3]
        );
        let made = rows(
            &client,
            &format!("INSERT INTO photos (user_id, caption) VALUES ({me}, 'mine') RETURNING id"),
        )
        .await;
        let id: i64 = made[0][0].as_deref().unwrap().parse().unwrap();
        assert_eq!(
            (id >> 10) & 0x1fff,
            i64::from(shard),
            "the id carries its shard"
        );
        run(&format!("INSERT INTO likes (user_id, photo_id) SELECT user_id, id FROM photos WHERE user_id = ME AND id = {id}")).await;
        eye.assert_only_in(me, "likes", &format!("user_id = {me}"), "INSERT ... SELECT")
            .await;
        let reads = [
            ("SELECT count(*) FROM follows WHERE source_id = ME", "3"),
            (
                "SELECT max(target_id) FROM follows f WHERE f.source_id = ME GROUP BY source_id ORDER BY 1 LIMIT 1",
                "3",
            ),
            (
                "SELECT count(*) FROM users u JOIN follows f ON f.source_id = u.id WHERE u.id = ME",
                "3",
            ),
            (
                "SELECT count(*) FROM users u, photos p, likes l WHERE u.id = p.user_id AND l.user_id = p.user_id AND p.user_id = ME",
                "1",
            ),
            (
                "SELECT count(*) FROM users u LEFT JOIN follows f ON f.source_id = u.id WHERE u.id = ME",
                "3",
            ),
            (
                "SELECT count(*) FROM photos JOIN likes USING (user_id) WHERE user_id = ME",
                "1",
            ),
            (
                "SELECT (SELECT count(*) FROM follows WHERE source_id = u.id) FROM users u WHERE u.id = ME",
                "3",
            ),
            (
                "SELECT count(*) FROM users WHERE id = ME AND EXISTS (SELECT 1 FROM follows WHERE source_id = ME)",
                "1",
            ),
            (
                "WITH f AS (SELECT * FROM follows WHERE source_id = ME) SELECT count(*) FROM f JOIN users u ON u.id = f.source_id",
                "3",
            ),
            (
                "SELECT count(*) FROM (SELECT * FROM follows WHERE source_id = ME UNION ALL SELECT * FROM follows WHERE source_id = ME) x",
                "6",
            ),
            (
                "SELECT c.name FROM users u JOIN countries c ON c.code = u.country WHERE u.id = ME",
                "Austria",
            ),
            ("SELECT caption FROM photos WHERE id = ID", "mine"),
            (
                "SELECT p.caption FROM photos p JOIN likes l ON l.photo_id = p.id AND l.user_id = p.user_id WHERE p.id = ID",
                "mine",
            ),
            (
                "SELECT caption FROM \"photos\" WHERE \"photos\".\"user_id\" = ME",
                "mine",
            ),
            (
                "SELECT \"public\".\"photos\".\"caption\" FROM \"public\".\"photos\" WHERE \"public\".\"photos\".\"user_id\" = ME",
                "mine",
            ),
            ("TABLE countries ORDER BY code LIMIT 1", "at"),
        ];
        for (sql, expected) in reads {
            let sql = sql
                .replace("ME", &me.to_string())
                .replace("ID", &id.to_string());
            assert_eq!(
                rows(&client, &sql).await[0][0].as_deref(),
                Some(expected),
                "{sql}"
            );
            let prepared = client
                .query(&sql, &[])
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            assert!(!prepared.is_empty(), "{sql}");
        }
        run(&format!(
            "UPDATE photos SET caption = 'by id' WHERE id = {id}"
        ))
        .await;
        eye.assert_only_in(
            me,
            "photos",
            &format!("id = {id} AND caption = 'by id'"),
            "UPDATE by id",
        )
        .await;
        assert_eq!(
            client
                .execute("DELETE FROM photos WHERE id = $1", &[&id])
                .await
                .unwrap(),
            1
        );
        run("WITH gone AS (DELETE FROM follows WHERE source_id = ME RETURNING *) SELECT count(*) FROM gone").await;
        assert!(
            eye.places("follows", &format!("source_id = {me}"))
                .await
                .is_empty()
        );
        run("INSERT INTO users (id, name) VALUES (ME, 'again') ON CONFLICT (id) DO UPDATE SET name = excluded.name").await;
        eye.assert_only_in(
            me,
            "users",
            &format!("id = {me} AND name = 'again'"),
            "upsert",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsharded_and_reference_tables_and_the_catalog() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let client = proxy.client().await;
    client
        .execute(
            "INSERT INTO invoices (user_id, cents) VALUES ($1, 100)",
            &[&1i64],
        )
        .await
        .unwrap();
    client
        .batch_execute("INSERT INTO public.invoices (user_id, cents) VALUES (2, 200)")
        .await
        .unwrap();
    assert_eq!(
        rows(&client, "SELECT count(*), sum(cents) FROM invoices").await,
        [[Some("2".to_owned()), Some("300".to_owned())]]
    );
    assert_eq!(eye.places("invoices", "true").await, [None, None]);
    let on_b: i64 = eye.direct[1]
        .query_one("SELECT count(*) FROM public.invoices", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(on_b, 2, "on the host that [tables] names");
    // Joined with a shard of its own host.
    client.batch_execute("INSERT INTO users (id, name) VALUES (2005, 'payer'); INSERT INTO invoices (user_id, cents) VALUES (2005, 5)").await.unwrap();
    let joined =
        "SELECT u.name, i.cents FROM users u JOIN invoices i ON i.user_id = u.id WHERE u.id = 2005";
    assert_eq!(
        rows(&client, joined).await,
        [[Some("payer".to_owned()), Some("5".to_owned())]]
    );
    assert_eq!(
        rows(&client, "SELECT name FROM countries ORDER BY 1")
            .await
            .len(),
        2
    );
    assert_eq!(
        client
            .query("SELECT name FROM countries WHERE code = $1", &[&"ke"])
            .await
            .unwrap()
            .len(),
        1
    );
    // The catalog is that of one shard, its tables found by their bare names.
    assert_eq!(
        rows(&client, "SELECT 'photos'::regclass").await,
        [[Some("photos".to_owned())]]
    );
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'photos' AND table_schema = current_schema()";
    assert_eq!(rows(&client, columns).await, [[Some("4".to_owned())]]);
    assert_eq!(
        rows(
            &client,
            "SELECT relname FROM pg_class WHERE oid = 'users'::regclass"
        )
        .await
        .len(),
        1
    );
    // What a catalog query needs does not stay behind for the next statement.
    assert_eq!(
        rows(&client, "SHOW search_path").await,
        [[Some("\"$user\", public".to_owned())]]
    );
    assert_eq!(
        rows(&client, "SELECT 1 + 1").await,
        [[Some("2".to_owned())]]
    );
    let me = rows(&client, "SELECT current_user, current_database()").await;
    assert_eq!(me, [[Some("app".to_owned()), Some("app".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_the_session_and_hints_in_comments() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let client = proxy.client().await;
    let one = async |sql: &str| rows(&client, sql).await[0][0].clone().unwrap();
    let code = async |sql: &str| {
        client
            .batch_execute(sql)
            .await
            .unwrap_err()
            .code()
            .unwrap()
            .code()
            .to_owned()
    };
    for (n, set) in [
        "SET presplit.key = 3001",
        "SET presplit.key TO '3001'",
        "SET presplit.shard = 1",
    ]
    .into_iter()
    .enumerate()
    {
        client.batch_execute(set).await.unwrap();
        // With a key or shard of the session, what names no shard goes there.
        assert_eq!(
            one("SELECT count(*) FROM photos WHERE caption = 'hinted'").await,
            "0",
            "{set}"
        );
        assert_eq!(one("SELECT (next_id() >> 10) & 8191").await, "1", "{set}");
        client
            .batch_execute(&format!(
                "INSERT INTO photos (user_id, caption) VALUES (3001, 'set {n}')"
            ))
            .await
            .unwrap();
        eye.assert_only_in(3001, "photos", &format!("caption = 'set {n}'"), set)
            .await;
        assert_eq!(
            code("SELECT * FROM photos WHERE user_id = 3002").await,
            "SR002",
            "the session and the text disagree"
        );
        client
            .batch_execute("RESET presplit.key; RESET presplit.shard")
            .await
            .unwrap();
        assert_eq!(one("SHOW presplit.key").await, "");
        assert_eq!(code("SELECT random() FROM photos").await, "SR004");
    }
    client
        .batch_execute("SET presplit.key = 3001")
        .await
        .unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3001");
    assert_eq!(one("SHOW presplit.shard").await, "");
    // LOCAL: until the end of the block; it beats what the session has.
    client
        .batch_execute("BEGIN; SET LOCAL presplit.key = 3002")
        .await
        .unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3002");
    assert_eq!(
        one("SELECT count(*) FROM photos WHERE user_id = 3002").await,
        "0"
    );
    assert_eq!(
        code("SELECT count(*) FROM photos WHERE user_id = 3001").await,
        "SR002"
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3001");
    // As with Postgres' own settings: a rollback undoes SET, a savepoint's rollback undoes what came after it.
    client.batch_execute("BEGIN").await.unwrap();
    client
        .batch_execute("SET presplit.key = 3003")
        .await
        .unwrap();
    client.batch_execute("SAVEPOINT a").await.unwrap();
    client
        .batch_execute("SET LOCAL presplit.key = 3004")
        .await
        .unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3004");
    client.batch_execute("ROLLBACK TO a").await.unwrap();
    assert_eq!(
        one("SHOW presplit.key").await,
        "3003",
        "SET LOCAL behind the savepoint is undone"
    );
    client
        .batch_execute("SET LOCAL presplit.key = 3004")
        .await
        .unwrap();
    client
        .batch_execute("SET presplit.key = 3005")
        .await
        .unwrap();
    assert_eq!(
        one("SHOW presplit.key").await,
        "3005",
        "a later SET beats SET LOCAL"
    );
    client
        .batch_execute("SET LOCAL presplit.key = 3006")
        .await
        .unwrap();
    client.batch_execute("RESET presplit.key").await.unwrap();
    assert_eq!(one("SHOW presplit.key").await, "", "so does RESET");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3001");
    client.batch_execute("RESET ALL").await.unwrap();
    assert_eq!(one("SHOW presplit.key").await, "");

    // A hint in a comment is of its statement alone.
    for (hint, key) in [("key=3010", 3010), ("shard=3", 3), ("key='-3011'", -3011)] {
        let text = format!(
            "INSERT INTO photos (user_id, caption) VALUES ({key}, 'c {key}') /* presplit: {hint} */"
        );
        client.batch_execute(&text).await.unwrap();
        eye.assert_only_in(key, "photos", &format!("caption = 'c {key}'"), hint)
            .await;
        let text = format!("/* presplit: {hint} */ SELECT count(*) FROM photos WHERE caption = $1");
        let found = client
            .query_one(&text, &[&format!("c {key}")])
            .await
            .unwrap();
        assert_eq!(found.get::<_, i64>(0), 1);
    }
    assert_eq!(code("SELECT random() FROM photos").await, "SR004");
    assert_eq!(
        code("SELECT * FROM photos WHERE user_id = 1 /* presplit: key=2 */").await,
        "SR002"
    );
    let all = rows(
        &client,
        "SELECT caption FROM photos WHERE caption LIKE 'c %' /* presplit: all */",
    )
    .await;
    assert_eq!(all.len(), 3);
}
