//! Why our acting operators do otherwise than BOS's, rule by rule: predicates over the inputs that say what we must do instead.

use std::collections::BTreeSet;

use bos_core::batch::Outcome;

use super::case::{Call, Case, Done, Faulty, Meaning, Operator, bos};
use super::ours::{reading, tag_fault};
use crate::decision::reading::Standing;
use crate::decision::record::Record;

/// A difference from BOS that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// HSM is asked at set-up, and what it said is in the plan. BOS asks before every action: a node it lacks waits for ever, and while it
    /// does not answer nothing happens.
    HsmAskedAtSetUp,
    /// A deadline is over when it is reached. BOS waits until it is past.
    DeadlineReached,
    /// What is on record counts as an attempt.
    ActionIsAnAttempt,
    /// A node for which something else was wanted under way begins a run of its own.
    RunBeginsAnew,
    /// No power-on before boot parameters and configuration are confirmed. BOS powers on with what BSS had.
    NoPowerOnUnprepared,
    /// An image that IMS did not tag is not booted.
    NoPowerOnUntagged,
    /// What did not reach the power service is no attempt and is sent as soon as it can be. BOS counts it and waits for a time-out.
    NotSentIsNoAttempt,
    /// A node that a service refuses has failed, with its words. BOS counts an attempt and waits for a time-out.
    RefusedHasFailed,
}

impl Rule {
    pub(crate) const fn basis(self) -> &'static str {
        match self {
            Self::HsmAskedAtSetUp => "rule 14, §21.2 no. 21",
            Self::DeadlineReached => "rule 4",
            Self::ActionIsAnAttempt => "rule 14",
            Self::RunBeginsAnew => "API (a run), §21.2 no. 1",
            Self::NoPowerOnUnprepared => "rule 6, §21.2 no. 3",
            Self::NoPowerOnUntagged => "rule 6, §21.2 no. 4",
            Self::NotSentIsNoAttempt => "rule 14, §21.2 no. 8",
            Self::RefusedHasFailed => "rule 13, §21.2 no. 8",
        }
    }
}

/// What we must do, and the rules that make it something else than what BOS does.
pub(crate) fn predict(case: &Case) -> (Done, BTreeSet<Rule>) {
    let mut rules = BTreeSet::new();
    let mut case = case.clone();
    for (rule, rewrite) in REWRITES {
        let Some(changed) = rewrite(&case) else { continue };
        if bos(&changed) != bos(&case) {
            rules.insert(rule);
        }
        case = changed;
    }
    let mut done = bos(&case);
    for (rule, verdict) in VERDICTS {
        if let Some(changed) = verdict(&case, &done).filter(|changed| *changed != done) {
            rules.insert(rule);
            done = changed;
        }
    }
    (done, rules)
}

type Rewrite = fn(&Case) -> Option<Case>;

const REWRITES: [(Rule, Rewrite); 4] = [
    (Rule::RunBeginsAnew, |case| {
        // On hold, and nobody acts on that.
        let fresh = reading(case).standing == Standing::Fresh;
        let record = Record { overriding: crate::decision::record::Override::OnHold, attempts: [0; 3], ..case.record.clone() };
        fresh.then(|| Case { record, ..case.clone() })
    }),
    (Rule::ActionIsAnAttempt, |case| {
        let record = Record { attempts: reading(case).attempts(), ..case.record.clone() };
        (case.record.enabled).then(|| Case { record, ..case.clone() })
    }),
    (Rule::HsmAskedAtSetUp, |case| {
        let fault = case.fault.filter(|fault| fault.service != Faulty::Hsm);
        Some(Case { known_to_hsm: true, fault, ..case.clone() })
    }),
    (Rule::DeadlineReached, |case| {
        let wait = u64::try_from(case.options.max_power_off_wait.as_millis()).unwrap();
        let reached = case.operator == Operator::Forceful && case.record.age == Some(wait);
        reached.then(|| Case { record: Record { age: Some(wait + 1), ..case.record.clone() }, ..case.clone() })
    }),
];

type Verdict = fn(&Case, &Done) -> Option<Done>;

const VERDICTS: [(Rule, Verdict); 4] = [
    (Rule::NoPowerOnUntagged, |case, done| {
        let outcome = tag_fault(case).filter(|_| done.calls.contains(&Call::BootParameters))?;
        let becomes = matches!(outcome, Outcome::Impossible { .. }).then_some("failed");
        Some(Done { becomes, ..Done::nothing() })
    }),
    (Rule::NoPowerOnUnprepared, |case, done| {
        let fault = case.fault?;
        let last = match fault.service {
            Faulty::Bss => Call::BootParameters,
            Faulty::Cfs => done.calls.iter().find(|call| matches!(call, Call::Configure { .. }))?.clone(),
            Faulty::Hsm | Faulty::Ims | Faulty::CfsRead | Faulty::Pcs => return None,
        };
        let end = done.calls.iter().position(|call| *call == last).filter(|_| case.operator == Operator::PowerOn)?;
        // Neither did power-on happen, nor does it count.
        Some(Done { calls: done.calls[..=end].to_vec(), ..Done::nothing() })
    }),
    (Rule::NotSentIsNoAttempt, |case, done| {
        let unsent = case.fault.is_some_and(|fault| fault.service == Faulty::Pcs && fault.means() == Meaning::NotSent);
        let power = matches!(done.calls.last()?, Call::Power(_));
        (unsent && power).then(|| Done { calls: done.calls.clone(), ..Done::nothing() })
    }),
    (Rule::RefusedHasFailed, |case, done| {
        let fault = case.fault.filter(|fault| fault.means() == Meaning::Refused)?;
        let reached = match done.calls.last()? {
            Call::BootParameters => fault.service == Faulty::Bss,
            Call::Configure { .. } => fault.service == Faulty::Cfs,
            Call::Power(_) => fault.service == Faulty::Pcs,
        };
        reached.then(|| Done { calls: done.calls.clone(), becomes: Some("failed"), ..Done::nothing() })
    }),
];
