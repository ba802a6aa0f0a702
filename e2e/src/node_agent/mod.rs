//! A small node for the control plane: scheduler and kubelet in one, so that Jobs run for real.
//!
//! kube-controller-manager makes the pods; the agent puts each on its node, runs the command of its container as a process of this machine
//! and reports what becomes of it. The process has mount, process-id and root file system of its own (see `sandbox.sh`), finds its volumes where
//! a container would, a service-account token among them, and reaches the API server as in a cluster. Images are not looked into: a
//! container sees the programs of this machine, and those that [`NodeAgentConfig::executables`] puts at paths of their own.
//!
//! What is not done is refused: such a pod fails with a message. Nothing is chosen by node selector, affinity, taints or resources.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use bos_e2e::control_plane::ControlPlane;
//! use bos_e2e::node_agent::{NodeAgent, NodeAgentConfig};
//!
//! let control_plane = ControlPlane::builder().controller_manager(true).start().await?;
//! let config = NodeAgentConfig::default().executable("/boa", "target/debug/boa");
//! let agent = NodeAgent::start(&control_plane, config).await?;
//! // kubectl create job …
//! agent.stop().await;
//! # Ok(()) }
//! ```

mod accepts;
mod api;
mod container;
mod env;
mod node;
mod objects;
mod pods;
mod status;
mod volumes;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use rustix::process::Signal;
use tokio::task::JoinHandle;

use crate::control_plane::ControlPlane;
use api::PodApi;
use container::{Container, Launch};
use pods::Pods;

/// The node's name.
pub const NODE: &str = "local";
/// Address of the node and of all its pods.
const ADDRESS: &str = "127.0.0.1";

/// Settings of a [`NodeAgent`].
#[derive(Debug, Clone, Default)]
pub struct NodeAgentConfig {
    /// What images would bring: for a path in every container, an executable of this machine.
    pub executables: BTreeMap<String, PathBuf>,
    /// Where pods reach the API server, if not directly: a [`crate::proxy::Proxy`].
    pub pods_reach: Option<SocketAddr>,
}

impl NodeAgentConfig {
    /// Puts an executable of this machine at a path in every container, where also those find it that do not run as root.
    #[must_use]
    pub fn executable(mut self, path: impl Into<String>, on_this_machine: impl Into<PathBuf>) -> Self {
        self.executables.insert(path.into(), on_this_machine.into());
        self
    }

    /// Sends pods to this address for the API server.
    #[must_use]
    pub fn pods_reach(mut self, api_server: SocketAddr) -> Self {
        self.pods_reach = Some(api_server);
        self
    }
}

/// The running node. Dropping it ends all its containers, as a power cut does: nothing more is reported.
pub struct NodeAgent {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the tasks of the agent share.
struct Shared {
    client: kube::Client,
    folder: PathBuf,
    executables: BTreeMap<String, PathBuf>,
    api_server: SocketAddr,
    pods: Mutex<Pods>,
}

impl NodeAgent {
    /// Starts it: the node is Ready when this returns. An error says what this machine lacks.
    pub async fn start(control_plane: &ControlPlane, config: NodeAgentConfig) -> anyhow::Result<Self> {
        let folder = control_plane.folder().join("pods");
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Container::install_sandbox(&folder)?;
        container::probe(&folder.join(format!("probe-{}", uuid::Uuid::new_v4()))).await?;
        // Its name is a node's. Its rights are those of scheduler and kubelet together, and there is no node authoriser here to give them.
        let kubeconfig = control_plane.kubeconfig_for_user(&format!("system:node:{NODE}"), &["system:nodes", "system:masters"])?;
        let client = control_plane.client_for(&kubeconfig).await?;
        node::register(client.clone()).await?;
        let mut executables = BTreeMap::new();
        for (path, file) in config.executables {
            let file = std::fs::canonicalize(&file).with_context(|| format!("{}, which is to be {path} in containers", file.display()))?;
            executables.insert(path, file);
        }
        let api_server = config.pods_reach.unwrap_or(control_plane.api_server_addr());
        let shared = Arc::new(Shared { client: client.clone(), folder, executables, api_server, pods: Mutex::default() });
        let tasks = vec![tokio::spawn(node::keep_ready(client)), tokio::spawn(pods::follow(shared.clone()))];
        Ok(Self { shared, tasks })
    }

