//! What a schema holds, as plain names: how a statement's work is recognised again.

use std::collections::{HashMap, HashSet};

use tokio_postgres::{Client, Error};

/// Names of objects, such as `relation photos`, `index photos_pkey`, `column photos.id`, `function f(int8,text)`.
pub(super) type Objects = HashSet<String>;

/// The kinds of objects in the order in which they speak for a statement: `CREATE TABLE` makes a relation, columns,
/// constraints and indexes, and is known by the relation.
const KINDS: [&str; 12] = [
    "extension",
    "relation",
    "sequence",
    "index",
    "type",
    "function",
    "column",
    "constraint",
    "trigger",
    "policy",
    "rule",
    "statistics",
];

const QUERY: &str = "
SELECT schema, object FROM (
  SELECT n.nspname::text AS schema,
         CASE WHEN c.relkind = 'S' THEN 'sequence ' WHEN c.relkind IN ('i', 'I') THEN 'index ' ELSE 'relation ' END || c.relname AS object
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I')
  UNION ALL
  SELECT n.nspname::text, 'column ' || c.relname || '.' || a.attname
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f')
  UNION ALL
  SELECT n.nspname::text, 'constraint ' || c.relname || '.' || k.conname
  FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE k.contype <> 'n'
  UNION ALL
  SELECT n.nspname::text, 'trigger ' || c.relname || '.' || t.tgname
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT t.tgisinternal
  UNION ALL
  SELECT n.nspname::text, 'policy ' || c.relname || '.' || p.polname
  FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  UNION ALL
  SELECT n.nspname::text, 'rule ' || c.relname || '.' || r.rulename
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE r.rulename <> '_RETURN'
  UNION ALL
  SELECT n.nspname::text, 'statistics ' || s.stxname
  FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
  UNION ALL
  SELECT n.nspname::text, 'type ' || t.typname
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
  WHERE t.typtype IN ('e', 'd', 'r', 'b') AND t.typelem = 0 OR c.relkind = 'c'
  UNION ALL
  SELECT n.nspname::text, 'function ' || p.proname || '(' ||
         coalesce((SELECT string_agg(t.typname, ',' ORDER BY i) FROM unnest(p.proargtypes) WITH ORDINALITY a(o, i) JOIN pg_catalog.pg_type t ON t.oid = a.o), '') || ')'
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  UNION ALL
  SELECT 'public', 'extension ' || extname FROM pg_catalog.pg_extension
) all_objects WHERE schema = ANY($1::text[]) AND ($2::text[] IS NULL OR object = ANY($2::text[]))";

/// What the schemas hold, of the objects in `wanted` or of all. A schema that is missing or holds nothing is absent.
/// Extensions stand under `public`.
pub(super) async fn of_schemas(
    client: &Client,
    schemas: &[String],
    wanted: Option<&[String]>,
) -> Result<HashMap<String, Objects>, Error> {
    let mut found: HashMap<String, Objects> = HashMap::new();
    for row in client.query(QUERY, &[&schemas, &wanted]).await? {
        found.entry(row.get(0)).or_default().insert(row.get(1));
    }
    Ok(found)
}

/// What one schema holds.
pub(super) async fn of_schema(client: &Client, schema: &str) -> Result<Objects, Error> {
    let mut found = of_schemas(client, &[schema.to_owned()], None).await?;
    Ok(found.remove(schema).unwrap_or_default())
}

/// Of the objects that a statement made, those by which it is recognised: all of the first kind that there is, sorted.
pub(super) fn telling(made: &Objects) -> Vec<String> {
    let of_kind = |kind: &str| -> Vec<String> {
        let mut objects: Vec<String> = made
            .iter()
            .filter(|o| o.split(' ').next() == Some(kind))
            .cloned()
            .collect();
        objects.sort();
        objects
    };
    KINDS
        .iter()
        .map(|kind| of_kind(kind))
        .find(|objects| !objects.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_speaks_for_its_columns_and_indexes() {
        let made = [
            "index photos_pkey",
            "relation photos",
            "sequence photos_id_seq",
            "column photos.id",
            "constraint photos.photos_pkey",
        ];
        assert_eq!(
            telling(&made.map(str::to_owned).into()),
            ["relation photos"]
        );
        assert_eq!(
            telling(&["column t.b".to_owned(), "column t.a".to_owned()].into()),
            ["column t.a", "column t.b"]
        );
        assert!(telling(&Objects::new()).is_empty());
    }
}
