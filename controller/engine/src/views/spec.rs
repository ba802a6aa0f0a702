//! Our part of the spec of a BootComponent: what a Session wants of the node, and the state that it has staged there.

use std::sync::Arc;

use bos_core::by_hand::{Wish, bare};
use bos_core::model::{NodeId, SessionUid, World};
use bos_core::plan::{PlannedBootSet, PlannedOperation};
use bos_core::session::Session;
use bos_crds::{BootComponent, BootComponentSpec};
use serde_json::{Value, json};

use crate::convert;

/// Our part of a spec, by what tells its values apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SpecShown {
    /// `spec.run`; desired state and session go with it.
    run: Option<Arc<str>>,
    /// The session whose state is staged.
    staged: Option<SessionUid>,
}

impl SpecShown {
    pub(super) fn of(spec: &BootComponentSpec) -> Self {
        let staged = spec.staged_state.as_ref().map(|staged| SessionUid(staged.session.uid.as_str().into()));
        Self { run: spec.run.as_deref().map(Arc::from), staged }
    }

    /// The run that it names.
    pub(super) fn run(&self) -> Option<&Arc<str>> {
        self.run.as_ref()
    }

    /// What the spec should hold of a node.
    pub(super) fn wanted(&self, world: &World, id: NodeId) -> Self {
        let Some(node) = world.node(id) else { return self.clone() };
        let run = node.run_to_write().or(self.run.as_ref()).cloned();
        let staged = match &node.staged {
            Some((session, _)) => Some(session.clone()),
            None => self.staged.clone().filter(|staged| node.unstaged.as_ref() != Some(staged)),
        };
        Self { run, staged }
    }

    /// The merge patch that makes this out of whatever of these the server may hold.
    pub(super) fn patch(&self, world: &World, id: NodeId, held: [&Self; 2]) -> Option<Value> {
        let mut spec = serde_json::Map::new();
        if held.iter().any(|held| held.run != self.run)
            && let Some((session, drive)) = world.driver(id)
        {
            let plan = session.run().map(|run| &run.plan);
            let set = plan.and_then(|plan| plan.boot_set(drive.boot_set));
            let mut desired = goal(set);
            if let (true, Value::Object(fields)) = (plan.is_some_and(|plan| plan.operation == PlannedOperation::Configure), &mut desired) {
                // What the node is to run stays.
                fields.retain(|field, _| field == "configuration");
            }
            spec.insert("desiredState".to_owned(), desired);
            spec.insert("session".to_owned(), if session.by_hand { Value::Null } else { reference(session, drive.index) });
            spec.insert("run".to_owned(), json!(&*drive.run));
        }
        if held.iter().any(|held| held.staged != self.staged) {
            spec.insert(
                "stagedState".to_owned(),
                world.node(id)?.staged.as_ref().map_or(Value::Null, |(uid, index)| staged(world, uid, *index)),
            );
        }
        (!spec.is_empty()).then_some(Value::Object(spec))
    }
}

/// All that is taken from a spec: our part of it, the artifact sets that it names, and what it asks for.
#[derive(Debug)]
pub(super) struct SpecSeen {
    pub(super) held: SpecShown,
    pub(super) digests: Vec<String>,
    pub(super) wish: Wish,
}

impl SpecSeen {
    pub(super) fn of(object: &BootComponent) -> Self {
        Self { held: SpecShown::of(&object.spec), digests: digests(&object.spec), wish: convert::wish(object) }
    }
}

fn goal(set: Option<&PlannedBootSet>) -> Value {
    let text = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
    json!({
        "artifacts": set.and_then(|set| set.artifacts.as_ref()).map(|digest| digest.0.to_string()),
        "image": set.map_or(Value::Null, |set| text(&set.image)),
        "configuration": set.map_or(Value::Null, |set| text(&set.configuration)),
    })
}

fn reference(session: &Session, index: u32) -> Value {
    json!({
        "namespace": &*session.namespace,
        "name": &*session.name,
        "uid": &*session.uid.0,
        "createdAt": session.as_owner(index).created.wall().to_string(),
    })
}

/// State that waits to be applied, complete in itself.
fn staged(world: &World, uid: &SessionUid, index: u32) -> Value {
    let Some((session, run)) = world.sessions.get(uid).and_then(|session| Some((session, session.run()?))) else { return Value::Null };
    let set = run.plan.member(index).and_then(|(set, _)| run.plan.boot_set(set));
    let mut state = goal(set);
    if let Value::Object(fields) = &mut state {
        fields.insert("operation".to_owned(), json!(session.spec.operation));
        fields.insert("session".to_owned(), reference(session, index));
    }
    state
}

/// The artifact sets that a spec names.
pub(super) fn digests(spec: &BootComponentSpec) -> Vec<String> {
    let desired = spec.desired_state.as_ref().and_then(|desired| desired.artifacts.clone());
    let staged = spec.staged_state.as_ref().and_then(|staged| staged.artifacts.clone());
    desired.into_iter().chain(staged).map(|digest| bare(&digest).to_owned()).collect()
}
