//! What the API server said to our writes.

use super::*;

impl Task {
    pub(super) fn fold_ack(&mut self, ack: WriteAck) {
        match ack.key.kind {
            Kind::BootComponent => self.component_ack(ack),
            Kind::Session => self.session_ack(ack),
            Kind::BootOptions => self.views.options_written(&ack.outcome, ack.version),
            Kind::SessionTemplate => {}
        }
    }

    fn component_ack(&mut self, ack: WriteAck) {
        let Some(id) = Xname::parse(&ack.key.name).ok().and_then(|xname| self.world.by_name.get(&xname).copied()) else { return };
        if self.views.is_another(id, &ack.uid) {
            // It was deleted and made again meanwhile.
            return;
        }
        match (ack.outcome, ack.target) {
            (WriteOutcome::Written { resource_version, generation, uid }, Target::Create) => {
                self.views.created(id, ack.version, &uid, &resource_version, generation);
                // Touched by it: what it is driven for, and what is known of it, is to be written.
                if let Some(node) = self.world.node_mut(id) {
                    node.recorded = true;
                }
            }
            (WriteOutcome::Written { resource_version, generation, .. }, target) => {
                let written = self.views.component_written(id, target, ack.version, &resource_version, generation);
                if let Some(run) = self.views.run_held(id).filter(|_| target != Target::Status) {
                    self.world.run_written(id, run);
                }
                if let Some(wish) = written.asked {
                    self.world.fold_wish(id, wish, self.clock.now());
                }
                // The status has to say that it was judged on this generation; or somebody else's came to lie upon it.
                if target == Target::Spec || written.overwritten {
                    self.world.touched.insert(id);
                }
            }
            (WriteOutcome::Conflict { current }, _) => match serde_json::from_value::<BootComponent>(*current) {
                // An agent wrote to a node that is somebody else's by now.
                Ok(object) if self.charge.is_some() => self.owner_found(id, Ok(Some(object)), self.clock.now()),
                Ok(object) => self.component_found(id, &object, ack.version),
                Err(error) => {
                    tracing::error!(xname = &*ack.key.name, %error, "a BootComponent cannot be read; left alone until it can");
                    self.views.component_gone(id);
                }
            },
            (WriteOutcome::Gone, _) => {
                self.views.component_gone(id);
                if let Some(node) = self.world.node_mut(id) {
                    node.recorded = false;
                }
            }
            (WriteOutcome::Refused { message }, target) => {
                tracing::error!(xname = &*ack.key.name, text = message, "the API server refuses a write; it is not repeated");
                if target == Target::Create {
                    self.views.not_created(id);
                } else {
                    self.views.component_gone(id);
                }
            }
        }
    }

    /// What stands where our write of a version expected something else. It may be what we wrote, where the answer was lost.
    fn component_found(&mut self, id: NodeId, object: &BootComponent, version: u64) {
        let now = self.clock.now();
        if !self.views.is_behind(id, object) {
            convert::component(&mut self.world, object, false, now);
        }
        let known = self.views.is_known(id, object);
        let wish = self.views.component_seen(id, object, Some(version));
        if let Some(run) = self.views.run_held(id) {
            self.world.run_written(id, run);
        }
        if let Some(wish) = wish {
            self.take_up_wish(id, object, known, wish, now);
        }
        // It may be just what was to be shown.
        self.views.answer_settled(id);
        self.world.touched.insert(id);
    }

