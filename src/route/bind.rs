//! stub
use super::{Bound, Tables};
use crate::sql::plan::{Plan, Unreadable};
/// stub
pub fn bind(_plan: &Plan, _tables: &Tables) -> Bound { unreachable!() }
/// stub
pub fn bind_unreadable(_text: &Unreadable, _tables: &Tables) -> Bound { unreachable!() }
