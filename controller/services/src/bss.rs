//! BSS, the Boot Script Service: which kernel, initrd and parameters a node gets when it boots.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use bos_core::xname::Xname;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::answer::{Malformed, json};
use crate::error::{ErrorKind, ServiceError};
use crate::http::{LARGE, Transport, header};

/// What a set of nodes shall boot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BootParams {
    /// URL of the kernel, usually `s3://…`.
    pub kernel: String,
    /// URL of the initial RAM disk.
    pub initrd: String,
    /// The kernel command line.
    pub params: String,
}

/// The referral token: BSS makes one for each put, gives it to the nodes on their kernel command line, and the nodes
/// report it back. It is how a node proves what it booted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// A token as it was answered, reported or kept in a journal.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Boot parameters of nodes.
#[async_trait]
pub trait BootParameters: Send + Sync {
    /// Replaces the boot parameters of these nodes and returns the token they share. An empty list is refused.
    ///
    /// BSS writes node by node, so after an error some nodes may have the new parameters.
    ///
    /// # Errors
    /// When BSS cannot be asked, refuses, or answers without a token.
    async fn put(&self, params: &BootParams, nodes: &[Xname]) -> Result<Token, ServiceError>;

    /// Asks whether BSS is there, for nodes that are to be switched off first: a refusal of this call alone is a yes.
    ///
    /// # Errors
    /// When BSS cannot be asked.
    async fn is_there(&self) -> Result<(), ServiceError>;

    /// When each node last fetched its boot script, in seconds since 1970; nodes that never did are left out.
    ///
    /// # Errors
    /// When BSS cannot be asked.
    async fn scripts_fetched(&self) -> Result<HashMap<Xname, i64>, ServiceError>;
}

/// The header with the token; case does not matter in HTTP.
const TOKEN_HEADER: &str = "bss-referral-token";

/// [`BootParameters`] by BSS v1.
pub struct BssClient {
    http: Transport,
}

impl BssClient {
    pub(crate) const fn new(http: Transport) -> Self {
        Self { http }
    }
}

#[derive(Serialize)]
struct Order<'a> {
    hosts: &'a [Xname],
    params: &'a str,
    kernel: &'a str,
    initrd: &'a str,
}

#[async_trait]
impl BootParameters for BssClient {
    async fn put(&self, params: &BootParams, nodes: &[Xname]) -> Result<Token, ServiceError> {
        const CALL: &str = "put bootparameters";
        let service = self.http.service();
        if nodes.is_empty() {
            return Err(ServiceError::refused(service, CALL, "without hosts BSS would change the image record instead"));
        }
        if params.kernel.is_empty() || params.initrd.is_empty() {
            return Err(ServiceError::refused(service, CALL, "kernel and initrd must both be given"));
        }
        let body = Order { hosts: nodes, params: &params.params, kernel: &params.kernel, initrd: &params.initrd };
        self.http
            .write(CALL, Method::PUT, &["bootparameters"])
            .json(&body)
            .answer(|answer| {
                answer.good()?;
                // Without the token no node could ever prove that it booted this.
                let token = header(&answer.headers, TOKEN_HEADER);
                token.map(Token::new).ok_or_else(|| ServiceError::malformed(service, CALL, "an answer without BSS-Referral-Token"))
            })
            .await
    }

    async fn is_there(&self) -> Result<(), ServiceError> {
        let asked =
            self.http.read("get service/status", Method::GET, &["service", "status"]).answer(|answer| answer.good().map(drop)).await;
        match asked {
            // A gateway may not let this call through, and another BSS may not have it.
            Err(error) if matches!(error.kind, ErrorKind::Rejected(_) | ErrorKind::Denied(403) | ErrorKind::Malformed) => Ok(()),
            other => other,
        }
    }

    async fn scripts_fetched(&self) -> Result<HashMap<Xname, i64>, ServiceError> {
        // Of all nodes at once: BSS takes one name or none, and answers 500 to an endpoint without a name.
        self.http.read("get endpoint-history", Method::GET, &["endpoint-history"]).largest(LARGE).parsed(parse_history).await
    }
}

#[derive(Deserialize)]
struct Fetch<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    last_epoch: i64,
}

fn parse_history(body: &[u8]) -> Result<HashMap<Xname, i64>, Malformed> {
    let fetches: Option<Vec<Fetch<'_>>> = json(body)?;
    let scripts = fetches.unwrap_or_default().into_iter().filter(|fetch| fetch.endpoint == "bootscript" && fetch.last_epoch > 0);
    Ok(scripts.filter_map(|fetch| Some((Xname::parse(&fetch.name).ok()?, fetch.last_epoch))).collect())
}
