//! Requests that took too long, one line of JSON each in a file: what was asked, how it ended, and what it waited for.
//!
//! While a request is answered its task has a [`Trace`]; whoever waits for the store, for Postgres or for a build says so by
//! [`waiting`], which costs next to nothing where no file is configured.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::UserId;
use super::clock::now_ms;
use crate::shardmap::Section;

/// Waits that one line names.
const WAITS: usize = 50;
/// Characters of a wait's name: a statement's beginning.
const NAME: usize = 160;
/// Lines written within a second, at most.
const LINES: u32 = 20;
/// Lines that wait to be written.
const WAITING: usize = 256;

/// `[feed.slow]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowConfig {
    /// Where the lines go.
    pub file: PathBuf,
    /// Requests that took longer.
    pub over: Duration,
    /// What the file and the one before it may take together, in bytes.
    pub most: usize,
}

impl SlowConfig {
    /// `None`: there is no such section, or it has a fault.
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<SlowConfig> {
        let file = section.need("file", "file = \"/var/log/presplit/slow.jsonl\"");
        let file = file.and_then(|entry| {
            let file = section.string(entry)?.value;
            if file.is_empty() {
                section.bad(entry, "is empty", "write the path of a file");
                return None;
            }
            Some(PathBuf::from(file))
        });
        let over = section.duration("over", Duration::from_millis(250));
        let most = section.bytes("most", 1 << 16..=1 << 40, 32 << 20);
        section.finish();
        Some(SlowConfig {
            file: file?,
            over,
            most,
        })
    }
}

tokio::task_local! {
    /// The request that this task answers. Set around its handler and nowhere else: no other state is kept this way.
    static TRACE: Arc<Trace>;
}

/// What one request has waited for so far.
#[derive(Debug)]
struct Trace {
    began: Instant,
    /// On whose behalf, if the path does not say so.
    user: OnceLock<UserId>,
    waits: Mutex<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    named: Vec<Wait>,
    /// Those that there was no room for.
    more: usize,
}

#[derive(Debug)]
struct Wait {
    what: &'static str,
    name: String,
    after: Duration,
    took: Duration,
}

/// Something that the request waits for, until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    trace: Arc<Trace>,
    what: &'static str,
    name: String,
    began: Instant,
}

/// The request waits from now on. `what`: store, postgres, connection or build; `name`: the call, the statement.
pub(super) fn waiting(what: &'static str, name: &str) -> Option<Waiting> {
    let trace = TRACE.try_with(Arc::clone).ok()?;
    Some(Waiting {
        trace,
        what,
        name: name.chars().take(NAME).collect(),
        began: Instant::now(),
    })
}

/// The request is on behalf of this user.
pub(super) fn of_user(user: UserId) {
    // Outside of a request there is nothing to note.
    let _ = TRACE.try_with(|trace| trace.user.set(user));
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waits = self
            .trace
            .waits
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if waits.named.len() >= WAITS {
            waits.more += 1;
            return;
        }
        waits.named.push(Wait {
            what: self.what,
            name: std::mem::take(&mut self.name),
            after: self.began.duration_since(self.trace.began),
            took: self.began.elapsed(),
        });
    }
}

/// The file, from any number of tasks.
#[derive(Debug)]
pub struct SlowLog {
    over: Duration,
    lines: SyncSender<String>,
    /// Lines that there was no room or no time for.
    unwritten: Arc<AtomicU64>,
}

/// How a request ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) operation: &'static str,
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) shed: u8,
}

impl SlowLog {
    /// Opens the file, and begins a thread that writes.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn start(config: &SlowConfig) -> std::io::Result<SlowLog> {
        let (lines, waiting) = sync_channel(WAITING);
        let unwritten = Arc::new(AtomicU64::new(0));
        let book = Book::open(config.clone(), unwritten.clone())?;
        std::thread::Builder::new()
            .name("slow requests".into())
            .spawn(move || book.write(&waiting))?;
        Ok(SlowLog {
            over: config.over,
            lines,
            unwritten,
        })
    }

    /// Answers a request, and writes of it if that took too long.
    pub(super) async fn watched<T>(
        &self,
        answer: impl Future<Output = T>,
        ended: impl FnOnce(&T) -> Ended,
    ) -> T {
        let trace = Arc::new(Trace {
            began: Instant::now(),
            user: OnceLock::new(),
            waits: Mutex::default(),
        });
        let answer = TRACE.scope(trace.clone(), answer).await;
        let took = trace.began.elapsed();
        if took >= self.over {
            let line = line(&trace, took, &ended(&answer));
            if self.lines.try_send(line).is_err() {
                self.unwritten.fetch_add(1, Ordering::Relaxed);
            }
        }
        answer
    }
}

