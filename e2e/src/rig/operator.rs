//! The operator as a child process, started again when it ends, as the kubelet does it.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::watch;

use super::{NAMESPACE, PowerBy, RigConfig};
use crate::control_plane::{ProcStat, Process, ProcessSpec, free_port};
use crate::site::Urls;

/// The operator's name in the lease: always the same, as a StatefulSet's pod would have, so that a killed one need not be waited for.
pub(super) const FIRST: &str = "bos-operator-0";
/// That of a second one.
pub(super) const SECOND: &str = "bos-operator-1";
/// Pause before a restart; doubled each time it ends young by itself.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that ends younger than this ends young.
const YOUNG: Duration = Duration::from_secs(3);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// Where an operator listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) health: u16,
    pub(super) reports: u16,
}

impl Ports {
    pub(super) fn free() -> anyhow::Result<Self> {
        Ok(Self { health: free_port()?, reports: free_port()? })
    }

    pub(super) fn health_url(self) -> String {
        format!("http://127.0.0.1:{}", self.health)
    }

    pub(super) fn reports_url(self) -> String {
        format!("http://127.0.0.1:{}", self.reports)
    }
}

/// What the operator is started with.
pub(super) struct Launch<'a> {
    pub(super) identity: &'static str,
    pub(super) binary: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) folder: &'a Path,
    pub(super) ports: Ports,
    pub(super) urls: Urls,
    pub(super) agent_template: Option<PathBuf>,
    pub(super) config: &'a RigConfig,
}

impl Launch<'_> {
    /// Its command line. Keys go through the environment, where `ps` does not show them.
    pub(super) fn spec(&self) -> ProcessSpec {
        let urls = &self.urls;
        let (cfs, ims) = if self.config.bare { ("none", "none") } else { (urls.cfs.as_str(), urls.ims.as_str()) };
        ProcessSpec::new(self.identity, &self.binary, self.folder.join(format!("{}.log", self.identity)))
            .args([
                format!("--namespace={NAMESPACE}"),
                format!("--identity={}", self.identity),
                format!("--health-listen=127.0.0.1:{}", self.ports.health),
                format!("--report-listen=127.0.0.1:{}", self.ports.reports),
                format!("--log={}", self.config.log),
                "--log-format=json".to_owned(),
                format!("--hsm-base-url={}", urls.hsm),
                format!("--pcs-base-url={}", urls.pcs),
                format!("--bss-base-url={}", urls.bss),
                format!("--cfs-base-url={cfs}"),
                format!("--ims-base-url={ims}"),
                format!("--s3-endpoint={}", urls.s3),
            ])
            .args(self.power())
            .args(self.agent_template.iter().map(|path| format!("--agent-template={}", path.display())))
            .args(self.config.operator_args.clone())
            // An older operator does not know this as a flag.
            .env("BOS_POD_IP", "127.0.0.1")
            // The nodes of the site show tokens only where a test says so, by a flag, which wins.
            .env("BOS_REPORT_AUTHENTICATION", "none")
            .env("S3_ACCESS_KEY", &urls.s3_access_key)
            .env("S3_SECRET_KEY", &urls.s3_secret_key)
            .env("KUBECONFIG", &self.kubeconfig)
            // A panic's place is in the log then.
            .env("RUST_BACKTRACE", "1")
    }

    fn power(&self) -> Vec<String> {
        match self.config.power {
            PowerBy::Pcs => Vec::new(),
            PowerBy::Capmc => {
                // The site's PCS confirms a power-off within a second, not within 15.
                let rest = self.config.site.settings.confirm_delay.as_secs() + 1;
                let base = &self.urls.capmc;
                vec!["--power-service=capmc".to_owned(), format!("--capmc-base-url={base}"), format!("--power-rest-seconds={rest}")]
            }
        }
    }
}

/// How one of the operator's processes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its process id.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
}

/// The operator's process, now or to be. Dropping it ends the process.
pub struct Operator {
    shared: Arc<Shared>,
    supervisor: tokio::task::JoinHandle<()>,
}

struct Shared {
    spec: ProcessSpec,
    state: Mutex<State>,
    /// The process that is wanted now. None: stopped on purpose.
    current: watch::Sender<Option<Arc<Process>>>,
}

#[derive(Default)]
struct State {
    supervise: bool,
    /// Another program than that it began with.
    program: Option<PathBuf>,
    exits: Vec<Exit>,
}

impl Operator {
    /// Not started yet.
    pub(super) fn new(spec: ProcessSpec, supervise: bool) -> Self {
        let state = Mutex::new(State { supervise, program: None, exits: Vec::new() });
        let shared = Arc::new(Shared { spec, state, current: watch::Sender::new(None) });
        let supervisor = tokio::spawn(shared.clone().supervise());
        Self { shared, supervisor }
    }

