//! The known name that a mistyped one was probably meant to be.

/// The nearest of `known` by edit distance, if it is near enough to be what was meant.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Of a name with one or two letters nothing can be guessed.
    let most = (name.chars().count() + 1) / 4;
    known
        .into_iter()
        .map(|k| (distance(name, k), k))
        .filter(|(d, _)| *d <= most)
        .min()
        .map(|(_, k)| k)
}

/// Characters to insert, delete or replace, or neighbours to swap, to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    // A name that long is no slip of the finger; this also bounds the work.
    if a.len().abs_diff(b.len()) > 16 || a.len() > 256 {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (
        a.to_lowercase().chars().collect(),
        b.to_lowercase().chars().collect(),
    );
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_or_nothing() {
        let known = ["shards", "key", "function", "schema"];
        assert_eq!(nearest("shard", known), Some("shards"));
        assert_eq!(nearest("fucntion", known), Some("function"));
        assert_eq!(nearest("Schema", known), Some("schema"));
        assert_eq!(nearest("kye", known), Some("key"));
        assert_eq!(nearest("listen", known), None);
        assert_eq!(nearest("b", ["a"]), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn counts_edits() {
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
