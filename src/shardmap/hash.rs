//! Postgres' hash partitioning, bit for bit: the shard of a key under `function = "hash"` is the number of the partition
//! in which Postgres itself would put it. This decides where data lies, so it can never change.
//!
//! Sources: `src/common/hashfn.c` (`hash_bytes_extended`, `hash_bytes_uint32_extended`), `hashint8extended` in
//! `src/backend/access/hash/hashfunc.c`, `compute_partition_hash_value` in `src/backend/partitioning/partbounds.c`,
//! and `HASH_PARTITION_SEED` in `src/include/catalog/partition.h`. As on a little-endian server.

use super::ShardId;

/// `HASH_PARTITION_SEED`.
const SEED: u64 = 0x7A5B_2236_7996_DCFD;

/// `hashint8extended`. int2 and int4 hash to the same value as the int8 that is equal to them.
pub(super) fn of_int8(key: i64) -> u64 {
    let low = key as u32;
    let high = (key >> 32) as u32;
    uint32_extended(low ^ if key >= 0 { high } else { !high })
}

/// `hashtextextended` under a deterministic collation, and `uuid_hash_extended`: both are `hash_bytes_extended`.
pub(super) fn of_bytes(key: &[u8]) -> u64 {
    let mut state = State::new(key.len() as u32);
    let (blocks, tail) = key.as_chunks::<12>();
    for block in blocks {
        state.add(block);
        state.mix();
    }
    // The tail's bytes stand where a block's would, except that the third word starts at its second byte: its first
    // is kept for the length.
    let mut last = [0; 12];
    let (first, third) = tail.split_at(tail.len().min(8));
    last[..first.len()].copy_from_slice(first);
    last[9..9 + third.len()].copy_from_slice(third);
    state.add(&last);
    state.finish()
}

/// `compute_partition_hash_value` for a key of one column (`hash_combine64` with 0), then the remainder.
pub(super) fn partition(hash: u64, shards: u32) -> ShardId {
    let row = hash.wrapping_add(0x49a0_f4dd_15e5_a8e3);
    // The remainder is less than `shards`, so it fits.
    ShardId((row % u64::from(shards)) as u32)
}

fn uint32_extended(key: u32) -> u64 {
    let mut state = State::new(4);
    state.0 = state.0.wrapping_add(key);
    state.finish()
}

/// The three words of Bob Jenkins' lookup3.
struct State(u32, u32, u32);

impl State {
    fn new(len: u32) -> State {
        let start = 0x9e37_79b9_u32.wrapping_add(len).wrapping_add(3_923_095);
        let mut state = State(
            start.wrapping_add((SEED >> 32) as u32),
            start.wrapping_add(SEED as u32),
            start,
        );
        state.mix();
        state
    }

    fn add(&mut self, block: &[u8; 12]) {
        let word =
            |i: usize| u32::from_le_bytes([block[i], block[i + 1], block[i + 2], block[i + 3]]);
        self.0 = self.0.wrapping_add(word(0));
        self.1 = self.1.wrapping_add(word(4));
        self.2 = self.2.wrapping_add(word(8));
    }

    fn mix(&mut self) {
        let State(mut a, mut b, mut c) = *self;
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
        *self = State(a, b, c);
    }

    fn finish(self) -> u64 {
        let State(mut a, mut b, mut c) = self;
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        c = (c ^ b).wrapping_sub(b.rotate_left(24));
        u64::from(b) << 32 | u64::from(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // From PostgreSQL 15.18, UTF8, C.UTF-8:
    //   CREATE TABLE i (k int8) PARTITION BY HASH (k);  -- t (k text), u (k uuid)
    //   SELECT r FROM generate_series(0, $modulus - 1) r WHERE satisfies_hash_partition('i'::regclass, $modulus, r, $key);
    // for the moduli 8, 4096 and 1000.
    const INT8: [(i64, u32, u32, u32); 13] = [
        (0, 0, 2480, 768),
        (1, 0, 4024, 40),
        (42, 2, 2658, 514),
        (-1, 5, 4005, 869),
        (-42, 2, 322, 650),
        (1023, 7, 3551, 759),
        (123456789, 5, 973, 317),
        (4294967295, 5, 4005, 869),
        (4294967296, 0, 4024, 40),
        (-4294967296, 0, 2480, 768),
        (2913000000001234567, 5, 301, 749),
        (9223372036854775807, 6, 2678, 606),
        (-9223372036854775808, 7, 383, 119),
    ];
    const TEXT: [(&str, u32, u32, u32); 16] = [
        ("", 6, 2214, 806),
        ("a", 6, 3934, 342),
        ("bob", 2, 1002, 458),
        ("user", 5, 2477, 133),
        ("alice", 5, 981, 733),
        ("userid1", 3, 3739, 259),
        ("8 bytes!", 1, 2937, 793),
        ("nine byte", 0, 3968, 512),
        ("ten bytes!", 0, 4056, 352),
        ("eleven byte", 0, 704, 600),
        ("twelve bytes", 6, 1302, 646),
        ("thirteen byte", 6, 3190, 14),
        ("twenty-four bytes of it.", 4, 3532, 708),
        ("a rather longer key than the others", 2, 1986, 98),
        ("Zoë", 6, 182, 654),
        ("日本語", 6, 3262, 6),
    ];
    const UUID: [(u128, u32, u32, u32); 4] = [
        (0, 5, 2981, 925),
        (0xa0eebc99_9c0b_4ef8_bb6d_6bb9bd380a11, 0, 1488, 56),
        (0xffffffff_ffff_ffff_ffff_ffffffffffff, 1, 3457, 353),
        (0x0190163d_8694_739b_aea5_966c26f8ad91, 1, 2281, 313),
    ];

    fn of(hash: u64) -> (u32, u32, u32) {
        (
            partition(hash, 8).0,
            partition(hash, 4096).0,
            partition(hash, 1000).0,
        )
    }

    #[test]
    fn integers_go_where_postgres_puts_them() {
        for (key, a, b, c) in INT8 {
            assert_eq!(of(of_int8(key)), (a, b, c), "{key}");
        }
    }

    #[test]
    fn texts_go_where_postgres_puts_them() {
        for (key, a, b, c) in TEXT {
            assert_eq!(of(of_bytes(key.as_bytes())), (a, b, c), "{key:?}");
        }
    }

    #[test]
    fn uuids_go_where_postgres_puts_them() {
        for (key, a, b, c) in UUID {
            assert_eq!(of(of_bytes(&key.to_be_bytes())), (a, b, c), "{key:x}");
        }
    }
}
