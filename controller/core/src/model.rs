//! The World: everything a decision may look at. Only the engine task changes it, through [`crate::fold`] and [`crate::pass`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::artifacts::ArtifactSet;
use crate::batch::{Batch, BatchId};
pub use crate::by_hand::Asked;
use crate::by_hand::BY_HAND;
pub use crate::drive::{
    Attempts, Drive, End, EndKind, Flight, Hold, HoldReason, Inherited, Issued, LastRun, Left, Phase, PowerAction, Prepared, Script,
};
use crate::health::{PowerService, Services};
use crate::options::Options;
use crate::resolve::Facts;
use crate::session::Session;
use crate::tenants::Tenants;
use crate::time::Timestamp;
use crate::xname::Xname;

/// Index of a node in [`World::nodes`]; stable for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// The uid that Kubernetes gave a Session: the only safe way to name one (BOS 2.50 uses bare names, §21.2 no. 31).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionUid(pub Arc<str>);

impl fmt::Display for SessionUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for SessionUid {
    fn from(uid: &str) -> Self {
        Self(uid.into())
    }
}

/// The token BSS returned for one set of boot parameters; a booted node reports it back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub Arc<str>);

/// Digest of an artifact set, see [`crate::artifacts`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub Arc<str>);

/// What the power service says of one node. Everything that is neither on nor off is unknown (rule 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Power {
    /// Power is on.
    On,
    /// Power is off.
    Off,
    /// Undefined, contradictory, or the service does not know the node.
    #[default]
    Unknown,
}

/// The last answer of the power service for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerSeen {
    /// What it said.
    pub power: Power,
    /// When we asked, not when the answer came: only what was asked after an action says something about it.
    pub at: Timestamp,
    /// What the service said beside it, for people; empty when nothing.
    pub detail: Arc<str>,
}

/// What the node itself said it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Token on its kernel command line.
    pub token: Token,
    /// The artifact set the token stands for, if we know the token.
    pub artifacts: Option<Digest>,
    /// First report with this token: when this boot was first heard of.
    pub since: Timestamp,
    /// Last report with this token.
    pub at: Timestamp,
    /// It was too long ago; what the node runs is not known any more, until it reports again.
    pub expired: bool,
}

/// HSM's state of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSeen {
    /// It said Ready.
    pub ready: bool,
    /// When we asked.
    pub at: Timestamp,
}

/// CFS's state of one node's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSeen {
    /// The record, or None where CFS does not know the node.
    pub record: Option<ConfigRecord>,
    /// When we asked.
    pub at: Timestamp,
}

/// The part of a CFS component that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRecord {
    /// The configuration CFS is to apply; empty for none.
    pub desired: Arc<str>,
    /// CFS's verdict.
    pub status: ConfigStatus,
}

/// CFS `configuration_status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigStatus {
    /// All layers applied.
    Configured,
    /// Work is left.
    Pending,
    /// CFS gave up.
    Failed,
    /// No configuration known; also what CFS says when the configuration does not exist.
    Unconfigured,
    /// Any other text.
    Other(Arc<str>),
}

