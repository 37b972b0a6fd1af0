//! A commit over several hosts is stopped at each of its steps, and there something is killed, cut off or frozen: what the
//! client hears, what stands on the hosts afterwards, and that nothing is left behind.

use std::time::{Duration, Instant};

use crate::support::raw::q;
use crate::support::wire::{Part, Wire};
use crate::support::{Proxy, Seam, Several, Way, texts};

const SHARDS: i64 = 12;
const SCHEMA: &str = "
CREATE TABLE accounts (user_id bigint PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE entries (user_id bigint NOT NULL, id bigint NOT NULL, UNIQUE (user_id, id) DEFERRABLE INITIALLY DEFERRED);
";
/// A frozen host is waited for no longer than this at a step.
const PROXY: &str =
    "[proxy.timeouts]\ncross_host_step = \"1s\"\ncross_host_lock = \"5s\"\nconnect = \"2s\"";
/// Longer than any step of a commit and less than what hangs.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is left after the last restart must be gone within this.
const LOCKS_FREE: Duration = Duration::from_secs(10);

/// The host whose part is committed together with the decision: the second that was written on. Beside it `0` and `2`.
const DECISION: usize = 1;
const OTHER: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BeforePrepare,
    Prepared,
    Deciding,
    Decided,
    Committed,
    /// After a failure at this host's part: a constraint that is checked at the end.
    RollingBack(usize),
}
use Step::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    Proxy,
    /// A host, killed with -9.
    Host(usize),
    /// The proxy's connections to a host.
    Network(usize),
    /// A host that answers nothing until the client has heard, or until nothing is left to do but to wait for it.
    Frozen(usize),
    Client,
}
use Victim::*;

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Commit,
    /// An error that means that nothing was committed.
    Refused,
    /// 08007.
    Unknown,
    /// The connection ended.
    Nothing,
}

/// What stands on all hosts in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Everything,
    Nowhere,
}
use Outcome::*;

impl Step {
    fn name(self) -> &'static str {
        match self {
            BeforePrepare => "before-prepare",
            Prepared => "prepared",
            Deciding => "deciding",
            Decided => "decided",
            Committed => "committed",
            RollingBack(_) => "rolling-back",
        }
    }
}

/// The design: what is heard, and what stands.
fn design(step: Step, victim: Victim) -> (&'static [Heard], Outcome) {
    use Heard::*;
    let decided = matches!(step, Decided | Committed);
    match (step, victim) {
        // Whoever hears nothing can know nothing.
        (_, Victim::Proxy) if decided => (&[Nothing], Everything),
        (_, Victim::Proxy) => (&[Nothing], Nowhere),
        (RollingBack(_), Client) => (&[Nothing], Nowhere),
        (_, Client) => (&[Nothing], Everything),
        (RollingBack(_), _) => (&[Refused], Nowhere),
        // The decision stands, whatever happens to a host.
        _ if decided => (&[Commit], Everything),
        (_, Nobody) => (&[Commit], Everything),
        // It can't be decided any more. Whether the message had got there, the proxy may not be able to tell.
        (_, Host(DECISION) | Network(DECISION)) => (&[Refused, Unknown], Nowhere),
        // As of one Postgres that freezes at COMMIT: it alone can say what became of it, and is waited for.
        (_, Frozen(DECISION)) => (&[Commit], Everything),
        // One that can't prepare prevents all.
        (BeforePrepare, Host(_) | Network(_) | Frozen(_)) => (&[Refused], Nowhere),
        // One that has prepared can be told later.
        (_, Host(_) | Network(_) | Frozen(_)) => (&[Commit], Everything),
    }
}

/// Three hosts and a proxy that can be stopped.
struct Stand {
    several: Several,
    seam: Seam,
    proxy: Option<Proxy>,
    map_file: std::path::PathBuf,
    next: i64,
}

impl Stand {
    fn new() -> Stand {
        Stand::of(Several::provisioned(3, SHARDS, SCHEMA))
    }

    fn of(several: Several) -> Stand {
        let map_file = several.write_map("proxy", 0, Way::Relayed, PROXY);
        let seam = Seam::new();
        let proxy = Some(Proxy::with_seam(&map_file, &seam));
        Stand {
            several,
            seam,
            proxy,
            map_file,
            next: 0,
        }
    }

    fn client(&self) -> Wire {
        Wire::connect(self.proxy.as_ref().unwrap().addr(), "app")
    }

