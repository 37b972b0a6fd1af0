//! Reads DDL by its words (gram.y): which objects it names, which tables they are tied to, which columns it makes. What
//! is not of a form that is known here has no [`Ddl`], and is refused by `route`.

mod words;

use super::cut::{Raw, RawKind, matching};
use super::name;
use crate::sql::ddl::{Act, Change, ColumnDdl, Ddl, ObjectKind, Run, Tie};
use crate::sql::plan::{Place, SchemaRef, TableRef};
use crate::sql::rewrite::Pos;
use crate::sql::shape::Hole;

/// Reads a statement that is no query; `None` if it is none that is known here.
pub(super) fn read(text: &[u8], holes: &[Hole], raws: &[Raw]) -> Option<Box<Ddl>> {
    let mut reader = Reader {
        text,
        holes,
        raws,
        at: 0,
    };
    let mut ddl = reader.statement()?;
    ddl.schemas = reader.public_names();
    Some(Box::new(ddl))
}

struct Reader<'t> {
    text: &'t [u8],
    holes: &'t [Hole],
    raws: &'t [Raw],
    at: usize,
}

/// A DDL of nothing yet.
fn of(act: Act, kind: ObjectKind) -> Ddl {
    Ddl {
        act,
        kind,
        objects: Vec::new(),
        refers: Vec::new(),
        columns: Vec::new(),
        changes: Vec::new(),
        schemas: Vec::new(),
        run: Run::Together,
        if_exists: false,
        index: None,
    }
}

/// Words that end a column's type.
const AFTER_TYPE: &[&str] = &[
    "constraint",
    "not",
    "null",
    "check",
    "default",
    "generated",
    "unique",
    "primary",
    "references",
    "collate",
];

