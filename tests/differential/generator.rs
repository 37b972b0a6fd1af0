//! Random statements as apps send them: the parts that reads and writes share. What is chosen depends on the seed alone,
//! never on the lane, except for ids, which carry the lane's shard.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use presplit::shardmap::{KeyValue, ShardMap, id};

use super::tables::{KEYS, Kind, TABLES, Table};
use super::values::{Form, Type, Value};

/// What a statement does to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    Read,
    Write,
    /// BEGIN, SAVEPOINT and so on.
    Control,
}

/// What must be equal of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// ORDER BY leaves no two rows alike.
    Total,
    /// Any order of the same rows.
    Any,
    /// Which rows is the server's choice: as many.
    Count,
}

/// A statement whose values are marks: `\x01N\x01` stands for value number N.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it is an example of.
    pub label: String,
    pub effect: Effect,
    pub text: String,
    pub values: Vec<Value>,
    pub order: Order,
}

/// What is sent at a time: one statement, or a block from BEGIN to its end.
#[derive(Clone, Debug)]
pub struct Unit {
    pub statements: Vec<Statement>,
}

/// Which users a statement is about.
#[derive(Clone, Debug)]
pub enum Scope {
    One(i64),
    Several(Vec<i64>),
    All,
}

impl Scope {
    pub fn name(&self) -> &'static str {
        match self {
            Scope::One(_) => "one key",
            Scope::Several(_) => "several keys",
            Scope::All => "no key",
        }
    }
}

/// A table in FROM, and how its columns are called.
#[derive(Clone, Debug)]
pub struct Item {
    pub table: Table,
    /// `photos AS p`
    pub from: String,
    /// `p.`, or nothing where the statement has no other table.
    pub prefix: String,
}

impl Item {
    pub fn col(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn key(&self) -> String {
        self.col(self.table.key)
    }

    pub fn primary(&self) -> Vec<String> {
        let names = self.table.primary();
        names.into_iter().map(|name| self.col(name)).collect()
    }
}

/// A row to be there at the start.
pub struct Row {
    pub table: Table,
    pub key: i64,
    pub values: Vec<Value>,
}

/// Makes statements.
pub struct Gen<'m> {
    pub rng: StdRng,
    map: &'m ShardMap,
    /// Rows made so far; makes ids unique.
    made: u64,
    /// Photos that were there at some time: user and id.
    pub photos: Vec<(i64, i64)>,
    pub values: Vec<Value>,
    /// The user that a block is about.
    pub of_block: Option<i64>,
}

impl<'m> Gen<'m> {
    pub fn new(seed: u64, map: &'m ShardMap) -> Gen<'m> {
        Gen {
            rng: StdRng::seed_from_u64(seed),
            map,
            made: 0,
            photos: Vec::new(),
            values: Vec::new(),
            of_block: None,
        }
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.rng).unwrap()
    }

    /// One of these, by weight.
    pub fn weighted<T: Copy>(&mut self, of: &[(u32, T)]) -> T {
        let mut at = self.rng.random_range(0..of.iter().map(|(w, _)| w).sum());
        for (weight, what) in of {
            match at.checked_sub(*weight) {
                None => return *what,
                Some(rest) => at = rest,
            }
        }
        unreachable!("less than the sum")
    }

    /// The mark of a value.
    pub fn mark(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("\u{1}{}\u{1}", self.values.len() - 1)
    }

    /// The mark of any value of a type.
    pub fn any(&mut self, of: Type) -> String {
        let value = of.random(&mut self.rng);
        self.mark(value)
    }

    /// The mark of a value for a column.
    pub fn value_for(&mut self, of: Type, nullable: bool) -> String {
        match nullable && self.chance(15) {
            true => self.mark(Value::null(of)),
            false => self.any(of),
        }
    }

    /// The mark of a small count.
    pub fn count(&mut self, most: usize) -> String {
        let n = self.below(most) + 1;
        self.mark(Value::new(Type::Int8, n))
    }

