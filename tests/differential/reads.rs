//! Random reads.

use super::generator::{Effect, Gen, Item, Order, Scope, Statement};
use super::tables::*;
use super::values::{Type, Value};

/// What a SELECT ends with, and what then is sure of its rows.
pub struct End {
    pub text: String,
    pub order: Order,
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

    pub fn read_of(&mut self, label: &str, scope: &Scope, order: Order, text: String) -> Statement {
        self.statement(
            format!("{label}, {}", scope.name()),
            Effect::Read,
            order,
            text,
        )
    }

    /// Columns of one table as apps ask for them.
    pub fn columns(&mut self, item: &Item) -> String {
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
    pub fn end(&mut self, items: &[&Item], total: Vec<String>) -> End {
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

    pub fn limit(&mut self) -> String {
        match self.below(20) {
            0..10 => String::new(),
            10..15 => format!(" LIMIT {}", self.count(8)),
            15..18 => format!(" LIMIT {} OFFSET {}", self.count(8), self.count(4)),
            18 if self.chance(70) => format!(" OFFSET {}", self.count(5)),
            18 => " LIMIT ALL OFFSET 0".to_owned(),
            _ => " FETCH FIRST 3 ROWS ONLY".to_owned(),
        }
    }

    pub fn conditions(&mut self, scope: &Scope, item: &Item) -> Vec<String> {
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
        let mut may_filter = true;
        let call = match self.below(22) {
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
            _ => {
                may_filter = false;
                self.rarer_aggregate(item)
            }
        };
        match self.chance(12) && may_filter {
            true => format!("{call} FILTER (WHERE {})", self.predicate(item)),
            false => call,
        }
    }

    /// Aggregates in expressions, and those that apps seldom call.
    fn rarer_aggregate(&mut self, item: &Item) -> String {
        let columns = item.table.columns();
        let numbers: Vec<_> = columns
            .iter()
            .filter(|c| c.of.is_number() && c.of != Type::Float8)
            .collect();
        let number = match numbers.is_empty() {
            true => "1".to_owned(),
            false => item.col(numbers[self.below(numbers.len())].name),
        };
        let any = item.col(self.pick(&columns).name);
        let order = item.primary().join(", ");
        match self.below(20) {
            0 => "coalesce(sum(1), 0)".to_owned(),
            1 => format!("count({any}) = 0 AND count(*) > 1"),
            2 => format!("round(avg({number}), 2)"),
            3 => format!("count(*) + count({any})"),
            4 => format!("coalesce(max({number}), 0)"),
            5 => format!("sum({number})::bigint"),
            6 => format!("sum(CASE WHEN {} THEN 1 ELSE 0 END)", self.predicate(item)),
            7 => format!("max({number}) - min({number})"),
            8 => format!("sum({number} * 2 + 1)"),
            9 => format!("sum(DISTINCT {number})"),
            10 => format!("avg(DISTINCT {number})"),
            11 => format!("stddev({number})"),
            12 => format!("percentile_cont(0.5) WITHIN GROUP (ORDER BY {number})"),
            13 => format!("json_agg({number} ORDER BY {order})"),
            14 => format!("jsonb_object_agg(concat_ws('/', {order}), {number})"),
            15 => format!("array_agg(DISTINCT {any} ORDER BY {any})"),
            16 => format!("min({any}::text) || '!'"),
            17 => format!("bit_or({number}::bigint)"),
            18 => format!("100.0 * count({any}) / nullif(count(*), 0)"),
            _ => format!("avg({number}) > {}", self.any(Type::Int4)),
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
        if self.chance(6) {
            let other = item.col(self.pick(&table.columns()).name);
            let sets = self.pick(&[
                "ROLLUP (<1>, <2>)",
                "<1>, <2>",
                "<2>, <1>",
                "CUBE (<1>, <2>)",
                "GROUPING SETS ((<1>), ())",
            ]);
            let sets = sets.replace("<1>", &by).replace("<2>", &other);
            let text = format!(
                "SELECT {by}, count(*) AS n FROM {}{filter} GROUP BY {sets}",
                item.from
            );
            return self.read_of("group by two", &scope, Order::Any, text);
        }
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
}
