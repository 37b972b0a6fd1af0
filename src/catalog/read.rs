//! Reads the snapshot from the hosts over ordinary connections, all hosts at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{Collation, Column, Database, Other, Snapshot, Table, UserType};

/// The longest that one host may take to be read, connecting included. A host that hangs must not hold up the others for ever.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// A host to read from.
#[derive(Clone, Debug)]
pub struct HostSource {
    /// Its name in the shard map.
    pub name: String,
    /// How to connect: TCP or a unix socket, without TLS.
    pub config: tokio_postgres::Config,
}

/// Reads what the catalogs of all hosts say, in parallel, each host in one read-only snapshot transaction.
///
/// `templates` are the shards that may serve as template, in order of preference, as (host name, schema name); the first
/// whose host answers and whose schema exists is taken. The second value says in words what could not be read and why:
/// one line for each host that failed, one for each template that was passed over. With no usable template the sharded
/// part of the snapshot and the functions are empty.
pub async fn read(hosts: &[HostSource], templates: &[(String, String)]) -> (Snapshot, Vec<String>) {
    let read = join_all(hosts.iter().map(|host| {
        let schemas = templates
            .iter()
            .filter(|(name, _)| *name == host.name)
            .map(|(_, schema)| schema.clone())
            .collect();
        async move { (host.name.clone(), read_host(&host.config, schemas).await) }
    }))
    .await;

    let mut faults = Vec::new();
    let mut snapshot = Snapshot::default();
    let mut found: HashMap<String, (String, SchemaPart)> = HashMap::new();
    for (name, result) in read {
        match result {
            Ok(part) => {
                found.extend(part.template.map(|part| (name.clone(), part)));
                snapshot.set_public(&name, part.public);
                snapshot.databases.insert(name, part.database);
            }
            Err(why) => faults.push(format!("host {name}: {why}")),
        }
    }
    for (host, schema) in templates {
        match found.remove(host) {
            Some((of, part)) if of == *schema => {
                snapshot.set_template(host, part);
                return (snapshot, faults);
            }
            // That of another shard of the host, asked for further down the list.
            Some(other) => drop(found.insert(host.clone(), other)),
            None => {}
        }
        if snapshot.public.contains_key(host) {
            faults.push(format!(
                "host {host}: schema {schema} is not there, or is empty"
            ));
        }
    }
    if !templates.is_empty() {
        faults.push(
            "no template shard could be read: which tables are sharded is not known".to_owned(),
        );
    }
    (snapshot, faults)
}

/// What one host has to say.
struct HostPart {
    database: Database,
    public: SchemaPart,
    /// The first of the asked schemas that exists here, with its name.
    template: Option<(String, SchemaPart)>,
}

async fn read_host(
    config: &tokio_postgres::Config,
    schemas: Vec<String>,
) -> Result<HostPart, String> {
    let work = async {
        let (client, connection) = config.connect(NoTls).await.map_err(|e| said(&e))?;
        let driver = tokio::spawn(connection);
        let part = read_parts(&client, schemas).await.map_err(|e| said(&e));
        drop(client);
        driver.abort();
        part
    };
    tokio::time::timeout(READ_LIMIT, work)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", READ_LIMIT.as_secs())))
}

async fn read_parts(
    client: &Client,
    schemas: Vec<String>,
) -> Result<HostPart, tokio_postgres::Error> {
    // `pg_get_viewdef` locks the view's tables, which a transaction with DDL may hold for long.
    client
        .batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '2s'",
        )
        .await?;
    let database = read_database(client).await?;
    let public = read_schema(client, "public").await?;
    let mut template = None;
    for schema in schemas {
        // What the search_path finds, `pg_get_viewdef` leaves unqualified.
        client
            .execute(
                "SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident($1::text) || ', public', true)",
                &[&schema],
            )
            .await?;
        let part = read_schema(client, &schema).await?;
        // An empty schema has nothing to teach: a shard that is not provisioned yet must not make every table unknown. One
        // that is provisioned and has no tables says just that.
        if !part.tables.is_empty() || part.functions.contains("next_id") {
            template = Some((schema, part));
            break;
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(HostPart {
        database,
        public,
        template,
    })
}

async fn read_schema(client: &Client, schema: &str) -> Result<SchemaPart, tokio_postgres::Error> {
    let mut answers = Vec::new();
    for question in questions(schema, schema != "public") {
        let rows = client.simple_query(&question).await?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|i| row.get(i).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        };
        answers.push(rows.into_iter().filter_map(row).collect());
    }
    Ok(SchemaPart::of(answers))
}

