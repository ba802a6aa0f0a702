//! What a program's `/metrics` says, and what docs/metrics.md says of it.

use std::collections::{BTreeMap, BTreeSet};

/// A figure: its type and the names of its labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figure {
    /// counter, gauge, histogram or info.
    pub kind: String,
    /// Without `le`.
    pub labels: BTreeSet<String>,
}

/// Figures by the name that is used in expressions, without the suffixes of histograms.
pub type Listed = BTreeMap<String, Figure>;

/// The figures that the section of a program lists in a table of name, type and labels.
#[must_use]
pub fn documented(text: &str, program: &str) -> Listed {
    let heading = format!("## {program}");
    let section = text.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with("## "));
    section.filter(|line| line.starts_with("| `bos_")).filter_map(row).collect()
}

fn row(line: &str) -> Option<(String, Figure)> {
    let mut cells = line.trim_matches('|').split('|').map(str::trim);
    let name = cells.next()?.trim_matches('`').to_owned();
    let kind = cells.next()?.to_owned();
    let labels = cells.next()?.split(',').map(|label| label.trim().trim_matches('`')).filter(|label| !label.is_empty());
    Some((name, Figure { kind, labels: labels.map(str::to_owned).collect() }))
}

/// The figures in an answer of `/metrics`, in the OpenMetrics text format.
#[must_use]
pub fn written(text: &str) -> Listed {
    let mut listed = Listed::new();
    let mut now = String::new();
    for line in text.lines() {
        if let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            now = match kind {
                "counter" => format!("{family}_total"),
                "info" => format!("{family}_info"),
                _ => family.to_owned(),
            };
            listed.insert(now.clone(), Figure { kind: kind.to_owned(), labels: BTreeSet::new() });
        } else if !line.starts_with('#')
            && let Some((_, labels)) = line.split_once('{').and_then(|(name, rest)| Some((name, rest.rsplit_once('}')?.0)))
            && let Some(figure) = listed.get_mut(&now)
        {
            // No value of ours has a comma or an equals sign in it.
            let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
            figure.labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    // Named, and without a value: nothing of that kind is there.
    listed.retain(|name, figure| !figure.labels.is_empty() || has_value(text, name, &figure.kind));
    listed
}

fn has_value(text: &str, name: &str, kind: &str) -> bool {
    let sample = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
    text.lines().any(|line| line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with([' ', '{'])))
}

/// The names of figures in a text of any kind (`bos_...`), without the suffixes of histograms that `known` has.
#[must_use]
pub fn named(text: &str, known: &Listed) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let base = |word: &str| {
        let suffixes = ["_bucket", "_sum", "_count"];
        let histogram = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
        let histogram = histogram.filter(|base| known.get(*base).is_some_and(|figure| figure.kind == "histogram"));
        histogram.unwrap_or(word).to_owned()
    };
    words.filter(|word| word.starts_with("bos_")).map(base).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = "# Metrics\n\n## bos-operator\n\n| Name | Type | Labels | Says |\n|---|---|---|---|\n| `bos_nodes` | gauge | `status` | n |\n| `bos_calls_total` | counter | `a`, `b` | n |\n| `bos_lag_seconds` | histogram | | n |\n\n## bos-webhook\n\n| `bos_webhook_reviews_total` | counter | | n |\n";

    #[test]
    fn both_are_read_alike() {
        let text = "# HELP bos_nodes n.\n# TYPE bos_nodes gauge\nbos_nodes{status=\"Failed\"} 2\n# TYPE bos_calls counter\nbos_calls_total{a=\"x\",b=\"y\"} 1\n# TYPE bos_lag_seconds histogram\nbos_lag_seconds_sum 1\nbos_lag_seconds_count 1\nbos_lag_seconds_bucket{le=\"1\"} 1\n# EOF\n";
        assert_eq!(documented(DOC, "bos-operator"), written(text));
        assert_eq!(documented(DOC, "bos-webhook").len(), 1);
        assert!(written("# TYPE bos_nodes gauge\n# EOF\n").is_empty(), "named, and not there");
    }

    #[test]
    fn names_are_found_in_expressions() {
        let known = documented(DOC, "bos-operator");
        let found = named("sum(rate(bos_lag_seconds_bucket{job=\"bos_x\"}[5m])) / bos_nodes_count > 1 and bos:recorded", &known);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["bos_lag_seconds", "bos_nodes_count", "bos_x"], "only a histogram has these suffixes");
    }
}
