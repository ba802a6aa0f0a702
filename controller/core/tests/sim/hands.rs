//! What people ask of single nodes by their BootComponents: runs by hand, and staged state that is applied.

use std::sync::Arc;
use std::time::Duration;

use bos_core::by_hand::Goal;
use bos_core::model::{NodeId, SessionUid};
use bos_core::session::Stage;
use bos_crds::Operation;

use super::components::Spec;
use super::coverage::Input;
use super::fixture::{at, digest};
use super::operator::{Event, Sim};
use super::rng::Rng;
use super::scenario::{Command, Scenario, wanted};

/// What a person writes into a BootComponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hand {
    /// A new run: to this image, or to be off. Its Session is taken out.
    Run(Option<&'static str>),
    /// Only a new run, with whatever is wanted already: a failed node is to be tried once more.
    Again,
    /// Another desired state without a new run, which asks for nothing.
    Wish(Option<&'static str>),
    /// The object is made again from an old copy, which asks for nothing.
    Restore,
    /// The staged state is applied.
    Apply,
    /// And with the same words again, which asks for nothing.
    ApplySame,
}

impl Scenario {
    /// The same history, in which people drive single nodes too. In every other one they do not, nor in most of those where
    /// many nodes fall silent together: that is told by few histories, and hands disturb it.
    pub(crate) fn with_hands(mut self) -> Self {
        let mut rng = Rng::new(self.seed ^ 0x4a5d);
        if rng.chance(if self.seed.is_multiple_of(16) { 800 } else { 500 }) {
            return self;
        }
        self.hands = true;
        let count = self.quirks.len();
        let later = self.sessions.last().map_or(1, |session| session.at.since(at(0)).as_secs());
        for _ in 0..rng.pick(&[0, 1, 1, 2]) {
            let when = at(rng.between(1, later + 60));
            let mut staged = wanted(&mut rng, count, when);
            staged.operation = rng.pick(&[Operation::Boot, Operation::Reboot, Operation::Shutdown]);
            staged.stage = true;
            self.sessions.push(staged);
        }
        let staged = self.sessions.iter().any(|session| session.stage);
        for _ in 0..rng.pick(&[1, 2, 4, 8]) {
            self.ask(&mut rng, count, staged);
        }
        // What is staged to the end is taken back.
        let last = self.commands.iter().map(|(when, _)| *when).max().unwrap_or_else(|| at(0));
        for (index, session) in self.sessions.iter().enumerate().filter(|(_, session)| session.stage) {
            self.commands.push((last.max(session.at) + Duration::from_secs(rng.between(5, 100)), Command::Cancel(index)));
        }
        self.commands.sort_by_key(|(when, _)| *when);
        self
    }

    /// One thing that people ask, now and then of several nodes, and now and then once more soon after.
    fn ask(&mut self, rng: &mut Rng, count: usize, staged: bool) {
        let (least, most) = rng.pick(&[(1, 30), (10, 120), (60, 300), (200, 500)]);
        let when = at(rng.between(least, most)) + Duration::from_millis(rng.between(0, 999));
        let first = usize::try_from(rng.between(0, count as u64 - 1)).unwrap();
        let nodes = usize::try_from(rng.pick(&[1, 1, 2, 4])).unwrap();
        let hand = hand(rng, staged);
        let soon = when + Duration::from_millis(rng.pick(&[200, 900, 1500, 3000, 20_000, 90_000]));
        let then = rng.chance(500).then(|| if hand == Hand::Apply && rng.chance(500) { Hand::ApplySame } else { self::hand(rng, staged) });
        for node in (first..count).take(nodes) {
            let late = Duration::from_millis(rng.between(0, 300));
            self.commands.push((when + late, Command::Hand(node, hand)));
            self.commands.extend(then.map(|then| (soon + late, Command::Hand(node, then))));
        }
    }
}

fn hand(rng: &mut Rng, staged: bool) -> Hand {
    let goal = rng.pick(&[None, Some("new"), Some("newer"), Some("newer")]);
    match rng.between(0, if staged { 11 } else { 7 }) {
        0..4 => Hand::Run(goal),
        4 | 5 => Hand::Again,
        6 => Hand::Wish(goal),
        7 => Hand::Restore,
        8..11 => Hand::Apply,
        _ => Hand::ApplySame,
    }
}

fn goal(image: Option<&str>) -> Goal {
    Goal { artifacts: image.map(|image| digest(image).0), image: image.unwrap_or_default().into(), configuration: "".into() }
}

impl Sim {
    pub(crate) fn hand(&mut self, index: usize, hand: Hand) {
        let node = NodeId(u32::try_from(index).unwrap());
        self.hands_left -= 1;
        self.quiet_from = self.now + Duration::from_secs(20);
        let mut spec = self.components[index].spec.clone();
        if hand != Hand::Restore {
            self.components[index].copies.push(spec.clone());
        }
        let wish = &mut spec.wish;
        match hand {
            Hand::Run(image) => {
                (wish.run, wish.goal, wish.session) = (Some(self.new_token("run")), Some(goal(image)), None);
                spec.owner = None;
                self.asked_for(node, spec, if image.is_some() { Input::RunBoot } else { Input::RunOff });
            }
            Hand::Again => {
                wish.run = Some(self.new_token("again"));
                self.asked_for(node, spec, Input::RunAgain);
            }
            Hand::Wish(image) => {
                wish.goal = Some(goal(image));
                self.check.orders.wished(node, wish);
                self.write_spec(node, spec, Some(Input::RunSame));
            }
            Hand::Restore => {
                let copy = self.hands.between(0, self.components[index].copies.len() as u64);
                let copies = &self.components[index].copies;
                let spec = copies.get(usize::try_from(copy).unwrap()).cloned().unwrap_or(spec);
                self.restore_component(node, spec);
            }
            Hand::Apply => {
                wish.apply = Some(self.new_token("apply"));
                self.check.orders.applied(node, wish, self.now);
                self.write_spec(node, spec, Some(Input::Applied));
            }
            Hand::ApplySame => self.write_spec(node, spec, Some(Input::AppliedSame)),
        }
    }

    fn asked_for(&mut self, node: NodeId, spec: Spec, input: Input) {
        self.check.orders.asked(node, &spec.wish, self.now);
        self.write_spec(node, spec, Some(input));
    }

    fn new_token(&mut self, kind: &str) -> Arc<str> {
        self.tokens += 1;
        format!("{kind}-{}", self.tokens).into()
    }

    /// Nothing that people asked by hand is left to be done.
    pub(crate) fn nothing_is_asked(&self) -> bool {
        let idle = self.world.as_ref().is_some_and(|world| {
            world.asked.is_empty() && world.plans_due.is_empty() && !world.sessions.values().any(|session| session.by_hand)
        });
        !self.scenario.hands || (idle && self.hands_left == 0 && self.now >= self.quiet_from)
    }

    /// A run without a Session: its plan is written like any other.
    pub(crate) fn plan_by_hand(&mut self, uid: SessionUid) {
        let Some(world) = &self.world else { return };
        let Some(Stage::Recording(recording)) = world.sessions.get(&uid).map(|session| &session.stage) else { return };
        self.check.orders.planned(&uid, &recording.plan, world, self.now);
        self.plan_writing.insert(uid.clone());
        self.after(5, 300, Event::PlanWritten(self.life, uid));
    }
}
