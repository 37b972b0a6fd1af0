//! diesel over libpq: see `../../../steps.txt`. It prepares what it runs under names, asks for results in binary, and gives the
//! types of all parameters.

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::dsl::{count_star, sql};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text};
use diesel::upsert::excluded;
use presplit_drivers::{BIG, Fault, PRICE, TEXT, Went, bytes, data, first, numbers, said, same, url, words};

diesel::table! {
    users (id) {
        id -> BigInt,
        name -> Text,
    }
}

diesel::table! {
    photos (id) {
        id -> BigInt,
        user_id -> BigInt,
        caption -> Text,
    }
}

diesel::table! {
    things (user_id, id) {
        user_id -> BigInt,
        id -> Integer,
        numbers -> Nullable<Array<Nullable<Integer>>>,
        words -> Nullable<Array<Nullable<Text>>>,
        data -> Nullable<Jsonb>,
        doc -> Nullable<Json>,
        at -> Nullable<Timestamptz>,
        local -> Nullable<Timestamp>,
        day -> Nullable<Date>,
        price -> Nullable<Numeric>,
        big -> Nullable<Numeric>,
        ratio -> Nullable<Double>,
        bytes -> Nullable<Bytea>,
        flag -> Nullable<Bool>,
        note -> Nullable<Text>,
    }
}

diesel::joinable!(photos -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(users, photos, things);

type Conn = PgConnection;

fn all_users() -> Vec<i64> {
    presplit_drivers::users()
}

/// A row of what a text asks for.
#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    it: String,
}

