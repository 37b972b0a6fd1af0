//! tokio-postgres: values of every kind, written and read again.

use std::time::{Duration, SystemTime};

use tokio_postgres::types::ToSql;

use super::{App, Params, Went, same};

const TEXT: &str = "Grüße 東京 🚀 \\ ' \" $1 %s -- /* {} \\N \t.";
const DATA: &str = "{\"a\": 1, \"b\": [true, null, \"ü'\\\"\\\\\"], \"c\": {\"x\": 1.5}}";
const PRICE: &str = "12345678901234.567891";
const BIG: &str = "1234567890123456789012345678901234567890.0123456789";

impl App {
    /// A row for each of eight users with this value, sent and read as this text of SQL says (`{}` is the parameter or column).
    async fn round<T>(&self, id: i32, column: &str, (to, from): (&str, &str), value: T) -> Went
    where
        T: ToSql + Sync + PartialEq + std::fmt::Debug + for<'a> tokio_postgres::types::FromSql<'a>,
    {
        let insert = format!(
            "INSERT INTO things (user_id, id, {column}) VALUES ($1, $2, {})",
            to.replace("{}", "$3")
        );
        let select = format!(
            "SELECT {} FROM things WHERE user_id = $1 AND id = $2",
            from.replace("{}", column)
        );
        for user in &self.users[..8] {
            self.execute(&insert, &[user, &id, &value], 1).await?;
            let row = self.row(&select, &[user, &id]).await?;
            same(&row.get::<_, T>(0), &value)?;
        }
        Ok(())
    }

    pub(super) async fn arrays(&mut self) -> Went {
        let plain = ("{}", "{}");
        self.round(
            100,
            "numbers",
            plain,
            vec![Some(1), None, Some(-3), Some(i32::MAX)],
        )
        .await?;
        self.round(101, "numbers", plain, Vec::<i32>::new()).await?;
        let words = ["a", "b c", "quo\"te", "", "NULL", "ünï,{}\\"].map(|w| Some(w.to_owned()));
        self.round(
            110,
            "words",
            plain,
            words.into_iter().chain([None]).collect::<Vec<_>>(),
        )
        .await?;
        let found = self
            .client
            .query(
                "SELECT id FROM users WHERE id = ANY($1) ORDER BY id",
                &[&&self.users[3..9]],
            )
            .await?;
        same(
            found.iter().map(|r| r.get::<_, i64>(0)).collect::<Vec<_>>(),
            &self.users[3..9],
        )?;
        let found = self
            .row(
                "SELECT id FROM things WHERE user_id = $1 AND $2 = ANY(words)",
                &[&self.users[1], &"b c"],
            )
            .await?;
        same(found.get::<_, i32>(0), 110)
    }

    pub(super) async fn json(&mut self) -> Went {
        self.round(
            200,
            "data",
            ("{}::text::jsonb", "{}::text"),
            DATA.to_owned(),
        )
        .await?;
        self.round(201, "doc", ("{}::text::json", "{}::text"), DATA.to_owned())
            .await?;
        for user in &self.users[..8] {
            let sql =
                "SELECT id FROM things WHERE user_id = $1 AND data ->> 'a' = $2 AND data ? 'c'";
            same(self.row(sql, &[user, &"1"]).await?.get::<_, i32>(0), 200)?;
        }
        Ok(())
    }

    pub(super) async fn timestamps(&mut self) -> Went {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_709_210_096_789_012);
        self.round(300, "at", ("{}", "{}"), at).await?;
        self.round(301, "local", ("{}", "{}"), at).await?;
        self.round(
            302,
            "day",
            ("{}::text::date", "{}::text"),
            "1999-12-31".to_owned(),
        )
        .await?;
        self.client
            .batch_execute("SET TIME ZONE 'Asia/Kathmandu'")
            .await?;
        for user in &self.users[..8] {
            let row = self
                .row(
                    "SELECT at::text, at FROM things WHERE user_id = $1 AND id = 300",
                    &[user],
                )
                .await?;
            same(
                (row.get::<_, &str>(0), row.get::<_, SystemTime>(1)),
                ("2024-02-29 18:19:56.789012+05:45", at),
            )?;
        }
        Ok(self.client.batch_execute("RESET TIME ZONE").await?)
    }

    pub(super) async fn numerics(&mut self) -> Went {
        let text = ("{}::text::numeric", "{}::text");
        self.round(400, "price", text, PRICE.to_owned()).await?;
        self.round(401, "price", text, format!("-{PRICE}")).await?;
        self.round(410, "big", text, BIG.to_owned()).await?;
        self.round(420, "ratio", ("{}", "{}"), f64::INFINITY)
            .await?;
        self.round(
            421,
            "ratio",
            ("{}::text::float8", "{}::text"),
            "NaN".to_owned(),
        )
        .await?;
        self.round(422, "ratio", ("{}", "{}"), 0.1).await?;
        let total =
            "SELECT sum(price)::text FROM things WHERE user_id BETWEEN $1 AND $2 AND id = 400";
        let total = self.row(total, &[&self.users[0], &self.users[15]]).await?;
        same(total.get::<_, &str>(0), "98765431209876.543128")
    }

    pub(super) async fn null(&mut self) -> Went {
        let sql = "INSERT INTO things (user_id, id, numbers, at, ratio, bytes, flag, note) VALUES ($1, 500, $2, $3, $4, $5, $6, $7)";
        for user in &self.users[..8] {
            let nothing: Params<'_> = &[
                user,
                &None::<Vec<i32>>,
                &None::<SystemTime>,
                &None::<f64>,
                &None::<Vec<u8>>,
                &None::<bool>,
                &None::<String>,
            ];
            self.execute(sql, nothing, 1).await?;
            let row = self.row("SELECT numbers, at, price, bytes, flag, note FROM things WHERE user_id = $1 AND id = 500 AND note IS NULL", &[user]).await?;
            same(
                (
                    row.get::<_, Option<Vec<i32>>>(0),
                    row.get::<_, Option<SystemTime>>(1),
                ),
                (None, None),
            )?;
            same(
                (
                    row.get::<_, Option<Vec<u8>>>(3),
                    row.get::<_, Option<bool>>(4),
                ),
                (None, None),
            )?;
            same(row.get::<_, Option<String>>(5), None)?;
        }
        Ok(())
    }

    pub(super) async fn bytea(&mut self) -> Went {
        let bytes: Vec<u8> = (0..=255).collect();
        self.round(600, "bytes", ("{}", "{}"), bytes.clone())
            .await?;
        self.round(601, "bytes", ("{}", "{}"), Vec::<u8>::new())
            .await?;
        self.round(602, "bytes", ("{}", "{}"), bytes.repeat(400))
            .await
    }

    pub(super) async fn unicode(&mut self) -> Went {
        self.round(700, "note", ("{}", "{}"), TEXT.to_owned())
            .await?;
        let length = self
            .row(
                "SELECT length(note) FROM things WHERE user_id = $1 AND note = $2",
                &[&self.users[0], &TEXT],
            )
            .await?;
        same(length.get::<_, i32>(0), TEXT.chars().count() as i32)?;
        let literal = format!(
            "SELECT '東🚀''' FROM things WHERE user_id = {} AND note LIKE '%🚀%'",
            self.users[0]
        );
        same(self.row(&literal, &[]).await?.get::<_, &str>(0), "東🚀'")
    }
}
