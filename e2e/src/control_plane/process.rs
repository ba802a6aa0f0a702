//! Child processes that cannot outlive us.
//!
//! Each gets a process group of its own (so that Ctrl-C in a terminal reaches us first and we stop them in order), and `setpriv`
//! asks the kernel to kill it when the thread that started it ends. That thread is one that lives as long as this process,
//! whatever becomes of the tests' threads. So even `kill -9` of a test leaves nothing behind.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

use super::procstat::{ProcStat, procstat};

/// How often a wait looks whether the child has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How long a dropped process gets between SIGTERM and SIGKILL.
const DROP_GRACE: Duration = Duration::from_secs(3);

/// What to start.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// What people call it, for messages.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables set on top of ours.
    pub env: Vec<(OsString, OsString)>,
    /// Environment variables of ours that it must not see.
    pub env_remove: Vec<OsString>,
    /// Whether it sees nothing of our environment at all.
    pub env_clear: bool,
    /// Where stdout and stderr go; appended to, so that a restart keeps the history.
    pub log: PathBuf,
}

impl ProcessSpec {
    /// A process with this name, binary and log, and no arguments yet.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        let (name, program, log) = (name.into(), program.into(), log.into());
        Self { name, program, args: vec![], env: vec![], env_remove: vec![], env_clear: false, log }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }
}

/// A running (or ended) child. Dropping it stops it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts it, with stdout and stderr appended to its log and stdin empty.
    pub fn start(spec: &ProcessSpec) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(&spec.log).with_context(|| format!("opening {}", spec.log.display()))?;
        let mut command = guarded(&spec.program);
        if spec.env_clear {
            command.env_clear();
        }
        command.args(&spec.args).envs(spec.env.iter().map(|(key, value)| (key, value)));
        for key in &spec.env_remove {
            command.env_remove(key);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = spawn(command).with_context(|| format!("starting {} ({})", spec.name, spec.program.display()))?;
        Ok(Self { name: spec.name.clone(), pid: child.id(), log: spec.log.clone(), child: Mutex::new(child) })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, or nothing while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// CPU time and memory so far; an error once it has ended.
    pub fn stats(&self) -> anyhow::Result<ProcStat> {
        procstat(self.pid)
    }

    /// Sends a signal, unless it has ended: its id could belong to somebody else by then.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None))
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            // It can only fail when the process has just ended, which is what we wait for anyway.
            let _ended_already = rustix::process::kill_process(pid, signal);
        }
    }

    /// SIGKILL, and waits until it is gone: like a power cut.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        let _status = self.child().wait();
    }

    /// Asks it to end (SIGTERM) and kills it if it has not done so within the grace. Returns how it ended. Blocks.
    pub fn terminate(&self, grace: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + grace;
        while self.exit_status().is_none() {
            if Instant::now() >= deadline {
                self.kill();
            }
            std::thread::sleep(LOOK);
        }
        self.exit_status()
    }

    /// Waits until it ends by itself.
    pub async fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The last lines of its log, for an error message.
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log, lines)
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit_status().is_none() {
            self.terminate(DROP_GRACE);
        }
    }
}

/// A command that the kernel kills with us, in a process group of its own.
pub(super) fn guarded(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).process_group(0);
    command
}

/// Starts a command from the thread that lives as long as this process: the kernel sends the death signal when the *thread*
/// that started the child ends.
pub(super) fn spawn(command: Command) -> std::io::Result<Child> {
    type Request = (Command, mpsc::SyncSender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                // Nobody listens any more: dropping the answer is all there is to do.
                let _unheard = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = mpsc::sync_channel(1);
    let gone = || std::io::Error::other("the thread that starts processes is gone");
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// The last lines of a file, reading no more than its last 64 KiB.
pub(super) fn log_tail(path: &Path, lines: usize) -> String {
    let Ok(mut file) = File::open(path) else { return String::from("(no log)") };
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024))).is_err() || file.read_to_end(&mut bytes).is_err() {
        return String::from("(unreadable log)");
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, dir: &Path) -> Process {
        Process::start(&ProcessSpec::new("shell", "/bin/sh", dir.join("log")).args(["-c", script])).unwrap()
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell("exec sleep 1000", dir.path());
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell("trap '' TERM; echo ready; while :; do sleep 1000; done", dir.path());
        while !process.log_tail(1).contains("ready") {
            std::thread::yield_now();
        }
        let status = process.terminate(Duration::from_millis(50)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[tokio::test]
    async fn exit_code_and_log_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell("echo one; echo two >&2; echo three; exit 7", dir.path());
        assert_eq!(process.wait().await.code(), Some(7));
        assert_eq!(process.log_tail(2), "two\nthree");
        process.signal(Signal::KILL);
        assert_eq!(process.exit_status().unwrap().code(), Some(7));
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let asker = std::thread::spawn({
            let dir = dir.path().to_owned();
            move || {
                let process = shell("echo ready; exec sleep 1000", &dir);
                while !process.log_tail(1).contains("ready") {
                    std::thread::yield_now();
                }
                (process, std::fs::read_link("/proc/thread-self").unwrap())
            }
        });
        let (process, thread) = asker.join().unwrap();
        // The kernel sends the death signal before the thread disappears from /proc.
        while Path::new("/proc").join(&thread).exists() {
            std::thread::yield_now();
        }
        assert!(process.exit_status().is_none());
    }
}
