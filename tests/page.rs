//! The demo's page: what it is served as, and, where Chromium is installed (`make page` sees to it), how a person uses it.

mod browser;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use presplit::ops::cluster::free_port;
use serde_json::{Value, json};

use crate::feed::http::call;
use crate::{demo, support};
use browser::{Browser, Key};

/// A demo of one test.
struct Demo {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Demo {
    fn start() -> Demo {
        let dir = tempfile::tempdir().unwrap();
        // Below the ports that the kernel gives to connections.
        let port = 20_000 + free_port().unwrap() % 10_000;
        Demo {
            process: demo::start(dir.path(), port),
            port,
            _dir: dir,
        }
    }

    fn feed(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port + 48))
    }

    /// As Ctrl-C does; it has to end well.
    fn stop(&mut self) {
        let pid = self.process.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        assert!(self.process.wait().unwrap().success());
    }

    /// How often the host has this media in this shard.
    async fn on_host(&self, host: &str, shard: u32, id: &str) -> i64 {
        let port = self.port + if host == "a" { 9 } else { 10 };
        let url = format!("postgres://app@127.0.0.1:{port}/app");
        let client = support::connect(&url.parse().unwrap()).await;
        let sql = format!("SELECT count(*) FROM shard_{shard:04}.media WHERE id = {id}");
        client.query_one(&sql, &[]).await.unwrap().get(0)
    }

    fn post(&self, author: u32, text: &str) -> String {
        let body = json!({"user_id": author.to_string(), "body": {"text": text}}).to_string();
        let posted = call(self.feed(), "POST", "/v1/media", &[], Some(&body));
        assert_eq!(posted.status, 201, "{posted:?}");
        posted.json()["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its hosts end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn it_is_served_with_all_that_it_needs_and_nothing_from_elsewhere() {
    let mut demo = Demo::start();
    let at = demo.feed();
    let get = |path: &str| call(at, "GET", path, &[], None);
    let page = get("/");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert!(page.body.contains("<title>presplit demo</title>"));
    for (path, kind) in [
        ("/demo/page.css", "text/css"),
        ("/demo/page.js", "text/javascript"),
    ] {
        assert!(page.body.contains(path), "{path} is part of the page");
        let file = get(path);
        assert_eq!(file.status, 200);
        assert!(file.header("content-type").unwrap().starts_with(kind));
        assert!(!file.body.contains("innerHTML") && !file.body.contains("://"));
    }
    assert!(!page.body.contains("://"), "no address but its own");

    // People are where the map in force says, as the hosts know.
    let people = get("/demo/people").json();
    assert_eq!(people["hosts"], json!(["a", "b"]));
    let people = people["people"].as_array().unwrap().clone();
    assert_eq!(people.len(), 8);
    for person in &people {
        let user: u32 = person["user_id"].as_str().unwrap().parse().unwrap();
        let id = demo.post(user, "hello");
        let said = get(&format!("/demo/media?ids={id}")).json()["media"][0].clone();
        for field in ["shard", "schema", "host", "url"] {
            assert_eq!(said[field], person[field], "{field} of {person}");
        }
        let shard = said["shard"].as_u64().unwrap() as u32;
        let host = said["host"].as_str().unwrap();
        assert_eq!((shard, demo.on_host(host, shard, &id).await), (user % 8, 1));
    }
    for wrong in ["?ids=x", "?ids=", "?ids=-1", "?ids=9223372036854775807", ""] {
        let answer = get(&format!("/demo/media{wrong}"));
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("bad_request")),
            "{wrong}"
        );
    }

    // The API stands beside it as ever, and the proxy knows the tables from the first statement on.
    assert_eq!(get("/healthz").status, 200);
    assert_eq!(get("/elsewhere").json()["code"], "no_such_route");
    let url = format!("postgres://app@127.0.0.1:{}/app", demo.port);
    let client = support::connect(&url.parse().unwrap()).await;
    let media = client
        .query("SELECT id FROM media WHERE user_id = 4", &[])
        .await;
    assert_eq!(media.unwrap().len(), 3);
    demo.stop();
}

const XSS: &str =
    "<img src=x onerror=\"window.hacked = 1\"><script>window.hacked = 1</script><b>bold</b>";

