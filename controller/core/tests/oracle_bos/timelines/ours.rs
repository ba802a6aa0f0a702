//! Our core at work on the same site: inputs are folded in, passes run, calls leave when their record is durable, which is at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bos_core::batch::{BatchId, BatchState, Outcome, Progress, Task};
use bos_core::fold::Fault as CoreFault;
use bos_core::health;
use bos_core::model::{ConfigRecord, ConfigStatus, EndKind, NodeId, Power, PowerAction, SessionUid, Token as CoreToken, World};
use bos_core::pass;
use bos_core::running::{Dispatch, Order};
use bos_core::session::Stage;
use bos_core::session_setup::SetupFault;
use bos_core::time::Timestamp;
use bos_core::want::Effect;
use bos_crds::{SessionSpec, reasons};

use super::bos::{End, Timeline};
use super::scenario::{Deed, Parameters, Service};
use super::site::{Code, Site, Token};
use crate::acting::case::{Call, Fault, Faulty, Meaning};
use crate::decision::record::Said;
use crate::fixture::{START, digest, reported, seen, setup, snapshot, xname};

const ID: NodeId = NodeId(0);
/// A pass of the engine at the latest after that.
const TICK: u64 = 1000;
/// A service answers after that.
const ANSWER: u64 = 50;
/// PCS gives up a transition without a word of ours on the node.
pub(crate) const TRANSITION: u64 = 60_000;

enum Event {
    Pass,
    Outcome(BatchId, Outcome),
    Read(u64, Result<Power, CoreFault>),
    Config(u64, Result<Option<ConfigRecord>, CoreFault>),
    Progress(BatchId, u64, Progress),
    SetUp(SessionUid),
    Inventory,
}

pub(crate) struct Ours<'a> {
    parameters: &'a Parameters,
    site: Site,
    world: World,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sessions: Vec<SessionUid>,
    transitions: Vec<(u64, PowerAction)>,
    line: Timeline,
    ended: BTreeSet<SessionUid>,
}

impl<'a> Ours<'a> {
    pub(crate) fn play(parameters: &'a Parameters) -> Timeline {
        let mut world = World { install_namespace: "bos".into(), options: parameters.options.clone(), ..World::default() };
        for id in world.fold_inventory(Ok(snapshot(1)), START) {
            world.nodes[id.0 as usize].recorded = true;
        }
        world.reports.listening_since = Some(START - Duration::from_secs(3600));
        world.nodes[0].retry_policy = parameters.retry_policy;
        let before = START - Duration::from_secs(7200);
        let report = |image: &String| reported(CoreToken("token-0".into()), Some(digest(image)), before);
        world.nodes[0].reported = parameters.running.as_ref().map(report);
        let mut ours = Self {
            parameters,
            site: Site::new(parameters),
            world,
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sessions: Vec::new(),
            transitions: Vec::new(),
            line: Timeline::default(),
            ended: BTreeSet::new(),
        };
        ours.run();
        ours.line
    }

    fn at(&self) -> Timestamp {
        START + Duration::from_millis(self.now)
    }

    fn after(&mut self, span: u64, event: Event) {
        let number = self.events.last_key_value().map_or(0, |(number, _)| number + 1);
        self.events.insert(number, event);
        self.queue.push(Reverse((self.now + span, number)));
    }

    fn run(&mut self) {
        let mut deeds = vec![(0, Deed::Session(self.parameters.operation))];
        deeds.extend(self.parameters.deeds.iter().cloned());
        self.after(0, Event::Pass);
        let until = self.parameters.until.max(20_000_000);
        loop {
            let happens = self.site.next().unwrap_or(u64::MAX);
            let deed = deeds.first().map_or(u64::MAX, |(at, _)| *at);
            let event = self.queue.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            self.now = happens.min(deed).min(event);
            if self.now > until || deeds.is_empty() && self.ended.len() == self.sessions.len() {
                break;
            }
            if self.now == deed {
                self.deed(deeds.remove(0).1);
            } else if self.now == happens {
                if let Some((_, token)) = self.site.happen() {
                    let _ = self.world.fold_report(xname(0).as_str(), &named(&token), self.at());
                }
            } else if let Some(Reverse((_, number))) = self.queue.pop()
                && let Some(event) = self.events.remove(&number)
            {
                if matches!(event, Event::Pass) {
                    self.after(TICK, Event::Pass);
                }
                self.fold(event);
            }
            self.pass();
        }
    }

