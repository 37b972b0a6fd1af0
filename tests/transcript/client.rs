//! A client that sends a stream and keeps each message that comes back, byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::message::Message;
use super::owed::Owed;
use crate::support::raw::startup;

/// No answer takes longer, unless something hangs.
pub const HANG: Duration = Duration::from_secs(15);
/// What the function of the long statement says when it begins.
const BEGUN: &[u8] = b"begun";

/// What came: a backend message, or the end in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Message(u8, Vec<u8>),
    End(String),
}

/// What a stream's connection says at startup, and how it sends.
#[derive(Clone, Debug)]
pub struct Manner {
    pub startup: Vec<(&'static str, &'static str)>,
    /// Bytes of one write; `None`: all at once.
    pub cut: Option<usize>,
    /// How long it waits for an answer.
    pub hang: Duration,
}

struct Client {
    stream: TcpStream,
    addr: SocketAddr,
    hang: Duration,
    inbox: Vec<u8>,
    key: Vec<u8>,
    owed: Owed,
    answers: Vec<Answer>,
    /// Of which message each is.
    of: Vec<Option<usize>>,
}

/// Sends all, and reads all that comes, up to the last answer.
pub fn converse(addr: SocketAddr, manner: &Manner, messages: &[Message]) -> Vec<Answer> {
    let (answers, _) = converse_in_turn(addr, manner, messages);
    answers
}

/// The same, with the number of the message that each answer is to.
pub fn converse_in_turn(
    addr: SocketAddr,
    manner: &Manner,
    messages: &[Message],
) -> (Vec<Answer>, Vec<Option<usize>>) {
    let mut client = match Client::connect(addr, manner) {
        Ok(client) => client,
        Err(answers) => return (answers, Vec::new()),
    };
    client.of = vec![None; client.answers.len()];
    let done = client.run(manner, messages);
    if let Err(why) = done {
        client.answers.push(Answer::End(why));
    }
    client.of.resize(client.answers.len(), None);
    (client.answers, client.of)
}

impl Client {
    fn connect(addr: SocketAddr, manner: &Manner) -> Result<Client, Vec<Answer>> {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        let mut client = Client {
            stream,
            addr,
            hang: manner.hang,
            inbox: Vec::new(),
            key: Vec::new(),
            owed: Owed::default(),
            answers: Vec::new(),
            of: Vec::new(),
        };
        let mut params = vec![("user", "app"), ("database", "app")];
        params.extend(&manner.startup);
        let welcomed = client.welcome(&startup(0, &params));
        match welcomed {
            Ok(()) => Ok(client),
            Err(why) => {
                client.answers.push(Answer::End(why));
                Err(client.answers)
            }
        }
    }

    fn welcome(&mut self, hello: &[u8]) -> Result<(), String> {
        self.write(hello)?;
        loop {
            let (tag, body) = self.read(self.hang)?.ok_or("no welcome")?;
            match tag {
                b'K' => self.key = body,
                _ => self.answers.push(Answer::Message(tag, body)),
            }
            match tag {
                b'E' => return Err("not welcome".to_owned()),
                b'Z' => break,
                _ => {}
            }
        }
        // In which order they come is no promise.
        self.answers.sort_by_key(|answer| match answer {
            Answer::Message(b'S', body) => body.clone(),
            _ => Vec::new(),
        });
        Ok(())
    }

    fn run(&mut self, manner: &Manner, messages: &[Message]) -> Result<(), String> {
        let mut bytes = Vec::new();
        for message in messages {
            self.owed.sent(message);
            match message {
                Message::Pause | Message::Cancel | Message::CancelNothing => {
                    self.write_cut(&std::mem::take(&mut bytes), manner.cut)?;
                }
                _ => bytes.extend(message.bytes()),
            }
            match message {
                Message::Pause => self.settle()?,
                Message::Cancel => self.cancel()?,
                Message::CancelNothing => {
                    self.settle()?;
                    self.ask_to_cancel()?;
                }
                _ => {}
            }
        }
        self.write_cut(&bytes, manner.cut)?;
        self.settle()?;
        match self.read(Duration::from_millis(2))? {
            None => Ok(()),
            Some((tag, _)) => Err(format!("{} came unasked", char::from(tag))),
        }
    }

    /// Reads until nothing more is owed.
    fn settle(&mut self) -> Result<(), String> {
        while !self.owed.settled() {
            self.take()?;
        }
        Ok(())
    }

    /// Reads the next message.
    fn take(&mut self) -> Result<(), String> {
        let (tag, body) = self.read(self.hang)?.ok_or("HANG: nothing comes")?;
        self.of.push(self.owed.front());
        self.owed.got(tag);
        self.answers.push(Answer::Message(tag, body));
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), String> {
        let from = self.answers.len();
        let begun = |answer: &Answer| matches!(answer, Answer::Message(b'N', body) if body.windows(BEGUN.len()).any(|w| w == BEGUN));
        while !self.owed.settled() && !self.answers[from..].iter().any(begun) {
            self.take()?;
        }
        if !self.owed.settled() {
            self.ask_to_cancel()?;
        }
        self.settle()
    }

    /// Sends a cancel request and waits until the server has dealt with it.
    fn ask_to_cancel(&self) -> Result<(), String> {
        let mut other = TcpStream::connect(self.addr).map_err(|e| e.to_string())?;
        let len = self.key.len() as u32 + 8;
        let request = [
            &len.to_be_bytes()[..],
            &80_877_102u32.to_be_bytes(),
            &self.key,
        ];
        other
            .write_all(&request.concat())
            .map_err(|e| e.to_string())?;
        other.set_read_timeout(Some(HANG)).unwrap();
        match other.read(&mut [0; 16]) {
            Ok(0) => Ok(()),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(()),
            other => Err(format!("a cancel request was answered: {other:?}")),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream
            .write_all(bytes)
            .map_err(|e| format!("can't send: {e}"))
    }

    fn write_cut(&mut self, bytes: &[u8], cut: Option<usize>) -> Result<(), String> {
        for piece in bytes.chunks(cut.unwrap_or(usize::MAX)) {
            self.write(piece)?;
            if cut.is_some() {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// The next message; `None`: nothing came within the limit.
    fn read(&mut self, limit: Duration) -> Result<Option<(u8, Vec<u8>)>, String> {
        let began = Instant::now();
        loop {
            if self.inbox.len() >= 5 {
                let len = u32::from_be_bytes(self.inbox[1..5].try_into().unwrap()) as usize + 1;
                if self.inbox.len() >= len {
                    let message: Vec<u8> = self.inbox.drain(..len).collect();
                    return Ok(Some((message[0], message[5..].to_vec())));
                }
            }
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut buf = [0; 65536];
            match self.stream.read(&mut buf) {
                Ok(0) => return Err("EOF".to_owned()),
                Ok(n) => self.inbox.extend(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err("EOF".to_owned()),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
                    ) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }
}
