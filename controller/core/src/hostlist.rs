//! Folds many node names into a short text for people, for example `x1000c1s[0-1]b0n0,x1000c2s4b0n0`.
//!
//! Statuses and messages are bounded; a list of ten thousand names is not. Names that differ in one position are folded into
//! a range of that position; whatever still does not fit is counted: `x1000c0s[0-7]b[0-1]n[0-1] +96 more`.

use std::fmt::Write as _;

use crate::xname::Xname;

const LETTERS: [char; 5] = ['x', 'c', 's', 'b', 'n'];

/// One folded group of names: a set of numbers at each of the five positions.
#[derive(Clone, PartialEq, Eq)]
struct Block([Vec<u32>; 5]);

impl Block {
    fn parse(name: &Xname) -> Option<Self> {
        let mut numbers = name.as_str().split(|c: char| c.is_ascii_alphabetic()).skip(1).map(|digits| digits.parse::<u32>().ok());
        let mut next = || numbers.next().flatten().map(|number| vec![number]);
        Some(Self([next()?, next()?, next()?, next()?, next()?]))
    }

    /// The numbers at all positions but one.
    fn others(&self, position: usize) -> impl Iterator<Item = &Vec<u32>> {
        self.0.iter().enumerate().filter(move |(at, _)| *at != position).map(|(_, numbers)| numbers)
    }

    /// How many names the block stands for.
    fn len(&self) -> usize {
        self.0.iter().map(Vec::len).product()
    }

    fn render(&self) -> String {
        let mut out = String::new();
        for (letter, numbers) in LETTERS.iter().zip(&self.0) {
            out.push(*letter);
            render_numbers(numbers, &mut out);
        }
        out
    }
}

/// Folds `names` into at most `max_chars` characters.
///
/// The order of `names` does not matter and repeated names count once. Groups that do not fit are replaced by
/// ` +N more`, where N counts nodes. When not even one name fits, the text is only the count, for example `250 nodes`.
#[must_use]
pub fn fold<'a>(names: impl IntoIterator<Item = &'a Xname>, max_chars: usize) -> String {
    let mut blocks: Vec<Block> = names.into_iter().filter_map(Block::parse).collect();
    blocks.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    blocks.dedup();
    let total = blocks.len();
    // The numbers that vary fastest first: nodes of a BMC, BMCs of a slot, slots of a chassis and so on.
    for position in (0..LETTERS.len()).rev() {
        blocks = merge(blocks, position);
    }
    blocks.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    bounded(&blocks, total, max_chars)
}

/// Merges the blocks that differ in nothing but the numbers at `position`.
fn merge(mut blocks: Vec<Block>, position: usize) -> Vec<Block> {
    blocks.sort_by(|a, b| a.others(position).cmp(b.others(position)));
    let mut merged: Vec<Block> = Vec::with_capacity(blocks.len());
    for block in blocks {
        let same = merged.last_mut().filter(|last| last.others(position).eq(block.others(position)));
        match same.and_then(|last| last.0.get_mut(position)).zip(block.0.get(position)) {
            Some((into, from)) => into.extend(from),
            None => merged.push(block),
        }
    }
    for numbers in merged.iter_mut().filter_map(|block| block.0.get_mut(position)) {
        numbers.sort_unstable();
    }
    merged
}

fn bounded(blocks: &[Block], total: usize, max_chars: usize) -> String {
    let mut out = String::new();
    let mut shown = 0;
    for block in blocks {
        let text = block.render();
        let comma = usize::from(!out.is_empty());
        let left = total.saturating_sub(shown + block.len());
        let tail = if left == 0 { 0 } else { more(left).len() };
        if out.len() + comma + text.len() + tail > max_chars {
            break;
        }
        if comma == 1 {
            out.push(',');
        }
        out.push_str(&text);
        shown += block.len();
    }
    if shown == total {
        return out;
    }
    if shown == 0 { without_folding(blocks, total, max_chars) } else { out + &more(total.saturating_sub(shown)) }
}

/// The first name alone, for when the first group is longer than the room there is.
fn without_folding(blocks: &[Block], total: usize, max_chars: usize) -> String {
    let first = blocks.first().map(|block| Block(block.0.clone().map(|numbers| numbers.into_iter().take(1).collect())));
    let text = first.map(|block| block.render()).unwrap_or_default();
    let named = if total > 1 { text + &more(total - 1) } else { text };
    if named.len() <= max_chars { named } else { count_only(total, max_chars) }
}

fn count_only(total: usize, max_chars: usize) -> String {
    let text = format!("{total} {}", if total == 1 { "node" } else { "nodes" });
    if text.len() <= max_chars { text } else { String::new() }
}

fn more(count: usize) -> String {
    format!(" +{count} more")
}

