//! The virtual database `presplit`: one operator's connection, from login to its end.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::command::{Bracket, Command};
use super::portal::{Formats, Prepared, columns_of, complete, data_row};
use super::show::{Shown, show};
use crate::session::{Activity, ClientInfo, Context, Database, Order, admit};
use crate::shardmap::ReloadOutcome;
use crate::wire::backend;
use crate::wire::body::DecodeFault;
use crate::wire::error::{ErrorFields, Severity, SqlState};
use crate::wire::frame::{self, Header};
use crate::wire::frontend::{self, Bind, Close, Describe, Execute, Parse, Query};
use crate::wire::startup::StartupParams;
use crate::wire::stream::Stream;

/// The longest message, bytes: commands are short, but psql asks for a table in some 5 kB, and is to be told why not.
const LONGEST: usize = 64 * 1024;
/// Bytes of answers held before they are written; one table is held whole.
const HELD: usize = 64 * 1024;
/// Room for one read.
const ROOM: usize = 4096;
/// Bytes of a cancel key: process number and secret. Nothing here can be cancelled.
const KEY: usize = 8;

/// What a client learns at login. The server's version is one that drivers can read, and new enough that psql's own
/// queries come here and are answered with our error instead of psql's.
const PARAMETERS: [(&str, &str); 8] = [
    (
        "server_version",
        concat!("17.0 (presplit ", env!("CARGO_PKG_VERSION"), ")"),
    ),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
];

/// Serves one operator's connection. `limit` bounds the login.
pub async fn serve_console(
    context: Arc<Context>,
    mut stream: Stream,
    params: StartupParams,
    limit: Duration,
) {
    let mut out = Vec::new();
    let map = context.map.current();
    let admitted = admit(
        &context,
        &map,
        &mut stream,
        &mut out,
        &params,
        Database::Console,
        limit,
    );
    if admitted.await.is_none() {
        return;
    }
    drop(map);
    context.stats.logged_in();
    backend::auth_ok(&mut out);
    for (name, value) in PARAMETERS {
        backend::parameter_status(&mut out, name, value);
    }
    let info = context.clients.add(
        Database::Console,
        params.user().unwrap_or_default(),
        stream.peer(),
        params.get("application_name").unwrap_or_default(),
    );
    let mut key = [0; KEY];
    key[..4].copy_from_slice(&(info.id as u32 & 0x7fff_ffff).to_be_bytes());
    backend::backend_key_data(&mut out, &key);
    backend::ready(&mut out, b'I');
    let mut console = Console {
        context,
        stream,
        info,
        inbox: Vec::new(),
        out,
        prepared: Prepared::default(),
        skipping: false,
        in_block: false,
    };
    console.run().await;
}

/// An operator's connection that has logged in.
struct Console {
    context: Arc<Context>,
    stream: Stream,
    info: Arc<ClientInfo>,
    /// What has come and is not dealt with: less than a message of [`LONGEST`] and one read.
    inbox: Vec<u8>,
    /// What is to be written.
    out: Vec<u8>,
    prepared: Prepared,
    /// A message of the extended protocol failed: all is ignored up to Sync.
    skipping: bool,
    /// The client believes to be in a transaction.
    in_block: bool,
}

/// Why a step did not succeed.
enum Fault {
    /// The client is gone.
    Gone(io::Error),
    /// The client is told; the connection goes on unless it is FATAL.
    Said(Box<ErrorFields>),
}

impl From<io::Error> for Fault {
    fn from(fault: io::Error) -> Self {
        Fault::Gone(fault)
    }
}

impl From<ErrorFields> for Fault {
    fn from(fields: ErrorFields) -> Self {
        Fault::Said(Box::new(fields))
    }
}

impl From<DecodeFault> for Fault {
    fn from(fault: DecodeFault) -> Self {
        ErrorFields::from(fault).into()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.context.clients.remove(&self.info);
    }
}