    pub fn random_key(&mut self) -> i64 {
        let any = self.pick(&KEYS);
        let stays = self.chance(90);
        self.of_block.filter(|_| stays).unwrap_or(any)
    }

    /// The mark of a key, of the types that drivers give.
    pub fn key(&mut self, key: i64) -> String {
        let small = i16::try_from(key).is_ok();
        let of = match self.below(20) {
            0..4 if small => Type::Int4,
            4 if small => Type::Int2,
            _ => Type::Key,
        };
        self.mark(Value::new(of, key))
    }

    /// An id of a user that no row has yet.
    pub fn new_id(&mut self, user: i64) -> i64 {
        self.made += 1;
        let parts = id::Parts {
            unix_ms: id::EPOCH_MS + 1_000_000 + self.made,
            shard: self.map.shard_of_key(&KeyValue::Int(user)).unwrap(),
            sequence: (self.made % 1024) as u16,
        };
        let id = id::make(parts).unwrap();
        self.photos.push((user, id));
        id
    }

    /// A photo that is, or was, there.
    pub fn photo(&mut self) -> (i64, i64) {
        let n = self.below(self.photos.len());
        self.photos[n]
    }

    pub fn sharded_table(&mut self) -> Table {
        use super::tables::*;
        self.weighted(&[
            (40, PHOTOS),
            (25, USERS),
            (10, LIKES),
            (10, FOLLOWS),
            (8, ORDERS),
            (7, ALBUMS),
        ])
    }

    /// The table as the only one of a FROM.
    pub fn alone(&mut self, table: Table) -> Item {
        match self.below(10) {
            0..4 => self.named(table, ""),
            4..6 => self.named(table, table.name),
            6..9 => self.named(table, "t"),
            _ => self.named(table, "\"My Rows\""),
        }
    }

    /// The table under a name; without one its columns stand alone.
    pub fn named(&mut self, table: Table, alias: &str) -> Item {
        let name = match self.chance(5) && !table.name.starts_with('"') {
            true => format!("\"{}\"", table.name),
            false => table.name.to_owned(),
        };
        let from = match alias {
            "" => name,
            _ if alias == table.name => name,
            _ if self.chance(50) => format!("{name} {alias}"),
            _ => format!("{name} AS {alias}"),
        };
        let prefix = match alias {
            "" => String::new(),
            _ => format!("{alias}."),
        };
        Item {
            table,
            from,
            prefix,
        }
    }

    /// Most have a key, a fifth none; in a block about one user nearly all have that key.
    pub fn scope(&mut self) -> Scope {
        if let Some(key) = self.of_block
            && self.chance(80)
        {
            return Scope::One(key);
        }
        match self.below(100) {
            0..62 => Scope::One(self.random_key()),
            62..80 => {
                let n = self.below(4) + 2;
                Scope::Several((0..n).map(|_| self.random_key()).collect())
            }
            _ => Scope::All,
        }
    }

    /// The condition that says the scope, if it says one.
    pub fn within(&mut self, scope: &Scope, column: &str) -> Option<String> {
        match scope {
            Scope::One(key) => Some(self.within_one(*key, column)),
            Scope::Several(keys) => Some(self.within_several(keys, column)),
            Scope::All => None,
        }
    }

    fn within_one(&mut self, key: i64, column: &str) -> String {
        let v = self.key(key);
        match self.below(100) {
            0..72 => format!("{column} = {v}"),
            72..78 => format!("{v} = {column}"),
            78..83 => format!("{column} IN ({v})"),
            83..88 => {
                let array = self.mark(Value::array(Type::Int8s, [key]));
                format!("{column} = ANY ({array})")
            }
            88..90 => format!("({column} = {v} AND {column} = {v})"),
            90..92 => format!("({column}) = ({v})"),
            92..94 => format!("({column} = {v} OR {column} = {v})"),
            94..95 => format!("{column}::bigint = {v}"),
            95..96 => format!("{column} = (SELECT {v}::bigint)"),
            96..97 => format!("{column} = {v}::bigint + 0"),
            97..98 => format!("NOT ({column} <> {v})"),
            98..99 => format!("{column} BETWEEN {v} AND {v}"),
            _ => {
                let null = self.mark(Value::null(Type::Key));
                format!("{column} = {null}")
            }
        }
    }