/// ada is user 1, bao is user 2, who does not follow her at first.
#[tokio::test]
async fn a_person_posts_follows_and_watches_feeds_arrive() {
    let Some(chromium) = browser::find() else {
        browser::skipped("no Chromium is installed: `make page` installs one and runs this test");
        return;
    };
    let mut demo = Demo::start();
    let origin = format!("http://{}/", demo.feed());
    let mut page = Browser::start(&chromium);
    page.show(1440, 1100, "light");
    page.open(&format!("{origin}?as=1&watch=2"));
    page.wait("document.querySelectorAll('#mine .row .chip.h0, #mine .row .chip.h1').length > 5");

    // Each row names the shard and host that it is on.
    let rows = page.eval(
        "[...document.querySelectorAll('.row')].map(r => [r.dataset.id, r.querySelector('.chip').textContent])",
    );
    for row in rows.as_array().unwrap() {
        let (id, chip) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let (shard, host) = chip
            .strip_prefix("shard ")
            .unwrap()
            .split_once(" · host ")
            .unwrap();
        assert_eq!(
            demo.on_host(host, shard.parse().unwrap(), id).await,
            1,
            "{row}"
        );
    }

    // By keys alone: to the box, a text, Ctrl + Enter.
    page.tab_to("text");
    page.type_text("First light over the harbour");
    page.press(Key::CtrlEnter);
    page.wait(&row_of("mine", "First light over the harbour"));
    page.wait("document.getElementById('text').value === ''");
    page.wait("/^Posted to shard_0001 on host a in \\d+ ms; for 3 followers\\.$/.test(document.getElementById('posted').textContent)");
    page.wait(
        "document.getElementById('bits').textContent.includes('schema shard_0001, now on host\\u00a0a')",
    );

    // As bao, who does not see it until she follows.
    page.focus("document.getElementById('me')");
    page.press(Key::Down);
    page.wait("document.getElementById('me').selectedOptions[0].text === 'bao' && document.querySelectorAll('#mine .row').length > 3");
    page.wait(PRESSED_FALSE);
    assert_eq!(
        page.eval(&row_of("mine", "First light over the harbour")),
        false
    );
    page.focus(FOLLOW_ADA);
    page.press(Key::Space);
    page.wait(&format!(
        "{FOLLOW_ADA}.getAttribute('aria-pressed') === 'true'"
    ));
    page.wait(&row_of("mine", "First light over the harbour"));
    assert_eq!(
        page.eval(&format!("document.activeElement === {FOLLOW_ADA}")),
        true,
        "the focus stays where it was"
    );

    // One that is posted elsewhere arrives by itself, and is said aloud.
    demo.post(1, "The ferry is late");
    page.wait(&row_of("mine", "The ferry is late"));
    page.wait("document.querySelector('#mine [data-part=news]').textContent === 'In the feed of bao: ada: The ferry is late'");

    // What looks like markup is text.
    page.focus("document.getElementById('text')");
    page.type_text(XSS);
    page.press(Key::CtrlEnter);
    page.wait(&row_of("mine", XSS));
    assert_eq!(page.eval("window.hacked ?? null"), Value::Null);
    assert_eq!(
        page.eval("document.querySelectorAll('.rows img, .rows script, .rows b').length"),
        0
    );

    page.screenshot(&picture("light"));
    page.show(1440, 1100, "dark");
    page.screenshot(&picture("dark"));
    page.show(900, 1100, "light");
    assert_eq!(page.eval(WIDER), false);
    page.screenshot(&picture("middle"));
    for (name, width) in [("narrow", 375), ("narrowest", 320)] {
        page.show(width, 800, "light");
        assert_eq!(
            page.eval(WIDER),
            false,
            "nothing sticks out at {width} pixels"
        );
        page.screenshot(&picture(name));
    }
    page.show(1440, 1100, "light");

    // Her own post can be deleted, whom she does not follow any more is not shown any more.
    page.focus("document.querySelector('#mine .delete:not([hidden])')");
    page.press(Key::Enter);
    page.wait(&format!("!({})", row_of("mine", XSS)));
    page.focus(FOLLOW_ADA);
    page.press(Key::Space);
    page.wait(PRESSED_FALSE);
    page.wait(&format!("!({})", row_of("mine", "The ferry is late")));
    assert_eq!(
        page.eval(&row_of("mine", "First light over the harbour")),
        false
    );

    // What can't be done is said with what to do.
    call(demo.feed(), "PUT", "/v1/users/1/blocked/2", &[], None);
    page.focus(FOLLOW_ADA);
    page.press(Key::Space);
    page.wait("!document.getElementById('problem').hidden");
    let said = page.eval("document.getElementById('problem').innerText");
    let said = said.as_str().unwrap();
    assert!(
        said.contains("blocks the other: nothing was changed")
            && said.contains("must unblock first"),
        "{said}"
    );
    page.focus("document.getElementById('problem-close')");
    page.press(Key::Enter);
    page.wait("document.getElementById('problem').hidden");

    let (asked, faults) = page.asked_and_faults();
    assert!(
        asked.iter().all(|url| url.starts_with(&origin)),
        "{asked:#?}"
    );
    // The browser itself notes the 409.
    let faults: Vec<_> = faults.iter().filter(|f| !f.contains("409")).collect();
    assert!(faults.is_empty(), "{faults:#?}");

    // A demo that is stopped is said to be.
    demo.stop();
    page.wait("document.getElementById('state').className === 'state down'");
    page.wait("document.getElementById('problem').innerText.includes('does not answer')");
    page.screenshot(&picture("stopped"));
}

const FOLLOW_ADA: &str = "document.querySelector('#people [data-user=\"1\"] button')";
const PRESSED_FALSE: &str = "document.querySelector('#people [data-user=\"1\"] button').getAttribute('aria-pressed') === 'false'";
const WIDER: &str = "document.documentElement.scrollWidth > document.documentElement.clientWidth";

fn row_of(feed: &str, text: &str) -> String {
    let text = Value::from(text);
    format!(
        "[...document.querySelectorAll('#{feed} .row .text')].some(t => t.textContent === {text})"
    )
}

/// In the target directory, for whoever wants to look.
fn picture(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    std::fs::create_dir_all(target.join("page")).unwrap();
    target.join("page").join(format!("{name}.png"))
}

/// How long the page may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

fn patiently(began: Instant) -> bool {
    std::thread::sleep(Duration::from_millis(20));
    began.elapsed() < PATIENCE
}
