//! Recovery: prepared transactions of ours that nobody ends any more are ended as their decision says, and decision rows
//! that are of no more use are deleted. Any presplit can do it, and any number of them at once.
//!
//! Of a prepared transaction that was found on a host, its name says which database decides. There
//! [`crate::twophase::ask`] tells in one transaction (1) whether its part has ended and (2) whether there is a row.
//! * A row: it is committed, whatever else is true. Rows are written by that part alone, with its COMMIT.
//! * No row, and the part had ended before we looked: it is rolled back. The part took the lock before the first PREPARE,
//!   and we have seen a PREPARE, so the free lock means that it has ended and not that it has yet to begin; a commit of it
//!   would show. It can't write a row any more. Had there been a row that is deleted by now, then no host would have the
//!   transaction any more, ours neither: our ROLLBACK PREPARED finds nothing.
//! * Else it is open, and left alone.
//!
//! Whoever asks is told the same, so that it does not matter who comes first: the others hear 42704 and are done.
//! Everything here has a time limit. What is cut off by it, or by a host that goes down, is begun anew by the next look.

mod host;
mod hosts;
mod login;
mod pass;
mod rows;
mod table;

pub use host::{Found, Greeting, Host, LIMIT};
pub use hosts::Hosts;
pub use login::Login;
pub use pass::{Look, pass};
pub use rows::{Rows, delete_done, rows_of, sweep};
pub use table::{Lack, make_table};
