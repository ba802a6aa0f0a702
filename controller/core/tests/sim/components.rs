//! BootComponents as the API server holds them: what people and the operator write there, and what the operator hears of it.

use std::sync::Arc;
use std::time::Duration;

use bos_core::by_hand::{Asked, Goal, Parked, Wish};
use bos_core::model::{NodeId, Owner, SessionUid, World};
use bos_core::plan::{PlannedBootSet, PlannedOperation};
use bos_core::time::Timestamp;

use super::coverage::Input;
use super::operator::{Event, Sim};

/// A BootComponent, as far as it is about what is asked of its node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Component {
    /// Another one once it was made again.
    pub(crate) uid: u32,
    /// Grows with every change of the spec.
    version: u64,
    made: Timestamp,
    pub(crate) spec: Spec,
    /// None where no status was written.
    pub(crate) shown: Option<Shown>,
    /// What somebody saved of it.
    pub(crate) copies: Vec<Spec>,
}

/// The part of its status that counts after a restart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    run: Option<Arc<str>>,
    applied: Option<Arc<str>>,
    owned_since: Option<Timestamp>,
}

impl Shown {
    fn asked(self) -> Asked {
        Asked { taken: self.run, applied: self.applied, ..Asked::default() }
    }
}

/// Its spec; the owner is what `spec.session` says beside the uid.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Spec {
    pub(crate) wish: Wish,
    pub(crate) owner: Option<Owner>,
}

/// The operator's part of a spec, by what tells its values apart.
#[derive(Debug, Clone, Default, PartialEq)]
struct Held {
    run: Option<Arc<str>>,
    staged: Option<SessionUid>,
}

/// What the operator that lives knows of a BootComponent.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    uid: u32,
    version: u64,
    held: Held,
    /// A write is on its way.
    submitted: bool,
    /// What was seen meanwhile.
    unheard: Option<Seen>,
}

/// An object as a watch tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    node: NodeId,
    uid: u32,
    version: u64,
    spec: Spec,
    made: Timestamp,
    /// What a person did.
    input: Option<Input>,
}

/// A merge patch of the operator, for the version that it knew.
#[derive(Debug, Clone)]
pub(crate) struct Patch {
    node: NodeId,
    uid: u32,
    version: u64,
    wanted: Held,
    run: Option<Spec>,
    parked: Option<Option<Parked>>,
}

impl Component {
    /// One that discovery made, and that was shown.
    pub(crate) fn new() -> Self {
        Self { shown: Some(Shown::default()), ..Self::default() }
    }

    fn seen(&self, node: NodeId, input: Option<Input>) -> Seen {
        Seen { node, uid: self.uid, version: self.version, made: self.made, spec: self.spec.clone(), input }
    }
}

impl Held {
    fn of(spec: &Spec) -> Self {
        Self { run: spec.wish.run.clone(), staged: spec.wish.parked.as_ref().map(|parked| parked.session.clone()) }
    }

    /// As the engine's writer of specs has it.
    fn wanted(&self, world: &World, id: NodeId) -> Self {
        let node = &world.nodes[id.0 as usize];
        let staged = match &node.staged {
            Some((session, _)) => Some(session.clone()),
            None => self.staged.clone().filter(|staged| node.unstaged.as_ref() != Some(staged)),
        };
        Self { run: node.run_to_write().or(self.run.as_ref()).cloned(), staged }
    }
}

fn goal(set: Option<&PlannedBootSet>) -> Goal {
    set.map_or_else(Goal::default, |set| Goal {
        artifacts: set.artifacts.as_ref().map(|digest| digest.0.clone()),
        image: set.image.clone(),
        configuration: set.configuration.clone(),
    })
}

