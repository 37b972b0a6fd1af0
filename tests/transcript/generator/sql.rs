//! Phrases of statements prepared by SQL: PREPARE, EXECUTE and DEALLOCATE.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::message::Message;
use super::{Maker, is_query};

impl Maker {
    /// PREPARE, EXECUTE and DEALLOCATE, by either protocol; Bind of what PREPARE has made.
    pub fn sql_prepared(&mut self) {
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
        self.bind_plain();
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
}
