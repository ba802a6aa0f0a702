//! A model of BOS at work: its operators one after the other, every so many seconds, over one component (BOS behaviour §7 to §11).
//!
//! With BOS's pause between two passes it must do what is recorded, to the second. Without a pause, and with the rules of `rules.rs`
//! instead of what BOS does there, it says what our core must do.

use bos_core::model::{Phase, PowerAction};
use bos_crds::{Operation, reasons};

use super::rules::Rule;
use super::scenario::{Deed, Parameters, Service};
use super::site::{Code, Site, Token};
use crate::acting::case::{Call, Fault, Faulty, Meaning};
use crate::decision::record::{Artifacts, Cfs, Last, Override, Record, Said};
use crate::decision::table::{pass_with, shown};

/// How a node's part in a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    /// For a reason of our registry.
    Failed(&'static str),
    /// Left as it runs.
    Left,
    /// Another session has it.
    Superseded,
    /// BOS let go of it, neither done nor failed.
    Dropped,
    /// The session was over before it began.
    NotSetUp,
}

/// What left, and how each session ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Timeline {
    pub(crate) calls: Vec<(u64, Call, Code)>,
    pub(crate) ends: Vec<Option<(u64, End)>>,
}

/// Between two passes, the order of the operators, and where in the second the clock stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) poll: u64,
    pub(crate) flow: bool,
    pub(crate) fraction: u64,
}

/// BOS as it would be without pauses.
pub(crate) const AT_ONCE: Pace = Pace { poll: 1000, flow: true, fraction: 500 };

#[derive(Debug, Clone)]
struct Component {
    enabled: bool,
    phase: Phase,
    overriding: Override,
    last: Last,
    last_failed: bool,
    last_time: u64,
    attempts: [u16; 3],
    desired: Option<String>,
    configuration: String,
    actual: Option<(String, u64)>,
    error: String,
    owner: Option<usize>,
    end: Option<End>,
    /// What the rules look at beside the record.
    suspended: bool,
    held_since: Option<u64>,
    configuring_since: Option<u64>,
    powered_on: Option<u64>,
    unheard: bool,
    /// BSS has the parameters for the power-on to come, and CFS the configuration.
    stored: bool,
    configured: bool,
    given_back: u32,
    powered_off: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pending,
    Running,
    Complete,
}

pub(crate) struct Bos<'a> {
    parameters: &'a Parameters,
    pace: Pace,
    holds: &'a dyn Fn(Rule) -> bool,
    site: Site,
    sessions: Vec<(Operation, Stage)>,
    node: Component,
    now: u64,
    heard: Option<u64>,
    line: Timeline,
}

const HELD: u64 = 900_000;
/// PCS may go on saying what it saw last for that long.
const SAMPLED: u64 = 45_000;
/// Attempts given back at most.
const GIVEN_BACK: u32 = 16;
const CONFIGURED_WITHIN: u64 = 14_400_000;

impl<'a> Bos<'a> {
    pub(crate) fn play(parameters: &'a Parameters, pace: Pace, holds: &'a dyn Fn(Rule) -> bool) -> Timeline {
        let node = Component {
            enabled: false,
            phase: Phase::None,
            overriding: Override::None,
            last: Last::Other,
            last_failed: false,
            last_time: 0,
            attempts: [0; 3],
            desired: None,
            configuration: String::new(),
            actual: parameters.running.clone().map(|image| (image, 0)),
            error: String::new(),
            owner: None,
            end: None,
            suspended: false,
            held_since: None,
            configuring_since: None,
            powered_on: None,
            unheard: false,
            stored: false,
            configured: false,
            given_back: 0,
            powered_off: None,
        };
        let mut bos = Self {
            parameters,
            pace,
            holds,
            site: Site::new(parameters),
            sessions: vec![(parameters.operation, Stage::Pending)],
            node,
            now: 0,
            heard: None,
            line: Timeline { ends: vec![None], ..Timeline::default() },
        };
        bos.run();
        bos.line
    }

