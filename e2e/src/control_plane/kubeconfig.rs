//! Kubeconfig files for the harness's own clients, for people and for the operator under test.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::certs::KeyedCert;

/// How a kubeconfig's user proves who it is.
pub(super) enum Credential {
    /// A client certificate. Only towards the API server itself: a proxy that ends TLS cannot pass it on.
    Certificate(KeyedCert),
    /// A bearer token, which a proxy passes on.
    Token(String),
}

/// Writes secrets and kubeconfigs into one folder.
pub(super) struct Kubeconfigs {
    folder: PathBuf,
    ca: PathBuf,
}

impl Kubeconfigs {
    /// Files go into this folder; the CA certificate lies at this path.
    pub(super) fn new(folder: PathBuf, ca: PathBuf) -> Self {
        Self { folder, ca }
    }

    /// Writes a kubeconfig for the server at this address and returns its path. The same name and address overwrite.
    pub(super) fn write(&self, name: &str, server: std::net::SocketAddr, credential: &Credential) -> anyhow::Result<PathBuf> {
        let stem: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let file = |suffix: &str| self.folder.join(format!("{stem}-{}{suffix}", server.port()));
        let user = match credential {
            Credential::Certificate(pair) => {
                write_secret(&file(".crt"), &pair.cert_pem)?;
                write_secret(&file(".key"), &pair.key_pem)?;
                format!("client-certificate: {:?}\n    client-key: {:?}", file(".crt"), file(".key"))
            }
            Credential::Token(token) => format!("token: {token:?}"),
        };
        let text = format!(
            "apiVersion: v1
kind: Config
clusters:
- name: bos
  cluster:
    server: https://{server}
    certificate-authority: {:?}
users:
- name: {name:?}
  user:
    {user}
contexts:
- name: bos
  context:
    cluster: bos
    user: {name:?}
current-context: bos
",
            self.ca
        );
        let path = file(".kubeconfig");
        write_secret(&path, &text)?;
        Ok(path)
    }
}

/// Writes a file that only we can read.
pub(super) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = std::fs::File::options();
    let mut file =
        options.create(true).write(true).truncate(true).mode(0o600).open(path).with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// A client for a kubeconfig that retries nothing: a test wants the first answer.
pub(super) async fn client(path: &Path) -> anyhow::Result<kube::Client> {
    super::install_crypto_provider();
    let kubeconfig = kube::config::Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}
