//! DateStyle has two parts, and a SET may name only one of them: the other stays as it is. What the whole comes to is worked
//! out here, so that it can be set on a server connection whose value is another.

use crate::pool::{Set, set_config};

const NAME: &str = "datestyle";

/// The parts that are known to be set; the others are the server's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DateStyle {
    style: Option<&'static str>,
    order: Option<&'static str>,
}

/// How DateStyle is brought to what it is after it was set to `value`, having been as `before` sets it.
pub(super) fn date_style(before: Option<&Set>, value: &str) -> Set {
    let before = before.map(|set| read(literal_of(&set.sql)));
    let Some(before) = before.unwrap_or(Some(DateStyle::default())) else {
        return Set::relative(set_config(NAME, value));
    };
    let Some(named) = read(value) else {
        return Set::relative(set_config(NAME, value));
    };
    let style = named.style.or(before.style);
    let order = named.order.or(before.order);
    match (style, order) {
        (Some(style), Some(order)) => Set::from(set_config(NAME, &format!("{style}, {order}"))),
        (Some(one), None) | (None, Some(one)) => Set::relative(set_config(NAME, one)),
        (None, None) => Set::relative(set_config(NAME, value)),
    }
}

/// What is between the quotes of a statement made here.
fn literal_of(sql: &str) -> &str {
    sql.split('\'').nth(1).unwrap_or_default()
}

/// The parts that a value names (datetime.c and variable.c, `check_datestyle`); `None` if it names the default.
fn read(value: &str) -> Option<DateStyle> {
    let mut named = DateStyle::default();
    for word in value.split(',') {
        let word = word.trim().trim_matches('"').to_ascii_lowercase();
        match &*word {
            "" => {}
            "iso" => named.style = Some("ISO"),
            "sql" => named.style = Some("SQL"),
            "german" => {
                named.style = Some("German");
                // Unless it is named, too.
                named.order = named.order.or(Some("DMY"));
            }
            "ymd" => named.order = Some("YMD"),
            "mdy" | "us" => named.order = Some("MDY"),
            "dmy" => named.order = Some("DMY"),
            word if word.starts_with("postgres") => named.style = Some("Postgres"),
            word if word.starts_with("euro") => named.order = Some("DMY"),
            word if word.starts_with("noneuro") => named.order = Some("MDY"),
            _ => return None,
        }
    }
    // `German, MDY`: a later word beats what German implies.
    Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: &[&str]) -> Option<Set> {
        values.iter().fold(None, |before, value| {
            Some(date_style(before.as_ref(), value))
        })
    }

    #[test]
    fn the_part_that_is_not_named_stays() {
        for (values, comes_to) in [
            (&["SQL, DMY", "ISO"][..], "'ISO, DMY'"),
            (&["German", "ISO"], "'ISO, DMY'"),
            (&["German, MDY"], "'German, MDY'"),
            (&["mdy, german"], "'German, MDY'"),
            (&["ISO", "European"], "'ISO, DMY'"),
            (&["Postgres, US", "YMD"], "'Postgres, YMD'"),
        ] {
            let set = after(values).unwrap();
            assert!(!set.relative, "{values:?}");
            assert_eq!(&*set.sql, format!("SET \"datestyle\" TO {comes_to}"));
        }
        for (values, comes_to) in [
            (&["ISO"][..], "'ISO'"),
            (&["DMY"], "'DMY'"),
            (&["default"], "'default'"),
            (&["SQL, default"], "'SQL, default'"),
        ] {
            let set = after(values).unwrap();
            assert!(set.relative, "{values:?}");
            assert_eq!(&*set.sql, format!("SET \"datestyle\" TO {comes_to}"));
        }
    }
}
