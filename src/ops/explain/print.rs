//! A report for people, and for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::report::{Count, Offender, Outcome, Report};

/// How much of a statement's text is shown.
const SHOWN: usize = 200;

/// How many refused shapes are shown to people.
const OFFENDERS: usize = 20;

impl Report {
    /// The report as text. `file`: what was read, in words.
    pub fn text(&self, file: &str) -> String {
        let mut out = format!(
            "{file}: {} statements of {} shapes\n\n",
            self.total.statements, self.total.shapes
        );
        for (kind, _, words) in Outcome::ALL {
            self.line(&mut out, words, self.count(kind));
        }
        for (code, count) in &self.codes {
            self.line(&mut out, &format!("  {code}"), *count);
        }
        if !self.offenders.is_empty() {
            out.push_str("\nRefused, most frequent first:\n");
        }
        for offender in self.offenders.iter().take(OFFENDERS) {
            offender_lines(&mut out, offender);
        }
        if self.offenders.len() > OFFENDERS {
            let more = self.offenders.len() - OFFENDERS;
            let _ = writeln!(out, "\nand {more} more shapes; --json lists all");
        }
        out
    }

    fn line(&self, out: &mut String, what: &str, count: Count) {
        if count.statements > 0 || what == "one shard" || what == "refused" {
            let share = self.share(count);
            let _ = writeln!(
                out,
                "  {what:<20} {:>10}  {share:>5.1} %  {:>6} shapes",
                count.statements, count.shapes
            );
        }
    }

    /// The report as JSON: all keys are always there, but for codes. `version` goes up when a key changes its meaning or goes.
    pub fn json(&self, file: &str, format: &str) -> Value {
        let count = |count: Count| {
            let share = (self.share(count) * 100.0).round() / 100.0;
            json!({"statements": count.statements, "shapes": count.shapes, "percent": share})
        };
        let kinds = Outcome::ALL
            .iter()
            .map(|(kind, name, _)| ((*name).to_owned(), count(self.count(*kind))));
        let codes = self
            .codes
            .iter()
            .map(|(code, n)| ((*code).to_owned(), count(*n)));
        let offenders = self.offenders.iter().map(|offender| {
            json!({
                "code": offender.refusal.code.sqlstate(),
                "message": offender.refusal.message,
                "detail": offender.refusal.detail,
                "hint": offender.refusal.hint,
                "statements": offender.statements,
                "line": offender.line,
                "sql": shortened(&offender.sql),
            })
        });
        json!({
            "version": 1,
            "file": file,
            "format": format,
            "statements": self.total.statements,
            "shapes": self.total.shapes,
            "routes": kinds.collect::<Map<_, _>>(),
            "codes": codes.collect::<Map<_, _>>(),
            "refused": offenders.collect::<Vec<_>>(),
        })
    }
}

fn offender_lines(out: &mut String, offender: &Offender) {
    let Offender {
        refusal,
        statements,
        line,
        sql,
    } = offender;
    let _ = writeln!(
        out,
        "\n{} x {statements}, line {line}: {}",
        refusal.code.sqlstate(),
        refusal.message
    );
    let _ = writeln!(out, "    {}", shortened(sql));
    if let Some(detail) = &refusal.detail {
        let _ = writeln!(out, "    Detail: {detail}");
    }
    let _ = writeln!(out, "    Hint: {}", refusal.hint);
}

/// A statement in one line, cut if it is long.
fn shortened(sql: &str) -> String {
    let mut line = String::new();
    for word in sql.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if let Some((at, _)) = line.char_indices().nth(SHOWN) {
            line.truncate(at);
            line.push_str(" ...");
            break;
        }
    }
    line
}
