//! A connected socket, TCP or Unix: non-blocking reads and writes for the relay, exact ones for handshakes.
//!
//! Deliberately not `AsyncRead`/`AsyncWrite`: every read of the data path is one `try_*` call on a buffer that the
//! caller owns, so that nothing is held while idle and no byte is buffered where nobody sees it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::poll_proceed;

use super::frame::{self, FrameFault};
use super::shared::Seat;

/// A dead peer behind a silent network is noticed after about 60 + 3 * 10 s.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// A connected socket, or what is used like one.
#[derive(Debug)]
pub enum Stream {
    /// With `TCP_NODELAY` and keepalive set.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A seat on a server connection that several clients' statements share.
    Seat(Seat),
}

/// Why no whole frame could be read.
#[derive(Debug, Error)]
pub enum ReadFault {
    /// The peer closed between two messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed inside a message.
    #[error("the peer closed the connection in the middle of a message")]
    Cut,
    /// The header can't be.
    #[error(transparent)]
    Frame(#[from] FrameFault),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Stream {
    /// Takes a TCP socket: no Nagle delay, keepalive on.
    pub fn tcp(socket: TcpStream) -> io::Result<Stream> {
        socket.set_nodelay(true)?;
        SockRef::from(&socket).set_tcp_keepalive(&KEEPALIVE)?;
        Ok(Stream::Tcp(socket))
    }

    /// Takes a Unix socket.
    pub fn unix(socket: UnixStream) -> Stream {
        Stream::Unix(socket)
    }

    /// One read of what is there. `WouldBlock` without a syscall if nothing was announced since the last read that
    /// found the socket empty or did not fill `buf`; `Ok(0)` when the peer closed. `buf` must not be empty.
    #[inline]
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if let Stream::Seat(seat) = self {
            return seat.try_read(buf);
        }
        let asked = buf.len();
        self.try_some(Interest::READABLE, asked, |socket| {
            let (n, _) = rustix::net::recv(socket, &mut *buf, RecvFlags::empty())?;
            Ok(n)
        })
    }

    /// [`Stream::try_read`] of at most `room` bytes onto the end of `buf`. The room is zeroed first: a scratch buffer
    /// that stays allocated is cheaper where it can be had.
    pub fn try_read_buf(&self, buf: &mut Vec<u8>, room: usize) -> io::Result<usize> {
        let filled = buf.len();
        buf.resize(filled + room, 0);
        let read = self.try_read(&mut buf[filled..]);
        buf.truncate(filled + *read.as_ref().unwrap_or(&0));
        read
    }

