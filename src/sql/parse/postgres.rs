//! Our scanner against Postgres' own (`make scanner`): over statements of ORMs and many mutations of them, both cut a text
//! into the same tokens, comments and statements, and read the same values and names.

use pg_query::protobuf::{ScanToken, Token as Theirs};

use super::cut::{Raw, RawKind, cut};
use crate::sql::literal::literal_value;
use crate::sql::mutate::{Mutations, corpus};
use crate::sql::shape::{HoleKind, Shape};
use crate::sql::token::ident_value;

/// A token as both can say it.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    start: usize,
    end: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Word,
    Quoted,
    Param,
    Number,
    String,
    Escapes,
    Dollar,
    Bits,
    Unicode,
    Operator,
    Punct,
    Comment,
}

/// How often what happened.
#[derive(Default, Debug)]
struct Tally {
    same: usize,
    both_refuse: usize,
    /// Postgres refuses the text, and so it does the piece of it that we would send.
    server_refuses: usize,
    wrong: Vec<String>,
}

fn ours(text: &str) -> Option<(Shape, Result<Vec<Piece>, String>)> {
    let mut shape = Shape::default();
    shape.scan(text.as_bytes()).ok()?;
    let pieces = cut(text.as_bytes(), &shape.holes).map(|raws| with_comments(text, &shape, raws));
    Some((shape, pieces))
}

fn with_comments(text: &str, shape: &Shape, raws: Vec<Raw>) -> Vec<Piece> {
    let comments = shape.holes.iter().filter(|h| h.kind == HoleKind::Comment);
    let comments = comments.map(|h| Piece {
        start: h.start as usize,
        end: h.end as usize,
        what: What::Comment,
    });
    let mut pieces: Vec<Piece> = raws
        .iter()
        .map(|raw| piece(text, raw))
        .chain(comments)
        .collect();
    pieces.sort_by_key(|p| p.start);
    pieces
}

fn piece(text: &str, raw: &Raw) -> Piece {
    let what = match &raw.kind {
        RawKind::Word(_) => What::Word,
        RawKind::Quoted(_) => What::Quoted,
        RawKind::Param => What::Param,
        RawKind::Literal(_, HoleKind::Number) => What::Number,
        RawKind::Literal(_, HoleKind::String) => What::String,
        RawKind::Literal(_, HoleKind::EscapeString) => What::Escapes,
        RawKind::Literal(_, HoleKind::DollarString) => What::Dollar,
        RawKind::Literal(_, _) if text[raw.start..].starts_with(['u', 'U']) => What::Unicode,
        RawKind::Literal(_, _) => What::Bits,
        RawKind::Operator => What::Operator,
        RawKind::Punct => What::Punct,
    };
    Piece {
        start: raw.start,
        end: raw.end,
        what,
    }
}

/// Postgres' tokens; `Err`: its scanner refuses the text.
fn theirs(text: &str) -> Result<Vec<Piece>, String> {
    let tokens = pg_query::scan_tokens(text).map_err(|e| e.to_string())?;
    let mut pieces: Vec<Piece> = Vec::with_capacity(tokens.len());
    for token in &tokens {
        let (start, end) = (token.start as usize, token.end as usize);
        match their_kind(text, token) {
            // To Postgres N'x' is the word NCHAR and a string.
            What::String
                if pieces.last().is_some_and(|p| {
                    p.end == start
                        && text[p.start..p.end].eq_ignore_ascii_case("n")
                        && p.what == What::Word
                }) =>
            {
                let last = pieces.len() - 1;
                pieces[last].end = end;
                pieces[last].what = What::String;
            }
            // These come byte by byte from us; of `:=` the second is an operator.
            What::Punct => pieces.extend((start..end).map(|at| Piece {
                start: at,
                end: at + 1,
                what: match text.as_bytes()[at] {
                    b'=' => What::Operator,
                    _ => What::Punct,
                },
            })),
            what => pieces.push(Piece { start, end, what }),
        }
    }
    Ok(pieces)
}

