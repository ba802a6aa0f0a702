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
                let asked = self.views.component_written(id, target, ack.version, &resource_version, generation);
                if let Some(run) = self.views.run_held(id).filter(|_| target != Target::Status) {
                    self.world.run_written(id, run);
                }
                if let Some(wish) = asked {
                    self.world.fold_wish(id, wish, self.clock.now());
                }
                if target == Target::Spec {
                    // The status has to say that it was judged on this generation.
                    self.world.touched.insert(id);
                }
            }
            (WriteOutcome::Conflict { current }, _) => match serde_json::from_value::<BootComponent>(*current) {
                // An agent wrote to a node that is somebody else's by now.
                Ok(object) if self.charge.is_some() => self.owner_found(id, Ok(Some(object)), self.clock.now()),
                Ok(object) => {
                    convert::component(&mut self.world, &object, false, self.clock.now());
                    if let Some(wish) = self.views.component_seen(id, &object, Some(ack.version)) {
                        self.world.fold_wish(id, wish, self.clock.now());
                    }
                    self.world.touched.insert(id);
                }
                Err(error) => {
                    tracing::error!(xname = ack.key.name, %error, "a BootComponent cannot be read; left alone until it can");
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
                tracing::error!(xname = ack.key.name, text = message, "the API server refuses a write; it is not repeated");
                if target == Target::Create {
                    self.views.not_created(id);
                } else {
                    self.views.component_gone(id);
                }
            }
        }
    }

    fn session_ack(&mut self, ack: WriteAck) {
        let uid = SessionUid::from(ack.uid.as_str());
        match ack.outcome {
            WriteOutcome::Written { resource_version, generation, .. } => {
                self.views.session_written(&uid, ack.version, &resource_version, generation)
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