fn fails<T>(result: QueryResult<T>, message: &str) -> Went {
    match result {
        Ok(_) => Err(format!("no error, where {message:?} was expected").into()),
        Err(e) if e.to_string().contains(message) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn captions(conn: &mut Conn, caption: &str, expected: i64) -> Went {
    let mine = photos::table.filter(photos::user_id.eq_any(all_users())).filter(photos::caption.eq(caption));
    same(mine.count().get_result::<i64>(conn)?, expected)
}

fn named(conn: &mut Conn, name: &str, expected: i64) -> Went {
    let mine = users::table.filter(users::id.eq_any(all_users())).filter(users::name.eq(name));
    same(mine.select(count_star()).first::<i64>(conn)?, expected)
}

fn photo(user: i64, caption: &str) -> (diesel::dsl::Eq<photos::user_id, i64>, diesel::dsl::Eq<photos::caption, String>) {
    (photos::user_id.eq(user), photos::caption.eq(caption.to_owned()))
}

fn rename(conn: &mut Conn, user: i64, name: &str) -> QueryResult<usize> {
    diesel::update(users::table.find(user)).set(users::name.eq(name)).execute(conn)
}

fn twice(conn: &mut Conn, user: i64) -> QueryResult<usize> {
    diesel::insert_into(users::table)
        .values((users::id.eq(user), users::name.eq("twice")))
        .execute(conn)
}

fn connect(conn: &mut Conn) -> Went {
    println!("version 2.3");
    for user in all_users() {
        diesel::delete(things::table.filter(things::user_id.eq(user))).execute(conn)?;
        diesel::delete(photos::table.filter(photos::user_id.eq(user))).execute(conn)?;
        diesel::delete(users::table.find(user)).execute(conn)?;
    }
    Ok(())
}

fn create(conn: &mut Conn) -> Went {
    for user in all_users() {
        let made = diesel::insert_into(users::table).values((users::id.eq(user), users::name.eq(format!("user {user}"))));
        same(made.execute(conn)?, 1)?;
        let id: i64 = diesel::insert_into(photos::table)
            .values(photo(user, "first"))
            .returning(photos::id)
            .get_result(conn)?;
        same(id > 0, true)?;
    }
    Ok(())
}

fn read(conn: &mut Conn) -> Went {
    for user in all_users() {
        let name: String = users::table.find(user).select(users::name).first(conn)?;
        same(name, format!("user {user}"))?;
        let id: i64 = photos::table.filter(photos::user_id.eq(user)).select(photos::id).first(conn)?;
        let owner: i64 = photos::table.find(id).select(photos::user_id).first(conn)?;
        same(owner, user)?;
    }
    let u = all_users();
    let two = users::table.filter(users::id.eq_any([u[0], u[5]])).order(users::id).select(users::id);
    same(two.load::<i64>(conn)?, [u[0], u[5]])?;
    let joined = users::table
        .inner_join(photos::table)
        .filter(users::id.eq(u[3]))
        .select((users::name, photos::caption));
    same(joined.load::<(String, String)>(conn)?, [(format!("user {}", u[3]), "first".to_owned())])?;
    same(users::table.find(first() + 999).first::<(i64, String)>(conn).optional()?, None)
}

fn update(conn: &mut Conn) -> Went {
    for user in all_users() {
        let mine = photos::table.filter(photos::user_id.eq(user));
        same(diesel::update(mine).set(photos::caption.eq("updated")).execute(conn)?, 1)?;
    }
    let some = photos::table.filter(photos::user_id.eq_any(all_users()[..4].to_vec()));
    same(diesel::update(some).set(photos::caption.eq("updated")).execute(conn)?, 4)
}

fn delete(conn: &mut Conn) -> Went {
    let user = all_users()[2];
    diesel::insert_into(photos::table).values(photo(user, "gone")).execute(conn)?;
    for n in [1, 0] {
        let gone = photos::table.filter(photos::user_id.eq(user)).filter(photos::caption.eq("gone"));
        same(diesel::delete(gone).execute(conn)?, n)?;
    }
    Ok(())
}

fn scatter(conn: &mut Conn) -> Went {
    let u = all_users();
    let mine = photos::table.filter(photos::user_id.between(u[0], u[15]));
    same(mine.count().get_result::<i64>(conn)?, 16)?;
    let last = users::table
        .filter(users::id.between(u[0], u[15]))
        .order(users::id.desc())
        .limit(10)
        .select(users::id);
    let mut last = last.load::<i64>(conn)?;
    last.reverse();
    same(last, &u[6..])
}

fn prepared(conn: &mut Conn) -> Went {
    for _ in 0..3 {
        for user in all_users() {
            same(users::table.find(user).select(users::name).first::<String>(conn)?, format!("user {user}"))?;
            same(photos::table.filter(photos::user_id.eq(user)).count().get_result::<i64>(conn)?, 1)?;
            same(rename(conn, user, &format!("user {user}"))?, 1)?;
        }
    }
    Ok(())
}

fn commit(conn: &mut Conn) -> Went {
    conn.transaction(|conn| {
        for n in [0, 4, 1] {
            rename(conn, all_users()[n], "committed")?;
        }
        Ok::<(), Error>(())
    })?;
    named(conn, "committed", 3)?;
    let name: String = conn
        .build_transaction()
        .serializable()
        .read_only()
        .deferrable()
        .run(|conn| users::table.find(all_users()[4]).select(users::name).first::<String>(conn))?;
    same(name, "committed")
}

fn rollback(conn: &mut Conn) -> Went {
    let done = conn.transaction(|conn| {
        for n in [0, 4] {
            rename(conn, all_users()[n], "never")?;
        }
        Err::<(), Error>(Error::RollbackTransaction)
    });
    same(done, Err(Error::RollbackTransaction))?;
    named(conn, "never", 0)
}

fn savepoint(conn: &mut Conn) -> Went {
    conn.transaction(|conn| {
        for n in 4..6 {
            let user = all_users()[n];
            diesel::insert_into(photos::table).values(photo(user, "before")).execute(conn)?;
            let inner = conn.transaction(|conn| {
                diesel::insert_into(photos::table).values(photo(user, "undone")).execute(conn)?;
                twice(conn, user)
            });
            same(matches!(inner, Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))), true)?;
            conn.transaction(|conn| rename(conn, user, "inside"))?;
        }
        Ok::<(), Fault>(())
    })?;
    let mine = photos::table
        .filter(photos::user_id.eq(all_users()[4]))
        .order(photos::id)
        .select(photos::caption);
    same(mine.load::<String>(conn)?, ["updated", "before"])
}

fn batch(conn: &mut Conn) -> Went {
    let several: Vec<String> = all_users()
        .iter()
        .map(|user| format!("INSERT INTO photos (user_id, caption) VALUES ({user}, 'batch')"))
        .collect();
    conn.batch_execute(&several.join(";"))?;
    let rows: Vec<_> = all_users().into_iter().map(|user| photo(user, "many")).collect();
    let made: Vec<i64> = diesel::insert_into(photos::table).values(&rows).returning(photos::user_id).get_results(conn)?;
    same(made, all_users())?;
    let rows: Vec<_> = all_users().into_iter().map(|user| (users::id.eq(user), users::name.eq("upserted"))).collect();
    let upsert = diesel::insert_into(users::table)
        .values(&rows)
        .on_conflict(users::id)
        .do_update()
        .set(users::name.eq(excluded(users::name)));
    same(upsert.execute(conn)?, 16)?;
    named(conn, "upserted", 16)?;
    captions(conn, "many", 16)
}

