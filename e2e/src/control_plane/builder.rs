//! Starts a control plane.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;

use super::kubeconfig::{Credential, Kubeconfigs};
use super::servers::{self, Files};
use super::{Authority, Binaries, ControlPlane, Kubectl, Process, ProcessSpec, Workspace, audit, free_port};

/// Somebody else may take a port between our look and the server's; then everything is started afresh.
const ATTEMPTS: usize = 3;

/// Options of a control plane.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    controller_manager: bool,
    audit_log: bool,
    api_server_flags: Vec<String>,
    controller_manager_flags: Vec<String>,
    etcd: Option<(SocketAddr, String)>,
}

/// What one attempt to start works with.
struct Start<'a> {
    options: &'a Builder,
    binaries: &'a Binaries,
    workspace: &'a Workspace,
    files: Files,
    authority: Authority,
    admin_token: String,
    http: reqwest::Client,
}

/// The servers of a successful start.
struct Running {
    etcd: Option<Process>,
    etcd_addr: SocketAddr,
    api_server: Process,
    api_server_spec: ProcessSpec,
    api_server_addr: SocketAddr,
    controller_manager: Option<Process>,
    admin_kubeconfig: PathBuf,
    kubeconfigs: Kubeconfigs,
}

impl Builder {
    /// Runs a controller manager too: Jobs, garbage collection, removal of namespaces, default service accounts.
    #[must_use]
    pub fn controller_manager(mut self, wanted: bool) -> Self {
        self.controller_manager = wanted;
        self
    }

    /// Writes an audit log of every request's metadata.
    #[must_use]
    pub fn audit_log(mut self, wanted: bool) -> Self {
        self.audit_log = wanted;
        self
    }

    /// Adds a flag to the API server, such as `--feature-gates=…`.
    #[must_use]
    pub fn api_server_flag(mut self, flag: impl Into<String>) -> Self {
        self.api_server_flags.push(flag.into());
        self
    }

    /// Adds a flag to the controller manager.
    #[must_use]
    pub fn controller_manager_flag(mut self, flag: impl Into<String>) -> Self {
        self.controller_manager_flags.push(flag.into());
        self
    }

    /// Keeps the data in the etcd of another control plane under a prefix of its own, instead of starting one.
    #[must_use]
    pub fn etcd(mut self, address: SocketAddr, prefix: impl Into<String>) -> Self {
        self.etcd = Some((address, prefix.into()));
        self
    }

    /// Starts it and waits until it is ready: two seconds, and minutes where the binaries must be built first. An error shows the end
    /// of the log of the server that failed.
    pub async fn start(self) -> anyhow::Result<ControlPlane> {
        super::install_crypto_provider();
        let with_controller_manager = self.controller_manager;
        let binaries = tokio::task::spawn_blocking(move || Binaries::find(with_controller_manager)).await.context("finding binaries")??;
        let mut attempt = 1;
        loop {
            match self.start_once(&binaries).await {
                Err(error) if attempt < ATTEMPTS && servers::port_was_taken(&error) => attempt += 1,
                result => return result.context("starting a control plane"),
            }
        }
    }

    /// Where it was asked for, or where what our programs ask is to be kept.
    fn writes_audit_log(&self) -> bool {
        self.audit_log || audit::folder().is_some()
    }

    async fn start_once(&self, binaries: &Binaries) -> anyhow::Result<ControlPlane> {
        let workspace = Workspace::new()?;
        let authority = Authority::new()?;
        let admin_token = uuid::Uuid::new_v4().to_string();
        let files = Files::new(workspace.path());
        files.write(
            authority.cert_pem(),
            &authority.serving("kube-apiserver", &["127.0.0.1", "localhost", "kubernetes"])?,
            &admin_token,
            if self.audit_log { servers::AUDIT_ALL } else { audit::POLICY },
        )?;
        let http = http_client(authority.cert_pem())?;
        let start = Start { options: self, binaries, workspace: &workspace, files, authority, admin_token, http };
        let running = start.run().await?;
        let kubectl = Kubectl::new(binaries.kubectl.clone(), running.admin_kubeconfig.clone(), workspace.path().join("kubectl-cache"));
        let Start { authority, admin_token, http, .. } = start;
        Ok(ControlPlane {
            controller_manager: running.controller_manager,
            api_server: Mutex::new(running.api_server),
            etcd: running.etcd,
            api_server_spec: running.api_server_spec,
            api_server_addr: running.api_server_addr,
            etcd_addr: running.etcd_addr,
            authority,
            admin_token,
            admin_kubeconfig: running.admin_kubeconfig,
            kubeconfigs: running.kubeconfigs,
            kubectl,
            kubectl_binary: binaries.kubectl.clone(),
            audit_log: self.writes_audit_log().then(|| audit_log(workspace.path())),
            audit_folder: audit::folder(),
            http,
            workspace,
        })
    }
}

