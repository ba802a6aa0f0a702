//! The recorded populations, and a model of BOS's extended session status (BOS behaviour §2.6).

use std::collections::BTreeMap;

use bos_core::hostlist;
use bos_core::model::Phase;
use bos_core::xname::Xname;
use serde_json::{Map, Value};

use crate::decision::record::{Last, Override, last, overriding, phase};
use crate::decision::table::shown;

/// One component, as far as the status of session S asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) xname: Xname,
    /// `S`, `T` for another session, or empty.
    pub(crate) owner: String,
    pub(crate) enabled: bool,
    pub(crate) phase: Phase,
    pub(crate) overriding: Override,
    pub(crate) last: Last,
    pub(crate) last_failed: bool,
    pub(crate) error: String,
    /// Staged by session S.
    pub(crate) staged: bool,
    /// Nothing ever happened to it.
    pub(crate) untouched: bool,
}

impl Member {
    pub(crate) fn owned(&self) -> bool {
        self.owner == "S"
    }

    pub(crate) fn shown(&self) -> &'static str {
        shown(self.overriding, self.phase, self.last, self.last_failed)
    }

    /// Session S had it, and another session or a person has it now.
    pub(crate) fn taken_over(&self) -> bool {
        !self.owned() && !self.staged && !self.untouched
    }
}

/// The members of a line, in the order of their ids.
pub(crate) fn members(line: &Value, kinds: &Map<String, Value>) -> Vec<Member> {
    let runs = line["members"].as_array().unwrap().iter();
    let all = runs.flat_map(|run| std::iter::repeat_n(run[0].as_str().unwrap(), usize::try_from(run[1].as_u64().unwrap()).unwrap()));
    let keyless = line["label"] == "records without error";
    all.enumerate().map(|(index, kind)| Member { ..member(index, &kinds[kind], keyless) }).collect()
}

fn member(index: usize, kind: &Value, keyless: bool) -> Member {
    let text = |position: usize| kind[position].as_str().unwrap_or_default().to_owned();
    Member {
        xname: Xname::parse(&format!("x1000c0s{}b0n{}", index / 4, index % 4)).unwrap(),
        owner: text(0),
        enabled: kind[1].as_bool().unwrap(),
        phase: phase(&text(2)),
        overriding: overriding(&text(3)),
        last: last(&text(4)),
        last_failed: kind[5].as_bool().unwrap(),
        // A record without an error has none.
        error: if keyless { String::new() } else { text(6) },
        staged: kind[7] == "S",
        untouched: kind[4] == "newly_discovered",
    }
}

/// Numbers of nodes, and errors with the nodes that have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) managed: usize,
    pub(crate) staged: usize,
    pub(crate) successful: usize,
    pub(crate) failed: usize,
    pub(crate) complete: usize,
    pub(crate) powering_on: usize,
    pub(crate) powering_off: usize,
    pub(crate) configuring: usize,
    /// Text, number of nodes, and their names folded.
    pub(crate) errors: BTreeMap<String, (usize, String)>,
}

impl Numbers {
    /// BOS's percentages: complete, configuring, failed, powering off, powering on, staged, successful.
    pub(crate) fn percentages(&self) -> [f64; 7] {
        let numbers = [self.complete, self.configuring, self.failed, self.powering_off, self.powering_on, self.staged, self.successful];
        numbers.map(|number| percent(number, self.managed))
    }
}

/// Two digits, rounded half to even on binary floats.
pub(crate) fn percent(number: usize, of: usize) -> f64 {
    if of == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "numbers of nodes are small")]
    let exact = 100.0 * (number as f64 / of as f64);
    format!("{exact:.2}").parse().unwrap()
}

/// What BOS makes of a population.
pub(crate) fn bos(members: &[Member]) -> Numbers {
    let owned: Vec<&Member> = members.iter().filter(|member| member.owned()).collect();
    let staged = members.iter().filter(|member| member.staged).count();
    let shown = |word: &str| owned.iter().filter(|member| member.shown() == word).count();
    let driven = |phase: Phase| {
        owned.iter().filter(|member| member.enabled && member.overriding != Override::OnHold && member.phase == phase).count()
    };
    let mut errors: BTreeMap<String, Vec<&Xname>> = BTreeMap::new();
    for member in owned.iter().filter(|member| !member.error.is_empty()) {
        errors.entry(member.error.clone()).or_default().push(&member.xname);
    }
    Numbers {
        managed: owned.len() + staged,
        staged,
        successful: shown("stable"),
        failed: shown("failed"),
        complete: shown("stable") + shown("failed"),
        powering_on: driven(Phase::PoweringOn),
        powering_off: driven(Phase::PoweringOff),
        configuring: driven(Phase::Configuring),
        errors: errors.into_iter().map(|(text, nodes)| (text, (nodes.len(), fold(nodes)))).collect(),
    }
}

pub(crate) fn fold<'a>(nodes: impl IntoIterator<Item = &'a Xname>) -> String {
    hostlist::fold(nodes, 240)
}

/// Whether the model's numbers are those BOS answered.
pub(crate) fn is_recorded(numbers: &Numbers, body: &Value) -> bool {
    let phases = &body["phases"];
    let percentages = [
        &phases["percent_complete"],
        &phases["percent_configuring"],
        &body["percent_failed"],
        &phases["percent_powering_off"],
        &phases["percent_powering_on"],
        &body["percent_staged"],
        &body["percent_successful"],
    ];
    let summary = body["error_summary"].as_object().unwrap();
    let errors = summary.iter().all(|(text, group)| {
        // Of many only some are named.
        let named = group["list"].as_str().map(|list| list.split(',').map(|id| Xname::parse(id).unwrap()).collect::<Vec<_>>());
        numbers.errors.get(text).is_some_and(|(count, nodes)| {
            group["count"].as_u64() == Some(*count as u64) && named.is_none_or(|named| fold(&named) == *nodes)
        })
    });
    body["managed_components_count"].as_u64() == Some(numbers.managed as u64)
        && numbers.percentages().iter().zip(percentages).all(|(number, recorded)| recorded.as_f64() == Some(*number))
        && errors
        && summary.len() == numbers.errors.len()
}
