//! Map files with faults, and what is said of them.

use super::super::render_faults;
use super::*;

fn env(name: &str) -> Option<String> {
    (name == "SET").then(|| "value".into())
}

/// A good file; tests change one line of it, so places are easy to see.
const GOOD: &str = r#"version = 3
[keyspace]
shards = 8
key = "user_id"
function = "modulo"
schema = "shard_{:04}"
[hosts.a]
url = "postgres://app@h:1/app"
pool = 20
[hosts.b]
url = "postgres://app@h:2/app"
replicas = ["postgres://app@h:3/app"]
[map]
"0-3" = "a"
"4-7" = "b"
[tables]
users = { key = "id" }
photos = { ids = ["id"] }
invoices = { host = "b" }
[users.app]
server_user = "app"
[proxy]
listen = "127.0.0.1:6432"
http = "127.0.0.1:6433"
[proxy.limits]
clients = 100
[proxy.timeouts]
connect = "5s"
"#;

fn faults(toml: &str) -> Vec<String> {
    match map("f", toml, &env) {
        Ok(_) => Vec::new(),
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a fault:\n{toml}");
            faults.iter().map(Fault::to_string).collect()
        }
    }
}

/// The faults of GOOD with `from` replaced by `to`.
fn with(from: &str, to: &str) -> Vec<String> {
    assert_eq!(GOOD.matches(from).count(), 1, "{from} must stand once");
    faults(&GOOD.replace(from, to))
}

/// Each change makes exactly these faults, given by their beginnings.
fn check(cases: &[(&str, &str, &[&str])]) {
    for (from, to, wanted) in cases {
        let found = with(from, to);
        let agree =
            found.len() == wanted.len() && found.iter().zip(*wanted).all(|(f, w)| f.starts_with(w));
        assert!(agree, "{to}\n found: {found:#?}\nwanted: {wanted:#?}");
    }
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(faults(GOOD), [""; 0]);
}

#[test]
#[rustfmt::skip]
fn what_is_no_toml_has_a_place() {
    check(&[
        ("shards = 8", "shards = ", &["f:3:10: is no TOML: "]),
        ("\"0-3\" = \"a\"", "\"0-3\" = \"a", &["f:14:11: is no TOML: "]),
        ("key = \"user_id\"", "shards = 9", &["f:4:1: is no TOML: duplicate key"]),
        ("\"4-7\" = \"b\"", "\"0-3\" = \"b\"", &["f:15:1: is no TOML: duplicate key"]),
        ("[hosts.b]", "[hosts.a]", &["f:10:8: is no TOML: duplicate key", "f:11:1: is no TOML: duplicate key"]),
    ]);
}

#[test]
#[rustfmt::skip]
fn unknown_keys_and_wrong_types() {
    check(&[
        ("shards = 8", "shard = 8", &[
            "f:2:2: [keyspace] shards: is missing -- add shards = 4096",
            "f:3:1: [keyspace] shard: unknown key -- did you mean shards?",
        ]),
        ("version = 3", "", &["f:1:1: version: is missing -- add version = 1"]),
        ("version = 3", "version = \"3\"", &["f:1:11: version: is of type string -- write a whole number"]),
        ("version = 3", "version = 0", &["f:1:11: version: 0 is out of range -- write a number from 1 up"]),
        ("version = 3", "version = 3\ncolour = 1", &[
            "f:2:1: colour: unknown key -- the keys here are version, keyspace, hosts, map",
        ]),
        ("shards = 8", "shards = 8193", &["f:3:10: [keyspace] shards: 8193 is out of range -- write a number from 1 to 8192"]),
        ("shards = 8", "shards = 0", &["f:3:10: [keyspace] shards: 0 is out of range"]),
        ("shards = 8", "shards = -1", &["f:3:10: [keyspace] shards: -1 is out of range"]),
        ("shards = 8", "shards = 8.0", &["f:3:10: [keyspace] shards: is of type float"]),
        ("\"modulo\"", "\"modulus\"", &["f:5:12: [keyspace] function: \"modulus\" is not known -- write one of \"modulo\", \"hash\", \"embedded\""]),
        ("key = \"user_id\"", "key = \"\"", &["f:4:7: [keyspace] key: is empty"]),
        ("pool = 20", "pool = 0", &["f:9:8: [hosts.a] pool: 0 is out of range"]),
        ("pool = 20", "poool = 20", &["f:9:1: [hosts.a] poool: unknown key -- did you mean pool?"]),
        ("\"0-3\" = \"a\"", "\"0-3\" = 1", &["f:14:9: [map] \"0-3\": is of type integer"]),
        ("users = { key = \"id\" }", "users = \"id\"", &["f:17:9: [tables] users: is of type string -- write a table"]),
        ("users = { key = \"id\" }", "users = { keys = \"id\" }", &["f:17:11: [tables.users] keys: unknown key -- did you mean key?"]),
        ("ids = [\"id\"]", "ids = \"id\"", &["f:18:18: [tables.photos] ids: is of type string -- write a list"]),
        ("ids = [\"id\"]", "ids = [\"id\", 7]", &["f:18:25: [tables.photos] ids: is of type integer"]),
        ("clients = 100", "client = 100", &["f:26:1: [proxy.limits] client: unknown key -- did you mean clients?"]),
        ("connect = \"5s\"", "connect = 5", &["f:28:11: [proxy.timeouts] connect: is of type integer -- write a string with a unit"]),
        ("connect = \"5s\"", "connect = \"5\"", &["f:28:11: [proxy.timeouts] connect: \"5\" is no duration"]),
        ("connect = \"5s\"", "connect = \"off\"", &["f:28:11: [proxy.timeouts] connect: can't be off"]),
        ("clients = 100", "frame_held_bytes = \"1kB\"", &["f:26:20: [proxy.limits] frame_held_bytes: 1kB is out of range"]),
        ("clients = 100", "frame_held_bytes = \"big\"", &["f:26:20: [proxy.limits] frame_held_bytes: \"big\" is no size"]),
        ("\"127.0.0.1:6432\"", "\"6432\"", &["f:23:10: [proxy] listen: \"6432\" is no address"]),
    ]);
}

