//! How much was answered, what was refused, and why.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::compare::Refused;
use super::generator::{Effect, Statement};
use crate::support::wire::Part;

/// What became of a statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Answered,
    /// Answered with this error, or without rows.
    Failed {
        code: String,
    },
    Empty,
    Refused {
        code: String,
        why: String,
    },
}

impl Outcome {
    pub fn answered(answer: &[Part]) -> Outcome {
        let code = answer.iter().find_map(|part| match part {
            Part::Error { code, .. } => Some(code.clone()),
            _ => None,
        });
        let nothing = |part: &Part| match part {
            Part::Row(_) => false,
            Part::Tag(tag) => tag.ends_with(" 0"),
            _ => true,
        };
        match code {
            Some(code) => Outcome::Failed { code },
            None if answer.iter().all(nothing) => Outcome::Empty,
            None => Outcome::Answered,
        }
    }

    fn is_answer(&self) -> bool {
        matches!(
            self,
            Outcome::Answered | Outcome::Failed { .. } | Outcome::Empty
        )
    }

    pub fn refused(refused: &Refused) -> Outcome {
        Outcome::Refused {
            code: refused.code.clone(),
            why: refused.message.replace(|c: char| c.is_ascii_digit(), "N"),
        }
    }
}

/// Counts of one lane, or of all.
#[derive(Default)]
pub struct Tally {
    counts: BTreeMap<(Effect, String, Outcome), (usize, String)>,
    pub differences: Vec<String>,
}

impl Tally {
    pub fn count(&mut self, statement: &Statement, outcome: Outcome, shown: &str) {
        let key = (statement.effect, statement.label.clone(), outcome);
        let (count, _) = self
            .counts
            .entry(key)
            .or_insert_with(|| (0, shown.to_owned()));
        *count += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        for (key, (n, example)) in &other.counts {
            let (count, _) = self
                .counts
                .entry(key.clone())
                .or_insert_with(|| (0, example.clone()));
            *count += n;
        }
        self.differences.extend(other.differences.iter().cloned());
    }

    fn sum(&self, of: impl Fn(&Effect, &Outcome) -> bool) -> usize {
        let counts = self
            .counts
            .iter()
            .filter(|((effect, _, outcome), _)| of(effect, outcome));
        counts.map(|(_, (n, _))| n).sum()
    }

    /// The share of the reads or writes that were answered.
    pub fn share(&self, effect: Effect) -> f64 {
        let answered = self.sum(|e, o| *e == effect && o.is_answer());
        let all = self.sum(|e, _| *e == effect);
        100.0 * answered as f64 / all.max(1) as f64
    }

    /// One line.
    pub fn line(&self) -> String {
        let of = |effect| self.sum(|e, _| *e == effect);
        format!(
            "{:6} reads, {:5.1} % answered; {:6} writes, {:5.1} % answered; {} differences",
            of(Effect::Read),
            self.share(Effect::Read),
            of(Effect::Write),
            self.share(Effect::Write),
            self.differences.len()
        )
    }

    /// The shares by code and the most common refused shapes.
    pub fn refusals(&self, most: usize) -> String {
        let mut out = String::new();
        for (effect, name) in [(Effect::Read, "reads"), (Effect::Write, "writes")] {
            let all = self.sum(|e, _| *e == effect).max(1);
            let mut codes: BTreeMap<String, usize> = BTreeMap::new();
            for ((_, _, outcome), (n, _)) in self.counts.iter().filter(|((e, ..), _)| *e == effect)
            {
                let code = match outcome {
                    Outcome::Answered => continue,
                    Outcome::Failed { code } => format!("(error {code})"),
                    Outcome::Empty => "(no rows)".to_owned(),
                    Outcome::Refused { code, .. } => code.clone(),
                };
                *codes.entry(code).or_default() += n;
            }
            let codes: Vec<String> = codes
                .iter()
                .map(|(code, n)| format!("{code} {:.1} %", 100.0 * *n as f64 / all as f64))
                .collect();
            let _ = writeln!(
                out,
                "{name} refused, failed on both sides, or without rows: {}",
                codes.join(", ")
            );
        }
        let mut shapes: Vec<_> = self
            .counts
            .iter()
            .filter(|((.., o), _)| !o.is_answer())
            .collect();
        shapes.sort_by_key(|(_, (n, _))| std::cmp::Reverse(*n));
        for ((_, label, outcome), (n, example)) in shapes.into_iter().take(most) {
            let why = match outcome {
                Outcome::Refused { code, why } => format!("{code} {why}"),
                _ => unreachable!("filtered above"),
            };
            let _ = writeln!(
                out,
                "{n:6}  {label}: {why}\n          such as {}",
                example.replace('\n', " ")
            );
        }
        out
    }
}
