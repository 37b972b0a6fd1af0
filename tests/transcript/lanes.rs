//! One plain Postgres, hosts with shards, and proxies in front of them: roomy ones, and some where the sessions must share
//! a server connection or two and the statements on it.

use std::net::SocketAddr;

use presplit::ops::provision::{self, Options};

use crate::support::{Cluster, Hosts, Proxy};

const SCHEMA: &str = "
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE items (
    user_id bigint NOT NULL REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED,
    id int NOT NULL,
    n int CHECK (n < 1000),
    note text,
    PRIMARY KEY (user_id, id)
);
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL);
CREATE TABLE t (a int, b text);
";

/// What both have beside the tables.
const FUNCTIONS: &str = "
CREATE FUNCTION public.speak(how text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF how = 'notice' OR how = 'loud' THEN
        RAISE NOTICE 'spoken: %', how USING HINT = 'Listen.';
    ELSIF how = 'warning' THEN
        RAISE WARNING 'spoken: %', how USING ERRCODE = '01234', DETAIL = 'Twice.';
    ELSIF how = 'exception' THEN
        RAISE EXCEPTION 'spoken: %', how;
    END IF;
    RETURN how;
END $$;
-- Sessions have temporary tables of the same name; of this one nobody may leave anything for others.
CREATE FUNCTION public.shut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
CREATE TRIGGER shut BEFORE INSERT OR UPDATE OR DELETE ON public.t FOR EACH STATEMENT EXECUTE FUNCTION public.shut();
CREATE FUNCTION public.slow() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RAISE INFO 'begun';
    PERFORM pg_sleep(60);
    RETURN 1;
END $$;
INSERT INTO countries VALUES ('at', 'Austria'), ('de', 'Germany'), ('nl', NULL) ON CONFLICT DO NOTHING;
CREATE ROLE other;
GRANT USAGE ON SCHEMA public TO other;
";

/// How much room the sessions of a proxy have: server connections, those of them that short reads share, statements kept on
/// each, streams at once.
struct Room {
    pool: usize,
    shared: usize,
    statements: usize,
    streams: usize,
}

const ROOMS: [Room; 4] = [
    Room {
        pool: 20,
        shared: 0,
        statements: 500,
        streams: 3,
    },
    Room {
        pool: 2,
        shared: 0,
        statements: 3,
        streams: 4,
    },
    Room {
        pool: 20,
        shared: 1,
        statements: 500,
        streams: 3,
    },
    Room {
        pool: 1,
        shared: 0,
        statements: 2,
        streams: 3,
    },
];

/// All of them.
pub struct Lanes {
    plain: Cluster,
    proxies: Vec<Proxy>,
    pub hosts: Hosts,
}

impl Lanes {
    /// All lanes, over one host.
    pub async fn new() -> Lanes {
        Lanes::over(1, 8, &ROOMS).await
    }

    /// All lanes, over three hosts.
    pub async fn several() -> Lanes {
        Lanes::over(3, 12, &ROOMS).await
    }

    async fn over(count: usize, shards: u32, rooms: &[Room]) -> Lanes {
        let functions = FUNCTIONS.replace("('nl', NULL)", "('nl', 'Netherlands')");
        let plain = Cluster::new();
        let direct = plain.client().await;
        direct.batch_execute(SCHEMA).await.unwrap();
        direct.batch_execute(&functions).await.unwrap();
        let hosts = Hosts::bare(count, shards);
        hosts.write_map(&map_text(&hosts, &rooms[0]));
        let map = hosts.map();
        let report = provision::run(&map, SCHEMA, Options::default());
        let report = report.await.unwrap_or_else(|e| panic!("{e:#?}"));
        assert!(report.is_complete(), "{report}");
        for host in 0..count {
            let client = hosts.client(host).await;
            client.batch_execute(&functions).await.unwrap();
        }
        for shard in 0..shards {
            let grant = format!("GRANT USAGE ON SCHEMA shard_{shard:04} TO other");
            let client = hosts.client(hosts.owner(shard)).await;
            client.batch_execute(&grant).await.unwrap();
        }
        let serve = |(i, room): (usize, &Room)| {
            let file = hosts.dir().join(format!("lane-{i}.toml"));
            std::fs::write(&file, map_text(&hosts, room)).unwrap();
            Proxy::serve(&file, &[])
        };
        Lanes {
            plain,
            proxies: rooms.iter().enumerate().map(serve).collect(),
            hosts,
        }
    }

    pub fn plain(&self) -> SocketAddr {
        self.plain.addr()
    }

    /// The proxy of this lane.
    pub fn proxy(&self, lane: usize) -> &Proxy {
        &self.proxies[lane]
    }

    /// For each lane, how many streams run at once.
    pub fn streams() -> impl Iterator<Item = (usize, usize)> {
        ROOMS.iter().map(|room| room.streams).enumerate()
    }

    pub fn count() -> usize {
        ROOMS.len()
    }

    /// Sessions wait for each other's server connections there.
    pub fn is_tight(lane: usize) -> bool {
        ROOMS[lane].pool < ROOMS[lane].streams
    }

    pub fn name(lane: usize) -> String {
        let Room {
            pool,
            shared,
            statements,
            streams,
        } = &ROOMS[lane];
        format!(
            "pool {pool}, {shared} shared, {statements} statements a connection, {streams} streams at once"
        )
    }
}

fn map_text(hosts: &Hosts, room: &Room) -> String {
    let (shards, mut urls, mut owners) = (hosts.shards, String::new(), String::new());
    for (host, cluster) in hosts.clusters.iter().enumerate() {
        let (name, pool, url) = (Hosts::name(host), room.pool, cluster.url());
        urls += &format!("[hosts.{name}]\nurl = \"{url}\"\npool = {pool}\n");
        let owned: Vec<u32> = (0..shards).filter(|s| hosts.owner(*s) == host).collect();
        owners += &format!("\"{}-{}\" = \"{name}\"\n", owned[0], owned[owned.len() - 1]);
    }
    format!(
        "version = 1\n[keyspace]\nshards = {shards}\nkey = \"user_id\"\nfunction = \"modulo\"\nschema = \"shard_{{:04}}\"\n\
         {urls}[map]\n{owners}\
         [tables]\nusers = {{ key = \"id\" }}\ncountries = {{ kind = \"reference\" }}\nt = {{ kind = \"reference\" }}\n[users.app]\n\
         [proxy]\nlisten = \"127.0.0.1:0\"\nshared_connections = {}\n[proxy.limits]\nstatement_cache_per_connection = {}\n\
         [proxy.timeouts]\ncheckout_wait = \"60s\"\n",
        room.shared, room.statements
    )
}