impl Console {
    async fn run(&mut self) {
        let fault = loop {
            let header = match self.next().await {
                Ok(Some(header)) => header,
                Ok(None) => return,
                Err(fault) => break fault,
            };
            if header.tag == b'X' {
                return;
            }
            let frame: Vec<u8> = self.inbox.drain(..header.len).collect();
            if let Err(fault) = self.message(header.tag, &frame[frame::HEADER..]).await {
                break fault;
            }
        };
        match fault {
            Fault::Gone(e) => tracing::debug!(client = self.info.id, "operator gone: {e}"),
            Fault::Said(fields) => {
                fields.write(&mut self.out);
                let _ = self.flush().await;
            }
        }
    }

    /// Waits for the next whole message; it then is at the start of the inbox. `None`: the client has closed.
    async fn next(&mut self) -> Result<Option<Header>, Fault> {
        loop {
            let header = frame::frontend_header(&self.inbox).map_err(violation)?;
            match header {
                Some(header) if header.len > LONGEST => {
                    let text = format!(
                        "a message of {} bytes: the console takes {LONGEST} at most",
                        header.len
                    );
                    return Err(ErrorFields::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, text).into());
                }
                Some(header) if header.len <= self.inbox.len() => return Ok(Some(header)),
                _ => {}
            }
            self.flush().await?;
            self.info.set(match self.in_block {
                true => Activity::InTransaction,
                false => Activity::Idle,
            });
            if self.fill().await? == 0 {
                return Ok(None);
            }
            self.info.set(Activity::Active);
        }
    }

    /// One read, or the order to go.
    async fn fill(&mut self) -> Result<usize, Fault> {
        if self.inbox.is_empty() {
            // Nothing is held while the client says nothing but the room for its next message.
            self.inbox = Vec::with_capacity(ROOM);
        } else {
            self.inbox.reserve(ROOM);
        }
        poll_fn(|cx| match self.info.poll_order(cx) {
            Order::Run => {
                let read = self.stream.poll_read(cx, &mut self.inbox);
                read.map(|read| read.map_err(Fault::Gone))
            }
            order => Poll::Ready(Err(order.farewell().into())),
        })
        .await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let done = self.stream.write_all(&self.out).await;
        self.out.clear();
        if self.out.capacity() > HELD {
            self.out = Vec::new();
        }
        done
    }

    /// Deals with one message: an error is an answer like any other, unless it is FATAL.
    async fn message(&mut self, tag: u8, body: &[u8]) -> Result<(), Fault> {
        match self.dispatch(tag, body).await {
            Err(Fault::Said(fields)) if fields.severity != Severity::Fatal => {
                fields.write(&mut self.out);
                self.skipping = !matches!(tag, b'Q' | b'F' | b'S');
            }
            other => other?,
        }
        if matches!(tag, b'Q' | b'F' | b'S') && !self.skipping {
            let status = if self.in_block { b'T' } else { b'I' };
            backend::ready(&mut self.out, status);
        }
        if self.out.len() > HELD {
            self.flush().await?;
        }
        Ok(())
    }

    async fn dispatch(&mut self, tag: u8, body: &[u8]) -> Result<(), Fault> {
        match tag {
            b'S' => {
                self.skipping = false;
                if !self.in_block {
                    self.prepared.end_portals();
                }
                frontend::no_body(body)?;
            }
            _ if self.skipping => {}
            b'Q' => self.query(Query::decode(body)?.text).await?,
            b'P' => {
                self.prepared.parse(&Parse::decode(body)?)?;
                backend::parse_complete(&mut self.out);
            }
            b'B' => {
                self.prepared.bind(&Bind::decode(body)?)?;
                backend::bind_complete(&mut self.out);
            }
            b'D' => {
                let describe = Describe::decode(body)?;
                self.prepared.describe(&describe, &mut self.out)?;
            }
            b'E' => self.execute(&Execute::decode(body)?).await?,
            b'C' => {
                self.prepared.close(&Close::decode(body)?);
                backend::close_complete(&mut self.out);
            }
            // What is there is written before the next wait in any case.
            b'H' => frontend::no_body(body)?,
            // Postgres, too, ignores the rest of a COPY that has failed.
            b'd' | b'c' | b'f' => {}
            b'F' => {
                let text = "the proxy's commands are no functions";
                return Err(ErrorFields::error(SqlState::FEATURE_NOT_SUPPORTED, text).into());
            }
            tag => return Err(violation(frame::FrameFault::Tag(tag))),
        }
        Ok(())
    }

    /// The simple protocol: one command after the other, until one fails.
    async fn query(&mut self, text: &[u8]) -> Result<(), Fault> {
        let mut any = false;
        for piece in Command::split(text) {
            any = true;
            let command = Command::parse(piece)?;
            let shown = self.act(command).await?;
            if let Some(columns) = columns_of(command) {
                backend::row_description(&mut self.out, columns);
            }
            for row in &shown.rows {
                data_row(&mut self.out, row, &Formats::default());
            }
            complete(&mut self.out, command);
            if self.out.len() > HELD {
                self.flush().await?;
            }
        }
        if !any {
            backend::empty_query(&mut self.out);
        }
        Ok(())
    }

    async fn execute(&mut self, execute: &Execute<'_>) -> Result<(), Fault> {
        let portal = self.prepared.portal(execute.portal)?;
        if portal.rest.is_none() {
            let command = portal.command;
            let shown = self.act(command).await?;
            self.prepared.portal(execute.portal)?.rest = Some(shown.rows.into_iter());
        }
        let portal = self.prepared.portal(execute.portal)?;
        portal.send(execute.max_rows, &mut self.out);
        Ok(())
    }

    /// Does what a command says. Notices are in `out`, the rows are given back.
    async fn act(&mut self, command: Command) -> Result<Shown, Fault> {
        let shown = match command {
            Command::Empty => Shown::default(),
            Command::Show(view) => show(&self.context, view),
            Command::Reload => self.reload().await?,
            Command::Transaction(bracket) => {
                self.in_block = bracket == Bracket::Begin;
                Shown::default()
            }
        };
        for notice in &shown.notices {
            notice.write(&mut self.out);
        }
        Ok(shown)
    }

    async fn reload(&self) -> Result<Shown, Fault> {
        tracing::info!(user = self.info.user, peer = self.info.peer, "RELOAD");
        let map = self.context.map.clone();
        let outcome = tokio::task::spawn_blocking(move || map.reload()).await;
        let version = self.context.map.load().version;
        let said = match outcome {
            Ok(ReloadOutcome::Unchanged) => {
                vec![format!(
                    "nothing is different: version {version} is in force"
                )]
            }
            Ok(ReloadOutcome::Changed { difference }) => difference,
            Ok(ReloadOutcome::Refused(faults)) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                let text = "the shard map can't be used: nothing changed";
                return Err(ErrorFields::error(SqlState::CONFIG_FILE_ERROR, text)
                    .detail(faults.join("\n"))
                    .hint(format!(
                        "Version {version} stays in force. Mend the file; it is read again when it is saved."
                    ))
                    .into());
            }
            Err(fault) => {
                let text = format!("the reload came to no end: {fault}");
                return Err(ErrorFields::error(SqlState::INTERNAL_ERROR, text).into());
            }
        };
        let notice =
            |line| ErrorFields::new(Severity::Notice, SqlState::SUCCESSFUL_COMPLETION, line);
        Ok(Shown {
            rows: Vec::new(),
            notices: said.into_iter().map(notice).collect(),
        })
    }
}

/// After this the byte stream has no meaning any more.
fn violation(fault: frame::FrameFault) -> Fault {
    ErrorFields::fatal(SqlState::PROTOCOL_VIOLATION, fault.to_string()).into()
}
