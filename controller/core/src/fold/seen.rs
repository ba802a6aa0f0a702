//! What services say of nodes, and nodes of themselves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{Batch, BatchState, Work};
use crate::fold::{Fault, ReportNeeds};
use crate::health::Service;
use crate::model::{
    ConfigRecord, ConfigSeen, Digest, Drive, HoldReason, Inherited, Node, NodeId, Phase, Power, PowerAction, PowerSeen, Reported, Script,
    StateSeen, Token, World,
};
use crate::plan::Evidence;
use crate::session::Session;
use crate::time::Timestamp;

/// By how much the clocks of services may be behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(10);

impl World {
    /// Power of nodes, asked at `asked`; `readings` may lack nodes the service does not know.
    pub fn fold_power(&mut self, nodes: &[NodeId], asked: Timestamp, read: Result<Vec<(NodeId, Power, Arc<str>)>, Fault>, now: Timestamp) {
        self.power_reads.end();
        for id in nodes {
            if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                node.reading_power = false;
            }
        }
        match read {
            Err(fault) => self.fold_fault(&fault, now),
            Ok(readings) => {
                self.fold_answer(self.power_service.service(), now);
                // What the service does not name it does not know: unknown, and asked again after a pause (rule 2).
                let named: HashSet<NodeId> = readings.iter().map(|(id, ..)| *id).collect();
                for id in nodes.iter().filter(|id| !named.contains(id)) {
                    self.see_power(*id, PowerSeen { power: Power::Unknown, at: asked, detail: "not named in its answer".into() });
                }
                for (id, power, detail) in readings {
                    self.see_power(id, PowerSeen { power, at: asked, detail });
                }
            }
        }
    }

    pub(super) fn see_power(&mut self, id: NodeId, seen: PowerSeen) {
        let Some(node) = self.nodes.get(id.0 as usize) else { return };
        if node.power.as_ref().is_some_and(|known| known.at > seen.at) {
            return;
        }
        // The first look since the last action, or since a restart, says something new even where it says the same.
        let since = node.drive.as_ref().map_or(Timestamp::default(), Drive::acted_or_held_since);
        let changed = node.power.as_ref().is_none_or(|known| known.power != seen.power || (known.at < since && seen.at >= since));
        let off = seen.power == Power::Off;
        let at = seen.at;
        let rests_until = (off && node.first_off_since_our_power_off(at)).then(|| at + self.power_rest);
        let node = if changed { self.node_mut(id) } else { self.nodes.get_mut(id.0 as usize) };
        let Some(node) = node else { return };
        if off && node.switched_off_by_us(at) {
            // What it said before says nothing against it.
            node.heard = None;
        }
        node.power = Some(seen);
        node.rests_until = rests_until.unwrap_or(node.rests_until);
        if node.power_since(at) == Some(Power::On) && node.drive.as_ref().is_some_and(|drive| drive.awaits_boot_since(at)) {
            self.booted_by(id, Evidence::PowerState, at);
            return;
        }
        // What a node ran ends when it is off; an off that a report contradicts does not count.
        if off && node.power_since(at) == Some(Power::Off) {
            node.reported = None;
            if let Some(drive) = &mut node.drive {
                drive.booted = None;
                drive.in_flight = None;
            }
        }
    }

    /// States of nodes in HSM, asked at `asked`. Ready proves a boot only where something else was seen since the power-on: HSM
    /// does not follow power by itself, so it may go on calling a node Ready that is off (external services, trap T13).
    pub fn fold_states(&mut self, nodes: &[NodeId], asked: Timestamp, read: Result<Vec<(NodeId, bool)>, Fault>, now: Timestamp) {
        self.state_reads.end();
        for id in nodes {
            if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                node.reading_state = false;
            }
        }
        let states = match read {
            Err(fault) => return self.fold_fault(&fault, now),
            Ok(states) => states,
        };
        self.fold_answer(Service::Hsm, now);
        for (id, ready) in states {
            let Some(node) = self.nodes.get_mut(id.0 as usize) else { continue };
            if node.state.is_some_and(|known| known.at > asked) {
                continue;
            }
            node.state = Some(StateSeen { ready, at: asked });
            let Some(drive) = node.drive.as_mut().filter(|drive| drive.awaits_boot_since(asked)) else { continue };
            match (ready, drive.down_seen) {
                (false, false) => {
                    drive.down_seen = true;
                    let uid = drive.session.clone();
                    self.journal_due.insert(uid);
                }
                (true, true) => self.booted_by(id, Evidence::HsmReady, now),
                (false, true) | (true, false) => {}
            }
        }
    }

    /// Another proof of a boot than the node's own report, where the session takes it.
    fn booted_by(&mut self, id: NodeId, evidence: Evidence, now: Timestamp) {
        let Some(drive) = self.node(id).and_then(|node| node.drive.as_ref()) else { return };
        let uid = drive.session.clone();
        let taken = self.sessions.get(&uid).and_then(Session::running).is_some_and(|run| run.plan.evidence == evidence);
        if !taken {
            return;
        }
        let Some(node) = self.node_mut(id) else { return };
        if evidence == Evidence::HsmReady {
            // Like a report it contradicts an off that PCS may still be saying.
            node.heard = Some(now);
        }
        if let Some(drive) = &mut node.drive {
            drive.booted = Some(now);
            drive.since = now;
            self.touched_sessions.insert(uid.clone());
            self.journal_due.insert(uid);
        }
    }

    /// Who fetched a boot script, and when; None where BSS did not answer. It is for people only.
    pub fn fold_scripts(&mut self, nodes: &[NodeId], read: Result<HashMap<NodeId, Timestamp>, Fault>, now: Timestamp) {
        self.script_reads.end();
        let fetched = match read {
            Ok(fetched) => {
                self.fold_answer(Service::Bss, now);
                Some(fetched)
            }
            Err(fault) => {
                self.fold_fault(&fault, now);
                None
            }
        };
        for id in nodes {
            let Some(drive) = self.node_mut(*id).and_then(|node| node.drive.as_mut()) else { continue };
            let since = drive.action.map_or(drive.held_since, |issued| issued.decided) - CLOCK_SKEW;
            drive.script = match &fetched {
                None => Script::Unknown,
                Some(fetched) => fetched.get(id).filter(|at| **at >= since).map_or(Script::NeverFetched, |at| Script::Fetched(*at)),
            };
        }
    }

    /// CFS records of nodes; nodes of `nodes` that are not in `records` are unknown to CFS.
    pub fn fold_config(&mut self, nodes: &[NodeId], asked: Timestamp, read: Result<Vec<(NodeId, ConfigRecord)>, Fault>, now: Timestamp) {
        self.config_reads.end();
        for id in nodes {
            if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                node.reading_config = false;
                if read.is_ok() && node.drive.is_some() && asked >= node.config_since {
                    node.config = Some(ConfigSeen { record: None, at: asked });
                }
            }
        }
        match read {
            Err(fault) => self.fold_fault(&fault, now),
            Ok(records) => {
                self.fold_answer(Service::Cfs, now);
                for (id, record) in records {
                    let Some(node) = self.nodes.get_mut(id.0 as usize).filter(|node| asked >= node.config_since) else { continue };
                    let Some(drive) = &mut node.drive else { continue };
                    if matches!(drive.hold, Some(hold) if hold.reason == HoldReason::NotInConfigurationService) {
                        drive.hold = None;
                        self.touched.insert(id);
                    }
                    node.config = Some(ConfigSeen { record: Some(record), at: asked });
                }
            }
        }
    }

    /// A node's own report (BOS behaviour §13).
    pub fn fold_report(&mut self, xname: &str, token: &Token, now: Timestamp) -> ReportNeeds {
        let Some(id) = self.by_name.get(xname).copied() else { return ReportNeeds::Unknown };
        let Some(node) = self.node(id) else { return ReportNeeds::Unknown };
        let driven = node.drive.as_ref().and_then(|drive| {
            let run = self.sessions.get(&drive.session)?.running()?;
            run.boot_set_of(token)?;
            let right = run.stands_for(token, drive.boot_set);
            Some((drive, right, run.plan.boot_set(drive.boot_set)?.artifacts.clone()))
        });
        let same = node.reported.as_ref().is_some_and(|report| report.token == *token);
        let artifacts = match &driven {
            Some((_, true, artifacts)) => artifacts.clone(),
            _ if same => node.reported.as_ref().and_then(|report| report.artifacts.clone()),
            _ => self.artifacts_of(token).or_else(|| inherited(node, token)),
        };
        let withdrawable = node.batch.and_then(|batch| self.batches.get(&batch)).is_some_and(not_sent_power_off);
        let boots = matches!(&driven, Some((drive, true, _)) if proves_boot(drive, withdrawable));
        let session = driven.filter(|_| boots).map(|(drive, ..)| drive.session.clone());
        let expired = node.reported.as_ref().is_some_and(|report| report.expired);
        let changed = !same || boots || expired;
        let node = if changed { self.node_mut(id) } else { self.nodes.get_mut(id.0 as usize) };
        let Some(node) = node else { return ReportNeeds::Unknown };
        node.heard = Some(now);
        let since = node.reported.as_ref().filter(|_| same).map_or(now, |report| report.since);
        node.reported = Some(Reported { token: token.clone(), artifacts, since, at: now, expired: false });
        if let (Some(uid), Some(drive)) = (session, node.drive.as_mut()) {
            drive.booted = Some(now);
            drive.since = now;
            self.touched_sessions.insert(uid.clone());
            self.journal_due.insert(uid.clone());
            return ReportNeeds::Journal(uid);
        }
        // A repeat of what the journal has to hold waits for the journal as well: the first answer may have been lost.
        let proof = |drive: &&Drive| drive.booted.is_some_and(|booted| since <= booted);
        let proven = node.drive.as_ref().filter(proof).map(|drive| drive.session.clone());
        match proven.filter(|_| !changed) {
            Some(uid) if self.journal_due.contains(&uid) => ReportNeeds::Journal(uid),
            Some(uid) => ReportNeeds::Repeat(uid),
            // What the journal does not hold, a token of somebody else's, is durable with the status, however often it is said.
            None => ReportNeeds::Status(id),
        }
    }

    /// The artifact set a token stands for, from the sessions we still know.
    fn artifacts_of(&self, token: &Token) -> Option<Digest> {
        self.sessions.values().filter_map(Session::run).find_map(|run| {
            let set = run.boot_set_of(token)?;
            run.plan.boot_set(set)?.artifacts.clone()
        })
    }
}

/// The artifact set of a token that an older session had stored for the node.
fn inherited(node: &Node, token: &Token) -> Option<Digest> {
    let tokens = node.drive.as_ref().map(|drive| &drive.inherited).or(node.left.as_ref().map(|left| &left.tokens))?;
    tokens.iter().find(|Inherited(known, _)| known == token).and_then(|Inherited(_, artifacts)| artifacts.clone())
}

/// Whether a report of a right token proves the boot this session wants: only after its own power-on, and not once a power-off
/// was asked for.
fn proves_boot(drive: &Drive, withdrawable: bool) -> bool {
    if drive.booted.is_some() {
        return false;
    }
    match drive.action {
        Some(issued) if issued.action == PowerAction::On => drive.phase == Phase::PoweringOn,
        Some(issued) => withdrawable && issued.action == PowerAction::SoftOff && drive.attempts.on > 0,
        None => drive.phase == Phase::PoweringOff && drive.attempts.on > 0,
    }
}

/// A power-off that is being recorded and has not left: a report that comes in now still stops it.
fn not_sent_power_off(batch: &Batch) -> bool {
    batch.work == Work::Power(PowerAction::SoftOff) && batch.state == BatchState::Recording
}