fn batch_error(conn: &mut Conn) -> Went {
    let several = [0, 4, 0].map(|n| format!("INSERT INTO things (user_id, id) VALUES ({}, 5)", all_users()[n]));
    fails(conn.batch_execute(&several.join(";")), "things_pkey")?;
    let rows: Vec<_> = [0, 4, 0].into_iter().map(|n| (things::user_id.eq(all_users()[n]), things::id.eq(5))).collect();
    fails(diesel::insert_into(things::table).values(&rows).execute(conn), "things_pkey")?;
    let n: i64 = things::table
        .filter(things::id.eq(5))
        .filter(things::user_id.eq_any(all_users()))
        .count()
        .get_result(conn)?;
    same(n, 0)
}

fn copy_in(conn: &mut Conn) -> Went {
    // In binary.
    let rows: Vec<_> = all_users().into_iter().map(|user| photo(user, "copied \t\\ ü🚀")).collect();
    same(diesel::copy_from(photos::table).from_insertable(&rows).execute(conn)?, 16)?;
    let rows: Vec<_> = all_users()
        .into_iter()
        .map(|user| (things::user_id.eq(user), things::id.eq(30), things::note.eq(None::<String>)))
        .collect();
    same(diesel::copy_from(things::table).from_insertable(&rows).execute(conn)?, 16)?;
    captions(conn, "copied \t\\ ü🚀", 16)?;
    let broken = diesel::copy_from(photos::table).from_raw_data((photos::user_id, photos::caption), |copy| {
        std::io::Write::write_all(copy, format!("{}\tlost\n", all_users()[0]).as_bytes()).map_err(|e| Error::SerializationError(e.into()))?;
        Err::<(), Error>(Error::BrokenTransactionManager)
    });
    same(broken.execute(conn).is_err(), true)?;
    captions(conn, "lost", 0)
}

/// A whole table, as it has no other.
fn copy_out(conn: &mut Conn) -> Went {
    use std::io::BufRead;
    let copy = diesel::copy_to(users::table).load_raw(conn)?;
    let lines: Vec<String> = copy.lines().collect::<Result<_, _>>()?;
    let mine = all_users()
        .into_iter()
        .filter(|user| lines.iter().any(|line| line.split('\t').next() == Some(&user.to_string())));
    same(mine.collect::<Vec<_>>(), all_users())
}

fn cursor(conn: &mut Conn) -> Went {
    conn.transaction(|conn| {
        sql_query(format!(
            "DECLARE mine CURSOR FOR SELECT caption AS it FROM photos WHERE user_id = {} ORDER BY id",
            all_users()[0]
        ))
        .execute(conn)?;
        for n in [2, 2, 0] {
            same(sql_query("FETCH 2 FROM mine").load::<Word>(conn)?.len(), n)?;
        }
        Ok::<(), Fault>(())
    })?;
    // Row by row as they come.
    let u = all_users();
    let all = users::table.filter(users::id.between(u[0], u[15])).order(users::id).select(users::id);
    let rows = all.load_iter::<i64, diesel::pg::PgRowByRowLoadingMode>(conn)?;
    same(rows.collect::<QueryResult<Vec<i64>>>()?, u)
}

fn unique_violation(conn: &mut Conn) -> Went {
    match twice(conn, all_users()[6]) {
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, about)) => {
            same((about.table_name(), about.constraint_name()), (Some("users"), Some("users_pkey")))?;
        }
        other => return Err(format!("{other:?}").into()),
    }
    same(users::table.find(all_users()[6]).select(users::name).first::<String>(conn)?, "upserted")
}

/// It gives no SQLSTATE of these; the messages are Postgres'.
fn syntax_error(conn: &mut Conn) -> Went {
    fails(sql_query("SELEC 1").execute(conn), "syntax error at or near \"SELEC\"")?;
    fails(
        sql_query("SELECT name FRM users WHERE id = $1").bind::<BigInt, _>(all_users()[0]).execute(conn),
        "syntax error at or near \"users\"",
    )?;
    fails(
        sql_query("SELECT nothing FROM users WHERE id = $1")
            .bind::<BigInt, _>(all_users()[0])
            .execute(conn),
        "column \"nothing\" does not exist",
    )?;
    fails(conn.batch_execute("SELEC 1"), "syntax error at or near \"SELEC\"")?;
    same(sql_query("SELECT 1::bigint AS n").get_result::<Number>(conn)?.n, 1)
}

