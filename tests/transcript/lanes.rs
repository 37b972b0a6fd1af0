//! One plain Postgres, one host with shards, and proxies in front of it: roomy ones, and some where the sessions must share
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

/// How much room the sessions of a proxy have: server connections, statements kept on each, streams at once.
struct Room {
    pool: usize,
    statements: usize,
    streams: usize,
}

const ROOMS: [Room; 4] = [
    Room {
        pool: 20,
        statements: 500,
        streams: 3,
    },
    Room {
        pool: 2,
        statements: 3,
        streams: 4,
    },
    Room {
        pool: 20,
        statements: 500,
        streams: 3,
    },
    Room {
        pool: 1,
        statements: 2,
        streams: 3,
    },
];

/// All of them.
pub struct Lanes {
    plain: Cluster,
    proxies: Vec<Proxy>,
    _hosts: Hosts,
}

impl Lanes {
    pub async fn new() -> Lanes {
        let functions = FUNCTIONS.replace("('nl', NULL)", "('nl', 'Netherlands')");
        let plain = Cluster::new();
        let direct = plain.client().await;
        direct.batch_execute(SCHEMA).await.unwrap();
        direct.batch_execute(&functions).await.unwrap();
        let hosts = Hosts::bare(1, 8);
        hosts.write_map(&map_text(&hosts, &ROOMS[0]));
        let map = hosts.map();
        let report = provision::run(&map, SCHEMA, Options::default());
        let report = report.await.unwrap_or_else(|e| panic!("{e:#?}"));
        assert!(report.is_complete(), "{report}");
        hosts
            .client(0)
            .await
            .batch_execute(&functions)
            .await
            .unwrap();
        for shard in 0..8 {
            let grant = format!("GRANT USAGE ON SCHEMA shard_{shard:04} TO other");
            hosts.client(0).await.batch_execute(&grant).await.unwrap();
        }
        let serve = |(i, room): (usize, &Room)| {
            let file = hosts.dir().join(format!("lane-{i}.toml"));
            std::fs::write(&file, map_text(&hosts, room)).unwrap();
            Proxy::serve(&file, &[])
        };
        Lanes {
            plain,
            proxies: ROOMS.iter().enumerate().map(serve).collect(),
            _hosts: hosts,
        }
    }

    pub fn plain(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.plain.port()))
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
            statements,
            streams,
        } = &ROOMS[lane];
        format!("pool {pool}, {statements} statements a connection, {streams} streams at once")
    }
}

fn map_text(hosts: &Hosts, room: &Room) -> String {
    format!(
        "version = 1\n[keyspace]\nshards = 8\nkey = \"user_id\"\nfunction = \"modulo\"\nschema = \"shard_{{:04}}\"\n\
         [hosts.a]\nurl = \"{}\"\npool = {}\n[map]\n\"0-7\" = \"a\"\n\
         [tables]\nusers = {{ key = \"id\" }}\ncountries = {{ kind = \"reference\" }}\nt = {{ kind = \"reference\" }}\n[users.app]\n\
         [proxy]\nlisten = \"127.0.0.1:0\"\n[proxy.limits]\nstatement_cache_per_connection = {}\n\
         [proxy.timeouts]\ncheckout_wait = \"60s\"\n",
        hosts.clusters[0].url(),
        room.pool,
        room.statements
    )
}