fn their_kind(text: &str, token: &ScanToken) -> What {
    let said = &text[token.start as usize..token.end as usize];
    match Theirs::try_from(token.token) {
        Ok(Theirs::Ident | Theirs::Uident) if said.contains('"') => What::Quoted,
        Ok(Theirs::Ident) => What::Word,
        Ok(Theirs::Fconst | Theirs::Iconst) => What::Number,
        Ok(Theirs::Sconst) if said.starts_with(['e', 'E']) => What::Escapes,
        Ok(Theirs::Sconst) if said.starts_with('$') => What::Dollar,
        Ok(Theirs::Sconst) => What::String,
        Ok(Theirs::Usconst) => What::Unicode,
        Ok(Theirs::Bconst | Theirs::Xconst) => What::Bits,
        Ok(Theirs::Param) => What::Param,
        Ok(Theirs::SqlComment | Theirs::CComment) => What::Comment,
        _ if said.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()) => {
            What::Word
        }
        _ if matches!(said, "::" | ".." | ":=") || said.len() == 1 && "()[],.;:".contains(said) => {
            What::Punct
        }
        _ => What::Operator,
    }
}

/// The semicolons that separate, by Postgres' tokens.
fn separators(text: &str, pieces: &[Piece]) -> Vec<u32> {
    let mut depth = 0usize;
    let mut found = Vec::new();
    for piece in pieces.iter().filter(|p| p.what == What::Punct) {
        match text.as_bytes()[piece.start] {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => found.push(piece.start as u32),
            _ => {}
        }
    }
    found
}

fn compare(text: &str, tally: &mut Tally) {
    let theirs = theirs(text);
    let fault = match (ours(text), theirs) {
        (None, Err(_)) => {
            tally.both_refuse += 1;
            return;
        }
        (None, Ok(_)) => "only we refuse it".to_owned(),
        (Some((shape, _)), Err(why)) => match refused_piece(text, &shape) {
            Ok(()) => {
                tally.server_refuses += 1;
                return;
            }
            Err(fault) => format!("Postgres says {why}; {fault}"),
        },
        (Some((shape, pieces)), Ok(theirs)) => match differs(text, &shape, &pieces, &theirs) {
            None => {
                tally.same += 1;
                return;
            }
            Some(fault) => fault,
        },
    };
    if tally.wrong.len() < 20 {
        let short: String = text.chars().take(300).collect();
        tally.wrong.push(format!("{short:?}\n    {fault}"));
    }
}

/// Postgres refuses the text. Then it must refuse one of the statements that we find in it, too, and agree with us on those
/// before: nothing but its own error comes of it.
fn refused_piece(text: &str, shape: &Shape) -> Result<(), String> {
    for range in shape.pieces(text.as_bytes()) {
        let piece = &text[range];
        let Ok(theirs) = theirs(piece) else {
            return Ok(());
        };
        let Some((shape, pieces)) = ours(piece) else {
            return Err(format!("a piece has no shape: {piece:?}"));
        };
        if let Some(fault) = differs(piece, &shape, &pieces, &theirs) {
            return Err(format!("of the piece {piece:?}: {fault}"));
        }
    }
    Err("but none of our pieces is refused".to_owned())
}

fn differs(
    text: &str,
    shape: &Shape,
    pieces: &Result<Vec<Piece>, String>,
    theirs: &[Piece],
) -> Option<String> {
    match pieces {
        Ok(pieces) if pieces != theirs => {
            let at = pieces.iter().zip(theirs).position(|(a, b)| a != b);
            let at = at.unwrap_or(pieces.len().min(theirs.len()));
            let show = |p: Option<&Piece>| {
                p.map(|p| format!("{:?} {:?}", p.what, text.get(p.start..p.end)))
            };
            return Some(format!(
                "ours {:?}, theirs {:?}",
                show(pieces.get(at)),
                show(theirs.get(at))
            ));
        }
        // A byte of no token of ours: the whole is unreadable then.
        _ => {}
    }
    let separators = separators(text, theirs);
    let atomic = text.to_ascii_lowercase().contains("atomic");
    if !atomic && separators != shape.semicolons.as_slice() {
        return Some(format!(
            "semicolons {:?}, theirs {separators:?}",
            shape.semicolons
        ));
    }
    None
}

/// How many mutations: `MUTATIONS`, or few.
fn mutations() -> usize {
    let asked = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(20_000)
}

#[test]
fn tokens_and_statements() {
    let corpus = corpus();
    let mut tally = Tally::default();
    for text in &corpus {
        compare(text, &mut tally);
    }
    compare(include_str!("../../../tests/fixtures/orm.sql"), &mut tally);
    assert_eq!(tally.same, corpus.len() + 1, "{}", tally.wrong.join("\n"));
    let mut texts = Mutations::new(&corpus, 1);
    for _ in 0..mutations() {
        compare(&texts.text(6), &mut tally);
    }
    println!(
        "{} alike, {} that both refuse, {} whose error is left to the server",
        tally.same, tally.both_refuse, tally.server_refuses
    );
    assert!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n"));
    assert!(tally.same > mutations() / 10, "{tally:?}");
}

