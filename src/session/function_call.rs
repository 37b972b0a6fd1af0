//! FunctionCall: a function of Postgres called by its number, as libpq and pgjdbc do for large objects. These are all on the
//! session host, and so are advisory locks; the numbers of the app's own functions mean something only where there is but one host.

use super::Session;
use super::errors::Fault;
use super::links::Need;
use super::prepare::Way;
use super::replies::{Pass, Reply};
use crate::route::SessionState;
use crate::wire::frontend;

/// Functions of Postgres itself that have numbers of their own in its sources (`FirstGenbkiObjectId`,
/// src/include/access/transam.h): they mean the same on every host.
const FIRST_OWN: u32 = 10_000;

/// Functions of large objects that change nothing (pg_proc.dat): lo_close, loread, lo_lseek, lo_tell, lo_get, lo_export, lo_open.
const READS_OBJECTS: &[u32] = &[953, 954, 956, 3170, 958, 3171, 3458, 3459, 765, 952];
/// Those that do: lo_import, lowrite, lo_creat, lo_create, lo_truncate, lo_from_bytea, lo_put, lo_unlink.
const WRITES_OBJECTS: &[u32] = &[764, 767, 955, 957, 715, 1004, 3172, 3457, 3460, 964];

/// Advisory locks of the session (2880 to 2892) and of the transaction (3089 to 3096): taken, tried, given back.
fn is_lock(function: u32) -> bool {
    matches!(function, 2880..=2892 | 3089..=3096)
}

/// Functions that are not called for their value alone, and yet leave nothing behind in the server connection.
const HARMLESS: &[&str] = &[
    "clock_timestamp",
    "gen_random_uuid",
    "pg_current_xact_id",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "random",
    "timeofday",
    "txid_current",
];

/// What the server says of a function.
enum Known {
    /// There is none of this number: it says so.
    Not,
    Harmless,
    /// It might change the session, or what differs from host to host.
    Other(String),
}

impl Session {
    /// FunctionCall. It is a message like Query: ReadyForQuery follows, after an error too.
    pub(super) async fn function_call(&mut self, len: usize) -> Result<(), Fault> {
        self.batch.now = b'Q';
        self.follow_map();
        if self.is_batch_open() && !Box::pin(self.call_in_batch()).await? {
            self.ready();
            return self.client.flush().await.map_err(Fault::client);
        }
        self.check_failed()?;
        let function = frontend::FunctionCall::decode(self.body(len))?.function;
        let need = match function {
            _ if READS_OBJECTS.contains(&function) => Need::plain(self.map.session_host()),
            _ if WRITES_OBJECTS.contains(&function) => Need {
                writes: true,
                ..Need::plain(self.map.session_host())
            },
            _ if is_lock(function) => Need {
                state: match function {
                    2884 | 2885 | 2890..=2892 => SessionState::Gives,
                    2880..2890 => SessionState::Takes,
                    _ => SessionState::Same,
                },
                ..Need::plain(self.map.session_host())
            },
            0..FIRST_OWN => self.need_of_function(),
            _ if self.map.hosts.len() == 1 => Need {
                writes: true,
                ..self.need_of_function()
            },
            _ => return Err(own_function(function)),
        };
        let is_known = is_lock(function)
            || READS_OBJECTS.contains(&function)
            || WRITES_OBJECTS.contains(&function);
        let i = self.link(need).await?;
        if !is_known
            && function < FIRST_OWN
            && let Known::Other(name) = self.look_up_function(i, function).await?
        {
            return Err(refused(&name));
        }
        self.context.stats.routed();
        let message = self.client.read..self.client.read + len;
        let link = &mut self.links[i];
        link.sent_pieces.clear();
        link.outbox.extend_from_slice(&self.client.inbox[message]);
        if self.in_message_block() {
            self.replies.push(Reply::Part);
            self.client.hold_for_caller();
            let error = self.relay().await?;
            Box::pin(self.end_message(error)).await?;
            self.release_links().await;
            self.ready();
            return self.client.flush().await.map_err(Fault::client);
        }
        self.replies.push(Reply::Query(Pass::On));
        self.relay().await?;
        self.settle().await;
        self.client.flush().await.map_err(Fault::client)
    }

    /// A call without a Sync before it is part of the batch's transaction, as in Postgres. `false`: that has ended with an error.
    async fn call_in_batch(&mut self) -> Result<bool, Fault> {
        self.settle_unparsed().await?;
        self.settle_replies().await?;
        let implicit = self.block.is_none() && self.links.iter().any(|link| link.unsynced);
        if implicit {
            self.batch_becomes_block().await?;
        }
        if self.in_message_block() {
            self.batch.becomes_query();
        } else if self.end_batch().await? {
            return Ok(false);
        }
        self.client.hold_until_reply();
        Ok(true)
    }

    /// Where catalog queries go: numbers of objects that the client knows are from there.
    fn need_of_function(&self) -> Need {
        match self.template_way() {
            Way::One { host, path, .. } => Need {
                path,
                ..Need::plain(host)
            },
            _ => Need::plain(self.map.session_host()),
        }
    }

    /// What the server knows of a function of Postgres itself.
    async fn look_up_function(&mut self, i: usize, function: u32) -> Result<Known, Fault> {
        self.drain_replies().await?;
        let text =
            format!("SELECT proname, provolatile FROM pg_catalog.pg_proc WHERE oid = {function}");
        let answers = self.rows_of(i, &text).await?;
        let Some([Some(name), Some(volatile)]) = answers.iter().flatten().next().map(Vec::as_slice)
        else {
            return Ok(Known::Not);
        };
        Ok(match volatile != "v" || HARMLESS.contains(&name.as_str()) {
            true => Known::Harmless,
            false => Known::Other(name.clone()),
        })
    }
}

fn own_function(function: u32) -> Fault {
    Fault::unsupported(
        format!(
            "a fast-path call of function {function} is not supported: on another host this number is another function"
        ),
        "Call the function by its name in a SELECT.",
    )
}

fn refused(name: &str) -> Fault {
    Fault::unsupported(
        format!("a fast-path call of {name} is not supported: its arguments can't be seen"),
        "Call the function by its name in a SELECT.",
    )
}
