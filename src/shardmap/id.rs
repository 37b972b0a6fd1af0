//! The layout of ids: 64 bits that sort by time and carry their logical shard, so that `WHERE id = $1` alone routes.
//!
//! From the highest bit: 41 bits of milliseconds since 2015-01-01 UTC, 13 bits of shard, 10 bits of sequence.
//! `next_id()` in each shard's schema makes them. The highest bit of the time is also int8's sign and stays 0, so ids
//! last until November 2049.

use super::ShardId;

/// 2015-01-01 00:00:00 UTC in milliseconds since 1970: the zero of the time in an id.
pub const EPOCH_MS: u64 = 1_420_070_400_000;
/// Bits of the shard.
pub const SHARD_BITS: u32 = 13;
/// Bits of the sequence.
pub const SEQUENCE_BITS: u32 = 10;

const SHARD_MASK: i64 = (1 << SHARD_BITS) - 1;
const SEQUENCE_MASK: i64 = (1 << SEQUENCE_BITS) - 1;
/// int8 is signed and a negative id would sort before all others, so 40 of the 41 bits can be used.
const MAX_TIME: u64 = (1 << 40) - 1;

/// What an id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// When it was made: milliseconds since 1970-01-01 UTC, never before [`EPOCH_MS`].
    pub unix_ms: u64,
    /// The shard that made it. Not checked against any map.
    pub shard: ShardId,
    /// 0..1024, counts within the shard.
    pub sequence: u16,
}

/// Makes an id. `None` if a part does not fit: a time before 2015 or after 2049, a shard or a sequence with too many bits.
pub fn make(parts: Parts) -> Option<i64> {
    let time = parts
        .unix_ms
        .checked_sub(EPOCH_MS)
        .filter(|t| *t <= MAX_TIME)?;
    let shard = i64::from(parts.shard.0);
    let sequence = i64::from(parts.sequence);
    if shard > SHARD_MASK || sequence > SEQUENCE_MASK {
        return None;
    }
    // `time` has 40 bits at most, so the shift leaves the sign bit 0.
    Some((time as i64) << (SHARD_BITS + SEQUENCE_BITS) | shard << SEQUENCE_BITS | sequence)
}

/// Takes an id apart. `None` for a negative number, which is no id. Any other number is taken for one: ids carry no
/// check, so `7` reads as sequence 7 of shard 0 in the first millisecond of 2015.
pub fn split(id: i64) -> Option<Parts> {
    let time = u64::try_from(id).ok()? >> (SHARD_BITS + SEQUENCE_BITS);
    Some(Parts {
        unix_ms: EPOCH_MS + time,
        shard: ShardId((id >> SEQUENCE_BITS & SHARD_MASK) as u32),
        sequence: (id & SEQUENCE_MASK) as u16,
    })
}

/// The shard bits of an id. `None` for a negative number. Not checked against any map.
pub fn shard(id: i64) -> Option<ShardId> {
    (id >= 0).then_some(ShardId((id >> SEQUENCE_BITS & SHARD_MASK) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_apart_into_what_made_it() {
        // 2026-01-02 03:04:05.678 UTC.
        let parts = Parts {
            unix_ms: 1_767_323_045_678,
            shard: ShardId(4095),
            sequence: 1023,
        };
        let id = make(parts).expect("fits");
        // By hand: (1767323045678 - 1420070400000) << 23 | 4095 << 10 | 1023.
        assert_eq!(id, 347_252_645_678 * 8_388_608 + 4095 * 1024 + 1023);
        assert_eq!(split(id), Some(parts));
        assert_eq!(shard(id), Some(ShardId(4095)));
    }

    #[test]
    fn the_ends_of_each_part_fit_and_one_more_does_not() {
        let last = Parts {
            unix_ms: EPOCH_MS + MAX_TIME,
            shard: ShardId(8191),
            sequence: 1023,
        };
        assert_eq!(make(last), Some(i64::MAX));
        assert_eq!(split(i64::MAX), Some(last));
        let first = Parts {
            unix_ms: EPOCH_MS,
            shard: ShardId(0),
            sequence: 0,
        };
        assert_eq!(make(first), Some(0));
        assert_eq!(
            make(Parts {
                unix_ms: EPOCH_MS - 1,
                ..first
            }),
            None
        );
        assert_eq!(
            make(Parts {
                unix_ms: EPOCH_MS + MAX_TIME + 1,
                ..first
            }),
            None
        );
        assert_eq!(
            make(Parts {
                shard: ShardId(8192),
                ..first
            }),
            None
        );
        assert_eq!(
            make(Parts {
                sequence: 1024,
                ..first
            }),
            None
        );
    }

    #[test]
    fn a_negative_number_is_no_id() {
        assert_eq!((split(-1), shard(-1)), (None, None));
        assert_eq!((split(i64::MIN), shard(i64::MIN)), (None, None));
    }

    #[test]
    fn ids_sort_by_time_first_whatever_the_shard() {
        let early = Parts {
            unix_ms: EPOCH_MS + 5,
            shard: ShardId(8191),
            sequence: 1023,
        };
        let late = Parts {
            unix_ms: EPOCH_MS + 6,
            shard: ShardId(0),
            sequence: 0,
        };
        assert!(make(early) < make(late));
    }
}
