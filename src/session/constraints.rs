//! SET CONSTRAINTS. A constraint of a sharded table is in every shard, so each host is told of all that have a name
//! there, whatever the search_path.

use super::Session;
use super::block::{Acted, tag};
use super::errors::Fault;
use super::links::Need;
use super::queries::Answer;
use crate::shardmap::HostId;
use crate::wire::error::{ErrorFields, SqlState};

impl Session {
    /// Outside of a block: one server says whether it warns. What it says holds until the batch ends, so on the hosts that come to that, too.
    async fn set_implicit_constraints(&mut self, text: &str) -> Result<Acted, Fault> {
        let i = self.link(Need::along(self.any_host())).await?;
        let several = self.map.hosts.len() > 1 && self.batch.now != b'Q';
        if self.run_on(i, text).await? && several {
            self.batch_becomes_block().await?;
            for other in (0..self.links.len()).filter(|other| *other != i) {
                self.run_quietly(other, text).await?;
            }
            if let Some(block) = &mut self.block {
                block.push_set(text.to_owned());
            }
        }
        Ok(Acted::Passed)
    }

    /// In a block: on the hosts that it is on, and on those that come to it.
    pub(super) async fn set_constraints(
        &mut self,
        names: &[String],
        deferred: bool,
        text: &str,
    ) -> Result<Acted, Fault> {
        if self.block.is_none() {
            return self.set_implicit_constraints(text).await;
        }
        self.warn_in_ours("SET CONSTRAINTS").await?;
        for name in names {
            self.find_constraint(name).await?;
        }
        let set = match names.is_empty() {
            true => text.to_owned(),
            false => self.set_by_name(names, deferred),
        };
        let acted = if names.is_empty() && self.links.len() <= 1 {
            self.run_on_all(text, "SET CONSTRAINTS").await?
        } else {
            // On any of them it may be found that one does not hold.
            self.settle_replies().await?;
            self.query_all_links(&set).await?;
            tag("SET CONSTRAINTS")
        };
        if let Some(block) = &mut self.block {
            block.push_set(set);
        }
        Ok(acted)
    }

    /// Looks for it on the block's hosts first, then on the others: there are no other names that Postgres would accept.
    async fn find_constraint(&mut self, name: &str) -> Result<(), Fault> {
        let mut hosts: Vec<HostId> = self.links.iter().map(|link| link.host).collect();
        let all = (0..self.map.hosts.len()).map(|h| HostId(h as u16));
        hosts.extend(all.filter(|host| !self.links.iter().any(|link| link.host == *host)));
        let ask = format!("SELECT {}", self.constraints(&[name.to_owned()]));
        for host in hosts {
            let i = self.link(Need::plain(host)).await?;
            self.settle_replies().await?;
            match self.query_link(i, &ask).await {
                Answer::Done(tag) if &*tag == "SELECT 0" => {}
                answer => return answer.into_fault().map_or(Ok(()), Err),
            }
        }
        Err(Fault::statement(ErrorFields::error(
            SqlState::UNDEFINED_OBJECT,
            format!("constraint \"{name}\" does not exist"),
        )))
    }

    /// One statement that sets those that there are on a host, if any.
    fn set_by_name(&self, names: &[String], deferred: bool) -> String {
        let how = if deferred { "DEFERRED" } else { "IMMEDIATE" };
        format!(
            "DO $presplit$ DECLARE found text; BEGIN
SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.conname), ', ') INTO found {};
IF found IS NOT NULL THEN EXECUTE pg_catalog.format('SET CONSTRAINTS %s {how}', found); END IF;
END $presplit$",
            self.constraints(names)
        )
    }

    /// FROM and WHERE of the constraints of these names that are the app's.
    fn constraints(&self, names: &[String]) -> String {
        let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
        format!(
            "FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.connamespace
WHERE c.conname OPERATOR(pg_catalog.=) ANY (ARRAY[{}]::pg_catalog.name[])
AND (n.nspname OPERATOR(pg_catalog.=) 'public' OR n.nspname OPERATOR(pg_catalog.~~) {})",
            names.join(", "),
            literal(&self.map.keyspace.schema.like())
        )
    }
}

/// A string constant under `standard_conforming_strings` on or off, which stands in dollar quotes.
fn literal(text: &str) -> String {
    let text = text.replace('\'', "''").replace('\\', "\\\\");
    format!("E'{}'", text.replace('$', "\\x24"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn literals() {
        assert_eq!(super::literal("it's"), "E'it''s'");
        assert_eq!(super::literal(r"a\b$presplit$"), r"E'a\\b\x24presplit\x24'");
    }
}
