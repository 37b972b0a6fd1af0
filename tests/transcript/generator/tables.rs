//! Phrases that make, change and drop a table, in blocks and outside, by each protocol: `d{k}`, which no other stream knows.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::texts::Place::{Int, Key};
use super::super::texts::{Text, t};
use super::{ENDS, IN_BLOCKS, Maker};
use crate::transcript::message::Message;

const CREATE: &str = "CREATE TABLE d{k} (user_id bigint NOT NULL, id int NOT NULL, n int DEFAULT 7, PRIMARY KEY (user_id, id))";

const DDL: &[&str] = &[
    CREATE,
    "CREATE TABLE IF NOT EXISTS d{k} (user_id bigint NOT NULL, id int NOT NULL, n int)",
    "DROP TABLE d{k}",
    "DROP TABLE IF EXISTS d{k}",
    "ALTER TABLE d{k} ADD COLUMN note text DEFAULT 'none'",
    "ALTER TABLE d{k} ADD COLUMN IF NOT EXISTS note text",
    "ALTER TABLE d{k} DROP COLUMN note",
    "ALTER TABLE d{k} ALTER COLUMN n TYPE bigint",
    "ALTER TABLE d{k} RENAME COLUMN n TO m",
    "ALTER TABLE d{k} ADD CONSTRAINT small CHECK (id < 5)",
    "ALTER TABLE d{k} DROP CONSTRAINT small",
    "CREATE INDEX i{k} ON d{k} (n)",
    "CREATE INDEX IF NOT EXISTS i{k} ON d{k} (id)",
    "DROP INDEX i{k}",
    "TRUNCATE d{k}",
    "LOCK TABLE d{k} IN SHARE MODE",
];

const TEXTS: &[Text] = &[
    t(
        "INSERT INTO d{k} (user_id, id, n) VALUES ({k}, 1, 1), ({j}, 2, 2), ({i}, 3, 3), ({h}, 4, 4)",
        &[],
        0,
    ),
    t("INSERT INTO d{k} (user_id, id) VALUES ({i}, 5)", &[], 0),
    t(
        "INSERT INTO d{k} (user_id, id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        &[Key, Int],
        0,
    ),
    t("SELECT * FROM d{k} WHERE user_id = {i} ORDER BY id", &[], 3),
    t(
        "SELECT * FROM d{k} WHERE user_id = $1 ORDER BY id",
        &[Key],
        3,
    ),
    t("SELECT * FROM d{k} ORDER BY user_id, id", &[], 3),
    t(
        "SELECT user_id, n FROM d{k} WHERE user_id IN ({k}, {j}) ORDER BY user_id, id",
        &[],
        2,
    ),
    t("SELECT count(*), sum(n) FROM d{k}", &[], 2),
    t(
        "SELECT d.id, i.note FROM d{k} d JOIN items i ON i.user_id = d.user_id AND i.id = d.id WHERE d.user_id = {j} ORDER BY 1",
        &[],
        2,
    ),
    t(
        "SELECT note FROM d{k} WHERE user_id = {j} ORDER BY id",
        &[],
        1,
    ),
    t(
        "UPDATE d{k} SET n = n + 1 WHERE user_id IN ({k}, {j})",
        &[],
        0,
    ),
    t(
        "UPDATE d{k} SET n = 100 / (n - 2) WHERE user_id = {j}",
        &[],
        0,
    ),
    t("DELETE FROM d{k} WHERE user_id = {k} RETURNING id", &[], 1),
];

impl Maker {
    /// Statements about the table, and about others.
    pub(super) fn tables(&mut self) {
        let in_block = self.rng.random_ratio(2, 3);
        if in_block {
            self.run("BEGIN");
        }
        if self.rng.random_ratio(2, 3) {
            self.run(CREATE);
        }
        for _ in 0..self.rng.random_range(2..8) {
            match self.rng.random_range(0..14) {
                0 => self.simple(),
                1 => self.batch(),
                2 | 3 if in_block => {
                    let sql = self.pick(IN_BLOCKS);
                    self.run(sql);
                }
                2..6 => {
                    let sql = self.pick(DDL);
                    self.run(sql);
                }
                6 => {
                    let texts = [self.pick(DDL), self.table_text().sql, self.pick(DDL)];
                    let texts: Vec<_> = texts.into_iter().filter(|t| !t.contains('$')).collect();
                    self.query(&texts.join("; "));
                }
                7..9 => self.table_by_name(),
                _ => {
                    let text = self.table_text();
                    match text.params.is_empty() && self.rng.random_bool(0.5) {
                        true => self.query(text.sql),
                        false => {
                            self.unnamed(text);
                            if self.rng.random_ratio(2, 3) {
                                self.sync();
                            }
                        }
                    }
                }
            }
        }
        self.sync();
        if in_block {
            let end = self.pick(ENDS);
            self.run(end);
            self.sync();
        }
    }

    fn table_text(&mut self) -> Text {
        *TEXTS.choose(&mut self.rng).unwrap()
    }

    /// A statement of some name, which may have been made before the table was changed.
    fn table_by_name(&mut self) {
        let name = self.name();
        let known = self.prepared.iter().find(|(n, _)| *n == name).map(|p| p.1);
        let text = match known {
            Some(text) if self.rng.random_ratio(3, 4) => text,
            _ => {
                self.push(Message::CloseStatement(name.to_owned()));
                let text = self.table_text();
                self.parse(name, text);
                text
            }
        };
        self.bind("", name, text);
        self.execute("", 0);
        if self.rng.random_ratio(2, 3) {
            self.sync();
        }
    }
}
