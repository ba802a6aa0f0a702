//! Why we decide otherwise than BOS, rule by rule.
//!
//! A rule is a predicate over the inputs of a case that says what follows from it: either what BOS's own table would have to see instead
//! (a *rewrite* of the record), or the answer (a *verdict*). All rules together turn BOS's answer into the one we must give, without a
//! look at the one we gave; a rule counts where the answer would be another one without it.

use std::collections::BTreeSet;

use bos_core::model::Phase;
use bos_core::plan::PlannedOperation;
use bos_crds::reasons;

use super::ours::{Answer, bos};
use super::reading::{Image, Reading, Report, Standing};
use super::record::{Cfs, Last, Record, Said};
use super::table::{BOOT_WAIT, POWER_OFF_WAIT, POWER_ON_WAIT};

/// A difference from BOS that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// Power that is undefined, an error or an odd word is unknown, and unknown holds the node. To BOS it is on.
    UnknownPowerHolds,
    /// A node PCS does not name is held and asked for again. BOS drops it at the first missing answer.
    MissingPowerHolds,
    /// A node that reports the right token runs the image, whatever PCS leaves out.
    ReportProvesBoot,
    /// CFS is asked only of nodes that are to be configured. BOS drops every node CFS does not know, off or on.
    CfsAskedOnlyWhenBooted,
    /// A node to be configured that CFS does not know is held and asked for again.
    MissingFromCfsHolds,
    /// No configuration and an empty name for one are the same. BOS goes on until CFS has no name at all.
    NoNameIsNoConfiguration,
    /// Artifacts are compared by their meaning, not as strings.
    ParametersByMeaning,
    /// A node that a session takes, or for which something else is wanted, begins a run of its own, without actions and attempts of
    /// an earlier one.
    RunBeginsAnew,
    /// A node that goes off again is powered on anew. BOS counts on the power-on before it.
    OffAgainIsANewPowerOn,
    /// A deadline is over when it is reached. BOS waits until it is past.
    DeadlineReached,
    /// A report from before the power-on proves nothing.
    OldReportProvesNothing,
    /// A reboot switches off what runs, the wanted image too.
    RebootRestarts,
    /// An actual state that expires does not undo a boot that was proven.
    ExpiryUndoesNothing,
    /// Somebody else switched it on after the session took it: it is not switched off.
    SwitchedOnByAnother,
    /// Somebody else booted it after the session took it: it is not switched off.
    BootedByAnother,
    /// A power-off that was asked for is waited out before anything else is believed.
    PowerOffWaitedOut,
    /// The decision to cycle a node that did not come up stands. BOS may change its mind until something is sent.
    CycleStands,
    /// A node that came on after its power-on was said to have failed is coming up. BOS shows it as one that waits to be switched on.
    OnAfterAll,
    /// A boot leaves a running node alone if nobody knows what it runs.
    UnknownImageIsLeft,
    /// A node that reports something is alive and not cycled for its silence.
    AliveIsNotCycled,
    /// The last attempt leaves the node on.
    LastAttemptLeavesOn,
    /// A node that was given up stays so. In BOS it may turn into one on hold.
    FailureIsFinal,
    /// A node without attempts left fails at once. In BOS the next operator that would act on it says so.
    BudgetSpent,
}

impl Rule {
    pub(crate) const ALL: [Self; 23] = [
        Self::UnknownPowerHolds,
        Self::MissingPowerHolds,
        Self::ReportProvesBoot,
        Self::CfsAskedOnlyWhenBooted,
        Self::MissingFromCfsHolds,
        Self::NoNameIsNoConfiguration,
        Self::ParametersByMeaning,
        Self::RunBeginsAnew,
        Self::OffAgainIsANewPowerOn,
        Self::DeadlineReached,
        Self::OldReportProvesNothing,
        Self::RebootRestarts,
        Self::ExpiryUndoesNothing,
        Self::SwitchedOnByAnother,
        Self::BootedByAnother,
        Self::PowerOffWaitedOut,
        Self::CycleStands,
        Self::OnAfterAll,
        Self::UnknownImageIsLeft,
        Self::AliveIsNotCycled,
        Self::LastAttemptLeavesOn,
        Self::FailureIsFinal,
        Self::BudgetSpent,
    ];

    /// Where the design asks for it: its rules, and the list of BOS behaviour §21.2.
    pub(crate) const fn basis(self) -> &'static str {
        match self {
            Self::UnknownPowerHolds => "rule 2, §21.2 no. 6",
            Self::MissingPowerHolds => "rule 2, §21.2 no. 7",
            Self::OnAfterAll => "rule 4",
            Self::ReportProvesBoot | Self::RebootRestarts | Self::UnknownImageIsLeft => "rule 3",
            Self::OldReportProvesNothing => "rule 3, §21.2 no. 9",
            Self::CfsAskedOnlyWhenBooted => "rule 14, §21.2 no. 7",
            Self::MissingFromCfsHolds => "rule 13, §21.2 no. 7 and 33",
            Self::NoNameIsNoConfiguration => "rule 15",
            Self::ParametersByMeaning => "rule 3, §21.2 no. 23",
            Self::RunBeginsAnew => "API (a run), §21.2 no. 1 and 19",
            Self::OffAgainIsANewPowerOn | Self::DeadlineReached | Self::PowerOffWaitedOut | Self::CycleStands => "rule 4",
            Self::ExpiryUndoesNothing => "rule 4, §21.2 no. 24",
            Self::SwitchedOnByAnother | Self::BootedByAnother => "rule 7",
            Self::AliveIsNotCycled | Self::LastAttemptLeavesOn => "rule 8",
            Self::FailureIsFinal => "rule 15, §21.2 no. 7",
            Self::BudgetSpent => "rule 15",
        }
    }
}

