//! From text to plan. Only this module knows sqlparser.

use super::plan::{Plan, Unreadable};
use super::shape::Shape;

/// What the parser may spend on one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest text, in bytes.
    pub text: usize,
    /// The most tokens of a text.
    pub tokens: usize,
    /// How deep parentheses and subqueries may go.
    pub depth: usize,
}

/// stub
pub fn plan(_text: &str, _shape: &Shape, _limits: &Limits) -> Result<Plan, Unreadable> { unreachable!() }
