//! Brings server connections to the session's settings: in the same write as the statement that needs them, and in the
//! same transaction, so that the server answers them together.

use super::Session;
use super::errors::Fault;
use super::replies::{Replies, Reply};
use crate::pool::{ServerConn, Set, Settings, takes_snapshot};
use crate::shardmap::ShardId;
use crate::wire::frontend::{self, Kind};

/// In which transaction settings are brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bring {
    /// In that of the statement: nothing more is written nor answered than without.
    Along,
    /// In one of their own: the statement can't be in one that something else began, or may end it.
    Before,
}

impl Session {
    /// Brings the link's connection to the session's settings, with the shard's search_path where names need it.
    pub(super) fn bring_settings(
        &mut self,
        i: usize,
        path: Option<ShardId>,
        bring: Bring,
    ) -> Result<(), Fault> {
        let with_path;
        let wanted = match path {
            None => &self.settings,
            Some(shard) => {
                let set = path_in(self.in_force("search_path"), self.map.schema(shard));
                with_path = self.settings.with("search_path", set);
                &with_path
            }
        };
        let link = &mut self.links[i];
        let block = self.block.as_ref();
        let Some(conn) = &mut link.conn else {
            return Err(Fault::lost(&link.pool.host, None));
        };
        let first = block.is_none() && !link.unsynced;
        // What the batch has set until its end.
        let late = Some(&self.batch.locals).filter(|locals| first && !locals.is_empty());
        // What the batch has set for the next transaction is not for its own, also where the connection has it already.
        let before = self.batch.before().filter(|_| first);
        let next = before.is_some_and(|b| for_the_next(&b.settings.difference(wanted, &[])));
        if conn.is_at(wanted) && late.is_none() && !next {
            return Ok(());
        }
        let mut sets = conn.steps_to(wanted);
        // Behind a snapshot no isolation level can be chosen, which may be what follows.
        let alone = next || for_the_next(&sets) || sets.iter().any(|sql| takes_snapshot(sql));
        if first && (bring == Bring::Before || alone) {
            // What the batch has set since its transaction began elsewhere is set in the one that begins here.
            let base = before.map_or(wanted, |before| &before.settings);
            push_settings(&mut link.outbox, &mut self.replies, conn, base);
            sets = base.difference(wanted, &[]);
        } else if !first {
            let locals = block.map_or(&self.batch.locals, |block| &block.locals);
            // SET beats an earlier SET LOCAL, which must be in force again behind it.
            let changed = conn.settings().changed_names(wanted);
            let changed = changed
                .iter()
                .chain(conn.unsure())
                .filter(|name| path.is_none() || *name != "search_path");
            for name in changed {
                let local = locals.get(name);
                sets.extend(local.iter().flat_map(|set| set.local_steps(name)));
            }
            // Some may have been set under the session's own role.
            if let Some(role) = locals.get("role").filter(|_| !sets.is_empty()) {
                sets.extend(role.local_steps("role"));
            }
        }
        let late = late.iter().flat_map(|locals| locals.iter());
        sets.extend(late.flat_map(|(name, set)| set.local_steps(name)));
        if sets.is_empty() {
            return Ok(());
        }
        conn.brought_to(wanted.clone());
        let from = link.outbox.len();
        link.unsynced |= self.block.is_none();
        self.push_ours(i, &sets);
        let link = &mut self.links[i];
        link.brought = first.then_some((from, sets.len(), link.outbox.len()));
        Ok(())
    }

    /// Whether the batch has set what holds from its next transaction on, but not in its own.
    pub(super) fn has_set_for_the_next(&self) -> bool {
        let before = self.batch.before();
        before.is_some_and(|b| for_the_next(&b.settings.difference(&self.settings, &[])))
    }

    /// Brings a newly enlisted link to the settings that were in force before the open block, which begins behind them.
    pub(super) fn bring_before_begin(&mut self, link: &mut super::ends::Link, plain_begin: bool) {
        let outside = self.settings_outside_block();
        let Some(conn) = &mut link.conn else { return };
        let sets = conn.steps_to(&outside);
        let snapshot = sets.iter().any(|sql| takes_snapshot(sql));
        if for_the_next(&sets) || snapshot && !plain_begin {
            push_settings(&mut link.outbox, &mut self.replies, conn, &outside);
            return;
        }
        for sql in &sets {
            push_step(&mut link.outbox, sql, b"");
            self.replies.push(Reply::Ours { closes: false });
        }
        conn.brought_to(outside);
    }

