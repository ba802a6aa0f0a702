//! The process of a container, and the sandbox it runs in (`sandbox.sh`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

use crate::control_plane::{Process, ProcessSpec};

/// Sets the sandbox up and starts the command in it.
const SANDBOX: &str = include_str!("sandbox.sh");
/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(5);
/// How long the set-up may take before a container that must go is given up.
const SET_UP_LIMIT: Duration = Duration::from_secs(10);
/// Where commands are looked for, as in most images.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Something of this machine that the container finds at a path of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) source: PathBuf,
    pub(super) target: String,
    pub(super) read_only: bool,
}

/// Who a container runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) groups: Vec<i64>,
    pub(super) no_new_privileges: bool,
    pub(super) no_capabilities: bool,
}

/// What to run, and in what surroundings.
#[derive(Debug, Clone, Default)]
pub(super) struct Launch {
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) working_dir: String,
    pub(super) mounts: Vec<Mount>,
    pub(super) read_only_root: bool,
    pub(super) user: User,
}

impl Launch {
    /// Runs it as process 1 of a container whose files lie in this folder.
    fn spec(&self, folder: &Path) -> anyhow::Result<ProcessSpec> {
        let command = self.command.first().context("the container has no command, and images are not looked into")?;
        let mode = |read_only: bool| OsString::from(if read_only { "ro" } else { "rw" });
        let mut mounts = self.mounts.clone();
        // One below the other: the upper one first, or it would hide the lower.
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        let mut spec = ProcessSpec::new("container", "unshare", log(folder)).args(["--mount", "--", "/bin/sh"]);
        spec = spec.arg(folder.with_file_name("sandbox.sh")).arg("outside").arg(folder).arg(mode(self.read_only_root));
        spec = spec.arg(mounts.len().to_string());
        for mount in mounts {
            spec = spec.arg(mount.source).arg(mount.target).arg(mode(mount.read_only));
        }
        let dir = if self.working_dir.is_empty() { "/" } else { &self.working_dir };
        spec = spec.args([dir, command]).args(self.user.become_it()).args(&self.command);
        spec.env_clear = true;
        spec = spec.env("PATH", PATH).env("HOME", "/");
        Ok(self.env.iter().fold(spec, |spec, (key, value)| spec.env(key, value)))
    }
}

impl User {
    /// The program that becomes this user and then whatever follows. A change of user forgets the wish to die with the parent, so that
    /// comes last; setpriv does it in this order.
    fn become_it(&self) -> Vec<String> {
        let groups: Vec<String> = self.groups.iter().map(i64::to_string).collect();
        let mut args = vec!["setpriv".to_owned(), format!("--reuid={}", self.uid), format!("--regid={}", self.gid)];
        args.push(if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={}", groups.join(",")) });
        if self.no_new_privileges {
            args.push("--no-new-privs".to_owned());
        }
        if self.no_capabilities {
            args.extend(["--bounding-set=-all".to_owned(), "--inh-caps=-all".to_owned()]);
        }
        args.extend(["--pdeathsig=KILL", "--"].map(str::to_owned));
        args
    }
}

/// Where a container's output goes.
pub(super) fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// A container that was started. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Container {
    /// What waits for process 1 of the container and ends with its exit code.
    process: Process,
    folder: PathBuf,
}

impl Container {
    /// Starts it. The folder must exist; the sandbox's script lies beside it.
    pub(super) fn start(launch: &Launch, folder: &Path) -> anyhow::Result<Self> {
        let process = Process::start(&launch.spec(folder)?)?;
        Ok(Self { process, folder: folder.to_owned() })
    }

    /// Writes the script that makes sandboxes for the containers with folders in this one.
    pub(super) fn install_sandbox(folder: &Path) -> anyhow::Result<()> {
        let path = folder.join("sandbox.sh");
        std::fs::write(&path, SANDBOX).with_context(|| format!("writing {}", path.display()))
    }