fn line(trace: &Trace, took: Duration, ended: &Ended) -> String {
    let waits = trace.waits.lock().unwrap_or_else(PoisonError::into_inner);
    let waited: Vec<_> = waits
        .named
        .iter()
        .map(|w| json!({"for": w.what, "what": w.name, "after_ms": ms(w.after), "ms": ms(w.took)}))
        .collect();
    let noted = trace.user.get().map(ToString::to_string);
    let user = noted.or_else(|| user(&ended.path).map(str::to_owned));
    let mut line = json!({
        "at": now_ms() as f64 / 1000.0, "operation": ended.operation, "user": user, "path": ended.path,
        "status": ended.status, "shed": ended.shed, "ms": ms(took), "waited": waited,
    });
    if waits.more > 0 {
        line["more_waits"] = waits.more.into();
    }
    line.to_string()
}

/// To a hundredth.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

/// The user whom the path names.
fn user(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/users/")?.split('/').next()
}

/// The file that is written, and the one before it: of both together never more than allowed.
struct Book {
    config: SlowConfig,
    file: File,
    bytes: usize,
    unwritten: Arc<AtomicU64>,
}

impl Book {
    fn open(config: SlowConfig, unwritten: Arc<AtomicU64>) -> std::io::Result<Book> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&config.file)?;
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        Ok(Book {
            config,
            file,
            bytes,
            unwritten,
        })
    }

    fn write(mut self, lines: &Receiver<String>) {
        let mut second = (Instant::now(), 0);
        let mut failed = false;
        while let Ok(mut line) = lines.recv() {
            if second.0.elapsed() >= Duration::from_secs(1) {
                second = (Instant::now(), 0);
            }
            second.1 += 1;
            if second.1 > LINES {
                self.unwritten.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let unwritten = self.unwritten.swap(0, Ordering::Relaxed);
            if unwritten > 0 && line.pop().is_some() {
                line.push_str(&format!(",\"unwritten_before\":{unwritten}}}"));
            }
            line.push('\n');
            let written = self.add(line.as_bytes());
            if let Err(fault) = &written {
                self.unwritten.fetch_add(1 + unwritten, Ordering::Relaxed);
                if !failed {
                    let file = self.config.file.display();
                    tracing::warn!("slow requests can't be written to {file}: {fault}");
                }
            }
            failed = written.is_err();
        }
    }

    fn add(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() > self.config.most / 2 {
            let mut before = self.config.file.clone().into_os_string();
            before.push(".1");
            std::fs::rename(&self.config.file, before)?;
            *self = Book::open(self.config.clone(), self.unwritten.clone())?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_says_what_was_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("slow.jsonl");
        let config = SlowConfig {
            file: file.clone(),
            over: Duration::from_millis(5),
            most: 1 << 16,
        };
        let log = SlowLog::start(&config).unwrap();
        let ended = |status: &u16| Ended {
            operation: "home",
            path: "/v1/users/7/home".into(),
            status: *status,
            shed: 1,
        };
        let quick = log.watched(async { 200 }, ended).await;
        let slow = log.watched(
            async {
                let _whole = waiting("build", "feed");
                for n in 0..WAITS + 3 {
                    let _one = waiting("postgres", &format!("SELECT {n} {}", "x".repeat(500)));
                }
                tokio::time::sleep(Duration::from_millis(6)).await;
                503
            },
            ended,
        );
        assert_eq!((quick, slow.await), (200, 503));
        assert!(waiting("store", "outside of any request").is_none());
        drop(log);
        let text = loop {
            let text = std::fs::read_to_string(&file).unwrap();
            if text.ends_with('\n') {
                break text;
            }
            tokio::task::yield_now().await;
        };
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&said["user"], &said["status"]), (&json!("7"), &json!(503)));
        assert!(said["ms"].as_f64().unwrap() >= 6.0, "{said}");
        assert_eq!(said["more_waits"], 4, "{said}");
        let first = &said["waited"][0];
        assert_eq!(first["for"], "postgres");
        assert_eq!(first["what"].as_str().unwrap().len(), NAME);
    }

    #[test]
    fn the_file_never_grows_beyond_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("slow.jsonl");
        let config = SlowConfig {
            file: file.clone(),
            over: Duration::ZERO,
            most: 4000,
        };
        let mut book = Book::open(config.clone(), Arc::default()).unwrap();
        for _ in 0..100 {
            book.add(&[b'x'; 300]).unwrap();
            let sizes = ["slow.jsonl", "slow.jsonl.1"]
                .map(|name| std::fs::metadata(dir.path().join(name)).map_or(0, |m| m.len()));
            assert!(sizes.iter().sum::<u64>() <= 4000, "{sizes:?}");
        }
        // What was written before a restart counts.
        let book = Book::open(config, Arc::default()).unwrap();
        assert!(book.bytes > 0);
        // More lines than are written within a second: the next one that is says how many are missing.
        let unwritten = book.unwritten.clone();
        let (send, lines) = sync_channel(1000);
        for n in 0..u64::from(LINES) + 30 {
            send.send(format!("{{\"n\":{n}}}")).unwrap();
        }
        drop(send);
        book.write(&lines);
        assert_eq!(unwritten.load(Ordering::Relaxed), 30);
    }
}
