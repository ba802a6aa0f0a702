//! What is shown of nodes is worked out after a pass, for those that were touched; of a crowd it is sampled (ADR 0015).

use super::*;

/// Driven nodes are projected anew this often, whatever was touched.
const REFRESH: Duration = Duration::from_secs(60);

/// Ten thousand nodes take their steps together, a tenth of a second apart, and to show one step takes longer than to decide it. The
/// next projection waits for this many times what the last one took, and shows what has become of the nodes by then.
const APART: u32 = 4;

/// But no longer than this.
const LONGEST_UNSHOWN: Duration = Duration::from_secs(1);

/// Nodes whose status waits for the write of their spec are looked through so far apart: behind the specs of ten thousand others they
/// take all their steps meanwhile, and none of them is written.
const HELD_UP_APART: Duration = Duration::from_secs(5);

/// When nodes are projected, and which of those that were touched wait for longer.
#[derive(Debug)]
pub(super) struct Projections {
    /// The next one of all nodes that were touched is due then.
    due: Instant,
    /// Nodes that were touched since they were projected and whose status waits for the write of their spec; its answer touches them again.
    held_up: BTreeSet<NodeId>,
    /// They are looked through then.
    held_up_due: Instant,
    refreshed: Instant,
}

impl Projections {
    pub(super) const fn new(now: Instant) -> Self {
        Self { due: now, held_up: BTreeSet::new(), held_up_due: now, refreshed: now }
    }

    /// When the next projection of all nodes that were touched is due.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Whether something of a node is to be shown once its spec is written.
    pub(super) fn is_put_aside(&self, id: NodeId) -> bool {
        self.held_up.contains(&id)
    }

    #[cfg(test)]
    pub(super) fn put_aside(&mut self, id: NodeId) {
        self.held_up.insert(id);
    }
}

impl Task {
    /// Brings what is shown of the nodes that were touched up to date, if it is time; of those whose report waits for it in any case.
    /// Returns how long that took.
    pub(super) fn project(&mut self, awaited: &[NodeId], now: Timestamp) -> Duration {
        let begun = Instant::now();
        for id in awaited {
            if self.projections.is_put_aside(*id) {
                self.world.touched.insert(*id);
            }
        }
        let crowd = self.world.touched.len();
        let due = begun >= self.projections.due;
        let nodes =
            if due { self.take_touched(begun) } else { awaited.iter().filter(|id| self.world.touched.remove(*id)).copied().collect() };
        // To put all of them aside takes its time too.
        if nodes.is_empty() && !(due && crowd > 0) {
            return Duration::ZERO;
        }
        for id in nodes {
            // Its Session may have said meanwhile what it came to in between.
            let put_aside = self.projections.held_up.remove(&id);
            let moved = self.views.update_component(&self.world, id, crowd, now);
            if (moved || put_aside)
                && let Some((session, _)) = self.world.driver(id)
            {
                let uid = session.uid.clone();
                self.world.touched_sessions.insert(uid);
            }
        }
        let took = begun.elapsed();
        if due {
            self.projections.due = Instant::now() + took.saturating_mul(APART).min(LONGEST_UNSHOWN);
        }
        self.telemetry.figures.projected(took);
        took
    }

    /// The nodes that are to be projected now. What is held up is put aside until it is time for it.
    fn take_touched(&mut self, now: Instant) -> BTreeSet<NodeId> {
        let touched = std::mem::take(&mut self.world.touched);
        let is_held_up = |id: &NodeId| self.views.is_held_up(&self.world, *id);
        let (waiting, mut nodes): (BTreeSet<_>, BTreeSet<_>) = touched.into_iter().partition(is_held_up);
        self.projections.held_up.extend(waiting);
        if now >= self.projections.held_up_due {
            self.projections.held_up_due = now + HELD_UP_APART;
            nodes.extend(&self.projections.held_up);
        }
        nodes
    }

    /// Whether everything about a node is on the server.
    pub(super) fn is_shown(&self, id: NodeId) -> bool {
        let projected = !self.world.touched.contains(&id) && !self.projections.is_put_aside(id);
        projected && self.views.component_settled(id)
    }

