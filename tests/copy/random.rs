//! COPY FROM STDIN of random data.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{TURN, converse, cut, empty, rows_of, rows_of_plain, twins};
use crate::support::raw::{difference, done, q};
use crate::support::{Hosts, Proxy};

/// Random bytes, most of which mean something to COPY.
fn random_data(random: &mut StdRng, csv: bool) -> Vec<u8> {
    let mut data = Vec::new();
    let end: &[u8] = [&b"\n"[..], b"\r\n", b"\r"][random.random_range(0..3)];
    let separator = if csv { b',' } else { b'\t' };
    for _ in 0..random.random_range(0..6) {
        let odd: [&[u8]; 20] = [
            b"a",
            b"x\\ty",
            b"\\N",
            b"",
            b"\"q\"",
            b"\"a,\"\"b\"",
            b"\"\n\"",
            b"\\\n",
            b"\\.",
            b"'",
            b"\"",
            b"\\x41",
            b"\r",
            b"\n",
            b"\xc3\xa4",
            b"\xff",
            b"\\\\",
            b"\\101",
            b" ",
            b"\0",
        ];
        let mut word = || match random.random_range(0..12) {
            // Hostile values are rare, so that many rows are good.
            0..4 => odd[random.random_range(0..odd.len())].to_vec(),
            _ => vec![b'b' + random.random_range(0..20)],
        };
        let (before, after) = (word(), word());
        let user: &[u8] = [
            &b"1"[..],
            b"2",
            b"-5",
            b" 7",
            b"\\065",
            b"\"4\"",
            b"12",
            b"13",
            b"x",
            b"",
        ][random.random_range(0..if csv { 8 } else { 9 })];
        let n: &[u8] = [&b"1"[..], b"2", b"77", b"99999999999"][random.random_range(0..3)];
        let fields = [&before[..], user, n, &after];
        data.extend(fields.join(&separator));
        data.extend_from_slice(if random.random_range(0..30) == 0 {
            b"\n"
        } else {
            end
        });
    }
    data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_data_is_taken_as_by_postgres() {
    let _turn = TURN.lock().await;
    for hosts in [&twins().await.one, &twins().await.two] {
        random_data_for_is_taken_as_by_postgres(hosts).await;
    }
}

async fn random_data_for_is_taken_as_by_postgres(hosts: &Hosts) {
    let proxy = Proxy::start(hosts);
    let mut random = StdRng::seed_from_u64(42);
    let (mut faults, mut refused) = (Vec::new(), 0);
    let twins = twins().await;
    for _ in 0..250 {
        let csv = random.random_range(0..2) == 0;
        let data = random_data(&mut random, csv);
        let sql = if csv {
            "COPY notes FROM STDIN CSV"
        } else {
            "COPY notes FROM STDIN"
        };
        let bytes = [q(sql), cut(&data, random.random_range(1..5)), done()].concat();
        let (expected, got) = (
            converse(twins.plain(), &bytes, 1),
            converse(proxy.addr(), &bytes, 1),
        );
        // Of several errors in the data, another one may be met first.
        let same = expected == got || {
            let errors = |lines: &[String]| lines.iter().any(|l| l.starts_with('E'));
            errors(&expected) && errors(&got)
        };
        refused += usize::from(expected != got);
        if !same {
            let data = String::from_utf8_lossy(&data).into_owned();
            faults.extend(difference(&format!("{sql} {data:?}"), &expected, &got));
        }
    }
    let (expected, got) = (
        rows_of_plain(&twins.plain, "notes").await,
        rows_of(hosts, "notes").await,
    );
    empty(twins, "notes").await;
    assert!(
        faults.is_empty(),
        "{} differ\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert_eq!(expected, got);
    assert!(
        expected.len() > 100 && refused < 25,
        "{} rows, {refused} other errors",
        expected.len()
    );
}
