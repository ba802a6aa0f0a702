//! Sets of plan positions as text, `0-499,777`: short, and readable in a ConfigMap at 3 a.m.

/// Writes ascending numbers as ranges.
#[must_use]
pub fn encode(sorted: &[u32]) -> String {
    let mut text = String::new();
    let mut rest = sorted;
    while let [first, tail @ ..] = rest {
        let run = tail.iter().zip(first.saturating_add(1)..).take_while(|(number, expected)| *number == expected).count();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if run > 0 {
            text.push('-');
            text.push_str(&first.saturating_add(u32::try_from(run).unwrap_or(u32::MAX)).to_string());
        }
        rest = tail.get(run..).unwrap_or_default();
    }
    text
}

/// Reads what [`encode`] wrote; numbers of `bound` and above are refused, so a damaged text cannot fill the memory.
#[must_use]
pub fn decode(text: &str, bound: u32) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    if text.is_empty() {
        return Some(numbers);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let ascending = numbers.last().is_none_or(|before| first > *before);
        if last < first || last >= bound || !ascending {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_back() {
        for set in [vec![], vec![0], vec![0, 1, 2, 5, 7, 8], (0..1000).collect()] {
            assert_eq!(decode(&encode(&set), 1000), Some(set));
        }
        assert_eq!(encode(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn damaged_text_is_refused() {
        for text in ["a", "5-3", "0-4000000000", "3,2", "1,1", "1-", "-", "1,,2", "99999999999"] {
            assert_eq!(decode(text, 1000), None, "{text}");
        }
    }
}
