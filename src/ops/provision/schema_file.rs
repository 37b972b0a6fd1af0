//! The SQL file of an app's tables: split into statements, each with the place where it belongs (the shards, `public` of
//! every host or of one). Plain DDL without schema names; what can't be placed is a fault, never guessed.

use std::collections::{BTreeMap, HashMap};

use crate::shardmap::{Kind, TableRule};
use crate::sql::shape::{Shape, ShapeFault};
use crate::sql::token::{Token, TokenKind, Tokens, ident_value};

/// Which hosts have a thing in their `public`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Public {
    /// Every host.
    EveryHost,
    /// The host of this name.
    Host(String),
}

/// Where a statement is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// In the schema of each shard.
    pub shards: bool,
    /// In `public`.
    pub public: Option<Public>,
}

impl Place {
    const SHARDS: Place = Place {
        shards: true,
        public: None,
    };
    const EVERY_PUBLIC: Place = Place {
        shards: false,
        public: Some(Public::EveryHost),
    };

    /// Whether this place includes `public` of the host of this name.
    pub fn public_of(&self, host: &str) -> bool {
        match &self.public {
            None => false,
            Some(Public::EveryHost) => true,
            Some(Public::Host(name)) => name == host,
        }
    }
}

/// One statement of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Line of its first word, counted from 1.
    pub line: usize,
    /// Its text without the semicolon.
    pub text: String,
    /// What it is about, for reports: `table photos`.
    pub label: String,
    /// Where it belongs.
    pub place: Place,
    /// `CREATE EXTENSION` of this name, which is once in a database whatever its schema.
    pub extension: Option<String>,
    /// Changes, or is of no use without, the thing of this name that another statement makes.
    pub about: Option<String>,
}

/// Splits and places a file's statements. Every fault is found at once, each as `line N: ...` with the mend.
pub fn read(sql: &str, rules: &BTreeMap<String, TableRule>) -> Result<Vec<Statement>, Vec<String>> {
    let text = sql.as_bytes();
    let mut shape = Shape::default();
    if let Err(ShapeFault::Unterminated { at }) = shape.scan(text) {
        let line = line_of(text, at as usize);
        return Err(vec![format!(
            "line {line}: this quote, string or comment does not end"
        )]);
    }
    let mut faults = Vec::new();
    let mut parts = Vec::new();
    for piece in shape.pieces(text) {
        let tokens: Vec<Token> = Tokens::within(text, &shape.holes, piece.clone()).collect();
        let line = line_of(text, tokens.first().map_or(piece.start, |t| t.span.start));
        match (Words {
            text,
            tokens: &tokens,
            at: 0,
        })
        .head()
        {
            Ok(head) => parts.push(Part {
                line,
                text: sql[piece].to_owned(),
                head,
                place: None,
            }),
            Err(why) => faults.push((line, why)),
        }
    }
    place_all(&mut parts, rules, &mut faults);
    if !faults.is_empty() {
        faults.sort();
        return Err(faults
            .into_iter()
            .map(|(line, why)| format!("line {line}: {why}"))
            .collect());
    }
    let statement = |part: Part| {
        let label = part.head.label();
        let extension = label.strip_prefix("extension ").map(str::to_owned);
        let about = match part.head {
            Head::Index { table, .. } => Some(table),
            Head::About { name, .. } => Some(name),
            _ => None,
        };
        part.place.map(|place| Statement {
            line: part.line,
            text: part.text,
            label,
            place,
            extension,
            about,
        })
    };
    Ok(parts.into_iter().filter_map(statement).collect())
}

fn line_of(text: &[u8], at: usize) -> usize {
    1 + text[..at].iter().filter(|b| **b == b'\n').count()
}

/// A statement on its way to a place.
struct Part {
    line: usize,
    text: String,
    head: Head,
    place: Option<Place>,
}

