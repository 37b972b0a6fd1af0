//! gram.y's `VariableSetStmt`, `VariableResetStmt`, `VariableShowStmt`, `ConstraintsSetStmt` and `DiscardStmt`.

use super::reader::Reader;
use super::{BeginOptions, Control, Discard, Isolation, SetItem, SetValue, transaction};

pub(super) fn set(r: &mut Reader) -> Option<Control> {
    // `SET local = 5` sets a parameter of that name; `SET SESSION AUTHORIZATION` and `SET SESSION CHARACTERISTICS AS`
    // begin with their own word.
    let named = names_a_setting(r);
    let local = !named && r.word("local");
    let scoped = local || !named && !begins_session_form(r) && r.word("session");
    if names_a_setting(r) {
        return generic(r, local);
    }
    let what = r.one_of(&[
        "transaction",
        "session",
        "constraints",
        "time",
        "names",
        "role",
        "schema",
        "xml",
    ])?;
    match what {
        0 => set_transaction(r),
        1 => set_session(r, local),
        2 if !scoped => set_constraints(r),
        3 => time_zone(r, local),
        4 => names(r, local),
        5 => one(r, "role", local, word_or_string),
        6 => one(r, "search_path", local, string),
        7 => r
            .word("option")
            .then(|| one(r, "xmloption", local, document_or_content))?,
        _ => None,
    }
}

/// Whether a name comes next and then what makes a `SET` of it.
fn names_a_setting(r: &Reader) -> bool {
    let mut ahead = r.clone();
    ahead.col_id().is_some()
        && (ahead.punct(b'=') || ahead.punct(b'.') || ahead.word("to") || ahead.word("from"))
}

fn begins_session_form(r: &Reader) -> bool {
    let mut ahead = r.clone();
    ahead.word("session")
        && (ahead.word("authorization") || ahead.words(&["characteristics", "as"]))
}

/// `generic_set` and `var_name FROM CURRENT`.
fn generic(r: &mut Reader, local: bool) -> Option<Control> {
    let name = var_name(r)?;
    let value = if r.word("from") {
        r.word("current").then_some(SetValue::Current)?
    } else if r.punct(b'=') || r.word("to") {
        values(r)?
    } else {
        return None;
    };
    // SET TRANSACTION in other words, SESSION or LOCAL alike (guc_tables.c: they are set back by each transaction).
    if let Some(options) = of_transaction(&name, &value) {
        return Some(Control::SetTransaction(options));
    }
    Some(Control::Set { name, value, local })
}

/// The option that a setting of the present transaction stands for.
fn of_transaction(name: &str, value: &SetValue) -> Option<BeginOptions> {
    let value = value.single()?.to_ascii_lowercase();
    let on = || match &*value {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    };
    let mut options = BeginOptions::default();
    match name {
        "transaction_isolation" => {
            options.isolation = Some(match &*value {
                "serializable" => Isolation::Serializable,
                "repeatable read" => Isolation::RepeatableRead,
                "read committed" => Isolation::ReadCommitted,
                "read uncommitted" => Isolation::ReadUncommitted,
                _ => return None,
            });
        }
        "transaction_read_only" => options.read_only = Some(on()?),
        "transaction_deferrable" => options.deferrable = Some(on()?),
        _ => return None,
    }
    Some(options)
}

/// `var_name`, in lower case: settings are found by name without regard to case, even quoted ones.
fn var_name(r: &mut Reader) -> Option<String> {
    let mut name = r.col_id()?;
    while r.punct(b'.') {
        name.push('.');
        name.push_str(&r.col_id()?);
    }
    name.make_ascii_lowercase();
    // Names of old (guc.c, `map_old_guc_names`).
    let today = match &*name {
        "sort_mem" => "work_mem",
        "vacuum_mem" => "maintenance_work_mem",
        _ => return Some(name),
    };
    Some(today.to_owned())
}

/// `var_list` or `DEFAULT`.
fn values(r: &mut Reader) -> Option<SetValue> {
    if r.word("default") {
        return Some(SetValue::Default);
    }
    let start = r.next_start();
    let mut items = vec![item(r)?];
    while r.punct(b',') {
        items.push(item(r)?);
    }
    Some(SetValue::List {
        items,
        raw: r.since(start),
    })
}

/// `var_value`.
fn item(r: &mut Reader) -> Option<SetItem> {
    const WORDS: [&str; 3] = ["true", "false", "on"];
    if let Some(n) = r.one_of(&WORDS) {
        return Some(SetItem::Ident(WORDS[n].to_string()));
    }
    word_or_string(r).or_else(|| r.numeric().map(SetItem::Number))
}

fn word_or_string(r: &mut Reader) -> Option<SetItem> {
    r.non_reserved_word()
        .map(SetItem::Ident)
        .or_else(|| string(r))
}

fn string(r: &mut Reader) -> Option<SetItem> {
    r.sconst().map(SetItem::Text)
}

