//! COPY FROM STDIN: the client's CopyData passed on to the active server connection as it comes, in bounded memory.

use std::future::poll_fn;
use std::task::{Poll, ready};

use super::super::Session;
use super::super::errors::Fault;
use crate::wire::frame;
use crate::wire::frontend;

/// Bytes gathered for the server before they are written.
const ENOUGH: usize = 64 * 1024;

impl Session {
    /// The server waits for CopyData. Returns when the client has said CopyDone or CopyFail.
    pub(in crate::session) async fn copy_in(&mut self) -> Result<(), Fault> {
        let now = self.batch.now;
        if !matches!(now, 0 | b'Q' | b'S' | b'H' | b'd' | b'c' | b'f') {
            return Err(unexpected(now));
        }
        // The message that led here still lies at the front; what follows it is the data.
        let header = frame::header(self.client.pending()).ok().flatten();
        let front = if now == 0 {
            0
        } else {
            header.map_or(0, |h| h.len)
        };
        let message = self.client.pending()[..front].to_vec();
        self.client.consume(front);
        let data = matches!(now, b'd' | b'c' | b'f');
        if data {
            self.links[self.active].outbox.extend_from_slice(&message);
        }
        let ended = match now {
            b'c' | b'f' => Ok(()),
            _ => self.pass_copy_data(self.replies.has_sync()).await,
        };
        if now != b'Q' && !self.replies.has_sync() {
            // Postgres ignores Flush while it copies.
            frontend::flush(&mut self.links[self.active].outbox);
        }
        // `message` is consumed by the caller when it is dealt with.
        self.client
            .inbox
            .splice(self.client.read..self.client.read, message);
        ended
    }

    /// Up to CopyDone or CopyFail; `synced`: and the Sync behind it, as Postgres ignores one that comes before.
    async fn pass_copy_data(&mut self, synced: bool) -> Result<(), Fault> {
        let mut done = false;
        loop {
            while let Some(header) = frame::frontend_header(self.client.pending())
                .map_err(|e| Fault::violation(e.to_string()))?
            {
                let here = header.len.min(self.client.pending().len());
                match header.tag {
                    b'd' if !done => self.pass_data(header.len).await?,
                    b'd' => self.swallow_data(header.len).await?,
                    _ if here < header.len => break,
                    b'c' | b'f' if !done => {
                        let link = &mut self.links[self.active];
                        link.outbox.extend_from_slice(
                            &self.client.inbox[self.client.read..self.client.read + here],
                        );
                        self.client.consume(here);
                        done = true;
                        if !synced {
                            return Ok(());
                        }
                    }
                    b'S' if done => {
                        self.client.consume(here);
                        frontend::sync(&mut self.links[self.active].outbox);
                        return Ok(());
                    }
                    b'S' | b'H' => self.client.consume(here),
                    b'X' => return Err(Fault::client(std::io::ErrorKind::UnexpectedEof.into())),
                    tag => return Err(unexpected(tag)),
                }
            }
            self.more().await?;
        }
    }

    /// Passes one CopyData message on, however long it is.
    async fn pass_data(&mut self, len: usize) -> Result<(), Fault> {
        let mut rest = len;
        loop {
            let n = rest.min(self.client.pending().len());
            let (start, end) = (self.client.read, self.client.read + n);
            self.links[self.active]
                .outbox
                .extend_from_slice(&self.client.inbox[start..end]);
            self.client.consume(n);
            rest -= n;
            if self.links[self.active].outbox.len() >= ENOUGH {
                self.flush_to_server().await?;
            }
            if rest == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    async fn swallow_data(&mut self, len: usize) -> Result<(), Fault> {
        let mut rest = len;
        while rest > 0 {
            let n = rest.min(self.client.pending().len());
            self.client.consume(n);
            rest -= n;
            if rest > 0 {
                self.more().await?;
            }
        }
        Ok(())
    }

    async fn flush_to_server(&mut self) -> Result<(), Fault> {
        let link = &mut self.links[self.active];
        poll_fn(|cx| link.poll_flush(cx))
            .await
            .map_err(|e| Fault::lost(&link.pool.host, Some(e)))
    }

    /// Reads more from the client; meanwhile what is gathered goes to the server.
    async fn more(&mut self) -> Result<(), Fault> {
        let (client, link) = (&mut self.client, &mut self.links[self.active]);
        poll_fn(|cx| {
            ready!(client.poll_flush(cx)).map_err(Fault::client)?;
            if let Poll::Ready(Err(e)) = link.poll_flush(cx) {
                return Poll::Ready(Err(Fault::lost(&link.pool.host, Some(e))));
            }
            match ready!(client.poll_fill(cx)) {
                Ok(0) => Poll::Ready(Err(Fault::client(std::io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => Poll::Ready(Ok(())),
                Err(e) => Poll::Ready(Err(Fault::client(e))),
            }
        })
        .await
    }
}

pub(super) fn unexpected(tag: u8) -> Fault {
    Fault::violation(format!(
        "unexpected message type 0x{tag:02X} during COPY from stdin"
    ))
}
