//! Families of types: what a parameter in binary form is read as.

use crate::shardmap::KeyType;
use crate::sql::plan::Cast;

/// Types that a parameter's binary form is read alike for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Int,
    Numeric,
    Text,
    Uuid,
}

impl Family {
    pub(super) fn of_cast(cast: Cast) -> Family {
        match cast {
            Cast::Int2 | Cast::Int4 | Cast::Int8 => Family::Int,
            Cast::Numeric => Family::Numeric,
            Cast::Text => Family::Text,
            Cast::Uuid => Family::Uuid,
        }
    }

    pub(super) fn of_key(key_type: KeyType) -> Family {
        match key_type {
            KeyType::Int => Family::Int,
            KeyType::Text => Family::Text,
            KeyType::Uuid => Family::Uuid,
        }
    }

    pub(super) fn of_type(oid: u32) -> Option<Family> {
        match oid {
            20 | 21 | 23 => Some(Family::Int),
            1700 => Some(Family::Numeric),
            25 | 1043 => Some(Family::Text),
            2950 => Some(Family::Uuid),
            _ => None,
        }
    }
}