    /// Touches every driven node, and the Sessions that drive them, if it is time.
    pub(super) fn refresh(&mut self) {
        if self.projections.refreshed.elapsed() < REFRESH {
            return;
        }
        self.projections.refreshed = Instant::now();
        let running = self.world.sessions.values().filter_map(|session| session.running());
        let driven: Vec<NodeId> = running.flat_map(|run| run.open()).collect();
        self.world.touched.extend(driven);
        self.world.touched_sessions.extend(self.world.sessions.values().filter(|s| s.running().is_some()).map(|s| s.uid.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::rounds::tests::{NODE, task};
    use crate::writer::ObjectKey;

    #[tokio::test(start_paused = true)]
    async fn a_projection_leaves_time_for_others_but_not_for_a_node_that_waits() {
        let (mut task, ..) = task();
        let ids = [NODE, "x1000c0s1b0n0"].map(|name| task.world.intern(&Xname::parse(name).unwrap()));
        let [waiting, other] = ids;
        task.projections.due = Instant::now() + LONGEST_UNSHOWN;
        task.world.touched.extend(ids);
        task.project(&[waiting], Timestamp::default());
        assert_eq!(task.world.touched, [other].into());
        assert!(task.is_shown(waiting) && !task.is_shown(other), "what is not projected yet is not on the server");
        tokio::time::advance(LONGEST_UNSHOWN).await;
        task.project(&[], Timestamp::default());
        assert!(task.world.touched.is_empty() && task.is_shown(other));
    }

    /// A node whose spec is on its way, and whose status waits for that.
    fn written() -> (Task, NodeId) {
        let (mut task, ..) = task();
        let object = serde_json::json!({"apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "spec": {}, "metadata": {"name": NODE, "uid": "n"}});
        task.load_component(&serde_json::from_value(object).unwrap(), Timestamp::default());
        let id = task.world.by_name[&Xname::parse(NODE).unwrap()];
        task.world.nodes[id.0 as usize].staged = Some(("later".into(), 0));
        project_now(&mut task);
        assert_eq!(task.views.counts().status_queue, 1, "its spec");
        (task, id)
    }

    fn project_now(task: &mut Task) {
        task.projections.due = Instant::now();
        task.project(&[], Timestamp::default());
        assert!(task.world.touched.is_empty());
    }

    /// Whether something new about a node is projected at once; or put aside.
    fn is_projected(task: &mut Task, id: NodeId) -> bool {
        change(task, id);
        project_now(task);
        is_shown_anew(task, id)
    }

    fn change(task: &mut Task, id: NodeId) {
        let node = task.world.node_mut(id).unwrap();
        node.asked.applied = Some(format!("{}+", node.asked.applied.as_deref().unwrap_or_default()).into());
    }

    fn is_shown_anew(task: &Task, id: NodeId) -> bool {
        let node = task.world.node(id).unwrap();
        let shown = task.views.applied(id) == node.asked.applied.as_deref();
        assert_ne!(shown, task.projections.is_put_aside(id));
        shown
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_spec_is_on_its_way_is_projected_now_and_then() {
        let (mut task, id) = written();
        assert!(!is_projected(&mut task, id) && !task.is_shown(id));
        tokio::time::advance(HELD_UP_APART).await;
        project_now(&mut task);
        assert!(is_shown_anew(&task, id));
        assert!(!is_projected(&mut task, id));
        let outcome = WriteOutcome::Written { resource_version: "2".to_owned(), generation: 2, uid: "n".to_owned() };
        let key = ObjectKey::cluster(Kind::BootComponent, NODE);
        task.fold_ack(WriteAck { key, uid: "n".to_owned(), target: Target::Spec, version: 1, outcome });
        assert!(!task.is_shown(id), "it is not projected yet");
        project_now(&mut task);
        assert!(is_shown_anew(&task, id), "the answer touches it");
        assert!(is_projected(&mut task, id));
    }

    /// By the clock of the machine: ten thousand are looked at for it, in each pass otherwise.
    #[tokio::test]
    async fn to_put_all_of_them_aside_is_a_projection_and_to_wait_for_one_is_not() {
        let (mut task, id) = written();
        change(&mut task, id);
        let begun = Instant::now();
        task.projections.due = begun;
        assert_ne!(task.project(&[], Timestamp::default()), Duration::ZERO);
        assert!(task.projections.is_put_aside(id) && task.projections.due > begun);
        task.projections.due += LONGEST_UNSHOWN;
        change(&mut task, id);
        assert_eq!(task.project(&[], Timestamp::default()), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_shall_have_another_spec_is_projected_at_once() {
        let (mut task, id) = written();
        task.world.nodes[id.0 as usize].staged = Some(("later still".into(), 0));
        assert!(is_projected(&mut task, id));
    }

    /// It would be answered for a status that does not say it.
    #[tokio::test(start_paused = true)]
    async fn a_node_whose_report_waits_is_projected_at_once() {
        for due in [Duration::ZERO, LONGEST_UNSHOWN] {
            let (mut task, id) = written();
            assert!(!is_projected(&mut task, id));
            let (answer, mut answered) = oneshot::channel();
            task.views.await_status(&task.world, id, answer);
            task.projections.due = Instant::now() + due;
            task.project(&[id], Timestamp::default());
            task.views.answer_settled(id);
            assert!(is_shown_anew(&task, id) && answered.try_recv().is_err(), "it is on its way");
            assert_eq!(task.views.counts().status_queue, 2, "before its spec is written");
            assert!(is_projected(&mut task, id), "as long as it waits");
        }
    }

    /// Another object of the same name, after a gap of the watch.
    #[tokio::test]
    async fn a_node_whose_object_was_replaced_is_projected_anew() {
        let (mut task, id) = written();
        let object = serde_json::json!({"apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "spec": {}, "metadata": {"name": NODE, "uid": "another"}});
        let items = vec![serde_json::from_value(object).unwrap()];
        task.fold_components(Seen::Reset { items, invalid: Vec::new() }, Timestamp::default());
        assert_eq!(task.world.touched, [id].into());
    }
}