/// Desired state, session and run of what drives a node.
fn driven(world: &World, id: NodeId, known: &Wish) -> Option<Spec> {
    let (session, drive) = world.driver(id)?;
    let plan = &session.run()?.plan;
    let wanted = goal(plan.boot_set(drive.boot_set));
    let wanted = match plan.operation {
        PlannedOperation::Configure => Goal { configuration: wanted.configuration, ..known.goal.clone().unwrap_or_default() },
        PlannedOperation::Boot | PlannedOperation::Reboot | PlannedOperation::Shutdown => wanted,
    };
    let owner = (!session.by_hand).then(|| session.as_owner(drive.index));
    let session = owner.as_ref().map(|owner| owner.uid.clone());
    Some(Spec { wish: Wish { run: Some(drive.run.clone()), goal: Some(wanted), session, ..Wish::default() }, owner })
}

fn parked(world: &World, id: NodeId) -> Option<Parked> {
    let (uid, index) = world.node(id)?.staged.clone()?;
    let plan = &world.sessions.get(&uid)?.run()?.plan;
    let set = plan.member(index).and_then(|(set, _)| plan.boot_set(set));
    Some(Parked { operation: plan.operation, goal: goal(set), session: uid, namespace: "bos".into() })
}

impl Sim {
    /// The operator reads all objects.
    pub(crate) fn load_components(&mut self, world: &mut World) {
        self.views.clear();
        for (component, id) in self.components.iter().zip((0..).map(NodeId)) {
            self.views.push(View { uid: component.uid, version: component.version, held: Held::of(&component.spec), ..View::default() });
            let shown = component.shown.clone();
            if shown.is_none() {
                self.check.orders.restored(id, self.now);
            }
            world.fold_owner(id, component.spec.owner.clone(), shown.as_ref().and_then(|shown| shown.owned_since));
            world.load_asked(id, shown.map(Shown::asked), &component.spec.wish);
            world.fold_wish(id, component.spec.wish.clone(), self.now);
        }
    }

    /// Somebody writes to an object; the operator hears of it soon.
    pub(crate) fn write_spec(&mut self, node: NodeId, spec: Spec, input: Option<Input>) {
        let component = &mut self.components[node.0 as usize];
        component.version += u64::from(component.spec != spec);
        component.spec = spec;
        self.tell(node, input);
    }

    /// An object is made again from an old copy; what its status said is gone.
    pub(crate) fn restore_component(&mut self, node: NodeId, spec: Spec) {
        let component = &mut self.components[node.0 as usize];
        (component.uid, component.version, component.shown) = (component.uid + 1, component.version + 1, None);
        (component.spec, component.made) = (spec, self.now);
        self.tell(node, Some(Input::RunRestored));
    }

    fn tell(&mut self, node: NodeId, input: Option<Input>) {
        let component = &self.components[node.0 as usize];
        let seen = component.seen(node, input);
        // What a watch tells is told in its order.
        let when = (self.now + Duration::from_millis(self.hands.between(5, 300))).max(self.told);
        self.told = when;
        self.schedule(when, Event::Seen(self.life, Box::new(seen)));
    }

    pub(crate) fn seen(&mut self, life: u32, seen: Seen) {
        if life != self.life || self.world.is_none() || seen.uid < self.views[seen.node.0 as usize].uid {
            return;
        }
        if let Some(input) = seen.input {
            self.note(input, [seen.node]);
        }
        let view = &mut self.views[seen.node.0 as usize];
        let again = view.uid != seen.uid;
        if again {
            let shown = self.components[seen.node.0 as usize].shown.clone();
            *view = View { uid: seen.uid, ..View::default() };
            self.check.orders.restored(seen.node, seen.made);
            self.fold(life, |world, _| {
                world.load_asked(seen.node, shown.map(Shown::asked), &seen.spec.wish);
                world.touched.insert(seen.node);
            });
        } else if seen.version < view.version {
            return;
        } else if view.submitted {
            view.unheard = Some(seen);
            return;
        }
        self.hear(life, seen);
    }

    fn hear(&mut self, life: u32, seen: Seen) {
        let view = &mut self.views[seen.node.0 as usize];
        (view.version, view.held) = (seen.version, Held::of(&seen.spec));
        self.fold(life, |world, now| {
            world.fold_owner(seen.node, seen.spec.owner, None);
            world.fold_wish(seen.node, seen.spec.wish, now);
        });
    }

