//! What a statement costs on the wire between proxy and host: the same packets, whether or not the settings of its client are
//! those that the server connection had before.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::World;
use crate::support::raw::{b, e, p, q, s};
use crate::support::{Proxy, Raw};

/// Everything that was read in one piece.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<Piece>>>);

#[derive(Clone)]
struct Piece {
    connection: usize,
    up: bool,
    bytes: Vec<u8>,
}

impl Wire {
    /// A relay to a host, which notes what comes in one piece. Of small messages these are as many as there are packets.
    fn before(port: u16) -> (Wire, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let wire = Wire::default();
        let all = wire.clone();
        std::thread::spawn(move || {
            for (connection, near) in listener.incoming().map_while(Result::ok).enumerate() {
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                    return;
                };
                all.pass(connection, true, &near, &far);
                all.pass(connection, false, &far, &near);
            }
        });
        (wire, own)
    }

    fn pass(&self, connection: usize, up: bool, from: &TcpStream, to: &TcpStream) {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        to.set_nodelay(true).unwrap();
        let pieces = self.0.clone();
        std::thread::spawn(move || {
            let mut buf = vec![0; 65536];
            while let Ok(n @ 1..) = from.read(&mut buf) {
                let bytes = buf[..n].to_vec();
                pieces.lock().unwrap().push(Piece {
                    connection,
                    up,
                    bytes,
                });
                if to.write_all(&buf[..n]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    }

    /// Packets to the host and back that something with this mark costs.
    fn cost(&self, mark: &str, act: impl FnOnce()) -> (usize, usize) {
        let before = self.0.lock().unwrap().len();
        act();
        let pieces = self.0.lock().unwrap()[before..].to_vec();
        let has = |piece: &&Piece| {
            let mut windows = piece.bytes.windows(mark.len());
            piece.up && windows.any(|w| w == mark.as_bytes())
        };
        let marked = pieces.iter().find(has);
        let marked = marked.unwrap_or_else(|| panic!("nobody said {mark:?}"));
        let of = |up| {
            let all = pieces.iter();
            all.filter(|p| p.connection == marked.connection && p.up == up)
                .count()
        };
        (of(true), of(false))
    }
}

/// One server connection, packets counted.
fn counted(world: &World) -> (Wire, Proxy) {
    let cluster = &world.hosts.clusters[0];
    let (wire, port) = Wire::before(cluster.port());
    let map = world.hosts.map_text(1, "").replace("pool = 10", "pool = 1");
    let url = format!("postgres://app@127.0.0.1:{port}/app");
    world.hosts.write_map(&map.replace(&cluster.url(), &url));
    (wire, Proxy::start(&world.hosts))
}

fn simple(mark: &str) -> Vec<u8> {
    q(&format!("SELECT name, '{mark}' FROM users WHERE id = 1"))
}

fn extended(mark: &str) -> Vec<u8> {
    let sql = "SELECT name, $2::text FROM users WHERE id = $1";
    [p("", sql), b("", "", &["1", mark]), e("", 0), s()].concat()
}

fn right(answer: &[String], mark: &str) {
    assert!(
        answer.iter().any(|line| *line == format!("D u1|{mark}")),
        "{answer:?}"
    );
}

/// A client with settings of its own, some from its startup packet.
fn client(proxy: &Proxy, which: usize) -> Raw {
    let zone = ["Asia/Tokyo", "America/Lima", "Europe/Vienna"][which];
    let options = format!("-c TimeZone={zone} -c statement_timeout={}s", 60 + which);
    let name = format!("client {which}");
    let mut raw = Raw::with(
        proxy.addr(),
        &[("options", &options), ("application_name", &name)],
    );
    for set in [
        format!("SET work_mem TO '{}MB'", 4 + which),
        format!("SET DateStyle TO {}", ["ISO", "SQL", "German"][which]),
        format!(
            "SET search_path TO {}",
            ["s1, public", "s2, public", "public"][which]
        ),
        format!("SET ROLE {}", ["none", "state_1", "state_2"][which]),
        format!("SELECT set_config('myapp.uid', 'u{which}', false)"),
    ] {
        raw.query(&set);
    }
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_settings_cost_no_packet() {
    let world = World::new(1).await;
    let (wire, proxy) = counted(&world);
    tokio::task::block_in_place(|| {
        let mut clients: Vec<Raw> = (0..3).map(|n| client(&proxy, n)).collect();
        for protocol in [simple, extended] {
            for raw in &mut clients {
                raw.ask(&protocol("warm"), 1);
            }
            let mut n = 0;
            let mut run = |raw: &mut Raw| {
                n += 1;
                let mark = format!("mark {n}");
                wire.cost(&mark, || right(&raw.ask(&protocol(&mark), 1), &mark))
            };
            for round in 0..30 {
                // The last one was another's, and then its own.
                let raw = &mut clients[round % 3];
                assert_eq!(run(raw), (1, 1), "other settings before");
                assert_eq!(run(raw), (1, 1), "the same");
                raw.query("BEGIN");
                let other = &mut clients[(round + 1) % 3];
                other.query("SET lock_timeout TO 0");
                let raw = &mut clients[round % 3];
                assert_eq!(run(raw), (1, 1), "the first of a block");
                assert_eq!(run(raw), (1, 1), "the next of a block");
                raw.query(["COMMIT", "ROLLBACK"][round % 2]);
                assert_eq!(run(raw), (1, 1), "behind a block");
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_statement_after_a_startup_with_options_costs_no_packet() {
    let world = World::new(1).await;
    let (wire, proxy) = counted(&world);
    tokio::task::block_in_place(|| {
        let options = [
            ("options", "-c TimeZone=Asia/Tokyo -c geqo=off"),
            ("DateStyle", "SQL"),
        ];
        let mut other = client(&proxy, 1);
        for protocol in [simple, extended] {
            for n in 0..10 {
                let mut raw = Raw::with(proxy.addr(), &options);
                other.ask(&protocol("other"), 1);
                let mark = format!("first {n}");
                let cost = wire.cost(&mark, || right(&raw.ask(&protocol(&mark), 1), &mark));
                assert_eq!(cost, (1, 1));
            }
        }
    });
}

/// SET itself, and what tells of a setting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_costs_one_packet_each_way() {
    let world = World::new(1).await;
    let (wire, proxy) = counted(&world);
    tokio::task::block_in_place(|| {
        let mut clients: Vec<Raw> = (0..2).map(|n| client(&proxy, n)).collect();
        for n in 0..10 {
            for raw in &mut clients {
                for text in [
                    format!("SET application_name TO 'name {n}'"),
                    format!("SELECT set_config('application_name', 'name {n}!', false)"),
                ] {
                    raw.show_parameters = true;
                    let mark = format!("name {n}");
                    let told = std::cell::RefCell::new(Vec::new());
                    let cost = wire.cost(&mark, || *told.borrow_mut() = raw.query(&text));
                    assert_eq!(cost, (1, 1), "{text}");
                    let told = told.into_inner();
                    let mark = format!("S application_name=name {n}");
                    assert!(told.iter().any(|line| line.starts_with(&mark)), "{told:?}");
                }
            }
        }
    });
}