/// One node of the machine.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub xname: Xname,
    /// What HSM says; None before the first inventory and for nodes HSM no longer names.
    pub facts: Option<Facts>,
    /// Locked in HSM.
    pub locked: bool,
    /// What its status says of it from before this process: enough to see that another node is in its place.
    pub before: Identity,
    /// Hardware addresses of its interfaces; empty where HSM knows none.
    pub macs: BTreeSet<Arc<str>>,
    /// Another node was put in its place: nothing that was known of the old one holds.
    pub replaced: bool,
    /// Whether its BootComponent exists.
    pub recorded: bool,
    /// Last answer of the power service.
    pub power: Option<PowerSeen>,
    /// Last report.
    pub reported: Option<Reported>,
    /// When this process last heard it; a report that was read back from a status does not count.
    pub heard: Option<Timestamp>,
    /// Last answer of CFS; kept only while driven.
    pub config: Option<ConfigSeen>,
    /// CFS was told something then: what was asked of it before says nothing about that.
    pub config_since: Timestamp,
    /// Present from set-up until the node's part in the session has ended.
    pub drive: Option<Drive>,
    /// The open operation on this node: at most one, whoever asked for it (rule 11).
    pub batch: Option<BatchId>,
    /// The newest operation on it that has left, open or not, of the session that drives it or did last; for the log, and not durable.
    pub last_batch: Option<BatchId>,
    /// The Session whose agent may still be at work on it: nothing is done to it before that agent has let it go (rule 11).
    pub agent: Option<SessionUid>,
    /// Not powered on before: what switched it off may still be at work, see [`World::power_rest`]. Not durable.
    pub rests_until: Timestamp,
    /// A read of its power is under way.
    pub reading_power: bool,
    /// A read of its configuration is under way.
    pub reading_config: bool,
    /// HSM's state, where the site takes that for proof of a boot.
    pub state: Option<StateSeen>,
    /// A read of that is under way.
    pub reading_state: bool,
    /// `spec.retryPolicy` of the BootComponent.
    pub retry_policy: Option<u16>,
    /// `spec.suspend` of the BootComponent: a person's hold; nothing new is sent to the node.
    pub suspended: bool,
    /// The last session that had the node, and its end, for display.
    pub last: Option<Box<LastRun>>,
    /// Namespace and name of its last session, where it failed in that: what `retryOf` asks for.
    pub failed_in: Option<(Arc<str>, Arc<str>)>,
    /// The newest session that ever owned the node: it never moves to an older one (rule 11).
    pub owner: Option<Owner>,
    /// What its BootComponent asks for by hand.
    pub asked: Box<Asked>,
    /// The session whose staged state waits to be applied, and the place of the node in its plan.
    pub staged: Option<(SessionUid, u32)>,
    /// A session that staged a state which is not to be applied any more.
    pub unstaged: Option<SessionUid>,
    /// What the session before left here, while nobody has taken the node since.
    pub left: Option<Box<Left>>,
}

/// What tells one piece of hardware from another in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// Its node id.
    pub nid: Option<i64>,
    /// The place was empty.
    pub empty: bool,
}

/// A session that owned a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// Its uid.
    pub uid: SessionUid,
}

impl Owner {
    /// A run without a Session of which nothing is known any more but when it was asked for.
    #[must_use]
    pub fn by_hand(since: Timestamp) -> Self {
        Self { created: since.end_of_second(), uid: SessionUid(BY_HAND.into()) }
    }

    /// The newest creation that was known when it was asked for by hand; None of a Session.
    #[must_use]
    pub fn since_by_hand(&self) -> Option<Timestamp> {
        self.uid.0.starts_with(BY_HAND).then(|| self.created.whole_seconds())
    }
}

impl Node {
    /// A node of which nothing is known yet.
    #[must_use]
    pub fn new(xname: Xname) -> Self {
        Self {
            xname,
            facts: None,
            locked: false,
            before: Identity::default(),
            macs: BTreeSet::new(),
            replaced: false,
            recorded: false,
            power: None,
            reported: None,
            heard: None,
            config: None,
            config_since: Timestamp::default(),
            drive: None,
            batch: None,
            last_batch: None,
            agent: None,
            rests_until: Timestamp::default(),
            reading_power: false,
            reading_config: false,
            state: None,
            reading_state: false,
            retry_policy: None,
            suspended: false,
            last: None,
            failed_in: None,
            owner: None,
            asked: Box::default(),
            staged: None,
            unstaged: None,
            left: None,
        }
    }

    /// Power as last seen, if asked at or after `since`.
    #[must_use]
    pub fn power_since(&self, since: Timestamp) -> Option<Power> {
        self.power.as_ref().filter(|seen| seen.at >= since).map(|seen| self.believed(seen))
    }

    /// Power as last seen at or after `since`, if that is recent enough to act on (rule 4).
    #[must_use]
    pub fn power_fresh(&self, since: Timestamp, now: Timestamp) -> Option<Power> {
        self.power_since(since).filter(|_| !self.power_stale(now))
    }

    /// The last look at its power is too old to act on.
    #[must_use]
    pub fn power_stale(&self, now: Timestamp) -> bool {
        self.power.as_ref().is_none_or(|seen| now.since(seen.at) > POWER_FRESH)
    }

