//! The HTTP API of the real binary, over sockets: what it does, what it refuses and how, and that it is as its description says.

use serde_json::{Value, json};

use super::http::{Answer, Described, Service, call};
use super::place::{place, users};

/// The service, and its description against which every answer is checked.
struct Api {
    service: Service,
    described: Described,
}

impl Api {
    async fn start() -> Api {
        let url = place().await.proxy.url();
        let service = Service::start(&["--database-url", &url]);
        let described = call(service.at, "GET", "/v1/openapi.json", &[], None).json();
        Api {
            service,
            described: Described(described),
        }
    }

    fn with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let body = body.map(Value::to_string);
        let answer = call(self.service.at, method, path, headers, body.as_deref());
        self.described.check(method, path, &answer);
        answer
    }

    /// A call that is to be answered with this status; its JSON, if there is any.
    fn does(&self, status: u16, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.with(method, path, &[], body.as_ref());
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        if answer.body.is_empty() {
            Value::Null
        } else {
            answer.json()
        }
    }

    /// A call that is to be refused with this code.
    fn refuses(&self, code: &str, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.with(method, path, &[], body.as_ref());
        problem(code, &answer)
    }

    fn post(&self, user: i64, body: Value) -> String {
        let posted = self.does(
            201,
            "POST",
            "/v1/media",
            Some(json!({ "user_id": user.to_string(), "body": body })),
        );
        posted["id"].as_str().unwrap().to_owned()
    }

    fn home(&self, user: i64, query: &str) -> (Vec<String>, Value) {
        let page = self.does(200, "GET", &format!("/v1/users/{user}/home{query}"), None);
        let ids = page["media"].as_array().unwrap().iter();
        (
            ids.map(|m| m["id"].as_str().unwrap().to_owned()).collect(),
            page,
        )
    }
}

/// The answer's problem details, which must be whole.
pub fn problem(code: &str, answer: &Answer) -> Value {
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(problem["status"], answer.status);
    assert_eq!(problem["type"], format!("urn:presplit:feed:{code}"));
    for field in ["title", "detail", "hint"] {
        assert!(
            problem[field].as_str().is_some_and(|t| !t.is_empty()),
            "{problem}"
        );
    }
    problem
}

