//! Phrases about users of several hosts: `{k}`, `{j}` and `{i}` are on a host each, `{h}` is in another shard of the host of `{k}`, and
//! there is no user `{o}` as yet, so that its rows fail when they are committed. `user_id + 0` is no key to a router: such a statement goes to
//! all shards.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::texts::Place::{Int, Key, Word};
use super::super::texts::{Text, t};
use super::{BARE, ENDS, IN_BLOCKS, Maker};
use crate::transcript::message::Message;

pub(super) const READS: &[Text] = &[
    t(
        "SELECT user_id, id, n, note FROM items WHERE user_id IN ({k}, {j}) ORDER BY user_id, id",
        &[],
        4,
    ),
    t(
        "SELECT user_id, id FROM items WHERE user_id IN ($1, $2) ORDER BY user_id, id",
        &[Key, Key],
        2,
    ),
    t(
        "SELECT user_id, id, n FROM items WHERE user_id IN ($1, $2, {i}) AND id < $3 ORDER BY 1 DESC, 2",
        &[Key, Key, Int],
        3,
    ),
    t(
        "SELECT count(*), sum(n) FROM items WHERE user_id IN ({k}, {i})",
        &[],
        2,
    ),
    t(
        "SELECT user_id, count(*) FROM items WHERE user_id + 0 IN ({k}, {j}, {i}, {h}, {o}) GROUP BY user_id ORDER BY user_id",
        &[],
        2,
    ),
    t(
        "SELECT id, name FROM users WHERE id + 0 IN ({k}, {j}, {i}, {h}, {o}) ORDER BY id",
        &[],
        2,
    ),
    t(
        "SELECT user_id, id, note FROM items WHERE user_id + 0 IN ({k}, {j}, {i}, {h}) ORDER BY user_id DESC, id LIMIT 4",
        &[],
        3,
    ),
    t(
        "SELECT n, note FROM items WHERE user_id = {i} ORDER BY id",
        &[],
        2,
    ),
    t(
        "SELECT id, note FROM items WHERE user_id = {h} ORDER BY id",
        &[],
        2,
    ),
    t("SELECT name FROM users WHERE id = $1", &[Key], 1),
    t(
        "SELECT code, name FROM countries WHERE code = 'c{k}'",
        &[],
        2,
    ),
];

pub(super) const WRITES: &[Text] = &[
    t(
        "INSERT INTO items (user_id, id, n, note) VALUES ({j}, 9, 1, 'nine')",
        &[],
        0,
    ),
    t(
        "INSERT INTO items (user_id, id, n, note) VALUES ({i}, 9, 1, 'nine') RETURNING user_id",
        &[],
        1,
    ),
    t(
        "INSERT INTO items (user_id, id, n) VALUES ({k}, 40, 1), ({j}, 40, 2), ({i}, 40, 3), ({h}, 40, 4)",
        &[],
        0,
    ),
    t(
        "INSERT INTO items (user_id, id, n) VALUES ({i}, 41, 1), ({k}, 41, 2) ON CONFLICT DO NOTHING RETURNING user_id, n",
        &[],
        2,
    ),
    t(
        "INSERT INTO items (user_id, id, n, note) VALUES ($1, $2, 1, 'a'), ($3, $2, 2, 'b') RETURNING user_id, id",
        &[Key, Int, Key],
        2,
    ),
    t(
        "INSERT INTO items (user_id, id, n) VALUES ($1, $2, 7) ON CONFLICT (user_id, id) DO UPDATE SET n = items.n + 1",
        &[Key, Int],
        0,
    ),
    t(
        "UPDATE items SET n = n + 1 WHERE user_id IN ({k}, {j})",
        &[],
        0,
    ),
    t(
        "UPDATE items SET note = $3 WHERE user_id IN ($1, $2) AND id = 1",
        &[Key, Key, Word],
        0,
    ),
    t(
        "UPDATE items SET n = n + 1 WHERE user_id + 0 IN ({k}, {j}, {i}, {h}) /* presplit: all */",
        &[],
        0,
    ),
    t(
        "UPDATE items SET note = $2 WHERE user_id = $1 AND id = 2",
        &[Key, Word],
        0,
    ),
    t("UPDATE items SET n = n + 1 WHERE user_id = {i}", &[], 0),
    t(
        "UPDATE users SET name = 'renamed' WHERE id IN ({k}, {j}, {i})",
        &[],
        0,
    ),
    t(
        "DELETE FROM items WHERE user_id IN ($1, $2) AND id = $3",
        &[Key, Key, Int],
        0,
    ),
    t(
        "DELETE FROM items WHERE user_id = $1 RETURNING 1",
        &[Key],
        1,
    ),
    // These fail when they are committed, unless something mends them before.
    t("DELETE FROM users WHERE id = {i}", &[], 0),
    t("DELETE FROM users WHERE id IN ({k}, {j})", &[], 0),
    t(
        "INSERT INTO items (user_id, id, n) VALUES ({o}, $1, 1)",
        &[Int],
        0,
    ),
    t(
        "INSERT INTO items (user_id, id, n) VALUES ({o}, 60, 1), ({i}, 60, 1)",
        &[],
        0,
    ),
    t("INSERT INTO users (id, name) VALUES ({o}, 'there')", &[], 0),
    t(
        "INSERT INTO users (id, name) VALUES ({i}, 'again'), ({o}, 'again') ON CONFLICT DO NOTHING",
        &[],
        0,
    ),
    t(
        "INSERT INTO countries (code, name) VALUES ('c{k}', 'mine')",
        &[],
        0,
    ),
    t(
        "UPDATE countries SET name = name || '!' WHERE code = 'c{k}'",
        &[],
        0,
    ),
    t("DELETE FROM countries WHERE code = 'c{k}'", &[], 0),
];

