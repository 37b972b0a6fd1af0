//! What only a client would send that cancels, or has lost its way.

use rand::Rng;

use super::super::message::Message;
use super::super::texts::{LONG, Text};
use super::Maker;

impl Maker {
    pub fn cancel(&mut self) {
        match self.rng.random_range(0..4) {
            0 => {
                self.push(Message::Sync);
                self.push(Message::CancelNothing);
                return;
            }
            1 => self.push(Message::Query(self.fill(LONG))),
            2 => self.push(Message::Query(
                self.fill(&format!("SELECT 1; {LONG}; SELECT 2")),
            )),
            _ => {
                // Nobody waits for it.
                self.pauses = false;
                self.unnamed(Text {
                    sql: LONG,
                    params: &[],
                    columns: 1,
                });
                let text = self.text();
                self.unnamed(text);
                self.push(Message::Sync);
            }
        }
        self.push(Message::Cancel);
    }

    /// Any order, names that are there or not, errors anywhere.
    pub fn lost(&mut self) {
        for _ in 0..self.rng.random_range(3..15) {
            let name = self.name();
            let portal = self.portal();
            let text = self.any();
            match self.rng.random_range(0..16) {
                0..4 => self.unnamed(text),
                4 => self.parse(name, text),
                5 | 6 => {
                    let (portal, text) = ("y", self.text());
                    self.parse(name, text);
                    self.bind(portal, name, text);
                    self.execute(portal, 1);
                }
                7 => {
                    self.bind("", name, text);
                    self.execute("", 0);
                }
                8 => {
                    let rows = self.rng.random_range(0..3);
                    let portal = self.portal();
                    self.execute(portal, rows);
                }
                9 => self.push(Message::CloseStatement(name.to_owned())),
                10 => self.push(Message::ClosePortal(portal.to_owned())),
                11 => self.push(Message::CloseStatement(name.to_owned())),
                12 => self.flush(),
                13 => {
                    let sql = self.plain();
                    self.query(&sql);
                }
                14 if self.rng.random_ratio(1, 3) => {
                    // No COPY is going on.
                    self.push(Message::CopyData(b"1\n".to_vec()));
                    self.push(Message::CopyDone);
                }
                _ => self.sync(),
            }
        }
        self.sync();
    }
}
