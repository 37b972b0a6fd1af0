//! sqlx and its pool: see `../../../steps.txt`. It prepares all statements under names, reads and writes binary, and looks up the
//! types that it does not know.

use std::time::Duration;

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use futures_util::TryStreamExt;
use presplit_drivers::{BIG, Fault, PRICE, TEXT, Went, bytes, data, first, numbers, said, same, url, users, words};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolCopyExt, PgPoolOptions, PgRow};
use sqlx::types::Json;
use sqlx::{Column, ConnectOptions, Connection, Executor, Row, Statement, query, query_scalar};

type Conn = PgConnection;

/// That it fails with this code.
fn fails<T>(code: &str, result: Result<T, sqlx::Error>) -> Result<sqlx::Error, Fault> {
    match result {
        Ok(_) => Err(format!("no error, where {code} was expected").into()),
        Err(e) => {
            let found = e.as_database_error().and_then(|e| e.code()).map(|c| c.into_owned());
            match found.as_deref() == Some(code) {
                true => Ok(e),
                false => Err(e.into()),
            }
        }
    }
}

async fn captions(conn: &mut Conn, caption: &str, expected: i64) -> Went {
    let n: i64 = query_scalar("SELECT count(*) FROM photos WHERE user_id = ANY($1) AND caption = $2")
        .bind(users())
        .bind(caption)
        .fetch_one(conn)
        .await?;
    same(n, expected)
}

async fn named(conn: &mut Conn, name: &str, expected: i64) -> Went {
    let n: i64 = query_scalar("SELECT count(*) FROM users WHERE name = $1 AND id = ANY($2)")
        .bind(name)
        .bind(users())
        .fetch_one(conn)
        .await?;
    same(n, expected)
}

async fn connect(conn: &mut Conn) -> Went {
    println!("version 0.8");
    let encoding: String = query_scalar("SHOW client_encoding").fetch_one(&mut *conn).await?;
    same(encoding, "UTF8")?;
    for user in users() {
        for sql in [
            "DELETE FROM things WHERE user_id = $1",
            "DELETE FROM photos WHERE user_id = $1",
            "DELETE FROM users WHERE id = $1",
        ] {
            query(sql).bind(user).execute(&mut *conn).await?;
        }
    }
    conn.ping().await?;
    Ok(())
}

async fn create(conn: &mut Conn) -> Went {
    for user in users() {
        let made = query("INSERT INTO users (id, name) VALUES ($1, $2)")
            .bind(user)
            .bind(format!("user {user}"))
            .execute(&mut *conn)
            .await?;
        same(made.rows_affected(), 1)?;
        let photo: i64 = query_scalar("INSERT INTO photos (user_id, caption) VALUES ($1, 'first') RETURNING id")
            .bind(user)
            .fetch_one(&mut *conn)
            .await?;
        same(photo > 0, true)?;
    }
    Ok(())
}

async fn read(conn: &mut Conn) -> Went {
    for user in users() {
        let name: String = query_scalar("SELECT name FROM users WHERE id = $1").bind(user).fetch_one(&mut *conn).await?;
        same(name, format!("user {user}"))?;
        let photo: i64 = query_scalar("SELECT id FROM photos WHERE user_id = $1")
            .bind(user)
            .fetch_one(&mut *conn)
            .await?;
        let owner: i64 = query_scalar("SELECT user_id FROM photos WHERE id = $1")
            .bind(photo)
            .fetch_one(&mut *conn)
            .await?;
        same(owner, user)?;
    }
    let u = users();
    let two: Vec<i64> = query_scalar("SELECT id FROM users WHERE id IN ($1, $2) ORDER BY id")
        .bind(u[0])
        .bind(u[5])
        .fetch_all(&mut *conn)
        .await?;
    same(two, [u[0], u[5]])?;
    let joined = "SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = $1";
    let (name, caption): (String, String) = sqlx::query_as(joined).bind(u[3]).fetch_one(&mut *conn).await?;
    same((name, caption), (format!("user {}", u[3]), "first".to_owned()))?;
    let nobody = query("SELECT name FROM users WHERE id = $1").bind(first() + 999).fetch_optional(conn).await?;
    same(nobody.is_none(), true)
}

