//! From what is written to what is meant: every fault is found in one pass.

use super::{Fault, ShardMap};

pub(super) fn map(
    file: &str,
    _text: &str,
    _env: &dyn Fn(&str) -> Option<String>,
) -> Result<ShardMap, Vec<Fault>> {
    Err(vec![Fault {
        file: file.into(),
        line: 0,
        column: 0,
        key: String::new(),
        what: "can't be read yet".into(),
        mend: String::new(),
    }])
}
