//! Words of the doctor's report.

use std::time::Duration;

use crate::ops::recovery::Host;

/// `3 s`, `5 min`, `2 h`, `3 days`.
pub(super) fn ago(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// `host a (postgres://app@10.0.0.1:5432/app)`
pub(super) fn at_host(host: &Host) -> String {
    format!("host {} ({})", host.name, host.url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let ago = |seconds| ago(Duration::from_secs(seconds));
        let ages = [0, 119, 120, 7199, 7200, 172_800].map(ago);
        assert_eq!(ages, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
