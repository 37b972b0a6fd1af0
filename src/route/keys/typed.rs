//! Of what type the server takes a value that decides the shard: of its column's, or of the one that other uses of the same parameter
//! give it.

use std::collections::HashMap;

use crate::route::columns::{ColumnId, Origin};
use crate::route::families::Family;
use crate::route::rules::{KeyConst, Typed};
use crate::shardmap::KeyType;
use crate::sql::plan::{Body, Const, ConstFrom, LevelId, Source, Term, TypedBy};

use super::Keys;

impl Keys<'_, '_> {
    pub(super) fn key_const(&self, value: &Const, key_type: KeyType) -> KeyConst {
        let typed = match value.from {
            ConstFrom::Param(n) => self.typed(n, value, key_type),
            ConstFrom::Hole(_) | ConstFrom::Null => Typed::Family,
        };
        KeyConst {
            at: value.clone(),
            typed,
        }
    }

    /// Whether the server is sure to give a parameter the type that this use of it suggests.
    fn typed(&self, n: u16, value: &Const, key_type: KeyType) -> Typed {
        let family = match value.casts.first() {
            Some(cast) => Family::of_cast(*cast),
            None => Family::of_key(key_type),
        };
        let families = self.families.get_or_init(|| {
            let mut families = HashMap::new();
            for param in &self.plan.params {
                let here = self.family(&param.with);
                let all = families.entry(param.param).or_insert(here);
                if *all != here {
                    *all = None;
                }
            }
            families
        });
        match families.get(&n) {
            Some(Some(all)) if *all == family => Typed::Family,
            _ => Typed::Unsure,
        }
    }

    fn family(&self, with: &TypedBy) -> Option<Family> {
        match with {
            TypedBy::Cast(cast) => Some(Family::of_cast(*cast)),
            TypedBy::Column(level, column) => {
                self.family_of_column(self.scope.resolve(*level, column)?)
            }
            TypedBy::Target(level, column) => self.family_of_target(*level, column),
            TypedBy::Row(source, at) => {
                let mut inserts = (0..self.plan.levels.len()).filter(|level| {
                    matches!(self.plan.levels[*level].body, Body::Insert { source: Some(s), .. } if s == *source)
                });
                let level = inserts.next()?;
                let Body::Insert { columns, .. } = &self.plan.levels[level].body else {
                    return None;
                };
                match columns {
                    Some(columns) => self.family_of_target(level, columns.get(*at)?),
                    None => Family::of_type(self.scope.table(level, 0)?.columns.get(*at)?.type_oid),
                }
            }
            TypedBy::Unknown => None,
        }
    }

    fn family_of_target(&self, level: LevelId, column: &str) -> Option<Family> {
        let table = self.scope.table(level, 0)?;
        let column = table.columns.iter().find(|c| c.name == column)?;
        Family::of_type(column.type_oid)
    }

    fn family_of_column(&self, column: ColumnId) -> Option<Family> {
        match &self.plan.levels[column.level].items[column.item].source {
            Source::Table(_) | Source::Excluded => {
                let table = self.scope.table(column.level, column.item)?;
                Family::of_type(table.columns.get(column.column)?.type_oid)
            }
            Source::Level(inner) => match self.scope.origin(*inner, column.column)? {
                Origin::Item(item, column) => self.family_of_column(ColumnId {
                    level: *inner,
                    item,
                    column,
                }),
                Origin::Term(Term::Column(name)) => {
                    self.family_of_column(self.scope.resolve(*inner, name)?)
                }
                Origin::Term(_) => None,
            },
            Source::Function(_) | Source::Unnest(_) => None,
        }
    }
}
