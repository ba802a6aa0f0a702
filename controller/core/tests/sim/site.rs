//! The simulated site: hardware, PCS, BSS and CFS as they are, not as the operator sees them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bos_core::batch::Task;
use bos_core::health::PowerService;
use bos_core::model::{ConfigRecord, ConfigStatus, Digest, NodeId, Power, PowerAction, SessionUid, Token};
use bos_core::resolve::Snapshot;
use bos_core::time::Timestamp;

use super::fixture::{START, digest};
use super::rng::Rng;
use super::scenario::{Before, Quirk, Scenario};

/// How long a node rests between off and on, with CAPMC.
pub(crate) const REST: Duration = Duration::from_secs(45);

/// Who changed a node's power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    Session(SessionUid),
    Person,
}

/// One change of power.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) at: Timestamp,
    pub(crate) on: bool,
    pub(crate) by: By,
}

/// CFS's record of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) desired: Arc<str>,
    pub(crate) enabled: bool,
    pub(crate) status: ConfigStatus,
}

/// A node as it really is.
#[derive(Debug, Clone)]
pub(crate) struct Hardware {
    pub(crate) quirk: Quirk,
    pub(crate) on: bool,
    /// The boot it is in; grows with every power-on.
    pub(crate) boot: u64,
    /// Came up in this boot.
    pub(crate) up: bool,
    /// Token on its command line.
    pub(crate) token: Option<Token>,
    /// What BSS holds for it.
    pub(crate) bss: Option<Token>,
    pub(crate) config: Config,
    pub(crate) history: Vec<Change>,
    failed_once: bool,
}

impl Hardware {
    fn new(quirk: Quirk, before: Before, index: usize) -> Self {
        let token: Option<Token> = match before {
            Before::Off => None,
            Before::Runs(image) => Some(known_token(image)),
            Before::RunsUnknown => Some(Token(format!("foreign-{index}").into())),
        };
        let config = Config { desired: "".into(), enabled: true, status: ConfigStatus::Unconfigured };
        Self { quirk, on: token.is_some(), boot: 0, up: token.is_some(), bss: None, token, config, history: Vec::new(), failed_once: false }
    }

    pub(crate) fn last_change(&self) -> Timestamp {
        self.history.last().map_or(START, |change| change.at)
    }
}

/// The token of an image that was booted before the history begins.
pub(crate) fn known_token(image: &str) -> Token {
    Token(format!("before-{image}").into())
}

/// One node's part of a transition.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) node: NodeId,
    pub(crate) done_at: Timestamp,
    pub(crate) result: Task,
}

/// A PCS transition.
#[derive(Debug, Clone)]
pub(crate) struct Transition {
    pub(crate) parts: Vec<Part>,
    /// The end of its slowest part; until then its nodes are reserved.
    pub(crate) ends: Timestamp,
}

/// Something that the hardware does later.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) at: Timestamp,
    pub(crate) node: NodeId,
    pub(crate) on: bool,
    pub(crate) by: SessionUid,
}

/// HSM misses the heartbeat of a node this late.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// The site.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) nodes: Vec<Hardware>,
    /// What HSM says.
    pub(crate) inventory: Snapshot,
    /// The artifacts each token stands for.
    pub(crate) tokens: BTreeMap<Token, Digest>,
    pub(crate) transitions: BTreeMap<Arc<str>, Transition>,
    reserved: Vec<Timestamp>,
    /// PCS reserves the nodes of a transition till its end; CAPMC gives its reservations back when it answers.
    reserves: bool,
    sampling: Duration,
}