#[test]
fn numbers_as_toml_writes_them() {
    for eight in ["0x8", "0b1000", "+8", "0o10"] {
        assert_eq!(
            with("shards = 8", &format!("shards = {eight}")),
            [""; 0],
            "{eight}"
        );
    }
    assert_eq!(with("clients = 100", "clients = 1_000"), [""; 0]);
}

#[test]
#[rustfmt::skip]
fn columns_count_characters() {
    check(&[("users = { key = \"id\" }", "\"größe\" = { k = \"id\" }", &["f:17:13: [tables.\"größe\"] k: unknown key"])]);
}

#[test]
#[rustfmt::skip]
fn schemas_must_name_each_shard() {
    check(&[
        ("shard_{:04}", "shard", &["f:6:10: [keyspace] schema: has no placeholder"]),
        ("shard_{:04}", "{}_{}", &["f:6:10: [keyspace] schema: must have exactly one"]),
        ("shard_{:04}", &("x".repeat(63) + "{}"), &["f:6:10: [keyspace] schema: makes names of 64 bytes"]),
    ]);
    assert_eq!(with("shard_{:04}", &("x".repeat(62) + "{}")), [""; 0]);
}

#[test]
#[rustfmt::skip]
fn hosts() {
    check(&[
        ("url = \"postgres://app@h:1/app\"", "", &["f:7:8: [hosts.a] url: is missing"]),
        ("postgres://app@h:1/app", "mysql://h", &["f:8:7: [hosts.a] url: is no postgres:// url"]),
        ("postgres://app@h:1/app", "postgres://app@h:1/app?sslmode=require", &["f:8:7: [hosts.a] url: asks for TLS"]),
        ("postgres://app@h:1/app", "postgres://app:${UNSET}@h:1/app", &[
            "f:8:7: [hosts.a] url: the environment variable UNSET is not set -- set UNSET, or write the value here",
        ]),
        ("postgres://app@h:1/app", "postgres://app:${SET}@h:1/app", &[]),
        ("postgres://app@h:3/app", "postgres://h", &[
            "f:12:13: [hosts.b] replicas: names no user",
            "f:12:13: [hosts.b] replicas: names no database",
        ]),
        ("postgres://app@h:2/app", "postgres://other@h:1/app", &["f:11:7: [hosts.b] url: is the same database as [hosts.a] url"]),
        ("postgres://app@h:3/app", "postgres://app@h:1/app", &["f:12:13: [hosts.b] replicas: is the same database as [hosts.a] url"]),
        ("[hosts.b]", "[hosts.\"b c\"]", &[
            "f:10:8: [hosts.b c]: the name has odd characters",
            "f:15:9: [map] \"4-7\": unknown host \"b\" -- name one of a, b c, or add [hosts.b]",
            "f:19:21: [tables] invoices: unknown host \"b\"",
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn rules_of_tables() {
    check(&[
        ("users = { key = \"id\" }", "users = { kind = \"reference\", key = \"id\" }", &[
            "f:17:37: [tables] users: is reference, yet has what only sharded tables have -- remove it, or write kind = \"sharded\"",
        ]),
        ("users = { key = \"id\" }", "users = { kind = \"unsharded\" }", &["f:17:18: [tables] users: is unsharded, yet no host"]),
        ("users = { key = \"id\" }", "users = { kind = \"unsharded\", ids = [\"id\"] }", &[
            "f:17:18: [tables] users: is unsharded, yet no host",
            "f:17:38: [tables] users: is unsharded, yet has what only sharded",
        ]),
        ("users = { key = \"id\" }", "users = { key = \"id\", host = \"a\" }", &["f:17:30: [tables] users: has both a host and a key or ids"]),
        ("users = { key = \"id\" }", "users = { kind = \"sharded\", host = \"a\" }", &["f:17:36: [tables] users: is sharded, yet has what only unsharded"]),
        ("users = { key = \"id\" }", "users = { kind = \"global\" }", &["f:17:18: [tables.users] kind: \"global\" is not known"]),
        ("invoices = { host = \"b\" }", "invoices = { host = \"x\" }", &["f:19:21: [tables] invoices: unknown host \"x\""]),
        ("users = { key = \"id\" }", "\"*\" = { key = \"id\" }", &["f:17:1: [tables] *: can't be sharded"]),
        ("users = { key = \"id\" }", "\"public.users\" = { kind = \"reference\" }", &["f:17:1: [tables] public.users: names a schema too -- write users"]),
        ("ids = [\"id\"]", "ids = [\"id\", \"id\"]", &["f:18:25: [tables] photos: ids has \"id\" twice"]),
        ("users = { key = \"id\" }", "\"\" = { key = \"id\" }", &["f:17:1: [tables] \"\": the name is empty"]),
    ]);
    for good in ["\"*\" = { kind = \"reference\" }", "users = { kind = \"unsharded\", host = \"a\" }", "users = {}"] {
        assert_eq!(with("users = { key = \"id\" }", good), [""; 0]);
    }
}

#[test]
#[rustfmt::skip]
fn users_and_the_proxy() {
    let verifier = "SCRAM-SHA-256$4096:AAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    check(&[
        ("server_user = \"app\"", "password = \"hunter2\"", &["f:21:12: [users.app] password: is no SCRAM-SHA-256 verifier"]),
        ("server_user = \"app\"", "password = \"${SET}\"", &["f:21:12: [users.app] password: is no SCRAM-SHA-256 verifier"]),
        ("server_user = \"app\"", "password = \"${UNSET}\"", &["f:21:12: [users.app] password: the environment variable UNSET"]),
        ("server_user = \"app\"", "server_password = \"x\"", &["f:21:19: [users.app] server_password: has no server_user"]),
        ("127.0.0.1:6432", "0.0.0.0:6432", &["f:20:8: [users.app]: has no password, and listen = \"0.0.0.0:6432\" is open"]),
        ("127.0.0.1:6432", "*:6432", &["f:20:8: [users.app]: has no password"]),
        ("127.0.0.1:6432", "[::1]:6432", &[]),
        ("127.0.0.1:6432", "localhost:0", &[]),
        ("127.0.0.1:6432", "127.0.0.1:6433", &["f:24:8: [proxy] http: is the same address as listen"]),
        ("clients = 100", "frame_held_bytes = \"64kB\"", &["f:25:8: [proxy.limits] statement_text_bytes: is more than frame_held_bytes"]),
        ("clients = 100", "statement_text_bytes = \"5MB\"", &["f:26:24: [proxy.limits] statement_text_bytes: is more"]),
    ]);
    check(&[
        ("[proxy.limits]", "id = 7\n[proxy.peers]\n1 = \"10.0.0.1:6432\"\n7 = \"[::1]:6432\"\n255 = \"b.example:1\"\n[proxy.limits]", &[]),
        ("[proxy.limits]", "id = \"${SET}\"\n[proxy.limits]", &["f:25:6: [proxy] id: \"value\" is no number of a proxy -- write a number from 1 to 255"]),
        ("[proxy.limits]", "id = \"${UNSET}\"\n[proxy.limits]", &["f:25:6: [proxy] id: the environment variable UNSET"]),
        ("[proxy.limits]", "id = 0\n[proxy.limits]", &["f:25:6: [proxy] id: 0 is out of range"]),
        ("[proxy.limits]", "id = 256\n[proxy.limits]", &["f:25:6: [proxy] id: 256 is out of range"]),
        ("[proxy.limits]", "[proxy.peers]\n2 = \"b:1\"\n[proxy.limits]", &["f:26:5: [proxy.peers] \"2\": is of no use without a number of this proxy"]),
        ("[proxy.limits]", "id = 1\n[proxy.peers]\nb = \"b:1\"\n0 = \"b:1\"\n3 = \"b\"\n4 = \"::1:5\"\n5 = \"b:0\"\n[proxy.limits]", &[
            "f:27:5: [proxy.peers] b: is no number of a proxy",
            "f:28:5: [proxy.peers] \"0\": is no number of a proxy",
            "f:29:5: [proxy.peers] \"3\": \"b\" is no address -- write HOST:PORT",
            "f:30:5: [proxy.peers] \"4\": \"::1:5\" is no address",
            "f:31:5: [proxy.peers] \"5\": \"b:0\" is no address",
        ]),
    ]);
    let open = GOOD.replace("127.0.0.1:6432", "0.0.0.0:6432");
    assert_eq!(faults(&open.replace("server_user = \"app\"", &format!("password = \"{verifier}\""))), [""; 0]);
}

#[test]
fn an_empty_file_lacks_its_sections_once() {
    assert_eq!(
        faults(""),
        [
            "f:1:1: version: is missing -- add version = 1",
            "f:1:1: keyspace: is missing -- add a [keyspace] with shards = 4096",
            "f:1:1: hosts: is missing -- add a [hosts.a] with its url",
            "f:1:1: map: is missing -- add a [map] with \"0-4095\" = \"a\"",
        ]
    );
}

#[test]
fn all_faults_come_at_once_in_the_order_of_the_file() {
    let many = GOOD
        .replace("modulo", "modul")
        .replace("pool = 20", "pool = -1")
        .replace("\"4-7\" = \"b\"", "\"3-6\" = \"c\"")
        .replace("connect", "conect");
    let found = map("f", &many, &env).expect_err("faults");
    let places: Vec<(u32, u32)> = found.iter().map(|f| (f.line, f.column)).collect();
    assert_eq!(
        places,
        [(5, 12), (9, 8), (13, 2), (15, 1), (15, 9), (28, 1)]
    );
    assert_eq!(
        render_faults("x/shardmap.toml", &found[..2]),
        "x/shardmap.toml:5:12: [keyspace] function: \"modul\" is not known\n    \
         -> write one of \"modulo\", \"hash\", \"embedded\"\n\
         x/shardmap.toml:9:8: [hosts.a] pool: -1 is out of range\n    \
         -> write a number from 1 to 10000\n\
         x/shardmap.toml: 2 faults\n"
    );
}

#[test]
fn no_fault_repeats_a_secret() {
    for toml in [
        GOOD.replace("postgres://app@h:1/app", "postgres://app:hunter2@h:x/app"),
        GOOD.replace("postgres://app@h:1/app", "postgres//app:hunter2@h:1/app"),
        GOOD.replace("postgres://app@h:1/app\"", "postgres://app:hunter2@h:1/app"),
        GOOD.replace("server_user = \"app\"", "password = \"hunter2\""),
        GOOD.replace("server_user = \"app\"", "server_password = \"hunter2\""),
    ] {
        let found = faults(&toml);
        assert!(
            !found.is_empty() && !found.concat().contains("hunter2"),
            "{found:?}"
        );
    }
}

/// Whatever stands in the file, reading it ends, and either there is a map or there are faults with places in the file.
#[test]
fn damaged_files_never_panic() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand::rngs::StdRng::seed_from_u64(11);
    let bits: Vec<char> = "\"'[]{}=,.-_\n #0123456789abz$%\\é\0".chars().collect();
    for _ in 0..3000 {
        let mut text: Vec<char> = GOOD.chars().collect();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..text.len());
            match rng.random_range(0..3) {
                0 => text[at] = bits[rng.random_range(0..bits.len())],
                1 => text.insert(at, bits[rng.random_range(0..bits.len())]),
                _ => drop(text.drain(at..(at + rng.random_range(1..20)).min(text.len()))),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(found) = map("f", &text, &env) {
            assert!(!found.is_empty(), "{text}");
            let lines = text.matches('\n').count() as u32 + 1;
            assert!(
                found
                    .iter()
                    .all(|f| (1..=lines).contains(&f.line) && f.column > 0),
                "{text}\n{found:?}"
            );
        }
    }
}
