//! The loop of the engine: what comes in is folded into the World, and now and then a pass looks at it.

use super::*;

/// With something to do, the operators look at the World at least this often.
const TICK: Duration = Duration::from_millis(100);
/// Without, this often: the next inventory, and what has become too old, can wait that long; whatever comes in wakes the loop at once.
const IDLE_TICK: Duration = Duration::from_secs(2);

/// Inputs that arrive together are folded together: the first of them waits this long for company.
const COALESCE: Duration = Duration::from_millis(3);

/// Passes are at least so far apart: while many answers come in, one more each 3 ms finds nothing to do.
const APART: Duration = Duration::from_millis(20);

/// A pass looks at the whole World, however little has changed: it waits for this many times what the last one took, projection aside,
/// so that answers to ten thousand writes do not become ten thousand passes over ten thousand nodes.
const PASSES_APART: u32 = 10;

/// But no longer than this, as every action waits for it.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// What comes back of our own writes is hardly ever acted on. While no answer, report or request comes in, it is gathered for that many
/// times what the last pass took, and for three times as long as the others at least, within the same bound.
const ECHOES_APART: u32 = 100;

/// What comes in from elsewhere.
pub struct Inputs {
    /// From the API server.
    pub news: mpsc::Receiver<News>,
    /// Of nodes.
    pub reports: mpsc::Receiver<Report>,
    /// Staged operations that are to be applied.
    pub applications: mpsc::Receiver<Application>,
    /// Answers to our writes.
    pub acks: mpsc::Receiver<WriteAck>,
}

impl Task {
    /// Goes round the loop.
    ///
    /// # Errors
    /// When the leadership is lost.
    pub async fn run(&mut self, mut inputs: Inputs, lost: &CancellationToken, cancel: &CancellationToken) -> Result<(), EngineError> {
        let (mut passed, mut company, mut echoes) = (Instant::now(), APART, APART);
        loop {
            let tick = Instant::now() + if self.is_idle() { IDLE_TICK } else { TICK };
            let tick = self.journals.next_due().map_or(tick, |due| tick.min(due));
            let tick = if self.world.touched.is_empty() { tick } else { tick.min(self.projections.due().max(passed + company)) };
            let mut is_echo = false;
            tokio::select! {
                biased;
                () = lost.cancelled() => return Err(EngineError::Deposed),
                () = cancel.cancelled() => return Ok(()),
                Some(done) = self.done.recv() => self.take_up(&mut inputs, done)?,
                Some(report) = inputs.reports.recv() => self.fold_report(report),
                Some(application) = inputs.applications.recv() => self.fold_application(application),
                Some(next) = inputs.news.recv() => {
                    is_echo = next.is_of_nodes();
                    self.fold_news(next);
                }
                Some(ack) = inputs.acks.recv() => {
                    is_echo = true;
                    self.fold_ack(ack);
                }
                () = tokio::time::sleep_until(tick) => {}
            }
            if is_echo {
                let until = self.journals.next_due().map_or(passed + echoes, |due| due.min(passed + echoes));
                tokio::select! {
                    biased;
                    () = lost.cancelled() => return Err(EngineError::Deposed),
                    Some(done) = self.done.recv() => self.take_up(&mut inputs, done)?,
                    Some(report) = inputs.reports.recv() => self.fold_report(report),
                    Some(application) = inputs.applications.recv() => self.fold_application(application),
                    () = tokio::time::sleep_until(until) => {}
                }
            }
            self.give_way();
            self.gather(&mut inputs, (passed + company).max(Instant::now() + COALESCE), lost).await?;
            self.fold_asked(&mut inputs);
            while let Ok(done) = self.done.try_recv() {
                self.fold_done(done)?;
            }
            while let Ok(ack) = inputs.acks.try_recv() {
                self.fold_ack(ack);
            }
            let took = self.pass();
            company = took.saturating_mul(PASSES_APART).clamp(APART, LONGEST_WAIT);
            echoes = took.saturating_mul(ECHOES_APART).clamp(3 * APART, LONGEST_WAIT);
            passed = Instant::now();
            self.telemetry.beat();
            if self.outcome().is_some() {
                return Ok(());
            }
        }
    }

    /// No Session is open, of those that ended nothing is left to be done, and nothing is asked by hand.
    pub(super) fn is_idle(&self) -> bool {
        self.world.asked.is_empty()
            && self.world.sessions.values().all(|session| matches!(&session.stage, Stage::Ended(ended) if ended.run.is_none()))
    }