/// What a statement's first words say.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// Makes a table or view; `parent` is the table that it is a partition of.
    Relation {
        kind: &'static str,
        name: String,
        parent: Option<String>,
    },
    Index {
        name: Option<String>,
        table: String,
    },
    /// `owner` is the table of `OWNED BY`.
    Sequence {
        name: String,
        owner: Option<String>,
    },
    Routine {
        name: String,
    },
    /// A type, domain, extension ...: once per host, in `public`.
    Global {
        what: String,
    },
    /// Is about a relation, routine or type that another statement makes.
    About {
        verb: String,
        name: String,
        routine: bool,
    },
}

impl Head {
    fn label(&self) -> String {
        match self {
            Head::Relation { kind, name, .. } => format!("{kind} {name}"),
            Head::Index {
                name: Some(name), ..
            } => format!("index {name}"),
            Head::Index { name: None, table } => format!("index on {table}"),
            Head::Sequence { name, .. } => format!("sequence {name}"),
            Head::Routine { name } => format!("function {name}"),
            Head::Global { what } => what.clone(),
            Head::About { verb, name, .. } => format!("{verb} {name}"),
        }
    }
}

/// Gives each part its place. Relations follow the map's `[tables]`, what belongs to a relation goes where that is, and
/// sequences and routines go where they are used.
fn place_all(
    parts: &mut [Part],
    rules: &BTreeMap<String, TableRule>,
    faults: &mut Vec<(usize, String)>,
) {
    let mut known: HashMap<String, Place> = HashMap::new();
    for part in parts.iter_mut() {
        let place = match &part.head {
            Head::Relation { name, parent, .. } => match parent.as_ref().and_then(|p| known.get(p))
            {
                Some(place) => place.clone(),
                None => by_rule(rules.get(name)),
            },
            Head::Index { table, .. } => match known.get(table) {
                Some(place) => place.clone(),
                None => continue,
            },
            Head::Global { .. } => Place::EVERY_PUBLIC,
            _ => continue,
        };
        if let Head::Relation { name, .. }
        | Head::Index {
            name: Some(name), ..
        } = &part.head
        {
            known.insert(name.clone(), place.clone());
        }
        if let Head::Global { what } = &part.head {
            known.insert(
                what.rsplit(' ').next().unwrap_or_default().to_owned(),
                place.clone(),
            );
        }
        part.place = Some(place);
    }
    let uses: Vec<(Place, String)> = parts
        .iter()
        .filter_map(|p| Some((p.place.clone()?, p.text.to_ascii_lowercase())))
        .chain(abouts(parts, &known))
        .collect();
    for part in parts.iter_mut() {
        let (key, place) = match &part.head {
            Head::Sequence { name, owner } => {
                let owned = owner.as_ref().and_then(|table| known.get(table)).cloned();
                let ruled = rules.get(name).map(|rule| by_rule(Some(rule)));
                (
                    name.clone(),
                    owned
                        .or(ruled)
                        .unwrap_or_else(|| by_use(name, &uses, false)),
                )
            }
            Head::Routine { name } => (format!("{name}()"), by_use(name, &uses, true)),
            _ => continue,
        };
        // Overloads of a name stay together, wherever one of them is used.
        known.entry(key).or_insert_with(|| place.clone());
        part.place = Some(place);
    }
    for part in parts.iter_mut().filter(|p| p.place.is_none()) {
        let key = match &part.head {
            Head::Index { table, .. } => table.clone(),
            Head::About {
                name,
                routine: true,
                ..
            } => format!("{name}()"),
            Head::About { name, .. } => name.clone(),
            _ => continue,
        };
        part.place = known.get(&key).cloned();
        if part.place.is_none() {
            faults.push((part.line, format!("{key} is not made by any statement of this file, so where this belongs is not known")));
        }
    }
}

/// Statements about known relations count as uses too: `CREATE TRIGGER ... ON invoices EXECUTE FUNCTION f()`.
fn abouts<'p>(
    parts: &'p [Part],
    known: &'p HashMap<String, Place>,
) -> impl Iterator<Item = (Place, String)> + 'p {
    parts.iter().filter_map(|part| match &part.head {
        Head::About {
            name,
            routine: false,
            ..
        } => Some((known.get(name)?.clone(), part.text.to_ascii_lowercase())),
        _ => None,
    })
}