async fn update(conn: &mut Conn) -> Went {
    for user in users() {
        let done = query("UPDATE photos SET caption = $1 WHERE user_id = $2")
            .bind("updated")
            .bind(user)
            .execute(&mut *conn)
            .await?;
        same(done.rows_affected(), 1)?;
    }
    let done = query("UPDATE photos SET caption = 'updated' WHERE user_id = ANY($1)")
        .bind(&users()[..4])
        .execute(conn)
        .await?;
    same(done.rows_affected(), 4)
}

async fn delete(conn: &mut Conn) -> Went {
    let user = users()[2];
    query("INSERT INTO photos (user_id, caption) VALUES ($1, 'gone')")
        .bind(user)
        .execute(&mut *conn)
        .await?;
    for n in [1, 0] {
        let done = query("DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'")
            .bind(user)
            .execute(&mut *conn)
            .await?;
        same(done.rows_affected(), n)?;
    }
    Ok(())
}

async fn scatter(conn: &mut Conn) -> Went {
    let u = users();
    let n: i64 = query_scalar("SELECT count(*) FROM photos WHERE user_id BETWEEN $1 AND $2")
        .bind(u[0])
        .bind(u[15])
        .fetch_one(&mut *conn)
        .await?;
    same(n, 16)?;
    let last = "SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT 10";
    let mut last: Vec<i64> = query_scalar(last).bind(u[0]).bind(u[15]).fetch_all(conn).await?;
    last.reverse();
    same(last, &u[6..])
}

async fn prepared(conn: &mut Conn) -> Went {
    let by = "SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) FROM users WHERE id = $1";
    let described = conn.prepare(by).await?;
    same(described.columns()[0].name(), "name")?;
    let rename = conn.prepare("UPDATE users SET name = $2 WHERE id = $1").await?;
    for _ in 0..3 {
        for user in users() {
            let row = described.query().bind(user).fetch_one(&mut *conn).await?;
            same((row.get::<String, _>(0), row.get::<i64, _>(1)), (format!("user {user}"), 1))?;
            let done = rename.query().bind(user).bind(format!("user {user}")).execute(&mut *conn).await?;
            same(done.rows_affected(), 1)?;
            // Without a name.
            let id: i64 = query_scalar("SELECT id FROM users WHERE id = $1")
                .bind(user)
                .persistent(false)
                .fetch_one(&mut *conn)
                .await?;
            same(id, user)?;
        }
    }
    conn.clear_cached_statements().await?;
    let name: String = described.query().bind(users()[1]).fetch_one(conn).await?.get(0);
    same(name, format!("user {}", users()[1]))
}