fn document_or_content(r: &mut Reader) -> Option<SetItem> {
    const WORDS: [&str; 2] = ["document", "content"];
    r.one_of(&WORDS)
        .map(|n| SetItem::Ident(WORDS[n].to_string()))
}

/// A setting whose spelling is its own, with one value.
fn one(
    r: &mut Reader,
    name: &str,
    local: bool,
    read: fn(&mut Reader) -> Option<SetItem>,
) -> Option<Control> {
    let start = r.next_start();
    let items = vec![read(r)?];
    let value = SetValue::List {
        items,
        raw: r.since(start),
    };
    Some(Control::Set {
        name: name.to_string(),
        value,
        local,
    })
}

fn set_transaction(r: &mut Reader) -> Option<Control> {
    if r.word("snapshot") {
        return r.sconst().map(Control::SetTransactionSnapshot);
    }
    if r.clone().at_end() {
        return None;
    }
    transaction::modes(r).map(Control::SetTransaction)
}

fn set_session(r: &mut Reader, local: bool) -> Option<Control> {
    if r.word("authorization") {
        const NAME: &str = "session_authorization";
        if r.word("default") {
            return Some(Control::Set {
                name: NAME.to_string(),
                value: SetValue::Default,
                local,
            });
        }
        return one(r, NAME, local, word_or_string);
    }
    // gram.y takes LOCAL here as well; what that would mean is Postgres' matter.
    if local || !r.words(&["characteristics", "as", "transaction"]) || r.clone().at_end() {
        return None;
    }
    transaction::modes(r).map(Control::SetSessionCharacteristics)
}

fn set_constraints(r: &mut Reader) -> Option<Control> {
    let mut names = Vec::new();
    if !r.word("all") {
        names.push(qualified_name(r)?);
        while r.punct(b',') {
            names.push(qualified_name(r)?);
        }
    }
    let deferred = r.one_of(&["immediate", "deferred"])? == 1;
    Some(Control::SetConstraints { names, deferred })
}

/// `qualified_name`: a `ColId`, then labels of any word. The last one.
pub(super) fn qualified_name(r: &mut Reader) -> Option<String> {
    let mut name = r.col_id()?;
    while r.punct(b'.') {
        name = r.col_label()?;
    }
    Some(name)
}

/// `zone_value`.
fn time_zone(r: &mut Reader, local: bool) -> Option<Control> {
    if !r.word("zone") {
        return None;
    }
    let start = r.next_start();
    let value = if r.one_of(&["default", "local"]).is_some() {
        SetValue::Default
    } else if r.word("interval") {
        interval(r)?;
        SetValue::Interval {
            raw: r.since(start),
        }
    } else {
        let text = string(r).or_else(|| r.numeric().map(SetItem::Number));
        let item = text.or_else(|| r.plain_ident().map(SetItem::Ident))?;
        SetValue::List {
            items: vec![item],
            raw: r.since(start),
        }
    };
    Some(Control::Set {
        name: "timezone".to_string(),
        value,
        local,
    })
}

/// What follows `INTERVAL`: only hours to minutes make a time zone, or a precision in front.
fn interval(r: &mut Reader) -> Option<()> {
    if r.punct(b'(') {
        r.signed_iconst()?;
        return (r.punct(b')') && r.sconst().is_some()).then_some(());
    }
    r.sconst()?;
    if r.word("hour") && r.word("to") {
        return r.word("minute").then_some(());
    }
    Some(())
}

/// `NAMES opt_encoding`.
fn names(r: &mut Reader, local: bool) -> Option<Control> {
    if r.word("default") || r.clone().at_end() {
        let name = "client_encoding".to_string();
        return Some(Control::Set {
            name,
            value: SetValue::Default,
            local,
        });
    }
    one(r, "client_encoding", local, string)
}

/// The names that `RESET` and `SHOW` spell in several words.
fn spelled(r: &mut Reader) -> Option<String> {
    let name = if r.words(&["time", "zone"]) {
        "timezone"
    } else if r.words(&["transaction", "isolation", "level"]) {
        "transaction_isolation"
    } else if r.words(&["session", "authorization"]) {
        "session_authorization"
    } else {
        return var_name(r);
    };
    Some(name.to_string())
}

pub(super) fn reset(r: &mut Reader) -> Option<Control> {
    if r.word("all") {
        return Some(Control::Reset(None));
    }
    spelled(r).map(|name| Control::Reset(Some(name)))
}

pub(super) fn show(r: &mut Reader) -> Option<Control> {
    if r.word("all") {
        return Some(Control::Show("all".to_string()));
    }
    spelled(r).map(Control::Show)
}

pub(super) fn discard(r: &mut Reader) -> Option<Control> {
    let what = match r.one_of(&["all", "plans", "sequences", "temp", "temporary"])? {
        0 => Discard::All,
        1 => Discard::Plans,
        2 => Discard::Sequences,
        _ => Discard::Temp,
    };
    Some(Control::Discard(what))
}