    /// Starts it unless it runs.
    pub fn start(&self) -> anyhow::Result<()> {
        let state = self.shared.state();
        if self.process().is_none_or(|process| process.exit_status().is_some()) {
            self.shared.launch(&state)?;
        }
        Ok(())
    }

    /// Runs this program when it is started next: another release.
    pub fn set_program(&self, program: &Path) {
        self.shared.state().program = Some(program.to_owned());
    }

    /// Ends it (SIGTERM, later SIGKILL) and leaves it ended.
    pub async fn stop(&self) {
        let process = {
            let _alone = self.shared.state();
            self.shared.current.send_replace(None)
        };
        if let Some(process) = process {
            // It can only fail when waiting panicked, and then it has said so.
            let _ended = tokio::task::spawn_blocking(move || process.terminate(GRACE)).await;
        }
    }

    /// SIGKILL. Comes back only where it is supervised.
    pub fn kill(&self) {
        if let Some(process) = self.process() {
            process.kill();
        }
    }

    /// Something that kills it from a task of its own.
    pub fn killer(&self) -> Killer {
        Killer(self.shared.clone())
    }

    /// Sends it a signal, such as STOP and CONT to freeze it for a while.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = self.process() {
            process.signal(signal);
        }
    }

    /// Whether it is started again when it ends, from now on.
    pub fn set_supervised(&self, supervise: bool) {
        self.shared.state().supervise = supervise;
    }

    /// Its process now; one that has ended stays until the next is started.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.shared.current.borrow().clone()
    }

    /// Its process id now.
    pub fn pid(&self) -> Option<u32> {
        self.process().map(|process| process.pid())
    }

    /// How its processes so far ended. Those ended by [`Operator::stop`] are not among them.
    pub fn exits(&self) -> Vec<Exit> {
        self.shared.state().exits.clone()
    }

    /// CPU time and memory of the process that runs now.
    pub fn stats(&self) -> anyhow::Result<ProcStat> {
        self.process().ok_or_else(|| anyhow::anyhow!("the operator does not run"))?.stats()
    }

    /// The log of all its processes, one after the other; one JSON object a line.
    pub fn log(&self) -> &Path {
        &self.shared.spec.log
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        self.process().map_or_else(String::new, |process| process.log_tail(lines))
    }

    /// Waits until a process other than this one runs.
    pub async fn wait_restarted(&self, pid: u32) {
        let mut current = self.shared.current.subscribe();
        // The sender lives in `self`, so the wait cannot end for another reason.
        drop(current.wait_for(|process| process.as_ref().is_some_and(|process| process.pid() != pid)).await);
    }

    /// Whether it has ended and nobody will start it, or it has ended so often that waiting is no use.
    pub(super) fn has_given_up(&self) -> bool {
        const TOO_OFTEN: usize = 5;
        let ended = self.process().is_none_or(|process| process.exit_status().is_some());
        let state = self.shared.state();
        let failed = state.exits.iter().rev().take_while(|exit| exit.status.code().is_some()).count();
        (ended && !state.supervise) || failed >= TOO_OFTEN
    }
}

/// Kills the operator, whichever process it is by then.
pub struct Killer(Arc<Shared>);

impl Killer {
    /// SIGKILL, if it runs: its process id.
    pub fn kill(&self) -> Option<u32> {
        let process = self.0.current.borrow().clone().filter(|process| process.exit_status().is_none())?;
        process.kill();
        Some(process.pid())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.supervisor.abort();
        // The supervisor may still hold the process for a moment, so dropping ours may not end it.
        if let Some(process) = self.shared.current.send_replace(None) {
            process.terminate(GRACE);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self, state: &State) -> anyhow::Result<()> {
        let program = state.program.clone().unwrap_or_else(|| self.spec.program.clone());
        let process = Arc::new(Process::start(&ProcessSpec { program, ..self.spec.clone() })?);
        self.current.send_replace(Some(process));
        Ok(())
    }

    async fn supervise(self: Arc<Self>) {
        let mut changes = self.current.subscribe();
        let mut pause = FIRST_PAUSE;
        loop {
            let process = changes.borrow_and_update().clone();
            let Some(process) = process else {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let since = Instant::now();
            let status = tokio::select! {
                status = process.wait() => status,
                _ = changes.changed() => continue,
            };
            self.state().exits.push(Exit { pid: process.pid(), status });
            // One that a test has killed is not one that cannot start.
            let failed_young = status.code().is_some() && since.elapsed() < YOUNG;
            pause = if failed_young { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = changes.changed() => continue,
            }
            if !self.again(&process) && changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Starts the next process if this one is still the one that is wanted.
    fn again(&self, ended: &Arc<Process>) -> bool {
        let state = self.state();
        let still_wanted = self.current.borrow().as_ref().is_some_and(|current| Arc::ptr_eq(current, ended));
        if !state.supervise || !still_wanted {
            return false;
        }
        match self.launch(&state) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!("the operator cannot be started again: {error:#}");
                false
            }
        }
    }
}