    /// The settings that would be in force if the open block were rolled back.
    fn settings_outside_block(&self) -> Settings {
        self.block
            .as_ref()
            .map_or_else(|| self.settings.clone(), |b| b.before.settings.clone())
    }
}

/// The statement that makes names of a shard's tables resolve in its schema: that stands where `public` does in the
/// session's own search_path, so that other names mean what they mean there.
fn path_in(own: Option<&Set>, schema: &str) -> String {
    let plain = || format!("SET search_path TO {schema}, public");
    let Some(own) = own else { return plain() };
    let call = ("SELECT pg_catalog.set_config('search_path', '", "', false)");
    let list = own.sql.strip_prefix("SET \"search_path\" TO ");
    if let Some(list) = list.filter(|list| *list != "DEFAULT") {
        let items = split_list(list);
        return format!("SET search_path TO {}", with_schema(&items, schema));
    }
    match own
        .sql
        .strip_prefix(call.0)
        .and_then(|sql| sql.strip_suffix(call.1))
    {
        Some(list) => format!(
            "{}{}{}",
            call.0,
            with_schema(&split_list(list), schema),
            call.1
        ),
        None => plain(),
    }
}

fn with_schema(items: &[&str], schema: &str) -> String {
    let is_public = |item: &str| match item.trim_matches(['\'', '"']) {
        bare if bare.len() < item.len() => bare == "public",
        bare => bare.eq_ignore_ascii_case("public"),
    };
    let mut path: Vec<&str> = items.to_vec();
    let at = path.iter().position(|item| is_public(item));
    path.insert(at.unwrap_or(path.len()), schema);
    path.retain(|item| !item.is_empty());
    path.join(", ")
}

/// The items of a list of names, as they are written.
pub(super) fn split_list(list: &str) -> Vec<&str> {
    let (mut items, mut from, mut quote) = (Vec::new(), 0, None);
    for (at, c) in list.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ',') => {
                items.push(list[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    items.push(list[from..].trim());
    items
}

/// Whether one of them holds from the next transaction on.
fn for_the_next(sets: &[String]) -> bool {
    sets.iter().any(|sql| sql.contains("default_transaction_"))
}

/// One Query that brings a connection to `wanted`.
pub(super) fn push_settings(
    outbox: &mut Vec<u8>,
    replies: &mut Replies,
    conn: &mut ServerConn,
    wanted: &Settings,
) {
    let sets = conn.steps_to(wanted);
    if !sets.is_empty() {
        frontend::query(outbox, sets.join(";").as_bytes());
        replies.push(Reply::Bring);
    }
    conn.brought_to(wanted.clone());
}

/// One statement of ours that is answered by [`Reply::Ours`].
pub(super) fn push_step(outbox: &mut Vec<u8>, sql: &str, portal: &[u8]) {
    frontend::parse(outbox, b"", sql.as_bytes(), std::iter::empty());
    frontend::bind_renamed(outbox, portal, b"", &[0; 6]);
    frontend::execute(outbox, portal, 0);
    if !portal.is_empty() {
        frontend::close(outbox, Kind::Portal, portal);
    }
}

#[cfg(test)]
mod tests {
    use super::path_in;
    use crate::pool::{Set, set_config};

    #[test]
    fn a_shards_schema_stands_where_public_does() {
        let path = |sql: &str| path_in(Some(&Set::from(sql.to_owned())), "shard_0001");
        let to = |list: &str| path(&format!("SET \"search_path\" TO {list}"));
        assert_eq!(
            path_in(None, "shard_0001"),
            "SET search_path TO shard_0001, public"
        );
        assert_eq!(
            to("a, Public , b"),
            "SET search_path TO a, shard_0001, Public, b"
        );
        assert_eq!(
            to("\"$user\", 'public'"),
            "SET search_path TO \"$user\", shard_0001, 'public'"
        );
        assert_eq!(
            to("\"a,public\", \"PUBLIC\""),
            "SET search_path TO \"a,public\", \"PUBLIC\", shard_0001"
        );
        assert_eq!(
            path(&set_config("search_path", "a,public")),
            "SELECT pg_catalog.set_config('search_path', 'a, shard_0001, public', false)"
        );
        assert_eq!(
            path(&set_config("search_path", "")),
            "SELECT pg_catalog.set_config('search_path', 'shard_0001', false)"
        );
    }
}