fn by_rule(rule: Option<&TableRule>) -> Place {
    match rule.and_then(|rule| rule.kind.map(|kind| (kind, &rule.host))) {
        Some((Kind::Reference, _)) => Place::EVERY_PUBLIC,
        Some((Kind::Unsharded, Some(host))) => Place {
            shards: false,
            public: Some(Public::Host(host.clone())),
        },
        Some((Kind::Unsharded, None)) => Place::EVERY_PUBLIC,
        _ => Place::SHARDS,
    }
}

/// The place of a sequence or routine from the statements that name it. A routine may stand in both; a sequence goes to
/// `public` only if nothing in the shards names it.
fn by_use(name: &str, uses: &[(Place, String)], both: bool) -> Place {
    let mut place = Place {
        shards: false,
        public: None,
    };
    for (at, _) in uses.iter().filter(|(_, text)| names(text, name)) {
        place.shards |= at.shards;
        place.public = match (place.public, &at.public) {
            (None, public) => public.clone(),
            (Some(had), Some(public)) if had != *public => Some(Public::EveryHost),
            (had, _) => had,
        };
    }
    if both || place.public.is_none() {
        place.shards = true;
    }
    if place.shards && !both {
        place.public = None;
    }
    place
}

/// Whether `text` (lower case) holds `name` as a whole word, be it in a string.
fn names(text: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    text.match_indices(&name).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(part_of_word)
            && !text[at + name.len()..]
                .chars()
                .next()
                .is_some_and(part_of_word)
    })
}

const NOT_OURS: &str = "only plain DDL (CREATE, ALTER, COMMENT, GRANT, REVOKE on an app's own objects) can be provisioned; leave this statement out";

/// Reads a statement's first words.
struct Words<'t> {
    text: &'t [u8],
    tokens: &'t [Token],
    at: usize,
}