/// Through `to_jsonb`, for a column that this version of Postgres lacks is then null.
async fn read_database(client: &Client) -> Result<Database, tokio_postgres::Error> {
    let row = client
        .query_one(
            "SELECT datcollate::text, coalesce(d->>'datlocprovider', 'c'),
                    coalesce(d->>'datlocale', d->>'daticulocale'), pg_catalog.pg_encoding_to_char(encoding)::text,
                    EXISTS (SELECT FROM pg_catalog.pg_collation WHERE NOT collisdeterministic),
                    EXISTS (
                        WITH called (oid) AS (
                            SELECT oprcode::pg_catalog.oid FROM pg_catalog.pg_operator WHERE oid >= 16384
                            UNION ALL SELECT castfunc FROM pg_catalog.pg_cast WHERE oid >= 16384
                            UNION ALL
                            SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
                            WHERE p.oid >= 16384 AND p.pronargs = 1 AND p.prokind = 'f' AND t.typtype IN ('c', 'p')
                            UNION ALL
                            SELECT call[1]::pg_catalog.oid
                            FROM (SELECT polqual FROM pg_catalog.pg_policy
                                  UNION ALL SELECT conbin FROM pg_catalog.pg_constraint WHERE contypid <> 0) AS x (tree),
                                 pg_catalog.regexp_matches(tree::text, ':(?:op)?funcid ([0-9]+)', 'g') AS call
                        )
                        SELECT FROM called JOIN pg_catalog.pg_proc p USING (oid) WHERE p.provolatile = 'v')
             FROM (SELECT datcollate, encoding, pg_catalog.to_jsonb(b) AS d FROM pg_catalog.pg_database b
                   WHERE datname = pg_catalog.current_database()) AS x",
            &[],
        )
        .await?;
    Ok(Database {
        collate: row.get(0),
        provider: row.get::<_, &str>(1).chars().next().unwrap_or('c'),
        locale: row.get(2),
        encoding: row.get(3),
        nondeterministic: row.get(4),
        hidden_calls: row.get(5),
    })
}

/// A row of an answer, as text.
pub type Row = Vec<Option<String>>;

