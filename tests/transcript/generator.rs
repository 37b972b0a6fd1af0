//! Makes streams: what the seed and the stream's number say, and nothing else. Mostly what a driver would send, in phrases;
//! now and then what only a client would send that has lost its way.

mod copy;
mod extended;
mod lost;
mod pinned;
mod spread;
mod sql;
mod tables;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::client::{HANG, Manner};
use super::message::Message;
use super::texts::{
    BARE, BLOCKS, COPY_OUT, CURSORS, DISCARDS, ENDS, FAILS, IN_BLOCKS, NOTICES, READS, SETTINGS,
    Text, WRITES, fill,
};

/// A stream, but for the two users it is about.
pub struct Stream {
    pub manner: Manner,
    pub messages: Vec<Message>,
}

/// The stream of this number, about these users.
pub fn stream(seed: u64, number: u64, users: &[i64]) -> Stream {
    made_of(seed, number, users, false, Maker::phrase)
}

/// The same, about users of several hosts.
pub fn spread(seed: u64, number: u64, users: &[i64]) -> Stream {
    made_of(seed, number, users, true, Maker::spread_phrase)
}

/// The same, of what lies in the server process, among others.
pub fn spread_pinned(seed: u64, number: u64, users: &[i64]) -> Stream {
    made_of(seed, number, users, true, |maker| {
        match maker.rng.random_range(0..3) {
            0 => maker.spread_phrase(),
            _ => maker.pinned(),
        }
    })
}

/// The same, of a table that is made, changed and dropped, among others.
pub fn spread_tables(seed: u64, number: u64, users: &[i64]) -> Stream {
    made_of(seed, number, users, true, |maker| {
        match maker.rng.random_range(0..4) {
            0 => maker.spread_phrase(),
            _ => maker.tables(),
        }
    })
}

/// The same, of statements prepared by SQL, among others.
pub fn spread_prepared(seed: u64, number: u64, users: &[i64]) -> Stream {
    made_of(seed, number, users, true, |maker| {
        match maker.rng.random_range(0..3) {
            0 => maker.spread_phrase(),
            _ => maker.sql_prepared(),
        }
    })
}

/// Of one host: of statements prepared by SQL, and of function calls, among others.
pub fn prepared(seed: u64, number: u64, users: &[i64]) -> Stream {
    made_of(seed, number, users, false, |maker| {
        match maker.rng.random_range(0..3) {
            0 => maker.phrase(),
            _ => maker.sql_prepared(),
        }
    })
}

/// The same, of what lies in the server process, among others.
pub fn pinned(seed: u64, number: u64, users: &[i64]) -> Stream {
    made_of(seed, number, users, false, |maker| {
        match maker.rng.random_range(0..3) {
            0 => maker.phrase(),
            _ => maker.pinned(),
        }
    })
}

fn made_of(seed: u64, number: u64, users: &[i64], spread: bool, phrase: fn(&mut Maker)) -> Stream {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
    let manner = Manner {
        startup: startup(&mut rng),
        cut: rng
            .random_ratio(1, 5)
            .then(|| [1, 7, 100][rng.random_range(0..3)]),
        hang: HANG,
    };
    let mut maker = Maker {
        rng,
        number,
        users: users.to_vec(),
        spread,
        messages: Vec::new(),
        prepared: Vec::new(),
        pauses: false,
    };
    maker.pauses = maker.rng.random_bool(0.5);
    for _ in 0..maker.rng.random_range(2..9) {
        phrase(&mut maker);
    }
    Stream {
        manner,
        messages: maker.messages,
    }
}

/// What all streams end with: the answer to the last is the end.
pub fn ending() -> Vec<Message> {
    vec![
        Message::Sync,
        Message::Query("ROLLBACK".to_owned()),
        Message::Query("SELECT 'the end'".to_owned()),
    ]
}

fn startup(rng: &mut StdRng) -> Vec<(&'static str, &'static str)> {
    let choices = [
        ("application_name", "mine"),
        ("TimeZone", "Asia/Tokyo"),
        ("DateStyle", "SQL, DMY"),
        ("options", "-c work_mem=6MB"),
        ("client_encoding", "UTF8"),
        ("extra_float_digits", "2"),
    ];
    match rng.random_range(0..4) {
        0 => choices.choose_multiple(rng, 2).copied().collect(),
        _ => Vec::new(),
    }
}

