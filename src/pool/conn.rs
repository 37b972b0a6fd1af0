//! One server connection and what we know of its state on the server.

use std::time::Instant;

use super::server::Login;
use super::settings::Settings;
use super::statements::Statements;
use crate::wire::shared::Shared;
use crate::wire::stream::Stream;

/// The event loop that a connection's socket is registered with. Using it from another one works, but each wake-up
/// then crosses cores, so a checkout prefers its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker(pub u16);

/// A server connection: logged in, at the end of a transaction whenever it is in a pool.
pub struct ServerConn {
    /// The socket.
    pub stream: Stream,
    /// Bytes from the server that nobody has looked at yet; no memory is held while the connection is idle.
    pub inbox: Vec<u8>,
    /// The opaque cancel key (protocol chapter 55.2.8), process id included.
    pub key: std::sync::Arc<[u8]>,
    /// The server process.
    pub pid: i32,
    /// ParameterStatus values as the server last said them, in its order.
    pub parameters: Vec<(String, String)>,
    /// What they were at login, once one has changed since.
    at_login: Option<Vec<(String, String)>>,
    /// Nothing has changed since [`ServerConn::is_set_unknown`] found that all is as it should be.
    is_looked_at: bool,
    /// Statements that the server holds for us.
    pub statements: Statements,
    /// The settings in force, but for those in `unsure`.
    settings: Settings,
    /// Names that were set since the server was last known to have committed: whatever ends otherwise may undo them.
    uncommitted: Vec<String>,
    /// Settings whose value is not known: set anew before use.
    unsure: Vec<String>,
    /// The statement `BEGIN` is prepared under the name `presplit_begin`.
    pub begin_prepared: bool,
    /// The statement `COMMIT` is prepared under the name `presplit_commit`.
    pub commit_prepared: bool,
    /// Where the socket is registered.
    pub worker: Worker,
    /// When it was opened.
    pub opened: Instant,
    /// When it was last given back, give or take a second.
    pub released: Instant,
}

impl ServerConn {
    /// A freshly logged-in connection.
    pub fn new(login: Login, statement_cap: usize, worker: Worker) -> ServerConn {
        let now = Instant::now();
        ServerConn {
            stream: login.stream,
            inbox: Vec::new(),
            key: login.key.into(),
            pid: login.pid,
            parameters: login.parameters,
            at_login: None,
            is_looked_at: false,
            statements: Statements::new(statement_cap),
            settings: Settings::default(),
            uncommitted: Vec::new(),
            unsure: Vec::new(),
            begin_prepared: false,
            commit_prepared: false,
            worker,
            opened: now,
            released: now,
        }
    }

    /// A seat on this connection, once it is shared. It is used as a connection of its own, and so are its statements; its
    /// cancel key has the seat's number behind the connection's.
    pub(super) fn beside(&self, shared: &std::sync::Arc<Shared>, cap: usize) -> ServerConn {
        let seat = shared.seat();
        let number = (seat.id() as u32).to_be_bytes();
        ServerConn {
            stream: Stream::Seat(seat),
            inbox: Vec::new(),
            key: [&self.key, &number[..]].concat().into(),
            pid: self.pid,
            parameters: self.parameters.clone(),
            at_login: self.at_login.clone(),
            is_looked_at: self.is_looked_at,
            statements: self.statements.beside(cap),
            settings: self.settings.clone(),
            uncommitted: Vec::new(),
            unsure: Vec::new(),
            begin_prepared: false,
            commit_prepared: false,
            worker: self.worker,
            opened: self.opened,
            released: self.released,
        }
    }

    /// After DISCARD ALL: the server has none of our statements any more, and no setting but its own.
    pub(super) fn forget_all(&mut self, statement_cap: usize) {
        self.statements = Statements::new(statement_cap);
        self.settings = Settings::default();
        self.is_looked_at = false;
        self.uncommitted.clear();
        self.unsure.clear();
        self.begin_prepared = false;
        self.commit_prepared = false;
        self.inbox = Vec::new();
    }

