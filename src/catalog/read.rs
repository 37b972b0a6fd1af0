//! Reads the snapshot from the hosts over ordinary connections, all hosts at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::{Client, NoTls};

use super::{Collation, Column, Database, Functions, Snapshot, Table, UserType};

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
    let mut found: HashMap<String, TemplatePart> = HashMap::new();
    for (name, result) in read {
        match result {
            Ok(part) => {
                snapshot.public.insert(name.clone(), part.public);
                snapshot
                    .public_sequences
                    .insert(name.clone(), part.sequences);
                snapshot.public_types.insert(name.clone(), part.types);
                snapshot.databases.insert(name.clone(), part.database);
                found.extend(part.template.map(|part| (name, part)));
            }
            Err(why) => faults.push(format!("host {name}: {why}")),
        }
    }
    for (host, schema) in templates {
        if found.get(host).is_some_and(|part| part.schema == *schema) {
            let part = found.remove(host).expect("looked up in the line above");
            snapshot.sharded = part.tables;
            snapshot.sharded_sequences = part.sequences;
            snapshot.sharded_types = part.types;
            snapshot.functions = part.functions;
            return (snapshot, faults);
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
    public: BTreeMap<String, Table>,
    sequences: HashSet<String>,
    types: HashMap<String, UserType>,
    /// From the first of the asked schemas that exists here.
    template: Option<TemplatePart>,
}

struct TemplatePart {
    schema: String,
    tables: BTreeMap<String, Table>,
    sequences: HashSet<String>,
    types: HashMap<String, UserType>,
    functions: Functions,
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
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let database = read_database(client).await?;
    let domains = read_domains(client).await?;
    let public = read_tables(client, "public", &domains).await?;
    let sequences = read_sequences(client, "public").await?;
    let types = read_types(client, "public", &domains).await?;
    let mut template = None;
    for schema in schemas {
        // What the search_path finds, `pg_get_viewdef` leaves unqualified.
        client
            .execute(
                "SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident($1::text) || ', public', true)",
                &[&schema],
            )
            .await?;
        let tables = read_tables(client, &schema, &domains).await?;
        // An empty schema has nothing to teach: a shard that is not provisioned yet must not make every table unknown.
        if !tables.is_empty() {
            template = Some(TemplatePart {
                tables,
                sequences: read_sequences(client, &schema).await?,
                types: read_types(client, &schema, &domains).await?,
                functions: read_functions(client, &schema).await?,
                schema,
            });
            break;
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(HostPart {
        database,
        public,
        sequences,
        types,
        template,
    })
}

/// Tables of one schema with their columns. A missing schema has none.
async fn read_tables(
    client: &Client,
    schema: &str,
    domains: &HashMap<u32, u32>,
) -> Result<BTreeMap<String, Table>, tokio_postgres::Error> {
    // A table may have no column at all, hence the outer join.
    let rows = client
        .query(
            "SELECT c.relname::text, c.relkind::text, a.attname::text, a.atttypid,
                    a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '',
                    CASE WHEN a.attcollation = 0 THEN 'none'
                         WHEN o.collname = 'default' AND o.collnamespace = 'pg_catalog'::pg_catalog.regnamespace THEN 'database'
                         WHEN NOT o.collisdeterministic THEN 'nondeterministic'
                         WHEN o.collprovider = 'b' OR o.collprovider = 'c' AND o.collcollate IN ('C', 'POSIX') THEN 'bytes'
                         ELSE 'deterministic' END,
                    CASE WHEN c.relkind IN ('v', 'm') AND a.attnum = 1 THEN pg_catalog.pg_get_viewdef(c.oid) END,
                    a.attgenerated <> ''
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
             WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
             ORDER BY c.relname, a.attnum",
            &[&schema],
        )
        .await?;
    let mut tables = BTreeMap::new();
    for row in rows {
        let name: String = row.get(0);
        let table: &mut Table = tables.entry(name.clone()).or_insert_with(|| Table {
            name,
            relkind: row.get::<_, &str>(1).chars().next().unwrap_or('r'),
            columns: Vec::new(),
            definition: None,
        });
        if let Some(definition) = row.get(6) {
            table.definition = Some(definition);
        }
        if let Some(name) = row.get(2) {
            let type_oid = base_type(row.get(3), domains);
            table.columns.push(Column {
                name,
                type_oid,
                has_default: row.get(4),
                generated: row.get(7),
                collation: collation(row.get(5)),
            });
        }
    }
    Ok(tables)
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

/// Through `to_jsonb`, for a column that this version of Postgres lacks is then null.
async fn read_database(client: &Client) -> Result<Database, tokio_postgres::Error> {
    let row = client
        .query_one(
            "SELECT datcollate::text, coalesce(d->>'datlocprovider', 'c'),
                    coalesce(d->>'datlocale', d->>'daticulocale'), pg_catalog.pg_encoding_to_char(encoding)::text,
                    EXISTS (SELECT FROM pg_catalog.pg_collation WHERE NOT collisdeterministic)
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
    })
}

/// Types of one schema, those of tables' rows and of arrays left out.
async fn read_types(
    client: &Client,
    schema: &str,
    domains: &HashMap<u32, u32>,
) -> Result<HashMap<String, UserType>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT t.typname::text, t.typtype::text, t.typbasetype,
                    ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
             FROM pg_catalog.pg_type t
             JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
             LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
             WHERE n.nspname = $1::text AND (c.relkind IS NULL OR c.relkind = 'c') AND t.typcategory <> 'A'",
            &[&schema],
        )
        .await?;
    let kind = |row: &tokio_postgres::Row| match row.get::<_, &str>(1) {
        "e" => UserType::Enum(row.get(3)),
        "c" => UserType::Composite,
        "d" => UserType::Domain(base_type(row.get(2), domains)),
        _ => UserType::Other,
    };
    Ok(rows.iter().map(|row| (row.get(0), kind(row))).collect())
}

/// Every domain and the type that it stands on, which may be a domain again.
async fn read_domains(client: &Client) -> Result<HashMap<u32, u32>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE typtype = 'd'",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn base_type(mut oid: u32, domains: &HashMap<u32, u32>) -> u32 {
    // A domain can only stand on a type that existed before it, so this ends.
    while let Some(&base) = domains.get(&oid) {
        oid = base;
    }
    oid
}

async fn read_sequences(
    client: &Client,
    schema: &str,
) -> Result<HashSet<String>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT c.relname::text FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1::text AND c.relkind = 'S'",
            &[&schema],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn read_functions(client: &Client, schema: &str) -> Result<Functions, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT DISTINCT p.proname::text, n.nspname::text,
                    n.nspname = 'pg_catalog' OR d.objid IS NOT NULL
             FROM pg_catalog.pg_proc p
             JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
             LEFT JOIN pg_catalog.pg_depend d
                    ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
             WHERE n.nspname IN ('pg_catalog', 'public', $1::text) OR d.objid IS NOT NULL",
            &[&schema],
        )
        .await?;
    let mut functions = Functions::default();
    for row in rows {
        let set = match (row.get::<_, bool>(2), row.get::<_, &str>(1)) {
            (true, _) => &mut functions.builtin,
            (false, "public") => &mut functions.public,
            (false, _) => &mut functions.sharded,
        };
        set.insert(row.get(0));
    }
    Ok(functions)
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
