//! The name of a transaction on several hosts, which is the name of its prepared transactions: it says which proxy made
//! it and where its decision is.

use std::fmt;
use std::str::FromStr;

/// `presplit:SYSTEM.DATABASE:PROXY-EPOCH:NUMBER:HOST`, all numbers in hexadecimal. Postgres allows 199 bytes
/// (src/include/access/xact.h, GIDSIZE).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// Which database the decision is in.
    pub home: Home,
    /// Which proxy coordinates it.
    pub proxy: ProxyId,
    /// Its number there.
    pub number: u64,
    /// The decision host's name in the map of that proxy, for people: it may be called otherwise by now.
    pub host: String,
}

/// A database, whatever a map calls its host: the cluster's system identifier (which physical replicas share) and the
/// database's OID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Home {
    /// `pg_control_system().system_identifier`.
    pub system: u64,
    /// `pg_database.oid`.
    pub database: u32,
}

/// One run of one proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProxyId {
    /// Random.
    pub proxy: u32,
    /// When it was started: seconds since 1970, for people.
    pub epoch: u32,
}

/// The upper bits of all our advisory locks that mark transactions: `ps`. The keys are positive.
pub(super) const KEY_CLASS: u64 = 0x7073;
/// A longer name of a host is cut, so that the whole stays below what Postgres allows.
const HOST_MOST: usize = 80;

impl Name {
    /// The key of its advisory lock: [`KEY_CLASS`], 24 bits of the proxy, 24 of the number. Two transactions at once of the
    /// same key would wait for each other; nothing else.
    pub fn key(&self) -> i64 {
        let proxy = u64::from(self.proxy.proxy ^ self.proxy.epoch.rotate_left(7)) & 0xff_ffff;
        (KEY_CLASS << 48 | proxy << 24 | self.number & 0xff_ffff) as i64
    }

    /// As a string constant of SQL.
    pub(super) fn literal(&self) -> String {
        super::literal(&self.to_string())
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.system, self.database)
    }
}

impl fmt::Display for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.proxy, self.epoch)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut end = self.host.len().min(HOST_MOST);
        while !self.host.is_char_boundary(end) {
            end -= 1;
        }
        let (home, proxy, host) = (self.home, self.proxy, &self.host[..end]);
        write!(f, "presplit:{home}:{proxy}:{:x}:{host}", self.number)
    }
}

impl FromStr for Name {
    type Err = ();

    /// A name that is not exactly as we would write it is not ours.
    fn from_str(text: &str) -> Result<Name, ()> {
        let rest = text.strip_prefix("presplit:").ok_or(())?;
        let mut parts = rest.splitn(4, ':');
        let mut part = || parts.next().ok_or(());
        let (system, database) = part()?.split_once('.').ok_or(())?;
        let (proxy, epoch) = part()?.split_once('-').ok_or(())?;
        let number = part()?;
        let name = Name {
            home: Home {
                system: u64::from_str_radix(system, 16).map_err(drop)?,
                database: u32::from_str_radix(database, 16).map_err(drop)?,
            },
            proxy: ProxyId {
                proxy: u32::from_str_radix(proxy, 16).map_err(drop)?,
                epoch: u32::from_str_radix(epoch, 16).map_err(drop)?,
            },
            number: u64::from_str_radix(number, 16).map_err(drop)?,
            host: part()?.to_owned(),
        };
        (name.to_string() == text).then_some(name).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64, host: &str) -> Name {
        Name {
            home: Home {
                system: 7_300_000_000_000_000_001,
                database: 16384,
            },
            proxy: ProxyId {
                proxy: u32::MAX,
                epoch: 1_700_000_000,
            },
            number,
            host: host.to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for host in ["a", "", "eu:1", "it's", "ä"] {
            let name = name(77, host);
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        let long = name(u64::MAX, &"ä".repeat(200)).to_string();
        assert!(long.len() < 200, "{}", long.len());
        assert!(long.parse::<Name>().is_ok());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for text in [
            "",
            "presplit",
            "presplit:",
            "presplit:1.2:3-4:5",
            "presplit:1.2:3-4:05:a",
            "presplit:+1.2:3-4:5:a",
            "presplit:1.2:3-4:5A:a",
            "xpresplit:1.2:3-4:5:a",
            "Presplit:1.2:3-4:5:a",
            "presplit:1:3-4:5:a",
            "presplit:1.100000000:3-4:5:a",
        ] {
            assert_eq!(text.parse::<Name>(), Err(()), "{text}");
        }
    }

    #[test]
    fn keys_are_positive_and_of_our_class() {
        let keys: Vec<i64> = (0..3).map(|n| name(n, "a").key()).collect();
        assert!(
            keys.iter().all(|key| key >> 48 == KEY_CLASS as i64),
            "{keys:?}"
        );
        assert_eq!(keys[1] - keys[0], 1);
    }
}
