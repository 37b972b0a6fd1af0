//! The words of a statement: names, lists in parentheses, and what is told by a word or a sign.

use super::*;

impl Reader<'_> {
    /// `ONLY? table *?, ...`, each perhaps with columns.
    pub(super) fn tables(&mut self) -> Option<Vec<TableRef>> {
        let mut tables = Vec::new();
        loop {
            self.eat("only");
            tables.push(self.table()?);
            self.eat_star();
            self.options()?;
            if !self.eat_punct(b',') {
                return Some(tables);
            }
        }
    }

    /// `schema.table` or `table`.
    pub(super) fn table(&mut self) -> Option<TableRef> {
        let parts = self.parts()?;
        self.made_of(&parts)
    }

    /// The table of `schema.table.column` or `table.column`.
    pub(super) fn table_of_column(&mut self) -> Option<TableRef> {
        let mut parts = self.parts()?;
        parts.pop();
        self.made_of(&parts)
    }

    /// The tokens of a name with dots.
    pub(super) fn parts(&mut self) -> Option<Vec<usize>> {
        name(self.raws.get(self.at)?)?;
        let mut parts = vec![self.at];
        self.at += 1;
        while self.is_punct(b'.') {
            name(self.raws.get(self.at + 1)?)?;
            parts.push(self.at + 1);
            self.at += 2;
        }
        Some(parts)
    }

    pub(super) fn made_of(&self, parts: &[usize]) -> Option<TableRef> {
        let part = |at: usize| Some((name(&self.raws[at])?.to_owned(), self.place(at)));
        let (schema, last) = match parts {
            [last] => (None, *last),
            [schema, last] => (Some(part(*schema)?), *last),
            _ => return None,
        };
        let (name, place) = part(last)?;
        Some(TableRef {
            schema,
            name,
            place,
        })
    }

    pub(super) fn place(&self, at: usize) -> Place {
        let raw = &self.raws[at];
        Place {
            pos: Pos::of(raw.start, self.holes),
            len: (raw.end - raw.start) as u32,
        }
    }

    /// `public.name`, wherever it stands.
    pub(super) fn public_names(&self) -> Vec<SchemaRef> {
        let at = |at: usize| {
            let schema = name(&self.raws[at])?;
            let is = schema == "public"
                && self.punct_at(at + 1, b'.')
                && !(at > 0 && self.punct_at(at - 1, b'.'));
            let table = name(self.raws.get(at + 2)?)?.to_owned();
            is.then(|| SchemaRef {
                schema: schema.to_owned(),
                place: self.place(at),
                table,
            })
        };
        (0..self.raws.len()).filter_map(at).collect()
    }

    /// What lies between commas outside of brackets.
    pub(super) fn elements(&self, from: usize, to: usize) -> Vec<(usize, usize)> {
        let (mut depth, mut start) = (0usize, from);
        let mut elements = Vec::new();
        for at in from..to {
            if self.raws[at].kind != RawKind::Punct {
                continue;
            }
            match self.text[self.raws[at].start] {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth = depth.saturating_sub(1),
                b',' if depth == 0 => {
                    elements.push((start, at));
                    start = at + 1;
                }
                _ => {}
            }
        }
        if start < to {
            elements.push((start, to));
        }
        elements
    }

    pub(super) fn ident(&mut self) -> Option<String> {
        let ident = name(self.raws.get(self.at)?)?.to_owned();
        self.at += 1;
        Some(ident)
    }

    /// Goes behind the next `word`.
    pub(super) fn skip_to(&mut self, word: &str) -> Option<()> {
        while self.at < self.raws.len() {
            if self.eat(word) {
                return Some(());
            }
            self.at += 1;
        }
        None
    }

    pub(super) fn has_all(&self, words: &[&str]) -> bool {
        (0..self.raws.len()).any(|from| {
            words
                .iter()
                .enumerate()
                .all(|(n, word)| self.word(from + n) == Some(word))
        })
    }

    pub(super) fn if_not_exists(&mut self) {
        self.eat_all(&["if", "not", "exists"]);
    }

    pub(super) fn word(&self, at: usize) -> Option<&str> {
        match &self.raws.get(at)?.kind {
            RawKind::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(super) fn eat(&mut self, word: &str) -> bool {
        self.eat_all(&[word])
    }

    pub(super) fn eat_all(&mut self, words: &[&str]) -> bool {
        let all = words
            .iter()
            .enumerate()
            .all(|(n, word)| self.word(self.at + n) == Some(word));
        if all {
            self.at += words.len();
        }
        all
    }

    pub(super) fn eat_star(&mut self) {
        let star = self.raws.get(self.at).is_some_and(|raw| {
            raw.kind == RawKind::Operator && &self.text[raw.start..raw.end] == b"*"
        });
        self.at += usize::from(star);
    }

    pub(super) fn punct_at(&self, at: usize, byte: u8) -> bool {
        self.raws
            .get(at)
            .is_some_and(|raw| raw.kind == RawKind::Punct && self.text[raw.start] == byte)
    }

    pub(super) fn is_punct(&self, byte: u8) -> bool {
        self.punct_at(self.at, byte)
    }

    pub(super) fn eat_punct(&mut self, byte: u8) -> bool {
        let is = self.is_punct(byte);
        self.at += usize::from(is);
        is
    }
}
