//! Random reads in the styles of ORMs, and what is sent now and then.

use super::generator::{Effect, Gen, Item, Order, Scope, Statement};
use super::tables::*;
use super::values::{Type, Value};

impl Gen<'_> {
    /// What ORMs and query builders make of one table, in their styles of quoting.
    pub fn as_orms_write(&mut self) -> Statement {
        let (table, scope) = (
            self.pick(&[PHOTOS, PHOTOS, USERS, LIKES, FOLLOWS]),
            self.scope(),
        );
        let quoted = Item {
            table,
            from: format!("\"{}\"", table.name),
            prefix: format!("\"{}\".", table.name),
        };
        let quote = |name: &str| format!("\"{}\".\"{name}\"", table.name);
        let key = quote(table.key);
        let mut conditions: Vec<String> = self.within(&scope, &key).into_iter().collect();
        conditions.extend(self.predicates(&quoted));
        let filter = self.filter(conditions);
        let primary: Vec<String> = table.primary().iter().map(|c| quote(c)).collect();
        let columns: Vec<String> = table.columns().iter().map(|c| quote(c.name)).collect();
        let (columns, total) = (columns.join(", "), primary.join(" DESC, "));
        let from = &quoted.from;
        let (style, order, text) = match self.below(12) {
            0..2 => {
                let n = self.count(21);
                (
                    "Django list",
                    Order::Total,
                    format!("SELECT {columns} FROM {from}{filter} ORDER BY {total} DESC LIMIT {n}"),
                )
            }
            2 => (
                "Django count",
                Order::Total,
                format!("SELECT COUNT(*) AS \"__count\" FROM {from}{filter}"),
            ),
            3 => (
                "Django exists",
                Order::Total,
                format!("SELECT (1) AS \"a\" FROM {from}{filter} LIMIT 1"),
            ),
            4 => (
                "Rails exists",
                Order::Total,
                format!(
                    "SELECT 1 AS one FROM {from}{filter} LIMIT {}",
                    self.mark(Value::new(Type::Int8, 1))
                ),
            ),
            5 => (
                "SELECT EXISTS",
                Order::Total,
                format!("SELECT EXISTS (SELECT 1 FROM {from}{filter}) AS there"),
            ),
            6 => {
                let public = format!("\"public\".\"{}\"", table.name);
                let filter = filter.replace(from, &public);
                let total = total.replace(from, &public);
                let columns = columns.replace(from, &public);
                (
                    "Prisma list",
                    Order::Total,
                    format!(
                        "SELECT {columns} FROM {public}{filter} ORDER BY {total} ASC LIMIT {} OFFSET {}",
                        self.count(10),
                        self.mark(Value::new(Type::Int8, 0))
                    ),
                )
            }
            7 => {
                let item = Item {
                    table,
                    from: format!("{} p1_0", table.name),
                    prefix: "p1_0.".to_owned(),
                };
                let n = self.count(10);
                let mut conditions: Vec<String> =
                    self.within(&scope, &item.key()).into_iter().collect();
                conditions.extend(self.predicates(&item));
                let filter = self.filter(conditions);
                (
                    "Hibernate list",
                    Order::Total,
                    format!(
                        "select {} from {}{filter} order by {} fetch first {n} rows only",
                        item.primary().join(","),
                        item.from,
                        item.primary().join(",")
                    ),
                )
            }
            8 => {
                let time = self.any(Type::Timestamptz);
                let last = self.any(Type::Int8);
                let (by, id) = match table.name {
                    "photos" | "users" => (quote("created_at"), quote("id")),
                    _ => (key.clone(), primary[1].clone()),
                };
                let than = match by == key {
                    true => format!("({by}, {id}) > ({last}, {last})"),
                    false => format!("({by}, {id}) < ({time}, {last})"),
                };
                let more = if filter.is_empty() {
                    " WHERE "
                } else {
                    " AND "
                };
                (
                    "keyset page",
                    Order::Total,
                    format!(
                        "SELECT {} FROM {from}{filter}{more}{than} ORDER BY {by} DESC, {id} DESC, {total} LIMIT {}",
                        primary.join(", "),
                        self.count(10)
                    ),
                )
            }
            9 => (
                "ORDER BY alias",
                Order::Total,
                format!(
                    "SELECT {} AS k, {} AS n FROM {from}{filter} ORDER BY n DESC, k, {}",
                    key,
                    primary.last().unwrap(),
                    primary.join(", ")
                ),
            ),
            10 => {
                let column = self.pick(table.others).name;
                let c = quote(column);
                (
                    "ORDER BY expression",
                    Order::Total,
                    format!(
                        "SELECT {} FROM {from}{filter} ORDER BY {c} IS NULL, lower({c}::text) DESC, {}",
                        primary.join(", "),
                        primary.join(", ")
                    ),
                )
            }
            _ => {
                let column = self.pick(table.others).name;
                (
                    "count by column",
                    Order::Total,
                    format!(
                        "SELECT {c}, COUNT(*) AS \"count\" FROM {from}{filter} GROUP BY {c} ORDER BY \"count\" DESC, {c} ASC",
                        c = quote(column)
                    ),
                )
            }
        };
        self.read_of(style, &scope, order, text)
    }

    /// Tables that are not sharded, alone and with one that is.
    pub fn beside(&mut self) -> Statement {
        let scope = Scope::One(self.random_key());
        match self.below(5) {
            0..2 => {
                let item = self.alone(COUNTRIES);
                let columns = self.columns(&item);
                let conditions = self.predicates(&item);
                let filter = self.filter(conditions);
                let end = self.end(&[&item], item.primary());
                let text = format!("SELECT {columns} FROM {}{filter}{}", item.from, end.text);
                self.statement("reference table".to_owned(), Effect::Read, end.order, text)
            }
            2..4 => {
                let item = self.alone(INVOICES);
                let columns = self.columns(&item);
                let mut conditions = self.predicates(&item);
                conditions.extend(self.within(&scope, &item.col("user_id")));
                let filter = self.filter(conditions);
                let end = self.end(&[&item], item.primary());
                let text = format!("SELECT {columns} FROM {}{filter}{}", item.from, end.text);
                self.statement("unsharded table".to_owned(), Effect::Read, end.order, text)
            }
            _ => {
                let filter = self.within(&scope, "u.id").unwrap();
                let text = format!(
                    "SELECT u.name, i.cents FROM users u JOIN invoices i ON i.user_id = u.id WHERE {filter}"
                );
                self.read_of("sharded with unsharded", &scope, Order::Any, text)
            }
        }
    }

    /// What apps and people send now and then, errors among it.
    pub fn odd(&mut self) -> Statement {
        let key = self.random_key();
        let scope = Scope::One(key);
        let v = self.key(key);
        let (label, order, text) = match self.below(16) {
            0 => (
                "no table",
                Order::Total,
                "SELECT 1 AS one, 'x'::text, NULL, true".to_owned(),
            ),
            1 => (
                "no table",
                Order::Total,
                format!("SELECT {v}::bigint + 1, {}::text", self.any(Type::Text)),
            ),
            2 => ("VALUES", Order::Any, format!("VALUES (1, 'a'), ({v}, 'b')")),
            3 => (
                "undefined column",
                Order::Any,
                format!("SELECT nope FROM photos WHERE user_id = {v}"),
            ),
            4 => (
                "undefined table",
                Order::Any,
                format!("SELECT * FROM nope WHERE user_id = {v}"),
            ),
            5 => (
                "division by zero",
                Order::Any,
                format!("SELECT 1 / (age - age) FROM users WHERE id = {v} AND age IS NOT NULL"),
            ),
            6 => (
                "bad cast",
                Order::Any,
                format!("SELECT name::integer FROM users WHERE id = {v} AND name = 'sea'"),
            ),
            7 => (
                "syntax error",
                Order::Any,
                format!("SELECT FROM WHERE photos user_id = {v}"),
            ),
            8 => (
                "undefined function",
                Order::Any,
                format!("SELECT nope(id) FROM users WHERE id = {v}"),
            ),
            9 => (
                "ONLY",
                Order::Any,
                format!(
                    "SELECT * FROM ONLY photos WHERE user_id = {v} /* a comment; 'with quote */"
                ),
            ),
            10 => ("TABLE", Order::Any, "TABLE countries".to_owned()),
            11 => (
                "row value",
                Order::Any,
                format!("SELECT p FROM photos p WHERE user_id = {v}"),
            ),
            12 => (
                "json",
                Order::Any,
                format!(
                    "SELECT row_to_json(u) FROM (SELECT id, name, tags FROM users WHERE id = {v}) u"
                ),
            ),
            13 => (
                "series",
                Order::Any,
                format!(
                    "SELECT g, count(p.id) FROM generate_series(1, 3) g LEFT JOIN photos p ON p.user_id = {v} AND p.likes > g GROUP BY g"
                ),
            ),
            14 => {
                let other = self.random_key();
                let other = self.key(other);
                (
                    "two users",
                    Order::Any,
                    format!(
                        "SELECT a.name, b.name FROM users a, users b WHERE a.id = {v} AND b.id = {other}"
                    ),
                )
            }
            _ => (
                "recursive",
                Order::Any,
                format!(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i, u.name FROM n JOIN users u ON u.id = {v}"
                ),
            ),
        };
        self.read_of(label, &scope, order, text)
    }
}