    /// An `off` that a report contradicts is unknown: PCS samples the BMCs only every 30 s (external services §2.3), so a node
    /// that spoke to us within that time may well be up (rule 2).
    fn believed(&self, seen: &PowerSeen) -> Power {
        match (seen.power, self.heard) {
            (Power::Off, Some(heard)) if heard + PCS_SAMPLING > seen.at => Power::Unknown,
            (power, _) => power,
        }
    }

    /// It has been switched off by an action of ours that was accepted before `at`, and since then it has said nothing, or only, before
    /// `at`, the same again as before the action: an `off` is expected then, and what the node said while it went down does not
    /// contradict it.
    #[must_use]
    pub fn switched_off_by_us(&self, at: Timestamp) -> bool {
        let Some(drive) = &self.drive else { return false };
        let Some(issued) = drive.action else { return false };
        let before = self.heard.is_none_or(|heard| heard < issued.at);
        // Of one that is cycled for its silence every word counts (rule 8).
        let repeats = drive.last_on.is_none()
            && self.heard.is_some_and(|heard| heard <= at)
            && self.reported.as_ref().is_some_and(|report| report.since < issued.at);
        issued.action != PowerAction::On && issued.accepted && !issued.failed && issued.at <= at && (before || repeats)
    }

    /// It reported at or after `since`, as far as this process or its status knows.
    #[must_use]
    pub fn spoke_since(&self, since: Timestamp) -> bool {
        self.heard.is_some_and(|heard| heard >= since) || self.reported.as_ref().is_some_and(|report| report.since >= since)
    }
}

/// An observation of power older than this justifies no action.
pub const POWER_FRESH: Duration = Duration::from_secs(60);

/// How long PCS, alone or behind CAPMC, may go on saying what it saw last: its sampling interval of 30 s and a margin.
pub const PCS_SAMPLING: Duration = Duration::from_secs(45);

/// What we know of our ability to hear the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportPath {
    /// Listening without a break since then; None when the endpoint is off or refuses reports.
    pub listening_since: Option<Timestamp>,
    /// When the age of reports was looked at last.
    pub looked: Timestamp,
}

/// State of the regular inventory.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    /// A read is under way.
    pub reading: bool,
    /// Next read.
    pub due: Timestamp,
    /// At least one inventory has been accepted.
    pub complete: bool,
    /// How many nodes an agent has seen HSM list, at set-up of its session first: it has records of its own nodes alone.
    pub largest: usize,
    /// When the read under way began.
    pub began: Timestamp,
    /// When the read began that was accepted last.
    pub accepted: Timestamp,
    /// Why the last answer was not believed (rule 9).
    pub fault: Option<Arc<str>>,
}

/// Keeps reads of one kind apart, so that nodes that come up one by one share a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadPace {
    under_way: u32,
    last: Timestamp,
}

impl ReadPace {
    /// Gathered at least this long.
    const GATHERED: Duration = Duration::from_millis(150);

    /// Whether reads may leave now.
    #[must_use]
    pub fn is_free(&self, now: Timestamp) -> bool {
        self.under_way == 0 && now >= self.last + Self::GATHERED
    }

    /// A read leaves.
    pub fn begin(&mut self, now: Timestamp) {
        self.under_way = self.under_way.saturating_add(1);
        self.last = now;
    }

    /// A read is answered.
    pub fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}

