//! How a COPY whose rows are split comes to its end: on all hosts, or on none of them.

use super::*;

impl Session {
    /// Ends the open COPYs and waits for the answers to all of them.
    pub(super) async fn end_feeds(
        &mut self,
        statement: &Statement<'_>,
        feeds: &mut Feeds,
        heard: &mut Heard,
    ) -> Result<(), Fault> {
        for feed in &mut feeds.all {
            let outbox = &mut self.links[feed.link].outbox;
            feed.close(outbox);
            frontend::flush(outbox);
        }
        self.feed_until(Until::Done, feeds, heard, &statement.copy.table)
            .await?;
        Ok(())
    }

    /// All rows are there.
    pub(super) async fn finish_rows(
        &mut self,
        statement: &Statement<'_>,
        feeds: &mut Feeds,
        mut heard: Heard,
    ) -> Result<Option<String>, Fault> {
        let table = &*statement.copy.table;
        self.send(statement, feeds, &mut heard, Hold::None).await?;
        if heard.error.is_none() {
            self.end_feeds(statement, feeds, &mut heard).await?;
        }
        if heard.error.is_none() && (statement.simple || feeds.are_several()) {
            // Commits what is no part of a block: only then is it done.
            for feed in &feeds.all {
                frontend::sync(&mut self.links[feed.link].outbox);
            }
            self.feed_until(Until::Ready, feeds, &mut heard, table)
                .await?;
        }
        if heard.error.is_some() {
            return self.copy_failed(statement, feeds, heard, None).await;
        }
        if statement.copy.is_everywhere() {
            let query = statement.copy.fingerprint();
            self.compare_copies(table, &query).await?;
            return Ok(Some(format!("COPY {}", feeds.first().rows)));
        }
        self.context.stats.scattered(feeds.shards());
        let rows: u64 = feeds.all.iter().map(|feed| feed.rows).sum();
        Ok(Some(format!("COPY {rows}")))
    }

    /// We refuse a row, or the data. If the server, too, refuses what it is asked about, its error is the better one.
    pub(super) async fn refuse_rows(
        &mut self,
        statement: &Statement<'_>,
        feeds: &mut Feeds,
        mut heard: Heard,
        bad: Bad,
        line: u64,
    ) -> Result<Option<String>, Fault> {
        let table = &statement.copy.table;
        if let Some(raw) = &bad.raw {
            self.send(statement, feeds, &mut heard, Hold::None).await?;
            if heard.error.is_none() {
                let i = self.begin_again(statement, feeds);
                feeds
                    .first()
                    .write_odd(&mut self.links[i].outbox, raw, line);
                self.end_feeds(statement, feeds, &mut heard).await?;
            }
            if heard.error.is_some() {
                return self.copy_failed(statement, feeds, heard, None).await;
            }
        }
        // The server is content: its transaction must fail all the same.
        let i = self.begin_again(statement, feeds);
        let outbox = &mut self.links[i].outbox;
        frontend::copy_fail(outbox, b"refused by presplit");
        frontend::flush(outbox);
        feeds.first().segments.push_back(Default::default());
        self.feed_until(Until::Done, feeds, &mut heard, table)
            .await?;
        self.copy_failed(statement, feeds, heard, Some(bad.fields))
            .await
    }

    /// A server has refused something, by itself or because it was told to. The client hears of it.
    pub(super) async fn copy_failed(
        &mut self,
        statement: &Statement<'_>,
        feeds: &mut Feeds,
        mut heard: Heard,
        ours: Option<Box<ErrorFields>>,
    ) -> Result<Option<String>, Fault> {
        let several = feeds.are_several();
        match (statement.simple, several) {
            (true, _) => {}
            (false, true) => self.batch.refused(),
            (false, false) => self.batch.server_refused(),
        }
        if statement.simple || several {
            for feed in feeds.all.iter_mut().filter(|feed| !feed.ready) {
                let outbox = &mut self.links[feed.link].outbox;
                if feed.open.take().is_some() {
                    // It takes no Sync while it waits for data.
                    frontend::copy_fail(outbox, b"the COPY failed on another host");
                }
                frontend::sync(outbox);
            }
            self.feed_until(Until::Ready, feeds, &mut heard, &statement.copy.table)
                .await?;
        }
        if let Some(block) = self.block.as_mut().filter(|_| statement.simple || several) {
            block.failed = true;
        }
        match ours {
            Some(fields) => {
                self.context.stats.refused(fields.code);
                fields.write(&mut self.client.outbox);
            }
            None => {
                self.context.stats.server_error();
                let error = heard.error.unwrap_or_default();
                self.client.outbox.extend_from_slice(&error);
            }
        }
        Ok(None)
    }
}