/// What is asked of one schema; the answers, in this order and as text, go to [`SchemaPart::of`]. The search_path must be
/// the schema's own: what it finds, `pg_get_viewdef` leaves unqualified.
/// `builtin`: the functions of Postgres and of extensions are asked for, too.
pub fn questions(schema: &str, builtin: bool) -> [String; 5] {
    let (catalog, extensions) = match builtin {
        true => ("'pg_catalog', ", "OR d.objid IS NOT NULL"),
        false => ("", "AND d.objid IS NULL"),
    };
    let schema = format!("'{}'::text", schema.replace('\'', "''"));
    [
        "SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE typtype = 'd'".to_owned(),
        // A table may have no column at all, hence the outer join. With the table's OID `pg_get_expr` would wait for a lock on
        // it, which a transaction with DDL may hold for long; a default needs none, for it names no column.
        format!(
            "SELECT c.relname::text, c.relkind::text, a.attname::text, a.atttypid,
                    a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '',
                    CASE WHEN a.attcollation = 0 THEN 'none'
                         WHEN o.collname = 'default' AND o.collnamespace = 'pg_catalog'::pg_catalog.regnamespace THEN 'database'
                         WHEN NOT o.collisdeterministic THEN 'nondeterministic'
                         WHEN o.collprovider = 'b' OR o.collprovider = 'c' AND o.collcollate IN ('C', 'POSIX') THEN 'bytes'
                         ELSE 'deterministic' END,
                    CASE WHEN c.relkind IN ('v', 'm') AND a.attnum = 1 THEN pg_catalog.pg_get_viewdef(c.oid) END,
                    CASE WHEN a.attidentity = 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
                         WHEN a.attidentity = 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY'
                         WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, 0) END,
                    a.attnotnull, a.attgenerated <> ''
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
             LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
             WHERE n.nspname = {schema} AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
             ORDER BY c.relname, a.attnum"
        ),
        format!(
            "SELECT c.relname::text, c.relkind = 'S', t.relname::text
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
             LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S'
             LEFT JOIN pg_catalog.pg_class t ON t.oid = coalesce(i.indrelid, d.refobjid)
             WHERE n.nspname = {schema} AND c.relkind IN ('i', 'I', 'S')"
        ),
        format!(
            "SELECT DISTINCT p.proname::text,
                    CASE WHEN n.nspname = 'pg_catalog' OR d.objid IS NOT NULL THEN 'builtin' ELSE 'own' END,
                    p.provolatile = 'v'
             FROM pg_catalog.pg_proc p
             JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
             LEFT JOIN pg_catalog.pg_depend d
                    ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
             WHERE n.nspname IN ({catalog}{schema}) {extensions}"
        ),
        // Those of tables' rows and of arrays are left out.
        format!(
            "SELECT t.typname::text, t.typtype::text, t.typbasetype,
                    (SELECT pg_catalog.string_agg(e.enumlabel, '{LABEL_END}' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)
             FROM pg_catalog.pg_type t
             JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
             LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
             WHERE n.nspname = {schema} AND (c.relkind IS NULL OR c.relkind = 'c') AND t.typcategory <> 'A'"
        ),
    ]
}

/// Stands between the labels of an enum, of which none holds it.
const LABEL_END: char = '\u{1}';

/// What one schema of one host holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaPart {
    /// Tables, views and the like.
    pub tables: BTreeMap<String, Table>,
    /// Indexes and sequences.
    pub others: BTreeMap<String, Other>,
    /// Functions of its own.
    pub functions: HashSet<String>,
    /// Functions of Postgres and of extensions, whatever the schema.
    pub builtin: HashSet<String>,
    /// Those of them that are volatile.
    pub volatile: HashSet<String>,
    /// Types, but for those of tables' rows and of arrays.
    pub types: HashMap<String, UserType>,
}

impl SchemaPart {
    /// From the answers to [`questions`].
    pub fn of(answers: Vec<Vec<Row>>) -> SchemaPart {
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        let domains: HashMap<u32, u32> = next()
            .iter()
            .map(|row| (number(row, 0), number(row, 1)))
            .collect();
        let mut part = SchemaPart {
            tables: tables(next(), &domains),
            ..SchemaPart::default()
        };
        for row in next() {
            let other = Other {
                sequence: text(&row, 1) == "t",
                table: row.get(2).cloned().flatten(),
            };
            part.others.insert(text(&row, 0).to_owned(), other);
        }
        for row in next() {
            let set = match text(&row, 1) {
                "builtin" if text(&row, 2) == "t" => {
                    part.volatile.insert(text(&row, 0).to_owned());
                    &mut part.builtin
                }
                "builtin" => &mut part.builtin,
                _ => &mut part.functions,
            };
            set.insert(text(&row, 0).to_owned());
        }
        for row in next() {
            let kind = match text(&row, 1) {
                "e" => UserType::Enum(
                    text(&row, 3)
                        .split_terminator(LABEL_END)
                        .map(str::to_owned)
                        .collect(),
                ),
                "c" => UserType::Composite,
                "d" => UserType::Domain(base_type(number(&row, 2), &domains)),
                _ => UserType::Other,
            };
            part.types.insert(text(&row, 0).to_owned(), kind);
        }
        part
    }

