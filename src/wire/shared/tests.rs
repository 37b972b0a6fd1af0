//! A shared connection against a server that is a socket in the test's hand.

use std::future::poll_fn;

use super::carrier::{PATIENCE, READ_MOST};
use super::*;
use crate::wire::stream::Stream;
use tokio::net::UnixStream;

/// A query that a client could send, and what a server answers: a row for it, as long as need be.
fn query(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    crate::wire::frontend::query(&mut out, text.as_bytes());
    out
}

fn answer(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, b'D', |out| out.resize(out.len() + len, b'x'));
    out.extend_from_slice(b"Z\0\0\0\x05I");
    out
}

struct Line {
    shared: Arc<Shared>,
    server: Stream,
    carrier: tokio::task::JoinHandle<()>,
}

fn line() -> Line {
    let (ours, server) = UnixStream::pair().unwrap();
    let shared = Shared::new();
    let carries = shared.clone();
    let carrier = tokio::spawn(async move { carries.carry(Stream::unix(ours)).await });
    let server = Stream::unix(server);
    Line {
        shared,
        server,
        carrier,
    }
}

impl Line {
    fn seats<const N: usize>(&self) -> [Stream; N] {
        std::array::from_fn(|_| Stream::Seat(self.shared.seat()))
    }

    /// Waits until the server has got this.
    async fn gets(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        self.server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, expected);
    }
}

async fn reads(stream: &mut Stream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert!(got == expected);
    assert!(has_no_more(stream), "nothing else is for it");
}

fn has_no_more(stream: &Stream) -> bool {
    !matches!(stream.try_read(&mut [0]), Ok(1))
}

async fn is_displaced(stream: &mut Stream) -> bool {
    let fault = poll_fn(|cx| stream.poll_read(cx, &mut Vec::new())).await;
    fault.is_err_and(|fault| fault.get_ref().is_some_and(|cause| cause.is::<Displaced>()))
}