async fn commit(conn: &mut Conn) -> Went {
    let mut tx = conn.begin().await?;
    for n in [0, 4, 1] {
        query("UPDATE users SET name = 'committed' WHERE id = $1")
            .bind(users()[n])
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    named(conn, "committed", 3).await?;
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY").await?;
    let name: String = query_scalar("SELECT name FROM users WHERE id = $1 AND 1 = 1")
        .bind(users()[4])
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    same(name, "committed")
}

async fn rollback(conn: &mut Conn) -> Went {
    // By name, and by dropping it.
    for dropped in [false, true] {
        let mut tx = conn.begin().await?;
        for n in [0, 4] {
            query("UPDATE users SET name = 'never' WHERE id = $1")
                .bind(users()[n])
                .execute(&mut *tx)
                .await?;
        }
        match dropped {
            true => drop(tx),
            false => tx.rollback().await?,
        }
        named(conn, "never", 0).await?;
    }
    Ok(())
}

async fn savepoint(conn: &mut Conn) -> Went {
    let mut tx = conn.begin().await?;
    for n in 4..6 {
        let user = users()[n];
        query("INSERT INTO photos (user_id, caption) VALUES ($1, 'before')")
            .bind(user)
            .execute(&mut *tx)
            .await?;
        let mut inner = tx.begin().await?;
        query("INSERT INTO photos (user_id, caption) VALUES ($1, 'undone')")
            .bind(user)
            .execute(&mut *inner)
            .await?;
        fails(
            "23505",
            query("INSERT INTO users (id, name) VALUES ($1, 'twice')").bind(user).execute(&mut *inner).await,
        )?;
        inner.rollback().await?;
        let mut inner = tx.begin().await?;
        query("UPDATE users SET name = 'inside' WHERE id = $1").bind(user).execute(&mut *inner).await?;
        inner.commit().await?;
    }
    tx.commit().await?;
    let found: Vec<String> = query_scalar("SELECT caption FROM photos WHERE user_id = $1 ORDER BY id")
        .bind(users()[4])
        .fetch_all(conn)
        .await?;
    same(found, ["updated", "before"])
}

async fn batch(conn: &mut Conn) -> Went {
    // Several statements in one text, rows of many users in one statement, rows of arrays.
    let several: Vec<String> = users()
        .iter()
        .map(|user| format!("INSERT INTO photos (user_id, caption) VALUES ({user}, 'batch')"))
        .collect();
    sqlx::raw_sql(&several.join("; ")).execute(&mut *conn).await?;
    let mut rows = sqlx::QueryBuilder::new("INSERT INTO photos (user_id, caption) ");
    rows.push_values(users(), |mut row, user| {
        row.push_bind(user).push_bind("many");
    });
    rows.push(" RETURNING user_id");
    let made: Vec<i64> = rows.build_query_scalar().fetch_all(&mut *conn).await?;
    same(made, users())?;
    captions(conn, "many", 16).await
}

async fn batch_error(conn: &mut Conn) -> Went {
    let several: Vec<String> = [0, 4, 0].map(|n| format!("INSERT INTO things (user_id, id) VALUES ({}, 5)", users()[n])).into();
    fails("23505", sqlx::raw_sql(&several.join("; ")).execute(&mut *conn).await)?;
    let n: i64 = query_scalar("SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY($1)")
        .bind(users())
        .fetch_one(conn)
        .await?;
    same(n, 0)
}

async fn copy_in(conn: &mut Conn) -> Went {
    let mut copy = conn.copy_in_raw("COPY photos (user_id, caption) FROM STDIN").await?;
    for user in users() {
        copy.send(format!("{user}\tcopied \\t\\\\ ü🚀\n").into_bytes()).await?;
    }
    same(copy.finish().await?, 16)?;
    let mut copy = conn.copy_in_raw("COPY things (user_id, id, note) FROM STDIN (FORMAT csv)").await?;
    let lines: String = users().iter().map(|user| format!("{user},30,\n")).collect();
    copy.send(lines.into_bytes()).await?;
    same(copy.finish().await?, 16)?;
    captions(conn, "copied \t\\ ü🚀", 16).await?;
    let mut copy = conn.copy_in_raw("COPY photos (user_id, caption) FROM STDIN").await?;
    copy.send(format!("{}\tlost\n", users()[0]).into_bytes()).await?;
    copy.abort("the client breaks off").await?;
    captions(conn, "lost", 0).await
}

async fn copy_out(_: &mut Conn) -> Went {
    let pool = PgPoolOptions::new().connect(&url()).await?;
    let read = async |sql: String| -> Result<String, Fault> {
        let mut stream = pool.copy_out_raw(&sql).await?;
        let mut all = Vec::new();
        while let Some(part) = stream.try_next().await? {
            all.extend_from_slice(&part);
        }
        Ok(String::from_utf8(all)?)
    };
    let u = users();
    same(
        read(format!("COPY (SELECT name, NULL FROM users WHERE id = {}) TO STDOUT", u[9])).await?,
        format!("user {}\t\\N\n", u[9]),
    )?;
    let all = read(format!("COPY (SELECT id FROM users WHERE id BETWEEN {} AND {}) TO STDOUT", u[0], u[15])).await?;
    let mut all: Vec<i64> = all.lines().map(str::parse).collect::<Result<_, _>>()?;
    all.sort();
    same(all, u)?;
    pool.close().await;
    Ok(())
}

async fn cursor(conn: &mut Conn) -> Went {
    let mut tx = conn.begin().await?;
    let declare = format!("DECLARE mine CURSOR FOR SELECT caption FROM photos WHERE user_id = {} ORDER BY id", users()[0]);
    query(&declare).execute(&mut *tx).await?;
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(query("FETCH 2 FROM mine").fetch_all(&mut *tx).await?.len());
    }
    same(sizes, [2, 2, 0, 0])?;
    tx.commit().await?;
    // A stream that is dropped before its end.
    let all = "SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id";
    let mut rows = query_scalar::<_, i64>(all).bind(users()[0]).bind(users()[15]).fetch(&mut *conn);
    same(rows.try_next().await?, Some(users()[0]))?;
    drop(rows);
    let one: i32 = query_scalar("SELECT 1").fetch_one(conn).await?;
    same(one, 1)
}

