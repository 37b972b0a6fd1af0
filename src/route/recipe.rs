//! How a read is asked of several shards and their answers made one: the text for each shard, and what is done with
//! the rows. Sorting is a merge; groups and DISTINCT are asked of each shard in part, and put together by a last
//! statement that one Postgres runs over the parts, so that its types, its order and its HAVING are Postgres' own.

mod grouped;
mod text;

use grouped::{Grouped, Role};
use text::{KEY, Limits, Text, direction};

use crate::sql::plan::Const;
use crate::sql::rewrite::{self, Edit};
use crate::sql::select::{Count, ExprText, OutputText, PartKind, SelectText, Span, Whole};
use crate::sql::shape::Hole;

use super::functions;
use super::refusal::Refusal;
use super::rules::{KeyConst, Typed};
use super::spread::{Spread, TextOrder};
use super::{Values, value, words};
use crate::shardmap::{KeyType, KeyValue};

/// How the answers of several shards become one.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipe {
    /// The statement as it is; the rows of one shard after those of the other.
    Concat,
    /// Each shard sorts; the sorted rows are merged.
    Sorted(Sorted),
    /// Each shard gives its part; a last statement makes the answer of the parts.
    Final(Final),
}

/// Sorted rows of several shards.
#[derive(Clone, Debug, PartialEq)]
pub struct Sorted {
    /// What each shard is asked: the outputs, then one column for each of the keys.
    pub part: Vec<Piece>,
    /// What is sorted by. Without any, rows come in any order.
    pub keys: Vec<SortKey>,
    /// The most rows.
    pub limit: Option<u64>,
    /// Rows left out before those.
    pub offset: u64,
}

/// One of the keys of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// Descending.
    pub desc: bool,
    /// NULLs come first.
    pub nulls_first: bool,
    /// If it is text.
    pub text: TextKey,
}

/// How texts compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKey {
    /// By the database's collation.
    Default,
    /// By their bytes.
    Bytes,
    /// By their bytes or by the database's collation; which, is not known.
    Either,
    /// By a collation that can't be said again.
    Other,
    /// So too, and texts of other bytes may be equal: they can't be put together at all.
    Loose,
}

/// Parts of several shards and what is made of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Final {
    /// What each shard is asked.
    pub part: Vec<Piece>,
    /// How the columns of a part sort, if they are texts; those behind are as the database sorts.
    pub texts: Vec<TextKey>,
    /// The last statement.
    pub last: Vec<Piece>,
}

/// A piece of a text in the making.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Our own words.
    Own(String),
    /// A stretch of the statement.
    Copy(Span),
    /// In a last statement: column `.0` of the parts.
    Column(usize),
    /// The same where it is compared: texts by their own collation.
    Compared(usize),
    /// The type of column `.0` of the parts.
    TypeOf(usize),
    /// The mean, of sums in column `.0` and counts in column `.1`.
    Mean(usize, usize),
    /// All columns of the parts.
    Columns,
    /// `FROM`, and the parts as a table.
    Parts,
}

/// The recipe for a SELECT with these values.
pub(super) fn recipe(spread: &Spread, values: &Values<'_>) -> Result<Recipe, Refusal> {
    Cook {
        spread,
        select: &spread.select,
        values,
    }
    .recipe()
}

fn refuse<T>(why: &str) -> Result<T, Refusal> {
    Err(words::not_merged(why))
}

struct Cook<'a> {
    spread: &'a Spread,
    select: &'a SelectText,
    values: &'a Values<'a>,
}

