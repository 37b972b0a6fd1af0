//! Line ends: the first one of the data decides which kind all of them are.

/// What ends a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Eol {
    /// No line has ended yet.
    #[default]
    Unknown,
    Nl,
    Cr,
    CrNl,
}

/// Data that breaks the rules for lines, with the words that Postgres has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// A carriage return, where lines end otherwise; `.0`: in csv.
    Return(bool),
    /// A newline, where lines end otherwise; `.0`: in csv.
    Newline(bool),
    /// `\.` with something behind it.
    MarkerCorrupt,
    /// `\.` with another line end than the lines before it.
    MarkerStyle,
}

impl LineFault {
    /// The message of Postgres' error, whose code is 22P04.
    pub fn message(self) -> &'static str {
        match self {
            LineFault::Return(false) => "literal carriage return found in data",
            LineFault::Return(true) => "unquoted carriage return found in data",
            LineFault::Newline(false) => "literal newline found in data",
            LineFault::Newline(true) => "unquoted newline found in data",
            LineFault::MarkerCorrupt => "end-of-copy marker corrupt",
            LineFault::MarkerStyle => "end-of-copy marker does not match previous newline style",
        }
    }

    /// Its hint.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            LineFault::Return(false) => Some("Use \"\\r\" to represent carriage return."),
            LineFault::Return(true) => Some("Use quoted CSV field to represent carriage return."),
            LineFault::Newline(false) => Some("Use \"\\n\" to represent newline."),
            LineFault::Newline(true) => Some("Use quoted CSV field to represent newline."),
            LineFault::MarkerCorrupt | LineFault::MarkerStyle => None,
        }
    }
}

/// What a byte that may end a line does.
pub(super) enum Ends {
    /// It ends the line, this many bytes long.
    With(usize),
    /// The next byte says.
    More,
    Bad(LineFault),
}

impl Eol {
    /// `data[at]` is a newline or carriage return that is no part of a value.
    #[inline]
    pub(super) fn end(&mut self, data: &[u8], at: usize, whole: bool, csv: bool) -> Ends {
        if data[at] == b'\n' {
            return match self {
                Eol::Cr | Eol::CrNl => Ends::Bad(LineFault::Newline(csv)),
                Eol::Unknown | Eol::Nl => {
                    *self = Eol::Nl;
                    Ends::With(1)
                }
            };
        }
        match (*self, data.get(at + 1)) {
            (Eol::Nl, _) => Ends::Bad(LineFault::Return(csv)),
            (Eol::Cr, _) => Ends::With(1),
            (_, None) if !whole => Ends::More,
            (_, Some(b'\n')) => {
                *self = Eol::CrNl;
                Ends::With(2)
            }
            (Eol::CrNl, _) => Ends::Bad(LineFault::Return(csv)),
            (Eol::Unknown, _) => {
                *self = Eol::Cr;
                Ends::With(1)
            }
        }
    }

    /// What follows `\.` at `at`, just behind the dot.
    pub(super) fn marker(self, data: &[u8], at: usize, whole: bool) -> Marker {
        let mut at = at;
        if self == Eol::CrNl {
            match data.get(at) {
                None if !whole => return Marker::More,
                Some(b'\n') => return Marker::Not(LineFault::MarkerStyle),
                Some(b'\r') => at += 1,
                _ => return Marker::Not(LineFault::MarkerCorrupt),
            }
        }
        match (self, data.get(at)) {
            (_, None) if !whole => Marker::More,
            (Eol::Unknown, Some(b'\r' | b'\n'))
            | (Eol::Nl | Eol::CrNl, Some(b'\n'))
            | (Eol::Cr, Some(b'\r')) => Marker::End,
            (_, Some(b'\r' | b'\n')) => Marker::Bad(LineFault::MarkerStyle),
            _ => Marker::Not(LineFault::MarkerCorrupt),
        }
    }
}

/// What `\.` turns out to be.
pub(super) enum Marker {
    End,
    More,
    Bad(LineFault),
    /// Not a marker: in text this fault, in csv a value.
    Not(LineFault),
}