/// Everything the operator knows.
#[derive(Debug, Default)]
pub struct World {
    /// Options in force (last good value).
    pub options: Options,
    /// All nodes ever seen.
    pub nodes: Vec<Node>,
    /// Index by name.
    pub by_name: HashMap<Xname, NodeId>,
    /// Sessions that are not ended, and ended ones until their Session object is gone.
    pub sessions: BTreeMap<SessionUid, Session>,
    /// Place in the order of appearance that was given to a session last.
    pub last_sequence: u64,
    /// Open operations.
    pub batches: BTreeMap<BatchId, Batch>,
    /// Last batch number given.
    pub last_batch: u64,
    /// Which services answer.
    pub services: Services,
    /// The one that tells and switches power here.
    pub power_service: PowerService,
    /// How long a node that was seen to go off rests before it is powered on, where the power service does not tell the end of a
    /// power-off: PCS behind CAPMC would take the power-on for a power-off without effect, and cut the power (rule 7).
    pub power_rest: Duration,
    /// Artifact sets by digest, for display and for the calls.
    pub artifacts: BTreeMap<Digest, Arc<ArtifactSet>>,
    /// Ability to hear the nodes.
    pub reports: ReportPath,
    /// Reads of power.
    pub power_reads: ReadPace,
    /// Reads of configuration.
    pub config_reads: ReadPace,
    /// Reads of HSM's states.
    pub state_reads: ReadPace,
    /// Reads of who fetched a boot script.
    pub script_reads: ReadPace,
    /// Inventory reads.
    pub discovery: Discovery,
    /// The stop switch: no new power action leaves.
    pub emergency_stop: bool,
    /// What whoever set it wrote into it; empty where that is nothing.
    pub stop_note: Arc<str>,
    /// Names of sessions that ran already, per namespace and name (rule 5).
    pub ran: HashMap<(Arc<str>, Arc<str>), SessionUid>,
    /// Tenants of the machine.
    pub tenants: Tenants,
    /// Namespace the operator is installed in.
    pub install_namespace: Arc<str>,
    /// Sessions of mode v1 can be given to agents.
    pub launches_agents: bool,
    /// This process is the agent of one Session, see [`crate::agent`].
    pub is_agent: bool,
    /// Runs by hand whose plans are to be written; then comes [`World::start_session`].
    pub plans_due: BTreeSet<SessionUid>,
    /// Nodes of which something was asked by hand that is still to be answered.
    pub asked: BTreeSet<NodeId>,
    /// Nodes changed since the engine took them up last, to show what has become of them.
    pub touched: BTreeSet<NodeId>,
    /// Sessions changed since the last projection.
    pub touched_sessions: BTreeSet<SessionUid>,
    /// Sessions whose journal must be written before their newest operations may leave.
    pub journal_due: BTreeSet<SessionUid>,
}

impl World {
    /// The node, if the index is ours.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }

    /// The node, marked as touched.
    pub fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.touched.insert(id);
        self.nodes.get_mut(id.0 as usize)
    }

    /// The node of that name, made if it is new.
    pub fn intern(&mut self, xname: &Xname) -> NodeId {
        if let Some(id) = self.by_name.get(xname) {
            return *id;
        }
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Node::new(xname.clone()));
        self.by_name.insert(xname.clone(), id);
        id
    }

    /// The nodes of which something holds.
    pub fn nodes_where(&self, holds: impl Fn(&Node) -> bool) -> impl Iterator<Item = NodeId> {
        (0..).map(NodeId).zip(&self.nodes).filter(move |(_, node)| holds(node)).map(|(id, _)| id)
    }

    /// The session that drives a node, with the node's drive.
    #[must_use]
    pub fn driver(&self, id: NodeId) -> Option<(&Session, &Drive)> {
        let drive = self.node(id)?.drive.as_ref()?;
        Some((self.sessions.get(&drive.session)?, drive))
    }

    /// Those of some nodes that are driven, with what is being done to them.
    pub(crate) fn driven(&self, nodes: impl IntoIterator<Item = NodeId>) -> impl Iterator<Item = (NodeId, &Node, &Drive)> {
        nodes.into_iter().filter_map(|id| {
            let node = self.node(id)?;
            Some((id, node, node.drive.as_ref()?))
        })
    }

    /// Whether a node failed in its last session and is not driven again yet.
    #[must_use]
    pub fn has_failed(&self, id: NodeId) -> bool {
        let node = self.node(id).filter(|node| node.drive.is_none());
        node.and_then(|node| node.last.as_ref()).is_some_and(|last| last.end.kind == EndKind::Failed)
    }

    /// Whether a session drives a node now.
    #[must_use]
    pub fn drives(&self, uid: &SessionUid) -> bool {
        let run = self.sessions.get(uid).and_then(Session::running);
        run.is_some_and(|run| run.slots.iter().any(|slot| slot.taken && slot.end.is_none()))
    }

    /// Attempts allowed for a node. A node has one in mode v1, which cycles nothing for its silence (v1 behaviour §3.9).
    #[must_use]
    pub fn retry_limit(&self, node: &Node) -> u16 {
        let run = node.drive.as_ref().and_then(|drive| self.sessions.get(&drive.session)?.run());
        if run.is_some_and(|run| run.plan.agent) { 1 } else { node.retry_policy.unwrap_or(self.options.retry_policy) }
    }
}