    fn run(&mut self) {
        let mut deeds = self.parameters.deeds.clone();
        // What waits for CFS for ever in BOS ends in four hours here.
        let until = if self.rule(Rule::ConfigurationHasADeadline) {
            self.parameters.until.max(3 * HELD + CONFIGURED_WITHIN)
        } else {
            self.parameters.until
        };
        for tick in (0..=until).step_by(usize::try_from(self.pace.poll).unwrap()) {
            while let Some(next) = self.site.next().into_iter().chain(deeds.first().map(|(at, _)| *at)).min().filter(|next| *next <= tick) {
                self.now = next;
                if deeds.first().is_some_and(|(at, _)| *at == next) {
                    let (_, deed) = deeds.remove(0);
                    self.deed(&deed);
                } else if let Some((at, token)) = self.site.happen() {
                    self.report(at, &token);
                }
            }
            self.now = tick;
            self.pass();
            if deeds.is_empty() && self.sessions.iter().all(|(_, stage)| *stage == Stage::Complete) {
                break;
            }
        }
    }

    fn pass(&mut self) {
        let flow: [fn(&mut Self); 7] =
            [Self::set_up, Self::status, Self::graceful, Self::forceful, Self::power_on, Self::configuration, Self::completion];
        let names: [fn(&mut Self); 7] =
            [Self::configuration, Self::forceful, Self::graceful, Self::power_on, Self::completion, Self::set_up, Self::status];
        for operator in if self.pace.flow { flow } else { names } {
            operator(self);
        }
    }

    fn rule(&self, rule: Rule) -> bool {
        (self.holds)(rule)
    }

    fn deed(&mut self, deed: &Deed) {
        match deed {
            Deed::Session(operation) => {
                self.sessions.push((*operation, Stage::Pending));
                self.line.ends.push(None);
            }
            Deed::Enable(enable) if self.rule(Rule::HoldKeepsItsPlace) => self.node.suspended = !enable,
            Deed::Enable(enable) => {
                self.node.enabled = *enable;
                if *enable {
                    self.node.overriding = Override::OnHold;
                }
            }
        }
    }

