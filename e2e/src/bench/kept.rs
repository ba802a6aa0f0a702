//! What must hold however fast it went: what nodes were answered 200 for is shown, and each was cycled as often as asked.

use std::collections::BTreeMap;

use crate::site::{NodeView, PowerEvent, PowerRecord};

/// Nodes whose BootComponent tells of another boot than the last that they were answered 200 for, or of none, with the token of it.
pub(super) fn not_shown<'a>(history: &'a BTreeMap<String, Vec<PowerRecord>>, shown: &BTreeMap<String, String>) -> Vec<(&'a str, &'a str)> {
    let answered = history.iter().filter_map(|(node, records)| {
        let token = records.iter().rev().find_map(|record| match &record.event {
            PowerEvent::ReportAcknowledged { token } => Some(token),
            _ => None,
        })?;
        Some((node.as_str(), token.as_str()))
    });
    answered.filter(|(node, token)| shown.get(*node).map(String::as_str) != Some(token)).collect()
}

/// Nodes that did not lose their power and get it back as often as was asked for, with how often they did.
pub(super) fn not_cycled_as_asked(nodes: &[NodeView], asked: usize) -> Vec<(&str, usize)> {
    nodes.iter().filter(|node| node.power_cycles != asked).map(|node| (node.xname.as_str(), node.power_cycles)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tokens: &[(&str, bool)]) -> Vec<PowerRecord> {
        let event = |token: &str, answered| match answered {
            true => PowerEvent::ReportAcknowledged { token: token.to_owned() },
            false => PowerEvent::ReportSent { token: token.to_owned() },
        };
        tokens.iter().map(|(token, answered)| PowerRecord { at: 1.0, event: event(token, *answered), repeats: 1 }).collect()
    }

    #[test]
    fn what_was_answered_is_to_be_shown() {
        let history = BTreeMap::from([
            ("shown".to_owned(), told(&[("a", true), ("b", false), ("b", true)])),
            ("older".to_owned(), told(&[("a", true), ("b", false), ("b", true)])),
            ("none".to_owned(), told(&[("a", true)])),
            ("unanswered".to_owned(), told(&[("a", false)])),
        ]);
        let shown = [("shown", "b"), ("older", "a")].map(|(node, token)| (node.to_owned(), token.to_owned()));
        assert_eq!(not_shown(&history, &BTreeMap::from(shown)), vec![("none", "a"), ("older", "b")]);
    }
}
