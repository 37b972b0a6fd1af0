//! Imports go down only, never up, never sideways: the floors of `src/lib.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the crate and its floor. `cli` and `main` are the binary.
const FLOORS: [(&str, u8); 15] = [
    ("main", 5),
    ("cli", 5),
    ("proxy", 4),
    ("admin", 3),
    ("session", 2),
    ("ops", 2),
    ("route", 1),
    ("pool", 1),
    ("wire", 0),
    ("sql", 0),
    ("shardmap", 0),
    ("catalog", 0),
    ("stats", 0),
    ("twophase", 0),
    // Talks to the proxy as any client does and shares only the id layout, in shardmap.
    ("feed", 1),
];

#[test]
fn imports_go_down_only() {
    let faults = check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let plant = |path: &str, text: &str| {
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    plant("lib.rs", "pub mod route;\n");
    plant(
        "route/mod.rs",
        "//! See crate::session.\nuse crate::{sql::plan::Plan, shardmap, pool};\n",
    );
    plant(
        "route/decide.rs",
        "fn f() -> usize { 1 }\nfn g() { crate::session::run() }\n",
    );
    plant(
        "wire/frame.rs",
        "use crate::wire::error;\nuse crate::\n    stats::Count;\n// crate::proxy is above\n",
    );
    plant("cli.rs", "use presplit::proxy;\nuse crate::admin;\n");
    plant(
        "ops/x/deep.rs",
        "use super::super::super::session;\nuse super::super::demo;\nuse crate::pool;\n",
    );
    plant("unknown.rs", "");
    plant(
        "sql/parse.rs",
        "const S: &str = \"crate::session::x\";\n#[cfg(test)]\nmod tests { use super::*; use crate::route; }\n",
    );
    let mut faults: Vec<String> = check(dir.path())
        .iter()
        .map(|f| f.split(": ").next().unwrap().to_owned())
        .collect();
    faults.sort();
    assert_eq!(
        faults,
        [
            "ops/x/deep.rs:1",
            "route/decide.rs:2",
            "route/mod.rs:2",
            "sql/parse.rs:3",
            "unknown.rs:1",
            "wire/frame.rs:2"
        ]
    );
}

/// Every import that does not go down, as `file:line: what`.
fn check(src: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files_below(src) {
        let path = file
            .strip_prefix(src)
            .unwrap()
            .to_string_lossy()
            .replace('\\', "/");
        let parts: Vec<&str> = path
            .trim_end_matches(".rs")
            .trim_end_matches("/mod")
            .split('/')
            .collect();
        if parts == ["lib"] {
            continue;
        }
        let Some(own) = floor(parts[0]) else {
            faults.push(format!(
                "{path}:1: module {} has no floor: give it one in src/lib.rs and here",
                parts[0]
            ));
            continue;
        };
        let text = without_comments_and_strings(&fs::read_to_string(&file).unwrap());
        for (at, module) in mentions(&text, &parts) {
            // The binary sees the library from above, by its name.
            let down = module == parts[0]
                || floor(&module).is_some_and(|other| other < own)
                || (own == 5 && floor(&module) == Some(5));
            if !down && floor(&module).is_some() {
                let line = 1 + text[..at].matches('\n').count();
                faults.push(format!(
                    "{path}:{line}: {} (floor {own}) uses {module} (floor {})",
                    parts[0],
                    floor(&module).unwrap()
                ));
            }
        }
    }
    faults
}

fn floor(module: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, floor)| *floor)
}

/// Places where a path from the crate's root is written, with the root module that it goes into: `crate::x`,
/// `crate::{x, y::z}`, and `super::` as often as it takes to reach the root.
fn mentions(text: &str, parts: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        if !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            roots(&text[at + "crate::".len()..], at, &mut found);
        }
    }
    let up = "super::".repeat(parts.len());
    for (at, _) in text.match_indices(&up) {
        if !text[..at].ends_with("super::") {
            roots(&text[at + up.len()..], at, &mut found);
        }
    }
    found
}

fn roots(rest: &str, at: usize, found: &mut Vec<(usize, String)>) {
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        found.push((at, word(rest)));
        return;
    };
    let mut depth = 0;
    let mut start = true;
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                found.push((at, word(&group[i..])));
                start = false;
            }
            _ => {}
        }
    }
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The text with comments and the insides of strings blanked, byte for byte, line breaks kept.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => at + text[at..].find('\n').unwrap_or(bytes.len() - at),
            [b'/', b'*', ..] => at + text[at..].find("*/").map_or(bytes.len() - at, |n| n + 2),
            [b'r', b'"' | b'#', ..]
                if at == 0 || !bytes[at - 1].is_ascii_alphanumeric() && bytes[at - 1] != b'_' =>
            {
                raw_string_end(text, at)
            }
            [b'"', ..] => string_end(bytes, at),
            // A character literal that holds a quote; a lone ' begins a lifetime.
            [b'\'', b'"', b'\'', ..] => at + 3,
            [b'\'', b'\\', _, b'\'', ..] => at + 4,
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).unwrap()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn raw_string_end(text: &str, start: usize) -> usize {
    let hashes = text[start + 1..].bytes().take_while(|b| *b == b'#').count();
    let open = start + 1 + hashes;
    if text.as_bytes().get(open) != Some(&b'"') {
        // `r#name`: a raw identifier.
        return start + 1;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    text[open + 1..]
        .find(&close)
        .map_or(text.len(), |n| open + 1 + n + close.len())
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