    /// One write of as much as the kernel takes. `WouldBlock` without a syscall if it is known to be full.
    #[inline]
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        if let Stream::Seat(seat) = self {
            return seat.write(buf);
        }
        self.try_some(Interest::WRITABLE, buf.len(), |socket| {
            Ok(rustix::net::send(socket, buf, SendFlags::NOSIGNAL)?)
        })
    }

    /// [`Stream::try_write`] from several buffers in one syscall.
    #[inline]
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let asked = bufs.iter().map(|buf| buf.len()).sum();
        self.try_some(Interest::WRITABLE, asked, |socket| {
            SockRef::from(&socket).send_vectored_with_flags(bufs, libc::MSG_NOSIGNAL)
        })
    }

    /// One syscall, if tokio holds the socket for ready. When it moves fewer bytes than `asked` the kernel has no more
    /// (epoll(7), on edge-triggered stream sockets), so the readiness is cleared as after `EAGAIN`, which saves the
    /// syscall that would find it out. tokio's own `try_read` does not do so, its `poll_read` does.
    #[inline]
    fn try_some(
        &self,
        interest: Interest,
        asked: usize,
        mut io: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut moved = None;
        let mut attempt = |socket: BorrowedFd<'_>| {
            let n = loop {
                match io(socket) {
                    Err(fault) if fault.kind() == io::ErrorKind::Interrupted => continue,
                    other => break other?,
                }
            };
            moved = Some(n);
            if 0 < n && n < asked {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(n)
        };
        let result = match self {
            Stream::Tcp(socket) => socket.try_io(interest, || attempt(socket.as_fd())),
            Stream::Unix(socket) => socket.try_io(interest, || attempt(socket.as_fd())),
            Stream::Seat(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        moved.map_or(result, Ok)
    }

    /// Reads what is there onto the end of `buf`, into the room that it has (or 64 bytes more if it has none), which
    /// need not be zeroed first. `Ok(0)` when the peer closed. Pending without a syscall if nothing was announced since
    /// the last read that did not fill the room.
    #[inline]
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        if let Stream::Seat(seat) = self {
            return seat.poll_read(cx, buf);
        }
        if buf.len() == buf.capacity() {
            buf.reserve(64);
        }
        // Whoever has read and written much without a pause lets others have their turn.
        let turn = ready!(poll_proceed(cx));
        loop {
            let room = buf.capacity() - buf.len();
            let read = self.try_some(Interest::READABLE, room, |socket| {
                let (_, n) = rustix::net::recv(socket, spare_capacity(buf), RecvFlags::empty())?;
                Ok(n)
            });
            match read {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_read_ready(cx))?;
                }
                done => {
                    turn.made_progress();
                    return Poll::Ready(done);
                }
            }
        }
    }

    /// Writes as much as the kernel takes.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let turn = ready!(poll_proceed(cx));
        loop {
            match self.try_write(buf) {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_write_ready(cx))?;
                }
                done => {
                    turn.made_progress();
                    return Poll::Ready(done);
                }
            }
        }
    }

    /// Whether something was announced that no read has found yet. No syscall, and nobody is woken later.
    #[inline]
    pub fn may_read(&self) -> bool {
        let nothing = || Ok(());
        match self {
            Stream::Tcp(socket) => socket.try_io(Interest::READABLE, nothing),
            Stream::Unix(socket) => socket.try_io(Interest::READABLE, nothing),
            Stream::Seat(seat) => return seat.may_read(),
        }
        .is_ok()
    }

    /// Ready when a read may find something (data, end or error); registers the task otherwise.
    #[inline]
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(socket) => socket.poll_read_ready(cx),
            Stream::Unix(socket) => socket.poll_read_ready(cx),
            Stream::Seat(seat) => seat.poll_read_ready(cx),
        }
    }

    /// Ready when a write may be taken; registers the task otherwise.
    #[inline]
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(socket) => socket.poll_write_ready(cx),
            Stream::Unix(socket) => socket.poll_write_ready(cx),
            Stream::Seat(_) => Poll::Ready(Ok(())),
        }
    }

    /// Waits for [`Stream::try_read`] to be worth a try. Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.readable().await,
            Stream::Unix(socket) => socket.readable().await,
            Stream::Seat(seat) => poll_fn(|cx| seat.poll_read_ready(cx)).await,
        }
    }

    /// Waits for [`Stream::try_write`] to be worth a try. Cancel safe.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.writable().await,
            Stream::Unix(socket) => socket.writable().await,
            Stream::Seat(_) => Ok(()),
        }
    }

    /// Writes all of `buf`. Not cancel safe: how much was written is lost.
    pub async fn write_all(&mut self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.try_write(buf) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => buf = &buf[n..],
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Fills `buf`, taking no byte more from the socket. Not cancel safe.
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ReadFault> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.try_read(&mut buf[filled..]) {
                Ok(0) if filled == 0 => return Err(ReadFault::Closed),
                Ok(0) => return Err(ReadFault::Cut),
                Ok(n) => filled += n,
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => self.readable().await?,
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(())
    }

    /// Reads one tagged frame whose stated length is at most `limit`, and no byte behind it; its body replaces what is
    /// in `body`. For handshakes, where frames are few and small. Not cancel safe.
    pub async fn read_frame(&mut self, limit: u32, body: &mut Vec<u8>) -> Result<u8, ReadFault> {
        let mut head = [0; frame::HEADER];
        self.read_exact(&mut head).await?;
        let [tag, stated @ ..] = head;
        let stated = u32::from_be_bytes(stated);
        let len = stated.checked_sub(4);
        let len = len.ok_or(FrameFault::Length { tag, stated })?;
        if stated > limit {
            return Err(FrameFault::TooLong { tag, stated, limit }.into());
        }
        self.read_rest(len, body).await?;
        Ok(tag)
    }

    /// Reads the rest of a frame or packet of which something was already read. `len` is bounded by the caller.
    pub(super) async fn read_rest(
        &mut self,
        len: u32,
        body: &mut Vec<u8>,
    ) -> Result<(), ReadFault> {
        body.clear();
        body.resize(len as usize, 0);
        match self.read_exact(body).await {
            Err(ReadFault::Closed) => Err(ReadFault::Cut),
            other => other,
        }
    }

    /// Who is at the other end, for logs: `1.2.3.4:5678`, or `unix`.
    pub fn peer(&self) -> String {
        match self {
            Stream::Tcp(socket) => match socket.peer_addr() {
                Ok(addr) => addr.to_string(),
                Err(_) => "tcp (gone)".to_owned(),
            },
            Stream::Unix(_) => "unix".to_owned(),
            Stream::Seat(_) => "shared".to_owned(),
        }
    }
}

