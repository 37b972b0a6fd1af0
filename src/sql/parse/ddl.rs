//! The tables that a file of DDL makes: names and columns, for `presplit explain` without a database.

use sqlparser::ast::{ColumnOption, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// A table as `CREATE TABLE` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDdl {
    /// Its name, folded; without schema.
    pub name: String,
    /// Name, type as written in lower case, and whether it has a default.
    pub columns: Vec<(String, String, bool)>,
}

/// The table that one statement makes; `None` if it is no `CREATE TABLE` that can be read.
pub fn created_table(text: &str) -> Option<TableDdl> {
    let statements = Parser::parse_sql(&PostgreSqlDialect {}, text).ok()?;
    let [Statement::CreateTable(table)] = &statements[..] else {
        return None;
    };
    let fold = |ident: &sqlparser::ast::Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    };
    let name = fold(table.name.0.last()?.as_ident()?);
    let columns = table.columns.iter().map(|column| {
        let kind = column.data_type.to_string().to_ascii_lowercase();
        let has_default = kind.contains("serial")
            || column.options.iter().any(|o| {
                matches!(
                    o.option,
                    ColumnOption::Default(_) | ColumnOption::Generated { .. }
                )
            });
        (fold(&column.name), kind, has_default)
    });
    Some(TableDdl {
        name,
        columns: columns.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_types_and_defaults() {
        let table = created_table(
            "CREATE TABLE IF NOT EXISTS \"Photo\" (Id bigserial PRIMARY KEY, user_id BIGINT NOT NULL, at timestamptz DEFAULT now())",
        );
        let column = |name: &str, kind: &str, default| (name.to_owned(), kind.to_owned(), default);
        let columns = vec![
            column("id", "bigserial", true),
            column("user_id", "bigint", false),
            column("at", "timestamptz", true),
        ];
        assert_eq!(
            table,
            Some(TableDdl {
                name: "Photo".to_owned(),
                columns
            })
        );
        assert_eq!(created_table("CREATE INDEX i ON photos (id)"), None);
        assert_eq!(created_table("nonsense"), None);
    }
}
