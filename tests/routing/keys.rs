//! Keys as literals and parameters of every form lead to their shard.

use tokio_postgres::types::Type;

use super::{Eye, hosts, rows};
use crate::support::Proxy;
use crate::support::raw::{self, Raw};

/// Keys as literals.
const LITERALS: [(&str, i64); 16] = [
    ("42", 42),
    ("'43'", 43),
    ("44::int", 44),
    ("'45'::bigint", 45),
    ("-5", -5),
    ("- 6", -6),
    ("CAST(46 AS bigint)", 46),
    ("CAST('-7' AS int8)", -7),
    ("(47)", 47),
    ("+48", 48),
    ("int8 '49'", 49),
    ("50::int2", 50),
    ("51::numeric", 51),
    ("E'52'", 52),
    ("$$53$$", 53),
    ("9223372036854775807", i64::MAX),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn literals_of_every_form_lead_to_the_shard() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let client = proxy.client().await;
    for (n, (literal, key)) in LITERALS.iter().enumerate() {
        for extended in [false, true] {
            let run = async |sql: String| match extended {
                false => client
                    .batch_execute(&sql)
                    .await
                    .unwrap_or_else(|e| panic!("{sql}: {e:?}")),
                true => drop(
                    client
                        .query(&sql, &[])
                        .await
                        .unwrap_or_else(|e| panic!("{sql}: {e:?}")),
                ),
            };
            let mark = format!("lit {n} {extended}");
            let is = format!("caption = '{mark}'");
            run(format!(
                "INSERT INTO photos (caption, user_id) VALUES ('{mark}', {literal})"
            ))
            .await;
            eye.assert_only_in(*key, "photos", &is, literal).await;
            run(format!("UPDATE photos SET caption = caption || '!' WHERE caption = '{mark}' AND user_id = {literal}")).await;
            let is = format!("caption = '{mark}!'");
            eye.assert_only_in(*key, "photos", &is, literal).await;
            let read = format!(
                "SELECT user_id, caption FROM photos AS p WHERE {literal} = p.user_id AND caption = '{mark}!'"
            );
            assert_eq!(
                rows(&client, &read).await,
                [[Some(key.to_string()), Some(format!("{mark}!"))]],
                "{read}"
            );
            run(format!(
                "DELETE FROM photos WHERE user_id IN ({literal}) AND {is}"
            ))
            .await;
            assert!(eye.places("photos", &is).await.is_empty(), "{literal}");
            // No column list: the key is the first column.
            run(format!("INSERT INTO users VALUES ({literal}, '{mark}')")).await;
            eye.assert_only_in(*key, "users", &format!("name = '{mark}'"), literal)
                .await;
            run(format!("DELETE FROM ONLY users u WHERE u.id = {literal}")).await;
            assert!(
                eye.places("users", &format!("name = '{mark}'"))
                    .await
                    .is_empty(),
                "{literal}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_of_every_type_and_format_lead_to_the_shard() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let mut raw = Raw::connect(proxy.addr());
    let mut client = proxy.client().await;
    client
        .batch_execute("DELETE FROM photos WHERE user_id = 0")
        .await
        .unwrap();
    // As Parse states the types (0: not at all), with what the value then looks like in binary.
    let int2 = |key: i64| (key as i16).to_be_bytes().to_vec();
    let int4 = |key: i64| (key as i32).to_be_bytes().to_vec();
    let int8 = |key: i64| key.to_be_bytes().to_vec();
    type Binary = Box<dyn Fn(i64) -> Vec<u8>>;
    let types: [(u32, Binary); 4] = [
        (0, Box::new(int8)),
        (20, Box::new(int8)),
        (21, Box::new(int2)),
        (23, Box::new(int4)),
    ];
    for (oid, binary) in &types {
        for key in [1i64, 2, -3, 300] {
            for format in [0, 1] {
                let mark = format!("par {oid} {key} {format}");
                let value = if format == 1 {
                    binary(key)
                } else {
                    key.to_string().into_bytes()
                };
                let caption = [Some(&value[..]), Some(mark.as_bytes())];
                let run = |raw: &mut Raw, sql: &str, params: &[Option<&[u8]>]| {
                    let bytes = [
                        raw::pt("", sql, &[*oid]),
                        raw::bf("", "", format, params),
                        raw::e("", 0),
                        raw::s(),
                    ]
                    .concat();
                    let answer = raw.ask(&bytes, 1);
                    assert_eq!(answer[..2], ["1", "2"], "{sql} {answer:?}");
                    answer[2..answer.len() - 1].to_vec()
                };
                let answer = run(
                    &mut raw,
                    "INSERT INTO photos (user_id, caption) VALUES ($1, $2)",
                    &caption,
                );
                assert_eq!(answer, ["C INSERT 0 1"]);
                let is = format!("caption = '{mark}'");
                eye.assert_only_in(key, "photos", &is, &mark).await;
                let answer = run(
                    &mut raw,
                    "SELECT user_id FROM photos WHERE user_id = $1 AND caption = $2",
                    &caption,
                );
                assert_eq!(
                    answer,
                    [format!("D {key}"), "C SELECT 1".to_owned()],
                    "{mark}"
                );
                let answer = run(
                    &mut raw,
                    "DELETE FROM photos WHERE user_id = $1 AND caption = $2",
                    &caption,
                );
                assert_eq!(answer, ["C DELETE 1"], "{mark}");
            }
        }
    }
    // numeric is compared with an int8 column as numeric; a driver sends it in binary as base-10000 digits.
    let numeric = |digits: &[u16]| {
        let mut out = [
            (digits.len() as u16).to_be_bytes(),
            (digits.len() as u16 - 1).to_be_bytes(),
            [0, 0],
            [0, 0],
        ]
        .concat();
        out.extend(digits.iter().flat_map(|d| d.to_be_bytes()));
        out
    };
    client
        .batch_execute("INSERT INTO photos (user_id, caption) VALUES (123456, 'num')")
        .await
        .unwrap();
    for (format, value) in [
        (0, b"123456".to_vec()),
        (0, b"123456.00".to_vec()),
        (1, numeric(&[12, 3456])),
    ] {
        let sql = "SELECT caption FROM photos WHERE user_id = $1";
        let bytes = [
            raw::pt("", sql, &[1700]),
            raw::bf("", "", format, &[Some(&value)]),
            raw::e("", 0),
            raw::s(),
        ]
        .concat();
        assert_eq!(raw.ask(&bytes, 1), ["1", "2", "D num", "C SELECT 1", "Z I"]);
    }
    // text needs a cast, as with Postgres itself.
    let text = [
        raw::pt(
            "",
            "SELECT caption FROM photos WHERE user_id = $1::text::bigint",
            &[25],
        ),
        raw::b("", "", &["123456"]),
        raw::e("", 0),
        raw::s(),
    ];
    let answer = raw.ask(&text.concat(), 1);
    assert!(
        answer == ["1", "2", "D num", "C SELECT 1", "Z I"]
            || answer.iter().any(|l| l.contains("CSR00")),
        "{answer:?}"
    );

    // What tokio-postgres does: types asked for, named statements, typed queries, transactions.
    let (key, name) = (77i64, "typed");
    let insert = client
        .prepare("INSERT INTO users (id, name) VALUES ($1, $2) RETURNING id, name")
        .await
        .unwrap();
    let row = client.query_one(&insert, &[&key, &name]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (key, name));
    eye.assert_only_in(key, "users", "name = 'typed'", "prepared")
        .await;
    let found = client
        .query_typed(
            "SELECT name FROM users WHERE id = $1",
            &[(&77i32, Type::INT4)],
        )
        .await
        .unwrap();
    assert_eq!(found[0].get::<_, &str>(0), name);
    let select = client
        .prepare_typed("SELECT name FROM users WHERE id = $1", &[Type::INT4])
        .await
        .unwrap();
    for key in 70..90i32 {
        let found = client.query(&select, &[&key]).await.unwrap();
        assert_eq!(found.len(), usize::from(key == 77), "{key}");
    }
    let tx = client.transaction().await.unwrap();
    for key in [77i64, 85, 93] {
        // Three users of one shard.
        tx.execute(
            "INSERT INTO follows (source_id, target_id) VALUES ($1, 1)",
            &[&key],
        )
        .await
        .unwrap();
    }
    tx.rollback().await.unwrap();
    assert!(
        eye.places("follows", "source_id IN (77, 85, 93)")
            .await
            .is_empty()
    );
}
