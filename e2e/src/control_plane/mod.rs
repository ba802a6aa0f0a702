//! A real Kubernetes control plane on this machine, for development, tests, the demo and benchmarks.
//!
//! etcd, kube-apiserver and (where wanted) kube-controller-manager run on free loopback ports with their own certificate authority, in a
//! temporary folder. They end with the [`ControlPlane`], or with this process, however it ends. There is no scheduler and no kubelet.
//!
//! Set `BOS_E2E_KEEP_LOGS` to keep the folder, and `BOS_E2E_AUDIT_DIR` to keep what our programs have asked of the API server.

mod audit;
mod binaries;
mod builder;
mod certs;
mod crds;
mod kubeconfig;
mod kubectl;
mod metrics;
mod ports;
mod process;
mod procstat;
mod servers;
mod workspace;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use rustix::process::Signal;

pub use audit::Asked;
pub use binaries::Binaries;
pub use builder::Builder;
pub use certs::{Authority, KeyedCert};
pub use kubectl::{Kubectl, Output};
pub use metrics::{RequestKind, RequestTotals};
pub use ports::free_port;
pub use process::{Process, ProcessSpec};
pub use procstat::{ProcStat, procstat};

use kubeconfig::{Credential, Kubeconfigs};
use workspace::Workspace;

/// How long a service-account token of [`ControlPlane::kubeconfig_for_service_account`] is good for: longer than any demo's day.
const TOKEN_SECONDS: i64 = 7 * 24 * 3600;

/// How long an API server whose log is wanted may take to end.
const AUDIT_GRACE: std::time::Duration = std::time::Duration::from_secs(10);

/// Makes rustls use ring. Call it before the first TLS connection of a process; calling it again does nothing.
pub fn install_crypto_provider() {
    // An error means that one is installed already.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
}

/// A running control plane. Dropping it stops all its processes and removes its folder.
// The fields are dropped in this order: clients of a server before the server, the folder last.
pub struct ControlPlane {
    controller_manager: Option<Process>,
    api_server: Mutex<Process>,
    etcd: Option<Process>,
    api_server_spec: ProcessSpec,
    api_server_addr: SocketAddr,
    etcd_addr: SocketAddr,
    authority: Authority,
    admin_token: String,
    admin_kubeconfig: PathBuf,
    kubeconfigs: Kubeconfigs,
    kubectl: Kubectl,
    kubectl_binary: PathBuf,
    audit_log: Option<PathBuf>,
    audit_folder: Option<PathBuf>,
    http: reqwest::Client,
    workspace: Workspace,
}

impl ControlPlane {
    /// One with default options: no controller manager, no audit log, an etcd of its own.
    pub async fn start() -> anyhow::Result<Self> {
        Self::builder().start().await
    }

    /// Options, then [`Builder::start`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The one that the tests of this process share; started by whoever asks first. Only for tests that run no operator: two operators
    /// on one API server fight over the same nodes.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: tokio::sync::OnceCell<ControlPlane> = tokio::sync::OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// The folder with data, certificates and logs.
    pub fn folder(&self) -> &Path {
        self.workspace.path()
    }

    /// Where the API server listens.
    pub fn api_server_addr(&self) -> SocketAddr {
        self.api_server_addr
    }

    /// Where etcd listens.
    pub fn etcd_addr(&self) -> SocketAddr {
        self.etcd_addr
    }

    /// Process id of the API server; a restart changes it.
    pub fn api_server_pid(&self) -> u32 {
        self.api_server().pid()
    }

    /// Process id of etcd, if it is this control plane's own.
    pub fn etcd_pid(&self) -> Option<u32> {
        self.etcd.as_ref().map(Process::pid)
    }

    /// Process id of the controller manager, if there is one.
    pub fn controller_manager_pid(&self) -> Option<u32> {
        self.controller_manager.as_ref().map(Process::pid)
    }

    /// The audit log, if it was asked for: one JSON object a line.
    pub fn audit_log(&self) -> Option<&Path> {
        self.audit_log.as_deref()
    }

    /// Signs the certificates of servers beside the API server, such as a proxy or a webhook.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A kubeconfig of a cluster administrator (client certificate).
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// A kubeconfig with a client certificate for this user in these groups (at most two).
    pub fn kubeconfig_for_user(&self, name: &str, groups: &[&str]) -> anyhow::Result<PathBuf> {
        let pair = self.authority.client(name, groups)?;
        self.kubeconfigs.write(name, self.api_server_addr, &Credential::Certificate(pair))
    }

    /// A kubeconfig of a cluster administrator (bearer token) that goes to this address, such as a proxy's, instead of the API server.
    pub fn kubeconfig_via(&self, address: SocketAddr) -> anyhow::Result<PathBuf> {
        self.kubeconfigs.write("token-admin", address, &Credential::Token(self.admin_token.clone()))
    }