fn render_numbers(numbers: &[u32], out: &mut String) {
    if let [only] = numbers {
        let _ = write!(out, "{only}");
        return;
    }
    out.push('[');
    let mut rest = numbers.iter().copied().peekable();
    let mut first = true;
    while let Some(start) = rest.next() {
        let mut end = start;
        while let Some(next) = rest.next_if(|next| end.checked_add(1) == Some(*next)) {
            end = next;
        }
        if !first {
            out.push(',');
        }
        first = false;
        let _ = if start == end { write!(out, "{start}") } else { write!(out, "{start}-{end}") };
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<Xname> {
        texts.iter().map(|text| Xname::parse(text).unwrap()).collect()
    }

    #[test]
    fn folds_neighbours_into_ranges() {
        let cases: [(&[&str], &str); 6] = [
            (&[], ""),
            (&["x1c0s0b0n0"], "x1c0s0b0n0"),
            (&["x1000c1s1b0n0", "x1000c2s4b0n0", "x1000c1s0b0n0"], "x1000c1s[0-1]b0n0,x1000c2s4b0n0"),
            (&["x1c0s0b0n0", "x1c0s0b0n1", "x1c0s0b1n0", "x1c0s0b1n1"], "x1c0s0b[0-1]n[0-1]"),
            (&["x1c0s0b0n0", "x1c0s0b0n2", "x1c0s0b0n3", "x1c0s0b0n0"], "x1c0s0b0n[0,2-3]"),
            (&["x1c0s10b0n0", "x1c0s9b0n0", "x2c0s9b0n0"], "x1c0s[9-10]b0n0,x2c0s9b0n0"),
        ];
        for (given, want) in cases {
            assert_eq!(fold(&names(given), 200), want);
        }
    }

    #[test]
    fn counts_what_does_not_fit() {
        let many = names(&["x1c0s0b0n0", "x2c0s1b0n0", "x3c0s2b0n0", "x3c0s2b0n1"]);
        assert_eq!(fold(&many, 200), "x1c0s0b0n0,x2c0s1b0n0,x3c0s2b0n[0-1]");
        assert_eq!(fold(&many, 30), "x1c0s0b0n0,x2c0s1b0n0 +2 more");
        assert_eq!(fold(&many, 28), "x1c0s0b0n0 +3 more");
        assert_eq!(fold(&many, 10), "4 nodes");
        assert_eq!(fold(&many, 3), "");
        let odd: Vec<_> = (0..50).map(|n| Xname::parse(&format!("x1c0s{}b0n0", n * 2)).unwrap()).collect();
        assert_eq!(fold(&odd, 24), "x1c0s0b0n0 +49 more");
    }

    #[test]
    fn ten_thousand_names_are_one_line() {
        let all: Vec<_> = (0..10_000u32)
            .map(|n| Xname::parse(&format!("x{}c{}s{}b{}n{}", 1000 + n / 256, n / 32 % 8, n / 4 % 8, n / 2 % 2, n % 2)).unwrap())
            .collect();
        assert_eq!(fold(&all, 200), "x[1000-1038]c[0-7]s[0-7]b[0-1]n[0-1],x1039c0s[0-3]b[0-1]n[0-1]");
    }

    proptest::proptest! {
        #[test]
        fn never_longer_than_allowed(seed in proptest::collection::vec((0u32..3, 0u32..3, 0u32..12, 0u32..2, 0u32..2), 0..60), max in 0usize..120) {
            let list: Vec<_> = seed.iter().map(|(x, c, s, b, n)| Xname::parse(&format!("x{x}c{c}s{s}b{b}n{n}")).unwrap()).collect();
            proptest::prop_assert!(fold(&list, max).len() <= max);
        }

        #[test]
        fn unbounded_text_expands_to_the_same_names(seed in proptest::collection::btree_set((0u32..3, 0u32..3, 0u32..12, 0u32..2, 0u32..2), 0..80)) {
            let list: Vec<_> = seed.iter().map(|(x, c, s, b, n)| Xname::parse(&format!("x{x}c{c}s{s}b{b}n{n}")).unwrap()).collect();
            let mut want: Vec<_> = list.iter().map(|name| name.as_str().to_owned()).collect();
            let mut got = expand(&fold(&list, usize::MAX));
            want.sort();
            got.sort();
            proptest::prop_assert_eq!(got, want);
        }
    }

    /// The inverse of folding, written independently for the property above.
    fn expand(text: &str) -> Vec<String> {
        let mut depth = 0;
        let mut groups = vec![String::new()];
        for c in text.chars() {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            if c == ',' && depth == 0 { groups.push(String::new()) } else { groups.last_mut().unwrap().push(c) }
        }
        groups.iter().filter(|group| !group.is_empty()).flat_map(|group| expand_group(group)).collect()
    }

    fn expand_group(group: &str) -> Vec<String> {
        let Some((head, rest)) = group.split_once('[') else { return vec![group.to_owned()] };
        let (ranges, tail) = rest.split_once(']').unwrap();
        let mut out = Vec::new();
        for range in ranges.split(',') {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            for n in from.parse::<u32>().unwrap()..=to.parse::<u32>().unwrap() {
                out.extend(expand_group(&format!("{head}{n}{tail}")));
            }
        }
        out
    }
}
