//! Phrases of the extended protocol: statements and portals by name, read in parts.

use rand::Rng;

use super::super::message::Message;
use super::super::texts::{BARE, CURSORS, DISCARDS, ENDS, IN_BLOCKS, Place, READS, Text, WRITES};
use super::{Maker, spread};

impl Maker {
    pub fn parse(&mut self, name: &'static str, mut text: Text) {
        if !name.is_empty() && (text.sql.starts_with("FETCH") || text.sql.starts_with("MOVE")) {
            // Postgres crashes when it describes a FETCH whose cursor is gone.
            text = BARE[0];
        }
        let types: Vec<u32> = match self.rng.random_range(0..4) {
            0 => text.params.iter().map(|p| p.oid()).collect(),
            1 if !text.params.is_empty() => {
                let stated = self.rng.random_range(0..text.params.len());
                let types = text.params.iter().enumerate();
                types
                    .map(|(i, p)| if i <= stated { p.oid() } else { 0 })
                    .collect()
            }
            _ => Vec::new(),
        };
        let sql = self.fill(text.sql);
        self.push(Message::Parse {
            name: name.to_owned(),
            sql,
            types,
        });
        self.prepared.retain(|(n, _)| *n != name);
        self.prepared.push((name, text));
    }

    pub fn bind(&mut self, portal: &str, name: &str, text: Text) {
        let values: Vec<_> = text
            .params
            .iter()
            .map(|place| place.value(&mut self.rng, &self.users))
            .collect();
        let formats: Vec<u16> = match self.rng.random_range(0..4) {
            0 => vec![1],
            1 => values.iter().map(|_| self.rng.random_range(0..2)).collect(),
            2 => vec![0],
            _ => Vec::new(),
        };
        let (mut params, places) = (Vec::new(), text.params);
        for (i, (text, binary)) in values.into_iter().enumerate() {
            let format = formats.get(i).or(match formats.len() {
                1 => formats.first(),
                _ => None,
            });
            // A key that is NULL is refused.
            let may = places[i] != Place::Key;
            params.push(match (format, may && self.rng.random_ratio(1, 40)) {
                (_, true) => None,
                (Some(1), _) => Some(binary),
                _ => Some(text),
            });
        }
        let results = match self.rng.random_range(0..8) {
            0 | 1 => vec![1],
            2 => (0..text.columns)
                .map(|_| self.rng.random_range(0..2))
                .collect(),
            _ => Vec::new(),
        };
        if self.rng.random_ratio(1, 60) {
            params.pop();
        }
        self.push(Message::Bind {
            portal: portal.to_owned(),
            statement: name.to_owned(),
            formats,
            params,
            results,
        });
    }

    /// Of the unnamed statement without parameters.
    pub fn bind_plain(&mut self) {
        self.push(Message::Bind {
            portal: String::new(),
            statement: String::new(),
            formats: Vec::new(),
            params: Vec::new(),
            results: Vec::new(),
        });
    }

    pub fn execute(&mut self, portal: &str, rows: u32) {
        self.push(Message::Execute(portal.to_owned(), rows));
    }

    /// As most drivers do it.
    pub fn unnamed(&mut self, text: Text) {
        self.parse("", text);
        if self.rng.random_ratio(1, 3) {
            self.push(Message::DescribeStatement(String::new()));
            if self.rng.random_ratio(1, 3) {
                self.flush();
            }
        }
        self.bind("", "", text);
        if self.rng.random_bool(0.5) {
            self.push(Message::DescribePortal(String::new()));
        }
        let rows = if self.rng.random_ratio(1, 6) { 2 } else { 0 };
        self.execute("", rows);
        if rows > 0 && self.rng.random_bool(0.5) {
            self.execute("", 0);
        }
        if self.rng.random_ratio(1, 8) {
            self.flush();
        }
    }

    /// Named statements and their lifetimes.
    pub fn statements(&mut self) {
        for _ in 0..self.rng.random_range(2..7) {
            let name = self.name();
            match self.rng.random_range(0..12) {
                0..3 => {
                    if self.rng.random_ratio(3, 4) {
                        self.push(Message::CloseStatement(name.to_owned()));
                    }
                    let text = if self.rng.random_ratio(1, 4) {
                        self.any()
                    } else {
                        self.text()
                    };
                    self.parse(name, text);
                }
                3..8 => {
                    let text = self.prepared.iter().find(|(n, _)| *n == name).map(|p| p.1);
                    let text = match text {
                        Some(text) => text,
                        None if self.rng.random_ratio(9, 10) => {
                            let text = self.text();
                            self.parse(name, text);
                            text
                        }
                        None => READS[2],
                    };
                    self.bind("", name, text);
                    if self.rng.random_ratio(1, 3) {
                        self.push(Message::DescribePortal(String::new()));
                    }
                    self.execute("", 0);
                }
                8 | 9 => self.push(Message::DescribeStatement(name.to_owned())),
                10 => self.push(Message::CloseStatement(name.to_owned())),
                _ => {
                    let sql = self.pick(DISCARDS);
                    self.run(sql);
                }
            }
            if self.rng.random_ratio(1, 3) {
                self.sync();
            }
        }
        self.sync();
    }

    /// Portals with names and with row limits.
    pub fn portals(&mut self) {
        let in_block = self.rng.random_bool(0.5);
        if in_block {
            self.run("BEGIN");
        }
        for _ in 0..self.rng.random_range(1..4) {
            let mut portal = self.portal();
            let text = match self.rng.random_range(0..6) {
                0 => {
                    // No cursor's name, and no portal that is another statement's transaction.
                    portal = "y";
                    self.text()
                }
                1 => self.one_of(WRITES, spread::WRITES),
                _ => self.one_of(READS, spread::READS),
            };
            self.parse("", text);
            if self.rng.random_ratio(3, 4) {
                self.push(Message::ClosePortal(portal.to_owned()));
            }
            self.bind(portal, "", text);
            for _ in 0..self.rng.random_range(1..5) {
                match self.rng.random_range(0..10) {
                    0 | 1 => self.flush(),
                    2 => self.sync(),
                    3 => self.push(Message::ClosePortal(portal.to_owned())),
                    4 => {
                        let other = self.portal();
                        self.execute(other, 1);
                    }
                    5 if in_block => {
                        let sql = self.pick(IN_BLOCKS);
                        self.run(sql);
                    }
                    _ => {
                        let rows = self.rng.random_range(0..4);
                        self.execute(portal, rows);
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

    pub fn cursors(&mut self) {
        let in_block = self.rng.random_ratio(3, 4);
        if in_block {
            self.run("BEGIN");
        }
        let declare = match self.spread {
            true => self.pick(&CURSORS[..3]),
            false => self.pick(&CURSORS[..5]),
        };
        self.run(declare);
        for _ in 0..self.rng.random_range(1..6) {
            let sql = self.pick(CURSORS);
            self.run(sql);
            if self.rng.random_ratio(1, 6) {
                // A cursor is a portal, too.
                let portal = self.portal();
                self.execute(portal, 2);
            }
        }
        self.sync();
        if in_block {
            let end = self.pick(ENDS);
            self.run(end);
            self.sync();
        }
    }
}
