//! The command lines of etcd, kube-apiserver and kube-controller-manager, and waiting until they answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::certs::KeyedCert;
use super::process::{Process, ProcessSpec};

/// How long a server may take to be ready. It takes two seconds; a busy machine gets a lot more.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How often readiness is asked for.
const ASK: Duration = Duration::from_millis(50);
/// How much of a failed server's log an error shows.
const TAIL: usize = 25;

/// The files that the servers share.
pub(super) struct Files {
    /// Certificate authority.
    pub(super) ca: PathBuf,
    /// Serving certificate of API server and controller manager.
    pub(super) serving_cert: PathBuf,
    /// Its key.
    pub(super) serving_key: PathBuf,
    /// Signs service-account tokens.
    pub(super) token_private_key: PathBuf,
    /// Verifies them.
    pub(super) token_public_key: PathBuf,
    /// Bearer tokens of users.
    pub(super) tokens: PathBuf,
    /// What the audit log records.
    pub(super) audit_policy: PathBuf,
}

impl Files {
    /// The paths in this folder.
    pub(super) fn new(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self {
            ca: file("ca.crt"),
            serving_cert: file("serving.crt"),
            serving_key: file("serving.key"),
            token_private_key: file("service-account.key"),
            token_public_key: file("service-account.pub"),
            tokens: file("tokens.csv"),
            audit_policy: file("audit-policy.yaml"),
        }
    }

    /// Writes all of them.
    pub(super) fn write(&self, ca_pem: &str, serving: &KeyedCert, admin_token: &str, audit_policy: &str) -> anyhow::Result<()> {
        use super::kubeconfig::write_secret;
        let (private, public) = super::certs::token_key()?;
        write_secret(&self.ca, ca_pem)?;
        write_secret(&self.serving_cert, &serving.cert_pem)?;
        write_secret(&self.serving_key, &serving.key_pem)?;
        write_secret(&self.token_private_key, &private)?;
        write_secret(&self.token_public_key, &public)?;
        write_secret(&self.tokens, &format!("{admin_token},token-admin,token-admin,\"system:masters\"\n"))?;
        write_secret(&self.audit_policy, audit_policy)
    }
}

/// Records the metadata of every request.
pub(super) const AUDIT_ALL: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// etcd on these ports. Its data need not survive the machine, so it need not wait for the disk.
pub(super) fn etcd(program: &Path, folder: &Path, client: SocketAddr, peer: SocketAddr) -> ProcessSpec {
    ProcessSpec::new("etcd", program, folder.join("etcd.log")).arg(format!("--data-dir={}", folder.join("etcd").display())).args([
        "--name=bos".to_owned(),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster=bos=http://{peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ])
}

/// The API server on this address, with its data in this etcd under this prefix.
pub(super) fn api_server(program: &Path, folder: &Path, files: &Files, address: SocketAddr, etcd: SocketAddr, prefix: &str) -> ProcessSpec {
    ProcessSpec::new("kube-apiserver", program, folder.join("kube-apiserver.log")).args([
        format!("--etcd-servers=http://{etcd}"),
        format!("--etcd-prefix={prefix}"),
        format!("--bind-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        // It would otherwise refuse to advertise a loopback address, and exit.
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--cert-dir={}", folder.display()),
        format!("--client-ca-file={}", files.ca.display()),
        format!("--tls-cert-file={}", files.serving_cert.display()),
        format!("--tls-private-key-file={}", files.serving_key.display()),
        format!("--service-account-key-file={}", files.token_public_key.display()),
        format!("--service-account-signing-key-file={}", files.token_private_key.display()),
        format!("--token-auth-file={}", files.tokens.display()),
    ])
}

/// The flags that make the API server write an audit log there.
pub(super) fn audit_flags(files: &Files, log: &Path) -> [String; 2] {
    [format!("--audit-policy-file={}", files.audit_policy.display()), format!("--audit-log-path={}", log.display())]
}

/// The controller manager: Jobs, garbage collection, namespaces, default service accounts.
pub(super) fn controller_manager(program: &Path, folder: &Path, files: &Files, kubeconfig: &Path, address: SocketAddr) -> ProcessSpec {
    ProcessSpec::new("kube-controller-manager", program, folder.join("kube-controller-manager.log")).args([
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--bind-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        "--leader-elect=false".to_owned(),
        // The default of 20 requests a second makes it slow to start.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
        format!("--root-ca-file={}", files.ca.display()),
        format!("--service-account-private-key-file={}", files.token_private_key.display()),
        format!("--tls-cert-file={}", files.serving_cert.display()),
        format!("--tls-private-key-file={}", files.serving_key.display()),
    ])
}

/// Asks until the answer is 200. An error shows the log of whichever of these servers has ended, or of the first one.
pub(super) async fn wait_ready(request: &reqwest::RequestBuilder, servers: &[&Process]) -> anyhow::Result<()> {
    wait_for(request, |_| true, servers).await
}

/// Asks until the answer is 200 with the right text.
pub(super) async fn wait_for(
    request: &reqwest::RequestBuilder,
    is_right: impl Fn(&str) -> bool,
    servers: &[&Process],
) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let answer = match ask(request).await {
            Ok((http::StatusCode::OK, text)) if is_right(&text) => return Ok(()),
            Ok((status, text)) => format!("{status}: {text:.400}"),
            Err(error) => format!("{error:#}"),
        };
        if let Some((server, status)) = servers.iter().find_map(|server| Some((server, server.exit_status()?))) {
            anyhow::bail!("{} ended with {status} while starting.{}", server.name(), end_of_log(server));
        }
        if Instant::now() >= deadline {
            let log = servers.first().map(|server| end_of_log(server)).unwrap_or_default();
            anyhow::bail!("not ready after {} s. The last answer: {answer}{log}", START_LIMIT.as_secs());
        }
        tokio::time::sleep(ASK).await;
    }
}

async fn ask(request: &reqwest::RequestBuilder) -> anyhow::Result<(http::StatusCode, String)> {
    let request = request.try_clone().ok_or_else(|| anyhow::anyhow!("a readiness request has no body"))?;
    let response = request.send().await?;
    Ok((response.status(), response.text().await?))
}

fn end_of_log(server: &Process) -> String {
    format!("\nThe end of {}:\n{}", server.log().display(), server.log_tail(TAIL))
}

/// Whether a start failed only because somebody else had taken a port in the meantime.
pub(super) fn port_was_taken(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("address already in use")
}