async fn unique_violation(conn: &mut Conn) -> Went {
    let twice = query("INSERT INTO users (id, name) VALUES ($1, 'twice')")
        .bind(users()[6])
        .execute(&mut *conn)
        .await;
    let e = fails("23505", twice)?;
    let e = e.as_database_error().ok_or("no database error")?;
    same((e.is_unique_violation(), e.table(), e.constraint()), (true, Some("users"), Some("users_pkey")))?;
    let name: String = query_scalar("SELECT name FROM users WHERE id = $1").bind(users()[6]).fetch_one(conn).await?;
    same(name, format!("user {}", users()[6]))
}

async fn syntax_error(conn: &mut Conn) -> Went {
    fails("42601", query("SELEC 1").execute(&mut *conn).await)?;
    fails("42601", query("SELECT name FRM users WHERE id = $1").bind(users()[0]).execute(&mut *conn).await)?;
    fails(
        "42703",
        query("SELECT nothing FROM users WHERE id = $1").bind(users()[0]).execute(&mut *conn).await,
    )?;
    fails("42601", sqlx::raw_sql("SELEC 1").execute(&mut *conn).await)?;
    let one: i32 = query_scalar("SELECT 1").fetch_one(conn).await?;
    same(one, 1)
}

async fn failed_transaction(conn: &mut Conn) -> Went {
    let mut tx = conn.begin().await?;
    query("INSERT INTO photos (user_id, caption) VALUES ($1, 'lost')")
        .bind(users()[0])
        .execute(&mut *tx)
        .await?;
    fails(
        "22012",
        query("SELECT 1 / (id - id) FROM users WHERE id = $1").bind(users()[0]).execute(&mut *tx).await,
    )?;
    fails("25P02", query("SELECT 1").execute(&mut *tx).await)?;
    tx.rollback().await?;
    captions(conn, "lost", 0).await
}

/// It can't send a cancel request: the time of a statement is limited.
async fn cancel(conn: &mut Conn) -> Went {
    query("SET statement_timeout = '200ms'").execute(&mut *conn).await?;
    fails("57014", query("SELECT pg_sleep(60)").execute(&mut *conn).await)?;
    fails(
        "57014",
        query("SELECT pg_sleep(60) FROM users WHERE id = $1").bind(users()[0]).execute(&mut *conn).await,
    )?;
    query("RESET statement_timeout").execute(&mut *conn).await?;
    let one: i32 = query_scalar("SELECT 1").fetch_one(conn).await?;
    same(one, 1)
}

