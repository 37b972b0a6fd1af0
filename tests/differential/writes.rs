//! Random writes, and blocks of statements from BEGIN to their end.

use super::generator::{Effect, Gen, Item, Order, Scope, Statement, Unit};
use super::tables::*;
use super::values::{Type, Value};

impl Gen<'_> {
    /// What is sent next.
    pub fn unit(&mut self) -> Unit {
        match self.below(100) {
            0..55 => Unit {
                statements: vec![self.read()],
            },
            55..90 => Unit {
                statements: vec![self.write()],
            },
            _ => self.block(),
        }
    }

    pub fn write(&mut self) -> Statement {
        let make = self.weighted::<fn(&mut Self) -> Statement>(&[
            (30, Self::insert_row),
            (14, Self::insert_rows),
            (12, Self::upsert),
            (22, Self::update),
            (7, Self::update_by_id),
            (11, Self::delete),
            (3, Self::update_from),
            (3, Self::delete_using),
            (4, Self::insert_select),
            (2, Self::merge),
            (3, Self::writing_cte),
            (2, Self::write_reference),
            (4, Self::write_unsharded),
            (3, Self::faulty_write),
        ]);
        make(self)
    }

    fn write_of(&mut self, label: &str, scope: &Scope, order: Order, text: String) -> Statement {
        let label = match scope {
            Scope::All => format!("{label}, no key"),
            scope => format!("{label}, {}", scope.name()),
        };
        self.statement(label, Effect::Write, order, text)
    }

    /// Whom a write is about: mostly one.
    fn write_scope(&mut self) -> Scope {
        let key = self.random_key();
        match self.below(100) {
            0..88 => Scope::One(key),
            88..97 => {
                let other = self.random_key();
                Scope::Several(vec![key, other])
            }
            _ => Scope::All,
        }
    }

    fn write_conditions(&mut self, scope: &Scope, item: &Item) -> Vec<String> {
        let mut conditions: Vec<String> = self.within(scope, &item.key()).into_iter().collect();
        if self.chance(70) {
            conditions.push(self.predicate(item));
        }
        conditions
    }

    fn returning(&mut self, item: &Item) -> String {
        match self.below(10) {
            0..5 => String::new(),
            5..7 => " RETURNING *".to_owned(),
            7 => format!(
                " RETURNING {} AS key, {}",
                item.key(),
                self.expression(item)
            ),
            _ => format!(" RETURNING {}", item.primary().join(", ")),
        }
    }

    /// The column list and one VALUES row for each key: rows of new photos, of anything else maybe there already.
    fn rows_for(&mut self, table: Table, keys: &[i64]) -> (String, Vec<String>) {
        let columns = table.columns();
        let width = table.unique.len() + 1;
        let mut wanted: Vec<bool> = columns.iter().map(|_| self.chance(70)).collect();
        for (at, column) in columns.iter().enumerate() {
            let has_default = matches!(
                column.name,
                "created_at" | "prefs" | "tags" | "caption" | "likes" | "active"
            );
            wanted[at] |= at < width
                || !(column.nullable || has_default)
                || (column.name == "likes" && table.name != "photos");
        }
        let names: Vec<&str> = columns
            .iter()
            .zip(&wanted)
            .filter(|(_, w)| **w)
            .map(|(c, _)| c.name)
            .collect();
        let mut rows = Vec::new();
        for key in keys {
            let row = self.row(table, *key);
            let mut marks = Vec::new();
            for (at, value) in row.into_iter().enumerate().filter(|(at, _)| wanted[*at]) {
                marks.push(match at {
                    0 if table.kind == Kind::Sharded => self.key(*key),
                    _ if at >= width && self.chance(2) => "DEFAULT".to_owned(),
                    _ => self.mark(value),
                });
            }
            rows.push(format!("({})", marks.join(", ")));
        }
        let list = format!("({})", names.join(", "));
        (list, rows)
    }

    fn insert_row(&mut self) -> Statement {
        let (table, key) = (self.sharded_table(), self.random_key());
        let (list, rows) = self.rows_for(table, &[key]);
        let item = self.named(table, "");
        let returning = self.returning(&item);
        // An unknown DEFAULT for a column that must have a value is an error on both sides.
        let text = format!(
            "INSERT INTO {} {list} VALUES {}{returning}",
            item.from, rows[0]
        );
        self.write_of("INSERT a row", &Scope::One(key), Order::Total, text)
    }

    fn keys_for_rows(&mut self) -> Scope {
        let n = self.below(5) + 2;
        let key = self.random_key();
        match self.chance(55) {
            true => Scope::One(key),
            false => Scope::Several((0..n).map(|_| self.random_key()).collect()),
        }
    }

    fn insert_rows(&mut self) -> Statement {
        let (table, scope) = (
            self.pick(&[PHOTOS, PHOTOS, LIKES, FOLLOWS, ORDERS, USERS]),
            self.keys_for_rows(),
        );
        let keys = match &scope {
            Scope::One(key) => vec![*key; self.below(4) + 2],
            Scope::Several(keys) => keys.clone(),
            Scope::All => unreachable!(),
        };
        let (list, rows) = self.rows_for(table, &keys);
        let item = self.named(table, "");
        let conflict = if self.chance(35) {
            " ON CONFLICT DO NOTHING"
        } else {
            ""
        };
        let returning = self.returning(&item);
        let text = format!(
            "INSERT INTO {} {list} VALUES {}{conflict}{returning}",
            item.from,
            rows.join(", ")
        );
        self.write_of("INSERT rows", &scope, Order::Total, text)
    }

    fn upsert(&mut self) -> Statement {
        let table = self.pick(&[USERS, USERS, LIKES, FOLLOWS, ALBUMS, ORDERS]);
        let key = self.random_key();
        let (list, rows) = self.rows_for(table, &[key]);
        let target = table.primary().join(", ");
        let column = self.pick(table.others);
        let action = match self.below(4) {
            0 => "DO NOTHING".to_owned(),
            1 => format!(
                "DO UPDATE SET {} = {}",
                column.name,
                self.value_for(column.of, column.nullable)
            ),
            2 => format!(
                "DO UPDATE SET {c} = EXCLUDED.{c} WHERE {}.{c} IS DISTINCT FROM EXCLUDED.{c}",
                table.name,
                c = column.name
            ),
            _ => format!("DO UPDATE SET {c} = EXCLUDED.{c}", c = column.name),
        };
        let item = self.named(table, table.name);
        let returning = self.returning(&item);
        let text = format!(
            "INSERT INTO {} {list} VALUES {} ON CONFLICT ({target}) {action}{returning}",
            item.from, rows[0]
        );
        self.write_of("INSERT ON CONFLICT", &Scope::One(key), Order::Total, text)
    }

    /// `SET` of one or two columns.
    fn assignments(&mut self, item: &Item) -> String {
        let mut done: Vec<&str> = Vec::new();
        let mut list = Vec::new();
        for _ in 0..self.below(2) + 1 {
            let column = self.pick(item.table.others);
            if done.contains(&column.name) {
                continue;
            }
            done.push(column.name);
            let c = item.col(column.name);
            let value = match column.of {
                Type::Int4 | Type::Int2 | Type::Numeric | Type::Float8 if self.chance(40) => {
                    format!("{c} + 1")
                }
                Type::Text if self.chance(20) => {
                    format!("left({c} || {}::text, 20)", self.any(Type::Text))
                }
                Type::Texts if self.chance(40) => {
                    format!("array_append({c}, {}::text)", self.any(Type::Text))
                }
                Type::Jsonb if self.chance(30) => format!("jsonb_build_object('was', {c} -> 'a')"),
                Type::Bool if self.chance(40) => format!("NOT coalesce({c}, true)"),
                Type::Timestamptz if self.chance(30) => format!("{c} + interval '1 day'"),
                of => self.value_for(of, column.nullable),
            };
            list.push(format!("{} = {value}", column.name));
        }
        list.join(", ")
    }

    fn update(&mut self) -> Statement {
        let (table, scope) = (self.sharded_table(), self.write_scope());
        let item = self.alone(table);
        let set = self.assignments(&item);
        let conditions = self.write_conditions(&scope, &item);
        let filter = self.filter(conditions);
        let returning = self.returning(&item);
        let text = format!("UPDATE {} SET {set}{filter}{returning}", item.from);
        self.write_of("UPDATE", &scope, Order::Any, text)
    }

    fn update_by_id(&mut self) -> Statement {
        let (user, id) = self.photo();
        let item = self.alone(PHOTOS);
        let v = self.mark(Value::new(Type::Id, id));
        let mut condition = format!("{} = {v}", item.col("id"));
        if self.chance(40) {
            condition = format!("{condition} AND {} = {}", item.key(), self.key(user));
        }
        let text = match self.chance(75) {
            true => {
                let set = self.assignments(&item);
                let returning = self.returning(&item);
                format!(
                    "UPDATE {} SET {set} WHERE {condition}{returning}",
                    item.from
                )
            }
            false => format!("DELETE FROM {} WHERE {condition}", item.from),
        };
        self.write_of(
            "UPDATE or DELETE by id",
            &Scope::One(user),
            Order::Any,
            text,
        )
    }

    fn delete(&mut self) -> Statement {
        let (table, scope) = (self.sharded_table(), self.write_scope());
        let item = self.alone(table);
        let mut conditions = self.write_conditions(&scope, &item);
        // Not all rows of a table at once, or little would be left to look at.
        if conditions.len() < 2 {
            conditions.push(self.predicate(&item));
        }
        let filter = self.filter(conditions);
        let returning = self.returning(&item);
        let text = format!("DELETE FROM {}{filter}{returning}", item.from);
        self.write_of("DELETE", &scope, Order::Any, text)
    }

    fn update_from(&mut self) -> Statement {
        let scope = self.write_scope();
        let (a, b) = (self.named(PHOTOS, "a"), self.named(USERS, "b"));
        let mut conditions = vec!["b.id = a.user_id".to_owned(), self.predicate(&b)];
        let side = self.pick(&["a.user_id", "b.id"]);
        conditions.extend(self.within(&scope, side));
        let filter = self.filter(conditions);
        let returning = self.pick(&["", " RETURNING a.id, b.name"]);
        let text = format!(
            "UPDATE {} SET caption = left(b.name || a.caption, 12) FROM {}{filter}{returning}",
            a.from, b.from
        );
        self.write_of("UPDATE FROM", &scope, Order::Any, text)
    }

    fn delete_using(&mut self) -> Statement {
        let scope = self.write_scope();
        let (a, b) = (self.named(LIKES, "a"), self.named(USERS, "b"));
        let mut conditions = vec![
            "b.id = a.user_id".to_owned(),
            self.predicate(&b),
            self.predicate(&a),
        ];
        conditions.extend(self.within(&scope, "a.user_id"));
        let filter = self.filter(conditions);
        let text = format!("DELETE FROM {} USING {}{filter}", a.from, b.from);
        self.write_of("DELETE USING", &scope, Order::Any, text)
    }

    fn insert_select(&mut self) -> Statement {
        let scope = self.write_scope();
        let item = self.named(PHOTOS, "p");
        let conditions = self.write_conditions(&scope, &item);
        let filter = self.filter(conditions);
        let text = format!(
            "INSERT INTO likes (user_id, photo_id, emoji) SELECT p.user_id, p.id % 1000, p.caption FROM {}{filter} ON CONFLICT DO NOTHING",
            item.from
        );
        self.write_of("INSERT SELECT", &scope, Order::Any, text)
    }

    fn merge(&mut self) -> Statement {
        let key = self.random_key();
        let (k, name, n) = (self.key(key), self.any(Type::Text), self.count(9));
        let text = format!(
            "MERGE INTO albums a USING (SELECT {k}::bigint AS user_id, {name}::text AS name, {n}::integer AS position) s \
             ON a.user_id = s.user_id AND a.name = s.name AND a.user_id = {k} \
             WHEN MATCHED THEN UPDATE SET position = s.position \
             WHEN NOT MATCHED THEN INSERT (user_id, name, position) VALUES ({k}, s.name, s.position)"
        );
        self.write_of("MERGE", &Scope::One(key), Order::Any, text)
    }

    fn writing_cte(&mut self) -> Statement {
        let key = self.random_key();
        let k = self.key(key);
        let text = match self.below(6) {
            0 => {
                let id = Value::new(Type::Id, self.new_id(key));
                let id = self.mark(id);
                format!(
                    "WITH made AS (INSERT INTO photos (id, user_id, caption) VALUES ({id}, {k}, 'made') RETURNING id, user_id) \
                     INSERT INTO likes (user_id, photo_id) SELECT user_id, id FROM made RETURNING *"
                )
            }
            1 => format!(
                "WITH gone AS (DELETE FROM likes WHERE user_id = {k} AND stars < 3 RETURNING *) SELECT count(*), sum(stars) FROM gone"
            ),
            2 => format!(
                "UPDATE users SET age = (SELECT count(*) FROM photos p WHERE p.user_id = {k}), name = 'counted' WHERE id = {k} RETURNING age"
            ),
            3 => format!(
                "UPDATE users SET (name, score) = ('both', 1.25) WHERE id = {k} RETURNING id, name, score"
            ),
            4 => format!(
                "INSERT INTO follows (source_id, target_id, note) VALUES ({k}, {k}, 'self') \
                 ON CONFLICT (source_id, target_id) DO UPDATE SET note = 'again' RETURNING (xmax = 0) AS inserted"
            ),
            _ => format!(
                "UPDATE photos SET likes = likes + 1 WHERE user_id = {k} AND id IN \
                 (SELECT id FROM photos WHERE user_id = {k} ORDER BY id LIMIT 2 FOR UPDATE) RETURNING id, likes"
            ),
        };
        self.write_of("several levels", &Scope::One(key), Order::Any, text)
    }

    fn write_reference(&mut self) -> Statement {
        let code = self.pick(&CODES);
        let v = self.mark(Value::new(Type::Country, code));
        let text = match self.below(3) {
            0 => format!(
                "INSERT INTO countries (code, name) VALUES ({v}, 'new') ON CONFLICT (code) DO UPDATE SET name = 'again'"
            ),
            1 => format!(
                "UPDATE countries SET population = coalesce(population, 0) + 1 WHERE code = {v} RETURNING *"
            ),
            _ => format!("DELETE FROM countries WHERE code = {v} AND code = 'x '"),
        };
        self.statement(
            "write to a reference table".to_owned(),
            Effect::Write,
            Order::Any,
            text,
        )
    }

    fn write_unsharded(&mut self) -> Statement {
        let (id, item) = (self.below(16) as i64, self.alone(INVOICES));
        let text = match self.below(4) {
            0 => {
                let (list, rows) = self.rows_for(INVOICES, &[id, id + 16]);
                let returning = self.pick(&["", " RETURNING id"]);
                format!(
                    "INSERT INTO invoices {list} VALUES {}{returning}",
                    rows.join(", ")
                )
            }
            1..3 => {
                let set = self.assignments(&item);
                let predicate = self.predicate(&item);
                format!(
                    "UPDATE {} SET {set} WHERE {predicate} RETURNING *",
                    item.from
                )
            }
            _ => {
                let v = self.mark(Value::new(Type::Int8, id));
                format!("DELETE FROM {} WHERE {} = {v}", item.from, item.col("id"))
            }
        };
        self.statement(
            "write to an unsharded table".to_owned(),
            Effect::Write,
            Order::Any,
            text,
        )
    }

    fn faulty_write(&mut self) -> Statement {
        let key = self.random_key();
        let k = self.key(key);
        let (label, text) = match self.below(8) {
            0 => (
                "NOT NULL violated",
                format!("UPDATE photos SET caption = NULL WHERE user_id = {k}"),
            ),
            1 => (
                "CHECK violated",
                format!("INSERT INTO likes (user_id, photo_id, stars) VALUES ({k}, 1, 9)"),
            ),
            2 => (
                "foreign key violated",
                format!("UPDATE users SET country = 'zz' WHERE id = {k}"),
            ),
            3 => (
                "undefined column",
                format!("INSERT INTO photos (user_id, nope) VALUES ({k}, 1)"),
            ),
            4 => (
                "too few values",
                format!("INSERT INTO likes (user_id, photo_id) VALUES ({k})"),
            ),
            5 => {
                let other = self.random_key();
                let other = self.key(other);
                (
                    "key set",
                    format!(
                        "UPDATE likes SET user_id = {other} WHERE user_id = {k} AND photo_id = 3"
                    ),
                )
            }
            6 => (
                "out of range",
                format!("UPDATE users SET age = 99999 WHERE id = {k}"),
            ),
            _ => (
                "NULL key",
                format!(
                    "INSERT INTO likes (user_id, photo_id) VALUES ({}, {})",
                    self.null_key(),
                    k
                ),
            ),
        };
        self.write_of(label, &Scope::One(key), Order::Any, text)
    }

    fn null_key(&mut self) -> String {
        self.mark(Value::null(Type::Key))
    }

    fn control(&mut self, text: &str) -> Statement {
        let label = text.split(' ').next().unwrap().to_owned();
        self.statement(label, Effect::Control, Order::Total, text.to_owned())
    }

    fn block(&mut self) -> Unit {
        self.of_block = None;
        if self.chance(80) {
            self.of_block = Some(self.random_key());
        }
        let begin = self.weighted(&[
            (70, "BEGIN"),
            (10, "START TRANSACTION"),
            (8, "BEGIN ISOLATION LEVEL REPEATABLE READ"),
            (4, "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
            (8, "begin"),
        ]);
        let mut statements = vec![self.control(begin)];
        let mut savepoints = 0;
        for _ in 0..self.below(5) + 1 {
            if self.chance(20) {
                savepoints += 1;
                statements.push(self.control(&format!("SAVEPOINT s{savepoints}")));
            }
            let statement = if self.chance(45) {
                self.read()
            } else {
                self.write()
            };
            statements.push(statement);
            if savepoints > 0 && self.chance(50) {
                let verb =
                    self.pick(&["ROLLBACK TO SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO"]);
                statements.push(self.control(&format!("{verb} s{savepoints}")));
                savepoints -= usize::from(verb.starts_with("RELEASE"));
            }
        }
        self.of_block = None;
        let end = self.weighted(&[(75, "COMMIT"), (20, "ROLLBACK"), (5, "END")]);
        statements.push(self.control(end));
        Unit { statements }
    }
}
