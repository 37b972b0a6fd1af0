//! Settings of a session: run on a server first, which knows what is right, then remembered and brought about on every
//! other server connection before the session uses it.

use std::ops::Range;
use std::sync::Arc;

use super::Session;
use super::block::{Acted, tag};
use super::context::Prepared;
use super::errors::Fault;
use super::links::Need;
use crate::pool::{Settings, set_config};
use crate::route::{Format, Params};
use crate::shardmap::ShardId;
use crate::sql::control::{BeginOptions, Isolation, SetValue};
use crate::sql::hint::Hint;
use crate::sql::literal::literal_value;
use crate::sql::shape::{Hole, Shape};
use crate::sql::token::{Token, TokenKind, tokens};
use crate::wire::backend;
use crate::wire::error::{ErrorFields, SqlState};

/// Encodings in which no byte of a multi-byte character looks like ASCII, so that a text can be read byte by byte.
const SAFE_ENCODINGS: &[&str] = &[
    "utf8",
    "unicode",
    "utf-8",
    "sql_ascii",
    "sqlascii",
    "latin1",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "latin10",
    "iso88591",
    "iso-8859-1",
    "iso_8859_1",
    "iso885915",
    "win1250",
    "win1251",
    "win1252",
    "win1253",
    "win1254",
    "win1257",
    "euc_jp",
    "euc_cn",
    "euc_kr",
    "euc_tw",
    "koi8r",
    "koi8",
    "koi8u",
];

/// What a `set_config(...)` call sets.
pub(super) struct SetConfig {
    name: String,
    value: String,
    local: bool,
}

/// Settings that change nothing of what a text means when Postgres parses it. (Others do: `'01/02/2024'::date` is read by
/// DateStyle when it is parsed, not when it is run.)
const NOT_READING: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "session characteristics",
    "statement_timeout",
    "synchronous_commit",
    "work_mem",
];

impl Session {
    /// The settings by which Postgres reads a text now. A server-side statement serves only sessions that agree in them.
    pub(super) fn reading(&mut self) -> Arc<[u8]> {
        let locals = self.block.as_ref().is_some_and(|b| !b.locals.is_empty());
        if !locals && self.reading.0.is(&self.settings) {
            return self.reading.1.clone();
        }
        let mut reading = Vec::new();
        let local = self.block.iter().flat_map(|b| b.locals.iter());
        for (name, sql) in self
            .settings
            .iter()
            .chain(local)
            .filter(|(name, _)| !NOT_READING.contains(name))
        {
            reading.extend_from_slice(name.as_bytes());
            reading.push(b'=');
            reading.extend_from_slice(sql.as_bytes());
            reading.push(0);
        }
        let reading: Arc<[u8]> = reading.into();
        if !locals {
            self.reading = (self.settings.clone(), reading.clone());
        }
        reading
    }

    /// `SET [LOCAL] name ...`.
    pub(super) async fn set(
        &mut self,
        name: &str,
        value: &SetValue,
        local: bool,
        text: &str,
    ) -> Result<Acted, Fault> {
        if name.starts_with("presplit.") {
            return self.set_own(name, value.single(), local);
        }
        check_setting(name, value.single())?;
        if local && self.block.is_none() {
            // Without effect but for a warning.
            let i = self.link(Need::plain(self.any_host())).await?;
            self.run_on(i, text).await?;
            return Ok(Acted::Passed);
        }
        if local {
            return self.set_local(name, value, text).await;
        }
        let i = self.link(Need::plain(self.any_host())).await?;
        if !self.run_set(i, text).await? {
            return Ok(Acted::Passed);
        }
        let sql = text.trim().trim_end_matches(';').to_owned();
        self.remember_settings();
        match value {
            SetValue::Default => {
                self.back_to_startup(name, &sql);
                self.bring_startup().await?;
            }
            _ => self.note_set(name, sql),
        }
        Ok(Acted::Passed)
    }

    /// Runs a SET of the session: outside a block where the session is just now, inside on all hosts of the block. (Were
    /// it brought about on them later, it would come behind a SET LOCAL or a savepoint that it comes before.)
    async fn run_set(&mut self, i: usize, text: &str) -> Result<bool, Fault> {
        match self.block.is_none() {
            true => self.run_on(i, text).await,
            false => self.run_everywhere(i, text).await,
        }
    }