async fn put<T>(conn: &mut Conn, id: i32, column: &str, value: T) -> Went
where
    T: Clone + Send + for<'q> sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + 'static,
{
    let sql = format!("INSERT INTO things (user_id, id, {column}) VALUES ($1, $2, $3)");
    for user in &users()[..8] {
        query(&sql).bind(user).bind(id).bind(value.clone()).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn got<T>(conn: &mut Conn, id: i32, column: &str, expected: T) -> Went
where
    T: PartialEq + std::fmt::Debug + Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let sql = format!("SELECT {column} FROM things WHERE user_id = $1 AND id = $2");
    for user in &users()[..8] {
        let found: T = query_scalar(&sql).bind(user).bind(id).fetch_one(&mut *conn).await?;
        same(&found, &expected)?;
    }
    Ok(())
}

async fn arrays(conn: &mut Conn) -> Went {
    put(conn, 100, "numbers", numbers()).await?;
    put(conn, 101, "numbers", Vec::<i32>::new()).await?;
    put(conn, 110, "words", words()).await?;
    got(conn, 100, "numbers", numbers()).await?;
    got(conn, 101, "numbers", Vec::<i32>::new()).await?;
    got(conn, 110, "words", words()).await?;
    let some: Vec<i64> = query_scalar("SELECT id FROM users WHERE id = ANY($1) ORDER BY id")
        .bind(&users()[3..9])
        .fetch_all(&mut *conn)
        .await?;
    same(some, &users()[3..9])?;
    let id: i32 = query_scalar("SELECT id FROM things WHERE user_id = $1 AND $2 = ANY(words)")
        .bind(users()[1])
        .bind("b c")
        .fetch_one(conn)
        .await?;
    same(id, 110)
}

async fn json(conn: &mut Conn) -> Went {
    put(conn, 200, "data", Json(data())).await?;
    query("INSERT INTO things (user_id, id, doc) VALUES ($1, 201, $2::text::json)")
        .bind(users()[0])
        .bind(data().to_string())
        .execute(&mut *conn)
        .await?;
    got(conn, 200, "data", Json(data())).await?;
    got(conn, 200, "data -> 'b'", data()["b"].clone()).await?;
    let doc: serde_json::Value = query_scalar("SELECT doc FROM things WHERE user_id = $1 AND id = 201")
        .bind(users()[0])
        .fetch_one(&mut *conn)
        .await?;
    same(doc, data())?;
    let found = "SELECT id FROM things WHERE user_id = $1 AND data ->> 'a' = $2 AND data ? 'c'";
    let id: i32 = query_scalar(found).bind(users()[7]).bind("1").fetch_one(conn).await?;
    same(id, 200)
}

async fn timestamps(conn: &mut Conn) -> Went {
    let at: DateTime<Utc> = "2024-02-29T12:34:56.789012Z".parse()?;
    let local: NaiveDateTime = "2024-12-31T23:59:59.999999".parse()?;
    let day: NaiveDate = "1999-12-31".parse()?;
    put(conn, 300, "at", at).await?;
    put(conn, 301, "local", local).await?;
    put(conn, 302, "day", day).await?;
    query("SET TIME ZONE 'Asia/Kathmandu'").execute(&mut *conn).await?;
    got(conn, 300, "at", at).await?;
    got(conn, 300, "at::text", "2024-02-29 18:19:56.789012+05:45".to_owned()).await?;
    got(conn, 301, "local", local).await?;
    got(conn, 302, "day", day).await?;
    query("SET TIME ZONE 'UTC'").execute(conn).await?;
    Ok(())
}

async fn numerics(conn: &mut Conn) -> Went {
    let (price, big): (BigDecimal, BigDecimal) = (PRICE.parse()?, BIG.parse()?);
    put(conn, 400, "price", price.clone()).await?;
    put(conn, 401, "price", -price.clone()).await?;
    put(conn, 410, "big", big.clone()).await?;
    put(conn, 420, "ratio", f64::INFINITY).await?;
    put(conn, 421, "ratio", f64::NAN).await?;
    put(conn, 422, "ratio", 0.1).await?;
    got(conn, 401, "price", -price.clone()).await?;
    got(conn, 410, "big", big).await?;
    got(conn, 420, "ratio", f64::INFINITY).await?;
    got(conn, 421, "ratio::text", "NaN".to_owned()).await?;
    got(conn, 422, "ratio", 0.1).await?;
    let total = "SELECT sum(price) FROM things WHERE user_id BETWEEN $1 AND $2 AND id = 400";
    let total: BigDecimal = query_scalar(total).bind(users()[0]).bind(users()[15]).fetch_one(conn).await?;
    same(total, price * BigDecimal::from(8))
}

async fn null(conn: &mut Conn) -> Went {
    let sql = "INSERT INTO things (user_id, id, numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note)
        VALUES ($1, 500, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    for user in &users()[..8] {
        let insert = query(sql)
            .bind(user)
            .bind(None::<Vec<i32>>)
            .bind(None::<Vec<String>>)
            .bind(None::<serde_json::Value>);
        let insert = insert
            .bind(None::<serde_json::Value>)
            .bind(None::<DateTime<Utc>>)
            .bind(None::<NaiveDateTime>)
            .bind(None::<NaiveDate>);
        let insert = insert
            .bind(None::<BigDecimal>)
            .bind(None::<BigDecimal>)
            .bind(None::<f64>)
            .bind(None::<Vec<u8>>)
            .bind(None::<bool>);
        insert.bind(None::<String>).execute(&mut *conn).await?;
        let row: PgRow = query("SELECT numbers, data, at, price, bytes, note FROM things WHERE user_id = $1 AND id = 500")
            .bind(user)
            .fetch_one(&mut *conn)
            .await?;
        same((row.get::<Option<Vec<i32>>, _>(0), row.get::<Option<serde_json::Value>, _>(1)), (None, None))?;
        same((row.get::<Option<DateTime<Utc>>, _>(2), row.get::<Option<BigDecimal>, _>(3)), (None, None))?;
        same((row.get::<Option<Vec<u8>>, _>(4), row.get::<Option<String>, _>(5)), (None, None))?;
        let id: i32 = query_scalar("SELECT id FROM things WHERE user_id = $1 AND id >= 500 AND note IS NULL")
            .bind(user)
            .fetch_one(&mut *conn)
            .await?;
        same(id, 500)?;
    }
    Ok(())
}

async fn bytea(conn: &mut Conn) -> Went {
    for (n, value) in [bytes(), Vec::new(), bytes().repeat(400)].into_iter().enumerate() {
        put(conn, 600 + n as i32, "bytes", value.clone()).await?;
        got(conn, 600 + n as i32, "bytes", value).await?;
    }
    Ok(())
}

async fn unicode(conn: &mut Conn) -> Went {
    put(conn, 700, "note", TEXT.to_owned()).await?;
    got(conn, 700, "note", TEXT.to_owned()).await?;
    got(conn, 700, "length(note)", TEXT.chars().count() as i32).await?;
    let id: i32 = query_scalar("SELECT id FROM things WHERE user_id = $1 AND note = $2")
        .bind(users()[0])
        .bind(TEXT)
        .fetch_one(&mut *conn)
        .await?;
    same(id, 700)?;
    let literal = format!("SELECT '東🚀''' FROM things WHERE user_id = {} AND note LIKE '%🚀%'", users()[0]);
    let found: String = query_scalar(&literal).fetch_one(conn).await?;
    same(found, "東🚀'")
}

async fn pool(_: &mut Conn) -> Went {
    let options: PgConnectOptions = url().parse()?;
    let options = options.application_name("a pool").statement_cache_capacity(3);
    let pool = PgPoolOptions::new().max_connections(16).connect_with(options).await?;
    let mut jobs = Vec::new();
    for n in 0..32 {
        let pool = pool.clone();
        jobs.push(tokio::spawn(async move {
            for turn in 0..10 {
                let user = users()[(n + turn) % 16];
                let id: i64 = query_scalar("SELECT id FROM users WHERE id = $1").bind(user).fetch_one(&pool).await?;
                same(id, user)?;
                // More statements than it keeps.
                let other = format!("SELECT id + {} FROM users WHERE id = $1", turn % 5);
                let id: i64 = query_scalar(&other).bind(user).fetch_one(&pool).await?;
                same(id, user + turn as i64 % 5)?;
                let name: String = query_scalar("SHOW application_name").fetch_one(&pool).await?;
                same(name, "a pool")?;
                let mut tx = pool.begin().await?;
                query("UPDATE users SET name = 'never' WHERE id = $1").bind(user).execute(&mut *tx).await?;
                drop(tx);
            }
            Ok::<(), Fault>(())
        }));
    }
    for job in jobs {
        tokio::time::timeout(Duration::from_secs(30), job).await???;
    }
    pool.close().await;
    let mut conn = Conn::connect(&url()).await?;
    named(&mut conn, "never", 0).await
}

/// A type of its own must be looked up in pg_type.
async fn types(conn: &mut Conn) -> Went {
    let row = query("SELECT oid, relname, relacl, ARRAY[int8range(1, 5)] AS ranges FROM pg_class WHERE relname = 'users' LIMIT 1")
        .fetch_one(conn)
        .await?;
    same(row.columns()[3].name(), "ranges")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut good = true;
    let mut held = None;
    macro_rules! step {
        ($name:literal, $step:path) => {
            let went = async {
                if held.is_none() {
                    let options: PgConnectOptions = url().parse()?;
                    held = Some(options.connect().await?);
                }
                match &mut held {
                    Some(conn) => $step(conn).await,
                    None => Ok(()),
                }
            };
            if !said($name, went.await) {
                good = false;
                drop(held.take());
            }
        };
    }
    step!("connect", connect);
    step!("create", create);
    step!("read", read);
    step!("update", update);
    step!("delete", delete);
    step!("scatter", scatter);
    step!("prepared", prepared);
    step!("commit", commit);
    step!("rollback", rollback);
    step!("savepoint", savepoint);
    step!("batch", batch);
    step!("batch_error", batch_error);
    step!("copy_in", copy_in);
    step!("copy_out", copy_out);
    step!("cursor", cursor);
    step!("unique_violation", unique_violation);
    step!("syntax_error", syntax_error);
    step!("failed_transaction", failed_transaction);
    step!("cancel", cancel);
    step!("arrays", arrays);
    step!("json", json);
    step!("timestamps", timestamps);
    step!("numerics", numerics);
    step!("null", null);
    step!("bytea", bytea);
    step!("unicode", unicode);
    step!("pool", pool);
    step!("also types that it must look up", types);
    std::process::exit(if good { 0 } else { 1 });
}
