//! Which words the parser is to take as keywords.

/// Keywords wherever they stand, save next to a period or after AS.
pub(super) fn keeps(word: &str) -> bool {
    matches!(
        word,
        "all"
            | "and"
            | "any"
            | "as"
            | "asc"
            | "between"
            | "by"
            | "case"
            | "collate"
            | "default"
            | "delete"
            | "desc"
            | "distinct"
            | "do"
            | "else"
            | "end"
            | "escape"
            | "except"
            | "false"
            | "fetch"
            | "following"
            | "for"
            | "from"
            | "group"
            | "having"
            | "ilike"
            | "in"
            | "intersect"
            | "into"
            | "is"
            | "join"
            | "lateral"
            | "like"
            | "limit"
            | "merge"
            | "natural"
            | "not"
            | "nowait"
            | "null"
            | "offset"
            | "on"
            | "or"
            | "order"
            | "outer"
            | "overlaps"
            | "placing"
            | "preceding"
            | "returning"
            | "rows"
            | "select"
            | "set"
            | "share"
            | "similar"
            | "then"
            | "true"
            | "unbounded"
            | "union"
            | "update"
            | "using"
            | "when"
            | "where"
            | "window"
            | "with"
            | "both"
            | "leading"
            | "trailing"
    )
}

/// Keywords that a whole operand may end with.
pub(super) fn ends_operand(word: &str) -> bool {
    matches!(word, "null" | "true" | "false" | "end" | "default")
}

/// Keywords that a string may follow. After all other words a string is a typed literal: `date '2024-01-01'`.
pub(super) fn takes_string(word: &str) -> bool {
    keeps(word)
        || matches!(
            word,
            "zone" | "to" | "uescape" | "values" | "symmetric" | "asymmetric" | "variadic"
        )
}

pub(super) fn is_interval_field(word: &str) -> bool {
    matches!(
        word,
        "year" | "month" | "day" | "hour" | "minute" | "second"
    )
}
