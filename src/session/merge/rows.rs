//! Takes the rows that several hosts send: any of them, the first of all sorted, or all merged.

use super::{Failed, Step};
use crate::route::{ByteOrder, Sorted};
use crate::session::Session;
use crate::session::errors::Fault;
use crate::session::gather::Shards;
use crate::wire::body::Body;
use crate::wire::frame;

impl Session {
    /// The next row that a link has for us; `None`: it has said all.
    pub(super) async fn next_row(&mut self, i: usize) -> Step<Option<Vec<u8>>> {
        let mut failed = false;
        loop {
            let (tag, len) = self.next_message(i).await?;
            if tag == b'D' && !failed {
                let most = self.map.proxy.limits.gather_bytes;
                if len > most {
                    return Err(Fault::limit(
                        &format!("a row of {len} bytes"),
                        "gather_bytes",
                        most as u64,
                    ));
                }
                self.have(i, len).await?;
                let row = self.links[i].unread()[frame::HEADER..len].to_vec();
                self.links[i].take(len);
                return Ok(Ok(Some(row)));
            }
            if matches!(tag, b'E' | b'N' | b'Z') {
                self.have(i, len).await?;
            }
            match tag {
                b'E' if !failed => {
                    let body = self.links[i].unread()[frame::HEADER..len].to_vec();
                    self.pass_error(&body, None);
                    failed = true;
                }
                b'N' => {
                    let message = self.links[i].unread()[..len].to_vec();
                    self.client.outbox.extend_from_slice(&message);
                }
                _ => {}
            }
            self.skip_message(i, len).await?;
            if tag == b'Z' {
                self.links[i].unsynced = false;
                return Ok(if failed { Err(Failed) } else { Ok(None) });
            }
        }
    }

    /// Reads what the links still have to say, so that they can be used again.
    pub(super) async fn settle_links(&mut self, hosts: &[Shards]) -> Result<(), Fault> {
        for i in self.asked_links(hosts) {
            // Another server's error would come after the one that the client has.
            while self.links[i].unsynced {
                let (tag, len) = self.next_message(i).await?;
                if tag == b'Z' {
                    self.have(i, len).await?;
                    self.links[i].unsynced = false;
                }
                self.skip_message(i, len).await?;
            }
        }
        Ok(())
    }

    pub(super) fn asked_links(&self, hosts: &[Shards]) -> Vec<usize> {
        let asked = |(host, _): &Shards| self.links.iter().position(|l| l.host == *host);
        hosts.iter().filter_map(asked).collect()
    }

    pub(super) async fn give(&mut self, row: &[u8], outputs: Option<usize>) -> Result<(), Fault> {
        let row = match outputs {
            None => row,
            Some(n) => &row[..row_start(row, n).unwrap_or(row.len())],
        };
        let out = &mut self.client.outbox;
        out.push(b'D');
        out.extend(((row.len() + 4) as u32).to_be_bytes());
        let from = out.len();
        out.extend_from_slice(row);
        if let (Some(n), Some(count)) = (outputs, out.get_mut(from..from + 2)) {
            count.copy_from_slice(&(n as u16).to_be_bytes());
        }
        self.pass_gathered().await
    }

    /// The next row of the hosts, one host after the other; `None`: they have said all. `at` counts the hosts read to
    /// their end. If one fails, the others are read to theirs, too.
    pub(super) async fn next_of_all(
        &mut self,
        hosts: &[Shards],
        at: &mut usize,
    ) -> Step<Option<Vec<u8>>> {
        while let Some((host, _)) = hosts.get(*at) {
            let Some(i) = self.links.iter().position(|l| l.host == *host) else {
                *at += 1;
                continue;
            };
            match self.next_row(i).await? {
                Ok(None) => *at += 1,
                Ok(row) => return Ok(Ok(row)),
                Err(Failed) => {
                    self.settle_links(hosts).await?;
                    return Ok(Err(Failed));
                }
            }
        }
        Ok(Ok(None))
    }

    /// LIMIT without an order: the rows that come first.
    pub(super) async fn take_any(&mut self, sorted: &Sorted, hosts: &[Shards]) -> Step<u64> {
        let (mut at, mut passed, mut given) = (0, 0, 0);
        loop {
            match self.next_of_all(hosts, &mut at).await? {
                Err(Failed) => return Ok(Err(Failed)),
                Ok(None) => break,
                Ok(Some(_)) if sorted.limit.is_some_and(|most| given >= most) => {}
                Ok(Some(_)) if passed < sorted.offset => passed += 1,
                Ok(Some(row)) => {
                    given += 1;
                    self.give(&row, None).await?;
                }
            }
        }
        Ok(Ok(given))
    }

