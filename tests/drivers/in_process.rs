//! tokio-postgres, which is in this process: the steps of `steps.txt`. It prepares everything under names and sends parameters in
//! binary.

mod values;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, TryStreamExt, pin_mut};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Error, IsolationLevel, NoTls, Row, SimpleQueryMessage};

use super::Said;

type Fault = Box<dyn std::error::Error + Send + Sync>;
type Went = Result<(), Fault>;
type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// All steps against this server.
pub async fn run(first: i64, config: &Config) -> Said {
    let began = Instant::now();
    let mut said = String::from("version 0.7\n");
    let mut held = None;
    macro_rules! steps {
        ($($name:literal: $step:ident,)*) => {$(
            let went = async {
                let app = match &mut held {
                    Some(app) => app,
                    None => held.insert(App::open(first, config).await?),
                };
                app.$step().await
            };
            match went.await {
                Ok(()) => said.push_str(&format!("ok {}\n", $name)),
                Err(fault) => {
                    said.push_str(&format!("fail {}: {fault}\n", $name));
                    drop(held.take());
                }
            }
        )*};
    }
    steps! {
        "connect": connect,
        "create": create,
        "read": read,
        "update": update,
        "delete": delete,
        "scatter": scatter,
        "prepared": prepared,
        "commit": commit,
        "rollback": rollback,
        "savepoint": savepoint,
        "batch": batch,
        "batch_error": batch_error,
        "copy_in": copy_in,
        "copy_out": copy_out,
        "cursor": cursor,
        "unique_violation": unique_violation,
        "syntax_error": syntax_error,
        "failed_transaction": failed_transaction,
        "cancel": cancel,
        "arrays": arrays,
        "json": json,
        "timestamps": timestamps,
        "numerics": numerics,
        "null": null,
        "bytea": bytea,
        "unicode": unicode,
        "pool": pool,
    }
    Said::read(&said, began.elapsed())
}

fn same<T: PartialEq<E> + std::fmt::Debug, E: std::fmt::Debug>(got: T, expected: E) -> Went {
    match got == expected {
        true => Ok(()),
        false => Err(format!("got {got:?}, expected {expected:?}").into()),
    }
}

fn fails<T>(result: Result<T, Error>, code: &str) -> Result<Error, Fault> {
    match result {
        Ok(_) => Err(format!("no error, where {code} was expected").into()),
        Err(e) if e.code() == Some(&SqlState::from_code(code)) => Ok(e),
        Err(e) => Err(format!("{e:?}, where {code} was expected").into()),
    }
}

struct App {
    client: Client,
    config: Config,
    users: Vec<i64>,
}

impl App {
    async fn open(first: i64, config: &Config) -> Result<App, Fault> {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(App {
            client,
            config: config.clone(),
            users: (first..first + 16).collect(),
        })
    }

    async fn execute(&self, sql: &str, params: Params<'_>, rows: u64) -> Went {
        same(self.client.execute(sql, params).await?, rows)
    }

    async fn row(&self, sql: &str, params: Params<'_>) -> Result<Row, Error> {
        self.client.query_one(sql, params).await
    }

    async fn captions(&self, caption: &str, expected: i64) -> Went {
        let sql = "SELECT count(*) FROM photos WHERE user_id = ANY($1) AND caption = $2";
        let n: i64 = self.row(sql, &[&self.users, &caption]).await?.get(0);
        same(n, expected)
    }

    async fn named(&self, name: &str, expected: i64) -> Went {
        let sql = "SELECT count(*) FROM users WHERE name = $1 AND id = ANY($2)";
        let n: i64 = self.row(sql, &[&name, &self.users]).await?.get(0);
        same(n, expected)
    }