    /// Lets inputs come together until then. What our own calls bring back is taken up at once: the end of a journal's write lets calls
    /// leave and answers nodes.
    async fn gather(&mut self, inputs: &mut Inputs, until: Instant, lost: &CancellationToken) -> Result<(), EngineError> {
        let mut together = std::pin::pin!(tokio::time::sleep_until(until));
        loop {
            tokio::select! {
                biased;
                () = lost.cancelled() => return Err(EngineError::Deposed),
                () = together.as_mut() => return Ok(()),
                Some(done) = self.done.recv() => {
                    self.take_up(inputs, done)?;
                    self.give_way();
                }
            }
        }
    }

    /// Takes up what a call of ours brings back. It may let other calls leave: whatever has come in against them goes first, be it a node
    /// that says it is up after all (rule 8), a stop switch or a suspension (rule 10).
    fn take_up(&mut self, inputs: &mut Inputs, done: Done) -> Result<(), EngineError> {
        self.fold_asked(inputs);
        self.fold_done(done)
    }

    /// Folds what nodes and people have said.
    fn fold_asked(&mut self, inputs: &mut Inputs) {
        while let Ok(report) = inputs.reports.try_recv() {
            self.fold_report(report);
        }
        while let Ok(application) = inputs.applications.try_recv() {
            self.fold_application(application);
        }
        while let Ok(next) = inputs.news.try_recv() {
            self.fold_news(next);
        }
    }

