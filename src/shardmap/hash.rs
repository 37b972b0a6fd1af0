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