    fn within_several(&mut self, keys: &[i64], column: &str) -> String {
        let array = |g: &mut Self| {
            let mut array = Value::array(Type::Int8s, keys.iter().copied());
            if let (Form::Array(elements), true) = (&mut array.form, g.chance(10)) {
                elements.push(None);
            }
            g.mark(array)
        };
        match self.below(100) {
            0..45 => {
                let list: Vec<String> = keys.iter().map(|key| self.key(*key)).collect();
                format!("{column} IN ({})", list.join(", "))
            }
            45..80 => format!("{column} = ANY ({})", array(self)),
            80..85 => {
                let list: Vec<String> = keys.iter().map(|key| self.key(*key)).collect();
                format!("{column} = ANY (ARRAY[{}]::bigint[])", list.join(", "))
            }
            85..97 => {
                let list: Vec<String> = keys
                    .iter()
                    .map(|key| format!("{column} = {}", self.key(*key)))
                    .collect();
                format!("({})", list.join(" OR "))
            }
            _ => {
                let list: Vec<String> = keys
                    .iter()
                    .map(|key| format!("({})", self.key(*key)))
                    .collect();
                format!("{column} IN (VALUES {})", list.join(", "))
            }
        }
    }

    /// Any condition about one row.
    pub fn predicate(&mut self, item: &Item) -> String {
        let column = self.pick(item.table.others);
        let c = item.col(column.name);
        if self.chance(8) {
            return format!("{c} IS {}NULL", self.pick(&["", "NOT "]));
        }
        let v = self.any(column.of);
        let plain = match column.of {
            of if of.is_number() => match self.below(8) {
                0 => format!("{c} BETWEEN {v} AND {}", self.any(of)),
                1 => format!("{c} IN ({v}, {})", self.any(of)),
                2 => format!("{c} + 1 > {v}"),
                3 => format!("coalesce({c}, 0) <> {v}"),
                _ => format!("{c} {} {v}", self.pick(&["=", "<>", "<", ">", "<=", ">="])),
            },
            Type::Text => match self.below(8) {
                0 => format!("{c} LIKE {}", self.mark(Value::new(Type::Text, "%e%"))),
                1 => format!("{c} ILIKE 'HO%'"),
                2 => format!("length({c}) > 3"),
                3 => format!("lower({c}) = {v}"),
                4 => format!("{c} NOT IN ({v}, {})", self.any(Type::Text)),
                5 => format!("{c} ~ '^[a-m]'"),
                6 => format!("{c} || 'x' = {v}"),
                _ => format!("{c} {} {v}", self.pick(&["=", "<>", "<", ">"])),
            },
            Type::Bool => match self.below(5) {
                0 => c,
                1 => format!("NOT {c}"),
                2 => format!("{c} IS NOT TRUE"),
                3 => format!("{c} IS DISTINCT FROM {v}"),
                _ => format!("{c} = {v}"),
            },
            Type::Date => match self.below(4) {
                0 => format!("extract(year FROM {c}) > 2010"),
                1 => format!("{c} < {v}::date + interval '3 years'"),
                _ => format!("{c} {} {v}", self.pick(&["=", "<", ">="])),
            },
            Type::Timestamptz => match self.below(3) {
                0 => format!("{c}::date > DATE '2010-05-05'"),
                _ => format!("{c} {} {v}", self.pick(&["<", ">="])),
            },
            Type::Jsonb => match self.below(4) {
                0 => format!("{c} ->> 'a' = '1'"),
                1 => format!("{c} @> {v}"),
                2 => format!("{c} ? 'b'"),
                _ => format!("jsonb_typeof({c}) = 'object'"),
            },
            Type::Texts => match self.below(3) {
                0 => format!("{} = ANY ({c})", self.any(Type::Text)),
                1 => format!("cardinality({c}) > 1"),
                _ => format!("{c} && {v}"),
            },
            Type::Int8s => format!("{c} @> {v}"),
            _ => format!("{c} {} {v}", self.pick(&["=", "<>", "="])),
        };
        match self.below(20) {
            0 => format!("NOT ({plain})"),
            1 => format!("({plain} OR {})", self.predicate(item)),
            2 => format!("CASE WHEN {plain} THEN true ELSE false END"),
            _ => plain,
        }
    }