    fn session_ack(&mut self, ack: WriteAck) {
        let uid = SessionUid::from(ack.uid.as_str());
        match ack.outcome {
            WriteOutcome::Written { resource_version, generation, .. } => {
                if self.views.session_written(&uid, ack.version, &resource_version, generation) {
                    self.world.touched_sessions.insert(uid);
                }
            }
            WriteOutcome::Conflict { current } => match serde_json::from_value::<Session>(*current) {
                Ok(object) => {
                    self.views.session_seen(&object, Some(ack.version));
                    self.world.touched_sessions.insert(uid);
                }
                Err(error) => {
                    tracing::error!(session = %ack.key, %error, "a Session cannot be read; its status is left alone until it can");
                    self.views.session_gone(&uid);
                }
            },
            WriteOutcome::Gone => self.views.session_gone(&uid),
            WriteOutcome::Refused { message } => {
                tracing::error!(session = %ack.key, text = message, "the API server refuses a status; it is not repeated");
                self.views.session_gone(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bos_core::project;
    use bos_crds::BootComponentStatus;
    use serde_json::{Value, json};

    use super::*;
    use crate::task::rounds::tests::{NODE, task};
    use crate::writer::ObjectKey;

    /// The BootComponent that the API server has.
    fn object(spec: Value, status: Value) -> Value {
        object_at(1, spec, status)
    }

    fn object_at(generation: i64, spec: Value, status: Value) -> Value {
        json!({
            "apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "spec": spec, "status": status,
            "metadata": {"name": NODE, "uid": "u", "resourceVersion": (6 + generation).to_string(), "generation": generation},
        })
    }

    fn conflict(target: Target, version: u64, current: Value) -> WriteAck {
        let uid = if target == Target::Create { String::new() } else { "u".to_owned() };
        let outcome = WriteOutcome::Conflict { current: Box::new(current) };
        WriteAck { key: ObjectKey::cluster(Kind::BootComponent, NODE), uid, target, version, outcome }
    }

    /// Rule 5: the watch tells of it only later.
    #[tokio::test]
    async fn an_object_that_somebody_restores_while_we_create_it_asks_for_nothing() {
        let (mut task, ..) = task();
        let id = task.world.by_name[&Xname::parse(NODE).unwrap()];
        task.views.create_component(&task.world, id);
        task.fold_ack(conflict(Target::Create, 1, object(json!({"run": "of last year"}), Value::Null)));
        let asked = &task.world.nodes[id.0 as usize].asked;
        assert_eq!((asked.new_run(), asked.taken.as_deref()), (None, Some("of last year")));
        assert!(task.world.asked.is_empty() && asked.refused.contains("when this object was made or restored"), "{}", asked.refused);
        assert!(task.world.nodes[id.0 as usize].recorded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_answered_when_its_status_turns_out_to_be_there() {
        let (mut task, ..) = task();
        let id = task.world.by_name[&Xname::parse(NODE).unwrap()];
        let seen = serde_json::from_value(object(json!({}), json!({}))).unwrap();
        task.fold_components(Seen::Applied(seen), task.now());
        let (answer, mut answered) = oneshot::channel();
        task.fold_report(Report { xname: Xname::parse(NODE).unwrap(), token: "t".to_owned(), answer });
        task.pass();
        assert!(answered.try_recv().is_err(), "it is on its way");
        let shown = project::component(&task.world, id, &BootComponentStatus::default(), 1, task.now());
        task.fold_ack(conflict(Target::Status, u64::MAX, object(json!({}), json!(shown))));
        assert_eq!(answered.try_recv(), Ok(ReportAnswer::Stored));
    }

    /// A person's hold was lifted, and a request dropped, by what the writer had read before.
    #[tokio::test]
    async fn a_spec_that_a_watch_has_told_is_newer_than_what_was_found_in_the_place_of_ours() {
        let (mut task, ..) = task();
        let id = task.world.by_name[&Xname::parse(NODE).unwrap()];
        let see = |task: &mut Task, object: Value| {
            let now = task.now();
            task.fold_components(Seen::Applied(serde_json::from_value(object).unwrap()), now);
        };
        see(&mut task, object(json!({}), json!({"observedGeneration": 1})));
        task.world.nodes[id.0 as usize].staged = Some(("later".into(), 0));
        task.views.update_component(&task.world, id, 1, Timestamp::default());
        see(&mut task, object_at(5, json!({"run": "new", "suspend": true}), json!({"observedGeneration": 1})));
        let node = |task: &Task| (task.world.nodes[id.0 as usize].suspended, task.world.nodes[id.0 as usize].asked.new_run().cloned());
        assert_eq!(node(&task), (true, None), "what it asks for is looked at behind our own write");
        task.fold_ack(conflict(Target::Spec, 2, object_at(4, json!({}), json!({"observedGeneration": 1}))));
        assert_eq!(node(&task), (true, Some("new".into())));
    }
}