/// Where Postgres' grammar takes a text, it finds the statements that we find.
#[test]
fn statements_by_the_grammar() {
    let corpus = corpus();
    let mut texts = Mutations::new(&corpus, 2);
    let (mut taken, mut wrong) = (0, Vec::new());
    for _ in 0..mutations() / 10 {
        let text = format!("{};{}", texts.text(1), texts.text(1));
        let Ok(theirs) = pg_query::split_with_parser(&text) else {
            continue;
        };
        taken += 1;
        let mut shape = Shape::default();
        let ours: Vec<&str> = match shape.scan(text.as_bytes()) {
            Ok(()) => shape
                .pieces(text.as_bytes())
                .map(|piece| &text[piece])
                .collect(),
            Err(_) => Vec::new(),
        };
        // Theirs leave white space and comments at the ends now and then.
        let alike =
            ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| bare(a) == bare(b));
        if !alike && wrong.len() < 10 {
            wrong.push(format!(
                "{text:?}\n    ours {ours:?}\n    theirs {theirs:?}"
            ));
        }
    }
    println!("{taken} texts");
    assert!(taken > mutations() / 1000, "{taken}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Without what stands before the first token and behind the last.
fn bare(text: &str) -> &str {
    match theirs(text) {
        Ok(pieces) => {
            let mut said = pieces.iter().filter(|p| p.what != What::Comment);
            let first = said.next();
            let last = said.next_back().or(first);
            first
                .zip(last)
                .map_or("", |(first, last)| &text[first.start..last.end])
        }
        Err(_) => text,
    }
}

/// The value of each literal, and the name that each identifier stands for, where we say that we know it.
#[test]
fn values_and_names() {
    let corpus = corpus();
    let mut texts = Mutations::new(&corpus, 3);
    let (mut literals, mut names, mut wrong) = (0, 0, Vec::new());
    for _ in 0..mutations() / 10 {
        let text = texts.text(6);
        let Some((shape, Ok(pieces))) = ours(&text) else {
            continue;
        };
        if theirs(&text).is_err() {
            continue;
        }
        for hole in shape.holes.iter().filter(|h| h.kind != HoleKind::Number) {
            let said = &text[hole.start as usize..hole.end as usize];
            let Some(value) = literal_value(text.as_bytes(), hole) else {
                continue;
            };
            let Some(theirs) = string_of(said) else {
                wrong.push(format!("{said:?}: we read {value:?}"));
                continue;
            };
            literals += 1;
            if theirs.as_bytes() != &*value {
                wrong.push(format!(
                    "{said:?}: {:?}, theirs {theirs:?}",
                    String::from_utf8_lossy(&value)
                ));
            }
        }
        for piece in pieces.iter().filter(|p| p.what == What::Quoted) {
            let said = &text[piece.start..piece.end];
            let Some(theirs) = name_of(said) else {
                continue;
            };
            names += 1;
            let ours = ident_value(text.as_bytes(), piece.start..piece.end);
            if ours != theirs {
                wrong.push(format!("{said:?}: {ours:?}, theirs {theirs:?}"));
            }
        }
        assert!(wrong.len() < 10, "{}", wrong.join("\n"));
    }
    println!("{literals} literals, {names} names");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(literals.min(names) > mutations() / 50, "{literals} {names}");
}

fn target(sql: &str) -> Option<pg_query::protobuf::ResTarget> {
    use pg_query::NodeEnum;
    let parsed = pg_query::parse(sql, pg_query::ParserOptions::default()).ok()?;
    let statement = parsed.protobuf.stmts.first()?.stmt.as_ref()?.node.clone()?;
    let NodeEnum::SelectStmt(select) = statement else {
        return None;
    };
    match select.target_list.first()?.node.clone()? {
        NodeEnum::ResTarget(target) => Some(*target),
        _ => None,
    }
}

/// What Postgres reads in a string literal.
fn string_of(literal: &str) -> Option<String> {
    use pg_query::NodeEnum;
    use pg_query::protobuf::a_const::Val;
    let mut node = target(&format!("SELECT {literal}"))?.val?.node?;
    if let NodeEnum::TypeCast(cast) = node {
        node = cast.arg?.node?;
    }
    match node {
        NodeEnum::AConst(value) => match value.val? {
            Val::Sval(text) => Some(text.sval),
            _ => None,
        },
        _ => None,
    }
}

/// What Postgres calls a column of this name.
fn name_of(identifier: &str) -> Option<String> {
    target(&format!("SELECT 1 AS {identifier}")).map(|t| t.name)
}