    /// Conditions that go with the scope's.
    pub fn predicates(&mut self, item: &Item) -> Vec<String> {
        let n = self.weighted(&[(50, 0), (35, 1), (15, 2)]);
        (0..n).map(|_| self.predicate(item)).collect()
    }

    /// `WHERE` with all of these, or nothing.
    pub fn filter(&mut self, mut conditions: Vec<String>) -> String {
        if conditions.len() > 1 && self.chance(30) {
            conditions.rotate_left(1);
        }
        match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        }
    }

    /// Any expression over one row.
    pub fn expression(&mut self, item: &Item) -> String {
        let column = self.pick(item.table.others);
        let c = item.col(column.name);
        if self.chance(12) {
            return match self.below(3) {
                0 => format!(
                    "CASE WHEN {} THEN 'yes' ELSE 'no' END",
                    self.predicate(item)
                ),
                1 => format!("{c} IS NULL"),
                _ => format!("coalesce({c}::text, '-')"),
            };
        }
        match column.of {
            Type::Float8 | Type::Numeric => format!("{c} {} 2", self.pick(&["+", "*", "-"])),
            of if of.is_number() => format!("{c} {} 2", self.pick(&["+", "*", "%", "/"])),
            Type::Text => match self.below(4) {
                0 => format!("upper({c})"),
                1 => format!("{c} || {}::text", self.any(Type::Text)),
                2 => format!("length({c})"),
                _ => format!("substring({c} FROM 1 FOR 2)"),
            },
            Type::Date => format!("to_char({c}, 'YYYY-MM')"),
            Type::Timestamptz => format!("date_trunc('month', {c})"),
            Type::Jsonb => format!("{c} -> 'a'"),
            Type::Texts | Type::Int8s => format!("{c}[1]"),
            Type::Bool => format!("NOT {c}"),
            _ => c,
        }
    }

    /// What is made of the text and the values marked since the last statement.
    pub fn statement(
        &mut self,
        label: String,
        effect: Effect,
        order: Order,
        text: String,
    ) -> Statement {
        Statement {
            label,
            effect,
            text,
            values: std::mem::take(&mut self.values),
            order,
        }
    }

    /// A full row of a table with this key.
    pub fn row(&mut self, table: Table, key: i64) -> Vec<Value> {
        let mut row = vec![Value::new(table.key_type(), key)];
        for column in table.columns().iter().skip(1) {
            row.push(match column.of {
                Type::Id => Value::new(Type::Id, self.new_id(key)),
                of if column.nullable && self.chance(20) => Value::null(of),
                of => of.random(&mut self.rng),
            });
        }
        row
    }

    /// The rows that all is about at the start.
    pub fn first_rows(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        for table in TABLES {
            let mut add = |key: i64, values: Vec<Value>| {
                let width = table.unique.len() + 1;
                let twice = rows.iter().any(|r: &Row| {
                    r.table.name == table.name && r.values[..width] == values[..width]
                });
                if !twice {
                    rows.push(Row { table, key, values });
                }
            };
            match table.kind {
                Kind::Reference => {
                    for code in &super::tables::CODES[..5] {
                        let mut values = self.row(table, 0);
                        values[0] = Value::new(Type::Country, code);
                        add(0, values);
                    }
                }
                Kind::Unsharded => {
                    for n in 0..8 {
                        let values = self.row(table, n);
                        add(n, values);
                    }
                }
                Kind::Sharded => {
                    for key in &KEYS[..18] {
                        let n = if table.name == "users" {
                            1
                        } else {
                            self.below(7)
                        };
                        for _ in 0..n {
                            let values = self.row(table, *key);
                            add(*key, values);
                        }
                    }
                }
            }
        }
        rows
    }
}
