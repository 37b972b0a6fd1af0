//! Phrases of COPY in both directions.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::message::Message;
use super::super::texts::{COPY_IN, COPY_OUT, Text};
use super::Maker;

impl Maker {
    pub fn copy(&mut self) {
        if self.rng.random_ratio(1, 3) {
            let sql = self.pick(COPY_OUT);
            return self.run(sql);
        }
        // Without it a batch that is open would be part of the COPY's transaction.
        if !self.spread || self.rng.random_bool(0.5) {
            self.push(Message::Sync);
        }
        let sql = match self.spread && self.rng.random_ratio(3, 4) {
            true => "COPY items (user_id, id, n, note) FROM STDIN",
            false => self.pick(COPY_IN),
        };
        let of_one = !self.spread || sql.contains("key=");
        let csv = sql.contains("csv");
        let extended = self.rng.random_ratio(1, 3);
        let mut synced = false;
        if extended {
            self.parse(
                "",
                Text {
                    sql,
                    params: &[],
                    columns: 0,
                },
            );
            self.bind_plain();
            self.execute("", 0);
            match self.rng.random_range(0..3) {
                // As libpq does it.
                0 => {
                    synced = true;
                    self.sync();
                }
                1 => self.flush(),
                _ => {}
            }
        } else {
            let sql = self.fill(sql);
            let more = self.rng.random_ratio(1, 6);
            let text = if more {
                format!("{sql}; SELECT 'more'")
            } else {
                sql
            };
            self.push(Message::Query(text));
            self.pause(1, 3);
        }
        for message in self.data(csv, of_one) {
            self.push(message);
        }
        let end = match self.rng.random_ratio(1, 5) {
            true => Message::CopyFail("no more".to_owned()),
            false => Message::CopyDone,
        };
        self.push(end);
        if extended || synced {
            self.sync();
        } else {
            self.pause(1, 3);
        }
    }

    /// Rows of the stream's user, or of several, cut anywhere; now and then with a fault.
    fn data(&mut self, csv: bool, of_one: bool) -> Vec<Message> {
        let mut bytes = Vec::new();
        let by = if csv { "," } else { "\t" };
        let first = self.rng.random_range(6..60);
        for id in first..first + self.rng.random_range(0..6) {
            let user = match of_one {
                true => self.users[0],
                false => *self.users.choose(&mut self.rng).unwrap(),
            };
            let (id, n) = (id.to_string(), "1".to_owned());
            let mut fields = vec![user.to_string(), id, n, "copied".to_owned()];
            match self.rng.random_range(0..40) {
                0 => fields[1] = "x".to_owned(),
                1 => drop(fields.pop()),
                2 => fields.push("more".to_owned()),
                3 => fields[1] = "1".to_owned(),
                4 => fields[2] = "5000".to_owned(),
                5 => fields[3] = "loud".to_owned(),
                _ => {}
            }
            bytes.extend(fields.join(by).into_bytes());
            bytes.push(b'\n');
        }
        if self.rng.random_ratio(1, 10) && !csv {
            bytes.extend(b"\\.\n");
        }
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let most = bytes.len();
            let len = if self.rng.random_bool(0.5) {
                most
            } else {
                self.rng.random_range(1..=most)
            };
            messages.push(Message::CopyData(bytes.drain(..len).collect()));
        }
        messages
    }
}
