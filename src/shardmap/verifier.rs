//! The form of a SCRAM verifier as Postgres stores it: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.

use super::section::Wrong;

const MEND: &str = "write the verifier that Postgres made: SELECT rolpassword FROM pg_authid WHERE rolname = '...'";

/// Checks the form (`parse_scram_secret` in `src/backend/libpq/auth-scram.c`). What is wrong never repeats the text: it may
/// be the password itself.
pub(super) fn check(text: &str) -> Result<(), Wrong> {
    let wrong = |what: &str| Err((what.to_owned(), MEND.to_owned()));
    if text.starts_with("md5") && text.len() == 35 {
        return wrong("is an md5 hash, with which clients can't log in here");
    }
    let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") else {
        return wrong("is no SCRAM-SHA-256 verifier (a password itself never stands in this file)");
    };
    let parts = || {
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some((iterations, salt, stored, server))
    };
    let Some((iterations, salt, stored, server)) = parts() else {
        return wrong("is a SCRAM-SHA-256 verifier that is cut short");
    };
    // Postgres holds the count in an int; all digits, so no sign.
    let counted = iterations.bytes().all(|b| b.is_ascii_digit())
        && iterations.parse::<i32>().is_ok_and(|n| n > 0);
    if !counted {
        return wrong("is a SCRAM-SHA-256 verifier whose iteration count is no number");
    }
    if base64_length(salt).is_none_or(|n| n == 0) {
        return wrong("is a SCRAM-SHA-256 verifier whose salt is not base64");
    }
    if base64_length(stored) != Some(32) || base64_length(server) != Some(32) {
        return wrong("is a SCRAM-SHA-256 verifier whose keys are not 32 bytes of base64");
    }
    Ok(())
}

/// How many bytes a base64 text with padding encodes.
fn base64_length(text: &str) -> Option<usize> {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    let good = text.len().is_multiple_of(4)
        && padding <= 2
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
    good.then(|| text.len() / 4 * 3 - padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    // From PostgreSQL 15.18: CREATE ROLE app PASSWORD 'secret'; SELECT rolpassword FROM pg_authid WHERE rolname = 'app';
    const GOOD: &str = "SCRAM-SHA-256$4096:+/3EBH7FyGz+ocqyK814aQ==$UlD1Kw2oJzjJVXdtDUG/hfR9360HG5V8W0LVAPZjv+s=:OEBH9o8Z9eQNqdDPsh5GYF4bgVIjeL+Ps7rkVTQPAsk=";

    #[test]
    fn takes_what_postgres_made() {
        assert_eq!(check(GOOD), Ok(()));
    }

    #[test]
    fn refuses_all_else_without_repeating_it() {
        let cut = &GOOD[..GOOD.len() - 4];
        let no_count = GOOD.replace("4096", "many");
        let signed = GOOD.replace("4096", "+4096");
        let zero = GOOD.replace("4096", "0");
        let (head, _) = GOOD.rsplit_once(':').expect("keys");
        let bad_key = format!("{head}:AAAA");
        let (_, after_salt) = GOOD.split_once(':').expect("salt");
        let no_salt = format!(
            "SCRAM-SHA-256$4096:{}",
            &after_salt[after_salt.find('$').expect("salt")..]
        );
        for (text, says) in [
            ("secret", "is no SCRAM-SHA-256 verifier"),
            ("", "is no SCRAM-SHA-256 verifier"),
            ("md5c0ffee00c0ffee00c0ffee00c0ffee00", "md5"),
            ("SCRAM-SHA-256$4096:secret", "cut short"),
            (cut, "32 bytes"),
            (&no_count, "iteration count"),
            (&signed, "iteration count"),
            (&zero, "iteration count"),
            (&bad_key, "32 bytes"),
            (&no_salt, "salt"),
        ] {
            let (what, mend) = check(text).expect_err(text);
            assert!(what.contains(says), "{text}: {what}");
            assert!(
                !what.contains("secret") && !mend.contains("secret"),
                "{what} {mend}"
            );
        }
    }

    #[test]
    fn base64_lengths() {
        assert_eq!(base64_length(""), Some(0));
        assert_eq!(base64_length("AAAA"), Some(3));
        assert_eq!(base64_length("AA=="), Some(1));
        assert_eq!(base64_length("AAA="), Some(2));
        assert_eq!(base64_length("A==="), None);
        assert_eq!(base64_length("AAAAA"), None);
        assert_eq!(base64_length("A-_A"), None);
    }
}