    /// Waits until the command runs. False: it never did, see [`Container::trouble`].
    pub(super) async fn runs(&self) -> bool {
        loop {
            // Looked at first: a command may be over before we look again.
            let ended = self.process.exit_status().is_some();
            if self.pid().is_some() {
                return true;
            }
            if ended {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until it has ended: the exit code as a container runtime gives it, 128 more than the number of a signal.
    pub(super) async fn wait(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.process.wait().await;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
    }

    /// The command's process id on this machine, once it runs.
    pub(super) fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.folder.join("pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.process.exit_status().is_some()
    }

    /// Sends the command a signal. False: there is none, not yet or no more.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        // Asked first: the id of one that has ended could belong to somebody else.
        !self.has_ended() && self.pid().is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
    }

    /// SIGKILL, and waits until nothing of it is left. Blocks.
    pub(super) fn kill(&self) {
        let deadline = Instant::now() + SET_UP_LIMIT;
        while !self.has_ended() && Instant::now() < deadline {
            self.signal(Signal::KILL);
            std::thread::sleep(LOOK);
        }
        self.process.kill();
    }

    /// Why the command never ran.
    pub(super) fn trouble(&self) -> String {
        let setup = std::fs::read_to_string(self.folder.join("setup")).unwrap_or_default();
        // Without a mount namespace the script that writes there has not begun.
        let text = if setup.trim().is_empty() { self.process.log_tail(5) } else { setup };
        text.trim().to_owned()
    }
}

/// Runs nothing in a sandbox, to see whether this machine lets us.
pub(super) async fn probe(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let launch = Launch { command: vec!["true".to_owned()], ..Launch::default() };
    let container = Container::start(&launch, folder)?;
    let runs = container.runs().await;
    let code = container.wait().await;
    anyhow::ensure!(
        runs && code == 0,
        "pods cannot run on this machine: it takes root, unshare and setpriv (util-linux), mount, and a kernel with overlayfs that lets us \
         make mount and pid namespaces. The sandbox said: {}",
        container.trouble()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(folder: &Path, launch: &Launch) -> Container {
        Container::install_sandbox(folder).unwrap();
        let own = folder.join("own");
        std::fs::create_dir(&own).unwrap();
        Container::start(launch, &own).unwrap()
    }

    fn shell(script: &str) -> Launch {
        Launch { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), ..Launch::default() }
    }

    async fn ended(folder: &Path, launch: &Launch) -> (i32, String) {
        let container = container(folder, launch);
        assert!(container.runs().await, "{}", container.trouble());
        (container.wait().await, std::fs::read_to_string(log(&folder.join("own"))).unwrap())
    }

    #[tokio::test]
    async fn what_it_writes_stays_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("written");
        let script = format!("echo $$; echo text >{} && mkdir -p /run/mine /mine && ls -d /run/* /mine; exit 7", outside.display());
        assert_eq!(ended(folder.path(), &shell(&script)).await, (7, "1\n/mine\n/run/mine\n".to_owned()));
        assert!(!outside.exists() && !Path::new("/mine").exists());
    }

    #[tokio::test]
    async fn it_runs_as_another_user_on_a_root_it_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "content\n").unwrap();
        let mount = Mount { source: data, target: "/var/run/a/b".into(), read_only: true };
        let user = User { uid: 65_532, gid: 65_533, groups: vec![7], no_new_privileges: true, no_capabilities: true };
        let script = "id -u; id -G; cat /run/a/b/file; pwd; echo 1 >/tmp/x; grep -E 'NoNewPrivs|CapBnd' /proc/self/status";
        let launch = Launch { mounts: vec![mount], read_only_root: true, user, working_dir: "/new/dir".into(), ..shell(script) };
        let (code, log) = ended(folder.path(), &launch).await;
        let expected = "65532\n65533 7\ncontent\n/new/dir\n/bin/sh: 1: cannot create /tmp/x: Read-only file system\n\
                        CapBnd:\t0000000000000000\nNoNewPrivs:\t1\n";
        assert_eq!((code, log.as_str()), (0, expected));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let container = container(folder.path(), &Launch { command: vec!["/no/such".into()], ..Launch::default() });
        assert!(!container.runs().await);
        assert_eq!(container.trouble(), "exec: \"/no/such\": no such executable in the container");
    }

    #[tokio::test]
    async fn killed_it_takes_all_its_children_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let container = container(folder.path(), &shell("setsid sleep 1000 & echo begun; wait"));
        assert!(container.runs().await);
        let pid = container.pid().unwrap().as_raw_nonzero();
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        assert_ne!(namespace, std::fs::read_link("/proc/self/ns/pid").unwrap());
        while !container.process.log_tail(1).contains("begun") {
            tokio::task::yield_now().await;
        }
        assert!(container.signal(Signal::KILL));
        assert_eq!(container.wait().await, 137);
        assert!(!container.signal(Signal::TERM));
        let inside = |process: &std::fs::DirEntry| std::fs::read_link(process.path().join("ns/pid")).is_ok_and(|link| link == namespace);
        assert_eq!(std::fs::read_dir("/proc").unwrap().flatten().filter(inside).count(), 0);
    }
}
