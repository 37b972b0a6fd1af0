//! Session settings (GUCs) as the statements that bring them about, and the difference between two sets of them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The settings that differ from the server's defaults, by GUC name in lower case.
/// Two sessions with equal sets may use each other's server connections as they are. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings(Arc<BTreeMap<String, Set>>);

/// How a setting is brought about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Set {
    /// The statement, for the session: `SET "timezone" TO 'UTC'`. ASCII, so that it means the same in all encodings.
    pub sql: Arc<str>,
    /// What it sets depends on the value before, which is to be the default (`SET datestyle TO 'ISO'` leaves the order
    /// of day and month as it is).
    pub relative: bool,
    /// See [`Set::is_default`].
    default: bool,
    /// The statement of the role under which it was set; `None`: that of the login. Another one may not be allowed to.
    role: Option<Arc<str>>,
}

impl From<String> for Set {
    fn from(sql: String) -> Set {
        Set {
            sql: sql.into(),
            relative: false,
            default: false,
            role: None,
        }
    }
}

impl Set {
    /// As `sql` sets it if the value before is the default.
    pub fn relative(sql: String) -> Set {
        Set {
            relative: true,
            ..Set::from(sql)
        }
    }

    /// The statements that bring it about whatever the value was before.
    pub fn steps(&self, name: &str) -> Vec<String> {
        match self.relative {
            true => vec![reset(name), self.sql.to_string()],
            false => vec![self.sql.to_string()],
        }
    }

    /// The same, known to be what RESET goes back to.
    pub fn as_default(self) -> Set {
        Set {
            default: true,
            ..self
        }
    }

    /// Whether it is what RESET goes back to, and was set as that (`SET LOCAL datestyle TO DEFAULT`).
    pub fn is_default(&self) -> bool {
        self.default
    }

    /// The same until the end of the transaction only.
    pub fn local_steps(&self, name: &str) -> Vec<String> {
        match self.relative {
            true => vec![
                format!("SET LOCAL {} TO DEFAULT", quote_dotted(name)),
                local_form(&self.sql),
            ],
            false => vec![local_form(&self.sql)],
        }
    }
}

/// `RESET ALL` leaves these alone (guc.c, `GUC_NO_RESET_ALL`).
const NO_RESET_ALL: &[&str] = &["role", "session_authorization", "seed"];

impl Settings {
    /// How `name` is set, if it is.
    pub fn get(&self, name: &str) -> Option<&Set> {
        self.0.get(name)
    }

    /// Whether both are the same set. One comparison of pointers in the usual case.
    pub fn same(&self, other: &Settings) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }

    /// This set with `name` brought about like this, under the role that is in force.
    pub fn with(&self, name: &str, set: impl Into<Set>) -> Settings {
        let name = name.to_ascii_lowercase();
        let mut set = set.into();
        if name != ROLE {
            set.role = self.role().cloned();
        }
        let mut all = BTreeMap::clone(&self.0);
        all.insert(name, set);
        Settings(Arc::new(all))
    }

    /// This set with `name` as it is in `other`.
    pub fn with_that_of(&self, other: &Settings, name: &str) -> Settings {
        if self.get(name) == other.get(name) {
            return self.clone();
        }
        let mut all = BTreeMap::clone(&self.0);
        match other.get(name) {
            Some(set) => drop(all.insert(name.to_owned(), set.clone())),
            None => drop(all.remove(name)),
        }
        Settings(Arc::new(all))
    }

    /// This set with `name` at the server's default.
    pub fn without(&self, name: &str) -> Settings {
        self.with_that_of(&Settings::default(), name)
    }

    /// What `RESET ALL` makes of this set, where `base` is what it goes back to.
    pub fn reset_all(&self, base: &Settings) -> Settings {
        let kept = NO_RESET_ALL.iter();
        kept.fold(base.clone(), |base, name| base.with_that_of(self, name))
    }

    /// The statements that set all of this set which `RESET ALL` has set back.
    pub fn behind_reset_all(&self) -> Vec<String> {
        let sets = self.0.iter();
        sets.filter(|(name, _)| !NO_RESET_ALL.contains(&name.as_str()))
            .flat_map(|(name, set)| set.steps(name))
            .collect()
    }

    fn role(&self) -> Option<&Arc<str>> {
        self.get(ROLE).map(|set| &set.sql)
    }

    /// The statements that bring a server connection from `self` to `wanted`. Names in `unsure` are set anew whatever
    /// `self` says of them.
    pub fn difference(&self, wanted: &Settings, unsure: &[String]) -> Vec<String> {
        if unsure.is_empty() && self.same(wanted) {
            return Vec::new();
        }
        let gone = self
            .0
            .keys()
            .chain(unsure)
            .filter(|name| !wanted.0.contains_key(*name) && *name != ROLE);
        // A short limit of the session before must not hit what follows: it goes first.
        let late = |name: &str| name != "statement_timeout";
        let mut steps: Vec<(bool, Option<&Arc<str>>, String)> = Vec::new();
        for name in gone {
            let role = self.get(name).and_then(|set| set.role.as_ref());
            steps.push((late(name), role, reset(name)));
        }
        for (name, set) in wanted.0.iter().filter(|(name, _)| *name != ROLE) {
            if self.get(name) != Some(set) || unsure.contains(name) {
                let sql = set.steps(name).into_iter();
                steps.extend(sql.map(|sql| (late(name), set.role.as_ref(), sql)));
            }
        }
        let unsure_role = unsure.iter().any(|name| name == ROLE);
        if self.role() == wanted.role() && !unsure_role && steps.is_empty() {
            return Vec::new();
        }
        let mut role = (!unsure_role).then_some(self.role());
        // Those of one role together, beginning with the one in force.
        steps.sort_by_key(|(late, by, _)| (*late, Some(*by) != role, *by));
        let mut sql = Vec::new();
        for (_, by, step) in steps {
            switch(&mut sql, &mut role, by);
            sql.push(step);
        }
        switch(&mut sql, &mut role, wanted.role());
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

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Set)> {
        self.0.iter().map(|(name, set)| (name.as_str(), set))
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

const ROLE: &str = "role";

/// Makes `to` the role in force; `None` around it: it is not known which is.
fn switch<'a>(
    sql: &mut Vec<String>,
    role: &mut Option<Option<&'a Arc<str>>>,
    to: Option<&'a Arc<str>>,
) {
    if *role != Some(to) {
        sql.push(to.map_or_else(|| reset(ROLE), |to| to.to_string()));
        *role = Some(to);
    }
}

