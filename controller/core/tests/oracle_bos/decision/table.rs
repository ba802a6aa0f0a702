//! A model of BOS's status operator: the table of BOS behaviour §8.2, what it writes (§8.3), and the computed status (§2.9).

use bos_core::model::Phase;
use serde_json::Value;

use super::record::{self, Artifacts, Last, Override, Record, Said};

pub(crate) const POWER_ON_WAIT: u64 = 120;
pub(crate) const BOOT_WAIT: u64 = 1200;
pub(crate) const POWER_OFF_WAIT: u64 = 300;

/// What the first row that matches says.
struct Row {
    number: u8,
    phase: Phase,
    disable: bool,
    overriding: Override,
    error: Option<String>,
    last_failed: bool,
}

impl Row {
    fn goes_on(number: u8, phase: Phase) -> Self {
        Self { number, phase, disable: false, overriding: Override::None, error: None, last_failed: false }
    }

    fn done(number: u8) -> Self {
        Self { disable: true, ..Self::goes_on(number, Phase::None) }
    }

    fn dropped(number: u8, service: &str) -> Self {
        let error = Some(format!("Component information was not returned by {service}"));
        Self { overriding: Override::OnHold, error, ..Self::done(number) }
    }

    fn failed(number: u8, error: String) -> Self {
        Self { disable: true, overriding: Override::Failed, error: Some(error), ..Self::goes_on(number, Phase::Configuring) }
    }
}

/// The record after the pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) phase: Phase,
    pub(crate) overriding: Override,
    pub(crate) enabled: bool,
    pub(crate) error: String,
    pub(crate) last_failed: bool,
    pub(crate) attempts: [u16; 3],
    /// The actual state was emptied.
    pub(crate) cleared: bool,
    /// The computed status.
    pub(crate) shown: &'static str,
}

/// What the pass does to the record, and the row that says so (None where it does not look at the component).
pub(crate) fn pass(record: &Record) -> (Option<u8>, After) {
    pass_with(record, POWER_ON_WAIT, BOOT_WAIT)
}

/// The same, where these options are others.
pub(crate) fn pass_with(record: &Record, power_on_wait: u64, boot_wait: u64) -> (Option<u8>, After) {
    let unchanged = After {
        phase: record.phase,
        overriding: record.overriding,
        enabled: record.enabled,
        error: record.error.clone(),
        last_failed: record.last_failed,
        attempts: record.attempts,
        cleared: false,
        shown: shown(record.overriding, record.phase, record.last, record.last_failed),
    };
    if !record.enabled {
        return (None, unchanged);
    }
    let mut row = row(record, power_on_wait, boot_wait);
    if record.overriding == Override::Failed && row.number > 2 {
        row.disable = true;
        row.overriding = Override::Failed;
    }
    let last_failed = record.last_failed || row.last_failed;
    let after = After {
        phase: row.phase,
        overriding: row.overriding,
        enabled: !row.disable,
        error: row.error.unwrap_or(unchanged.error),
        last_failed,
        attempts: if row.phase == Phase::None && record.phase != Phase::None { [0; 3] } else { record.attempts },
        cleared: record.phase == Phase::PoweringOff && row.phase != Phase::PoweringOff,
        shown: shown(row.overriding, row.phase, record.last, last_failed),
    };
    (Some(row.number), after)
}

fn row(record: &Record, power_on_wait: u64, boot_wait: u64) -> Row {
    if record.power == Said::Missing {
        return Row::dropped(1, "pcs");
    }
    let Some(cfs) = &record.cfs else {
        let undefined = matches!(&record.power, Said::Text(text) if text == "undefined");
        return Row::dropped(2, if undefined { "pcs" } else { "cfs" });
    };
    let powered_on = record.last == Last::On;
    match (record.power == Said::Off, record.wanted().is_some()) {
        (true, false) => Row::done(3),
        (true, true) if powered_on && record.older_than(power_on_wait) => Row { last_failed: true, ..Row::goes_on(4, Phase::PoweringOn) },
        (true, true) => Row::goes_on(5, Phase::PoweringOn),
        (false, false) => Row::goes_on(6, Phase::PoweringOff),
        (false, true) if matches(record.desired.as_ref(), record.actual.as_ref()) => {
            if record.configuration != cfs.desired {
                return Row::goes_on(7, Phase::Configuring);
            }
            match cfs.status.as_deref().unwrap_or_default() {
                _ if !record.wants_configuration() => Row::done(8),
                "configured" => Row::done(9),
                "failed" => Row::failed(10, "cfs configuration failed".to_owned()),
                "pending" => Row::goes_on(11, Phase::Configuring),
                other => Row::failed(12, format!("cfs is not reporting a valid configuration status for this component: {other}")),
            }
        }
        (false, true) if powered_on && !record.older_than(boot_wait) => Row::goes_on(13, Phase::PoweringOn),
        (false, true) => Row::goes_on(14, Phase::PoweringOff),
    }
}

/// Whether two sets are the same to BOS: as strings, but for missing parameters.
fn matches(desired: Option<&Artifacts>, actual: Option<&Artifacts>) -> bool {
    let (Some(desired), Some(actual)) = (desired, actual) else { return desired.is_none() && actual.is_none() };
    let params = |artifacts: &Artifacts| artifacts.params.clone().unwrap_or_default();
    desired.kernel == actual.kernel && desired.initrd == actual.initrd && params(desired) == params(actual)
}

/// The computed status, BOS behaviour §2.9.
pub(crate) fn shown(overriding: Override, phase: Phase, last: Last, last_failed: bool) -> &'static str {
    match (overriding, phase, last) {
        (Override::OnHold, ..) => "on_hold",
        (Override::Failed, ..) => "failed",
        (Override::None, Phase::PoweringOn, Last::On) if !last_failed => "power_on_called",
        (Override::None, Phase::PoweringOn, _) => "power_on_pending",
        (Override::None, Phase::PoweringOff, Last::SoftOff) => "power_off_gracefully_called",
        (Override::None, Phase::PoweringOff, Last::ForceOff) => "power_off_forcefully_called",
        (Override::None, Phase::PoweringOff, _) => "power_off_pending",
        (Override::None, Phase::Configuring, _) => "configuring",
        (Override::None, Phase::None, _) => "stable",
    }
}

/// What BOS really did.
pub(crate) fn recorded(out: &Value, record: &Record) -> After {
    let shown = |name: &str| {
        let all = [
            "on_hold",
            "failed",
            "power_on_called",
            "power_on_pending",
            "power_off_gracefully_called",
            "power_off_forcefully_called",
            "power_off_pending",
            "configuring",
            "stable",
        ];
        all.into_iter().find(|known| *known == name).unwrap_or_else(|| panic!("status {name}"))
    };
    After {
        phase: record::phase(out["phase"].as_str().unwrap_or_default()),
        overriding: record::overriding(out["override"].as_str().unwrap_or_default()),
        enabled: out["enabled"].as_bool().unwrap_or(record.enabled),
        error: out["error"].as_str().unwrap_or_default().to_owned(),
        last_failed: out["last_failed"].as_bool().unwrap_or_default(),
        attempts: record::attempts(&out["attempts"]),
        cleared: out["cleared"].as_bool().unwrap_or_default(),
        shown: shown(out["shown"].as_str().unwrap_or_default()),
    }
}