const FAILS: &[Text] = &[
    t(
        "INSERT INTO items (user_id, id, n) VALUES ({k}, 50, 1), ({j}, 1, 1), ({i}, 50, 1)",
        &[],
        0,
    ),
    t(
        "UPDATE items SET n = 100 / (id - 3) WHERE user_id IN ({k}, {j})",
        &[],
        0,
    ),
    t(
        "SELECT user_id, 100 / (id - 3) FROM items WHERE user_id IN ({k}, {j}) ORDER BY user_id, id",
        &[],
        2,
    ),
    t(
        "SELECT sum(1 / (id - 3)) FROM items WHERE user_id + 0 IN ({k}, {j})",
        &[],
        1,
    ),
    t(
        "UPDATE items SET n = 5000 WHERE user_id IN ({j}, {i}) AND id = 1",
        &[],
        0,
    ),
    t(
        "SELECT 1 / (id - 3) FROM items WHERE user_id = {j} ORDER BY id",
        &[],
        1,
    ),
    t("UPDATE items SET nosuch = 1 WHERE user_id = {i}", &[], 0),
    t("SELECT 1/0", &[], 1),
];

impl Maker {
    pub(super) fn spread_phrase(&mut self) {
        match self.rng.random_range(0..10) {
            0..4 => self.phrase(),
            4..7 => self.unsynced(),
            7 => self.sql_prepared(),
            _ => self.block(),
        }
    }

    pub(super) fn spread_text(&mut self) -> Text {
        let texts = match self.rng.random_range(0..20) {
            0..6 => READS,
            6..17 => WRITES,
            17..19 => FAILS,
            _ => BARE,
        };
        *texts.choose(&mut self.rng).unwrap()
    }

    /// Statements of a batch without a Sync, and what is part of their transaction therefore.
    fn unsynced(&mut self) {
        for _ in 0..self.rng.random_range(1..4) {
            let text = self.text();
            self.unnamed(text);
        }
        for _ in 0..self.rng.random_range(1..4) {
            match self.rng.random_range(0..12) {
                0..3 => {
                    let sql = self.plain();
                    self.query(&sql);
                }
                3 => self.several_in_one(),
                4 | 5 => {
                    let begin = self.begin();
                    self.run(begin);
                }
                6 => {
                    let sql = self.pick(IN_BLOCKS);
                    self.run(sql);
                }
                7 | 8 => {
                    let end = self.pick(ENDS);
                    self.run(end);
                }
                9 => self.copy(),
                10 => self.push(Message::Flush),
                _ => {
                    let text = self.text();
                    self.unnamed(text);
                }
            }
        }
        if self.rng.random_ratio(2, 3) {
            self.sync();
        }
    }
}