impl Words<'_> {
    fn head(&mut self) -> Result<Head, String> {
        if self.eat("create") {
            return self.create();
        }
        for verb in ["alter", "comment", "grant", "revoke"] {
            if self.eat(verb) {
                return self.about(verb);
            }
        }
        Err(NOT_OURS.to_owned())
    }

    fn create(&mut self) -> Result<Head, String> {
        self.eat_all(&["or", "replace"]);
        if self.eat("global") || self.eat("local") || self.eat("temp") || self.eat("temporary") {
            return Err("a temporary table lives in a session only; leave it out".to_owned());
        }
        for word in [
            "unlogged",
            "unique",
            "recursive",
            "materialized",
            "foreign",
            "constraint",
            "trusted",
        ] {
            self.eat(word);
        }
        if self.eat("table") {
            let name = self.created_name()?;
            let parent = if self.eat_all(&["partition", "of"]) {
                Some(self.name()?)
            } else {
                None
            };
            return Ok(Head::Relation {
                kind: "table",
                name,
                parent,
            });
        }
        if self.eat("view") {
            return Ok(Head::Relation {
                kind: "view",
                name: self.created_name()?,
                parent: None,
            });
        }
        if self.eat("index") {
            return self.create_index();
        }
        if self.eat("sequence") {
            let name = self.created_name()?;
            return Ok(Head::Sequence {
                name,
                owner: self.owned_by()?,
            });
        }
        if self.eat("function") || self.eat("procedure") || self.eat("aggregate") {
            return Ok(Head::Routine { name: self.name()? });
        }
        for kind in ["trigger", "policy", "rule", "statistics"] {
            if self.eat(kind) {
                let relation_word = match kind {
                    "rule" => "to",
                    "statistics" => "from",
                    _ => "on",
                };
                return self.about_after(relation_word, kind);
            }
        }
        for kind in ["type", "domain", "extension", "collation"] {
            if self.eat(kind) {
                let name = self.created_name()?;
                return Ok(Head::Global {
                    what: format!("{kind} {name}"),
                });
            }
        }
        Err(NOT_OURS.to_owned())
    }

    fn create_index(&mut self) -> Result<Head, String> {
        if self.eat("concurrently") {
            return Err("CONCURRENTLY can't run inside the transaction that makes a shard; leave the word out (the tables are new and empty)".to_owned());
        }
        let name = if self.eat("on") {
            None
        } else {
            let name = self.created_name()?;
            if !self.eat("on") {
                return Err("CREATE INDEX without ON".to_owned());
            }
            Some(name)
        };
        self.eat("only");
        Ok(Head::Index {
            name,
            table: self.name()?,
        })
    }

    /// ALTER, COMMENT ON, GRANT, REVOKE.
    fn about(&mut self, verb: &str) -> Result<Head, String> {
        match verb {
            "alter" => {}
            _ => {
                while !self.eat("on") {
                    if self.next().is_none() {
                        return Err(NOT_OURS.to_owned());
                    }
                }
            }
        }
        for kind in ["trigger", "constraint", "policy", "rule"] {
            if self.eat(kind) {
                return self.about_after("on", verb);
            }
        }
        let routine = self.eat("function")
            || self.eat("procedure")
            || self.eat("routine")
            || self.eat("aggregate");
        let column = self.eat("column");
        if !routine && !column {
            if self.eat("schema")
                || self.eat("all")
                || self.eat("database")
                || self.eat("role")
                || self.eat("default")
            {
                return Err(
                    "schemas are presplit's to make: say it of tables by their names".to_owned(),
                );
            }
            self.eat("materialized");
            for kind in [
                "table",
                "view",
                "index",
                "sequence",
                "type",
                "domain",
                "extension",
                "foreign",
            ] {
                self.eat(kind);
            }
        }
        self.eat_all(&["if", "exists"]);
        self.eat("only");
        let name = if column {
            self.first_name()?
        } else {
            self.name()?
        };
        // A sequence that is given to a table goes where the table is.
        let name = self.owned_by()?.unwrap_or(name);
        Ok(Head::About {
            verb: verb.to_owned(),
            name,
            routine,
        })
    }

    /// The relation named after `word` is the one that the statement is about.
    fn about_after(&mut self, word: &str, verb: &str) -> Result<Head, String> {
        while !self.eat(word) {
            if self.next().is_none() {
                return Err(format!(
                    "{} without {}",
                    verb.to_uppercase(),
                    word.to_uppercase()
                ));
            }
        }
        self.eat("only");
        Ok(Head::About {
            verb: verb.to_owned(),
            name: self.name()?,
            routine: false,
        })
    }

    /// The table of `OWNED BY table.column`, wherever that comes.
    fn owned_by(&mut self) -> Result<Option<String>, String> {
        let from = self.at;
        while self.at < self.tokens.len() {
            if self.eat_all(&["owned", "by"]) {
                if self.eat("none") {
                    return Ok(None);
                }
                return self.first_name().map(Some);
            }
            self.at += 1;
        }
        self.at = from;
        Ok(None)
    }

    fn created_name(&mut self) -> Result<String, String> {
        self.eat_all(&["if", "not", "exists"]);
        self.name()
    }

    /// A name that must stand alone: with a schema in front it would not go where the map says.
    fn name(&mut self) -> Result<String, String> {
        let name = self.first_name()?;
        match self.tokens.get(self.at) {
            Some(token) if token.is_punct(self.text, b'.') => Err(format!(
                "{name}. in front of a name: leave it out, the map decides which schema this goes to"
            )),
            _ => Ok(name),
        }
    }

    /// A name, or the first part of one with dots.
    fn first_name(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token {
                kind: TokenKind::Word | TokenKind::QuotedIdent,
                span,
            }) => Ok(ident_value(self.text, span).into_owned()),
            _ => Err("a name is missing".to_owned()),
        }
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn eat(&mut self, word: &str) -> bool {
        self.eat_all(&[word])
    }

    fn eat_all(&mut self, words: &[&str]) -> bool {
        let there = self.tokens.get(self.at..self.at + words.len());
        let eaten = there.is_some_and(|tokens| {
            tokens
                .iter()
                .zip(words)
                .all(|(t, w)| t.is_word(self.text, w))
        });
        if eaten {
            self.at += words.len();
        }
        eaten
    }
}

#[cfg(test)]
mod tests;