    /// The setting has been set, by [`Session::run_set`].
    fn note_set(&mut self, name: &str, sql: String) {
        self.note_on_links(Some(name), Some(&sql));
        if let Some(block) = &mut self.block {
            block.push_set(sql.clone());
            block.locals = block.locals.without(name);
        }
        self.settings = self.settings.with(name, sql);
    }

    /// The setting was set to the server's default by `sql`, run by [`Session::run_set`]; here its default is what the
    /// client asked for at startup.
    fn back_to_startup(&mut self, name: &str, sql: &str) {
        self.note_on_links(Some(name), None);
        let startup = self.startup.get(name).map(str::to_owned);
        if let Some(block) = &mut self.block {
            block.push_set(sql.to_owned());
            if let Some(startup) = &startup {
                block.push_set(startup.clone());
            }
            block.locals = block.locals.without(name);
        }
        self.settings = match startup {
            Some(startup) => self.settings.with(name, startup),
            None => self.settings.without(name),
        };
    }

    /// A setting (`None`: all) was set (`None`: to its default) on the links that [`Session::run_set`] reaches.
    fn note_on_links(&mut self, name: Option<&str>, sql: Option<&str>) {
        let (all, active) = (self.block.is_some(), self.active);
        for (i, link) in self.links.iter_mut().enumerate() {
            let Some(conn) = link.conn.as_mut().filter(|_| all || i == active) else {
                continue;
            };
            link.settings_touched |= all;
            conn.settings = match (name, sql) {
                (None, _) => Settings::default(),
                (Some(name), None) => conn.settings.without(name),
                (Some(name), Some(sql)) => conn.settings.with(name, sql.to_owned()),
            };
        }
    }

    /// `SET LOCAL` in a block.
    async fn set_local(
        &mut self,
        name: &str,
        value: &SetValue,
        text: &str,
    ) -> Result<Acted, Fault> {
        let acted = self.run_in_block(text, "SET").await?;
        let startup = match value {
            SetValue::Default => self.startup.get(name).map(local_form),
            _ => None,
        };
        if self.block.as_ref().is_some_and(|b| b.failed) {
            return Ok(acted);
        }
        if let Some(startup) = &startup {
            for i in 0..self.links.len() {
                self.run_quietly(i, startup).await?;
            }
            self.push_set(startup.clone());
        }
        self.note_local(
            name,
            startup.unwrap_or_else(|| text.trim().trim_end_matches(';').to_owned()),
        );
        Ok(acted)
    }

    fn push_set(&mut self, sql: String) {
        if let Some(block) = &mut self.block {
            block.push_set(sql);
        }
    }

    /// SET LOCAL was run on all hosts of the block.
    fn note_local(&mut self, name: &str, sql: String) {
        if let Some(block) = &mut self.block {
            block.locals = block.locals.with(name, sql);
        }
        for link in &mut self.links {
            link.settings_touched = true;
            if let Some(conn) = link
                .conn
                .as_mut()
                .filter(|_| name.eq_ignore_ascii_case("search_path"))
            {
                // A statement that needs the path of its shard must not rely on the one that was set before.
                conn.doubt(["search_path".to_owned()]);
            }
        }
    }

    /// A statement that holds until the end of the block, on all hosts that the block is on or will be on.
    async fn run_in_block(&mut self, text: &str, command: &str) -> Result<Acted, Fault> {
        if self.links.is_empty() {
            // Postgres must see it: it may be wrong.
            self.link(Need::plain(self.any_host())).await?;
        }
        let acted = self.run_on_all(text, command).await?;
        if let Some(block) = &mut self.block
            && !block.failed
        {
            block.push_set(text.trim().trim_end_matches(';').to_owned());
        }
        Ok(acted)
    }

    /// `RESET name`, `RESET ALL`: back to what the client asked for at startup.
    pub(super) async fn reset(&mut self, name: Option<&str>, text: &str) -> Result<Acted, Fault> {
        if let Some(name) = name
            && name.starts_with("presplit.")
        {
            return self.set_own(name, None, false);
        }
        let i = self.link(Need::plain(self.any_host())).await?;
        if !self.run_set(i, text).await? {
            return Ok(Acted::Passed);
        }
        self.remember_settings();
        let sql = text.trim().trim_end_matches(';');
        match name {
            Some(name) => {
                self.back_to_startup(name, sql);
                if name == "session_authorization" {
                    self.back_to_startup("role", "RESET ROLE");
                }
            }
            None => self.reset_all(sql),
        }
        self.bring_startup().await?;
        Ok(Acted::Passed)
    }