    fn deed(&mut self, deed: Deed) {
        match deed {
            Deed::Session(operation) => {
                let object = seen(&format!("session-{}", self.sessions.len()), self.at(), SessionSpec::new(operation, "template"));
                self.sessions.push(object.uid.clone());
                self.line.ends.push(None);
                self.world.fold_session(object, self.at());
            }
            Deed::Enable(enable) => self.world.nodes[0].suspended = !enable,
        }
    }

    fn fold(&mut self, event: Event) {
        let now = self.at();
        let asked = |at: u64| START + Duration::from_millis(at);
        match event {
            Event::Pass => {}
            Event::Outcome(batch, outcome) => self.world.fold_outcome(batch, outcome, now),
            Event::Read(at, read) => {
                let read = read.map(|power| vec![(ID, power, "".into())]);
                self.world.fold_power(&[ID], asked(at), read, now);
            }
            Event::Config(at, read) => {
                let read = read.map(|record| record.into_iter().map(|record| (ID, record)).collect());
                self.world.fold_config(&[ID], asked(at), read, now);
            }
            Event::Progress(batch, at, progress) => self.world.fold_progress(batch, asked(at), progress, now),
            Event::SetUp(uid) => {
                let failed = [(Service::Hsm, health::Service::Hsm), (Service::S3, health::Service::S3)]
                    .into_iter()
                    .find(|(service, _)| self.site.fails(*service, self.now).is_some());
                let read = match failed {
                    Some((_, service)) => Err(SetupFault::Unavailable(CoreFault { service, detail: "503".into() })),
                    None => Ok(setup(1, "img-a", &self.parameters.configuration, &[0])),
                };
                if let Some(uid) = self.world.fold_setup(&uid, read, now) {
                    self.world.start_session(&uid, now);
                }
            }
            Event::Inventory => drop(self.world.fold_inventory(Ok(snapshot(1)), now)),
        }
    }

    fn pass(&mut self) {
        let now = self.at();
        for effect in pass::run(&mut self.world, now) {
            self.effect(effect);
        }
        for (index, uid) in self.sessions.clone().into_iter().enumerate() {
            if self.ended.contains(&uid) {
                continue;
            }
            let Stage::Ended(ended) = &self.world.sessions[&uid].stage else { continue };
            let end = ended.run.as_ref().and_then(|run| run.slots[0].end.as_ref());
            let end = end.map_or(End::NotSetUp, |end| match end.kind {
                EndKind::Succeeded => End::Succeeded,
                EndKind::Failed => End::Failed(reasons::ALL.iter().find(|(reason, _)| *reason == &*end.reason).unwrap().0),
                EndKind::LeftRunning => End::Left,
                EndKind::Superseded => End::Superseded,
                other => panic!("{other:?}"),
            });
            self.line.ends[index] = Some((self.now, end));
            self.ended.insert(uid);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::ReadInventory => self.after(ANSWER, Event::Inventory),
            Effect::SetUp(uid) => self.after(ANSWER, Event::SetUp(uid)),
            Effect::ReadPower(_) => {
                let read = match self.site.fails(Service::PcsRead, self.now) {
                    Some(_) => Err(CoreFault { service: health::Service::Pcs, detail: "503".into() }),
                    None => Ok(self.power()),
                };
                self.after(ANSWER, Event::Read(self.now, read));
            }
            Effect::ReadConfiguration(_) => {
                let read = match self.site.configuration(self.now) {
                    Err(_) => Err(CoreFault { service: health::Service::Cfs, detail: "503".into() }),
                    Ok(record) => Ok(record.map(|record| ConfigRecord {
                        desired: record.desired.unwrap_or_default().into(),
                        status: status(&record.status.unwrap_or_default()),
                    })),
                };
                self.after(ANSWER, Event::Config(self.now, read));
            }
            Effect::Record(batch) => {
                if let Some(dispatch) = self.world.release(batch, self.at()) {
                    let outcome = self.carry_out(&dispatch);
                    self.after(ANSWER, Event::Outcome(batch, outcome));
                }
            }
            // Nobody here fetches boot scripts, has a state in HSM or removes Sessions.
            Effect::ReadScripts(nodes) => self.world.fold_scripts(&nodes, Ok(HashMap::new()), self.at()),
            Effect::ReadStates(_) | Effect::RemoveSession(_) => {}
            Effect::Follow(batch) => {
                let progress = self.follow(batch);
                self.after(ANSWER, Event::Progress(batch, self.now, progress));
            }
        }
    }