    fn sequences(&self) -> HashSet<String> {
        let sequences = self.others.iter().filter(|(_, other)| other.sequence);
        sequences.map(|(name, _)| name.clone()).collect()
    }
}

fn text(row: &Row, at: usize) -> &str {
    row.get(at).and_then(|v| v.as_deref()).unwrap_or_default()
}

fn number(row: &Row, at: usize) -> u32 {
    text(row, at).parse().unwrap_or(0)
}

fn tables(rows: Vec<Row>, domains: &HashMap<u32, u32>) -> BTreeMap<String, Table> {
    let mut tables = BTreeMap::new();
    for row in rows {
        let name = text(&row, 0).to_owned();
        let table: &mut Table = tables.entry(name.clone()).or_insert_with(|| Table {
            name,
            relkind: text(&row, 1).chars().next().unwrap_or('r'),
            columns: Vec::new(),
            definition: None,
        });
        if let Some(Some(definition)) = row.get(6) {
            table.definition = Some(definition.clone());
        }
        if let Some(Some(name)) = row.get(2) {
            table.columns.push(Column {
                name: name.clone(),
                type_oid: base_type(number(&row, 3), domains),
                has_default: text(&row, 4) == "t",
                generated: text(&row, 9) == "t",
                default: row.get(7).cloned().flatten(),
                collation: collation(text(&row, 5)),
                not_null: text(&row, 8) == "t",
            });
        }
    }
    tables
}

fn collation(word: &str) -> Collation {
    match word {
        "none" => Collation::None,
        "database" => Collation::Database,
        "bytes" => Collation::Bytes,
        "nondeterministic" => Collation::Nondeterministic,
        _ => Collation::Deterministic,
    }
}

impl Snapshot {
    /// Takes over what the template shard's schema holds, on this host.
    pub fn set_template(&mut self, host: &str, part: SchemaPart) {
        self.sharded_sequences = part.sequences();
        self.sharded = part.tables;
        self.sharded_others = part.others;
        self.sharded_types = part.types;
        self.functions.sharded = part.functions;
        if !part.builtin.is_empty() {
            self.functions.builtin = part.builtin;
            self.functions.volatile = part.volatile;
        }
        self.functions.public = self.public_functions.get(host).cloned().unwrap_or_default();
    }

    /// Takes over what `public` of a host holds.
    pub fn set_public(&mut self, host: &str, part: SchemaPart) {
        self.public_sequences
            .insert(host.to_owned(), part.sequences());
        self.public_functions
            .insert(host.to_owned(), part.functions);
        self.public_types.insert(host.to_owned(), part.types);
        self.public_others.insert(host.to_owned(), part.others);
        self.public.insert(host.to_owned(), part.tables);
    }
}

fn base_type(mut oid: u32, domains: &HashMap<u32, u32>) -> u32 {
    // A domain can only stand on a type that existed before it, so this ends.
    while let Some(&base) = domains.get(&oid) {
        oid = base;
    }
    oid
}

/// An error with its cause: `tokio_postgres::Error` alone says only "db error" or "error connecting to server".
fn said(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_over_a_domain_is_its_base_type() {
        let domains = HashMap::from([(70_001, 70_000), (70_000, 20)]);
        assert_eq!(base_type(70_001, &domains), 20);
        assert_eq!(base_type(70_000, &domains), 20);
        assert_eq!(base_type(25, &domains), 25);
    }

    #[tokio::test]
    async fn a_host_that_is_down_is_named_and_leaves_the_rest() {
        // Port 1 of the loopback: nobody listens there.
        let config = "host=127.0.0.1 port=1 user=app connect_timeout=2"
            .parse()
            .unwrap();
        let hosts = [HostSource {
            name: "a".to_owned(),
            config,
        }];
        let (snapshot, faults) = read(&hosts, &[("a".to_owned(), "shard_0000".to_owned())]).await;
        assert_eq!(snapshot, Snapshot::default());
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].starts_with("host a: ") && faults[0].contains("refused"),
            "{faults:?}"
        );
        assert!(faults[1].starts_with("no template shard"), "{faults:?}");
    }
}