    /// Statuses give way as long as a call or a node waits for a journal.
    pub(super) fn give_way(&mut self) {
        self.way.mind(self.journals.are_awaited(), Instant::now(), || self.views.give_way());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::lease::LeaseConfig;
    use crate::load::{self, Lists};
    use crate::records::{JournalBytes, Loaded, StoredSession};
    use crate::writer::WriterConfig;

    pub(crate) const NODE: &str = "x1000c0s0b0n0";

    /// A task whose API server is away, and where its inputs come from.
    pub(crate) fn task() -> (Task, Inputs, mpsc::Sender<News>, mpsc::Sender<Report>) {
        let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let mut config = bos_services::ServicesConfig::default();
        config.s3.access_key = "access".to_owned();
        config.s3.secret_key = bos_services::config::Secret::new("secret");
        let services = bos_services::Clients::new(&config, Arc::new(bos_services::NoObserver)).unwrap();
        let (telemetry, stopped) = (Telemetry::shared(), CancellationToken::new());
        stopped.cancel();
        let settings = Settings {
            namespace: "bos".to_owned(),
            identity: "operator-1".to_owned(),
            lease: LeaseConfig::default(),
            hears_reports: true,
            reports_at: None,
            agent_template: None,
        };
        let records = Arc::new(Records::new(client.clone(), &settings.namespace, 1, stopped.clone()));
        let figures = telemetry.figures.writes.clone();
        let (writer, acks) = StatusWriter::spawn(client.clone(), WriterConfig::default(), figures, stopped.clone());
        let events = SessionEvents::spawn(client.clone(), "bos-operator", &settings.identity, stopped);
        let mut task = Task::new(&settings, client, services, records, writer, events, telemetry);
        task.world.intern(&Xname::parse(NODE).unwrap());
        let ((news_tx, news), (reports_tx, reports)) = (mpsc::channel(1), mpsc::channel(1));
        let (_, applications) = mpsc::channel(1);
        (task, Inputs { news, reports, applications, acks }, news_tx, reports_tx)
    }

    /// A node says that it is up.
    fn report(reports: &mpsc::Sender<Report>) -> oneshot::Receiver<ReportAnswer> {
        let (answer, answered) = oneshot::channel();
        reports.try_send(Report { xname: Xname::parse(NODE).unwrap(), token: "t".to_owned(), answer }).unwrap();
        answered
    }

    /// What a call brings back that ends the leadership: whatever is folded after it is too late.
    fn the_end() -> Done {
        Done::Removed("u".into(), Err(RecordError::Cancelled { name: "bos-plan-u".to_owned() }))
    }

    #[tokio::test]
    async fn what_was_said_counts_before_what_our_calls_bring_back() {
        let (mut task, mut inputs, news, reports) = task();
        let _answered = report(&reports);
        news.try_send(News::EmergencyStop(Some("water".into()))).unwrap();
        assert!(matches!(task.take_up(&mut inputs, the_end()), Err(EngineError::Deposed)));
        assert!(task.world.emergency_stop);
        assert_eq!(task.telemetry.reports.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_our_calls_bring_back_does_not_wait_for_a_pass() {
        let (mut task, mut inputs, _news, _reports) = task();
        let lost = CancellationToken::new();
        let later = Instant::now() + Duration::from_secs(60);
        assert!(task.gather(&mut inputs, later, &lost).await.is_ok() && Instant::now() >= later);
        task.done_tx.send(the_end()).unwrap();
        assert!(matches!(task.gather(&mut inputs, Instant::now() + LONGEST_WAIT, &lost).await, Err(EngineError::Deposed)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_taken_up_after_the_leadership() {
        let (mut task, mut inputs, _news, reports) = task();
        let (lost, _answered) = (CancellationToken::new(), report(&reports));
        lost.cancel();
        task.done_tx.send(Done::Power(Vec::new(), Timestamp::default(), Ok(Vec::new()))).unwrap();
        assert!(matches!(task.gather(&mut inputs, Instant::now(), &lost).await, Err(EngineError::Deposed)));
        assert_eq!(task.telemetry.reports.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_pass_gives_way_to_a_journal_that_a_call_waits_for() {
        let (mut task, ..) = task();
        task.pass();
        assert!(!task.way.is_given());
        // Of a Session that nobody knows: its journal is forgotten in the same pass.
        task.journals.await_call(&"u".into(), BatchId(1));
        task.pass();
        assert!(task.way.is_given());
        task.pass();
        assert!(!task.way.is_given());
    }

    /// A node, and a Session over it that has ended, whose records are still there.
    fn ended(task: &mut Task, by_agent: bool) -> (NodeId, SessionUid) {
        let (uid, none) = (SessionUid("s".into()), Timestamp::default());
        let plan = serde_json::json!({"version": 1, "operation": "Boot", "namespace": "bos", "name": "boot", "templateGeneration": 1, "running": "Leave", "bootSets": []});
        let id = task.world.by_name[&Xname::parse(NODE).unwrap()];
        let run = bos_core::session::Run {
            plan: Arc::new(serde_json::from_value(plan).unwrap()),
            slots: vec![bos_core::session::Slot::new(id)],
            started: none,
            tokens: Vec::new(),
            timeout_cycles: Vec::new(),
            mass_timeout: None,
            paced: Vec::new(),
            outages: Vec::new(),
            unverified: BTreeSet::new(),
            by_agent,
        };
        let outcome = bos_core::session::SessionOutcome::Succeeded;
        let end = bos_core::session::SessionEnd { outcome, reason: "".into(), message: "".into(), at: none };
        let session = bos_core::session::Session {
            uid: uid.clone(),
            namespace: "bos".into(),
            name: "boot".into(),
            created: none,
            sequence: 0,
            generation: 1,
            spec: bos_crds::SessionSpec::new(bos_crds::Operation::Boot, "template"),
            tracked: false,
            by_hand: false,
            agent: bos_core::session::AgentSeen::default(),
            deleted: false,
            stage: Stage::Ended(Box::new(bos_core::session::Ended::new(end, Some(Box::new(run))))),
        };
        task.world.sessions.insert(uid.clone(), session);
        (id, uid)
    }

    #[tokio::test]
    async fn records_stay_until_what_is_to_be_shown_of_the_last_node_is_written() {
        let (mut task, ..) = task();
        let (id, uid) = ended(&mut task, false);
        task.world.touched.insert(id);
        task.settle_one(uid.clone(), Timestamp::default());
        assert!(!task.removing.contains(&uid));
        task.world.touched.clear();
        task.settle_one(uid.clone(), Timestamp::default());
        assert!(task.removing.contains(&uid));
    }

    #[tokio::test]
    async fn a_node_that_its_agent_has_taken_over_is_told_to_come_again() {
        let (mut task, ..) = task();
        let (answer, answered) = oneshot::channel();
        let id = task.world.by_name[&Xname::parse(NODE).unwrap()];
        task.reported.push((id, answer));
        let (_, session) = ended(&mut task, true);
        let end = bos_core::model::End {
            kind: bos_core::model::EndKind::Succeeded,
            reason: "".into(),
            message: "".into(),
            at: Timestamp::default(),
        };
        task.world.nodes[id.0 as usize].last = Some(Box::new(bos_core::model::LastRun {
            run: session.0.clone(),
            session,
            by_hand: false,
            namespace: "bos".into(),
            name: "boot".into(),
            end,
            attempts: bos_core::model::Attempts::default(),
            limit: 1,
            action: None,
            earlier: None,
            phase: bos_core::model::Phase::None,
            configuration: None,
        }));
        task.pass();
        assert_eq!(answered.await, Ok(ReportAnswer::WithAgent));
    }

    /// A node, and a Session over it whose plan is being written.
    fn recording(task: &mut Task) -> (NodeId, SessionUid) {
        let (id, uid) = ended(task, false);
        let plan = serde_json::json!({
            "version": 1, "operation": "Boot", "namespace": "bos", "name": "boot", "templateGeneration": 1, "running": "Leave",
            "bootSets": [{"name": "compute", "artifacts": null, "image": "", "configuration": "", "nodes": [NODE]}],
        });
        let plan = Arc::new(serde_json::from_value(plan).unwrap());
        task.world.sessions.get_mut(&uid).unwrap().stage =
            Stage::Recording(bos_core::session::Recording { plan, since: Timestamp::default() });
        (id, uid)
    }

    /// It was said to wait for its set-up for a second, while its nodes were switched already.
    #[tokio::test(start_paused = true)]
    async fn a_session_that_begins_is_shown_at_once() {
        let (mut task, ..) = task();
        let (_, uid) = recording(&mut task);
        let object = serde_json::json!({
            "apiVersion": "bos.hpe.com/v1alpha1", "kind": "Session", "metadata": {"namespace": "bos", "name": "boot", "uid": &*uid.0},
            "spec": {"operation": "Boot", "templateName": "template"},
        });
        task.views.session_seen(&serde_json::from_value(object).unwrap(), None);
        let is_shown = |task: &mut Task| {
            task.world.touched_sessions.insert(uid.clone());
            task.update_sessions(Timestamp::default());
            task.world.touched_sessions.is_empty()
        };
        assert!(is_shown(&mut task) && !is_shown(&mut task), "others are, once a second");
        task.world.start_session(&uid, Timestamp::default());
        assert!(is_shown(&mut task) && !is_shown(&mut task));
    }

    /// Its message says what its nodes wait for, and was a minute behind where a look at one changed nothing else.
    #[tokio::test]
    async fn a_session_is_shown_anew_when_one_of_its_nodes_stands_elsewhere() {
        let (mut task, ..) = task();
        let object = serde_json::json!({"apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "spec": {}, "metadata": {"name": NODE, "uid": "n"}});
        task.load_component(&serde_json::from_value(object).unwrap(), Timestamp::default());
        let (id, uid) = recording(&mut task);
        task.world.start_session(&uid, Timestamp::default());
        for (touched, put_aside) in [(vec![&uid], false), (Vec::new(), false), (vec![&uid], true)] {
            task.world.touched.insert(id);
            if put_aside {
                // It may have stood elsewhere in between, and its Session may have said so.
                task.projections.put_aside(id);
            }
            task.world.touched_sessions.clear();
            task.project(&[id], Timestamp::default());
            assert_eq!(task.world.touched_sessions.iter().collect::<Vec<_>>(), touched);
        }
    }

    /// What waits for long changes nothing in its journal; an operator that dies again and again would give it the same time each time.
    #[tokio::test]
    async fn a_journal_is_written_once_after_a_restart() {
        let (mut task, ..) = task();
        let plan = serde_json::json!({
            "version": 1, "operation": "Configure", "namespace": "bos", "name": NODE, "templateGeneration": 1, "running": "Leave",
            "byHand": {"sinceMs": 0, "runs": ["run"]},
            "bootSets": [{"name": "compute", "artifacts": null, "image": "", "configuration": "c", "nodes": [NODE]}],
        });
        let stored = |journal: Vec<u8>| StoredSession {
            uid: "u".to_owned(),
            key: SessionKey::new("bos", NODE),
            plan: serde_json::to_vec(&plan).unwrap(),
            journal: JournalBytes::Written(journal),
            agent: None,
        };
        let uid = SessionUid::from("u");
        load::restore(
            &mut task,
            Loaded { sessions: vec![stored(br#"{"version":1,"startedMs":0,"groups":[]}"#.to_vec())], ..Loaded::default() },
            Lists::default(),
        )
        .await
        .unwrap();
        task.pass();
        let journal = bos_core::journal::snapshot(&task.world, &task.world.sessions[&uid], task.now()).unwrap().encode().unwrap();
        let (mut task, ..) = self::task();
        let written = stored(journal);
        load::restore(&mut task, Loaded { sessions: vec![written], ..Loaded::default() }, Lists::default()).await.unwrap();
        task.pass();
        assert!(task.journals.underway(&uid).is_some());
    }
}