#[tokio::test]
async fn posts_reach_followers_and_go_when_deleted() {
    let api = Api::start().await;
    let [author, reader, other] = users(3)[..] else {
        unreachable!()
    };
    let edge = api.does(
        200,
        "PUT",
        &format!("/v1/users/{reader}/following/{author}"),
        None,
    );
    assert_eq!(edge, json!({ "status": "following" }));
    assert_eq!(api.home(reader, "").0, [""; 0]);
    let body = json!({ "text": "größe \"1\"", "n": [1, 2.5, null, 12345678901234567890u64] });
    let new = json!({ "user_id": author.to_string(), "body": body });
    let answer = api.with(
        "POST",
        "/v1/media",
        &[("Idempotency-Key", "k1")],
        Some(&new),
    );
    assert_eq!(answer.status, 201);
    let first = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        answer.header("location"),
        Some(format!("/v1/media/{first}").as_str())
    );
    // The author sees it on the next read, its followers soon; by repeating the call it is not posted twice.
    assert_eq!(api.home(author, "").0, [first.as_str()]);
    let again = api.with(
        "POST",
        "/v1/media",
        &[("Idempotency-Key", "k1")],
        Some(&new),
    );
    assert_eq!((again.status, again.json()), (200, answer.json()));
    let mut different = new.clone();
    different["body"]["n"] = json!(7);
    let mismatch = api.with(
        "POST",
        "/v1/media",
        &[("Idempotency-Key", "k1")],
        Some(&different),
    );
    problem("idempotency_mismatch", &mismatch);
    let arrived = || async { api.home(reader, "").0 == [first.clone()] };
    crate::support::wait_until("the post has arrived", arrived).await;
    let second = api.post(author, json!("text alone"));
    let arrived = || async { api.home(reader, "").0 == [second.clone(), first.clone()] };
    crate::support::wait_until("the second has arrived", arrived).await;
    let answer = api.with(
        "GET",
        &format!("/v1/users/{reader}/home?limit=1"),
        &[],
        None,
    );
    assert_eq!(answer.header("presplit-source"), Some("list"));
    assert_eq!(answer.header("presplit-shed"), Some("0"));
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    let page = answer.json();
    assert_eq!(page["media"][0]["body"], "text alone");
    let older = page["older"].as_str().unwrap();
    let (ids, page) = api.home(reader, &format!("?before={older}"));
    assert_eq!((ids, &page["older"]), (vec![first.clone()], &Value::Null));
    assert_eq!(page["media"][0]["body"], body);
    let newer = page["newer"].as_str().unwrap();
    assert_eq!(
        api.home(reader, &format!("?after={newer}")).0,
        [second.as_str()]
    );
    assert_eq!(
        api.home(reader, &format!("?after={second}")).1["newer"],
        second
    );
    let media = api.with("GET", &format!("/v1/media/{first}"), &[], None);
    assert_eq!(media.json()["body"], body);
    assert_eq!(media.header("cache-control"), Some("public, max-age=1"));
    // Deleted by its author alone; it may be repeated.
    api.refuses(
        "not_found",
        "DELETE",
        &format!("/v1/media/{first}?user_id={other}"),
        None,
    );
    for _ in 0..2 {
        let path = format!("/v1/media/{first}?user_id={author}");
        api.does(204, "DELETE", &path, None);
    }
    api.refuses("not_found", "GET", &format!("/v1/media/{first}"), None);
    for user in [author, reader] {
        assert_eq!(api.home(user, "").0, [second.as_str()]);
    }
    let counts = api.does(200, "GET", &format!("/v1/users/{author}/counts"), None);
    assert_eq!(
        counts,
        json!({ "posts": 1, "followers": 1, "following": 0 })
    );
    let profile = api.with("GET", &format!("/v1/users/{author}/media"), &[], None);
    assert_eq!(profile.header("presplit-source"), Some("postgres"));
    assert_eq!(profile.json()["media"][0]["id"], second);
    let public = api.does(200, "GET", "/v1/public?limit=200", None);
    assert!(
        public["media"]
            .as_array()
            .unwrap()
            .iter()
            .all(|m| m["id"] != first)
    );
}