impl<'a> Cook<'a> {
    fn recipe(&self) -> Result<Recipe, Refusal> {
        let select = self.select;
        if select.sets {
            return refuse("GROUPING SETS, CUBE and ROLLUP can't be merged");
        }
        let (limit, offset) = (self.count(&select.limit)?, self.count(&select.offset)?);
        let limits = Limits {
            limit,
            offset: offset.unwrap_or(0),
        };
        let groups = self.groups()?;
        let grouped = !groups.is_empty() || select.having.is_some() || self.aggregates();
        let by_key = |expr: &&ExprText| self.is_key(expr);
        if grouped && !groups.iter().any(by_key) {
            return Ok(Recipe::Final(self.grouped(&groups, &limits)?));
        }
        match &select.distinct {
            None => {}
            Some(distinct) => match &distinct.on {
                Some(on)
                    if on
                        .iter()
                        .any(|expr| self.is_key(self.output_or(expr, true))) => {}
                Some(_) => {
                    return refuse("DISTINCT ON can be merged only if it is ON the key");
                }
                None if self.outputs_have_key() => {}
                None => return Ok(Recipe::Final(self.distinct(&limits)?)),
            },
        }
        if select.orders.is_empty() && limits.are_none() {
            return Ok(Recipe::Concat);
        }
        Ok(Recipe::Sorted(self.sorted(&limits)?))
    }

    fn is_key(&self, expr: &ExprText) -> bool {
        self.spread.whole_column(expr).is_some_and(|c| c.is_key)
    }

    fn outputs_have_key(&self) -> bool {
        let items = self.select.items.iter().enumerate();
        items.into_iter().any(|(at, item)| match item {
            OutputText::Star(_) => self.spread.is_key_star(at),
            OutputText::Expr(expr, _) => self.is_key(expr),
        })
    }

    fn aggregates(&self) -> bool {
        let orders = self.select.orders.iter().map(|order| &order.expr);
        let items = self.select.items.iter().filter_map(|item| match item {
            OutputText::Star(_) => None,
            OutputText::Expr(expr, _) => Some(expr),
        });
        orders.chain(items).any(|expr| {
            expr.parts.iter().any(
                |part| matches!(&part.what, PartKind::Call(c) if functions::is_aggregate(&c.name)),
            )
        })
    }