    /// A new user on each host, with a balance of 0.
    fn users(&mut self) -> [i64; 3] {
        self.next += 1;
        let users = [0, 1, 2].map(|host| self.next * SHARDS + host * SHARDS / 3);
        for user in users {
            let host = self.several.host_of(user);
            self.several.direct(host).run(&format!(
                "INSERT INTO shard_{:04}.accounts VALUES ({user}, 0)",
                user % SHARDS
            ));
        }
        users
    }

    /// The balance and the number of entries of a user, past the proxy.
    fn stands(&self, user: i64) -> [String; 2] {
        let schema = format!("shard_{:04}", user % SHARDS);
        let sql = format!(
            "SELECT balance, (SELECT count(*) FROM {schema}.entries e WHERE e.user_id = a.user_id) FROM {schema}.accounts a WHERE user_id = {user} FOR UPDATE"
        );
        let mut direct = self.several.direct(self.several.host_of(user));
        direct.run("SET lock_timeout = '10s'");
        texts(&direct.run(&sql)).remove(0).try_into().unwrap()
    }

    fn strike(&mut self, victim: Victim, client: &mut Option<Wire>) {
        match victim {
            Nobody => {}
            Victim::Proxy => drop(self.proxy.take().unwrap().kill()),
            Host(host) => self.several.clusters[host].kill(),
            Network(host) => self.several.relays[host].shut(),
            Frozen(host) => self.several.clusters[host].freeze(),
            Client => *client = None,
        }
    }

    fn mend(&mut self, victim: Victim) {
        match victim {
            Nobody | Client => {}
            Victim::Proxy => {
                self.proxy = Some(Proxy::with_seam(&self.map_file, &self.seam));
            }
            Host(host) => self.several.clusters[host].start(),
            Network(host) => self.several.relays[host].open(),
            // Twice is as good.
            Frozen(host) => self.several.clusters[host].thaw(),
        }
    }

    fn case(&mut self, step: Step, victim: Victim) -> Result<(), String> {
        let users = self.users();
        let mut client = Some(self.client());
        write(client.as_mut().unwrap(), &users, step)?;
        self.seam.stop_at(step.name());
        client.as_mut().unwrap().send(&q("COMMIT"))?;
        if !self.seam.is_reached(step.name(), PATIENCE) {
            self.seam.open();
            let heard = client.unwrap().receive();
            return Err(format!(
                "the step is not reached; the client heard {heard:?}"
            ));
        }
        self.strike(victim, &mut client);
        self.seam.open();
        // Longer than the limit of a step.
        let hears = client
            .as_ref()
            .is_none_or(|client| client.is_answered(Duration::from_secs(2)));
        if !hears {
            self.mend(victim);
        }
        let (heard, said) = heard(client.as_mut())?;
        // Somebody else looks at the hosts from now on, before what was struck is mended.
        let seen = match heard {
            Heard::Commit => self.others_see(victim, &users),
            _ => {
                self.mend(victim);
                Ok(())
            }
        };
        let mended = Instant::now();
        let (expected, outcome) = design(step, victim);
        if !expected.contains(&heard) {
            return Err(format!("heard {said}, which is not of {expected:?}"));
        }
        seen?;
        self.several.no_part_left(LOCKS_FREE)?;
        let stands = users.map(|user| self.stands(user));
        if mended.elapsed() > LOCKS_FREE {
            return Err(format!("locks are free after {:?}", mended.elapsed()));
        }
        let all = |what: [&str; 2]| stands.iter().all(|s| s == &what);
        match outcome {
            Everything if all(["7", "1"]) => {}
            Nowhere if all(["0", "0"]) => {}
            _ => {
                return Err(format!(
                    "{outcome:?} is designed, but there stands {stands:?}"
                ));
            }
        }
        if heard != Heard::Nothing {
            self.goes_on(client.as_mut().unwrap(), &users)?;
        }
        // A host that froze may have found a message of the old times only now.
        self.several.no_part_left(LOCKS_FREE)?;
        Ok(())
    }