    /// What the client asked for at startup is its default, not what the server has: it holds at once after a RESET, and
    /// the client hears of nothing else.
    /// A message has failed, and with it what it has set: the client is not to hear of it.
    pub(super) async fn bring_back(&mut self) -> Result<(), Fault> {
        if self.block.is_some() || !self.client.has_reports() {
            return Ok(());
        }
        for i in 0..self.links.len() {
            let link = &self.links[i];
            let unsure = link
                .conn
                .as_ref()
                .is_some_and(|conn| !conn.unsure.is_empty());
            if unsure && !link.unsynced && link.status == b'I' {
                self.active = i;
                self.bring_settings(i, None)?;
                self.relay().await?;
            }
        }
        Ok(())
    }

    async fn bring_startup(&mut self) -> Result<(), Fault> {
        if self.startup.is_empty() {
            return Ok(());
        }
        let (all, active) = (self.block.is_some(), self.active);
        for i in (0..self.links.len()).filter(|i| all || *i == active) {
            self.active = i;
            self.bring_settings(i, None)?;
            if !self.links[i].unsynced {
                self.relay().await?;
            }
        }
        self.active = active;
        Ok(())
    }

    fn reset_all(&mut self, sql: &str) {
        self.note_on_links(None, None);
        if let Some(block) = &mut self.block {
            block.push_set(sql.to_owned());
            for (_, startup) in self.startup.iter() {
                block.push_set(startup.to_owned());
            }
            block.locals = Settings::default();
            block.local_hint = None;
        }
        self.hint = None;
        self.settings = self.startup.clone();
    }

    /// `SET TRANSACTION ...`.
    pub(super) async fn set_transaction(
        &mut self,
        options: &BeginOptions,
        text: &str,
    ) -> Result<Acted, Fault> {
        if self.block.is_none() {
            let i = self.link(Need::plain(self.any_host())).await?;
            self.run_on(i, text).await?;
            return Ok(Acted::Passed);
        }
        self.set_options(options, text, "SET").await
    }

    /// `SET SESSION CHARACTERISTICS AS TRANSACTION ...`: the defaults of the transactions to come.
    pub(super) async fn set_characteristics(
        &mut self,
        options: &BeginOptions,
        text: &str,
    ) -> Result<Acted, Fault> {
        if options
            .isolation
            .is_some_and(|i| i >= Isolation::RepeatableRead)
        {
            return Err(Fault::unsupported(
                "a default isolation level of REPEATABLE READ or above cannot be kept over several hosts",
                "Say the isolation level in BEGIN.",
            ));
        }
        let i = self.link(Need::plain(self.any_host())).await?;
        if self.run_set(i, text).await? {
            self.remember_settings();
            for (name, value) in characteristics(options) {
                self.note_set(name, format!("SET {name} TO {value}"));
            }
        }
        Ok(Acted::Passed)
    }

