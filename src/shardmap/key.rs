//! From a key value to a logical shard: the three functions that `[keyspace] function` can name.

use std::fmt;

use super::ShardId;
use super::hash;
use super::id;

/// How a key value becomes a logical shard. Fixed for the life of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `key % shards`, the remainder always positive (Euclidean). Integer keys only.
    Modulo,
    /// Postgres' own hash partitioning (`PARTITION BY HASH (key)`, as many partitions as shards).
    Hash,
    /// The key is an id that carries its shard (see [`id`]). Integer keys only.
    Embedded,
}

/// A key value, already in the family of its column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyValue<'a> {
    /// int2, int4, int8, or a numeric without fraction that fits.
    Int(i64),
    /// text or varchar (not `char(n)`, whose trailing blanks Postgres ignores).
    Text(&'a str),
    /// uuid, its 16 bytes in the order in which they are printed.
    Uuid([u8; 16]),
}

/// The family of a key value's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// See [`KeyValue::Int`].
    Int,
    /// See [`KeyValue::Text`].
    Text,
    /// See [`KeyValue::Uuid`].
    Uuid,
}

/// Why a key value has no shard (SR007 to the client).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// The function is for integers only.
    NotAnInteger {
        /// What the key is.
        found: KeyType,
        /// `Modulo` or `Embedded`.
        function: Function,
    },
    /// `embedded`: the 13 shard bits name no shard of this map, or the key is negative and so is no id.
    NoSuchShard {
        /// The key.
        key: i64,
        /// How many shards there are.
        shards: u32,
    },
}

impl KeyValue<'_> {
    /// The family of this value's type.
    pub fn key_type(&self) -> KeyType {
        match self {
            KeyValue::Int(_) => KeyType::Int,
            KeyValue::Text(_) => KeyType::Text,
            KeyValue::Uuid(_) => KeyType::Uuid,
        }
    }
}

impl Function {
    /// The shard of `key` among `shards` (at least 1).
    pub(crate) fn shard(self, key: &KeyValue<'_>, shards: u32) -> Result<ShardId, KeyFault> {
        match (self, *key) {
            // The remainder is in 0..shards, so it fits.
            (Function::Modulo, KeyValue::Int(key)) => {
                Ok(ShardId(key.rem_euclid(i64::from(shards)) as u32))
            }
            (Function::Hash, KeyValue::Int(key)) => Ok(hash::partition(hash::of_int8(key), shards)),
            (Function::Hash, KeyValue::Text(key)) => {
                Ok(hash::partition(hash::of_bytes(key.as_bytes()), shards))
            }
            (Function::Hash, KeyValue::Uuid(key)) => {
                Ok(hash::partition(hash::of_bytes(&key), shards))
            }
            (Function::Embedded, KeyValue::Int(key)) => id::shard(key)
                .filter(|s| s.0 < shards)
                .ok_or(KeyFault::NoSuchShard { key, shards }),
            (Function::Modulo | Function::Embedded, KeyValue::Text(_) | KeyValue::Uuid(_)) => {
                Err(KeyFault::NotAnInteger {
                    found: key.key_type(),
                    function: self,
                })
            }
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Function::Modulo => "modulo",
            Function::Hash => "hash",
            Function::Embedded => "embedded",
        })
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyType::Int => "integer",
            KeyType::Text => "text",
            KeyType::Uuid => "uuid",
        })
    }
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyFault::NotAnInteger {
                found,
                function: Function::Embedded,
            } => {
                write!(
                    f,
                    "a {found} key carries no shard; [keyspace] function = \"embedded\" takes integer keys only"
                )
            }
            KeyFault::NotAnInteger { found, function } => {
                write!(
                    f,
                    "a {found} key has no \"{function}\"; a keyspace of {found} keys uses function = \"hash\""
                )
            }
            KeyFault::NoSuchShard { key, .. } if *key < 0 => {
                write!(f, "{key} is negative and so carries no shard")
            }
            KeyFault::NoSuchShard { key, shards } => {
                let bits = id::split(*key).map_or(0, |parts| parts.shard.0);
                write!(
                    f,
                    "{key} carries shard {bits}, but the map has shards 0-{}",
                    shards - 1
                )
            }
        }
    }
}

impl std::error::Error for KeyFault {}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: KeyValue<'_> = KeyValue::Uuid([7; 16]);

    #[test]
    fn modulo_is_the_euclidean_remainder() {
        let shard = |key| Function::Modulo.shard(&KeyValue::Int(key), 4096);
        assert_eq!(shard(42), Ok(ShardId(42)));
        assert_eq!(shard(4096), Ok(ShardId(0)));
        assert_eq!(shard(-1), Ok(ShardId(4095)));
        assert_eq!(shard(-4096), Ok(ShardId(0)));
        // 2^63 is a multiple of 4096.
        assert_eq!(shard(i64::MIN), Ok(ShardId(0)));
        assert_eq!(shard(i64::MAX), Ok(ShardId(4095)));
        assert_eq!(
            Function::Modulo.shard(&KeyValue::Int(i64::MIN), 1),
            Ok(ShardId(0))
        );
    }

    #[test]
    fn modulo_refuses_text_and_uuid_and_says_what_to_use() {
        for (key, name) in [(KeyValue::Text("42"), "text"), (UUID, "uuid")] {
            let fault = Function::Modulo.shard(&key, 8).expect_err("no integer");
            assert_eq!(
                fault.to_string(),
                format!(
                    "a {name} key has no \"modulo\"; a keyspace of {name} keys uses function = \"hash\""
                )
            );
        }
    }

    #[test]
    fn hash_takes_every_type() {
        // As in `hash`'s golden values.
        assert_eq!(
            Function::Hash.shard(&KeyValue::Int(42), 4096),
            Ok(ShardId(2658))
        );
        assert_eq!(
            Function::Hash.shard(&KeyValue::Text("alice"), 4096),
            Ok(ShardId(981))
        );
        assert_eq!(
            Function::Hash.shard(&KeyValue::Uuid([0; 16]), 4096),
            Ok(ShardId(2981))
        );
    }

    #[test]
    fn embedded_takes_the_shard_out_of_the_key() {
        let key = id::make(id::Parts {
            unix_ms: id::EPOCH_MS + 1,
            shard: ShardId(5),
            sequence: 9,
        })
        .expect("fits");
        assert_eq!(
            Function::Embedded.shard(&KeyValue::Int(key), 8),
            Ok(ShardId(5))
        );
        let fault = Function::Embedded
            .shard(&KeyValue::Int(key), 4)
            .expect_err("no shard 5");
        assert_eq!(fault, KeyFault::NoSuchShard { key, shards: 4 });
        assert!(
            fault
                .to_string()
                .ends_with("carries shard 5, but the map has shards 0-3"),
            "{fault}"
        );
        let negative = Function::Embedded
            .shard(&KeyValue::Int(-1), 8192)
            .expect_err("negative");
        assert_eq!(
            negative.to_string(),
            "-1 is negative and so carries no shard"
        );
        let text = Function::Embedded
            .shard(&KeyValue::Text("x"), 8)
            .expect_err("text");
        assert!(text.to_string().contains("integer keys only"), "{text}");
    }
}