    /// Mends what was struck, while other clients ask for what they were told is committed: they may be refused until then,
    /// but never see what was there before.
    fn others_see(&mut self, victim: Victim, users: &[i64]) -> Result<(), String> {
        let addr = self.proxy.as_ref().unwrap().addr();
        std::thread::scope(|scope| {
            let look = |user: i64| {
                move || {
                    let sql = format!("SELECT balance FROM accounts WHERE user_id = {user}");
                    let mut client = Wire::connect(addr, "app");
                    let began = Instant::now();
                    loop {
                        let answer = client.ask(&q(&sql))?;
                        match texts(&answer).first() {
                            Some(row) if row == &["7"] => return Ok(()),
                            Some(row) => {
                                return Err(format!(
                                    "COMMIT was heard, and then user {user} has {row:?}"
                                ));
                            }
                            None if began.elapsed() > PATIENCE => {
                                return Err(format!("user {user} can't be read: {answer:?}"));
                            }
                            None => std::thread::sleep(Duration::from_millis(5)),
                        }
                    }
                }
            };
            let looks: Vec<_> = users.iter().map(|user| scope.spawn(look(*user))).collect();
            // They have come to the host that does not answer.
            std::thread::sleep(Duration::from_millis(50));
            self.mend(victim);
            looks.into_iter().try_for_each(|look| look.join().unwrap())
        })
    }