    fn power(&self) -> Power {
        match self.site.power(self.now) {
            Said::On => Power::On,
            Said::Off => Power::Off,
            Said::Missing | Said::Text(_) => Power::Unknown,
        }
    }

    fn carry_out(&mut self, dispatch: &Dispatch) -> Outcome {
        match &dispatch.order {
            Order::BootParameters { .. } => {
                if let Some(code) = self.site.fails(Service::Ims, self.now) {
                    // What only fails for now is tried again, whether IMS heard it or not.
                    return match failed(Faulty::Ims, code) {
                        Outcome::Rejected { detail } => Outcome::Impossible { detail },
                        _ => Outcome::NotSent { service: health::Service::Ims, detail: "IMS".into() },
                    };
                }
                let stored = self.site.store("img-a", self.now);
                self.called(Call::BootParameters, stored.as_ref().err());
                stored.map_or_else(|code| failed(Faulty::Bss, code), |token| Outcome::Stored { token: named(&token) })
            }
            Order::Configuration { name, enabled, clear_state } => {
                let known = self.site.configure(name, *enabled, self.now);
                let call = Call::Configure { name: name.to_string(), enabled: *enabled, clear_state: *clear_state };
                self.called(call, known.as_ref().err());
                let changed = |known: bool| Outcome::Configured { changed: if known { vec![ID] } else { Vec::new() } };
                known.map_or_else(|code| failed(Faulty::Cfs, code), changed)
            }
            Order::Power(action) => {
                let switched = self.site.switch(*action, self.now);
                self.called(Call::Power(*action), switched.as_ref().err());
                match switched {
                    Err(code) => failed(Faulty::Pcs, code),
                    Ok(()) => {
                        self.transitions.push((self.now, *action));
                        Outcome::Accepted { transition: (self.transitions.len() - 1).to_string().into() }
                    }
                }
            }
        }
    }

    fn called(&mut self, call: Call, failed: Option<&Code>) {
        self.line.calls.push((self.now, call, failed.copied().unwrap_or(Some(200))));
    }

    /// PCS ends a transition when the power is what it was to be, and otherwise after a while without a word on the node.
    fn follow(&mut self, batch: BatchId) -> Progress {
        let open = &self.world.batches[&batch];
        let BatchState::Following { transition, .. } = &open.state else { panic!("{open:?}") };
        let (since, action) = self.transitions[transition.parse::<usize>().unwrap()];
        let reached = self.power() == if action == PowerAction::On { Power::On } else { Power::Off };
        let tasks = if reached { vec![(ID, Task::Succeeded)] } else { Vec::new() };
        Progress::Tasks { done: reached || self.now >= since + TRANSITION, tasks }
    }
}

/// How a fault comes back from the clients of our services.
fn failed(service: Faulty, code: Code) -> Outcome {
    let detail: Arc<str> = code.map_or_else(|| "connection refused".into(), |code| code.to_string().into());
    match (Fault { service, code }).means() {
        Meaning::NotSent => {
            let service = match service {
                Faulty::Hsm => health::Service::Hsm,
                Faulty::Ims => health::Service::Ims,
                Faulty::Bss => health::Service::Bss,
                Faulty::CfsRead | Faulty::Cfs => health::Service::Cfs,
                Faulty::Pcs => health::Service::Pcs,
            };
            Outcome::NotSent { service, detail }
        }
        Meaning::Unknown => Outcome::Unknown { detail },
        Meaning::Refused => Outcome::Rejected { detail },
    }
}

fn named(token: &Token) -> CoreToken {
    CoreToken(format!("token-{}", token.number).into())
}

fn status(word: &str) -> ConfigStatus {
    match word {
        "configured" => ConfigStatus::Configured,
        "pending" => ConfigStatus::Pending,
        "failed" => ConfigStatus::Failed,
        "unconfigured" => ConfigStatus::Unconfigured,
        other => ConfigStatus::Other(other.into()),
    }
}