/// The statement that sets a GUC back to its default.
pub fn reset(name: &str) -> String {
    format!("RESET {}", quote_dotted(name))
}

/// The statement that sets a GUC to a plain value, as in a startup packet.
pub fn set_config(name: &str, value: &str) -> String {
    // A list of names must be read by Postgres' own rules, which `SET name TO 'value'` does not: there it is one name. The
    // function takes a snapshot, so it is not used where it need not be.
    if ["search_path", "temp_tablespaces"].contains(&name) {
        return format!(
            "SELECT pg_catalog.set_config({}, {}, false)",
            literal(name),
            literal(value)
        );
    }
    format!("SET {} TO {}", quote_dotted(name), literal(value))
}

/// Whether the statement (of [`set_config`]) takes a snapshot, after which no isolation level can be chosen.
pub fn takes_snapshot(sql: &str) -> bool {
    sql.starts_with("SELECT")
}

/// A statement that sets something for the session, made to hold for the transaction.
fn local_form(session: &str) -> String {
    if let Some(call) = session.strip_suffix(", false)") {
        return format!("{call}, true)");
    }
    match session.strip_prefix("SET ") {
        Some(rest) => format!("SET LOCAL {rest}"),
        None => session.to_owned(),
    }
}

/// `text` as a string literal, safe whatever it holds, and in ASCII.
pub fn literal(text: &str) -> String {
    if text.is_ascii() && !text.contains('\\') {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut escaped = String::from("E'");
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\'' => escaped.push_str("''"),
            c if c.is_ascii() => escaped.push(c),
            c => escaped.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    escaped.push('\'');
    escaped
}

/// A GUC name as identifiers: `"app"."user"`.
pub fn quote_dotted(name: &str) -> String {
    let parts: Vec<_> = name
        .split('.')
        .map(|p| format!("\"{}\"", p.replace('"', "\"\"")))
        .collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(settings: &Settings, name: &str, sql: &str) -> Settings {
        settings.with(name, sql.to_owned())
    }

    #[test]
    fn difference_sets_resets_and_leaves_alone() {
        let a = set(&Settings::default(), "TimeZone", "SET TIME ZONE 'UTC'");
        let a = set(&a, "datestyle", "SET datestyle TO iso");
        let b = set(&a.without("timezone"), "work_mem", "SET work_mem TO '1MB'");
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
    fn a_setting_is_set_under_the_role_that_it_was_set_under() {
        let login = set(&Settings::default(), "a", "SET a TO 1");
        let admin = set(&set(&login, "role", "SET ROLE admin"), "b", "SET b TO 2");
        let other = set(&admin, "role", "SET ROLE other");
        let none = Settings::default();
        assert_eq!(
            none.difference(&other, &[]),
            [
                "SET a TO 1",
                "SET ROLE admin",
                "SET b TO 2",
                "SET ROLE other"
            ]
        );
        assert_eq!(
            other.difference(&admin, &[]),
            ["SET ROLE admin"],
            "nothing else is different"
        );
        assert_eq!(
            admin.difference(&none, &[]),
            ["RESET \"b\"", "RESET \"role\"", "RESET \"a\""]
        );
        assert_eq!(
            admin.reset_all(&none).difference(&admin, &[]),
            [
                "SET b TO 2",
                "RESET \"role\"",
                "SET a TO 1",
                "SET ROLE admin"
            ]
        );
    }

    #[test]
    fn what_depends_on_the_value_before_begins_at_the_default() {
        let relative = Set::relative("SET \"datestyle\" TO 'ISO'".to_owned());
        let a = Settings::default().with("datestyle", relative.clone());
        assert_eq!(
            Settings::default().difference(&a, &[]),
            ["RESET \"datestyle\"", "SET \"datestyle\" TO 'ISO'"]
        );
        assert_eq!(
            relative.local_steps("datestyle"),
            [
                "SET LOCAL \"datestyle\" TO DEFAULT",
                "SET LOCAL \"datestyle\" TO 'ISO'"
            ]
        );
    }

    #[test]
    fn values_cannot_break_out_of_their_literal() {
        assert_eq!(set_config("a.b", "it's"), "SET \"a\".\"b\" TO 'it''s'");
        assert_eq!(
            local_form(&set_config("search_path", "it's")),
            "SELECT pg_catalog.set_config('search_path', 'it''s', true)"
        );
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
        assert_eq!(literal("é'"), "E'\\U000000e9'''");
    }
}
