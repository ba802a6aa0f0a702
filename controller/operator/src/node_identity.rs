//! Who reports: a node shows a token, and may report for itself and for no other.
//!
//! This stands before the endpoint of reports and changes nothing there. What cannot be found out is neither a yes nor a no: the
//! node is told to come again.

mod jwks;
mod review;
mod ring_keys;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bos_core::xname::Xname;
use bos_engine::telemetry::Telemetry;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::metrics::{Metrics, ReportOutcome};
use crate::reports::{problem, try_later};

/// The longest token that is looked at.
const MAX_TOKEN: usize = 16 * 1024;
/// How often at most the log tells of refusals of one kind.
const SELDOM: Duration = Duration::from_secs(10);
/// In a pattern, where the name of the node is.
const NODE: &str = "{xname}";
/// The subjects that SPIRE of a CSM system gives the reporters of nodes, where it validates xnames.
pub(crate) const CSM_SUBJECTS: [&str; 2] =
    ["spiffe://shasta/compute/{xname}/workload/bos-reporter", "spiffe://shasta/ncn/{xname}/workload/bos-reporter"];

/// How it is found out which node reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReportAuthentication {
    /// Not at all: whoever reaches the endpoint reports for any node.
    None,
    /// The API server is asked whose token it is (TokenReview).
    TokenReview,
    /// A signed token (JWT), by the keys that its issuer publishes.
    Jwks,
}

/// The settings of this part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    #[serde(rename = "reportAuthentication")]
    pub(crate) authentication: Option<ReportAuthentication>,
    #[serde(rename = "reportAudience")]
    pub(crate) audience: String,
    #[serde(rename = "reportSubjects")]
    pub(crate) subjects: Vec<String>,
    #[serde(rename = "reportIssuers")]
    pub(crate) issuers: Vec<String>,
    #[serde(rename = "reportJwksUrl")]
    pub(crate) jwks_url: Option<String>,
    #[serde(rename = "reportJwksCaFile")]
    pub(crate) jwks_ca_file: Option<PathBuf>,
}

impl Settings {
    /// What can be checked without asking anybody. `listens`: reports are heard at all.
    pub(crate) fn check(&self, listens: bool) -> anyhow::Result<()> {
        let Some(authentication) = self.authentication else {
            ensure!(
                !listens,
                "reportAuthentication: must be chosen where reportListen is set: jwks (nodes show tokens of SPIRE or another issuer), \
                 token-review (tokens that the API server accepts), or none (whoever reaches the endpoint can report for any node)"
            );
            return Ok(());
        };
        if authentication == ReportAuthentication::None {
            return Ok(());
        }
        ensure!(!self.audience.is_empty(), "reportAudience: must not be empty");
        ensure!(!self.subjects.is_empty(), "reportSubjects: missing; what a node is called in its token, with {NODE} for its name");
        self.patterns()?;
        if authentication == ReportAuthentication::Jwks {
            ensure!(!self.issuers.is_empty(), "reportIssuers: missing; whose tokens are accepted (iss)");
            self.jwks_url.as_ref().context("reportJwksUrl: missing; where the issuer publishes its keys")?;
        }
        Ok(())
    }

    fn patterns(&self) -> anyhow::Result<Vec<Pattern>> {
        self.subjects.iter().map(|text| Pattern::parse(text)).collect()
    }
}

/// What the subject of a node's token looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    before: String,
    after: String,
}

impl Pattern {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split(NODE).collect();
        match parts.as_slice() {
            [before, after] => Ok(Self { before: (*before).to_owned(), after: (*after).to_owned() }),
            _ => anyhow::bail!("reportSubjects: {text:?} must have {NODE} in it once; a token that names no node could report for any"),
        }
    }

    fn node(&self, subject: &str) -> Option<Xname> {
        Xname::parse(subject.strip_prefix(&self.before)?.strip_suffix(&self.after)?).ok()
    }
}

/// Why a report is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// Nobody knows who it is.
    Unauthenticated(String),
    /// It is somebody, but not this node.
    Forbidden(String),
    /// It cannot be found out now.
    Unknown(String),
}

impl Refusal {
    const fn outcome(&self) -> ReportOutcome {
        match self {
            Self::Unauthenticated(_) => ReportOutcome::Unauthenticated,
            Self::Forbidden(_) => ReportOutcome::Forbidden,
            Self::Unknown(_) => ReportOutcome::TryLater,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unauthenticated(why) | Self::Forbidden(why) | Self::Unknown(why)) = self;
        f.write_str(why)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Unauthenticated(why) => {
                let mut response = problem(StatusCode::UNAUTHORIZED, "Which node are you?", &why);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Self::Forbidden(why) => problem(StatusCode::FORBIDDEN, "A node reports for itself only", &why),
            Self::Unknown(why) => try_later(&why),
        }
    }
}