    /// `SET presplit.key = 42`, `SET presplit.shard = 7`, and their RESET (`value` is `None`).
    fn set_own(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Acted, Fault> {
        let hint = match (name, value.map(str::trim)) {
            (_, None | Some("")) => None,
            ("presplit.key", Some(key)) => Some(Hint::Key(key.to_owned())),
            ("presplit.shard", Some(shard)) => match shard.parse::<u32>() {
                Ok(shard) if shard < self.map.shards() => Some(Hint::Shard(shard)),
                _ => {
                    return Err(Fault::statement(
                        ErrorFields::error(
                            SqlState::INVALID_PARAMETER_VALUE,
                            format!("there is no shard {shard:?}"),
                        )
                        .hint(format!(
                            "Shards are numbered from 0 to {}.",
                            self.map.shards() - 1
                        )),
                    ));
                }
            },
            _ => return Err(no_own_setting(name)),
        };
        let command = if value.is_none() { "RESET" } else { "SET" };
        let other = match self.standing_hint() {
            Some(Hint::Key(_)) => name != "presplit.key",
            Some(Hint::Shard(_)) => name != "presplit.shard",
            _ => false,
        };
        if hint.is_none() && other {
            // That one was not set.
            return Ok(tag(command));
        }
        match &mut self.block {
            Some(block) if local => block.local_hint = Some(hint),
            None if local => {}
            block => {
                // As with Postgres' own settings, the later SET beats the earlier SET LOCAL.
                if let Some(block) = block {
                    block.local_hint = None;
                }
                self.remember_settings();
                self.hint = hint;
            }
        }
        Ok(tag(command))
    }

    /// `SHOW presplit.key`, `SHOW presplit.shard`.
    pub(super) fn show_own(&self, name: &str) -> Result<Acted, Fault> {
        let value = match (name, self.standing_hint()) {
            ("presplit.key", Some(Hint::Key(key))) => key.clone(),
            ("presplit.shard", Some(Hint::Shard(shard))) => ShardId(*shard).to_string(),
            ("presplit.key" | "presplit.shard", _) => String::new(),
            _ => return Err(no_own_setting(name)),
        };
        let mut out = Vec::new();
        backend::row_description(&mut out, &[(name, 25)]);
        backend::data_row(&mut out, &[Some(value.as_bytes())]);
        backend::command_complete(&mut out, "SHOW");
        Ok(Acted::Answered(out))
    }

    /// What a statement of the simple protocol sets by `set_config`, if that is what it does.
    pub(super) fn set_config_of(
        &self,
        prepared: &Prepared,
        text: &Range<usize>,
    ) -> Result<Vec<SetConfig>, Fault> {
        match prepared.sets_config() {
            true => set_config_in(&self.client.inbox[text.clone()]),
            false => Ok(Vec::new()),
        }
    }

    /// These `set_config` calls have succeeded on the active link.
    pub(super) async fn note_set_config(&mut self, sets: Vec<SetConfig>) -> Result<(), Fault> {
        for set in sets {
            let session = set_config(&set.name, &set.value);
            let sql = if set.local {
                local_form(&session)
            } else {
                session
            };
            if set.local && self.block.is_none() {
                continue;
            }
            if self.block.is_some() {
                for i in (0..self.links.len())
                    .filter(|i| *i != self.active)
                    .collect::<Vec<_>>()
                {
                    self.run_quietly(i, &sql).await?;
                }
            }
            if set.local {
                self.push_set(sql.clone());
                self.note_local(&set.name, sql);
            } else {
                self.remember_settings();
                self.note_set(&set.name, sql);
            }
        }
        Ok(())
    }
}

/// A `set_config` call that holds for the session, made to hold for the transaction.
fn local_form(session: &str) -> String {
    match session.strip_suffix(", false)") {
        Some(call) => format!("{call}, true)"),
        None => session.to_owned(),
    }
}

/// The settings that `SET SESSION CHARACTERISTICS` is another spelling of.
fn characteristics(options: &BeginOptions) -> impl Iterator<Item = (&'static str, &'static str)> {
    let on = |value: bool| if value { "on" } else { "off" };
    let isolation = options.isolation.map(|isolation| match isolation {
        Isolation::ReadUncommitted => "'read uncommitted'",
        Isolation::ReadCommitted => "'read committed'",
        Isolation::RepeatableRead => "'repeatable read'",
        Isolation::Serializable => "'serializable'",
    });
    let isolation = isolation.map(|value| ("default_transaction_isolation", value));
    let read_only = options
        .read_only
        .map(|value| ("default_transaction_read_only", on(value)));
    let deferrable = options
        .deferrable
        .map(|value| ("default_transaction_deferrable", on(value)));
    [isolation, read_only, deferrable].into_iter().flatten()
}

/// What a text of the simple protocol sets by `set_config`.
pub(super) fn set_config_in(text: &[u8]) -> Result<Vec<SetConfig>, Fault> {
    let mut shape = Shape::default();
    // It was scanned before.
    let _ = shape.scan(text);
    read_set_config(text, &shape.holes, None)
}

/// Reads `SELECT [pg_catalog.]set_config(name, value, is_local) [[AS] column], ...` with literals or text parameters as
/// arguments.
///
/// # Errors
/// Any other form: what it sets could not be followed from one server connection to the next.
pub(super) fn read_set_config(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
) -> Result<Vec<SetConfig>, Fault> {
    let sets = plain_set_config(text, holes, params).ok_or_else(|| {
        Fault::unsupported(
            "set_config in this form is not supported: which setting it changes can't be seen",
            "Write SELECT set_config('name', 'value', false) with literals or text parameters, alone in its statement.",
        )
    })?;
    for set in &sets {
        check_setting(&set.name, Some(&set.value))?;
    }
    Ok(sets)
}

fn plain_set_config(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
) -> Option<Vec<SetConfig>> {
    let mut words = tokens(text, holes).peekable();
    let mut sets = Vec::new();
    if !words.next()?.is_word(text, "select") {
        return None;
    }
    loop {
        let mut word = words.next()?;
        if word.is_word(text, "pg_catalog") && words.next()?.is_punct(text, b'.') {
            word = words.next()?;
        }
        if !word.is_word(text, "set_config") || !words.next()?.is_punct(text, b'(') {
            return None;
        }
        let args = [(); 3].map(|()| call_argument(text, holes, params, &mut words));
        let [name, value, local] = args;
        let local = matches!(local?.as_bytes(), [b't' | b'T' | b'1' | 1, ..]);
        sets.push(SetConfig {
            name: name?.to_ascii_lowercase(),
            value: value?,
            local,
        });
        // A name for the column.
        if words.next_if(|t| t.is_word(text, "as")).is_some()
            || words.peek().is_some_and(|t| t.kind == TokenKind::Word)
        {
            words.next_if(|t| t.kind == TokenKind::Word)?;
        }
        match words.next() {
            Some(next) if next.is_punct(text, b',') => {}
            Some(next) if !next.is_punct(text, b';') => return None,
            _ => return Some(sets),
        }
    }
}

/// One argument of a call, which may be cast, and the comma or parenthesis behind it.
fn call_argument(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
    words: &mut impl Iterator<Item = Token>,
) -> Option<String> {
    let value = argument(text, holes, params, &words.next()?)?;
    loop {
        let token = words.next()?;
        if token.is_punct(text, b',') || token.is_punct(text, b')') {
            return Some(value);
        }
        if !token.is_punct(text, b':') && token.kind != TokenKind::Word {
            return None;
        }
    }
}

fn argument(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
    token: &Token,
) -> Option<String> {
    let bytes = match token.kind {
        TokenKind::Literal(hole) => literal_value(text, holes.get(hole as usize)?)?.into_owned(),
        TokenKind::Word => text[token.span.clone()].to_vec(),
        TokenKind::Param => {
            let n = std::str::from_utf8(&text[token.span.clone()])
                .ok()?
                .strip_prefix('$')?
                .parse()
                .ok()?;
            let param = params?.get(n)?;
            match (param.format, param.value?) {
                (Format::Binary, [1]) => b"true".to_vec(),
                (Format::Binary, [0]) => b"false".to_vec(),
                (_, value) => value.to_vec(),
            }
        }
        _ => return None,
    };
    String::from_utf8(bytes).ok()
}

/// Settings under which statements could not be read, or that a pool can't give back.
pub(super) fn check_setting(name: &str, value: Option<&str>) -> Result<(), Fault> {
    match name {
        "standard_conforming_strings" if !value.is_some_and(is_on) => Err(Fault::unsupported(
            "standard_conforming_strings must stay on: with it off, where a string ends depends on a setting",
            "Write E'...' for strings with backslash escapes.",
        )),
        "client_encoding" | "names" if !value.is_none_or(is_safe_encoding) => {
            Err(Fault::unsupported(
                format!(
                    "client_encoding {:?} is not supported: parts of its characters look like ASCII",
                    value.unwrap_or_default()
                ),
                "Use UTF8.",
            ))
        }
        "session_authorization" => Err(Fault::unsupported(
            "SET SESSION AUTHORIZATION is not supported under transaction pooling",
            "Use SET ROLE, or give the client its own server_user in [users].",
        )),
        "default_transaction_isolation"
            if value.is_some_and(|v| v.starts_with("rep") || v.starts_with("ser")) =>
        {
            Err(Fault::unsupported(
                "a default isolation level of REPEATABLE READ or above cannot be kept over several hosts",
                "Say the isolation level in BEGIN.",
            ))
        }
        _ => Ok(()),
    }
}

fn is_on(value: &str) -> bool {
    ["on", "true", "yes", "1", "t", "y", "tr", "tru", "ye"]
        .contains(&value.to_ascii_lowercase().as_str())
}

fn is_safe_encoding(value: &str) -> bool {
    SAFE_ENCODINGS.contains(&value.to_ascii_lowercase().as_str())
}

fn no_own_setting(name: &str) -> Fault {
    Fault::statement(
        ErrorFields::error(
            SqlState::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"{name}\""),
        )
        .hint("The proxy's own are presplit.key and presplit.shard."),
    )
}