fn failed_transaction(conn: &mut Conn) -> Went {
    let done = conn.transaction(|conn| {
        diesel::insert_into(photos::table).values(photo(all_users()[0], "lost")).execute(conn)?;
        fails(
            users::table.find(all_users()[0]).select(sql::<BigInt>("1 / (id - id)")).first::<i64>(conn),
            "division by zero",
        )?;
        fails(sql_query("SELECT 1").execute(conn), "current transaction is aborted")?;
        Err::<(), Fault>("rolled back".into())
    });
    same(done.map_err(|e| e.to_string()), Err("rolled back".to_owned()))?;
    captions(conn, "lost", 0)
}

/// It can't send a cancel request: the time of a statement is limited.
fn cancel(conn: &mut Conn) -> Went {
    conn.batch_execute("SET statement_timeout = '200ms'")?;
    fails(sql_query("SELECT pg_sleep(60)").execute(conn), "canceling statement due to statement timeout")?;
    let sleep = sql_query("SELECT pg_sleep(60) FROM users WHERE id = $1").bind::<BigInt, _>(all_users()[0]);
    fails(sleep.execute(conn), "canceling statement due to statement timeout")?;
    conn.batch_execute("RESET statement_timeout")?;
    same(sql_query("SELECT 1::bigint AS n").get_result::<Number>(conn)?.n, 1)
}

/// A row for each user with this in a column, and reads it again.
macro_rules! round {
    ($conn:expr, $id:expr, $column:ident, $value:expr) => {
        for user in &all_users()[..8] {
            let value = $value;
            let row = (things::user_id.eq(user), things::id.eq($id), things::$column.eq(&value));
            same(diesel::insert_into(things::table).values(row).execute($conn)?, 1)?;
            let mut found = things::table.find((*user, $id)).select(things::$column.assume_not_null()).load($conn)?;
            same(found.pop(), Some(value))?;
        }
    };
}

fn arrays(conn: &mut Conn) -> Went {
    round!(conn, 100, numbers, numbers());
    round!(conn, 101, numbers, Vec::<Option<i32>>::new());
    round!(conn, 110, words, words());
    let some = users::table
        .filter(users::id.eq_any(all_users()[3..9].to_vec()))
        .order(users::id)
        .select(users::id);
    same(some.load::<i64>(conn)?, &all_users()[3..9])?;
    let found = things::table
        .filter(things::user_id.eq(all_users()[1]))
        .filter(things::words.contains(vec!["b c"]))
        .select(things::id);
    same(found.load::<i32>(conn)?, [110])
}

fn json(conn: &mut Conn) -> Went {
    round!(conn, 200, data, data());
    round!(conn, 201, doc, data());
    for user in &all_users()[..8] {
        let found = things::table
            .filter(things::user_id.eq(user))
            .filter(things::data.has_key("c"))
            .select(things::data.retrieve_as_object("b"));
        same(found.load::<Option<serde_json::Value>>(conn)?, [Some(data()["b"].clone())])?;
    }
    Ok(())
}

fn timestamps(conn: &mut Conn) -> Went {
    round!(conn, 300, at, "2024-02-29T12:34:56.789012Z".parse::<DateTime<Utc>>()?);
    round!(conn, 301, local, "2024-12-31T23:59:59.999999".parse::<NaiveDateTime>()?);
    round!(conn, 302, day, "1999-12-31".parse::<NaiveDate>()?);
    conn.batch_execute("SET TIME ZONE 'Asia/Kathmandu'")?;
    for user in &all_users()[..8] {
        let shown = sql_query("SELECT at::text AS it FROM things WHERE user_id = $1 AND id = 300").bind::<BigInt, _>(user);
        same(shown.get_result::<Word>(conn)?.it, "2024-02-29 18:19:56.789012+05:45")?;
    }
    conn.batch_execute("SET TIME ZONE 'UTC'")?;
    Ok(())
}

fn numerics(conn: &mut Conn) -> Went {
    let price: BigDecimal = PRICE.parse()?;
    round!(conn, 400, price, price.clone());
    round!(conn, 401, price, -price.clone());
    round!(conn, 410, big, BIG.parse::<BigDecimal>()?);
    round!(conn, 420, ratio, f64::INFINITY);
    round!(conn, 422, ratio, 0.1);
    let u = all_users();
    let total = things::table
        .filter(things::user_id.between(u[0], u[15]))
        .filter(things::id.eq(400))
        .select(diesel::dsl::sum(things::price));
    same(total.first::<Option<BigDecimal>>(conn)?, Some(price * BigDecimal::from(8)))?;
    let row = (things::user_id.eq(u[0]), things::id.eq(421), things::ratio.eq(f64::NAN));
    diesel::insert_into(things::table).values(row).execute(conn)?;
    let none: Option<f64> = things::table.find((u[0], 421)).select(things::ratio).first(conn)?;
    same(none.is_some_and(f64::is_nan), true)
}

