//! Random reads with several levels: subqueries, CTEs, set operations, windows, DISTINCT.

use super::generator::{Gen, Item, Order, Statement};
use super::tables::*;

impl Gen<'_> {
    pub fn subquery(&mut self) -> Statement {
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

    pub fn cte(&mut self) -> Statement {
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

    pub fn set_operation(&mut self) -> Statement {
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

    pub fn window(&mut self) -> Statement {
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

    pub fn distinct(&mut self) -> Statement {
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
}

fn item_columns(item: &Item) -> String {
    format!("{}*", item.prefix)
}
