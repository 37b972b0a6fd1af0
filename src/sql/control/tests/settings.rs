//! SET in all its spellings.

use super::*;

/// (name, items, raw, local) of a `SET`.
fn set(text: &str) -> (String, Vec<SetItem>, String, bool) {
    match read(text) {
        Some(Control::Set {
            name,
            value: SetValue::List { items, raw },
            local,
        }) => (name, items, text[raw].to_string(), local),
        other => panic!("{text}: {other:?}"),
    }
}

fn word(text: &str) -> SetItem {
    SetItem::Ident(text.to_string())
}

fn string(text: &str) -> SetItem {
    SetItem::Text(text.to_string())
}

fn number(text: &str) -> SetItem {
    SetItem::Number(text.to_string())
}

#[test]
fn settings() {
    let one = |setting: &str, item, raw: &str| (name(setting), vec![item], name(raw), false);
    assert_eq!(
        set("SET client_min_messages TO 'warning';"),
        one("client_min_messages", string("warning"), "'warning'")
    );
    assert_eq!(
        set("SET standard_conforming_strings = on"),
        one("standard_conforming_strings", word("on"), "on")
    );
    assert_eq!(
        set("SET SESSION timezone TO 'UTC'"),
        one("timezone", string("UTC"), "'UTC'")
    );
    assert_eq!(
        set("SET \"TimeZone\"='UTC'"),
        one("timezone", string("UTC"), "'UTC'")
    );
    assert_eq!(
        set("SET presplit.key = 42"),
        one("presplit.key", number("42"), "42")
    );
    assert_eq!(
        set("SET Presplit . \"KEY\" = - 42 ;"),
        one("presplit.key", number("-42"), "- 42")
    );
    assert_eq!(
        set("SET LOCAL presplit.key TO '42' -- x"),
        (name("presplit.key"), vec![string("42")], name("'42'"), true)
    );
    assert_eq!(
        set("SET search_path TO a, \"B\" , 'c', On, +1.5 /* x */, left;"),
        (
            name("search_path"),
            vec![
                word("a"),
                word("B"),
                string("c"),
                word("on"),
                number("1.5"),
                word("left")
            ],
            name("a, \"B\" , 'c', On, +1.5 /* x */, left"),
            false
        )
    );
    assert_eq!(set("SET local = 5"), one("local", number("5"), "5"));
    assert_eq!(set("SET session.x = 5"), one("session.x", number("5"), "5"));
    assert_eq!(
        set("SET SESSION session TO 5"),
        one("session", number("5"), "5")
    );
    assert_eq!(
        set("SET SESSION characteristics = 5"),
        one("characteristics", number("5"), "5")
    );
    assert_eq!(set("SET names = 5"), one("names", number("5"), "5"));
    assert_eq!(set("SET schema TO 'x'"), one("schema", string("x"), "'x'"));
    assert_eq!(
        read("SET LOCAL work_mem TO DEFAULT"),
        Some(Control::Set {
            name: name("work_mem"),
            value: SetValue::Default,
            local: true
        })
    );
    assert_eq!(
        read("SET work_mem FROM CURRENT"),
        Some(Control::Set {
            name: name("work_mem"),
            value: SetValue::Current,
            local: false
        })
    );
    let Some(Control::Set { value, .. }) = read("SET a = 'b'") else {
        panic!()
    };
    assert_eq!(value.single(), Some("b"));
    assert_eq!(SetValue::Default.single(), None);
}

#[test]
fn settings_of_their_own_spelling() {
    let one = |setting: &str, item, raw: &str| (name(setting), vec![item], name(raw), false);
    assert_eq!(
        set("SET TIME ZONE 'UTC';"),
        one("timezone", string("UTC"), "'UTC'")
    );
    assert_eq!(
        set("SET TIME ZONE utc"),
        one("timezone", word("utc"), "utc")
    );
    assert_eq!(
        set("SET TIME ZONE -7.5"),
        one("timezone", number("-7.5"), "-7.5")
    );
    assert_eq!(
        set("SET NAMES 'utf8'"),
        one("client_encoding", string("utf8"), "'utf8'")
    );
    assert_eq!(set("SET ROLE none"), one("role", word("none"), "none"));
    assert_eq!(
        set("SET SESSION ROLE 'App'"),
        one("role", string("App"), "'App'")
    );
    assert_eq!(
        set("SET SESSION AUTHORIZATION bob"),
        one("session_authorization", word("bob"), "bob")
    );
    assert_eq!(
        set("SET SCHEMA 'x'"),
        one("search_path", string("x"), "'x'")
    );
    assert_eq!(
        set("SET XML OPTION document"),
        one("xmloption", word("document"), "document")
    );
    let default = |setting: &str| {
        Some(Control::Set {
            name: name(setting),
            value: SetValue::Default,
            local: false,
        })
    };
    assert_eq!(read("SET TIME ZONE LOCAL"), default("timezone"));
    assert_eq!(read("SET TIME ZONE DEFAULT"), default("timezone"));
    assert_eq!(read("SET NAMES"), default("client_encoding"));
    assert_eq!(read("SET NAMES DEFAULT;"), default("client_encoding"));
    assert_eq!(
        read("SET SESSION AUTHORIZATION DEFAULT"),
        default("session_authorization")
    );
    for zone in [
        "INTERVAL '+00:30' HOUR TO MINUTE",
        "interval '1' hour",
        "INTERVAL '1'",
        "INTERVAL(3) '1'",
    ] {
        let text = format!("SET LOCAL TIME ZONE {zone} ;");
        let value = SetValue::Interval {
            raw: 20..20 + zone.len(),
        };
        assert_eq!(
            read(&text),
            Some(Control::Set {
                name: name("timezone"),
                value,
                local: true
            }),
            "{text}"
        );
    }
    let serializable = BeginOptions {
        isolation: Some(Isolation::Serializable),
        ..Default::default()
    };
    assert_eq!(
        read("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;"),
        Some(Control::SetTransaction(serializable))
    );
    let read_only = BeginOptions {
        read_only: Some(true),
        ..Default::default()
    };
    assert_eq!(
        read("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
        Some(Control::SetSessionCharacteristics(read_only))
    );
    assert_eq!(
        read("SET TRANSACTION SNAPSHOT 'x-1'"),
        Some(Control::SetTransactionSnapshot(name("x-1")))
    );
    assert_eq!(
        read("SET CONSTRAINTS ALL DEFERRED"),
        Some(Control::SetConstraints {
            names: Vec::new(),
            deferred: true
        })
    );
    assert_eq!(
        read("SET CONSTRAINTS a, b.c IMMEDIATE"),
        Some(Control::SetConstraints {
            names: vec![name("a"), name("c")],
            deferred: false
        })
    );
}
