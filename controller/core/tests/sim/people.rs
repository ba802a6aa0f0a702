//! What people do: to Sessions, to nodes and their objects, to the options, and with the stop switch.

use bos_core::model::NodeId;
use bos_crds::SessionSpec;

use super::coverage::Input;
use super::fixture::uid;
use super::operator::Sim;
use super::scenario::Command;

fn node(index: usize) -> NodeId {
    NodeId(u32::try_from(index).unwrap())
}

impl Sim {
    pub(crate) fn command(&mut self, command: Command) {
        match command {
            Command::Stop(stop) => {
                self.stop = stop;
                self.fold(self.life, |world, _| world.emergency_stop = stop);
            }
            Command::Cancel(index) => self.edit(index, |spec| spec.cancel = true),
            Command::Suspend(index, suspend) => self.edit(index, |spec| spec.suspend = suspend),
            Command::Delete(index) => self.delete(index),
            Command::Button(index, on) => self.button(node(index), on),
            Command::Hold(index, hold) => self.hold(node(index), hold),
            Command::Lock(index, lock) => self.lock(index, lock),
            Command::Disable(index, disable) => self.site.facts(index, |facts| facts.enabled = !disable),
            Command::Empty(index, empty) => self.empty(index, empty),
            Command::Unlist(index, away) => self.unlist(index, away),
            Command::Replace(index) => self.replace(index),
            Command::Deaf(deaf) => self.deaf = deaf,
            Command::Retune(attempts, percent) => self.retune(attempts, percent),
            Command::Hand(index, hand) => self.hand(index, hand),
        }
    }

    fn edit(&mut self, index: usize, edit: impl FnOnce(&mut SessionSpec)) {
        let Some(object) = self.objects.get_mut(&uid(index)) else { return };
        edit(&mut object.spec);
        object.generation += 1;
        let object = object.clone();
        self.fold(self.life, |world, now| world.fold_session(object, now));
    }

    fn delete(&mut self, index: usize) {
        let uid = uid(index);
        if self.objects.get(&uid).is_none_or(|object| object.complete.is_some()) {
            return;
        }
        self.check.deleted.insert(uid.clone());
        self.fold(self.life, |world, _| world.fold_session_gone(&uid));
        // A session that never began is forgotten at once; of a running one the journal ends.
        let gone = self.world.as_ref().is_none_or(|world| !world.sessions.contains_key(&uid)) && !self.plans.contains_key(&uid);
        if let Some(object) = self.objects.get_mut(&uid).filter(|_| gone) {
            object.complete = Some(self.now);
        }
    }

    /// `spec.suspend` of a BootComponent.
    fn hold(&mut self, node: NodeId, hold: bool) {
        let _ = if hold { self.held.insert(node) } else { self.held.remove(&node) };
        self.fold(self.life, |world, _| {
            if let Some(node) = world.node_mut(node) {
                node.suspended = hold;
            }
        });
    }

    /// The options are edited, and are in force at once.
    fn retune(&mut self, attempts: u16, percent: u32) {
        let of = |span: std::time::Duration| span * percent / 100;
        let first = &self.scenario.options;
        let options = &mut self.options;
        options.retry_policy = attempts;
        options.batch_size = usize::from(attempts) * 3;
        options.max_boot_wait = of(first.max_boot_wait);
        options.max_power_on_wait = of(first.max_power_on_wait);
        options.max_power_off_wait = of(first.max_power_off_wait);
        options.configuration_wait = of(first.configuration_wait);
        options.power_unknown_wait = of(first.power_unknown_wait);
        let options = options.clone();
        self.check.retuned(&options, self.now);
        self.fold(self.life, |world, _| world.options = options);
    }

    /// Whether the operator refuses a report, which proves that silence proves nothing.
    pub(crate) fn refused(&mut self, node: NodeId) -> bool {
        if self.deaf {
            self.note(Input::ReportRefused, [node]);
            self.check.turned_away(self.now);
            self.fold(self.life, |world, now| world.reports.listening_since = Some(now));
        }
        self.deaf
    }
}