    /// A kubeconfig with a token of this service account, which must exist: an operator under the roles it has in a cluster. It goes to
    /// `via` where given, otherwise to the API server.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str, via: Option<SocketAddr>) -> anyhow::Result<PathBuf> {
        let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(self.client().await?, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { audiences: vec![], expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &kube::api::PostParams::default(), &request)
            .await
            .with_context(|| format!("a token for the service account {namespace}/{name}"))?;
        let token = answer.status.context("the API server answered without a token")?.token;
        let user = format!("{namespace}-{name}");
        self.kubeconfigs.write(&user, via.unwrap_or(self.api_server_addr), &Credential::Token(token))
    }

    /// A client of the cluster administrator. It retries nothing. It belongs to the calling runtime.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        self.client_for(&self.admin_kubeconfig).await
    }

    /// A client for a kubeconfig of this control plane. It retries nothing.
    pub async fn client_for(&self, kubeconfig: &Path) -> anyhow::Result<kube::Client> {
        kubeconfig::client(kubeconfig).await
    }

    /// The kubectl binary, for instructions to a person.
    pub fn kubectl_binary(&self) -> &Path {
        &self.kubectl_binary
    }

    /// kubectl as the cluster administrator.
    pub fn kubectl_command(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Runs kubectl as the cluster administrator.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.kubectl.run(args).await
    }

    /// Applies this YAML or JSON text; the answer may be a refusal.
    pub async fn apply(&self, manifest: &str) -> anyhow::Result<Output> {
        self.kubectl.run_with_input(&["apply", "-f", "-"], manifest).await
    }

    /// Applies a kustomize folder.
    pub async fn apply_kustomize(&self, folder: &Path) -> anyhow::Result<String> {
        self.kubectl(&["apply", "--server-side", "-k", utf8(folder)?]).await?.ok()
    }

    /// Applies the CRDs of a kustomize folder and waits until the API server serves them and `kubectl explain` knows them.
    pub async fn install_crds(&self, folder: &Path) -> anyhow::Result<()> {
        let applied = self.kubectl(&["apply", "--server-side", "-o", "json", "-k", utf8(folder)?]).await?.ok()?;
        let crds = crds::parse(&applied)?;
        let mut wait = vec!["wait", "--for=condition=Established", "--timeout=30s", "crd"];
        wait.extend(crds.iter().map(|crd| crd.name.as_str()));
        self.kubectl(&wait).await?.ok()?;
        for crd in &crds {
            let request = self.http.get(format!("https://{}{}", self.api_server_addr, crd.openapi_path())).bearer_auth(&self.admin_token);
            servers::wait_for(&request, |answer| answer.contains(&crd.path()), &[]).await?;
        }
        Ok(())
    }

    /// How many requests the API server has answered since it started, whoever asked.
    pub async fn request_totals(&self) -> anyhow::Result<RequestTotals> {
        let url = format!("https://{}/metrics", self.api_server_addr);
        let answer = self.http.get(url).bearer_auth(&self.admin_token).send().await.context("asking for metrics")?;
        let text = answer.error_for_status().context("asking for metrics")?.text().await.context("reading metrics")?;
        Ok(RequestTotals::parse(&text))
    }

    /// Kills the API server (SIGKILL). Connections to it are refused until [`ControlPlane::restart_api_server`].
    pub fn kill_api_server(&self) {
        self.api_server().kill();
    }

    /// Freezes the API server: connections are taken but nothing is answered, until [`ControlPlane::resume_api_server`].
    pub fn pause_api_server(&self) {
        self.api_server().signal(Signal::STOP);
    }

    /// Lets a frozen API server go on.
    pub fn resume_api_server(&self) {
        self.api_server().signal(Signal::CONT);
    }

    /// Starts the API server again, on the same port with the same data, and waits until it is ready.
    pub async fn restart_api_server(&self) -> anyhow::Result<()> {
        self.kill_api_server();
        let process = Process::start(&self.api_server_spec)?;
        builder::wait_api_server(&self.http, self.api_server_addr, &self.admin_token, &process, self.etcd.as_ref()).await?;
        *self.api_server() = process;
        Ok(())
    }

    /// Stops everything and removes the folder; like dropping it, but without blocking the runtime.
    pub async fn stop(self) {
        // It can only fail when dropping panicked, and then it has said so.
        let _stopped = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    fn api_server(&self) -> MutexGuard<'_, Process> {
        self.api_server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Ask the two clients of etcd at once; dropping the fields then waits for each in turn.
        let api_server = self.api_server();
        api_server.signal(Signal::CONT);
        api_server.signal(Signal::TERM);
        if let Some(controller_manager) = &self.controller_manager {
            controller_manager.signal(Signal::TERM);
        }
        if let (Some(log), Some(folder)) = (&self.audit_log, &self.audit_folder) {
            // When it has ended, all is in its log.
            api_server.terminate(AUDIT_GRACE);
            if let Err(error) = audit::keep(log, folder) {
                eprintln!("control plane: what was asked of the API server is not kept: {error:#}");
            }
        }
    }
}

fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
