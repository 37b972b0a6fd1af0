//! `presplit demo` as a person runs it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use presplit::ops::cluster::free_port;

use crate::support;

/// Starts the demo and waits until it says that it runs. Its ports are `port` and those near it.
pub fn start(dir: &Path, port: u16) -> Child {
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_presplit"))
        .args(["demo", "--port", &port.to_string(), "--dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(said.reopen().unwrap())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let runs = lines.any(|line| line.unwrap().contains("The demo runs"));
    assert!(
        runs,
        "it ended before it ran: {:?}: {}",
        demo.wait(),
        std::fs::read_to_string(said.path()).unwrap_or_default()
    );
    // Standard output is read to its end, lest the demo die of a closed pipe.
    std::thread::spawn(move || lines.count());
    demo
}

async fn photos_on(port: u16, schema: &str) -> i64 {
    let config = format!("postgres://app@127.0.0.1:{port}/app")
        .parse()
        .unwrap();
    let client = support::connect(&config).await;
    client
        .query_one(&format!("SELECT count(*) FROM {schema}.photos"), &[])
        .await
        .unwrap()
        .get(0)
}

/// Waits until nobody listens on the hosts' ports any more.
fn wait_until_gone(port: u16) {
    let began = Instant::now();
    while [port, port + 9, port + 10, port + 48]
        .iter()
        .any(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok())
    {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "something that the demo started still listens near {port}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn it_runs_twice_in_a_row_and_leaves_nothing_running_however_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    // Below the ports that the kernel gives to connections (ip_local_port_range): none of another test takes it between
    // two starts.
    let port = 20_000 + free_port().unwrap() % 10_000;
    for signal in ["KILL", "HUP"] {
        let mut demo = start(dir.path(), port);
        assert_eq!(
            photos_on(port + 9, "shard_0002").await,
            6,
            "three users with two photos each"
        );
        assert_eq!(photos_on(port + 10, "shard_0007").await, 6);
        let second = Command::new(env!("CARGO_BIN_EXE_presplit"))
            .args(["demo", "--port", &port.to_string(), "--dir"])
            .arg(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(
            !second.status.success() && said.contains("already"),
            "{said}"
        );
        Command::new("kill")
            .args([&format!("-{signal}"), &demo.id().to_string()])
            .status()
            .unwrap();
        let ended = demo.wait().unwrap();
        assert_eq!(ended.success(), signal != "KILL", "{signal}: {ended}");
        wait_until_gone(port);
    }
    assert!(dir.path().join("shardmap.toml").exists(), "the map stays");
    assert!(!dir.path().join("hosts").exists(), "the hosts' data goes");
}