struct Maker {
    rng: StdRng,
    number: u64,
    users: Vec<i64>,
    /// They are on several hosts, and statements are about several of them.
    spread: bool,
    messages: Vec<Message>,
    /// Names of statements, and the texts they probably have.
    prepared: Vec<(&'static str, Text)>,
    /// Whether the client waits for answers now and then.
    pauses: bool,
}

/// Whether PREPARE takes it.
fn is_query(sql: &str) -> bool {
    let first = sql.split(' ').next().unwrap();
    ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES"].contains(&first)
}

const NAMES: [&str; 3] = ["a", "b", "c d"];
const PORTALS: [&str; 3] = ["x", "y", "c"];

impl Maker {
    fn phrase(&mut self) {
        match self.rng.random_range(0..100) {
            0..12 => self.simple(),
            12..18 => self.several_in_one(),
            18..38 => self.batch(),
            38..52 => self.block(),
            52..62 => self.statements(),
            62..72 => self.portals(),
            72..80 => self.settings(),
            80..85 => self.cursors(),
            85..91 => self.copy(),
            91..93 => self.cancel(),
            _ => self.lost(),
        }
    }

    fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    fn fill(&self, sql: &str) -> String {
        fill(sql, &self.users).replace("{n}", &self.number.to_string())
    }

    fn query(&mut self, sql: &str) {
        let sql = self.fill(sql);
        self.push(Message::Query(sql));
        self.pause(1, 3);
    }

    fn sync(&mut self) {
        self.push(Message::Sync);
        self.pause(1, 3);
    }

    fn pause(&mut self, of: u32, all: u32) {
        if self.pauses && self.rng.random_ratio(of, all) {
            self.push(Message::Pause);
        }
    }

    fn pick(&mut self, texts: &[&'static str]) -> &'static str {
        loop {
            let sql = *texts.choose(&mut self.rng).unwrap();
            // Whether a role may read is found when a portal over several shards is executed, not when it is bound.
            if !self.spread || sql != "SET ROLE other" {
                return sql;
            }
        }
    }

    /// Any text of a statement that is not about the session.
    fn text(&mut self) -> Text {
        if self.spread && self.rng.random_ratio(2, 3) {
            return self.spread_text();
        }
        let texts = match self.rng.random_range(0..20) {
            0..8 => READS,
            8..12 => BARE,
            12..17 => WRITES,
            17..19 => FAILS,
            _ => NOTICES,
        };
        *texts.choose(&mut self.rng).unwrap()
    }

    /// A portal's name, as a rule a cursor's, too.
    fn portal(&mut self) -> &'static str {
        // SQL finds no portal over several hosts.
        let names = if self.spread {
            &["y", "z", "w"]
        } else {
            &PORTALS
        };
        names.choose(&mut self.rng).unwrap()
    }

    /// One of the first, or where users are spread of the second.
    fn one_of(&mut self, texts: &[Text], spread: &[Text]) -> Text {
        let of_several = self.spread && self.rng.random_ratio(2, 3);
        let texts = if of_several { spread } else { texts };
        *texts.choose(&mut self.rng).unwrap()
    }

    fn begin(&mut self) -> &'static str {
        match self.spread && self.rng.random_ratio(4, 5) {
            // The others are for one host, as a rule.
            true => "BEGIN",
            false => self.pick(BLOCKS),
        }
    }

    /// Any text at all.
    fn any(&mut self) -> Text {
        let bare = |sql| Text {
            sql,
            params: &[],
            columns: 1,
        };
        match self.rng.random_range(0..10) {
            0..6 => self.text(),
            6 => bare(self.pick(IN_BLOCKS)),
            7 => match self.rng.random_bool(0.5) {
                true => bare(self.begin()),
                false => bare(self.pick(ENDS)),
            },
            8 => bare(self.pick(SETTINGS)),
            _ => match self.rng.random_range(0..3) {
                0 => bare(self.pick(DISCARDS)),
                1 => bare(self.pick(CURSORS)),
                _ => bare(self.pick(COPY_OUT)),
            },
        }
    }

