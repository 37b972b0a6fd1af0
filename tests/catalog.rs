//! The catalog snapshot, read from real hosts.

use presplit::catalog::{self, Collation, HostSource, UserType};

use crate::support::Cluster;

fn source(name: &str, cluster: &Cluster) -> HostSource {
    HostSource {
        name: name.to_owned(),
        config: cluster.config(),
    }
}

fn candidate(host: &str, schema: &str) -> (String, String) {
    (host.to_owned(), schema.to_owned())
}

#[tokio::test]
async fn the_snapshot_tells_tables_columns_sequences_and_functions() {
    let (a, b) = (Cluster::new(), Cluster::new());
    a.client()
        .await
        .batch_execute(
            r#"CREATE DOMAIN positive AS int CHECK (VALUE > 0);
            CREATE DOMAIN small AS positive;
            CREATE TABLE countries (code char(2));
            CREATE FUNCTION pub() RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE EXTENSION pg_trgm;
            CREATE SCHEMA shard_0000;
            SET search_path = shard_0000, public;
            CREATE TABLE photos (id bigserial, user_id bigint NOT NULL, gone text, n small,
                                 g int GENERATED ALWAYS AS (1) STORED, "Odd Name" uuid);
            ALTER TABLE photos DROP COLUMN gone;
            CREATE TABLE nothing ();
            CREATE VIEW v AS SELECT user_id FROM photos;
            CREATE FUNCTION own() RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE SCHEMA elsewhere;
            CREATE FUNCTION elsewhere.hidden() RETURNS int LANGUAGE sql AS 'SELECT 1';"#,
        )
        .await
        .unwrap();
    b.client()
        .await
        .batch_execute("CREATE TABLE invoices (id int)")
        .await
        .unwrap();

    let hosts = [source("a", &a), source("b", &b)];
    let (snapshot, faults) = catalog::read(
        &hosts,
        &[candidate("b", "shard_0004"), candidate("a", "shard_0000")],
    )
    .await;
    assert_eq!(
        faults,
        ["host b: schema shard_0004 is not there, or is empty"]
    );

    let photos = &snapshot.sharded["photos"];
    let columns: Vec<_> = photos
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.type_oid, c.has_default))
        .collect();
    assert_eq!(
        columns,
        [
            ("id", 20, true),
            ("user_id", 20, false),
            ("n", 23, false),
            ("g", 23, true),
            ("Odd Name", 2950, false)
        ]
    );
    assert_eq!(photos.relkind, 'r');
    assert_eq!(snapshot.sharded["v"].relkind, 'v');
    assert!(snapshot.sharded["nothing"].columns.is_empty());
    assert_eq!(snapshot.sharded.len(), 3);
    assert_eq!(
        snapshot.sharded_sequences.iter().collect::<Vec<_>>(),
        ["photos_id_seq"]
    );
    assert_eq!(
        snapshot.public["a"].keys().collect::<Vec<_>>(),
        ["countries"]
    );
    assert_eq!(
        snapshot.public["b"].keys().collect::<Vec<_>>(),
        ["invoices"]
    );

    let functions = &snapshot.functions;
    assert!(functions.builtin.contains("lower") && functions.builtin.contains("similarity"));
    assert_eq!(functions.sharded.iter().collect::<Vec<_>>(), ["own"]);
    assert_eq!(functions.public.iter().collect::<Vec<_>>(), ["pub"]);
    assert!(!functions.builtin.contains("hidden"));
}

#[tokio::test]
async fn the_snapshot_tells_collations_types_and_views() {
    let a = Cluster::new();
    a.client()
        .await
        .batch_execute(
            r#"CREATE TYPE mood AS ENUM ('sad', 'ok');
            CREATE SEQUENCE invoice_number;
            CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
            CREATE COLLATION de (provider = icu, locale = 'de');
            CREATE SCHEMA shard_0000;
            SET search_path = shard_0000, public;
            CREATE TYPE pair AS (a int, b int);
            CREATE DOMAIN nick AS varchar(20) COLLATE ci;
            CREATE TABLE t (user_id bigint, a text, b text COLLATE "C", c text COLLATE de, d text COLLATE ci, e nick,
                            f text[], g mood);
            CREATE VIEW v AS SELECT t.user_id, t.a FROM t WHERE t.a <> 'x';"#,
        )
        .await
        .unwrap();
    let (snapshot, faults) =
        catalog::read(&[source("a", &a)], &[candidate("a", "shard_0000")]).await;
    assert_eq!(faults, [""; 0]);
    let collations: Vec<_> = snapshot.sharded["t"]
        .columns
        .iter()
        .map(|c| c.collation)
        .collect();
    use Collation::*;
    let expected = [
        None,
        Database,
        Bytes,
        Deterministic,
        Nondeterministic,
        Nondeterministic,
        Database,
        None,
    ];
    assert_eq!(collations, expected);
    let labels = UserType::Enum(vec!["sad".to_owned(), "ok".to_owned()]);
    assert_eq!(snapshot.public_types["a"]["mood"], labels);
    assert_eq!(snapshot.public_types["a"].len(), 1);
    assert_eq!(snapshot.sharded_types["pair"], UserType::Composite);
    assert_eq!(snapshot.sharded_types["nick"], UserType::Domain(1043));
    assert_eq!(snapshot.sharded_types.len(), 2);
    assert!(snapshot.public_sequences["a"].contains("invoice_number"));
    let database = &snapshot.databases["a"];
    assert!(database.nondeterministic && database.encoding == "UTF8");
    assert!(matches!(
        database.collation(),
        Collation::Bytes | Collation::Deterministic
    ));
    let view = snapshot.sharded["v"].definition.as_deref().unwrap();
    assert!(view.contains("FROM t"), "{view}");
}

#[tokio::test]
async fn another_shard_serves_as_template_when_the_first_ones_host_is_down() {
    let (mut a, b) = (Cluster::new(), Cluster::new());
    b.client()
        .await
        .batch_execute("CREATE SCHEMA shard_0004; CREATE TABLE shard_0004.users (id bigint)")
        .await
        .unwrap();
    let hosts = [source("a", &a), source("b", &b)];
    a.stop();
    let (snapshot, faults) = catalog::read(
        &hosts,
        &[candidate("a", "shard_0000"), candidate("b", "shard_0004")],
    )
    .await;
    assert!(snapshot.sharded.contains_key("users"));
    assert!(!snapshot.public.contains_key("a") && snapshot.public.contains_key("b"));
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("host a: "), "{faults:?}");
}