impl Site {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let nodes: Vec<Hardware> = scenario
            .quirks
            .iter()
            .zip(&scenario.before)
            .enumerate()
            .map(|(index, (quirk, before))| Hardware::new(*quirk, *before, index))
            .collect();
        let tokens = ["old", "new", "newer"].map(|image| (known_token(image), digest(image)));
        Self {
            reserved: vec![START; nodes.len()],
            reserves: scenario.power == PowerService::Pcs,
            inventory: super::hsm::inventory(nodes.len()),
            nodes,
            tokens: tokens.into(),
            transitions: BTreeMap::new(),
            sampling: scenario.sampling,
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Hardware {
        &self.nodes[id.0 as usize]
    }

    /// The image a node runs, if it came up.
    pub(crate) fn runs(&self, id: NodeId) -> Option<&Digest> {
        let node = self.node(id);
        node.token.as_ref().filter(|_| node.on && node.up).and_then(|token| self.tokens.get(token))
    }

    /// BSS: stores parameters for hosts, returns their token.
    pub(crate) fn store(&mut self, nodes: &[NodeId], artifacts: &Digest) -> Token {
        let token = Token(format!("token-{}", self.tokens.len()).into());
        self.tokens.insert(token.clone(), artifacts.clone());
        for id in nodes {
            self.nodes[id.0 as usize].bss = Some(token.clone());
        }
        token
    }

    /// CFS: sets the desired configuration, returns the nodes it knows.
    pub(crate) fn configure(&mut self, nodes: &[NodeId], name: &Arc<str>, enabled: bool, now: Timestamp) -> Vec<NodeId> {
        let known: Vec<NodeId> = nodes.iter().copied().filter(|id| self.known_to_cfs(*id, now)).collect();
        for id in &known {
            self.nodes[id.0 as usize].config = Config { desired: name.clone(), enabled, status: ConfigStatus::Pending };
        }
        known
    }

    fn known_to_cfs(&self, id: NodeId, now: Timestamp) -> bool {
        !matches!(self.node(id).quirk, Quirk::NotInCfs(until) if now < until)
    }

    pub(crate) fn config(&self, id: NodeId, now: Timestamp) -> Option<ConfigRecord> {
        let config = &self.node(id).config;
        self.known_to_cfs(id, now).then(|| ConfigRecord { desired: config.desired.clone(), status: config.status.clone() })
    }

    /// HSM: whether it calls a node Ready, which it goes on doing for a while after the node went off.
    pub(crate) fn ready(&self, id: NodeId, now: Timestamp) -> bool {
        let node = self.node(id);
        node.up || node.history.last().is_some_and(|change| !change.on && now < change.at + HEARTBEAT)
    }

    /// BSS: when nodes fetched their boot scripts; those that came up did.
    pub(crate) fn fetched(&self, nodes: &[NodeId]) -> HashMap<NodeId, Timestamp> {
        nodes.iter().filter(|id| self.node(**id).up).map(|id| (*id, self.node(*id).last_change())).collect()
    }

    /// PCS: what it says of a node, which may be what it saw a while ago.
    pub(crate) fn power(&self, id: NodeId, now: Timestamp) -> Power {
        let node = self.node(id);
        if matches!(node.quirk, Quirk::PowerUnknown(until) if now < until) {
            return Power::Unknown;
        }
        let old = node.history.last().is_some_and(|change| now < change.at + self.sampling);
        if node.on != old { Power::On } else { Power::Off }
    }

    /// PCS: accepts a transition. Returns its id and what the hardware will do.
    pub(crate) fn transition(
        &mut self,
        nodes: &[NodeId],
        action: PowerAction,
        by: &SessionUid,
        now: Timestamp,
        rng: &mut Rng,
    ) -> (Arc<str>, Vec<Effect>) {
        let mut parts = Vec::new();
        let mut effects = Vec::new();
        for id in nodes {
            let (part, works) = self.part(*id, action, now, rng);
            if let Some(at) = works {
                effects.push(Effect { at, node: *id, on: action == PowerAction::On, by: by.clone() });
            }
            parts.push(part);
        }
        let ends = parts.iter().map(|part| part.done_at).max().unwrap_or(now);
        for part in &parts {
            if self.reserves && !matches!(part.result, Task::Untouched { .. }) {
                self.reserved[part.node.0 as usize] = ends;
            }
        }
        (self.keep(Transition { parts, ends }), effects)
    }

    /// CAPMC: refuses a call. Returns the id of a transition of which nothing came.
    pub(crate) fn refuse(&mut self, nodes: &[NodeId], now: Timestamp) -> Arc<str> {
        let result = || Task::Untouched { detail: "Failed to reserve components".into(), permanent: false };
        let parts = nodes.iter().map(|node| Part { node: *node, done_at: now, result: result() }).collect();
        self.keep(Transition { parts, ends: now })
    }

    fn keep(&mut self, transition: Transition) -> Arc<str> {
        let id: Arc<str> = format!("transition-{}", self.transitions.len()).into();
        self.transitions.insert(id.clone(), transition);
        id
    }

    fn part(&mut self, id: NodeId, action: PowerAction, now: Timestamp, rng: &mut Rng) -> (Part, Option<Timestamp>) {
        let reserved = self.reserved[id.0 as usize] > now || self.locked(id);
        let confirm = self.sampling.as_secs().max(15);
        let node = &mut self.nodes[id.0 as usize];
        let part = |after: u64, result| Part { node: id, done_at: now + Duration::from_secs(after), result };
        let failed = |detail: &str| Task::Failed { detail: detail.into() };
        if reserved {
            return (part(0, Task::Untouched { detail: "Unable to reserve component".into(), permanent: false }), None);
        }
        if node.quirk == Quirk::TaskFailsOnce && !node.failed_once {
            node.failed_once = true;
            return (part(1, failed("BMC answered 500")), None);
        }
        match (action, node.quirk) {
            (_, Quirk::PowerUnknown(until)) if now < until => (part(60, failed("BMC unreachable")), None),
            (PowerAction::On, Quirk::NeverPowersOn) => (part(60, failed("still off")), None),
            (PowerAction::SoftOff, Quirk::IgnoresSoftOff) => (part(90, failed("still on")), None),
            // PCS confirms from what it samples, so never before its own status says the same. Of a node that is off already, though it
            // still says that it is on, it knows with its next sample.
            (PowerAction::SoftOff | PowerAction::ForceOff, _) if !node.on => {
                let sampled = (node.last_change() + self.sampling).since(now).as_secs() + 5;
                let longest = if action == PowerAction::SoftOff { (5, 20) } else { (1, 5) };
                (part(sampled, Task::Succeeded), Some(now + Duration::from_secs(rng.between(longest.0, longest.1))))
            }
            (PowerAction::SoftOff, _) => (part(20 + confirm, Task::Succeeded), Some(now + Duration::from_secs(rng.between(5, 20)))),
            _ => (part(5 + confirm, Task::Succeeded), Some(now + Duration::from_secs(rng.between(1, 5)))),
        }
    }

    /// PCS: the tasks of a transition as they stand.
    pub(crate) fn progress(&self, id: &str, now: Timestamp) -> (bool, Vec<(NodeId, Task)>) {
        let Some(transition) = self.transitions.get(id) else { return (true, Vec::new()) };
        let tasks =
            transition.parts.iter().map(|part| (part.node, if now >= part.done_at { part.result.clone() } else { Task::Open })).collect();
        (now >= transition.ends, tasks)
    }

    /// The power of a node changes; true when that is a change. A node that comes on reads its parameters from BSS.
    pub(crate) fn switch(&mut self, id: NodeId, on: bool, by: By, now: Timestamp) -> bool {
        let node = &mut self.nodes[id.0 as usize];
        if node.on == on {
            return false;
        }
        node.on = on;
        node.up = false;
        node.history.push(Change { at: now, on, by });
        node.boot += 1;
        node.token = if on { node.bss.clone() } else { None };
        if on && node.quirk == Quirk::WrongToken {
            node.token = Some(Token(format!("own-{}", node.boot).into()));
        }
        true
    }
}