#[cfg(test)]
impl Stream {
    /// Tells the peer that nothing more comes.
    pub(crate) fn shut_down_writing(&self) {
        let done = match self {
            Stream::Tcp(socket) => SockRef::from(socket).shutdown(std::net::Shutdown::Write),
            Stream::Unix(socket) => SockRef::from(socket).shutdown(std::net::Shutdown::Write),
            Stream::Seat(_) => Ok(()),
        };
        done.unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, Stream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Stream::unix(a), Stream::unix(b))
    }

    fn would_block<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|fault| fault.kind() == io::ErrorKind::WouldBlock)
    }

    async fn tcp_pair() -> (Stream, Stream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(addr), listener.accept());
        (
            Stream::tcp(a.unwrap()).unwrap(),
            Stream::tcp(b.unwrap().0).unwrap(),
        )
    }

    #[tokio::test]
    async fn tcp_sockets_are_set_up() {
        let (a, b) = tcp_pair().await;
        let Stream::Tcp(socket) = &a else {
            unreachable!()
        };
        assert!(socket.nodelay().unwrap());
        assert!(SockRef::from(socket).keepalive().unwrap());
        assert!(b.peer().starts_with("127.0.0.1:"), "{}", b.peer());
        assert_eq!(pair().0.peer(), "unix");
    }

    /// A read that does not fill the buffer clears the readiness, and what comes later sets it again.
    #[tokio::test]
    async fn short_reads_lose_nothing() {
        let (unix_a, unix_b) = pair();
        let (tcp_a, tcp_b) = tcp_pair().await;
        for (a, b) in [(unix_a, unix_b), (tcp_a, tcp_b)] {
            let mut buf = [0; 8];
            assert!(would_block(b.try_read(&mut buf)));
            for round in 0..1_000u32 {
                assert_eq!(a.try_write(&round.to_be_bytes()).unwrap(), 4);
                b.readable().await.unwrap();
                assert_eq!(b.try_read(&mut buf).unwrap(), 4);
                assert_eq!(buf[..4], round.to_be_bytes());
                assert!(would_block(b.try_read(&mut buf)));
            }
            // The end is seen behind the last bytes, even when both came before the read.
            a.try_write(b"bye").unwrap();
            drop(a);
            let mut got = Vec::new();
            loop {
                b.readable().await.unwrap();
                match b.try_read_buf(&mut got, 8) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(fault) => assert_eq!(fault.kind(), io::ErrorKind::WouldBlock),
                }
            }
            assert_eq!(got, b"bye");
        }
    }

    #[tokio::test]
    async fn large_writes_arrive_whole_and_a_full_socket_waits() {
        let (mut a, mut b) = tcp_pair().await;
        let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut got = vec![0; sent.len()];
        let (written, read) = tokio::join!(a.write_all(&sent), b.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(got == sent);

        let parts = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")];
        assert_eq!(a.try_write_vectored(&parts).unwrap(), 4);
        b.read_exact(&mut got[..4]).await.unwrap();
        assert_eq!(&got[..4], b"abcd");
        while a.try_write(&sent).is_ok() {}
        assert!(would_block(a.try_write(b"x")));
        drop(b);
        a.writable().await.unwrap();
        assert!(
            !would_block(a.try_write(b"x")),
            "a closed peer is no full one"
        );
    }

    #[tokio::test]
    async fn frames_are_read_exactly() {
        let (mut a, mut b) = pair();
        let mut body = Vec::new();
        a.write_all(b"p\0\0\0\x06hiS\0\0\0\x04rest").await.unwrap();
        assert_eq!(b.read_frame(6, &mut body).await.unwrap(), b'p');
        assert_eq!(body, b"hi");
        assert_eq!(b.read_frame(6, &mut body).await.unwrap(), b'S');
        assert!(body.is_empty());
        let mut rest = [0; 4];
        b.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"rest");
    }

    #[tokio::test]
    async fn frames_that_are_not() {
        for (bytes, expected) in [
            (&b""[..], "the peer closed the connection"),
            (
                b"p\0\0",
                "the peer closed the connection in the middle of a message",
            ),
            (
                b"p\0\0\0\x06h",
                "the peer closed the connection in the middle of a message",
            ),
            (
                b"p\0\0\0\x06",
                "the peer closed the connection in the middle of a message",
            ),
            (b"p\0\0\0\x03", "invalid message length"),
            (b"p\0\0\0\x65", "invalid message length"),
            (b"p\xff\xff\xff\xff", "invalid message length"),
        ] {
            let (mut a, mut b) = pair();
            a.write_all(bytes).await.unwrap();
            drop(a);
            let fault = b.read_frame(100, &mut Vec::new()).await.unwrap_err();
            assert_eq!(fault.to_string(), expected, "{bytes:?}");
        }
    }
}