impl Start<'_> {
    async fn run(&self) -> anyhow::Result<Running> {
        let (etcd, etcd_addr, prefix) = self.etcd()?;
        let api_server_addr = loopback()?;
        let api_server_spec = self.api_server_spec(api_server_addr, etcd_addr, &prefix);
        // The API server tries again until etcd answers, so both start at once.
        let api_server = Process::start(&api_server_spec)?;
        wait_api_server(&self.http, api_server_addr, &self.admin_token, &api_server, etcd.as_ref()).await?;
        let kubeconfigs = Kubeconfigs::new(self.workspace.folder("kubeconfigs")?, self.files.ca.clone());
        let admin = self.authority.client("admin", &["system:masters"])?;
        let admin_kubeconfig = kubeconfigs.write("admin", api_server_addr, &Credential::Certificate(admin))?;
        let controller_manager = match &self.binaries.kube_controller_manager {
            Some(binary) => Some(self.controller_manager(binary, &kubeconfigs, api_server_addr).await?),
            None => None,
        };
        Ok(Running { etcd, etcd_addr, api_server, api_server_spec, api_server_addr, controller_manager, admin_kubeconfig, kubeconfigs })
    }

    fn etcd(&self) -> anyhow::Result<(Option<Process>, SocketAddr, String)> {
        if let Some((address, prefix)) = &self.options.etcd {
            return Ok((None, *address, prefix.clone()));
        }
        let (client, peer) = (loopback()?, loopback()?);
        let spec = servers::etcd(&self.binaries.etcd, self.workspace.path(), client, peer);
        Ok((Some(Process::start(&spec)?), client, "/registry".to_owned()))
    }

    fn api_server_spec(&self, address: SocketAddr, etcd: SocketAddr, prefix: &str) -> ProcessSpec {
        let folder = self.workspace.path();
        let mut spec = servers::api_server(&self.binaries.kube_apiserver, folder, &self.files, address, etcd, prefix);
        if self.options.writes_audit_log() {
            spec = spec.args(servers::audit_flags(&self.files, &audit_log(folder)));
        }
        spec.args(self.options.api_server_flags.clone())
    }

    /// Starts it and waits for its first visible work: without the default service account no pod is admitted.
    async fn controller_manager(&self, binary: &Path, kubeconfigs: &Kubeconfigs, api_server: SocketAddr) -> anyhow::Result<Process> {
        let user = "system:kube-controller-manager";
        // With all rights it needs no service account for each controller, which it would take five seconds to create.
        let credential = Credential::Certificate(self.authority.client(user, &["system:masters"])?);
        let kubeconfig = kubeconfigs.write(user, api_server, &credential)?;
        let spec = servers::controller_manager(binary, self.workspace.path(), &self.files, &kubeconfig, loopback()?);
        let process = Process::start(&spec.args(self.options.controller_manager_flags.clone()))?;
        let url = format!("https://{api_server}/api/v1/namespaces/default/serviceaccounts/default");
        servers::wait_ready(&self.http.get(url).bearer_auth(&self.admin_token), &[&process]).await?;
        Ok(process)
    }
}

/// Waits until the API server says that it is ready, its own roles included.
pub(super) async fn wait_api_server(
    http: &reqwest::Client,
    address: SocketAddr,
    token: &str,
    api_server: &Process,
    etcd: Option<&Process>,
) -> anyhow::Result<()> {
    let request = http.get(format!("https://{address}/readyz")).bearer_auth(token);
    // etcd first in the list: where it has ended, the API server's complaints only follow from that.
    let servers: Vec<&Process> = etcd.into_iter().chain([api_server]).collect();
    servers::wait_ready(&request, &servers).await
}

fn http_client(ca_pem: &str) -> anyhow::Result<reqwest::Client> {
    let ca = reqwest::Certificate::from_pem(ca_pem.as_bytes()).context("the new CA certificate")?;
    // HTTP/1.1 without idle connections: after a restart none may be left over from the killed server.
    reqwest::Client::builder()
        .tls_certs_only([ca])
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(10))
        .build()
        .context("making an HTTP client")
}

fn loopback() -> anyhow::Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}

fn audit_log(folder: &Path) -> PathBuf {
    folder.join("audit.log")
}