    async fn connect(&mut self) -> Went {
        let encoding = self.row("SHOW client_encoding", &[]).await?;
        same(encoding.get::<_, &str>(0), "UTF8")?;
        for user in &self.users {
            for (table, key) in [
                ("things", "user_id"),
                ("photos", "user_id"),
                ("users", "id"),
            ] {
                let sql = format!("DELETE FROM {table} WHERE {key} = $1");
                self.client.execute(&sql, &[user]).await?;
            }
        }
        Ok(())
    }

    async fn create(&mut self) -> Went {
        for user in &self.users {
            let name = format!("user {user}");
            self.execute(
                "INSERT INTO users (id, name) VALUES ($1, $2)",
                &[user, &name],
                1,
            )
            .await?;
            let insert = "INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING id";
            let id: i64 = self.row(insert, &[user, &"first"]).await?.get(0);
            same(id > 0, true)?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Went {
        for user in &self.users {
            let name = self
                .row("SELECT name FROM users WHERE id = $1", &[user])
                .await?;
            same(name.get::<_, &str>(0), format!("user {user}"))?;
            let photo: i64 = self
                .row("SELECT id FROM photos WHERE user_id = $1", &[user])
                .await?
                .get(0);
            let owner = self
                .row("SELECT user_id FROM photos WHERE id = $1", &[&photo])
                .await?;
            same(owner.get::<_, i64>(0), *user)?;
            let typed = self
                .row("SELECT $1::int8 = id FROM users WHERE id = $1", &[user])
                .await?;
            same(typed.get::<_, bool>(0), true)?;
        }
        let u = &self.users;
        let two = "SELECT id FROM users WHERE id IN ($1, $2) ORDER BY id";
        let two = self.client.query(two, &[&u[0], &u[5]]).await?;
        same(
            two.iter().map(|r| r.get::<_, i64>(0)).collect::<Vec<_>>(),
            [u[0], u[5]],
        )?;
        let joined = "SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = $1";
        let row = self.row(joined, &[&u[3]]).await?;
        same(
            (row.get::<_, String>(0), row.get::<_, &str>(1)),
            (format!("user {}", u[3]), "first"),
        )?;
        let country = self
            .row("SELECT name FROM countries WHERE code = $1", &[&"de"])
            .await?;
        same(country.get::<_, &str>(0), "Germany")?;
        let nobody = self
            .client
            .query_opt("SELECT name FROM users WHERE id = $1", &[&(u[0] + 999)])
            .await?;
        same(nobody.is_none(), true)
    }

    async fn update(&mut self) -> Went {
        for user in &self.users {
            self.execute(
                "UPDATE photos SET caption = $1 WHERE user_id = $2",
                &[&"updated", user],
                1,
            )
            .await?;
        }
        let some = "UPDATE photos SET caption = 'updated' WHERE user_id = ANY($1)";
        self.execute(some, &[&&self.users[..4]], 4).await
    }

    async fn delete(&mut self) -> Went {
        let user = self.users[2];
        self.execute(
            "INSERT INTO photos (user_id, caption) VALUES ($1, 'gone')",
            &[&user],
            1,
        )
        .await?;
        for n in [1, 0] {
            let sql = "DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'";
            self.execute(sql, &[&user], n).await?;
        }
        Ok(())
    }

    async fn scatter(&mut self) -> Went {
        let u = &self.users;
        let count = "SELECT count(*) FROM photos WHERE user_id BETWEEN $1 AND $2";
        same(
            self.row(count, &[&u[0], &u[15]]).await?.get::<_, i64>(0),
            16,
        )?;
        let last = "SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT 10";
        let last = self.client.query(last, &[&u[0], &u[15]]).await?;
        same(
            last.iter()
                .rev()
                .map(|r| r.get::<_, i64>(0))
                .collect::<Vec<_>>(),
            &u[6..],
        )
    }

    async fn prepared(&mut self) -> Went {
        let by = "SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) FROM users WHERE id = $1";
        let by = self.client.prepare(by).await?;
        let rename = self
            .client
            .prepare("UPDATE users SET name = $2 WHERE id = $1")
            .await?;
        same(by.columns()[0].name(), "name")?;
        same(rename.params(), [Type::INT8, Type::TEXT])?;
        for _ in 0..3 {
            for user in &self.users {
                let (row, name) = (
                    self.client.query_one(&by, &[user]).await?,
                    format!("user {user}"),
                );
                same((row.get::<_, &str>(0), row.get::<_, i64>(1)), (&*name, 1))?;
                same(self.client.execute(&rename, &[user, &name]).await?, 1)?;
            }
        }
        drop(by);
        same(
            self.client
                .query(&rename, &[&0_i64, &"nobody"])
                .await?
                .len(),
            0,
        )
    }

    async fn commit(&mut self) -> Went {
        let transaction = self.client.transaction().await?;
        for n in [0, 4, 1] {
            let sql = "UPDATE users SET name = 'committed' WHERE id = $1";
            same(transaction.execute(sql, &[&self.users[n]]).await?, 1)?;
        }
        transaction.commit().await?;
        self.named("committed", 3).await?;
        let serializable = self
            .client
            .build_transaction()
            .isolation_level(IsolationLevel::Serializable);
        let transaction = serializable
            .read_only(true)
            .deferrable(true)
            .start()
            .await?;
        let row = transaction
            .query_one("SELECT name FROM users WHERE id = $1", &[&self.users[4]])
            .await?;
        same(row.get::<_, &str>(0), "committed")?;
        Ok(transaction.commit().await?)
    }

    async fn rollback(&mut self) -> Went {
        // By name, and by dropping it.
        for dropped in [false, true] {
            let transaction = self.client.transaction().await?;
            for n in [0, 4] {
                let sql = "UPDATE users SET name = 'never' WHERE id = $1";
                transaction.execute(sql, &[&self.users[n]]).await?;
            }
            match dropped {
                true => drop(transaction),
                false => transaction.rollback().await?,
            }
            self.named("never", 0).await?;
        }
        Ok(())
    }

    async fn savepoint(&mut self) -> Went {
        let rename = self
            .client
            .prepare("UPDATE users SET name = $2 WHERE id = $1")
            .await?;
        let mut transaction = self.client.transaction().await?;
        for user in &self.users[4..6] {
            let insert = "INSERT INTO photos (user_id, caption) VALUES ($1, $2)";
            transaction.execute(insert, &[user, &"before"]).await?;
            let savepoint = transaction.savepoint("one").await?;
            savepoint.execute(insert, &[user, &"undone"]).await?;
            let twice = "INSERT INTO users (id, name) VALUES ($1, 'twice')";
            fails(savepoint.execute(twice, &[user]).await, "23505")?;
            savepoint.rollback().await?;
            let savepoint = transaction.savepoint("two").await?;
            savepoint.execute(&rename, &[user, &"inside"]).await?;
            savepoint.commit().await?;
        }
        transaction.commit().await?;
        let found = "SELECT array_agg(caption ORDER BY id) FROM photos WHERE user_id = $1";
        same(
            self.row(found, &[&self.users[4]])
                .await?
                .get::<_, Vec<String>>(0),
            ["updated", "before"],
        )
    }

    /// Requests that don't wait for each other; it ends each with a Sync.
    async fn batch(&mut self) -> Went {
        let insert = self
            .client
            .prepare("INSERT INTO photos (user_id, caption) VALUES ($1, 'many')")
            .await?;
        for made in join_all(
            self.users
                .iter()
                .map(|user| self.client.execute_raw(&insert, [*user])),
        )
        .await
        {
            same(made?, 1)?;
        }
        let select = self.client.prepare("SELECT id, (SELECT count(*) FROM photos WHERE user_id = $1 AND caption = 'many') FROM users WHERE id = $1").await?;
        let asked: Vec<i64> = self.users.iter().copied().cycle().take(200).collect();
        let answers = join_all(
            asked
                .iter()
                .map(async |user| self.client.query_one(&select, &[user]).await),
        )
        .await;
        for (user, row) in asked.iter().zip(answers) {
            let row = row?;
            same((row.get::<_, i64>(0), row.get::<_, i64>(1)), (*user, 1))?;
        }
        let several: Vec<String> = self
            .users
            .iter()
            .map(|user| format!("UPDATE users SET name = 'batch' WHERE id = {user}"))
            .collect();
        self.client
            .batch_execute(&format!("BEGIN; {}; COMMIT", several.join("; ")))
            .await?;
        self.named("batch", 16).await
    }

    async fn batch_error(&mut self) -> Went {
        let insert = |n: usize| {
            format!(
                "INSERT INTO things (user_id, id) VALUES ({}, 5)",
                self.users[n]
            )
        };
        let several = [0, 4, 0].map(insert).join("; ");
        fails(self.client.batch_execute(&several).await, "23505")?;
        let five = "SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY($1)";
        same(self.row(five, &[&self.users]).await?.get::<_, i64>(0), 0)?;
        let messages = self
            .client
            .simple_query(&format!(
                "SELECT id FROM users WHERE id = {}; SELECT 1",
                self.users[0]
            ))
            .await?;
        let rows = messages
            .iter()
            .filter(|m| matches!(m, SimpleQueryMessage::Row(_)));
        same(rows.count(), 2)
    }

    async fn copy(&self, sql: &str, lines: Vec<String>) -> Result<u64, Error> {
        let sink = self.client.copy_in::<_, Bytes>(sql).await?;
        pin_mut!(sink);
        for line in lines {
            sink.send(Bytes::from(line)).await?;
        }
        sink.finish().await
    }

    async fn copy_in(&mut self) -> Went {
        let photos = self
            .users
            .iter()
            .map(|user| format!("{user}\tcopied \\t\\\\ ü🚀\n"))
            .collect();
        same(
            self.copy("COPY photos (user_id, caption) FROM STDIN", photos)
                .await?,
            16,
        )?;
        let things = self
            .users
            .iter()
            .map(|user| format!("{user},30,\n"))
            .collect();
        same(
            self.copy(
                "COPY things (user_id, id, note) FROM STDIN (FORMAT csv)",
                things,
            )
            .await?,
            16,
        )?;
        self.captions("copied \t\\ ü🚀", 16).await?;
        // Dropped before its end.
        let sink = self
            .client
            .copy_in::<_, Bytes>("COPY photos (user_id, caption) FROM STDIN")
            .await?;
        let mut sink = Box::pin(sink);
        sink.send(Bytes::from(format!("{}\tlost\n", self.users[0])))
            .await?;
        drop(sink);
        self.captions("lost", 0).await
    }

    async fn copied(&self, sql: &str) -> Result<String, Fault> {
        let parts: Vec<Bytes> = self.client.copy_out(sql).await?.try_collect().await?;
        Ok(String::from_utf8(parts.concat())?)
    }

    async fn copy_out(&mut self) -> Went {
        let u = &self.users;
        let one = self
            .copied(&format!(
                "COPY (SELECT name, NULL FROM users WHERE id = {}) TO STDOUT",
                u[9]
            ))
            .await?;
        same(one, "batch\t\\N\n")?;
        let all = self
            .copied(&format!(
                "COPY (SELECT id FROM users WHERE id BETWEEN {} AND {}) TO STDOUT",
                u[0], u[15]
            ))
            .await?;
        let mut ids: Vec<i64> = all.lines().map(str::parse).collect::<Result<_, _>>()?;
        ids.sort_unstable();
        same(&ids, u)
    }

    async fn cursor(&mut self) -> Went {
        let (user, u) = (self.users[0], self.users.clone());
        let transaction = self.client.transaction().await?;
        let mine = transaction
            .bind(
                "SELECT caption FROM photos WHERE user_id = $1 ORDER BY id",
                &[&user],
            )
            .await?;
        let all = "SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id";
        let all = transaction.bind(all, &[&u[0], &u[15]]).await?;
        // By turns.
        let (mut sizes, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            sizes.push(transaction.query_portal(&mine, 2).await?.len());
            let part = transaction.query_portal(&all, 5).await?;
            ids.extend(part.iter().map(|row| row.get::<_, i64>(0)));
        }
        same(sizes, [2, 1, 0, 0])?;
        same(ids, u)?;
        Ok(transaction.commit().await?)
    }

    async fn unique_violation(&mut self) -> Went {
        let insert = "INSERT INTO users (id, name) VALUES ($1, 'twice')";
        let e = fails(
            self.client.execute(insert, &[&self.users[6]]).await,
            "23505",
        )?;
        let e = e.as_db_error().ok_or("no error of the server")?;
        same(
            (e.table(), e.constraint()),
            (Some("users"), Some("users_pkey")),
        )?;
        self.named("twice", 0).await
    }

    async fn syntax_error(&mut self) -> Went {
        fails(self.client.execute("SELEC 1", &[]).await, "42601")?;
        fails(self.client.batch_execute("SELEC 1").await, "42601")?;
        fails(
            self.client
                .query("SELECT name FRM users WHERE id = $1", &[&self.users[0]])
                .await,
            "42601",
        )?;
        fails(
            self.client
                .query("SELECT nothing FROM users WHERE id = $1", &[&self.users[0]])
                .await,
            "42703",
        )?;
        same(self.row("SELECT 1", &[]).await?.get::<_, i32>(0), 1)
    }

    async fn failed_transaction(&mut self) -> Went {
        let user = self.users[0];
        let transaction = self.client.transaction().await?;
        transaction
            .execute(
                "INSERT INTO photos (user_id, caption) VALUES ($1, 'lost')",
                &[&user],
            )
            .await?;
        fails(
            transaction
                .query("SELECT 1 / (id - id) FROM users WHERE id = $1", &[&user])
                .await,
            "22012",
        )?;
        fails(transaction.query("SELECT 1", &[]).await, "25P02")?;
        transaction.rollback().await?;
        self.captions("lost", 0).await
    }

    async fn cancel(&mut self) -> Went {
        let of_user = format!(
            "SELECT pg_sleep(60)::text FROM users WHERE id = {}",
            self.users[0]
        );
        for sql in ["SELECT pg_sleep(60)::text", &of_user] {
            let token = self.client.cancel_token();
            let query = self.client.query(sql, &[]);
            pin_mut!(query);
            let failed = loop {
                match tokio::time::timeout(Duration::from_millis(100), &mut query).await {
                    Ok(ended) => break ended,
                    Err(_) => token.cancel_query(NoTls).await?,
                }
            };
            fails(failed, "57014")?;
            // One that came late can hit the next.
            let _ = self.client.query("SELECT 1", &[]).await;
            same(self.row("SELECT 1", &[]).await?.get::<_, i32>(0), 1)?;
        }
        Ok(())
    }

    /// More sessions than a host has server connections; their statements are all named `s0`, `s1`, ... and differ.
    async fn pool(&mut self) -> Went {
        let users = &self.users;
        let session = async |n: usize| -> Went {
            let app = App::open(users[0], &self.config).await?;
            let text = match n % 3 {
                0 => "SELECT id FROM users WHERE id = $1",
                1 => "SELECT user_id FROM photos WHERE user_id = $1 LIMIT 1",
                _ => "SELECT $1::int8 FROM users WHERE id = $1",
            };
            let statement = app.client.prepare(text).await?;
            for user in users.iter().cycle().skip(n).take(32) {
                let row = app.client.query_one(&statement, &[user]).await?;
                same(row.get::<_, i64>(0), *user)?;
            }
            Ok(())
        };
        join_all((0..24).map(session)).await.into_iter().collect()
    }
}
