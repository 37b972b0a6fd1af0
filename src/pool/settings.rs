//! Session settings (GUCs) as the statements that bring them about, and the difference between two sets of them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The settings that differ from the server's defaults: GUC name in lower case -> the statement that sets it
/// (`SET TIME ZONE 'UTC'`, `SELECT pg_catalog.set_config('datestyle', 'ISO, DMY', false)`).
/// Two sessions with equal sets may use each other's server connections as they are. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings(Arc<BTreeMap<String, String>>);

impl Settings {
    /// The statement that sets `name`, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether both are the same set. One comparison of pointers in the usual case.
    pub fn same(&self, other: &Settings) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }

    /// This set with `name` brought about by `sql`.
    pub fn with(&self, name: &str, sql: String) -> Settings {
        let mut all = BTreeMap::clone(&self.0);
        all.insert(name.to_ascii_lowercase(), sql);
        Settings(Arc::new(all))
    }

    /// This set with `name` at the server's default.
    pub fn without(&self, name: &str) -> Settings {
        if !self.0.contains_key(name) {
            return self.clone();
        }
        let mut all = BTreeMap::clone(&self.0);
        all.remove(name);
        Settings(Arc::new(all))
    }

    /// The statements that bring a server connection from `self` to `wanted`. Names in `unsure` are set anew whatever
    /// `self` says of them.
    pub fn difference(&self, wanted: &Settings, unsure: &[String]) -> Vec<String> {
        let mut sql = Vec::new();
        let gone = self
            .0
            .keys()
            .chain(unsure)
            .filter(|name| !wanted.0.contains_key(*name));
        for name in gone {
            sql.push(format!("RESET {}", quote_dotted(name)));
        }
        for (name, set) in wanted.0.iter() {
            if self.get(name) != Some(set) || unsure.contains(name) {
                sql.push(set.clone());
            }
        }
        sql
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are the very same set, by one comparison of pointers.
    pub fn is(&self, other: &Settings) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The statements that bring the settings about, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, sql)| (name.as_str(), sql.as_str()))
    }

    /// The names whose settings differ between the two sets.
    pub fn changed_names(&self, other: &Settings) -> Vec<String> {
        let names = self.0.keys().chain(other.0.keys());
        let changed = names.filter(|name| self.0.get(*name) != other.0.get(*name));
        let mut changed: Vec<_> = changed.cloned().collect();
        changed.sort();
        changed.dedup();
        changed
    }
}

/// The statement that sets a GUC to a plain value, as in a startup packet (also right for lists such as `search_path`).
pub fn set_config(name: &str, value: &str) -> String {
    format!(
        "SELECT pg_catalog.set_config({}, {}, false)",
        literal(name),
        literal(value)
    )
}

/// `text` as a string literal, safe whatever it holds.
pub fn literal(text: &str) -> String {
    if text.contains('\\') {
        return format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// A GUC name as identifiers: `"app"."user"`.
fn quote_dotted(name: &str) -> String {
    let parts: Vec<_> = name
        .split('.')
        .map(|p| format!("\"{}\"", p.replace('"', "\"\"")))
        .collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_sets_resets_and_leaves_alone() {
        let a = Settings::default()
            .with("TimeZone", "SET TIME ZONE 'UTC'".into())
            .with("datestyle", "SET datestyle TO iso".into());
        let b = a
            .without("timezone")
            .with("work_mem", "SET work_mem TO '1MB'".into());
        assert!(a.difference(&a, &[]).is_empty());
        assert_eq!(
            a.difference(&b, &[]),
            ["RESET \"timezone\"", "SET work_mem TO '1MB'"]
        );
        assert_eq!(
            b.difference(&b, &["datestyle".into()]),
            ["SET datestyle TO iso"]
        );
        assert_eq!(b.difference(&b, &["role".into()]), ["RESET \"role\""]);
    }

    #[test]
    fn values_cannot_break_out_of_their_literal() {
        assert_eq!(
            set_config("a", "it's"),
            "SELECT pg_catalog.set_config('a', 'it''s', false)"
        );
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }
}