    /// Status and spec of a node are brought to the API server: the spec by a write that may be lost or too late, then the status.
    pub(crate) fn show(&mut self, node: NodeId) {
        let (Some(world), Some(view)) = (&self.world, self.views.get_mut(node.0 as usize)) else { return };
        let component = &mut self.components[node.0 as usize];
        let wanted = view.held.wanted(world, node);
        if view.submitted {
            return;
        }
        if wanted == view.held {
            // The spec first.
            if view.uid == component.uid {
                let node = &world.nodes[node.0 as usize];
                let owned_since = node.owner.as_ref().and_then(Owner::since_by_hand);
                component.shown = Some(Shown { run: node.asked.answer().cloned(), applied: node.asked.applied.clone(), owned_since });
            }
            return;
        }
        let patch = Patch {
            node,
            uid: view.uid,
            version: view.version,
            run: if wanted.run == view.held.run { None } else { driven(world, node, &component.spec.wish) },
            parked: (wanted.staged != view.held.staged).then(|| parked(world, node)),
            wanted,
        };
        view.submitted = true;
        let when = self.now + Duration::from_millis(self.hands.between(5, 300));
        self.schedule(when, Event::Spec(self.life, Box::new(patch)));
    }

    /// A write of the operator reaches the API server, whether or not it lives still.
    pub(crate) fn spec_written(&mut self, life: u32, patch: Patch) {
        let node = patch.node;
        let component = &mut self.components[node.0 as usize];
        let applies = component.uid == patch.uid && component.version == patch.version;
        if applies {
            let spec = &mut component.spec;
            if let Some(run) = patch.run {
                (spec.wish.run, spec.wish.goal, spec.wish.session) = (run.wish.run, run.wish.goal, run.wish.session);
                spec.owner = run.owner;
            }
            if let Some(parked) = patch.parked {
                spec.wish.parked = parked;
            }
            component.version += 1;
        }
        if applies {
            let parked = self.components[node.0 as usize].spec.wish.parked.clone();
            self.check.orders.staged(node, parked.as_ref());
            self.tell(node, None);
        }
        if life != self.life || (applies && self.crash_here()) {
            return;
        }
        let written = patch.wanted.run.clone().filter(|_| applies);
        if applies {
            let (version, staged) = (self.components[node.0 as usize].version, patch.wanted.staged.is_some());
            if staged && self.views[node.0 as usize].held.staged != patch.wanted.staged {
                self.note(Input::Staged, [node]);
            }
            let view = &mut self.views[node.0 as usize];
            (view.version, view.held) = (version, patch.wanted);
        }
        self.fold(life, |world, _| {
            if let Some(run) = &written {
                world.run_written(node, run);
            }
        });
        let component = &self.components[node.0 as usize];
        let view = &mut self.views[node.0 as usize];
        if view.uid != component.uid {
            // Gone, and made again: the watch tells of it.
            return view.submitted = false;
        }
        view.submitted = false;
        let unheard = view.unheard.take().filter(|seen| seen.version > view.version);
        if let Some(seen) = unheard {
            self.hear(life, seen);
        } else if !applies {
            let seen = component.seen(node, None);
            self.hear(life, seen);
        }
        self.fold(life, |world, _| {
            world.touched.insert(node);
        });
    }

    /// Nothing about the nodes of a session is on its way to the API server.
    pub(crate) fn is_shown(&self, uid: &SessionUid) -> bool {
        let run = self.world.as_ref().and_then(|world| world.sessions.get(uid)?.run());
        run.is_none_or(|run| run.slots.iter().all(|slot| !self.views[slot.node.0 as usize].submitted))
    }

    /// Whether the records of an ended session may go.
    pub(super) fn may_be_forgotten(&self, uid: &SessionUid) -> bool {
        self.world.as_ref().is_none_or(|world| world.may_be_forgotten(uid, |uid| self.durable.get(uid).copied()))
    }
}
