//! Makes streams: what the seed and the stream's number say, and nothing else. Mostly what a driver would send, in phrases;
//! now and then what only a client would send that has lost its way.

mod pinned;
mod spread;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::client::{HANG, Manner};
use super::message::Message;
use super::texts::{
    BARE, BLOCKS, COPY_IN, COPY_OUT, CURSORS, DISCARDS, ENDS, FAILS, IN_BLOCKS, LONG, NOTICES,
    Place, READS, SETTINGS, Text, WRITES, fill,
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

/// The same, of statements prepared by SQL, and of function calls, among others.
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

    /// PREPARE, EXECUTE and DEALLOCATE, by either protocol; Bind of what PREPARE has made.
    fn sql_prepared(&mut self) {
        for _ in 0..self.rng.random_range(2..7) {
            let name = self.name();
            let known = self.prepared.iter().find(|(n, _)| *n == name).map(|p| p.1);
            let quoted = format!("\"{name}\"");
            let sql = match (self.rng.random_range(0..12), known) {
                (0..3, _) | (_, None) => {
                    let text = loop {
                        let text = self.text();
                        // Others can't be prepared by SQL.
                        if !text.sql.ends_with("AND") && is_query(text.sql) {
                            break text;
                        }
                    };
                    self.prepared.retain(|(n, _)| *n != name);
                    self.prepared.push((name, text));
                    let types: Vec<_> = text.params.iter().map(|p| p.type_name()).collect();
                    let types = match types.is_empty() || self.rng.random_bool(0.5) {
                        true => String::new(),
                        false => format!(" ({})", types.join(", ")),
                    };
                    if self.rng.random_ratio(3, 4) {
                        let gone = format!("DEALLOCATE {quoted}");
                        self.say(gone);
                    }
                    format!("PREPARE {quoted}{types} AS {}", text.sql)
                }
                // What is no query is refused; and Postgres itself crashes if it ends a transaction.
                (3..8, Some(_)) if !self.always_a_query(name) => format!("DEALLOCATE {quoted}"),
                (3..8, Some(text)) => {
                    let mut args: Vec<_> = text
                        .params
                        .iter()
                        .map(|place| place.literal(&mut self.rng, &self.users))
                        .collect();
                    if self.rng.random_ratio(1, 30) {
                        args.push("1".to_owned());
                    }
                    // The plan for a parameter depends on how often the server has planned it before.
                    let explain = self.rng.random_ratio(1, 15) && args.is_empty();
                    // And on what each host knows of its tables.
                    let explain = match explain && !self.spread {
                        true => "EXPLAIN (COSTS off) ",
                        false => "",
                    };
                    match args.is_empty() {
                        true => format!("{explain}EXECUTE {quoted}"),
                        false => format!("{explain}EXECUTE {quoted} ({})", args.join(", ")),
                    }
                }
                (8, Some(text)) => {
                    self.bind("", name, text);
                    self.execute("", 0);
                    self.sync();
                    continue;
                }
                (9, _) => {
                    self.push(Message::DescribeStatement(name.to_owned()));
                    self.sync();
                    continue;
                }
                (10, Some(_)) => {
                    let function = *[177, 154, 177, 4].choose(&mut self.rng).unwrap();
                    let args = ["7", "2", "0", "x"].choose_multiple(&mut self.rng, 2);
                    let args = args.map(|a| (*a).to_owned()).collect();
                    self.push(Message::FunctionCall(function, args));
                    continue;
                }
                (_, Some(_)) => format!("DEALLOCATE {quoted}"),
            };
            // A deferred constraint that fails is told behind the last tag; PREPARE alone takes no snapshot.
            let other = self.plain();
            let touchy = ["FROM users", "users SET", "ISOLATION", "READ ONLY"];
            let mut texts = self.messages.iter().filter_map(Message::text);
            let is_touchy = |t: &str| touchy.iter().any(|w| t.contains(w));
            if is_touchy(&sql) || is_touchy(&other) || texts.any(is_touchy) {
                self.say(sql);
                continue;
            }
            match self.rng.random_range(0..6) {
                0 => self.query(&format!("{sql}; {other}")),
                1 => self.query(&format!("{other}; {sql}")),
                _ => self.say(sql),
            }
        }
        self.sync();
    }

    /// Runs a statement without parameters.
    fn say(&mut self, sql: String) {
        if self.rng.random_bool(0.6) {
            self.query(&sql);
            return;
        }
        let sql = self.fill(&sql);
        let (name, types) = (String::new(), Vec::new());
        self.push(Message::Parse { name, sql, types });
        self.push(Message::Bind {
            portal: String::new(),
            statement: String::new(),
            formats: Vec::new(),
            params: Vec::new(),
            results: Vec::new(),
        });
        if self.rng.random_bool(0.5) {
            self.push(Message::DescribePortal(String::new()));
        }
        self.execute("", 0);
        if self.rng.random_ratio(2, 3) {
            self.sync();
        }
    }

    /// Whether nothing but queries has been prepared under this name.
    fn always_a_query(&self, name: &str) -> bool {
        self.messages.iter().all(|message| match message {
            Message::Parse {
                name: other, sql, ..
            } => other != name || is_query(sql),
            _ => true,
        })
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

    fn begin(&mut self) -> &'static str {
        match self.spread && self.rng.random_ratio(4, 5) {
            // The others are for one host, as a rule.
            true => "BEGIN",
            false => self.pick(BLOCKS),
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

    fn parse(&mut self, name: &'static str, mut text: Text) {
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

    fn bind(&mut self, portal: &str, name: &str, text: Text) {
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

    fn execute(&mut self, portal: &str, rows: u32) {
        self.push(Message::Execute(portal.to_owned(), rows));
    }

    /// As most drivers do it.
    fn unnamed(&mut self, text: Text) {
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

    /// Named statements and their lifetimes.
    fn statements(&mut self) {
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
    fn portals(&mut self) {
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

    fn cursors(&mut self) {
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

    fn copy(&mut self) {
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
            self.push(Message::Bind {
                portal: String::new(),
                statement: String::new(),
                formats: Vec::new(),
                params: Vec::new(),
                results: Vec::new(),
            });
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

    fn cancel(&mut self) {
        match self.rng.random_range(0..4) {
            0 => {
                self.push(Message::Sync);
                self.push(Message::CancelNothing);
                return;
            }
            1 => self.push(Message::Query(self.fill(LONG))),
            2 => self.push(Message::Query(
                self.fill(&format!("SELECT 1; {LONG}; SELECT 2")),
            )),
            _ => {
                // Nobody waits for it.
                self.pauses = false;
                self.unnamed(Text {
                    sql: LONG,
                    params: &[],
                    columns: 1,
                });
                let text = self.text();
                self.unnamed(text);
                self.push(Message::Sync);
            }
        }
        self.push(Message::Cancel);
    }

    /// Any order, names that are there or not, errors anywhere.
    fn lost(&mut self) {
        for _ in 0..self.rng.random_range(3..15) {
            let name = self.name();
            let portal = self.portal();
            let text = self.any();
            match self.rng.random_range(0..16) {
                0..4 => self.unnamed(text),
                4 => self.parse(name, text),
                5 | 6 => {
                    let (portal, text) = ("y", self.text());
                    self.parse(name, text);
                    self.bind(portal, name, text);
                    self.execute(portal, 1);
                }
                7 => {
                    self.bind("", name, text);
                    self.execute("", 0);
                }
                8 => {
                    let rows = self.rng.random_range(0..3);
                    let portal = self.portal();
                    self.execute(portal, rows);
                }
                9 => self.push(Message::CloseStatement(name.to_owned())),
                10 => self.push(Message::ClosePortal(portal.to_owned())),
                11 => self.push(Message::CloseStatement(name.to_owned())),
                12 => self.flush(),
                13 => {
                    let sql = self.plain();
                    self.query(&sql);
                }
                14 if self.rng.random_ratio(1, 3) => {
                    // No COPY is going on.
                    self.push(Message::CopyData(b"1\n".to_vec()));
                    self.push(Message::CopyDone);
                }
                _ => self.sync(),
            }
        }
        self.sync();
    }
}