fn seat(stream: &Stream) -> &Seat {
    match stream {
        Stream::Seat(seat) => seat,
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn each_gets_its_own_answer_however_it_is_cut() {
    let mut line = line();
    let [mut a, mut b, mut c] = line.seats();
    for cut in 1..40 {
        for (stream, text) in [(&mut b, "b"), (&mut a, "a"), (&mut c, "c")] {
            stream.write_all(&query(text)).await.unwrap();
        }
        line.gets(&[query("b"), query("a"), query("c")].concat())
            .await;
        let all = [answer(1), answer(2), answer(30)].concat();
        for part in all.chunks(cut) {
            line.server.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        reads(&mut a, &answer(2)).await;
        reads(&mut b, &answer(1)).await;
        reads(&mut c, &answer(30)).await;
    }
    assert_eq!(line.shared.counts(), (39 * 3, 0));
}

#[tokio::test]
async fn what_waits_behind_a_slow_one_is_displaced_and_its_answer_thrown_away() {
    let mut line = line();
    let [mut a, mut b] = line.seats();
    a.write_all(&query("slow")).await.unwrap();
    b.write_all(&query("b")).await.unwrap();
    line.gets(&[query("slow"), query("b")].concat()).await;
    assert!(is_displaced(&mut b).await);
    assert_eq!(line.shared.load(), None, "no others while it is slow");
    assert_ne!(seat(&b).begin_anew(), Took::TooLong);
    line.server
        .write_all(&[answer(1), answer(2)].concat())
        .await
        .unwrap();
    reads(&mut a, &answer(1)).await;
    assert_eq!(seat(&a).begin_anew(), Took::TooLong, "it was the slow one");
    assert_eq!(seat(&a).begin_anew(), Took::Short);
    b.write_all(&query("b again")).await.unwrap();
    line.gets(&query("b again")).await;
    line.server.write_all(&answer(3)).await.unwrap();
    reads(&mut b, &answer(3)).await;
    assert_eq!(
        (line.shared.load(), line.shared.counts()),
        (Some(0), (3, 1))
    );
}

#[tokio::test]
async fn nobody_waits_long_behind_what_is_thrown_away() {
    let mut line = line();
    let [mut a, mut b] = line.seats();
    a.write_all(&query("slow")).await.unwrap();
    b.write_all(&query("slow, too")).await.unwrap();
    line.gets(&[query("slow"), query("slow, too")].concat())
        .await;
    assert!(is_displaced(&mut b).await);
    seat(&b).begin_anew();
    line.server.write_all(&answer(1)).await.unwrap();
    reads(&mut a, &answer(1)).await;
    // The seat is another session's now; the server is still at what it was asked before.
    b.write_all(&query("b")).await.unwrap();
    line.gets(&query("b")).await;
    assert!(is_displaced(&mut b).await);
    assert_eq!(seat(&b).begin_anew(), Took::Short, "it was not slow");
}

#[tokio::test]
async fn a_cancel_finds_what_was_displaced_a_moment_ago() {
    let mut line = line();
    let [mut a, mut b] = line.seats();
    a.write_all(&query("slow")).await.unwrap();
    b.write_all(&query("b")).await.unwrap();
    line.gets(&[query("slow"), query("b")].concat()).await;
    while !seat(&b).is_displaced() {
        tokio::task::yield_now().await;
    }
    assert_eq!(line.shared.alone(1), Alone::Answered);
    let mut got = Vec::new();
    poll_fn(|cx| b.poll_read(cx, &mut got)).await.unwrap();
    assert!(got.windows(6).any(|w| w == b"C57014"));
    assert!(!seat(&b).is_displaced());
}

#[tokio::test]
async fn what_no_server_has_got_is_sent_elsewhere() {
    let line = line();
    let [mut a] = line.seats();
    drop(line.server);
    line.carrier.await.unwrap();
    let fault = a.write_all(&query("a")).await.unwrap_err();
    assert!(fault.get_ref().unwrap().is::<Displaced>());
    assert!(seat(&a).is_displaced());
}

#[tokio::test]
async fn a_connection_whose_settings_change_by_themselves_ends() {
    let mut line = line();
    let [mut a, mut b] = line.seats();
    a.write_all(&query("a")).await.unwrap();
    b.write_all(&query("b")).await.unwrap();
    line.gets(&[query("a"), query("b")].concat()).await;
    let status = b"S\0\0\0\x11TimeZone\0UTC\0";
    line.server
        .write_all(&[&answer(1)[..], status].concat())
        .await
        .unwrap();
    reads(&mut a, &answer(1)).await;
    while line.shared.load().is_some() {
        tokio::task::yield_now().await;
    }
    line.server.write_all(&answer(2)).await.unwrap();
    reads(&mut b, &[status, &answer(2)[..]].concat()).await;
    line.carrier.await.unwrap();
}

#[tokio::test]
async fn whoever_waits_hears_that_the_carrier_is_gone() {
    let mut line = line();
    let [mut a, mut b] = line.seats();
    a.write_all(&query("a")).await.unwrap();
    line.gets(&query("a")).await;
    line.server.write_all(&answer(1)[..9]).await.unwrap();
    let mut got = Vec::new();
    poll_fn(|cx| a.poll_read(cx, &mut got)).await.unwrap();
    b.write_all(&query("b")).await.unwrap();
    line.carrier.abort();
    assert!(line.carrier.await.unwrap_err().is_cancelled());
    assert!(is_displaced(&mut b).await);
    assert!(matches!(
        poll_fn(|cx| a.poll_read(cx, &mut got)).await,
        Ok(0)
    ));
}

#[tokio::test]
async fn a_slow_one_by_itself_is_let_be() {
    let mut line = line();
    let [mut a] = line.seats();
    a.write_all(&query("slow")).await.unwrap();
    line.gets(&query("slow")).await;
    tokio::time::sleep(3 * PATIENCE).await;
    assert_eq!(line.shared.load(), Some(1));
    line.server.write_all(&answer(1)).await.unwrap();
    reads(&mut a, &answer(1)).await;
    assert_eq!(seat(&a).begin_anew(), Took::Long);
}

#[tokio::test]
async fn when_the_server_goes_only_what_has_begun_is_lost() {
    let mut line = line();
    let [mut a, mut b] = line.seats();
    a.write_all(&query("a")).await.unwrap();
    b.write_all(&query("b")).await.unwrap();
    line.gets(&[query("a"), query("b")].concat()).await;
    line.server.write_all(&answer(9)[..10]).await.unwrap();
    drop(line.server);
    line.carrier.await.unwrap();
    let mut got = Vec::new();
    assert!(matches!(
        poll_fn(|cx| a.poll_read(cx, &mut got)).await,
        Ok(10)
    ));
    assert!(matches!(
        poll_fn(|cx| a.poll_read(cx, &mut got)).await,
        Ok(0)
    ));
    assert!(is_displaced(&mut b).await);
    assert!(line.shared.is_ending() && line.shared.load().is_none());
}

#[tokio::test]
async fn a_cancel_hits_nobody_else() {
    let mut line = line();
    let [mut a, mut b, mut c] = line.seats();
    assert_eq!(line.shared.alone(0), Alone::Idle);
    for (stream, text) in [(&mut a, "a"), (&mut b, "b"), (&mut c, "c")] {
        stream.write_all(&query(text)).await.unwrap();
    }
    line.gets(&[query("a"), query("b"), query("c")].concat())
        .await;
    assert_eq!(line.shared.alone(1), Alone::Answered);
    let mut got = Vec::new();
    poll_fn(|cx| b.poll_read(cx, &mut got)).await.unwrap();
    assert!(got[0] == b'E' && got.ends_with(b"Z\0\0\0\x05I"));
    assert!(got.windows(6).any(|w| w == b"C57014"));
    assert_eq!(line.shared.alone(1), Alone::Idle, "it has been told");
    assert_eq!(line.shared.alone(0), Alone::Next);
    assert!(is_displaced(&mut c).await);
    let all = [answer(1), answer(2), answer(3)].concat();
    line.server.write_all(&all).await.unwrap();
    reads(&mut a, &answer(1)).await;
    line.carrier.await.unwrap();
    assert!(
        has_no_more(&b),
        "what the server says of it now is nobody's"
    );
}

#[tokio::test]
async fn others_wait_for_a_sync_and_not_for_ever() {
    let mut line = line();
    let [mut a, mut b] = line.seats();
    a.write_all(b"H\0\0\0\x04").await.unwrap();
    b.write_all(&query("b")).await.unwrap();
    a.write_all(b"S\0\0\0\x04").await.unwrap();
    line.gets(&[b"H\0\0\0\x04S\0\0\0\x04", &query("b")[..]].concat())
        .await;
    line.server
        .write_all(&[answer(1), answer(2)].concat())
        .await
        .unwrap();
    reads(&mut a, &answer(1)).await;
    reads(&mut b, &answer(2)).await;

    a.write_all(b"H\0\0\0\x04").await.unwrap();
    b.write_all(&query("b")).await.unwrap();
    line.gets(b"H\0\0\0\x04").await;
    line.server.write_all(b"1\0\0\0\x04").await.unwrap();
    reads(&mut a, b"1\0\0\0\x04").await;
    assert!(is_displaced(&mut b).await);
    seat(&b).begin_anew();
    drop(a);
    line.carrier.await.unwrap();
    assert!(!is_displaced(&mut b).await);
}

#[tokio::test]
async fn a_place_given_up_takes_nobody_with_it() {
    let mut line = line();
    let [mut a, mut b] = line.seats();
    a.write_all(&query("a")).await.unwrap();
    b.write_all(&query("b")).await.unwrap();
    drop(a);
    line.gets(&[query("a"), query("b")].concat()).await;
    line.server
        .write_all(&[answer(1), answer(2)].concat())
        .await
        .unwrap();
    reads(&mut b, &answer(2)).await;
    line.carrier.await.unwrap();
}

#[tokio::test]
async fn no_more_is_held_than_is_taken() {
    let mut line = line();
    let [mut a] = line.seats();
    a.write_all(&query("much")).await.unwrap();
    line.gets(&query("much")).await;
    let all = answer(20 * HELD_MOST);
    let mut sent = 0;
    loop {
        match line.server.try_write(&all[sent..]) {
            Ok(n) => sent += n,
            Err(_) => {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                if line.shared.lock().full {
                    break;
                }
            }
        }
    }
    assert!(line.shared.lock().seats[0].inbox.len() <= HELD_MOST + READ_MOST);
    let (rest, mut got) = (all[sent..].to_vec(), vec![0; all.len()]);
    let (written, read) = tokio::join!(line.server.write_all(&rest), a.read_exact(&mut got));
    written.unwrap();
    read.unwrap();
    assert!(got == all);
}

#[tokio::test]
async fn a_large_answer_that_is_not_taken_is_in_nobodys_way() {
    let mut line = line();
    let [mut a, mut b] = line.seats();
    a.write_all(&query("much")).await.unwrap();
    b.write_all(&query("b")).await.unwrap();
    line.gets(&[query("much"), query("b")].concat()).await;
    let much = answer(HELD_MOST + 1000);
    line.server.write_all(&much).await.unwrap();
    while line.shared.lock().seats[0].inbox.len() < much.len() {
        tokio::task::yield_now().await;
    }
    line.server.write_all(&answer(1)).await.unwrap();
    reads(&mut b, &answer(1)).await;
    reads(&mut a, &much).await;
}
