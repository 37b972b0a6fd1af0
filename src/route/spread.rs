//! What a read over several shards needs of the catalog to be written anew: which of its columns are keys, and how its
//! texts are sorted. Made once per shape; [`super::recipe`] does the rest for each execution.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Collation;
use crate::sql::plan::{Column, LevelId, Source};
use crate::sql::rewrite::Pos;
use crate::sql::select::{ExprText, OutputText, PartKind, SelectText};

use super::columns::{ColumnId, Scope};
use super::local::{self, is_key};

/// A SELECT that may be asked of several shards.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    pub(super) select: SelectText,
    /// What is known of the columns in it, by where they begin.
    columns: BTreeMap<Pos, Known>,
    /// Names that are surely no columns of FROM, by where they begin.
    no_columns: BTreeSet<Pos>,
    /// `*` or `table.*` gives a key, by its place among the outputs.
    key_stars: Vec<usize>,
}

/// What is known of a column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) id: ColumnId,
    /// It is a table's key, never null: rows of several shards never have the same.
    pub(super) is_key: bool,
    pub(super) order: TextOrder,
}

/// How texts are sorted (if it is text at all, which is not known here).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextOrder {
    /// As the database does by default.
    Default,
    /// By their bytes.
    Bytes,
    /// In a way that can't be said again.
    Other,
    /// So too, and texts of other bytes may be equal.
    Loose,
}

impl Spread {
    pub(super) fn new(scope: &Scope<'_>, root: LevelId, select: &SelectText) -> Spread {
        let mut columns = BTreeMap::new();
        let mut no_columns = BTreeSet::new();
        for expr in exprs(select) {
            for part in &expr.parts {
                let PartKind::Column(column) = &part.what else {
                    continue;
                };
                if let Some(known) = known(scope, root, column) {
                    columns.insert(part.span.from, known);
                } else if scope.is_no_column(root, column) {
                    no_columns.insert(part.span.from);
                }
            }
        }
        let key_stars = select.items.iter().enumerate();
        let key_stars = key_stars.filter(|(_, item)| match item {
            OutputText::Star(table) => gives_key(scope, root, table.as_deref()),
            OutputText::Expr(..) => false,
        });
        Spread {
            columns,
            no_columns,
            key_stars: key_stars.map(|(at, _)| at).collect(),
            select: select.clone(),
        }
    }

    /// The column that begins there.
    pub(super) fn column(&self, at: Pos) -> Option<&Known> {
        self.columns.get(&at)
    }

    /// The name that begins there is surely no column of FROM.
    pub(super) fn is_no_column(&self, at: Pos) -> bool {
        self.no_columns.contains(&at)
    }

    pub(super) fn is_key_star(&self, output: usize) -> bool {
        self.key_stars.contains(&output)
    }

    /// The column that an expression is, if it is just that.
    pub(super) fn whole_column(&self, expr: &ExprText) -> Option<&Known> {
        match &expr.parts[..] {
            [part] if expr.whole == crate::sql::select::Whole::Column => {
                self.column(part.span.from)
            }
            _ => None,
        }
    }
}

fn exprs(select: &SelectText) -> impl Iterator<Item = &ExprText> {
    let items = select.items.iter().filter_map(|item| match item {
        OutputText::Star(_) => None,
        OutputText::Expr(expr, _) => Some(expr),
    });
    let on = select
        .distinct
        .iter()
        .filter_map(|distinct| distinct.on.as_ref());
    items
        .chain(&select.groups)
        .chain(&select.having)
        .chain(select.orders.iter().map(|order| &order.expr))
        .chain(on.flatten())
}

fn known(scope: &Scope<'_>, root: LevelId, column: &Column) -> Option<Known> {
    let id = scope.resolve(root, column)?;
    Some(Known {
        id,
        is_key: id.level == root && !scope.is_nullable(root, id.item) && is_key(scope, id),
        order: text_order(scope, id),
    })
}

fn text_order(scope: &Scope<'_>, column: ColumnId) -> TextOrder {
    if let Source::Level(inner) = scope.plan.levels[column.level].items[column.item].source {
        return match scope.given(inner, column.column) {
            Some(given) if given.level == inner => text_order(scope, given),
            _ => TextOrder::Other,
        };
    }
    let table = scope.table(column.level, column.item);
    match table.and_then(|table| table.columns.get(column.column)) {
        Some(column) => match column.collation {
            Collation::None | Collation::Database => TextOrder::Default,
            Collation::Bytes => TextOrder::Bytes,
            Collation::Deterministic => TextOrder::Other,
            Collation::Nondeterministic => TextOrder::Loose,
        },
        None => TextOrder::Other,
    }
}

/// `*` of the items that it names has the key of one whose rows are not made up by an outer join.
fn gives_key(scope: &Scope<'_>, root: LevelId, table: Option<&str>) -> bool {
    let items = 0..scope.plan.levels[root].items.len();
    let keyed = |item: usize| {
        let keyed = match &scope.plan.levels[root].items[item].source {
            Source::Level(inner) => local::gives_key(scope, *inner),
            _ => scope.table(root, item).is_some_and(|of| {
                (0..of.columns.len()).any(|column| {
                    is_key(
                        scope,
                        ColumnId {
                            level: root,
                            item,
                            column,
                        },
                    )
                })
            }),
        };
        keyed && !scope.is_nullable(root, item)
    };
    items
        .into_iter()
        .filter(|item| table.is_none_or(|table| scope.is_called(root, *item, None, table)))
        .any(keyed)
}
