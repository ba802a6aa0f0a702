//! The cases of the recording, and a model of BOS's acting operators (BOS behaviour §5.2, §5.3, §9, §10).

use std::time::Duration;

use bos_core::model::{Phase, PowerAction};
use bos_core::options::Options;
use serde_json::{Map, Value};

use crate::decision::record::{Artifacts, Cfs, Last, Override, Record, Said, attempts, last, overriding, phase};
use crate::decision::table::shown;

/// An operator that acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    PowerOn,
    Graceful,
    Forceful,
    Configuration,
}

/// A call that names the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    BootParameters,
    Configure { name: String, enabled: bool, clear_state: bool },
    Power(PowerAction),
}

/// A service, as far as a fault of it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faulty {
    Hsm,
    Ims,
    Bss,
    /// Reads of CFS.
    CfsRead,
    Cfs,
    Pcs,
}

/// A service that does not do what it is asked; None where no connection comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) service: Faulty,
    pub(crate) code: Option<u64>,
}

/// What a fault means, as the clients of our services read it; their own tests hold the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The service did not get the request, or turned it away unread.
    NotSent,
    /// Nobody knows what came of it.
    Unknown,
    /// It looked at the request and refused it.
    Refused,
}

impl Fault {
    pub(crate) fn means(self) -> Meaning {
        match self.code {
            None | Some(401 | 403) => Meaning::NotSent,
            Some(408 | 429 | 500..) => Meaning::Unknown,
            Some(_) => Meaning::Refused,
        }
    }
}

/// One component in front of one pass of one operator.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) operator: Operator,
    pub(crate) record: Record,
    pub(crate) known_to_hsm: bool,
    pub(crate) options: Options,
    pub(crate) fault: Option<Fault>,
}

/// What an operator did with the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) calls: Vec<Call>,
    /// Attempts more than before.
    pub(crate) counted: [u16; 3],
    /// BOS's computed status, where it becomes another one.
    pub(crate) becomes: Option<&'static str>,
}

impl Done {
    pub(crate) fn nothing() -> Self {
        Self { calls: Vec::new(), counted: [0; 3], becomes: None }
    }
}

impl Case {
    /// The computed status before.
    pub(crate) fn shown(&self) -> &'static str {
        let record = &self.record;
        shown(record.overriding, record.phase, record.last, record.last_failed)
    }
}

/// A recorded case with the defaults filled in; None for the operator we do not have.
pub(crate) fn parse(line: &Value, defaults: &Map<String, Value>) -> Option<Case> {
    let operator = match line["operator"].as_str().unwrap() {
        "power_on" => Operator::PowerOn,
        "power_off_graceful" => Operator::Graceful,
        "power_off_forceful" => Operator::Forceful,
        "configuration" => Operator::Configuration,
        _ => return None,
    };
    let field = |key: &str| line["in"].get(key).unwrap_or(&defaults[key]);
    let text = |key: &str| field(key).as_str().unwrap_or_else(|| panic!("{key} of {line}"));
    let options = options(line["situation"].as_str().unwrap_or_default());
    let phase = phase(text("phase"));
    let present = |key: &str| Some(text(key)).filter(|word| *word != "absent").map(str::to_owned);
    let record = Record {
        desired: Artifacts::named(text("desired")),
        actual: Artifacts::named(text("actual")),
        // What the status operator saw when it chose the phase.
        power: if phase == Phase::PoweringOn { Said::Off } else { Said::On },
        cfs: Some(Cfs { status: Some("pending".to_owned()), desired: present("cfs_config") }),
        configuration: present("config"),
        last: last(text("last_action")),
        last_failed: field("last_failed").as_bool().unwrap(),
        age: field("age").as_f64().map(|seconds| Duration::from_secs_f64(seconds).as_millis().try_into().unwrap()),
        attempts: attempts(field("attempts")),
        phase,
        overriding: overriding(text("override")),
        error: text("error").to_owned(),
        enabled: field("enabled").as_bool().unwrap(),
        retry_policy: Some(limit(field("retry_policy"), &options)),
    };
    Some(Case { operator, record, known_to_hsm: text("hsm") != "unknown", fault: fault(&line["out"]["calls"]), options })
}

/// BOS's code takes -1 for no limit. Its API does not take it, nor does ours; our largest number is the same.
fn limit(policy: &Value, options: &Options) -> u16 {
    match policy.as_i64() {
        None => options.retry_policy,
        Some(limit) => u16::try_from(limit).unwrap_or(u16::MAX),
    }
}

/// The options a situation changes: `name=value`, or `ttl 1h`.
pub(crate) fn options(situation: &str) -> Options {
    let mut options = Options::default();
    let number = |text: &str| text.parse::<u64>().unwrap();
    match situation.split_once('=') {
        Some(("max_power_off_wait_time", value)) => options.max_power_off_wait = Duration::from_secs(number(value)),
        Some(("max_power_on_wait_time", value)) => options.max_power_on_wait = Duration::from_secs(number(value)),
        Some(("max_boot_wait_time", value)) => options.max_boot_wait = Duration::from_secs(number(value)),
        Some(("default_retry_policy", value)) => options.retry_policy = number(value).try_into().unwrap(),
        _ => {}
    }
    options
}