    /// The server has said the value of a parameter.
    pub fn report(&mut self, name: &str, value: &str) {
        match self.parameters.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) if old == value => {}
            Some(_) => {
                self.is_looked_at = false;
                self.at_login.get_or_insert_with(|| self.parameters.clone());
                for (_, old) in self
                    .parameters
                    .iter_mut()
                    .filter(|(known, _)| known == name)
                {
                    value.clone_into(old);
                }
            }
            None => {
                self.is_looked_at = false;
                self.parameters.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// A parameter that the server says is another than at login, though by all that we know nobody has set it. Outside of any
    /// transaction there is none; a connection of which we do not know the settings must not go to another session.
    pub fn is_set_unknown(&mut self) -> Option<&str> {
        let before = self.at_login.as_ref()?;
        if self.is_looked_at {
            return None;
        }
        let unknown = self.parameters.iter().position(|now| {
            let derived = matches!(
                now.0.as_str(),
                "is_superuser" | "session_authorization" | "in_hot_standby"
            );
            let lower = now.0.to_ascii_lowercase();
            !before.contains(now)
                && !derived
                && self.settings.get(&lower).is_none()
                && !self.unsure.contains(&lower)
        });
        self.is_looked_at = unknown.is_none();
        unknown.map(|at| self.parameters[at].0.as_str())
    }

    /// The settings in force, but for [`ServerConn::unsure`].
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Settings whose value is not known: a transaction that set them has ended otherwise than by its commit, or may have.
    pub fn unsure(&self) -> &[String] {
        &self.unsure
    }

    /// Whether the connection is known to be at these settings.
    pub fn is_at(&self, wanted: &Settings) -> bool {
        self.unsure.is_empty() && self.settings.same(wanted)
    }

    /// The statements that bring it to these settings.
    pub fn steps_to(&self, wanted: &Settings) -> Vec<String> {
        self.settings.difference(wanted, &self.unsure)
    }

    /// Brought to these settings by [`ServerConn::steps_to`], in a transaction that is still to be committed.
    pub fn brought_to(&mut self, wanted: Settings) {
        let unsure = std::mem::take(&mut self.unsure);
        self.is_looked_at &= unsure.is_empty();
        self.touch(unsure);
        self.change(wanted);
    }

    /// The settings in force are these, by statements in a transaction that is still to be committed.
    pub fn change(&mut self, settings: Settings) {
        if !self.settings.same(&settings) {
            self.is_looked_at = false;
            self.touch(self.settings.changed_names(&settings));
        }
        self.settings = settings;
    }

    fn touch(&mut self, names: Vec<String>) {
        for name in names {
            if !self.uncommitted.contains(&name) {
                self.uncommitted.push(name);
            }
        }
    }

    /// The server has committed all that it was sent.
    pub fn committed(&mut self) {
        self.uncommitted.clear();
    }

    /// Whether something was set that may yet be undone.
    pub fn has_uncommitted(&self) -> bool {
        !self.uncommitted.is_empty()
    }

    /// What was set since the last known commit is undone, or parts of it: none of it is known any more. (What it was before is
    /// not worked out: an error anywhere, in a text of several transactions, say, would have to be placed among the settings.)
    pub fn undone(&mut self) {
        let uncommitted = std::mem::take(&mut self.uncommitted);
        self.doubt(uncommitted);
    }

    /// The values of these settings are not known any more.
    pub fn doubt(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if !self.unsure.contains(&name) {
                self.unsure.push(name);
            }
        }
    }

    /// Whether an idle connection is still good: the server has neither closed it nor said anything. (What a server
    /// says unasked is a farewell, a notice or a changed parameter; none is worth keeping the connection for.)
    /// Costs no system call unless something has arrived.
    pub fn is_quiet(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        matches!(read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }
}
