//! The settings by which Postgres reads a text. `'01/02/2024'::date` is read by DateStyle when it is parsed, not when it is
//! run: so a server-side statement serves only sessions that agree in them, and a client's statement keeps those that it was
//! parsed under.

use std::sync::Arc;

use super::Session;
use super::bring::split_list;
use super::context::Statement;
use super::replies::Reply;
use crate::pool::{Set, Settings, reset};

/// Settings that change nothing of what a text means when Postgres parses it.
const NOT_READING: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "role",
    "statement_timeout",
    "synchronous_commit",
    "work_mem",
];

/// Settings by which texts are read.
#[derive(Default)]
pub(crate) struct Reading {
    /// What tells them from others.
    pub(crate) key: Box<[u8]>,
    /// They alone.
    settings: Settings,
    /// The key of those that are in force meanwhile, if they are others.
    under: Option<Box<[u8]>>,
}

impl Reading {
    fn of<'s>(all: impl Iterator<Item = (&'s str, &'s Set)>) -> Reading {
        let mut settings = Settings::default();
        // Those of an app itself (`myapp.user`) are read by its functions, when they run.
        for (name, set) in all.filter(|(n, _)| !NOT_READING.contains(n) && !n.contains('.')) {
            settings = settings.with(name, set.clone());
        }
        Reading {
            key: key_of(&settings),
            settings,
            under: None,
        }
    }

    /// Whether a statement of this reading may be used as it is while `now` is in force.
    pub(crate) fn fits(&self, now: &Reading) -> bool {
        self.under.as_ref().unwrap_or(&self.key) == &now.key
    }

    /// The schemas of the search_path. Which of them there are is not known here; that of the user's name seldom is.
    fn path(&self) -> Vec<String> {
        let listed = self.settings.get("search_path").and_then(|set| {
            let call = set.sql.split("'search_path', '").nth(1);
            let list = call.and_then(|rest| rest.strip_suffix("', false)"));
            let list = list.or_else(|| Some(set.sql.split_once(" TO ")?.1))?;
            (list != "DEFAULT").then_some(list)
        });
        let items = split_list(listed.unwrap_or("public")).into_iter();
        let bare = items.map(|item| match item.trim_matches(['\'', '"']) {
            bare if bare.len() < item.len() => bare.to_owned(),
            bare => bare.to_ascii_lowercase(),
        });
        bare.filter(|item| !item.is_empty() && item != "$user")
            .collect()
    }

    /// What a statement of this reading is from now on, `now` being in force. Postgres goes on with what it has read,
    /// unless the search_path is another: then it reads the text anew (plancache.c).
    pub(crate) fn go_on(&self, now: &Arc<Reading>) -> Arc<Reading> {
        let read_by = key_of(&self.settings);
        if read_by == now.key || self.path() != now.path() {
            return now.clone();
        }
        // Not the same server-side statement as that of others: Postgres reads it anew by what is in force then, should
        // its tables change.
        Arc::new(Reading {
            key: [&read_by[..], b"\x01", &now.key].concat().into(),
            settings: self.settings.clone(),
            under: Some(now.key.clone()),
        })
    }
}

fn key_of(settings: &Settings) -> Box<[u8]> {
    let mut key = Vec::new();
    for (name, set) in settings.iter() {
        key.extend_from_slice(name.as_bytes());
        key.push(b'=');
        key.extend_from_slice(set.sql.as_bytes());
        key.push(0);
    }
    key.into()
}

impl Session {
    /// The settings by which Postgres reads a text now.
    pub(super) fn reading(&mut self) -> Arc<Reading> {
        let block = self.block.as_ref().map(|block| &block.locals);
        let locals = block.unwrap_or(&self.batch.locals);
        if !locals.is_empty() {
            // Of two settings of one name the later counts.
            return Arc::new(Reading::of(self.settings.iter().chain(locals.iter())));
        }
        if !self.reading.0.is(&self.settings) {
            let reading = Reading::of(self.settings.iter());
            self.reading = (self.settings.clone(), Arc::new(reading));
        }
        self.reading.1.clone()
    }

    /// Puts the settings by which a statement was read in front of its Parse, which `push` writes, and those that are in
    /// force behind it.
    pub(super) fn read_as_then(
        &mut self,
        i: usize,
        statement: &Statement,
        push: impl FnOnce(&mut Session),
    ) {
        if statement.reading.under.is_none() {
            return push(self);
        }
        let now = self.reading();
        let then = &statement.reading.settings;
        let names = now.settings.changed_names(then);
        let there = names.iter().flat_map(|name| match then.get(name) {
            Some(set) => set.steps(name),
            None => vec![reset(name)],
        });
        let there: Vec<String> = there.collect();
        let locals = match &self.block {
            Some(block) => block.locals.clone(),
            None => self.batch.locals.clone(),
        };
        let mut back = Vec::new();
        for name in &names {
            match self.settings.get(name) {
                Some(set) => back.extend(set.steps(name)),
                None => back.push(reset(name)),
            }
            back.extend(
                locals
                    .get(name)
                    .iter()
                    .flat_map(|set| set.local_steps(name)),
            );
        }
        self.push_ours(i, &there);
        push(self);
        self.push_ours(i, &back);
    }

    /// Statements of ours, without which what follows must not run.
    pub(super) fn push_ours(&mut self, i: usize, steps: &[String]) {
        // A client's unnamed portal must live on.
        let portal: &[u8] = match !self.statements.portals.is_empty() {
            true => b"presplit_set",
            false => b"",
        };
        let outbox = &mut self.links[i].outbox;
        for step in steps {
            super::bring::push_step(outbox, step, portal);
            self.replies.push(Reply::Ours {
                closes: !portal.is_empty(),
            });
        }
    }
}
