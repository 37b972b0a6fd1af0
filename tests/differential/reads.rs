//! Random reads.

use super::generator::{Effect, Gen, Item, Order, Scope, Statement};
use super::tables::*;
use super::values::{Type, Value};

/// What a SELECT ends with, and what then is sure of its rows.
struct End {
    text: String,
    order: Order,
}

impl Gen<'_> {
    pub fn read(&mut self) -> Statement {
        let make = self.weighted::<fn(&mut Self) -> Statement>(&[
            (30, Self::rows_of_one_table),
            (8, Self::by_id),
            (10, Self::aggregate),
            (8, Self::group),
            (20, Self::join),
            (10, Self::subquery),
            (14, Self::as_orms_write),
            (6, Self::cte),
            (5, Self::set_operation),
            (4, Self::window),
            (3, Self::distinct),
            (6, Self::beside),
            (4, Self::odd),
        ]);
        make(self)
    }

    fn read_of(&mut self, label: &str, scope: &Scope, order: Order, text: String) -> Statement {
        self.statement(
            format!("{label}, {}", scope.name()),
            Effect::Read,
            order,
            text,
        )
    }

    /// Columns of one table as apps ask for them.
    fn columns(&mut self, item: &Item) -> String {
        let columns = item.table.columns();
        match self.below(10) {
            0..3 => "*".to_owned(),
            3 if !item.prefix.is_empty() => format!("{}*", item.prefix),
            4..6 => {
                let key = item.key();
                let expression = self.expression(item);
                format!("{key}, {expression} AS x")
            }
            _ => {
                let n = self.below(columns.len()) + 1;
                let mut list: Vec<String> =
                    (0..n).map(|_| item.col(self.pick(&columns).name)).collect();
                if self.chance(20) {
                    list[0] = format!("{} AS \"First One\"", list[0]);
                }
                list.join(", ")
            }
        }
    }

    /// ORDER BY and LIMIT, or nothing. `total` makes any order total.
    fn end(&mut self, items: &[&Item], total: Vec<String>) -> End {
        if self.chance(45) {
            return End {
                text: String::new(),
                order: Order::Any,
            };
        }
        let mut keys = Vec::new();
        for _ in 0..self.below(3) {
            let item = items[self.below(items.len())];
            let column = self.pick(&item.table.columns());
            // json has no order that means something, and is rarely sorted by.
            if column.of != Type::Jsonb {
                keys.push(item.col(column.name));
            }
        }
        keys.dedup();
        if let (false, true) = (keys.is_empty(), self.chance(25)) {
            return End {
                text: format!(" ORDER BY {}", self.directions(keys)),
                order: Order::Any,
            };
        }
        keys.extend(total);
        let mut text = format!(" ORDER BY {}", self.directions(keys));
        text.push_str(&self.limit());
        End {
            text,
            order: Order::Total,
        }
    }

    pub fn directions(&mut self, keys: Vec<String>) -> String {
        let directed = keys.into_iter().map(|key| {
            let direction = self.weighted(&[
                (50, ""),
                (10, " ASC"),
                (28, " DESC"),
                (4, " NULLS FIRST"),
                (4, " DESC NULLS LAST"),
                (2, " ASC NULLS LAST"),
                (2, " DESC NULLS FIRST"),
            ]);
            format!("{key}{direction}")
        });
        directed.collect::<Vec<_>>().join(", ")
    }

    fn limit(&mut self) -> String {
        match self.below(20) {
            0..10 => String::new(),
            10..15 => format!(" LIMIT {}", self.count(8)),
            15..18 => format!(" LIMIT {} OFFSET {}", self.count(8), self.count(4)),
            18 => format!(" OFFSET {}", self.count(5)),
            _ => " FETCH FIRST 3 ROWS ONLY".to_owned(),
        }
    }

    fn conditions(&mut self, scope: &Scope, item: &Item) -> Vec<String> {
        let mut conditions: Vec<String> = self.within(scope, &item.key()).into_iter().collect();
        conditions.extend(self.predicates(item));
        conditions
    }

    fn rows_of_one_table(&mut self) -> Statement {
        let (table, scope) = (self.sharded_table(), self.scope());
        let item = self.alone(table);
        let columns = self.columns(&item);
        let conditions = self.conditions(&scope, &item);
        let filter = self.filter(conditions);
        let mut end = self.end(&[&item], item.primary());
        if end.text.is_empty() && self.chance(10) {
            end.text = format!(" LIMIT {}", self.count(5));
            end.order = Order::Count;
        }
        let mut label = "rows".to_owned();
        if matches!(scope, Scope::One(_)) && self.chance(4) {
            end.text.push_str(self.pick(&[
                " FOR UPDATE",
                " FOR SHARE",
                " FOR NO KEY UPDATE SKIP LOCKED",
            ]));
            label = "rows locked".to_owned();
        } else if end.order == Order::Total {
            label.push_str(if end.text.contains("LIMIT") {
                " in order, LIMIT"
            } else {
                " in order"
            });
        }
        let text = format!("SELECT {columns} FROM {}{filter}{}", item.from, end.text);
        self.read_of(&label, &scope, end.order, text)
    }

    fn by_id(&mut self) -> Statement {
        let item = self.alone(PHOTOS);
        let (user, id) = self.photo();
        let columns = self.columns(&item);
        let c = item.col("id");
        let v = self.mark(Value::new(Type::Id, id));
        let (scope, condition) = match self.below(10) {
            0..6 => (Scope::One(user), format!("{c} = {v}")),
            6 => {
                let key = self.key(user);
                (
                    Scope::One(user),
                    format!("{c} = {v} AND {} = {key}", item.key()),
                )
            }
            7 => {
                let key = self.key(user);
                (
                    Scope::One(user),
                    format!("({}, {c}) = ({key}, {v})", item.key()),
                )
            }
            8 => {
                let (_, other) = self.photo();
                let other = self.mark(Value::new(Type::Id, other));
                (Scope::Several(vec![]), format!("{c} IN ({v}, {other})"))
            }
            _ => {
                let (other_user, other) = self.photo();
                let pair = (
                    self.key(user),
                    self.key(other_user),
                    self.mark(Value::new(Type::Id, other)),
                );
                let condition = format!(
                    "({}, {c}) IN (({}, {v}), ({}, {}))",
                    item.key(),
                    pair.0,
                    pair.1,
                    pair.2
                );
                (Scope::Several(vec![]), condition)
            }
        };
        let text = format!("SELECT {columns} FROM {} WHERE {condition}", item.from);
        self.read_of("by id", &scope, Order::Any, text)
    }

    /// An aggregate call whose result does not depend on the order of rows.
    pub fn aggregate_call(&mut self, item: &Item) -> String {
        let columns = item.table.columns();
        let numbers: Vec<_> = columns
            .iter()
            .copied()
            .filter(|c| c.of.is_number())
            .collect();
        let sorted: Vec<_> = columns
            .iter()
            .copied()
            .filter(|c| {
                !matches!(
                    c.of,
                    Type::Jsonb | Type::Bool | Type::Uuid | Type::Bytea | Type::Texts | Type::Int8s
                )
            })
            .collect();
        let any = item.col(self.pick(&columns).name);
        let call = match self.below(20) {
            0..7 => "count(*)".to_owned(),
            7 => format!("count({any})"),
            8 => format!("count(DISTINCT {any})"),
            9..12 if !numbers.is_empty() => format!("sum({})", item.col(self.pick(&numbers).name)),
            12..14 if !numbers.is_empty() => format!("avg({})", item.col(self.pick(&numbers).name)),
            9..16 => format!(
                "{}({})",
                self.pick(&["min", "max"]),
                item.col(self.pick(&sorted).name)
            ),
            16 => format!(
                "{}({})",
                self.pick(&["bool_and", "bool_or", "every"]),
                self.predicate(item)
            ),
            17 => {
                let order = item.primary().join(", ");
                format!("array_agg({any} ORDER BY {order})")
            }
            18 => {
                let order = item.primary().join(", ");
                format!("string_agg({}::text, ',' ORDER BY {order})", any)
            }
            _ => match self.below(4) {
                0 => "coalesce(sum(1), 0)".to_owned(),
                1 => format!("count({any}) = 0 AND count(*) > 1"),
                2 if !numbers.is_empty() => {
                    format!("round(avg({}), 2)", item.col(self.pick(&numbers).name))
                }
                _ => format!("count(*) + count({any})"),
            },
        };
        let composed = !call.ends_with(')') || call.starts_with("round") || call.contains(" + ");
        match self.chance(12) && !composed && !call.starts_with("coalesce") {
            true => format!("{call} FILTER (WHERE {})", self.predicate(item)),
            false => call,
        }
    }

    fn aggregate(&mut self) -> Statement {
        let (table, scope) = (self.sharded_table(), self.scope());
        let item = self.alone(table);
        let n = self.weighted(&[(60, 1), (25, 2), (15, 3)]);
        let calls: Vec<String> = (0..n).map(|_| self.aggregate_call(&item)).collect();
        let conditions = self.conditions(&scope, &item);
        let filter = self.filter(conditions);
        let having = if self.chance(5) {
            " HAVING count(*) > 1"
        } else {
            ""
        };
        let text = format!(
            "SELECT {} FROM {}{filter}{having}",
            calls.join(", "),
            item.from
        );
        self.read_of("aggregate", &scope, Order::Total, text)
    }

    fn group(&mut self) -> Statement {
        let (table, scope) = (self.sharded_table(), self.scope());
        let item = self.alone(table);
        let column = self.pick(&table.columns()).name;
        let by = match self.below(5) {
            0..2 => item.key(),
            2 if table.name == "photos" => {
                format!("date_trunc('year', {})", item.col("created_at"))
            }
            _ => item.col(column),
        };
        let n = self.below(2) + 1;
        let calls: Vec<String> = (0..n).map(|_| self.aggregate_call(&item)).collect();
        let conditions = self.conditions(&scope, &item);
        let filter = self.filter(conditions);
        let having = match self.below(4) {
            0 => format!(" HAVING count(*) > {}", self.count(2)),
            1 => format!(" HAVING {} IS NOT NULL", self.aggregate_call(&item)),
            _ => String::new(),
        };
        let grouped = self.pick(&["1", "by", "by"]);
        let grouped = if grouped == "1" { "1" } else { &by };
        let (end, order) = match self.below(4) {
            0 => (String::new(), Order::Any),
            1 => (
                format!(
                    " ORDER BY {}{}",
                    self.directions(vec![by.clone()]),
                    self.limit()
                ),
                Order::Total,
            ),
            2 => (format!(" ORDER BY 2 DESC, 1{}", self.limit()), Order::Total),
            _ => (
                format!(" ORDER BY count(*) DESC, {by}{}", self.limit()),
                Order::Total,
            ),
        };
        let text = format!(
            "SELECT {by}, {} FROM {}{filter} GROUP BY {grouped}{having}{end}",
            calls.join(", "),
            item.from
        );
        self.read_of("group", &scope, order, text)
    }

    /// Two or three tables of the same user, and perhaps the reference table.
    fn join(&mut self) -> Statement {
        let scope = self.scope();
        let (one, other) = self.pick(&[
            (USERS, PHOTOS),
            (USERS, PHOTOS),
            (PHOTOS, USERS),
            (USERS, LIKES),
            (PHOTOS, LIKES),
            (USERS, FOLLOWS),
            (ALBUMS, USERS),
            (ORDERS, USERS),
            (ALBUMS, LIKES),
        ]);
        let (a, b) = (self.named(one, "a"), self.named(other, "b"));
        let using = one.key == other.key && self.chance(40);
        let kind = self.weighted(&[
            (55, "JOIN"),
            (30, "LEFT JOIN"),
            (8, "INNER JOIN"),
            (4, "RIGHT JOIN"),
            (3, "FULL JOIN"),
        ]);
        let mut on = format!("{} = {}", b.key(), a.key());
        if self.chance(15) {
            on = format!("{on} AND {}", self.predicate(&b));
        }
        let mut from = match (using, self.below(12)) {
            (true, _) => format!("{} {kind} {} USING ({})", a.from, b.from, one.key),
            (_, 0) if kind == "JOIN" => format!("{}, {}", a.from, b.from),
            _ => format!("{} {kind} {} ON {on}", a.from, b.from),
        };
        let mut conditions = Vec::new();
        if !from.contains(kind) {
            conditions.push(on);
        }
        let mut items = vec![&a, &b];
        let third = self.named(COUNTRIES, "c");
        let user = items.iter().find(|i| i.table.name == "users").copied();
        let by_country = user.filter(|_| self.chance(20)).map(|u| u.col("country"));
        if let Some(country) = by_country {
            let join = self.pick(&["JOIN", "LEFT JOIN"]);
            from = format!("{from} {join} {} ON c.code = {country}", third.from);
            items.push(&third);
        }
        let side = match kind {
            "LEFT JOIN" if self.chance(90) => &a,
            "RIGHT JOIN" if self.chance(90) => &b,
            _ if self.chance(70) => &a,
            _ => &b,
        };
        conditions.extend(self.within(&scope, &side.key()));
        if self.chance(10) {
            conditions.extend(self.within(
                &scope,
                &if side.prefix == "a." {
                    b.key()
                } else {
                    a.key()
                },
            ));
        }
        if self.chance(50) {
            let item = items[self.below(items.len())];
            conditions.push(self.predicate(item));
        }
        let filter = self.filter(conditions);
        let (columns, grouped) = match self.below(10) {
            0..2 => ("*".to_owned(), None),
            2 => ("a.*, b.*".to_owned(), None),
            3 => (
                format!("{}, count({})", a.key(), b.primary().last().unwrap()),
                Some(a.key()),
            ),
            4 => ("count(*)".to_owned(), Some(String::new())),
            _ => {
                let n = self.below(4) + 1;
                let list: Vec<String> = (0..n)
                    .map(|_| {
                        let item = items[self.below(items.len())];
                        let columns = item.table.columns();
                        item.col(self.pick(&columns).name)
                    })
                    .collect();
                (list.join(", "), None)
            }
        };
        let end = match &grouped {
            Some(by) if by.is_empty() => End {
                text: String::new(),
                order: Order::Total,
            },
            Some(by) => End {
                text: format!(" GROUP BY {by} ORDER BY {by}{}", self.limit()),
                order: Order::Total,
            },
            None => {
                let total = items.iter().flat_map(|i| i.primary()).collect();
                self.end(&items, total)
            }
        };
        let label = format!(
            "{}{}",
            kind.to_lowercase(),
            if grouped.is_some() { " grouped" } else { "" }
        );
        let text = format!("SELECT {columns} FROM {from}{filter}{}", end.text);
        self.read_of(&label, &scope, end.order, text)
    }

    fn subquery(&mut self) -> Statement {
        let scope = self.scope();
        let (outer, inner) = self.pick(&[
            (USERS, PHOTOS),
            (PHOTOS, LIKES),
            (USERS, FOLLOWS),
            (PHOTOS, USERS),
            (USERS, ORDERS),
        ]);
        let (a, b) = (self.named(outer, "a"), self.named(inner, "b"));
        let mut conditions: Vec<String> = self.within(&scope, &a.key()).into_iter().collect();
        let inner_condition = self.predicate(&b);
        let tie = format!("{} = {}", b.key(), a.key());
        let mut end = self.end(&[&a], a.primary());
        let columns = item_columns(&a);
        let (label, text) = match self.below(8) {
            0..2 => {
                let not = self.pick(&["", "", "NOT "]);
                conditions.push(format!(
                    "{not}EXISTS (SELECT 1 FROM {} WHERE {tie} AND {inner_condition})",
                    b.from
                ));
                let filter = self.filter(conditions);
                (
                    "EXISTS",
                    format!("SELECT {columns} FROM {}{filter}{}", a.from, end.text),
                )
            }
            2 => {
                let again = self.within(&scope, &b.key());
                let mut inside = vec![inner_condition];
                inside.extend(again);
                let inside = self.filter(inside);
                conditions.push(format!(
                    "{} IN (SELECT {} FROM {}{inside})",
                    a.key(),
                    b.key(),
                    b.from
                ));
                let filter = self.filter(conditions);
                (
                    "IN subquery",
                    format!("SELECT {columns} FROM {}{filter}{}", a.from, end.text),
                )
            }
            3 => {
                let call = self.aggregate_call(&b);
                let filter = self.filter(conditions);
                let text = format!(
                    "SELECT {}, (SELECT {call} FROM {} WHERE {tie}) AS n FROM {}{filter}{}",
                    a.key(),
                    b.from,
                    a.from,
                    end.text
                );
                ("scalar subquery", text)
            }
            4..6 => {
                let inside = self.conditions(&scope, &b);
                let inside = self.filter(inside);
                let sub = Item {
                    table: inner,
                    from: String::new(),
                    prefix: "s.".to_owned(),
                };
                end = self.end(&[&sub], sub.primary());
                let more = if self.chance(40) {
                    format!(" WHERE {}", self.predicate(&sub))
                } else {
                    String::new()
                };
                let text = format!(
                    "SELECT s.* FROM (SELECT * FROM {}{inside}) AS s{more}{}",
                    b.from, end.text
                );
                ("FROM subquery", text)
            }
            6 => {
                let inside = self.conditions(&scope, &b);
                let inside = self.filter(inside);
                let group = format!(
                    "SELECT {} AS k, count(*) AS n FROM {}{inside} GROUP BY {}",
                    b.key(),
                    b.from,
                    b.key()
                );
                let filter = self.filter(conditions);
                let join = self.pick(&["JOIN", "LEFT JOIN"]);
                let text = format!(
                    "SELECT {}, g.n FROM {} {join} ({group}) g ON g.k = {}{filter}{}",
                    a.key(),
                    a.from,
                    a.key(),
                    end.text
                );
                ("join of grouped subquery", text)
            }
            _ => {
                let filter = self.filter(conditions);
                let order = self.directions(b.primary());
                let text = format!(
                    "SELECT {}, l.* FROM {} CROSS JOIN LATERAL (SELECT * FROM {} WHERE {tie} ORDER BY {order} LIMIT 2) l{filter}",
                    a.key(),
                    a.from,
                    b.from
                );
                end.order = Order::Any;
                ("LATERAL", text)
            }
        };
        self.read_of(label, &scope, end.order, text)
    }

    fn cte(&mut self) -> Statement {
        let scope = self.scope();
        let table = self.sharded_table();
        let b = self.named(table, "b");
        let inside = self.conditions(&scope, &b);
        let inside = self.filter(inside);
        let own = Item {
            table,
            from: "mine m".to_owned(),
            prefix: "m.".to_owned(),
        };
        let with = format!("WITH mine AS (SELECT * FROM {}{inside})", b.from);
        let (order, text) = match self.below(4) {
            0 => {
                let end = self.end(&[&own], own.primary());
                (
                    end.order,
                    format!("{with} SELECT m.* FROM mine m{}", end.text),
                )
            }
            1 => {
                let call = self.aggregate_call(&own);
                (Order::Total, format!("{with} SELECT {call} FROM mine m"))
            }
            2 => {
                let u = self.named(USERS, "u");
                let end = self.end(&[&own], [own.primary(), u.primary()].concat());
                let text = format!(
                    "{with} SELECT u.name, m.* FROM mine m JOIN {} ON u.id = {}{}",
                    u.from,
                    own.key(),
                    end.text
                );
                (end.order, text)
            }
            _ => {
                let text = format!(
                    "{with}, counted AS (SELECT {} AS k, count(*) AS n FROM mine m GROUP BY 1) SELECT k, n FROM counted ORDER BY n DESC, k",
                    own.key()
                );
                (Order::Total, text)
            }
        };
        self.read_of("WITH", &scope, order, text)
    }

    fn set_operation(&mut self) -> Statement {
        let scope = self.scope();
        let (one, other) = self.pick(&[
            (PHOTOS, LIKES),
            (FOLLOWS, ORDERS),
            (USERS, PHOTOS),
            (PHOTOS, PHOTOS),
        ]);
        let (a, b) = (self.named(one, "a"), self.named(other, "b"));
        let (left, right) = (self.conditions(&scope, &a), self.conditions(&scope, &b));
        let (left, right) = (self.filter(left), self.filter(right));
        let op = self.weighted(&[
            (45, "UNION ALL"),
            (35, "UNION"),
            (10, "INTERSECT"),
            (10, "EXCEPT"),
        ]);
        let end = if self.chance(50) {
            format!(" ORDER BY 1, 2{}", self.limit())
        } else {
            String::new()
        };
        let order = if end.is_empty() {
            Order::Any
        } else {
            Order::Total
        };
        let text = format!(
            "SELECT {} AS k, 'one' AS what FROM {}{left} {op} SELECT {}, 'two' FROM {}{right}{end}",
            a.key(),
            a.from,
            b.key(),
            b.from
        );
        self.read_of(op, &scope, order, text)
    }

    fn window(&mut self) -> Statement {
        let (table, scope) = (self.sharded_table(), self.scope());
        let item = self.alone(table);
        let conditions = self.conditions(&scope, &item);
        let filter = self.filter(conditions);
        let order = self.directions(item.primary());
        let partition = if self.chance(60) {
            format!("PARTITION BY {} ", item.key())
        } else {
            String::new()
        };
        let call = self.pick(&[
            "row_number()",
            "rank()",
            "count(*)",
            "lag(KEY)",
            "first_value(KEY)",
            "ntile(2)",
        ]);
        let call = call.replace("KEY", &item.key());
        let mut text = format!(
            "SELECT {}, {call} OVER ({partition}ORDER BY {order}) AS w FROM {}{filter}",
            item.primary().join(", "),
            item.from
        );
        if !partition.is_empty() && self.chance(30) {
            text = format!("SELECT * FROM ({text}) s WHERE w IS NOT NULL");
        }
        let label = if partition.is_empty() {
            "window over all"
        } else {
            "window by key"
        };
        self.read_of(label, &scope, Order::Any, text)
    }

    fn distinct(&mut self) -> Statement {
        let (table, scope) = (self.sharded_table(), self.scope());
        let item = self.alone(table);
        let conditions = self.conditions(&scope, &item);
        let filter = self.filter(conditions);
        if self.chance(25) {
            let order = item.primary().join(", ");
            let text = format!(
                "SELECT DISTINCT ON ({}) {} FROM {}{filter} ORDER BY {order}",
                item.key(),
                item.primary().join(", "),
                item.from
            );
            return self.read_of("DISTINCT ON", &scope, Order::Total, text);
        }
        let columns = table.columns();
        let mut list: Vec<String> = (0..self.below(2) + 1)
            .map(|_| item.col(self.pick(&columns).name))
            .collect();
        list.dedup();
        let (end, order) = match self.chance(50) {
            true => (
                format!(
                    " ORDER BY {}{}",
                    self.directions(list.clone()),
                    self.limit()
                ),
                Order::Total,
            ),
            false => (String::new(), Order::Any),
        };
        let text = format!(
            "SELECT DISTINCT {} FROM {}{filter}{end}",
            list.join(", "),
            item.from
        );
        self.read_of("DISTINCT", &scope, order, text)
    }

    /// What ORMs and query builders make of one table, in their styles of quoting.
    fn as_orms_write(&mut self) -> Statement {
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
    fn beside(&mut self) -> Statement {
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
    fn odd(&mut self) -> Statement {
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

fn item_columns(item: &Item) -> String {
    format!("{}*", item.prefix)
}