    /// What `kubectl logs` would show of a pod lies there, as long as the control plane runs.
    pub fn log(&self, pod: &Pod) -> PathBuf {
        container::log(&self.shared.folder(pod))
    }

    /// What the pod has printed so far.
    pub fn log_text(&self, pod: &Pod) -> anyhow::Result<String> {
        let path = self.log(pod);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Process id of a pod's command on this machine, while it runs.
    pub fn pid(&self, pod: &Pod) -> Option<u32> {
        let container = self.shared.container(pod).filter(|container| !container.has_ended())?;
        u32::try_from(container.pid()?.as_raw_nonzero().get()).ok()
    }

    /// Sends the process of a pod a signal, from outside. SIGKILL is what memory shortage does. As process 1 of its namespace it gets no
    /// signal but KILL and STOP that it has no handler for, as in a cluster.
    pub fn kill(&self, pod: &Pod, signal: Signal) -> anyhow::Result<()> {
        let sent = self.shared.container(pod).is_some_and(|container| container.signal(signal));
        anyhow::ensure!(sent, "pod {} runs no process here", pod.name_any());
        Ok(())
    }

    /// The machine of this pod is lost to the control plane: from now on nothing is reported of it and nobody ends it, but it runs on.
    /// [`NodeAgent::kill`] and the end of the agent still end it. To the Job it counts as running until [`NodeAgent::collect`].
    pub fn lose(&self, pod: &Pod) -> anyhow::Result<()> {
        let pods = self.shared.pods();
        let tracked = pods.tracked.get(pod.metadata.uid.as_deref().unwrap_or_default());
        tracked.with_context(|| format!("pod {} is not here", pod.name_any()))?.lost.send_replace(true);
        Ok(())
    }

    /// Marks a lost pod as failed and removes it from the API server, which is what comes of an administrator's taint
    /// `node.kubernetes.io/out-of-service`. Its Job makes another one, whether the process still runs or not.
    pub async fn collect(&self, pod: &Pod) -> anyhow::Result<()> {
        PodApi::new(self.shared.client.clone(), pod).collect().await
    }

    /// Ends all containers; like dropping it, but without blocking the runtime. The Node object stays, and is soon called NotReady.
    pub async fn stop(self) {
        // It can only fail when dropping panicked, and then it has said so.
        let _stopped = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for NodeAgent {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let containers: Vec<_> = {
            let mut pods = self.shared.pods();
            pods.closed = true;
            pods.tracked.values().filter_map(|tracked| tracked.container.clone()).collect()
        };
        for container in containers {
            container.kill();
        }
    }
}

impl Shared {
    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod's own folder, by uid: names may come again.
    fn folder(&self, pod: &Pod) -> PathBuf {
        self.folder.join(pod.metadata.uid.as_deref().unwrap_or_default())
    }

    fn container(&self, pod: &Pod) -> Option<Arc<Container>> {
        self.pods().tracked.get(pod.metadata.uid.as_deref()?)?.container.clone()
    }

    /// Starts a pod's container, unless the agent has ended: then nobody would end it.
    fn launch(&self, pod: &Pod, launch: &Launch) -> anyhow::Result<Arc<Container>> {
        let folder = self.folder(pod);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut pods = self.pods();
        anyhow::ensure!(!pods.closed, "the node agent has ended");
        let tracked = pods.tracked.get_mut(pod.metadata.uid.as_deref().unwrap_or_default()).context("the pod is gone")?;
        let container = Arc::new(Container::start(launch, &folder)?);
        tracked.container = Some(container.clone());
        Ok(container)
    }
}

/// Whether a pod is on our node.
fn is_here(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(NODE))
}

/// Whether a pod has ended for good.
fn is_over(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")))
}