    /// The session is as good as new: it takes another transaction over all hosts.
    fn goes_on(&self, client: &mut Wire, users: &[i64]) -> Result<(), String> {
        let before = users.iter().map(|user| self.stands(*user)[0].clone());
        let before: Vec<i64> = before.map(|balance| balance.parse().unwrap()).collect();
        let began = Instant::now();
        loop {
            // A pooled connection to a host that was lost may be found dead.
            let done = transfer(client, users)?;
            let after = users.iter().map(|user| self.stands(*user)[0].clone());
            let after: Vec<i64> = after.map(|balance| balance.parse().unwrap()).collect();
            let moved: Vec<i64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
            match done.as_str() {
                "COMMIT" if moved == [1, 1, 1] => return Ok(()),
                "COMMIT" => return Err(format!("the next transaction moved {moved:?}")),
                _ if moved != [0, 0, 0] => return Err(format!("{done}, but it moved {moved:?}")),
                _ if began.elapsed() > PATIENCE => {
                    return Err(format!("the session is lost: {done}"));
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Adds 7 and an entry for each user. The entry of the host that is to fail stands twice.
fn write(client: &mut Wire, users: &[i64], step: Step) -> Result<(), String> {
    let fails = match step {
        RollingBack(host) => Some(host),
        _ => None,
    };
    run(client, "BEGIN")?;
    for (host, user) in users.iter().enumerate() {
        run(
            client,
            &format!("UPDATE accounts SET balance = balance + 7 WHERE user_id = {user}"),
        )?;
        for _ in 0..if fails == Some(host) { 2 } else { 1 } {
            run(
                client,
                &format!("INSERT INTO entries (user_id, id) VALUES ({user}, 1)"),
            )?;
        }
    }
    Ok(())
}

/// Adds 1 for each user: the tag of COMMIT, or the error.
fn transfer(client: &mut Wire, users: &[i64]) -> Result<String, String> {
    let done = run(client, "BEGIN").and_then(|_| {
        for user in users {
            run(
                client,
                &format!("UPDATE accounts SET balance = balance + 1 WHERE user_id = {user}"),
            )?;
        }
        run(client, "COMMIT")
    });
    done.or_else(|why| {
        client.ask(&q("ROLLBACK"))?;
        Ok(why)
    })
}

fn run(client: &mut Wire, sql: &str) -> Result<String, String> {
    let answer = client.ask(&q(sql))?;
    match answer.as_slice() {
        [Part::Tag(tag), Part::Ready(_)] => Ok(tag.clone()),
        _ => Err(format!("{sql}: {answer:?}")),
    }
}

fn heard(client: Option<&mut Wire>) -> Result<(Heard, String), String> {
    let Some(client) = client else {
        return Ok((Heard::Nothing, "nothing".to_owned()));
    };
    let answer = client.receive();
    let strange = || Err(format!("what is that to mean: {answer:?}"));
    let heard = match answer.as_deref() {
        Ok([Part::Tag(tag), Part::Ready('I')]) if tag == "COMMIT" => Heard::Commit,
        Ok([.., Part::Error { code, has_hint, .. }, Part::Ready('I')]) => match code.as_str() {
            "08007" if *has_hint => Heard::Unknown,
            // Who reads no hint must see by the code what became of it.
            "40000" | "23505" => Heard::Refused,
            _ => return strange(),
        },
        Ok(_) => return strange(),
        Err(why) if why.contains("closed") || why.contains("reset") => Heard::Nothing,
        Err(_) => return strange(),
    };
    Ok((heard, format!("{answer:?}")))
}

fn all_cases(steps: &[Step], victims: &[Victim]) {
    let mut stand = Stand::new();
    let mut faults = Vec::new();
    for step in steps {
        for victim in victims {
            let began = Instant::now();
            if let Err(why) = stand.case(*step, *victim) {
                faults.push(format!("{step:?}, {victim:?}: {why}"));
                // The next is not to suffer from it.
                stand = Stand::new();
            }
            eprintln!("{step:?}, {victim:?}: {:?}", began.elapsed());
        }
    }
    if let Err(why) = stand.several.no_decision_left(PATIENCE) {
        faults.push(why);
    }
    let log = stand.proxy.as_ref().unwrap().log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

const STEPS: [Step; 7] = [
    BeforePrepare,
    Prepared,
    Deciding,
    Decided,
    Committed,
    RollingBack(DECISION),
    RollingBack(OTHER),
];

#[test]
fn a_commit_during_which_hosts_are_killed() {
    all_cases(&STEPS, &[Nobody, Host(DECISION), Host(OTHER)]);
}

#[test]
fn a_commit_during_which_hosts_are_cut_off_or_freeze() {
    // Of those that differ only in what the proxy has noted, one.
    all_cases(
        &[
            BeforePrepare,
            Prepared,
            Decided,
            RollingBack(DECISION),
            RollingBack(OTHER),
        ],
        &[
            Network(DECISION),
            Network(OTHER),
            Frozen(DECISION),
            Frozen(OTHER),
        ],
    );
}

#[test]
fn a_commit_during_which_the_proxy_is_killed_or_the_client_goes_away() {
    all_cases(&STEPS, &[Victim::Proxy, Client]);
}

#[test]
fn what_a_killed_proxy_leaves_another_proxy_ends() {
    another_proxy_ends(Stand::new());
}

#[test]
fn another_proxy_ends_it_on_hosts_that_are_copies_of_one() {
    another_proxy_ends(Stand::of(Several::copies(3, SHARDS, SCHEMA)));
}

/// The other proxy calls the hosts by other names, and is never restarted.
fn another_proxy_ends(mut stand: Stand) {
    let map_file = stand.several.write_map("other", 7, Way::Direct, PROXY);
    let other = Proxy::serve(&map_file, &[]);
    for step in [Prepared, Decided] {
        let users = stand.users();
        let mut client = Some(stand.client());
        write(client.as_mut().unwrap(), &users, step).unwrap();
        stand.seam.stop_at(step.name());
        client.as_mut().unwrap().send(&q("COMMIT")).unwrap();
        assert!(stand.seam.is_reached(step.name(), PATIENCE));
        // It is at work on it: nobody else may end it, however long it takes.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(stand.several.prepared().len(), 2);
        stand.strike(Victim::Proxy, &mut client);
        stand.seam.open();
        let mut writer = Wire::connect(other.addr(), "app");
        // A statement that waits for what was left is let through.
        let began = Instant::now();
        for user in users {
            run(
                &mut writer,
                &format!("UPDATE accounts SET balance = balance + 100 WHERE user_id = {user}"),
            )
            .unwrap();
        }
        // It looks at each host now and then, and again while something is in doubt.
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        stand.several.no_part_left(LOCKS_FREE).unwrap();
        let expected = match step {
            Decided => ["107", "1"],
            _ => ["100", "0"],
        };
        assert_eq!(
            users.map(|user| stand.stands(user)),
            [expected; 3],
            "{step:?}"
        );
        stand.proxy = Some(Proxy::with_seam(&stand.map_file, &stand.seam));
    }
}

#[test]
fn after_a_rollback_on_a_lost_host_nothing_is_waited_for() {
    let mut stand = Stand::new();
    let users = stand.users();
    let mut client = stand.client();
    write(&mut client, &users, Prepared).unwrap();
    // A host that was written on, but not first: the ROLLBACK on the first is answered.
    let gone = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    let answer = stand.several.direct(2).run(gone);
    assert_eq!(texts(&answer), [["t"]]);
    assert_eq!(run(&mut client, "ROLLBACK").as_deref(), Ok("ROLLBACK"));
    let user = users[2];
    let sql = format!("UPDATE accounts SET balance = balance + 7 WHERE user_id = {user}");
    for sql in ["BEGIN", &sql, "COMMIT"] {
        run(&mut client, sql).unwrap();
    }
    assert_eq!(stand.stands(user), ["7", "0"]);
}