/// The fault that the calls of a case show. A call that failed is an object, a read that failed a pair.
fn fault(calls: &Value) -> Option<Fault> {
    calls.as_array().unwrap().iter().find_map(|call| {
        let (what, code) = match call {
            Value::Array(pair) => (pair[0].as_str().unwrap(), &pair[1]),
            other => (other["call"].as_str().unwrap(), &other["code"]),
        };
        let service = match what {
            _ if what.contains("/hsm/") => Faulty::Hsm,
            _ if what.contains("/images/") => Faulty::Ims,
            _ if what.contains("/bootparameters") => Faulty::Bss,
            _ if what.contains("/transitions") => Faulty::Pcs,
            _ if what.starts_with("GET /v3/components") => Faulty::CfsRead,
            _ if what.contains("/v3/components") => Faulty::Cfs,
            other => panic!("call {other}"),
        };
        (code.as_u64() != Some(200)).then(|| Fault { service, code: code.as_u64() })
    })
}

/// What BOS did.
pub(crate) fn recorded(case: &Case, out: &Value) -> Done {
    let calls = out["calls"].as_array().unwrap().iter().filter_map(|call| {
        let what = call["call"].as_str()?;
        let patch = &call["patch"];
        Some(match call["operation"].as_str() {
            Some("On") => Call::Power(PowerAction::On),
            Some("Soft-Off") => Call::Power(PowerAction::SoftOff),
            Some("Force-Off") => Call::Power(PowerAction::ForceOff),
            Some(other) => panic!("operation {other}"),
            None if what.contains("/bootparameters") => Call::BootParameters,
            None if what.contains("/v3/components") => Call::Configure {
                name: patch["desired_config"].as_str().unwrap_or_default().to_owned(),
                enabled: patch["enabled"].as_bool().unwrap(),
                clear_state: patch.get("state").is_some(),
            },
            // An image is tagged for all nodes that boot it.
            None => return None,
        })
    });
    let phase = case.record.phase;
    let known = [Override::None, Override::OnHold, Override::Failed].into_iter().flat_map(|overriding| {
        let last = [Last::On, Last::SoftOff, Last::ForceOff, Last::Other];
        last.into_iter().flat_map(move |last| [false, true].map(|failed| shown(overriding, phase, last, failed)))
    });
    let word = out["shown"].as_str().unwrap();
    let after = known.into_iter().find(|shown| *shown == word).unwrap_or_else(|| panic!("status {word}"));
    Done {
        calls: calls.collect(),
        counted: more(case.record.attempts, attempts(&out["attempts"])),
        becomes: Some(after).filter(|after| *after != case.shown()),
    }
}

pub(crate) fn more(before: [u16; 3], after: [u16; 3]) -> [u16; 3] {
    [0, 1, 2].map(|counter| after[counter].checked_sub(before[counter]).unwrap())
}

/// BOS's operator: whom it picks, and what it does then.
pub(crate) fn bos(case: &Case) -> Done {
    let record = &case.record;
    let mut done = Done::nothing();
    if !picked(case) {
        return done;
    }
    let (action, counter) = match case.operator {
        Operator::Configuration => {
            let name = record.configuration.clone().unwrap_or_default();
            return Done { calls: vec![Call::Configure { name, enabled: true, clear_state: false }], ..done };
        }
        Operator::PowerOn => (PowerAction::On, 0),
        Operator::Graceful => (PowerAction::SoftOff, 1),
        Operator::Forceful => (PowerAction::ForceOff, 2),
    };
    if record.attempts[counter] >= record.retry_policy.unwrap_or(case.options.retry_policy) {
        return Done { becomes: Some("failed"), ..done };
    }
    let faulty = |service| case.fault.is_some_and(|fault| fault.service == service);
    if case.operator == Operator::PowerOn {
        if record.desired.as_ref().is_some_and(|artifacts| !artifacts.is_empty()) {
            done.calls.push(Call::BootParameters);
        }
        let name = record.configuration.clone().unwrap_or_default();
        done.calls.push(Call::Configure { name, enabled: false, clear_state: true });
    }
    if !(case.operator == Operator::PowerOn && faulty(Faulty::Cfs)) {
        done.calls.push(Call::Power(action));
    }
    done.counted[counter] += 1;
    let after = match action {
        PowerAction::On => "power_on_called",
        PowerAction::SoftOff => "power_off_gracefully_called",
        PowerAction::ForceOff => "power_off_forcefully_called",
    };
    done.becomes = Some(after).filter(|after| *after != case.shown());
    done
}

fn picked(case: &Case) -> bool {
    let (record, shown) = (&case.record, case.shown());
    let query = match case.operator {
        Operator::PowerOn => shown == "power_on_pending",
        Operator::Graceful => shown == "power_off_pending",
        Operator::Forceful => {
            let asked = matches!(shown, "power_off_gracefully_called" | "power_off_forcefully_called");
            asked && record.older_than(case.options.max_power_off_wait.as_secs())
        }
        Operator::Configuration => shown == "configuring",
    };
    let filtered = match case.operator {
        Operator::PowerOn | Operator::Graceful | Operator::Forceful => {
            case.known_to_hsm && case.fault.is_none_or(|fault| fault.service != Faulty::Hsm)
        }
        Operator::Configuration => {
            let seen = record.cfs.as_ref().filter(|_| case.fault.is_none_or(|fault| fault.service != Faulty::CfsRead));
            seen.is_some_and(|cfs| cfs.desired != record.configuration)
        }
    };
    record.enabled && query && filtered
}