impl Reader<'_> {
    fn statement(&mut self) -> Option<Ddl> {
        let verb = self.word(0)?.to_owned();
        self.at = 1;
        match verb.as_str() {
            "create" => self.create(),
            "alter" => self.alter(),
            "drop" => self.drop(),
            "comment" => self.comment(),
            "grant" | "revoke" => self.grant(),
            "truncate" => {
                self.eat("table");
                let mut ddl = of(Act::Truncate, ObjectKind::Table);
                ddl.objects = self.tables()?;
                Some(ddl)
            }
            "vacuum" | "analyze" | "analyse" => self.vacuum(verb == "vacuum"),
            "cluster" => self.cluster(),
            "reindex" => self.reindex(),
            "refresh" => {
                self.eat_all(&["materialized", "view"]).then_some(())?;
                self.eat("concurrently");
                self.about(Act::Maintain, ObjectKind::View)
            }
            "lock" => {
                self.eat("table");
                let mut ddl = of(Act::Lock, ObjectKind::Table);
                ddl.objects = self.tables()?;
                Some(ddl)
            }
            _ => None,
        }
    }

    fn create(&mut self) -> Option<Ddl> {
        self.eat_all(&["or", "replace"]);
        for word in ["unlogged", "recursive", "trusted"] {
            self.eat(word);
        }
        if self.eat("table") {
            return self.create_table();
        }
        let materialized = self.eat("materialized");
        if self.eat("view") {
            self.if_not_exists();
            return self.about(Act::Create, ObjectKind::View);
        }
        if materialized {
            return None;
        }
        self.eat("unique");
        if self.eat("index") {
            return self.create_index();
        }
        if self.eat("sequence") {
            self.if_not_exists();
            let ddl = self.about(Act::Create, ObjectKind::Sequence)?;
            return self.owned_by(ddl);
        }
        if let Some(kind) = self.routine_or_type() {
            self.if_not_exists();
            return self.about(Act::Create, kind);
        }
        self.eat("constraint");
        for (kind, before) in [
            ("trigger", "on"),
            ("policy", "on"),
            ("rule", "to"),
            ("statistics", "from"),
        ] {
            if self.eat(kind) {
                self.skip_to(before)?;
                self.eat("only");
                return self.about(Act::Create, ObjectKind::Table);
            }
        }
        None
    }

    fn create_table(&mut self) -> Option<Ddl> {
        self.if_not_exists();
        let mut ddl = of(Act::Create, ObjectKind::Table);
        ddl.objects.push(self.table()?);
        if self.eat_all(&["partition", "of"]) {
            ddl.refers.push((Tie::Same, self.table()?));
        } else if self.eat("of") {
            return None;
        }
        if self.is_punct(b'(') {
            let close = matching(self.text, self.raws, self.at)?;
            for (from, to) in self.elements(self.at + 1, close) {
                self.element(from, to, &mut ddl)?;
            }
            self.at = close + 1;
        }
        while self.at < self.raws.len() {
            if self.eat("inherits") && self.is_punct(b'(') {
                let close = matching(self.text, self.raws, self.at)?;
                for (from, _) in self.elements(self.at + 1, close) {
                    self.at = from;
                    ddl.refers.push((Tie::Same, self.table()?));
                }
                self.at = close + 1;
            } else if self.is_punct(b'(') {
                self.at = matching(self.text, self.raws, self.at)? + 1;
            } else {
                if self.word(self.at) == Some("as") {
                    ddl.act = Act::CreateAs;
                }
                self.at += 1;
            }
        }
        self.references(&mut ddl)?;
        Some(ddl)
    }

    /// One element between the parentheses of CREATE TABLE.
    fn element(&mut self, from: usize, to: usize, ddl: &mut Ddl) -> Option<()> {
        self.at = from;
        match self.word(from) {
            Some("like") => {
                self.at += 1;
                ddl.refers.push((Tie::Same, self.table()?));
            }
            Some("constraint" | "primary" | "unique" | "check" | "foreign" | "exclude") => {}
            _ => ddl.columns.extend(self.column(from, to)),
        }
        Some(())
    }

    /// A column's definition; `None` if it has no type (a column of a partition, of CREATE TABLE AS).
    fn column(&self, from: usize, to: usize) -> Option<ColumnDdl> {
        let named = name(self.raws.get(from)?)?.to_owned();
        let mut at = from + 1;
        if at >= to {
            return Some(ColumnDdl {
                name: named,
                type_name: String::new(),
                counts: false,
            });
        }
        // pg_catalog.int8
        while self.punct_at(at + 1, b'.') && at + 2 < to {
            at += 2;
        }
        let type_name = match self.word(at) {
            Some(word) if AFTER_TYPE.contains(&word) => String::new(),
            _ => name(self.raws.get(at)?).unwrap_or_default().to_owned(),
        };
        let serial = matches!(
            type_name.as_str(),
            "serial" | "serial2" | "serial4" | "serial8" | "bigserial" | "smallserial"
        );
        let identity = (at..to).any(|at| {
            self.word(at) == Some("as") && self.word(at + 1) == Some("identity") && at + 1 < to
        });
        Some(ColumnDdl {
            name: named,
            type_name,
            counts: serial || identity,
        })
    }

    fn create_index(&mut self) -> Option<Ddl> {
        let mut ddl = of(Act::Create, ObjectKind::Table);
        if self.eat("concurrently") {
            ddl.run = Run::Alone;
        }
        self.if_not_exists();
        if self.word(self.at) != Some("on") {
            ddl.index = Some(name(self.raws.get(self.at)?)?.to_owned());
            self.at += 1;
        }
        self.eat("on").then_some(())?;
        self.eat("only");
        ddl.objects.push(self.table()?);
        Some(ddl)
    }

    fn alter(&mut self) -> Option<Ddl> {
        if self.has_all(&["set", "schema"]) || self.word(self.at + 1) == Some("all") {
            return None;
        }
        if let Some(ddl) = self.on_table(Act::Alter) {
            return Some(ddl);
        }
        let kind = self.kind()?;
        if kind == ObjectKind::Table {
            return self.alter_table();
        }
        let mut ddl = of(Act::Alter, kind);
        ddl.if_exists = self.eat_all(&["if", "exists"]);
        ddl.objects.push(self.table()?);
        match kind {
            ObjectKind::Sequence => self.owned_by(ddl),
            _ => Some(ddl),
        }
    }

    fn alter_table(&mut self) -> Option<Ddl> {
        let mut ddl = of(Act::Alter, ObjectKind::Table);
        ddl.if_exists = self.eat_all(&["if", "exists"]);
        self.eat("only");
        ddl.objects.push(self.table()?);
        self.eat_star();
        for (from, to) in self.elements(self.at, self.raws.len()) {
            self.at = from;
            self.action(to, &mut ddl)?;
        }
        self.references(&mut ddl)?;
        Some(ddl)
    }

    /// One action of ALTER TABLE.
    fn action(&mut self, to: usize, ddl: &mut Ddl) -> Option<()> {
        if self.eat("rename") {
            if self.eat("to") {
                ddl.changes.push(Change::RenameTo(self.ident()?));
            } else if !self.eat("constraint") {
                self.eat("column");
                let from = self.ident()?;
                self.eat("to").then_some(())?;
                ddl.changes.push(Change::Rename(from, self.ident()?));
            }
        } else if self.eat("drop") {
            if !self.eat("constraint") {
                self.eat("column");
                self.eat_all(&["if", "exists"]);
                ddl.changes.push(Change::Drop(self.ident()?));
            }
        } else if self.eat("alter") {
            if !self.eat("constraint") {
                self.eat("column");
                self.alter_column(to, ddl)?;
            }
        } else if self.eat("add") {
            let constraint = [
                "constraint",
                "primary",
                "unique",
                "check",
                "foreign",
                "exclude",
            ];
            if !constraint.iter().any(|c| self.word(self.at) == Some(c)) {
                self.eat("column");
                self.if_not_exists();
                ddl.columns.extend(self.column(self.at, to));
            }
        } else if self.eat_all(&["attach", "partition"]) {
            ddl.refers.push((Tie::Same, self.table()?));
        } else if self.eat_all(&["detach", "partition"]) {
            ddl.refers.push((Tie::Same, self.table()?));
            if self.eat("concurrently") {
                ddl.run = Run::Alone;
            }
        } else if self.eat("inherit") || self.eat_all(&["no", "inherit"]) {
            ddl.refers.push((Tie::Same, self.table()?));
        }
        Some(())
    }

    fn alter_column(&mut self, to: usize, ddl: &mut Ddl) -> Option<()> {
        let column = self.ident()?;
        self.eat_all(&["set", "data"]);
        if self.eat("type") {
            let mut at = self.at;
            while self.punct_at(at + 1, b'.') && at + 2 < to {
                at += 2;
            }
            let type_name = name(self.raws.get(at)?)?.to_owned();
            ddl.changes.push(Change::Type(column, type_name));
        } else if self.eat("add") {
            ddl.columns.push(ColumnDdl {
                name: column,
                type_name: String::new(),
                counts: true,
            });
        }
        Some(())
    }

    fn drop(&mut self) -> Option<Ddl> {
        if let Some(mut ddl) = self.on_table(Act::Drop) {
            ddl.if_exists = self.has_all(&["if", "exists"]);
            return Some(ddl);
        }
        let kind = self.kind()?;
        let mut ddl = of(Act::Drop, kind);
        if self.eat("concurrently") {
            ddl.run = Run::Alone;
        }
        ddl.if_exists = self.eat_all(&["if", "exists"]);
        loop {
            ddl.objects.push(self.table()?);
            if self.is_punct(b'(') {
                self.at = matching(self.text, self.raws, self.at)? + 1;
            }
            if !self.eat_punct(b',') {
                return Some(ddl);
            }
        }
    }

    fn comment(&mut self) -> Option<Ddl> {
        self.eat("on").then_some(())?;
        if let Some(ddl) = self.on_table(Act::Say) {
            return Some(ddl);
        }
        if self.eat("column") {
            let mut ddl = of(Act::Say, ObjectKind::Table);
            ddl.objects.push(self.table_of_column()?);
            return Some(ddl);
        }
        let kind = self.kind()?;
        self.about(Act::Say, kind)
    }

    fn grant(&mut self) -> Option<Ddl> {
        self.skip_to("on")?;
        let kind = match self.word(self.at)? {
            "schema" | "database" | "all" | "language" | "large" | "tablespace" | "foreign"
            | "parameter" => return None,
            "sequence" | "table" | "function" | "procedure" | "routine" | "type" | "domain" => {
                self.kind()?
            }
            _ => ObjectKind::Table,
        };
        let mut ddl = of(Act::Say, kind);
        loop {
            ddl.objects.push(self.table()?);
            if self.is_punct(b'(') {
                self.at = matching(self.text, self.raws, self.at)? + 1;
            }
            if !self.eat_punct(b',') {
                return Some(ddl);
            }
        }
    }

    fn vacuum(&mut self, vacuum: bool) -> Option<Ddl> {
        self.options()?;
        for word in ["full", "freeze", "verbose", "analyze", "analyse"] {
            self.eat(word);
        }
        let mut ddl = of(Act::Maintain, ObjectKind::Table);
        ddl.run = if vacuum { Run::Alone } else { Run::Each };
        ddl.objects = self.tables()?;
        Some(ddl)
    }

    fn cluster(&mut self) -> Option<Ddl> {
        self.options()?;
        self.eat("verbose");
        if self.word(self.at + 1) == Some("on") {
            self.at += 2;
        }
        self.about(Act::Maintain, ObjectKind::Table)
    }

    fn reindex(&mut self) -> Option<Ddl> {
        let from = self.at;
        self.options()?;
        let option = (from..self.at).any(|at| self.word(at) == Some("concurrently"));
        let kind = match self.word(self.at)? {
            "index" | "table" => self.kind()?,
            _ => return None,
        };
        let alone = self.eat("concurrently") || option;
        let mut ddl = self.about(Act::Maintain, kind)?;
        ddl.run = if alone { Run::Alone } else { Run::Each };
        Some(ddl)
    }

    /// `(options)` in front of the tables.
    fn options(&mut self) -> Option<()> {
        if self.is_punct(b'(') {
            self.at = matching(self.text, self.raws, self.at)? + 1;
        }
        Some(())
    }

    /// `TRIGGER name ON table` and the like.
    fn on_table(&mut self, act: Act) -> Option<Ddl> {
        let kinds = ["trigger", "constraint", "policy", "rule"];
        if !kinds.iter().any(|kind| self.word(self.at) == Some(kind)) {
            return None;
        }
        self.skip_to("on")?;
        if self.eat("domain") {
            return self.about(act, ObjectKind::Type);
        }
        self.eat("only");
        self.about(act, ObjectKind::Table)
    }

    /// The statement is about the one object that is named here.
    fn about(&mut self, act: Act, kind: ObjectKind) -> Option<Ddl> {
        let mut ddl = of(act, kind);
        ddl.if_exists = self.eat_all(&["if", "exists"]);
        ddl.objects.push(self.table()?);
        Some(ddl)
    }

    fn kind(&mut self) -> Option<ObjectKind> {
        if let Some(kind) = self.routine_or_type() {
            return Some(kind);
        }
        if self.eat("materialized") && self.word(self.at) != Some("view") {
            return None;
        }
        let kinds = [
            ("table", ObjectKind::Table),
            ("view", ObjectKind::View),
            ("index", ObjectKind::Index),
            ("sequence", ObjectKind::Sequence),
        ];
        kinds
            .into_iter()
            .find_map(|(word, kind)| self.eat(word).then_some(kind))
    }

    fn routine_or_type(&mut self) -> Option<ObjectKind> {
        let routines = ["function", "procedure", "routine", "aggregate"];
        if routines.iter().any(|word| self.eat(word)) {
            return Some(ObjectKind::Routine);
        }
        let types = ["type", "domain", "extension", "collation"];
        types
            .iter()
            .any(|word| self.eat(word))
            .then_some(ObjectKind::Type)
    }

    /// `OWNED BY table.column`, wherever it comes.
    fn owned_by(&mut self, mut ddl: Ddl) -> Option<Ddl> {
        while self.at < self.raws.len() {
            if self.eat_all(&["owned", "by"]) {
                if !self.eat("none") {
                    ddl.refers.push((Tie::Same, self.table_of_column()?));
                }
                break;
            }
            self.at += 1;
        }
        Some(ddl)
    }

    /// Every `REFERENCES table`.
    fn references(&mut self, ddl: &mut Ddl) -> Option<()> {
        for at in 1..self.raws.len() {
            if self.word(at) == Some("references") && !self.punct_at(at - 1, b'.') {
                self.at = at + 1;
                ddl.refers.push((Tie::References, self.table()?));
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