/// The answer we must give, and the rules without which it would be another one.
pub(crate) fn predict(reading: &Reading) -> (Answer, BTreeSet<Rule>) {
    let (answer, mut rules) = apply(reading, |_| true);
    for rule in rules.clone() {
        let fewer: BTreeSet<Rule> = rules.iter().copied().filter(|other| *other != rule).collect();
        if apply(reading, |rule| fewer.contains(&rule)).0 == answer {
            rules = fewer;
        }
    }
    (answer, rules)
}

/// BOS's answer after what some rules say, and those that changed it.
fn apply(reading: &Reading, holds: impl Fn(Rule) -> bool) -> (Answer, BTreeSet<Rule>) {
    let mut rules = BTreeSet::new();
    let mut record = reading.record.clone();
    for (rule, rewrite) in REWRITES.into_iter().filter(|(rule, _)| holds(*rule)) {
        let Some(changed) = rewrite(reading, &record) else { continue };
        if bos(&changed) != bos(&record) {
            rules.insert(rule);
        }
        record = changed;
    }
    let mut answer = bos(&record);
    for (rule, verdict) in VERDICTS.into_iter().filter(|(rule, _)| holds(*rule)) {
        if let Some(said) = verdict(reading, &record, &answer).filter(|said| *said != answer) {
            rules.insert(rule);
            answer = said;
        }
    }
    (answer, rules)
}

type Rewrite = fn(&Reading, &Record) -> Option<Record>;
type Verdict = fn(&Reading, &Record, &Answer) -> Option<Answer>;

const REWRITES: [(Rule, Rewrite); 11] = [
    (Rule::ReportProvesBoot, |reading, record| {
        (reading.booted() && record.power == Said::Missing).then(|| Record { power: Said::On, ..record.clone() })
    }),
    (Rule::CfsAskedOnlyWhenBooted, |_, record| {
        let cfs = Cfs { status: Some("pending".to_owned()), desired: record.configuration.clone() };
        record.cfs.is_none().then(|| Record { cfs: Some(cfs), ..record.clone() })
    }),
    (Rule::NoNameIsNoConfiguration, |_, record| {
        let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let cfs = record.cfs.clone().map(|cfs| Cfs { desired: named(&cfs.desired), ..cfs });
        Some(Record { configuration: named(&record.configuration), cfs, ..record.clone() })
    }),
    (Rule::ParametersByMeaning, |_, record| {
        let (wanted, runs) = (record.wanted()?.digest(), record.runs()?.digest());
        (wanted == runs).then(|| Record { actual: record.desired.clone(), ..record.clone() })
    }),
    (Rule::RunBeginsAnew, |reading, record| {
        let anew = Record { last: Last::Other, last_failed: false, attempts: [0; 3], phase: Phase::None, ..record.clone() };
        (reading.standing == Standing::Fresh).then_some(anew)
    }),
    (Rule::OffAgainIsANewPowerOn, |reading, record| {
        let again = matches!(reading.standing, Standing::PoweringOff | Standing::Configuring) && record.power == Said::Off;
        again.then(|| Record { last: Last::Other, last_failed: false, ..record.clone() })
    }),
    (Rule::DeadlineReached, |reading, record| {
        let reached = record.age.filter(|age| [POWER_ON_WAIT * 1000, BOOT_WAIT * 1000].contains(age));
        let reached = reached.filter(|_| reading.standing == Standing::PoweringOn && record.last == Last::On);
        reached.map(|age| Record { age: Some(age + 1), ..record.clone() })
    }),
    (Rule::OldReportProvesNothing, |reading, record| {
        let old = reading.report == Report::Before(Image::Wanted) && reading.operation == PlannedOperation::Boot;
        let after_power_on = reading.attempts()[0] > 0 && matches!(reading.standing, Standing::PoweringOn | Standing::PoweringOff);
        (old && after_power_on).then(|| Record { actual: None, ..record.clone() })
    }),
    (Rule::RebootRestarts, |reading, record| {
        (reading.operation == PlannedOperation::Reboot).then(|| Record { actual: None, ..record.clone() })
    }),
    (Rule::ExpiryUndoesNothing, |reading, record| {
        let expired = reading.standing == Standing::Configuring && record.runs().is_none();
        expired.then(|| Record { actual: record.desired.clone(), ..record.clone() })
    }),
    (Rule::CycleStands, |reading, record| {
        (reading.standing == Standing::PoweringOff && record.last == Last::On).then(|| Record { age: None, ..record.clone() })
    }),
];