    /// A number of rows; `None`: all.
    fn count(&self, count: &Option<Count>) -> Result<Option<u64>, Refusal> {
        let value = match count {
            None => return Ok(None),
            Some(Count::Other) => {
                return refuse(
                    "LIMIT and OFFSET are merged only if they are a number or a parameter",
                );
            }
            Some(Count::Const(value)) => value,
        };
        let key = KeyConst {
            at: Const::clone(value),
            typed: Typed::Family,
        };
        let read = |value: KeyValue<'_>| match value {
            KeyValue::Int(n) => Ok(u64::try_from(n).ok()),
            _ => Ok(None),
        };
        match value::with_key(&key, KeyType::Int, self.values, read) {
            Ok(Some(n)) => Ok(Some(n)),
            Err(value::Fault::Null) => Ok(None),
            Ok(None) | Err(_) => {
                refuse("LIMIT and OFFSET are merged only if they are whole numbers, zero or more")
            }
        }
    }

    /// What GROUP BY groups by: numbers and names of outputs stand for the outputs.
    fn groups(&self) -> Result<Vec<&'a ExprText>, Refusal> {
        let groups = self.select.groups.iter();
        groups
            .map(|group| match self.output_of_number(group) {
                Some(Some(expr)) => Ok(expr),
                Some(None) => refuse("GROUP BY a number behind * can't be merged: name the column"),
                None => Ok(self.output_or(group, false)),
            })
            .collect()
    }

    /// The output that a number means. `Some(None)`: which it is, is not known.
    fn output_of_number(&self, expr: &ExprText) -> Option<Option<&'a ExprText>> {
        let Whole::Number(hole) = expr.whole else {
            return None;
        };
        Some(self.number(hole).and_then(|at| self.plain_output(at)))
    }

    fn number(&self, hole: u32) -> Option<usize> {
        let hole: &Hole = self.values.holes.get(hole as usize)?;
        let bytes = self
            .values
            .text
            .get(hole.start as usize..hole.end as usize)?;
        std::str::from_utf8(bytes)
            .ok()?
            .parse::<usize>()
            .ok()?
            .checked_sub(1)
    }

    /// Output `at`, if no `*` stands before it.
    fn plain_output(&self, at: usize) -> Option<&'a ExprText> {
        let items = self.select.items.get(..=at)?;
        let mut last = None;
        for item in items {
            match item {
                OutputText::Star(_) => return None,
                OutputText::Expr(expr, _) => last = Some(expr),
            }
        }
        last
    }

    /// The output of the name that the expression is, or the expression. ORDER BY (and DISTINCT ON) prefers outputs,
    /// GROUP BY columns (parse_clause.c, findTargetlistEntrySQL92).
    fn output_or(&self, expr: &'a ExprText, output_first: bool) -> &'a ExprText {
        let [part] = &expr.parts[..] else { return expr };
        let PartKind::Column(column) = &part.what else {
            return expr;
        };
        if expr.whole != Whole::Column || column.table.is_some() {
            return expr;
        }
        if !output_first && !self.spread.is_no_column(part.span.from) {
            return expr;
        }
        let named = self.select.items.iter().find_map(|item| match item {
            OutputText::Expr(output, Some(name)) if *name == column.name => Some(output),
            _ => None,
        });
        named.unwrap_or(expr)
    }

    /// What ORDER BY sorts by.
    fn ordered_by(&self, expr: &'a ExprText) -> Result<&'a ExprText, Refusal> {
        match self.output_of_number(expr) {
            Some(Some(expr)) => return Ok(expr),
            Some(None) => {
                return refuse("ORDER BY a number behind * can't be merged: name the column");
            }
            None => {}
        }
        let by = self.output_or(expr, true);
        let nameless = |item: &OutputText| matches!(item, OutputText::Expr(_, None));
        let might_be_output = std::ptr::eq(by, expr)
            && expr.whole == Whole::Column
            && !self.is_qualified(expr)
            && self.select.items.iter().any(nameless);
        if might_be_output || by.whole == Whole::Column && self.spread.whole_column(by).is_none() {
            return refuse("which column ORDER BY means is not sure: put its table before it");
        }
        Ok(by)
    }

    /// It is a column with its table before it.
    fn is_qualified(&self, expr: &ExprText) -> bool {
        matches!(&expr.parts[..], [part] if matches!(&part.what, PartKind::Column(c) if c.table.is_some()))
    }

    /// The two expressions of this text are the same.
    fn same(&self, one: &ExprText, other: &ExprText) -> bool {
        if let (Some(one), Some(other)) = (
            self.spread.whole_column(one),
            self.spread.whole_column(other),
        ) {
            return one.id == other.id;
        }
        one.tokens == other.tokens && self.literals(one).eq(self.literals(other))
    }

    fn literals(&self, expr: &ExprText) -> impl Iterator<Item = &'a [u8]> {
        let holes = expr.span.from.hole as usize..expr.span.to.hole as usize;
        let holes = self.values.holes.get(holes).unwrap_or_default();
        holes
            .iter()
            .map(|hole| &self.values.text[hole.start as usize..hole.end as usize])
    }

    /// How the texts that an expression (or a part of it) gives compare.
    fn text_key(&self, expr: &ExprText, within: &Span) -> TextKey {
        if expr.opaque {
            return TextKey::Other;
        }
        let bytes = |name: &String| matches!(name.as_str(), "C" | "POSIX" | "ucs_basic");
        if !expr.collations.is_empty() {
            // In the middle of an expression COLLATE may be of a condition, say of CASE.
            let mut tokens = expr.tokens.rsplit(|byte| *byte == 0).skip(2);
            let at_end = *within == expr.span && tokens.next() == Some(b"\"collate");
            return match expr.collations.iter().all(bytes) {
                true if at_end => TextKey::Bytes,
                true => TextKey::Either,
                false => TextKey::Other,
            };
        }
        let mut text = TextKey::Default;
        for part in expr.parts.iter().filter(|part| within.contains(&part.span)) {
            let PartKind::Column(_) = part.what else {
                continue;
            };
            match self.spread.column(part.span.from).map(|c| c.order) {
                Some(TextOrder::Default) => {}
                Some(TextOrder::Bytes) if part.span == *within || expr.whole == Whole::Column => {
                    text = TextKey::Bytes;
                }
                Some(TextOrder::Bytes) => text = TextKey::Either,
                Some(TextOrder::Loose) => return TextKey::Loose,
                Some(TextOrder::Other) | None => return TextKey::Other,
            }
        }
        text
    }

    fn sorted(&self, limits: &Limits) -> Result<Sorted, Refusal> {
        let mut part = Text::default();
        part.copy(&self.select.with).own("SELECT ");
        part.copy(&self.select.distinct.as_ref().map(|d| d.span));
        part.own(" ").copy(&Some(self.select.outputs));
        let mut keys = Vec::new();
        for (n, order) in self.select.orders.iter().enumerate() {
            let by = self.ordered_by(&order.expr)?;
            part.own(", ").copy(&Some(by.span));
            part.own(&format!(" AS {KEY}{}", n + 1));
            keys.push(SortKey {
                desc: order.desc,
                nulls_first: order.nulls_first,
                text: self.text_key(by, &by.span),
            });
        }
        part.own(" ").copy(&self.select.tail);
        part.own(" ").copy(&self.select.grouping);
        part.own(" ").copy(&self.select.ordering);
        part.own(&limits.for_each());
        Ok(Sorted {
            part: part.0,
            keys,
            limit: limits.limit,
            offset: limits.offset,
        })
    }

    fn distinct(&self, limits: &Limits) -> Result<Final, Refusal> {
        let mut orders = Vec::new();
        let plain = (0..self.select.items.len()).map_while(|at| self.plain_output(at));
        let mut texts: Vec<TextKey> = plain
            .map(|output| match self.text_key(output, &output.span) {
                TextKey::Loose => TextKey::Loose,
                _ => TextKey::Default,
            })
            .collect();
        for order in &self.select.orders {
            let by = self.ordered_by(&order.expr)?;
            let mut plain =
                (0..self.select.items.len()).map_while(|at| Some((at, self.plain_output(at)?)));
            let Some((at, _)) = plain.find(|(_, output)| self.same(output, by)) else {
                return refuse(
                    "ORDER BY of a SELECT DISTINCT is merged only if it names one of its columns, none of which is *",
                );
            };
            texts[at] = self.text_key(by, &by.span);
            orders.push((Piece::Compared(at), order.desc, order.nulls_first));
        }
        let mut part = Text::default();
        part.copy(&self.select.with).own("SELECT DISTINCT ");
        part.copy(&Some(self.select.outputs)).own(" ");
        part.copy(&self.select.tail).own(" ");
        part.copy(&self.select.grouping).own(" ");
        part.copy(&self.select.ordering);
        part.own(&limits.for_each());
        let mut last = Text::default();
        last.own("SELECT ").piece(Piece::Columns);
        last.own(" FROM (SELECT DISTINCT ").piece(Piece::Columns);
        last.piece(Piece::Parts).own(") q");
        last.order_by(orders).own(&limits.last());
        Ok(Final {
            part: part.0,
            texts,
            last: last.0,
        })
    }

    fn grouped(&self, groups: &[&'a ExprText], limits: &Limits) -> Result<Final, Refusal> {
        let mut parts = Grouped {
            cook: self,
            columns: Vec::new(),
            groups: Vec::new(),
            plain: groups.iter().all(|g| self.spread.whole_column(g).is_some()),
        };
        for group in groups {
            let text = self.text_key(group, &group.span);
            let column = parts.add(vec![Piece::Copy(group.span)], text, Role::Group);
            parts.groups.push((group, column));
        }
        let mut last = Text::default();
        last.own("SELECT ");
        match &self.select.distinct {
            None => {}
            Some(distinct) if distinct.on.is_none() => drop(last.own("DISTINCT ")),
            Some(_) => return refuse("DISTINCT ON with GROUP BY can't be merged"),
        }
        for (n, item) in self.select.items.iter().enumerate() {
            let OutputText::Expr(expr, _) = item else {
                return refuse("* with GROUP BY can't be merged: name the columns");
            };
            if n > 0 {
                last.own(", ");
            }
            last.0.extend(parts.rewrite(expr)?);
        }
        let mut having = Vec::new();
        if let Some(expr) = &self.select.having {
            having = parts.rewrite(expr)?;
        }
        let mut orders = Vec::new();
        for order in &self.select.orders {
            let by = match self.output_of_number(&order.expr) {
                Some(Some(expr)) => expr,
                Some(None) => return refuse("ORDER BY names no column of the SELECT"),
                None if order.expr.whole == Whole::Column => self.ordered_by(&order.expr)?,
                None => &order.expr,
            };
            let items = self.select.items.iter().enumerate();
            let mut outputs = items.filter_map(|(at, item)| match item {
                OutputText::Expr(output, _) => Some((at, output)),
                OutputText::Star(_) => None,
            });
            let by = match outputs.find(|(_, output)| self.same(output, by)) {
                Some((at, _)) => vec![Piece::Own((at + 1).to_string())],
                None => parts.rewrite(by)?,
            };
            orders.push((by, order.desc, order.nulls_first));
        }
        if parts.columns.is_empty() {
            parts.add(
                vec![Piece::Own("count(*)".to_owned())],
                TextKey::Default,
                Role::Aggregate,
            );
        }
        last.piece(Piece::Parts);
        last.list(
            " GROUP BY ",
            parts
                .by(&[Role::Group])
                .into_iter()
                .map(|c| vec![Piece::Column(c)]),
        );
        if !having.is_empty() {
            last.own(" HAVING ").0.extend(having);
        }
        last.order_by_pieces(orders).own(&limits.last());
        Ok(Final {
            part: parts.part(),
            texts: parts.columns.iter().map(|column| column.text).collect(),
            last: last.0,
        })
    }
}

impl Sorted {
    /// The order of the merged rows, for one statement over several arms; empty without keys. `outputs`: how many
    /// columns the client gets.
    pub fn order(&self, outputs: usize) -> String {
        let keys = self.keys.iter().enumerate().map(|(n, key)| {
            let place = outputs + n + 1;
            format!("{place}{}", direction(key.desc, key.nulls_first))
        });
        let keys: Vec<String> = keys.collect();
        match keys.is_empty() {
            true => String::new(),
            false => format!(" ORDER BY {}", keys.join(", ")),
        }
    }

    /// The rows that are needed of each shard, or of several together.
    pub fn needed(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_add(self.offset))
    }

    /// The same with the sorting left to a last statement. `outputs`: how many columns the client gets.
    pub fn sorted_last(&self, outputs: usize) -> Final {
        let mut last = Text::default();
        last.list("SELECT ", (0..outputs).map(|at| vec![Piece::Column(at)]));
        last.piece(Piece::Parts);
        let mut texts = vec![TextKey::Default; outputs];
        let mut orders = Vec::new();
        for (n, key) in self.keys.iter().enumerate() {
            texts.push(key.text);
            orders.push((Piece::Compared(outputs + n), key.desc, key.nulls_first));
        }
        let limits = Limits {
            limit: self.limit,
            offset: self.offset,
        };
        last.order_by(orders).own(&limits.last());
        Final {
            part: self.part.clone(),
            texts,
            last: last.0,
        }
    }
}

/// Writes what a shard is asked. The pieces are words and stretches of the statement only.
pub fn write_part(
    pieces: &[Piece],
    values: &Values<'_>,
    edits: &[Edit],
    schema: &str,
    out: &mut Vec<u8>,
) {
    for piece in pieces {
        match piece {
            Piece::Own(words) => out.extend_from_slice(words.as_bytes()),
            Piece::Copy(span) => {
                rewrite::splice_part(values.text, values.holes, edits, schema, *span, out);
            }
            _ => {}
        }
    }
}