fn null(conn: &mut Conn) -> Went {
    for user in &all_users()[..8] {
        let row = (
            (
                things::user_id.eq(user),
                things::id.eq(500),
                things::numbers.eq(None::<Vec<Option<i32>>>),
                things::words.eq(None::<Vec<Option<String>>>),
            ),
            (
                things::data.eq(None::<serde_json::Value>),
                things::doc.eq(None::<serde_json::Value>),
                things::at.eq(None::<DateTime<Utc>>),
            ),
            (
                things::local.eq(None::<NaiveDateTime>),
                things::day.eq(None::<NaiveDate>),
                things::price.eq(None::<BigDecimal>),
            ),
            (
                things::big.eq(None::<BigDecimal>),
                things::ratio.eq(None::<f64>),
                things::bytes.eq(None::<Vec<u8>>),
            ),
            (things::flag.eq(None::<bool>), things::note.eq(None::<String>)),
        );
        diesel::insert_into(things::table).values(row).execute(conn)?;
        type Row = (
            Option<Vec<Option<i32>>>,
            Option<serde_json::Value>,
            Option<DateTime<Utc>>,
            Option<BigDecimal>,
            Option<Vec<u8>>,
        );
        let columns = (things::numbers, things::data, things::at, things::price, things::bytes);
        same(
            things::table.find((*user, 500)).select(columns).first::<Row>(conn)?,
            (None, None, None, None, None),
        )?;
        let found = things::table
            .filter(things::user_id.eq(user))
            .filter(things::id.ge(500))
            .filter(things::note.is_null())
            .select(things::id);
        same(found.load::<i32>(conn)?, [500])?;
    }
    Ok(())
}

fn bytea(conn: &mut Conn) -> Went {
    round!(conn, 600, bytes, bytes());
    round!(conn, 601, bytes, Vec::<u8>::new());
    round!(conn, 602, bytes, bytes().repeat(400));
    Ok(())
}

fn unicode(conn: &mut Conn) -> Went {
    round!(conn, 700, note, TEXT.to_owned());
    let found = things::table
        .filter(things::user_id.eq(all_users()[0]))
        .filter(things::note.eq(TEXT))
        .select(sql::<Integer>("length(note)"));
    same(found.load::<i32>(conn)?, [TEXT.chars().count() as i32])?;
    let literal = format!("SELECT '東🚀''' AS it FROM things WHERE user_id = {} AND note LIKE '%🚀%'", all_users()[0]);
    same(sql_query(literal).get_result::<Word>(conn)?.it, "東🚀'")
}

/// Threads with a connection each, whose statements share their names.
fn pool(_: &mut Conn) -> Went {
    let threads: Vec<_> = (0..16)
        .map(|n| {
            std::thread::spawn(move || {
                let mut conn = PgConnection::establish(&url())?;
                for turn in 0..10 {
                    let user = all_users()[(n + turn) % 16];
                    match n % 2 {
                        0 => same(users::table.find(user).select(users::id).first::<i64>(&mut conn)?, user)?,
                        _ => same(
                            photos::table.filter(photos::user_id.eq(user)).select(photos::user_id).first::<i64>(&mut conn)?,
                            user,
                        )?,
                    }
                }
                Ok::<(), Fault>(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn main() {
    const STEPS: [(&str, fn(&mut Conn) -> Went); 27] = [
        ("connect", connect),
        ("create", create),
        ("read", read),
        ("update", update),
        ("delete", delete),
        ("scatter", scatter),
        ("prepared", prepared),
        ("commit", commit),
        ("rollback", rollback),
        ("savepoint", savepoint),
        ("batch", batch),
        ("batch_error", batch_error),
        ("copy_in", copy_in),
        ("copy_out", copy_out),
        ("cursor", cursor),
        ("unique_violation", unique_violation),
        ("syntax_error", syntax_error),
        ("failed_transaction", failed_transaction),
        ("cancel", cancel),
        ("arrays", arrays),
        ("json", json),
        ("timestamps", timestamps),
        ("numerics", numerics),
        ("null", null),
        ("bytea", bytea),
        ("unicode", unicode),
        ("pool", pool),
    ];
    let mut good = true;
    let mut held = None;
    for (name, step) in STEPS {
        let went = match &mut held {
            Some(conn) => step(conn),
            None => PgConnection::establish(&url()).map_err(Into::into).and_then(|conn| step(held.insert(conn))),
        };
        if !said(name, went) {
            good = false;
            held = None;
        }
    }
    std::process::exit(if good { 0 } else { 1 });
}