    fn shown(&self) -> &'static str {
        shown(self.node.overriding, self.node.phase, self.node.last, self.node.last_failed)
    }

    /// The server takes a report of a node that is not on its way down.
    fn report(&mut self, at: u64, token: &Token) {
        self.heard = Some(at);
        if !self.node.enabled || self.shown() == "stable" || self.node.last == Last::On {
            self.node.actual = Some((token.image.clone(), at));
        } else if !self.rule(Rule::ContradictedOffIsUnknown) {
            // Where every report is heard, it need not come again.
            self.site.refused(at);
        }
    }

    fn set_up(&mut self) {
        for index in 0..self.sessions.len() {
            let (operation, stage) = self.sessions[index];
            if stage != Stage::Pending {
                continue;
            }
            if self.site.fails(Service::Hsm, self.now).is_some() || self.site.fails(Service::S3, self.now).is_some() {
                if !self.rule(Rule::SetUpWaits) {
                    self.complete(index, End::NotSetUp);
                }
                continue;
            }
            self.sessions[index].1 = Stage::Running;
            let off = operation == Operation::Shutdown;
            let actual = self.node.actual.clone().filter(|_| operation != Operation::Reboot);
            self.node = Component {
                enabled: true,
                overriding: Override::OnHold,
                last: Last::Other,
                last_failed: false,
                last_time: self.now,
                attempts: [0; 3],
                desired: (!off).then(|| "img-a".to_owned()),
                configuration: if off { String::new() } else { self.parameters.configuration.clone() },
                actual,
                error: String::new(),
                owner: Some(index),
                end: None,
                suspended: false,
                held_since: None,
                configuring_since: None,
                powered_on: None,
                unheard: false,
                stored: false,
                configured: false,
                given_back: 0,
                powered_off: None,
                phase: self.node.phase,
            };
        }
    }

    fn status(&mut self) {
        if !self.node.enabled || self.site.fails(Service::PcsRead, self.now).is_some() {
            return;
        }
        let power = self.site.power(self.now);
        let Ok(cfs) = self.site.configuration(self.now) else { return };
        let mut record = self.record(power, cfs);
        if self.amend(&mut record) {
            return;
        }
        let options = &self.parameters.options;
        let (_, after) = pass_with(&record, options.max_power_on_wait.as_secs(), options.max_boot_wait.as_secs());
        if after.phase == Phase::PoweringOff && self.silent(&record) {
            return;
        }
        let node = &mut self.node;
        if after.last_failed && !node.last_failed {
            node.last_time = self.now;
            if node.unheard && node.given_back < GIVEN_BACK && (self.holds)(Rule::UnheardIsGivenBack) {
                node.attempts[0] -= 1;
                node.given_back += 1;
            }
        }
        if after.phase == Phase::Configuring {
            node.configuring_since.get_or_insert(self.now);
        } else {
            node.configuring_since = None;
        }
        if after.phase != node.phase && after.phase != Phase::PoweringOff && node.phase == Phase::PoweringOff {
            node.actual = None;
        }
        if after.phase == Phase::None && node.phase != Phase::None {
            node.attempts = [0; 3];
        }
        (node.phase, node.overriding, node.enabled) = (after.phase, after.overriding, after.enabled);
        (node.error, node.last_failed) = (after.error, after.last_failed);
        if !node.enabled {
            node.end = node.end.or(Some(match node.overriding {
                Override::None => End::Succeeded,
                Override::OnHold => End::Dropped,
                Override::Failed => End::Failed(reasons::CONFIGURATION_FAILED),
            }));
        }
    }

    fn record(&self, power: Said, cfs: Option<Cfs>) -> Record {
        let image = |name: &String| Artifacts::named(if name == "img-a" { "A" } else { "B_kernel" });
        Record {
            desired: self.node.desired.as_ref().and_then(image),
            actual: self.node.actual.as_ref().and_then(|(name, _)| image(name)),
            power,
            cfs,
            configuration: Some(self.node.configuration.clone()),
            last: self.node.last,
            last_failed: self.node.last_failed,
            age: Some(self.now + self.pace.fraction - self.node.last_time),
            attempts: self.node.attempts,
            phase: self.node.phase,
            overriding: self.node.overriding,
            error: self.node.error.clone(),
            enabled: self.node.enabled,
            retry_policy: Some(self.parameters.limit()),
        }
    }

    /// What the rules see otherwise than BOS's table; true where they decide.
    fn amend(&mut self, record: &mut Record) -> bool {
        let reported = self.node.powered_on.zip(self.node.actual.as_ref()).is_some_and(|(on, (_, at))| *at > on);
        let booted = reported && self.node.actual.as_ref().map(|(image, _)| image) == self.node.desired.as_ref();
        if self.rule(Rule::OldReportProvesNothing) && self.node.powered_on.is_some() && !reported {
            record.actual = None;
        }
        if self.rule(Rule::ContradictedOffIsUnknown) && record.power == Said::Off && self.contradicted() {
            record.power = Said::Text("contradicted".to_owned());
        }
        let unknown = !matches!(record.power, Said::On | Said::Off);
        if self.rule(Rule::UnknownPowerHolds) && unknown && !booted {
            return self.hold(reasons::POWER_UNKNOWN);
        }
        if record.cfs.is_none() && self.rule(Rule::CfsAskedOnlyWhenBooted) {
            if booted && record.wants_configuration() {
                return self.hold(reasons::NOT_IN_CONFIGURATION_SERVICE);
            }
            record.cfs = Some(Cfs { status: Some("pending".to_owned()), desired: record.configuration.clone() });
        } else {
            self.node.held_since = None;
        }
        let boots = self.node.owner.is_some_and(|owner| self.sessions[owner].0 == Operation::Boot);
        let fresh = record.overriding == Override::OnHold && boots && record.wanted().is_some();
        if self.rule(Rule::UnknownImageIsLeft) && fresh && record.power == Said::On && record.runs().is_none() {
            self.end(End::Left);
            return true;
        }
        let late = self.node.configuring_since.is_some_and(|since| self.now >= since + CONFIGURED_WITHIN);
        if self.rule(Rule::ConfigurationHasADeadline) && late {
            self.end(End::Failed(reasons::CONFIGURATION_TIMEOUT));
            return true;
        }
        false
    }

    /// The node spoke a moment ago, and after the session asked it to go off.
    fn contradicted(&self) -> bool {
        let heard = self.heard.filter(|heard| self.now < heard + SAMPLED);
        heard.is_some_and(|heard| self.node.powered_off.is_none_or(|off| off <= heard))
    }

    /// About to be cycled for its silence: the rules may speak against it.
    fn silent(&mut self, record: &Record) -> bool {
        if record.phase != Phase::PoweringOn || record.last != Last::On {
            return false;
        }
        let left_on = self.node.attempts[0] >= self.parameters.limit() && self.rule(Rule::LastAttemptLeavesOn);
        if left_on {
            self.end(End::Failed(reasons::BOOT_TIMEOUT));
        }
        left_on
    }

    /// Held; ends in failure after its time.
    fn hold(&mut self, reason: &'static str) -> bool {
        let since = *self.node.held_since.get_or_insert(self.now);
        if self.now >= since + HELD {
            self.end(End::Failed(reason));
        }
        true
    }

    fn end(&mut self, end: End) {
        self.node.enabled = false;
        self.node.overriding = if matches!(end, End::Failed(_)) { Override::Failed } else { Override::None };
        self.node.end = Some(end);
    }

    fn graceful(&mut self) {
        if self.shown() == "power_off_pending" {
            self.power(PowerAction::SoftOff);
        }
    }

    fn forceful(&mut self) {
        let asked = matches!(self.shown(), "power_off_gracefully_called" | "power_off_forcefully_called");
        let wait = u64::try_from(self.parameters.options.max_power_off_wait.as_millis()).unwrap();
        if !asked || self.now + self.pace.fraction <= self.node.last_time + wait {
            return;
        }
        let held = self.rule(Rule::UnknownPowerHolds) && self.site.power(self.now) != Said::On;
        let unheard = self.node.unheard && self.node.last == Last::SoftOff && self.node.given_back < GIVEN_BACK;
        if unheard && self.rule(Rule::UnheardIsGivenBack) {
            self.node.last = Last::Other;
            self.node.attempts[1] -= 1;
            self.node.given_back += 1;
        } else if !held {
            self.power(PowerAction::ForceOff);
        }
    }

    fn power_on(&mut self) {
        if self.shown() == "power_on_pending" && self.may_act() && !self.exhausted(0, reasons::POWER_ON_TIMEOUT) {
            let before = self.node.clone();
            self.node.error.clear();
            if !self.prepare() {
                let after = self.node.clone();
                let ended = after.end.is_some() || after.attempts != before.attempts;
                self.node = if ended { after } else { Component { held_since: after.held_since, stored: after.stored, ..before } };
                return;
            }
            self.node.configured = self.rule(Rule::NotSentIsNoAttempt);
            self.power(PowerAction::On);
        }
    }

    fn may_act(&mut self) -> bool {
        let hsm = self.rule(Rule::HsmAskedAtSetUp) || self.site.fails(Service::Hsm, self.now).is_none();
        self.node.enabled && !self.node.suspended && hsm
    }

    fn exhausted(&mut self, counter: usize, reason: &'static str) -> bool {
        let spent = self.node.attempts[counter] >= self.parameters.limit();
        if spent {
            self.node.overriding = Override::Failed;
            self.node.end = Some(End::Failed(reason));
        }
        spent
    }

    /// IMS, BSS and CFS before a power-on; false where it does not come to that.
    fn prepare(&mut self) -> bool {
        if let Some(code) = self.site.fails(Service::Ims, self.now) {
            if self.rule(Rule::NoPowerOnUntagged) {
                return self.refused(Faulty::Ims, code, reasons::BOOT_PARAMETERS_REFUSED);
            }
            self.node.error = "IMS".to_owned();
        }
        if !self.node.stored {
            let image = self.node.desired.clone().unwrap();
            let stored = self.site.store(&image, self.now);
            self.called(Call::BootParameters, stored.as_ref().err());
            if let Err(code) = stored
                && self.rule(Rule::NoPowerOnUnprepared)
            {
                return self.refused(Faulty::Bss, code, reasons::BOOT_PARAMETERS_REFUSED);
            }
            self.node.stored = self.rule(Rule::NoPowerOnUnprepared) || self.rule(Rule::CfsAskedOnlyWhenBooted);
        }
        let name = self.node.configuration.clone();
        if self.node.configured {
            return true;
        }
        let known = self.site.configure(&name, false, self.now);
        self.called(Call::Configure { name, enabled: false, clear_state: true }, known.as_ref().err());
        match known {
            Ok(true) => true,
            // A node that is to have none need not be known.
            Ok(false) if self.node.configuration.is_empty() && self.rule(Rule::CfsAskedOnlyWhenBooted) => true,
            Ok(false) => {
                let _ = self.hold(reasons::NOT_IN_CONFIGURATION_SERVICE);
                false
            }
            Err(code) if self.rule(Rule::NoPowerOnUnprepared) => self.refused(Faulty::Cfs, code, reasons::CONFIGURATION_FAILED),
            Err(_) => {
                self.count(PowerAction::On);
                self.node.error = "CFS".to_owned();
                false
            }
        }
    }

    /// A call came to nothing: the end of it where the service refused, and otherwise nothing happened.
    fn refused(&mut self, service: Faulty, code: Code, reason: &'static str) -> bool {
        let refused = Fault { service, code }.means() == Meaning::Refused;
        if refused && self.rule(Rule::RefusedHasFailed) {
            self.end(End::Failed(reason));
        }
        false
    }

    fn power(&mut self, action: PowerAction) {
        let counter = match action {
            PowerAction::On => 0,
            PowerAction::SoftOff => 1,
            PowerAction::ForceOff => 2,
        };
        // For a power-on this was asked before.
        if action != PowerAction::On && (!self.may_act() || self.exhausted(counter, reasons::POWER_OFF_TIMEOUT)) {
            return;
        }
        let switched = self.site.switch(action, self.now);
        self.called(Call::Power(action), switched.as_ref().err());
        let meaning = switched.err().map(|code| Fault { service: Faulty::Pcs, code }.means());
        match meaning {
            Some(Meaning::NotSent) if self.rule(Rule::NotSentIsNoAttempt) => return,
            Some(Meaning::Refused) if self.rule(Rule::RefusedHasFailed) => return self.end(End::Failed(reasons::POWER_REFUSED)),
            _ => {}
        }
        self.count(action);
        self.node.error = if meaning.is_some() { "PCS".to_owned() } else { std::mem::take(&mut self.node.error) };
        self.node.unheard = meaning == Some(Meaning::Unknown);
    }

    /// What BOS writes after an action, whatever came of it.
    fn count(&mut self, action: PowerAction) {
        let (counter, last) = match action {
            PowerAction::On => (0, Last::On),
            PowerAction::SoftOff => (1, Last::SoftOff),
            PowerAction::ForceOff => (2, Last::ForceOff),
        };
        let node = &mut self.node;
        node.attempts[counter] += 1;
        (node.last, node.last_failed, node.last_time) = (last, false, self.now);
        if action == PowerAction::On {
            node.powered_on = Some(self.now);
            (node.stored, node.configured) = (false, false);
        } else {
            node.powered_off = Some(self.now);
        }
    }

    fn configuration(&mut self) {
        if self.shown() != "configuring" || !self.node.enabled || self.node.suspended {
            return;
        }
        let Ok(Some(cfs)) = self.site.configuration(self.now) else { return };
        let name = self.node.configuration.clone();
        if cfs.desired.as_ref() != Some(&name) {
            let known = self.site.configure(&name, true, self.now);
            self.called(Call::Configure { name, enabled: true, clear_state: false }, known.as_ref().err());
        }
    }

    fn called(&mut self, call: Call, failed: Option<&Code>) {
        self.line.calls.push((self.now, call, failed.copied().unwrap_or(Some(200))));
    }

    fn completion(&mut self) {
        for index in 0..self.sessions.len() {
            let owned = self.node.owner == Some(index);
            if self.sessions[index].1 == Stage::Running && !(owned && self.node.enabled) {
                let end = if owned { self.node.end.unwrap_or(End::Dropped) } else { End::Superseded };
                self.complete(index, end);
            }
        }
    }

    fn complete(&mut self, index: usize, end: End) {
        self.sessions[index].1 = Stage::Complete;
        self.line.ends[index] = Some((self.now, end));
    }
}