    /// The first rows of all, held and sorted here.
    pub(super) async fn take_first(
        &mut self,
        sorted: &Sorted,
        orders: &[ByteOrder],
        outputs: usize,
        hosts: &[Shards],
    ) -> Step<u64> {
        let needed = usize::try_from(sorted.needed().unwrap_or(0)).unwrap_or(usize::MAX);
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let (mut at, mut bytes) = (0, 0);
        loop {
            match self.next_of_all(hosts, &mut at).await? {
                Err(Failed) => return Ok(Err(Failed)),
                Ok(None) => break,
                Ok(Some(row)) => {
                    bytes += row.len();
                    rows.push((sort_key(&row, outputs, sorted, orders), row));
                }
            }
            let many = rows.len() > 2 * needed + 1000;
            if many || bytes > self.map.proxy.limits.gather_bytes {
                rows.sort_by(|a, b| a.0.cmp(&b.0));
                rows.truncate(needed);
                bytes = rows.iter().map(|(_, row)| row.len()).sum();
                self.check_held(bytes)?;
            }
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows.truncate(needed);
        let offset = usize::try_from(sorted.offset).unwrap_or(usize::MAX);
        let rows = rows.get(offset..).unwrap_or_default();
        for (_, row) in rows {
            self.give(row, Some(outputs)).await?;
        }
        Ok(Ok(rows.len() as u64))
    }

    pub(super) fn check_held(&self, bytes: usize) -> Result<(), Fault> {
        let most = self.map.proxy.limits.gather_bytes;
        if bytes > most {
            return Err(Fault::limit(
                &format!("the rows of several shards that must be held at once take {bytes} bytes"),
                "gather_bytes",
                most as u64,
            ));
        }
        Ok(())
    }

    /// All rows, merged from hosts that have sorted theirs: one row of each is held.
    pub(super) async fn take_merged(
        &mut self,
        sorted: &Sorted,
        orders: &[ByteOrder],
        outputs: usize,
        hosts: &[Shards],
    ) -> Step<u64> {
        let links = self.asked_links(hosts);
        let mut heads: Vec<Option<(Vec<u8>, Vec<u8>)>> = vec![None; links.len()];
        for (n, i) in links.iter().enumerate() {
            match self.next_head(*i, sorted, orders, outputs).await? {
                Ok(head) => heads[n] = head,
                Err(Failed) => return self.stop(hosts).await,
            }
        }
        let (mut passed, mut given) = (0, 0);
        while sorted.limit.is_none_or(|most| given < most) {
            let least = (0..heads.len()).filter(|n| heads[*n].is_some());
            let key = |n: &usize| heads[*n].as_ref().map(|(key, _)| key);
            let Some(n) = least.min_by(|a, b| key(a).cmp(&key(b))) else {
                break;
            };
            let next = self.next_head(links[n], sorted, orders, outputs).await?;
            let Ok(next) = next else {
                return self.stop(hosts).await;
            };
            let Some((_, row)) = std::mem::replace(&mut heads[n], next) else {
                break;
            };
            if passed < sorted.offset {
                passed += 1;
                continue;
            }
            given += 1;
            self.give(&row, Some(outputs)).await?;
        }
        self.settle_links(hosts).await?;
        Ok(Ok(given))
    }

    pub(super) async fn next_head(
        &mut self,
        i: usize,
        sorted: &Sorted,
        orders: &[ByteOrder],
        outputs: usize,
    ) -> Step<Option<(Vec<u8>, Vec<u8>)>> {
        if !self.links[i].unsynced {
            return Ok(Ok(None));
        }
        let row = match self.next_row(i).await? {
            Ok(row) => row,
            Err(Failed) => return Ok(Err(Failed)),
        };
        Ok(Ok(
            row.map(|row| (sort_key(&row, outputs, sorted, orders), row))
        ))
    }

    /// A server failed while others may have much to say: their connections are closed rather than read to the end.
    pub(super) async fn stop(&mut self, _: &[Shards]) -> Step<u64> {
        Ok(Err(Failed))
    }
}

/// Where column `n` of a DataRow's body begins.
fn row_start(row: &[u8], n: usize) -> Option<usize> {
    let mut body = Body(row);
    body.u16().ok()?;
    for _ in 0..n {
        body.value().ok()?;
    }
    Some(row.len() - body.0.len())
}

/// The sort keys of a row, which stand behind its outputs, as bytes that compare as Postgres compares them.
fn sort_key(row: &[u8], outputs: usize, sorted: &Sorted, orders: &[ByteOrder]) -> Vec<u8> {
    let mut key = Vec::with_capacity(16);
    let mut body = Body(&row[row_start(row, outputs).unwrap_or(row.len())..]);
    for (by, order) in sorted.keys.iter().zip(orders) {
        match body.value().ok().flatten() {
            None => key.push(u8::from(!by.nulls_first)),
            Some(value) => {
                key.push(u8::from(by.nulls_first));
                let from = key.len();
                order.write(value, &mut key);
                if by.desc {
                    key[from..].iter_mut().for_each(|byte| *byte = !*byte);
                }
            }
        }
    }
    key
}