#[tokio::test]
async fn the_graph_over_http() {
    let api = Api::start().await;
    let all = users(6);
    let [me, a, b, private, blocker, last] = all[..] else {
        unreachable!()
    };
    let user = |u: i64, rest: &str| format!("/v1/users/{u}/{rest}");
    assert_eq!(
        api.does(200, "GET", &user(private, "state"), None),
        json!({ "private": false })
    );
    api.does(
        200,
        "PUT",
        &user(private, "state"),
        Some(json!({ "private": true })),
    );
    assert_eq!(
        api.does(200, "GET", &user(private, "state"), None),
        json!({ "private": true })
    );
    api.does(200, "PUT", &user(blocker, &format!("blocked/{me}")), None);
    let targets: Vec<String> = all.iter().map(i64::to_string).collect();
    let followed = api.does(
        200,
        "POST",
        &user(me, "follow_all"),
        Some(json!({ "targets": targets })),
    );
    let result = |t: i64, result: &str| json!({ "target": t.to_string(), "result": result });
    let want = [
        result(a, "following"),
        result(b, "following"),
        result(private, "requested"),
        result(blocker, "blocked"),
        result(last, "following"),
    ];
    assert_eq!(followed["results"].as_array().unwrap(), &want);
    // Pages of users.
    let page = api.does(200, "GET", &user(me, "following?limit=2"), None);
    assert_eq!(
        page["users"],
        json!([{ "user_id": a.to_string(), "muted": false }, { "user_id": b.to_string(), "muted": false }])
    );
    let next = page["next"].as_str().unwrap();
    let page = api.does(
        200,
        "GET",
        &user(me, &format!("following?limit=2&after={next}")),
        None,
    );
    assert_eq!(
        (page["users"][0]["user_id"].as_str(), &page["next"]),
        (Some(last.to_string().as_str()), &Value::Null)
    );
    assert_eq!(
        api.does(200, "GET", &user(a, "followers"), None)["users"][0]["user_id"],
        me.to_string()
    );
    // Requests.
    assert_eq!(
        api.does(200, "GET", &user(private, "requests"), None)["users"][0]["user_id"],
        me.to_string()
    );
    api.refuses(
        "private",
        "GET",
        &user(private, &format!("media?viewer={me}")),
        None,
    );
    api.refuses(
        "nothing_to_change",
        "PUT",
        &user(private, &format!("requests/{a}")),
        None,
    );
    assert_eq!(
        api.does(200, "PUT", &user(private, &format!("requests/{me}")), None),
        json!({ "status": "following" })
    );
    api.does(
        200,
        "GET",
        &user(private, &format!("media?viewer={me}")),
        None,
    );
    // Mute, block, relations.
    api.does(200, "PUT", &user(me, &format!("muted/{a}")), None);
    api.refuses(
        "nothing_to_change",
        "PUT",
        &user(me, &format!("muted/{blocker}")),
        None,
    );
    api.does(200, "PUT", &user(me, &format!("blocked/{b}")), None);
    api.refuses("blocked", "PUT", &user(b, &format!("following/{me}")), None);
    api.does(200, "PUT", &user(last, &format!("following/{me}")), None);
    let relations = api.does(
        200,
        "POST",
        &user(me, "relations"),
        Some(json!({ "others": targets })),
    );
    let relation = |other: i64, to: &str, muted: bool, from: &str| json!({ "other": other.to_string(), "to_other": to, "muted": muted, "from_other": from });
    let want = json!([
        relation(me, "none", false, "none"),
        relation(a, "following", true, "none"),
        relation(b, "blocking", false, "none"),
        relation(private, "following", false, "none"),
        relation(blocker, "none", false, "blocking"),
        relation(last, "following", false, "following"),
    ]);
    assert_eq!(relations["relations"], want);
    assert_eq!(
        api.does(200, "GET", &user(me, "blocked"), None)["users"][0]["user_id"],
        b.to_string()
    );
    // Ends may be repeated.
    for _ in 0..2 {
        let ended = json!({ "status": "none" });
        assert_eq!(
            api.does(200, "DELETE", &user(me, &format!("following/{last}")), None),
            ended
        );
        assert_eq!(
            api.does(200, "DELETE", &user(me, &format!("blocked/{b}")), None),
            ended
        );
    }
    api.does(200, "DELETE", &user(me, &format!("muted/{a}")), None);
    api.refuses(
        "nothing_to_change",
        "DELETE",
        &user(private, &format!("requests/{a}")),
        None,
    );
    let counts = api.does(200, "GET", &user(me, "counts"), None);
    assert_eq!(
        counts,
        json!({ "posts": 0, "followers": 1, "following": 2 })
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_a_problem_with_a_code() {
    let api = Api::start().await;
    let user = users(1)[0].to_string();
    let home = |query: &str| format!("/v1/users/{user}/home?{query}");
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "before=1&after=2",
        "before=07",
        "before=x",
        "pages=1",
    ] {
        api.refuses("bad_request", "GET", &home(query), None);
    }
    api.refuses("bad_request", "GET", "/v1/users/me/home", None);
    api.refuses(
        "bad_request",
        "GET",
        &format!("/v1/users/{user}/followers?limit=1001"),
        None,
    );
    api.refuses(
        "bad_request",
        "PUT",
        &format!("/v1/users/{user}/following/{user}"),
        None,
    );
    let long = vec!["1"; 1001];
    api.refuses(
        "bad_request",
        "POST",
        &format!("/v1/users/{user}/follow_all"),
        Some(json!({ "targets": long })),
    );
    api.refuses(
        "bad_request",
        "POST",
        &format!("/v1/users/{user}/relations"),
        Some(json!({ "others": long })),
    );
    for body in [
        json!({}),
        json!({ "user_id": 7, "body": 1 }),
        json!({ "user_id": user }),
        json!({ "user_id": user, "body": 1, "more": 1 }),
        json!({ "user_id": user, "body": { "a": ["x\u{0}"] } }),
    ] {
        let problem = api.refuses("bad_request", "POST", "/v1/media", Some(body));
        assert!(
            problem["detail"].as_str().unwrap().contains("body"),
            "{problem}"
        );
    }
    let at = api.service.at;
    for raw in ["{", "", "{\"user_id\": \"1\", \"body\": \"\\ud800\"}"] {
        problem(
            "bad_request",
            &call(at, "POST", "/v1/media", &[], Some(raw)),
        );
    }
    let new = json!({ "user_id": user, "body": 1 }).to_string();
    let text = [("Content-Type", "text/plain")];
    problem(
        "unsupported_media_type",
        &call(at, "POST", "/v1/media", &text, Some(&new)),
    );
    let keys = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    problem(
        "bad_request",
        &call(at, "POST", "/v1/media", &keys, Some(&new)),
    );
    let large = json!({ "user_id": user, "body": "x".repeat(300_000) }).to_string();
    problem(
        "body_too_large",
        &call(at, "POST", "/v1/media", &[], Some(&large)),
    );
    problem("no_such_route", &call(at, "GET", "/v1/nothing", &[], None));
    problem("no_such_route", &call(at, "GET", "/", &[], None));
    let wrong = call(at, "PATCH", "/v1/media/1", &[], None);
    problem("method_not_allowed", &wrong);
    let mut allowed: Vec<&str> = wrong
        .header("allow")
        .unwrap()
        .split([',', ' '])
        .filter(|m| !m.is_empty() && *m != "HEAD")
        .collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET"]);
}

#[tokio::test]
async fn operators_see_and_steer_it() {
    let mut api = Api::start().await;
    let user = users(1)[0];
    assert_eq!(api.with("GET", "/healthz", &[], None).body, "ok\n");
    let icon = call(api.service.at, "GET", "/favicon.ico", &[], None);
    assert_eq!(
        (icon.status, icon.header("content-type")),
        (200, Some("image/svg+xml"))
    );
    let mut all: Vec<String> = (0..60).map(|n| api.post(user, json!(n))).collect();
    all.reverse();
    assert_eq!(api.home(user, "?limit=60").0, all);
    // Level 2 is a quarter; the cursor goes on from there.
    assert_eq!(
        api.does(200, "PUT", "/v1/shed", Some(json!({ "level": 2 }))),
        json!({ "level": 2, "automatic": false })
    );
    let answer = api.with("GET", &format!("/v1/users/{user}/home?limit=60"), &[], None);
    assert_eq!(answer.header("presplit-shed"), Some("2"));
    let page = answer.json();
    assert_eq!(page["media"].as_array().unwrap().len(), 15);
    assert_eq!(page["older"], all[14]);
    api.refuses(
        "bad_request",
        "PUT",
        "/v1/shed",
        Some(json!({ "level": 4 })),
    );
    let automatic = json!({ "level": 0, "automatic": true });
    assert_eq!(
        api.does(200, "PUT", "/v1/shed", Some(json!({ "level": null }))),
        automatic
    );
    assert_eq!(api.does(200, "GET", "/v1/shed", None), automatic);
    let equal = json!({ "equal": 1, "absent": 0, "differ": [] });
    let which = json!({ "users": [user.to_string()] });
    assert_eq!(api.does(200, "POST", "/v1/verify", Some(which)), equal);
    let metrics = api.with("GET", "/metrics", &[], None).body;
    for line in [
        "presplit_feed_posts_total 60",
        "presplit_feed_reads_total{source=\"built\",timeline=\"home\"} 1",
        "presplit_feed_requests_total{operation=\"post\",status=\"201\"} 60",
        "presplit_feed_shed_level 0",
    ] {
        assert!(
            metrics.lines().any(|l| l == line),
            "no {line} in\n{metrics}"
        );
    }
    for name in [
        "presplit_feed_outbox_rows_total",
        "presplit_feed_deliveries_total",
        "presplit_feed_build_seconds_count",
        "presplit_feed_verified_total",
    ] {
        assert!(metrics.contains(name), "no {name} in\n{metrics}");
    }
    assert!(api.service.stop().success());
}
