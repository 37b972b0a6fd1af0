//! gram.y's statements on prepared statements, cursors and channels, `LOCK`, and our `EXPLAIN (ROUTE)`.

use super::Control;
use super::reader::Reader;
use super::setting::qualified_name;

/// `PREPARE TRANSACTION 'id'`, or `PREPARE name (types) AS statement`, where the name may be `transaction`.
pub(super) fn prepare(r: &mut Reader) -> Option<Control> {
    let transaction = r.whole(|r| r.word("transaction").then(|| r.sconst())?);
    if let Some(id) = transaction {
        return Some(Control::PrepareTransaction(id));
    }
    let at = r.peek()?.span;
    let name = r.col_id()?;
    let types = match optional_list(r)? {
        Some(list) => r.items(list).count(),
        None => 0,
    };
    if !r.word("as") || !begins_statement(r, &["insert", "update", "delete", "merge"]) {
        return None;
    }
    Some(Control::Prepare {
        name,
        at,
        types,
        body: r.rest_with_comments()?,
    })
}

pub(super) fn execute(r: &mut Reader) -> Option<Control> {
    let name = r.col_id()?;
    optional_list(r)?;
    Some(Control::Execute {
        name,
        explain: false,
    })
}

/// `( ... )` with something in it, or nothing.
pub(super) fn optional_list(r: &mut Reader) -> Option<Option<std::ops::Range<usize>>> {
    match r.peek() {
        Some(token) if r.is_open(&token) => r.parenthesized().map(Some),
        _ => Some(None),
    }
}

/// Whether a query comes next, or one of `others`.
fn begins_statement(r: &Reader, others: &[&str]) -> bool {
    let mut ahead = r.clone();
    ahead.punct(b'(')
        || ahead
            .one_of(&["select", "with", "values", "table"])
            .is_some()
        || ahead.one_of(others).is_some()
}

/// `DEALLOCATE [PREPARE] name | ALL`, where the name may be `prepare`.
pub(super) fn deallocate(r: &mut Reader) -> Option<Control> {
    let which = |r: &mut Reader| match r.word("all") {
        true => Some(None),
        false => r.col_id().map(Some),
    };
    let with_keyword = r.whole(|r| r.word("prepare").then(|| which(r))?);
    with_keyword.or_else(|| which(r)).map(Control::Deallocate)
}

pub(super) fn declare(r: &mut Reader) -> Option<Control> {
    let name = r.col_id()?;
    while r.words(&["no", "scroll"])
        || r.one_of(&["scroll", "binary", "asensitive", "insensitive"])
            .is_some()
    {}
    if !r.word("cursor") {
        return None;
    }
    let hold = r.words(&["with", "hold"]);
    if !hold {
        r.words(&["without", "hold"]);
    }
    if !r.word("for") || !begins_statement(r, &[]) {
        return None;
    }
    Some(Control::Declare {
        name,
        hold,
        query: r.rest()?,
    })
}

/// `fetch_args`: every alternative ends with the cursor's name, which may itself be `next` or `forward`.
pub(super) fn fetch(r: &mut Reader, is_move: bool) -> Option<Control> {
    let cursor = r.whole(direction).or_else(|| r.whole(opt_from_cursor))?;
    Some(Control::Fetch { cursor, is_move })
}

fn opt_from_cursor(r: &mut Reader) -> Option<String> {
    r.one_of(&["from", "in"]);
    r.col_id()
}

fn direction(r: &mut Reader) -> Option<String> {
    let count = |r: &mut Reader| r.signed_iconst().is_some();
    match r.one_of(&[
        "next", "prior", "first", "last", "absolute", "relative", "all", "forward", "backward",
    ]) {
        Some(0..=3 | 6) => {}
        Some(4 | 5) => r.signed_iconst()?,
        Some(_) => {
            let _ = r.word("all") || count(r);
        }
        None => r.signed_iconst()?,
    }
    opt_from_cursor(r)
}

pub(super) fn close(r: &mut Reader) -> Option<Control> {
    if r.word("all") {
        return Some(Control::ClosePortal(None));
    }
    r.col_id().map(|name| Control::ClosePortal(Some(name)))
}

pub(super) fn unlisten(r: &mut Reader) -> Option<Control> {
    if r.punct(b'*') {
        return Some(Control::Unlisten(None));
    }
    r.col_id().map(|channel| Control::Unlisten(Some(channel)))
}

pub(super) fn notify(r: &mut Reader) -> Option<Control> {
    r.col_id()?;
    if r.punct(b',') {
        r.any_string()?;
    }
    Some(Control::Notify)
}

pub(super) fn lock(r: &mut Reader) -> Option<Control> {
    r.word("table");
    relation(r)?;
    while r.punct(b',') {
        relation(r)?;
    }
    if r.word("in") {
        lock_mode(r)?;
    }
    r.word("nowait");
    Some(Control::Lock)
}

/// `relation_expr`.
fn relation(r: &mut Reader) -> Option<()> {
    if r.word("only") {
        let open = r.punct(b'(');
        qualified_name(r)?;
        return (!open || r.punct(b')')).then_some(());
    }
    qualified_name(r)?;
    r.punct(b'*');
    Some(())
}

/// `lock_type MODE`.
fn lock_mode(r: &mut Reader) -> Option<()> {
    const MODES: [&[&str]; 8] = [
        &["access", "share", "mode"],
        &["row", "share", "mode"],
        &["row", "exclusive", "mode"],
        &["share", "update", "exclusive", "mode"],
        &["share", "mode"],
        &["share", "row", "exclusive", "mode"],
        &["exclusive", "mode"],
        &["access", "exclusive", "mode"],
    ];
    MODES.iter().any(|mode| r.words(mode)).then_some(())
}

/// `EXPLAIN (ROUTE) statement`, or `EXPLAIN` of an `EXECUTE`.
pub(super) fn explain(r: &mut Reader) -> Option<Control> {
    let mut ahead = r.clone();
    if let Some(route) = explain_route(&mut ahead) {
        *r = ahead;
        return Some(route);
    }
    explain_options(r)?;
    if !r.word("execute") {
        return None;
    }
    let name = r.col_id()?;
    optional_list(r)?;
    Some(Control::Execute {
        name,
        explain: true,
    })
}

/// What may stand between `EXPLAIN` and the statement.
pub(super) fn explain_options(r: &mut Reader) -> Option<()> {
    match r.peek() {
        Some(token) if r.is_open(&token) => r.parenthesized().map(drop),
        _ => {
            r.one_of(&["analyze", "analyse"]);
            r.word("verbose");
            Some(())
        }
    }
}

/// `EXPLAIN (ROUTE) statement`; `FORMAT TEXT` may stand beside it, any other option is Postgres' to refuse.
fn explain_route(r: &mut Reader) -> Option<Control> {
    if !r.punct(b'(') {
        return None;
    }
    let mut route = false;
    loop {
        if r.word("route") {
            route = true;
            r.one_of(&["true", "on"]);
        } else if !r.words(&["format", "text"]) {
            return None;
        }
        if r.punct(b')') {
            break;
        }
        if !r.punct(b',') {
            return None;
        }
    }
    route.then_some(())?;
    Some(Control::ExplainRoute { query: r.rest()? })
}