    /// A statement without parameters, as a Query.
    fn plain(&mut self) -> String {
        loop {
            let text = self.any();
            if text.params.is_empty() {
                return self.fill(text.sql);
            }
        }
    }

    fn simple(&mut self) {
        for _ in 0..self.rng.random_range(1..4) {
            let sql = self.plain();
            self.query(&sql);
        }
    }

    fn several_in_one(&mut self) {
        // Not yet as in Postgres: an empty statement in front, and what fails only with the commit (its CommandComplete
        // comes before the error, if the session itself acts on another statement of the text).
        let spread = self.spread;
        let left_out = |sql: &String| {
            sql.is_empty()
                || sql.starts_with([';', '-'])
                || !spread && sql.starts_with("DELETE FROM users")
                || sql.starts_with("SET TRANSACTION READ")
        };
        let mut texts: Vec<String> = (0..self.rng.random_range(2..5))
            .map(|_| self.plain())
            .collect();
        texts.retain(|sql| !left_out(sql));
        if self.rng.random_ratio(1, 3) {
            texts.insert(0, self.begin().to_owned());
        }
        if self.rng.random_ratio(1, 3) {
            texts.push(self.pick(ENDS).to_owned());
        }
        if texts.len() > 1 {
            // Without it a batch that is open would be part of the message's transaction.
            if !self.spread || self.rng.random_bool(0.5) {
                self.push(Message::Sync);
            }
            let sql = texts.join("; ");
            self.query(&sql);
        }
    }

    fn name(&mut self) -> &'static str {
        NAMES.choose(&mut self.rng).unwrap()
    }

    fn flush(&mut self) {
        self.push(Message::Flush);
        self.pause(1, 2);
    }

    fn batch(&mut self) {
        for _ in 0..self.rng.random_range(1..4) {
            for _ in 0..self.rng.random_range(1..5) {
                let text = if self.rng.random_ratio(1, 3) {
                    self.any()
                } else {
                    self.text()
                };
                self.unnamed(text);
            }
            self.sync();
        }
    }

    fn run(&mut self, sql: &'static str) {
        match self.rng.random_bool(0.5) {
            true => self.query(sql),
            false => {
                self.unnamed(Text {
                    sql,
                    params: &[],
                    columns: 1,
                });
                if self.rng.random_ratio(2, 3) {
                    self.sync();
                }
            }
        }
    }

    fn block(&mut self) {
        let begin = self.begin();
        self.run(begin);
        for _ in 0..self.rng.random_range(1..7) {
            match self.rng.random_range(0..12) {
                0..3 => self.simple(),
                3..6 => self.batch(),
                6..8 => {
                    let sql = self.pick(IN_BLOCKS);
                    self.run(sql);
                }
                8 => self.cursors(),
                9 => self.portals(),
                10 => self.settings(),
                _ => self.copy(),
            }
        }
        if self.rng.random_ratio(9, 10) {
            let end = self.pick(ENDS);
            self.run(end);
            self.sync();
        }
    }

    fn settings(&mut self) {
        for _ in 0..self.rng.random_range(1..5) {
            match self.rng.random_range(0..8) {
                0 => {
                    let text = *BARE.choose(&mut self.rng).unwrap();
                    self.unnamed(text);
                    self.sync();
                }
                1 => {
                    let text = Text {
                        sql: "SELECT set_config($1, $2, false)",
                        params: &[],
                        columns: 1,
                    };
                    self.parse("", text);
                    let value = ["7MB", "x", "2"][self.rng.random_range(0..3)];
                    let name = ["work_mem", "application_name", "app.b"];
                    let name = name[self.rng.random_range(0..3)];
                    let params = [name, value].map(|v| Some(v.as_bytes().to_vec()));
                    self.push(Message::Bind {
                        portal: String::new(),
                        statement: String::new(),
                        formats: Vec::new(),
                        params: params.to_vec(),
                        results: Vec::new(),
                    });
                    self.execute("", 0);
                    self.sync();
                }
                _ => {
                    let sql = self.pick(SETTINGS);
                    self.run(sql);
                    if self.rng.random_bool(0.5) {
                        self.sync();
                    }
                }
            }
        }
    }
}
