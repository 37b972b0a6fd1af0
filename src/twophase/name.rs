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
    /// The decision host's name in the map of that proxy, see [`Name::word`]: it may be called otherwise by now.
    pub host: String,
}

/// A host on which a transaction is prepared, as its decision row has it: `b=6550a1.4000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'h> {
    /// Its name in the map of that proxy, for people.
    pub host: &'h str,
    /// Its database.
    pub home: Home,
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
pub const KEY_CLASS: u64 = 0x7073;
/// A longer name of a host is cut, so that the whole stays below what Postgres allows.
const HOST_MOST: usize = 80;

impl Name {
    /// The key of its advisory lock: [`KEY_CLASS`], 24 bits of the proxy, 24 of the number. Two transactions at once of the
    /// same key would wait for each other; nothing else.
    pub fn key(&self) -> i64 {
        let proxy = u64::from(self.proxy.proxy ^ self.proxy.epoch.rotate_left(7)) & 0xff_ffff;
        (KEY_CLASS << 48 | proxy << 24 | self.number & 0xff_ffff) as i64
    }

    /// A host's name as it stands in a transaction's name: not too long, and without what means something in SQL.
    pub fn word(host: &str) -> String {
        let mut word: String = host.chars().filter(|c| super::is_safe(*c)).collect();
        let mut end = word.len().min(HOST_MOST);
        while !word.is_char_boundary(end) {
            end -= 1;
        }
        word.truncate(end);
        word
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

impl FromStr for Home {
    type Err = ();

    fn from_str(text: &str) -> Result<Home, ()> {
        let (system, database) = text.split_once('.').ok_or(())?;
        Ok(Home {
            system: u64::from_str_radix(system, 16).map_err(drop)?,
            database: u32::from_str_radix(database, 16).map_err(drop)?,
        })
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.host, self.home)
    }
}

impl<'h> Place<'h> {
    /// Reads what [`Place`] prints as. `None`: anything else, such as a bare name.
    pub fn parse(text: &'h str) -> Option<Place<'h>> {
        let (host, home) = text.rsplit_once('=')?;
        let home: Home = home.parse().ok()?;
        Some(Place { host, home }).filter(|place| place.to_string() == text)
    }
}

impl fmt::Display for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.proxy, self.epoch)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (home, proxy, host) = (self.home, self.proxy, Name::word(&self.host));
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
        let home = part()?.parse()?;
        let (proxy, epoch) = part()?.split_once('-').ok_or(())?;
        let number = part()?;
        let name = Name {
            home,
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
        // What SQL would read otherwise never gets into a name, and so is never read out of one.
        let odd = name(7, "a\\\n").to_string();
        assert_eq!(odd, name(7, "a").to_string());
        assert_eq!(format!("{odd}\\").parse::<Name>(), Err(()));
    }

    #[test]
    fn places_of_a_row() {
        let home = name(7, "a").home;
        for host in ["b", "a=b", ""] {
            let text = Place { host, home }.to_string();
            assert_eq!(Place::parse(&text), Some(Place { host, home }));
        }
        for text in ["", "b", "b=", "b=1", "b=1.x", "b=01.2", "b=1.2 "] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
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
