//! Settings of a session: run on a server first, which knows what is right, then remembered and brought about on every
//! other server connection before the session uses it.

use super::Session;
use super::block::{Acted, tag};
use super::checks::check_setting;
use super::date_style::date_style;
use super::errors::Fault;
use super::links::Need;
use super::replies::{Pass, Reply};
use crate::pool::{Set, Settings, literal, quote_dotted, reset};
use crate::shardmap::ShardId;
use crate::sql::control::{BeginOptions, Isolation, SetItem, SetValue};
use crate::sql::hint::Hint;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::{backend, frontend};

impl Session {
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
        self.check_text(text)?;
        let set = match value {
            SetValue::Default => None,
            SetValue::Current => self.in_force(name).cloned(),
            SetValue::List { items, .. } if name == "datestyle" => {
                let words: Vec<&str> = items.iter().map(SetItem::as_str).collect();
                Some(date_style(self.in_force(name), &words.join(", ")))
            }
            SetValue::List { items, raw } => Some(plainly(name, items, &text[raw.clone()]).into()),
            SetValue::Interval { raw } => {
                Some(format!("SET TIME ZONE {}", &text[raw.clone()]).into())
            }
        };
        match local {
            true => self.set_local(name, set, text).await,
            false => self.set_or_reset(name, set, text).await,
        }
    }

    /// How a setting is brought to what it is now; `None`: it is the server's default.
    pub(super) fn in_force(&self, name: &str) -> Option<&Set> {
        let block = self.block.as_ref().and_then(|b| b.locals.get(name));
        block
            .or(self.batch.locals.get(name))
            .or(self.settings.get(name))
    }

    /// A value that isn't ASCII can be said anew only if we know what it means.
    fn check_text(&self, text: &str) -> Result<(), Fault> {
        let encoding = self.client.told("client_encoding").unwrap_or("UTF8");
        if text.is_ascii()
            || ["UTF8", "SQL_ASCII"].contains(&encoding) && !text.contains('\u{fffd}')
        {
            return Ok(());
        }
        Err(Fault::unsupported(
            format!(
                "a setting with other characters than ASCII is not supported under client_encoding {encoding}"
            ),
            "Use client_encoding UTF8.",
        ))
    }

    /// `SET` or (`None`) `RESET` of the session.
    async fn set_or_reset(
        &mut self,
        name: &str,
        set: Option<Set>,
        text: &str,
    ) -> Result<Acted, Fault> {
        let i = self.link(Need::along(self.any_host())).await?;
        // The role goes with it (guc.c, `set_config_with_handle`); in older versions it would be none, but come back with a rollback.
        let with_role = name == "session_authorization" && set.is_none();
        // Its default is what the client asked for at startup.
        let behind = match (&set, self.startup.get(name)) {
            _ if with_role => {
                let startup = self.startup.get("role");
                let startup = startup.map(|role| role.steps("role"));
                [vec![reset("role")], startup.unwrap_or_default()].concat()
            }
            (None, Some(startup)) => startup.steps(name),
            _ => Vec::new(),
        };
        let elsewhere = match &set {
            Some(set) => set.steps(name),
            None => [&[reset(name)], &behind[..]].concat(),
        };
        if self.run_set(i, text, &behind, &elsewhere).await? {
            self.note_set(name, set, elsewhere);
            if with_role {
                self.note_set("role", None, Vec::new());
            }
        }
        Ok(Acted::Passed)
    }

    /// Runs a SET of the session: outside a block where the session is just now, inside on all hosts of the block. (Were
    /// it brought about on them later, it would come behind a SET LOCAL or a savepoint that it comes before.)
    async fn run_set(
        &mut self,
        i: usize,
        text: &str,
        behind: &[String],
        elsewhere: &[String],
    ) -> Result<bool, Fault> {
        if self.block.is_some() {
            self.drain_replies().await?;
        }
        self.remember_settings();
        if !self.run_with(i, text, Pass::On, behind).await? {
            return Ok(false);
        }
        if self.block.is_some() {
            self.run_on_others(i, elsewhere).await?;
        }
        self.batch.has_set = true;
        Ok(true)
    }

    /// These statements on all links of the block but this one, without a word to the client.
    async fn run_on_others(&mut self, i: usize, steps: &[String]) -> Result<(), Fault> {
        for other in (0..self.links.len()).filter(|other| *other != i) {
            self.run_quietly(other, &steps.join(";")).await?;
        }
        Ok(())
    }

    /// The setting has been set, or set back (`None`), by `steps`.
    fn note_set(&mut self, name: &str, set: Option<Set>, steps: Vec<String>) {
        let set = set.or_else(|| self.startup.get(name).cloned());
        let changed = |settings: &Settings| match &set {
            Some(set) => settings.with(name, set.clone()),
            None => settings.without(name),
        };
        self.note_on_links(changed);
        self.settings = changed(&self.settings);
        if let Some(block) = &mut self.block {
            steps.into_iter().for_each(|step| block.push_set(step));
            block.locals = block.locals.without(name);
        } else {
            self.batch.locals = self.batch.locals.without(name);
        }
    }

    /// Settings were changed on the links that [`Session::run_set`] reaches.
    fn note_on_links(&mut self, changed: impl Fn(&Settings) -> Settings) {
        let (all, active) = (self.block.is_some(), self.active);
        for (i, link) in self.links.iter_mut().enumerate() {
            if (all || i == active)
                && let Some(conn) = &mut link.conn
            {
                conn.change(changed(conn.settings()));
                if !all && !link.unsynced {
                    conn.committed();
                }
            }
        }
    }

    /// `SET LOCAL`; `None`: to the default.
    async fn set_local(
        &mut self,
        name: &str,
        set: Option<Set>,
        text: &str,
    ) -> Result<Acted, Fault> {
        self.warn_in_ours("SET LOCAL").await?;
        // Something of ours in front of it would make a pipeline of it, and Postgres warns only where there is none.
        let i = self.link(Need::plain(self.any_host())).await?;
        if self.block.is_none() && self.batch.now == b'Q' {
            // Without effect but for a warning.
            self.run_on(i, text).await?;
            return Ok(Acted::Passed);
        }
        self.remember_settings();
        let startup = self.startup.get(name).cloned();
        let behind = match (&set, &startup) {
            (None, Some(startup)) => startup.local_steps(name),
            _ => Vec::new(),
        };
        let elsewhere = match &set {
            Some(set) => set.local_steps(name),
            None => [&[to_default(name)], &behind[..]].concat(),
        };
        if self.block.is_some() {
            self.drain_replies().await?;
        }
        if self.run_with(i, text, Pass::On, &behind).await? {
            self.run_on_others_of_block(i, &elsewhere).await?;
            self.note_local(name, set, elsewhere);
        }
        Ok(Acted::Passed)
    }

    async fn run_on_others_of_block(&mut self, i: usize, steps: &[String]) -> Result<(), Fault> {
        match self.block.is_some() {
            true => self.run_on_others(i, steps).await,
            // Other hosts of the batch are told when it comes to them.
            false => Ok(()),
        }
    }

    /// SET LOCAL was run, by `steps`; `None`: to the default.
    fn note_local(&mut self, name: &str, set: Option<Set>, steps: Vec<String>) {
        self.batch.has_set = true;
        let set = set.unwrap_or_else(|| {
            let startup = self.startup.get(name).cloned();
            startup
                .unwrap_or_else(|| plain_default(name).into())
                .as_default()
        });
        match &mut self.block {
            Some(block) => {
                steps.into_iter().for_each(|step| block.push_set(step));
                block.locals = block.locals.with(name, set);
            }
            None => self.batch.locals = self.batch.locals.with(name, set),
        }
        for link in &mut self.links {
            if let Some(conn) = link.conn.as_mut().filter(|_| name == "search_path") {
                // A statement that needs the path of its shard must not rely on the one that was set before.
                conn.doubt(["search_path".to_owned()]);
            }
        }
    }

    /// A call of `set_config` on the active link has set this: what is left to do.
    pub(super) async fn set_elsewhere(
        &mut self,
        name: &str,
        set: Option<Set>,
        local: bool,
    ) -> Result<(), Fault> {
        if local && self.block.is_none() && self.batch.now == b'Q' {
            return Ok(());
        }
        let startup = self.startup.get(name).cloned();
        let new = set.clone().or(startup);
        let steps = match (&new, local) {
            (Some(new), true) => new.local_steps(name),
            (Some(new), false) => new.steps(name),
            (None, true) => vec![to_default(name)],
            (None, false) => vec![reset(name)],
        };
        if self.block.is_some() {
            let done = set.as_ref().map(|_| self.active);
            for i in (0..self.links.len()).filter(|i| Some(*i) != done) {
                self.run_quietly(i, &steps.join(";")).await?;
            }
        }
        if local {
            self.note_local(name, set, steps);
            return Ok(());
        }
        self.remember_settings();
        self.batch.has_set = true;
        match set {
            None if self.block.is_none() => {
                // What it was at startup is brought about by the next statement.
                self.note_on_links(|settings| settings.without(name));
                self.settings = self.settings.with_that_of(&self.startup, name);
            }
            set => self.note_set(name, set, steps),
        }
        Ok(())
    }

    /// `RESET name`, `RESET ALL`: back to what the client asked for at startup.
    pub(super) async fn reset(&mut self, name: Option<&str>, text: &str) -> Result<Acted, Fault> {
        match name {
            Some(name) if name.starts_with("presplit.") => self.set_own(name, None, false),
            Some(name) => self.set_or_reset(name, None, text).await,
            None => self.reset_all(text).await,
        }
    }

    async fn reset_all(&mut self, text: &str) -> Result<Acted, Fault> {
        let i = self.link(Need::along(self.any_host())).await?;
        let startup = self.startup.clone();
        let block = self.block.as_ref();
        let locals = block.map_or(&self.batch.locals, |block| &block.locals);
        let locals = locals.clone();
        let mut behind = startup.behind_reset_all();
        for (name, local) in locals.iter().filter(|(_, local)| local.is_default()) {
            // That this is a default the server does not know.
            if startup.get(name).is_some() {
                behind.extend(
                    self.settings
                        .get(name)
                        .map_or(vec![reset(name)], |set| set.steps(name)),
                );
                behind.extend(local.local_steps(name));
            }
        }
        let elsewhere = [&["RESET ALL".to_owned()], &behind[..]].concat();
        if !self.run_set(i, text, &behind, &elsewhere).await? {
            return Ok(Acted::Passed);
        }
        // What stands at its default just then, RESET ALL passes over (guc.c, ResetAllOptions): behind the transaction it is
        // what it was before SET LOCAL.
        let passed_over = |settings: &Settings, reset: Settings| {
            let at_default = locals.iter().filter(|(_, local)| local.is_default());
            let names = at_default.map(|(name, _)| name);
            names.fold(reset, |reset, name| reset.with_that_of(settings, name))
        };
        let reset = |settings: &Settings| passed_over(settings, settings.reset_all(&startup));
        self.note_on_links(reset);
        self.settings = reset(&self.settings);
        self.hint = None;
        let left = passed_over(&locals, locals.reset_all(&Settings::default()));
        match &mut self.block {
            Some(block) => {
                elsewhere.into_iter().for_each(|step| block.push_set(step));
                block.locals = left;
                block.local_hint = None;
            }
            None => self.batch.locals = left,
        }
        Ok(Acted::Passed)
    }

    /// `DISCARD ALL` of a session outside of a block.
    pub(super) async fn discard_all(&mut self) -> Result<Acted, Fault> {
        if self.batch.executed || self.block.is_some() {
            return Err(Fault::statement(ErrorFields::error(
                SqlState::ACTIVE_TRANSACTION,
                "DISCARD ALL cannot be executed within a pipeline",
            )));
        }
        self.remember_settings();
        // Unlike RESET ALL it takes the role back, even one that was asked for at startup.
        let wanted = self.startup.without("role");
        if !self.settings.same(&wanted) {
            self.settings = wanted;
            // The client is told what has changed.
            let i = self.link(Need::along(self.any_host())).await?;
            frontend::sync(&mut self.links[i].outbox);
            self.replies.push(Reply::Sync(Pass::Keep));
            self.client.hold_for_caller();
            self.relay().await?;
            self.batch.has_set = true;
            self.gather_news();
        }
        self.hint = None;
        self.statements.clear();
        // It commits by itself, whatever comes behind it in the pipeline (postgres.c, XACT_FLAGS_NEEDIMMEDIATECOMMIT).
        self.end_implicit(true);
        self.batch.parsed = false;
        Ok(tag("DISCARD ALL"))
    }

    /// `SET TRANSACTION ...`.
    pub(super) async fn set_transaction(
        &mut self,
        options: &BeginOptions,
        text: &str,
    ) -> Result<Acted, Fault> {
        if self.block.is_none() {
            self.check_implicit_in_time(options).await?;
            if self.links.len() <= 1 {
                let i = self.link(Need::along(self.any_host())).await?;
                if self.run_on(i, text).await? {
                    self.batch.options = self.batch.options.and_then(options);
                }
                return Ok(Acted::Passed);
            }
            // A read has been on several hosts: as a block the transaction is so on all of them.
            self.settle_replies().await?;
            self.batch_becomes_block().await?;
        }
        self.warn_in_ours("SET TRANSACTION").await?;
        self.set_options(options, text, "SET").await
    }

    /// `SET SESSION CHARACTERISTICS AS TRANSACTION ...`: the defaults of the transactions to come.
    pub(super) async fn set_characteristics(
        &mut self,
        options: &BeginOptions,
        text: &str,
    ) -> Result<Acted, Fault> {
        let sets: Vec<_> = characteristics(options)
            .map(|(name, value)| (name, format!("SET {name} TO {value}")))
            .collect();
        let i = self.link(Need::along(self.any_host())).await?;
        let steps: Vec<_> = sets.iter().map(|(_, sql)| sql.clone()).collect();
        if self.run_set(i, text, &[], &steps).await? {
            for (name, sql) in sets {
                self.note_set(name, Some(sql.clone().into()), vec![sql]);
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
}

/// `SET name TO ...` with values as they were written, or written anew if they are not ASCII.
fn plainly(name: &str, items: &[SetItem], raw: &str) -> String {
    let values = match raw.is_ascii() {
        true => raw.to_owned(),
        false => {
            let values: Vec<_> = items.iter().map(|item| literal(item.as_str())).collect();
            values.join(", ")
        }
    };
    format!("SET {} TO {values}", quote_dotted(name))
}

fn to_default(name: &str) -> String {
    format!("SET LOCAL {} TO DEFAULT", quote_dotted(name))
}

fn plain_default(name: &str) -> String {
    format!("SET {} TO DEFAULT", quote_dotted(name))
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

fn no_own_setting(name: &str) -> Fault {
    Fault::statement(
        ErrorFields::error(
            SqlState::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"{name}\""),
        )
        .hint("The proxy's own are presplit.key and presplit.shard."),
    )
}