/// Who finds out whose token it is.
enum Verifier {
    Review(Box<review::Reviews>),
    Jwks(jwks::Jwks),
}

impl Verifier {
    /// The subject of a token.
    async fn subject(&self, token: &str) -> Result<String, Refusal> {
        match self {
            Self::Review(reviews) => reviews.subject(token).await,
            Self::Jwks(jwks) => jwks.subject(token).await,
        }
    }
}

struct Gate {
    verifier: Verifier,
    patterns: Vec<Pattern>,
    telemetry: Arc<Telemetry>,
    metrics: Arc<Metrics>,
    /// A node was known by its token since the start, so the settings here are not wrong for all of them.
    proven: AtomicBool,
    told: Mutex<[Option<(Instant, u64)>; 3]>,
}

/// Lets through only reports of nodes for themselves. With `none` everything stays open, and the log says so.
///
/// # Errors
/// When a setting cannot be used.
pub(crate) fn guard(
    router: Router,
    settings: &Settings,
    client: kube::Client,
    telemetry: &Arc<Telemetry>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Router> {
    let verifier = match settings.authentication {
        None => return Ok(router),
        Some(ReportAuthentication::None) => {
            tracing::warn!("THE REPORT ENDPOINT IS OPEN (reportAuthentication: none): whoever reaches it can report for any node");
            return Ok(router);
        }
        Some(ReportAuthentication::TokenReview) => Verifier::Review(Box::new(review::Reviews::new(client, settings.audience.clone()))),
        Some(ReportAuthentication::Jwks) => Verifier::Jwks(jwks::Jwks::new(settings)?),
    };
    tracing::info!(subjects = ?settings.subjects, audience = settings.audience, "nodes report with tokens");
    Ok(behind(router, verifier, settings.patterns()?, telemetry, metrics))
}

fn behind(router: Router, verifier: Verifier, patterns: Vec<Pattern>, telemetry: &Arc<Telemetry>, metrics: &Arc<Metrics>) -> Router {
    let gate = Gate {
        verifier,
        patterns,
        telemetry: Arc::clone(telemetry),
        metrics: Arc::clone(metrics),
        proven: AtomicBool::new(false),
        told: Mutex::default(),
    };
    router.route_layer(from_fn_with_state(Arc::new(gate), check))
}

async fn check(State(gate): State<Arc<Gate>>, Path(path): Path<String>, request: Request, next: Next) -> Response {
    // What names no node is refused by the endpoint itself, in words of its own.
    let Ok(xname) = Xname::parse(&path) else { return next.run(request).await };
    let begun = Instant::now();
    match gate.identified(&xname, request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            gate.metrics.report(refusal.outcome(), begun.elapsed());
            gate.tell(&xname, &refusal);
            refusal.into_response()
        }
    }
}

impl Gate {
    async fn identified(&self, xname: &Xname, headers: &HeaderMap) -> Result<(), Refusal> {
        let subject = self.verifier.subject(bearer(headers)?).await?;
        let Some(node) = self.patterns.iter().find_map(|pattern| pattern.node(&subject)) else {
            return Err(Refusal::Forbidden(format!("{} is not what nodes are called (reportSubjects)", shown(&subject))));
        };
        self.proven.store(true, Ordering::Relaxed);
        if node == *xname { Ok(()) } else { Err(Refusal::Forbidden(format!("this is the token of {node}; it cannot report for {xname}"))) }
    }

    fn tell(&self, xname: &Xname, refusal: &Refusal) {
        // While reports cannot be judged, silence proves nothing (rule 8). Neither does it while no node was ever known by its
        // token: then it may be a setting that is wrong, and every node that is up seems silent.
        if matches!(refusal, Refusal::Unknown(_)) || !self.proven.load(Ordering::Relaxed) {
            self.telemetry.reports_put_off.fetch_add(1, Ordering::Relaxed);
        }
        let kind = match refusal {
            Refusal::Unauthenticated(_) => 0,
            Refusal::Forbidden(_) => 1,
            Refusal::Unknown(_) => 2,
        };
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = told.get_mut(kind) else { return };
        match last {
            Some((at, more)) if now.duration_since(*at) < SELDOM => *more += 1,
            _ => {
                let more = last.map_or(0, |(_, more)| more);
                *last = Some((now, 0));
                tracing::warn!(%xname, outcome = ?refusal.outcome(), why = %refusal, others_since_last_told = more, "a report is not taken");
            }
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, token) = header.split_once(' ').unwrap_or_default();
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Refusal::Unauthenticated("send the token of the node as Authorization: Bearer".to_owned()));
    }
    if token.len() > MAX_TOKEN {
        return Err(Refusal::Unauthenticated(format!("a token has at most {MAX_TOKEN} characters")));
    }
    Ok(token)
}

/// Something out of a token, for people.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests;
