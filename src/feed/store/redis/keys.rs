//! What keys and ids look like in Redis. Both may be changed at any time with a new letter: what Redis holds is made anew.

use std::io::Write as _;

use crate::feed::{MediaId, UserId};

/// Users and objects are hashed to so many logical partitions, and partitions mapped to nodes, as shards are to hosts.
pub(crate) const PARTITIONS: usize = 256;

/// Where the number of a node's epoch is (in a cluster, of a partition's): another one after all was lost.
pub(super) fn epoch(partition: Option<u8>) -> Vec<u8> {
    match partition {
        None => b"feed:epoch".to_vec(),
        Some(partition) => format!("feed:epoch{{{partition}}}").into_bytes(),
    }
}

/// Where processes say which map they have.
pub(super) fn maps() -> Vec<u8> {
    b"feed:maps".to_vec()
}

/// Where a process beats (see `replicas.rs`).
pub(super) fn beat(process: u64) -> Vec<u8> {
    format!("feed:beat:{process:016x}").into_bytes()
}

/// The same for all times and processes: two that disagree would write to two nodes.
pub(super) fn partition(id: i64) -> u8 {
    // The finish of splitmix64: ids that differ in few bits, of users or of time, are spread.
    let mut mixed = id as u64;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) as u8
}

/// `f{17}:42`: Redis Cluster looks only at what is in braces, so that a partition is always in one place.
pub(super) fn feed(user: UserId) -> Vec<u8> {
    key('f', user)
}

/// What SCAN finds all feeds by.
pub(super) const FEEDS: &str = "f{*}:*";

/// Whose feed it is. `None`: the key is none of ours.
pub(super) fn user_of(key: &[u8]) -> Option<UserId> {
    let user = std::str::from_utf8(key).ok()?.rsplit_once(':')?.1;
    let user = user.parse().ok()?;
    (feed(user) == key).then_some(user)
}

/// `o{17}:42`
pub(super) fn object(id: MediaId) -> Vec<u8> {
    key('o', id)
}

/// Where the rows are that workers are to hear of: on the node of this id.
pub(super) const WOKEN: i64 = 0;

/// `w{0}:0`
pub(super) fn woken() -> Vec<u8> {
    key('w', WOKEN)
}

fn key(kind: char, id: i64) -> Vec<u8> {
    let mut key = Vec::with_capacity(27);
    // Writing to a Vec can't fail.
    let _ = write!(key, "{kind}{{{}}}:{id}", partition(id));
    key
}

/// 8 bytes that sort as the ids do, negative ones too.
pub(super) fn encode(id: MediaId) -> [u8; 8] {
    (id as u64 ^ 1 << 63).to_be_bytes()
}

/// All ids of a string of them. `None`: it is none.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<MediaId>> {
    let (ids, rest) = bytes.as_chunks::<8>();
    let ids = ids
        .iter()
        .map(|id| (u64::from_be_bytes(*id) ^ 1 << 63) as i64);
    rest.is_empty().then(|| ids.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_stays_in_its_partition() {
        let users = [0, 1, 2, 41, 42, 1 << 40, i64::MAX, -1];
        let found: Vec<u8> = users.into_iter().map(partition).collect();
        assert_eq!(found, [0, 229, 138, 37, 34, 248, 189, 123]);
        assert_eq!(feed(-5), format!("f{{{}}}:-5", partition(-5)).into_bytes());
        assert_eq!(user_of(&feed(-5)), Some(-5));
        for other in ["o{34}:42", "f{1}:42", "f{34}:x", "feed:epoch", "f{34}:042"] {
            assert_eq!(user_of(other.as_bytes()), None, "{other}");
        }
        let mut counts = [0; PARTITIONS];
        for user in 0..256_000 {
            counts[partition(user) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (800..1200).contains(n)), "{counts:?}");
    }

    #[test]
    fn ids_sort_as_their_bytes() {
        let ids = [i64::MIN, -1, 0, 1, 255, 256, 1 << 40, i64::MAX];
        assert!(ids.map(encode).is_sorted());
        assert_eq!(decode(ids.map(encode).as_flattened()), Some(ids.to_vec()));
        assert_eq!(decode(b"1234567"), None);
    }
}