const VERDICTS: [(Rule, Verdict); 12] = [
    (Rule::FailureIsFinal, |reading, _, _| (reading.standing == Standing::Failed).then_some(Answer::Failed(""))),
    (Rule::UnknownPowerHolds, |reading, record, _| held(reading, matches!(record.power, Said::Text(_)))),
    (Rule::MissingPowerHolds, |reading, record, _| held(reading, record.power == Said::Missing)),
    (Rule::UnknownImageIsLeft, |reading, record, _| {
        let boots = reading.standing == Standing::Fresh && reading.operation == PlannedOperation::Boot;
        (boots && record.power == Said::On && record.runs().is_none()).then_some(Answer::Left)
    }),
    (Rule::SwitchedOnByAnother, |reading, record, _| {
        let not_by_us = reading.standing == Standing::PoweringOn && record.last != Last::On;
        let wanted = matches!(reading.report, Report::After(Image::Wanted));
        (not_by_us && record.power == Said::On && !wanted).then_some(Answer::Left)
    }),
    (Rule::BootedByAnother, |reading, record, _| {
        let up = match reading.standing {
            Standing::PoweringOff => reading.attempts()[0] == 0 && !waited_for(reading) && record.power == Said::On,
            Standing::Configuring => matches!(reading.report, Report::After(Image::Other(_))) && record.power != Said::Off,
            Standing::Disabled | Standing::Failed | Standing::Fresh | Standing::PoweringOn => false,
        };
        (up && matches!(reading.report, Report::After(_))).then_some(Answer::Left)
    }),
    (Rule::PowerOffWaitedOut, |reading, record, _| {
        let shown = if record.last == Last::SoftOff { "power_off_gracefully_called" } else { "power_off_forcefully_called" };
        (waited_for(reading) && record.power == Said::On).then_some(Answer::GoesOn(Phase::PoweringOff, shown))
    }),
    (Rule::AliveIsNotCycled, |reading, record, _| {
        let alive = matches!(reading.report, Report::After(Image::Other(_)));
        (alive && overdue(reading, record)).then_some(Answer::Failed(reasons::BOOT_TIMEOUT))
    }),
    (Rule::LastAttemptLeavesOn, |reading, record, _| {
        let last = !reading.booted() && reading.attempts()[0] >= reading.limit();
        (last && overdue(reading, record)).then_some(Answer::Failed(reasons::BOOT_TIMEOUT))
    }),
    (Rule::OnAfterAll, |reading, record, answer| {
        let on = reading.standing == Standing::PoweringOn && record.last == Last::On && record.power == Said::On;
        let waits = *answer == Answer::GoesOn(Phase::PoweringOn, "power_on_pending");
        (on && waits).then_some(Answer::GoesOn(Phase::PoweringOn, "power_on_called"))
    }),
    (Rule::BudgetSpent, |reading, record, answer| {
        let [on, graceful, forceful] = reading.attempts();
        let (used, reason) = match answer {
            // A node that came on after all has until its boot deadline.
            Answer::GoesOn(Phase::PoweringOn, "power_on_pending") if record.power == Said::Off => (on, reasons::POWER_ON_TIMEOUT),
            Answer::GoesOn(Phase::PoweringOff, "power_off_pending") => (graceful, reasons::POWER_OFF_TIMEOUT),
            Answer::GoesOn(Phase::PoweringOff, "power_off_gracefully_called" | "power_off_forcefully_called")
                if reading.asked_off() && !waited_for(reading) =>
            {
                (forceful, reasons::POWER_OFF_TIMEOUT)
            }
            _ => return None,
        };
        (used >= reading.limit()).then_some(Answer::Failed(reason))
    }),
    (Rule::MissingFromCfsHolds, |reading, _, answer| {
        let wanted = reading.record.wants_configuration();
        let configuring = wanted && *answer == Answer::GoesOn(Phase::Configuring, "configuring");
        (configuring && reading.record.cfs.is_none()).then_some(Answer::GoesOn(Phase::Configuring, "on_hold"))
    }),
];

/// On hold in the phase it is in.
fn held(reading: &Reading, unknown: bool) -> Option<Answer> {
    let phase = match reading.standing {
        Standing::Disabled | Standing::Failed => return None,
        Standing::Fresh => Phase::None,
        Standing::PoweringOff => Phase::PoweringOff,
        Standing::PoweringOn => Phase::PoweringOn,
        Standing::Configuring => Phase::Configuring,
    };
    (unknown && !reading.booted()).then_some(Answer::GoesOn(phase, "on_hold"))
}

/// A power-off was asked for, and its time is not over.
fn waited_for(reading: &Reading) -> bool {
    reading.asked_off() && reading.record.age.is_some_and(|age| age < POWER_OFF_WAIT * 1000)
}

/// Powered on by the session, on, and past its boot deadline.
fn overdue(reading: &Reading, record: &Record) -> bool {
    let powered_on = reading.standing == Standing::PoweringOn && record.last == Last::On;
    powered_on && record.power == Said::On && record.older_than(BOOT_WAIT)
}
