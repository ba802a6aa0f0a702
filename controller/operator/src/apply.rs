//! The HTTP call by which a workload manager applies staged state, as it calls BOS: `POST .../v2/applystaged {"xnames": [...]}`.
//!
//! The caller's bearer token is given to the API server (TokenReview), and what it may do is asked there too
//! (SubjectAccessReview): the verb `apply-staged` on bootcomponents. The answer comes when what was begun is durable; a caller
//! whose answer was lost may repeat the call, and no node is begun twice while it is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bos_core::xname::Xname;
use bos_crds::BootComponent;
use bos_engine::applications::{Application, Applications};
use bos_engine::telemetry::Telemetry;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::reports::{RETRY_AFTER_SECONDS, json_response, problem};

/// Names in one call, as in BOS.
const MAX_NODES: usize = 32_768;
/// As many of the longest names, and room for blanks.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// Calls that wait for the engine.
pub(crate) const QUEUE: usize = 64;
/// Calls that are answered at a time.
const IN_FLIGHT: usize = 16;
/// How long a caller waits, for the API server and for the engine each.
const PATIENCE: Duration = Duration::from_secs(10);
/// For whom a caller's token must be made: one that leaks on the way is of no use at the API server.
const AUDIENCE: &str = "bos-operator";
/// The right that a caller needs on bootcomponents.
const VERB: &str = "apply-staged";

#[derive(Clone)]
struct Endpoint {
    queue: mpsc::Sender<Application>,
    telemetry: Arc<Telemetry>,
    client: Client,
    in_flight: Arc<Semaphore>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    xnames: Vec<String>,
}

/// Why nothing was done.
#[derive(Debug)]
enum Refusal {
    Malformed(StatusCode, String),
    NotAuthenticated(String),
    NotAllowed(String),
    TryLater(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Malformed(status, detail) => problem(status, "This is not a list of nodes", &detail),
            Self::NotAuthenticated(detail) => {
                let mut response = problem(StatusCode::UNAUTHORIZED, "Who are you?", &detail);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Self::NotAllowed(detail) => problem(StatusCode::FORBIDDEN, "Not allowed", &detail),
            Self::TryLater(detail) => {
                let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "Try again later", &detail);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
                response
            }
        }
    }
}

/// The routes of this call; the rest of the listener is for reports.
pub(crate) fn router(queue: mpsc::Sender<Application>, telemetry: Arc<Telemetry>, client: Client) -> Router {
    let endpoint = Endpoint { queue, telemetry, client, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) };
    Router::new().route("/apis/bos/v2/applystaged", post(apply)).route("/v2/applystaged", post(apply)).with_state(endpoint)
}

/// Nothing of a caller is read before it is known who it is and that it may call.
async fn apply(State(endpoint): State<Endpoint>, request: Request) -> Result<Response, Refusal> {
    let Ok(_turn) = endpoint.in_flight.try_acquire() else {
        return Err(Refusal::TryLater("too many calls are under way".to_owned()));
    };
    if !endpoint.telemetry.leading.load(Ordering::Relaxed) {
        return Err(Refusal::TryLater("this operator is starting, or another one leads".to_owned()));
    }
    let (parts, body) = request.into_parts();
    let user = endpoint.authenticated(&parts.headers).await?;
    endpoint.allowed(user).await?;
    let body = match tokio::time::timeout(PATIENCE, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return Err(Refusal::Malformed(StatusCode::PAYLOAD_TOO_LARGE, format!("a call has at most {MAX_BODY} bytes")));
        }
        Err(_) => return Err(Refusal::TryLater("the call did not arrive in time".to_owned())),
    };
    let (xnames, nonsense) = read(&body)?;
    let (answer, answered) = oneshot::channel();
    let application = Application { xnames, answer };
    endpoint.queue.try_send(application).map_err(|_| Refusal::TryLater("too many calls wait".to_owned()))?;
    match tokio::time::timeout(PATIENCE, answered).await {
        Ok(Ok(applied)) => Ok(shown(&applied, nonsense)),
        Ok(Err(_)) | Err(_) => Err(Refusal::TryLater("it is not durable yet; call again, no node is begun twice".to_owned())),
    }
}

/// The nodes that are meant, and what can be no name of a node.
fn read(body: &[u8]) -> Result<(Vec<Xname>, Vec<String>), Refusal> {
    let malformed = |detail: String| Refusal::Malformed(StatusCode::BAD_REQUEST, detail);
    let body: Body = serde_json::from_slice(body).map_err(|error| malformed(format!("expected {{\"xnames\": [...]}}: {error}")))?;
    if body.xnames.len() > MAX_NODES {
        return Err(malformed(format!("{} xnames, at most {MAX_NODES} are taken in one call", body.xnames.len())));
    }
    let (mut names, mut nonsense) = (BTreeSet::new(), Vec::new());
    for text in body.xnames {
        match Xname::parse(&text) {
            Ok(xname) => drop(names.insert(xname)),
            Err(_) => nonsense.push(text),
        }
    }
    Ok((names.into_iter().collect(), nonsense))
}

fn shown(applied: &Applications, nonsense: Vec<String>) -> Response {
    let text = |xname: &Xname| xname.as_str().to_owned();
    let ignored: Vec<String> = applied.ignored.iter().map(text).chain(nonsense).collect();
    let errors: BTreeMap<&str, &str> = applied.failed.iter().map(|(xname, why)| (xname.as_str(), why.as_str())).collect();
    let body = json!({
        "succeeded": applied.succeeded.iter().map(text).collect::<Vec<_>>(),
        "failed": applied.failed.iter().map(|(xname, _)| text(xname)).collect::<Vec<_>>(),
        "ignored": ignored,
        "errors": errors,
    });
    json_response(StatusCode::OK, "application/json", &body)
}

impl Endpoint {
    /// Who the caller is, by the word of the API server.
    async fn authenticated(&self, headers: &HeaderMap) -> Result<UserInfo, Refusal> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim).filter(|token| !token.is_empty());
        let Some(token) = token else {
            return Err(Refusal::NotAuthenticated(format!(
                "send a service account's token for audience {AUDIENCE} as Authorization: Bearer"
            )));
        };
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = self.review(Api::<TokenReview>::all(self.client.clone()), &review).await?.status.unwrap_or_default();
        match status.user {
            Some(user) if status.authenticated == Some(true) && status.audiences.iter().flatten().any(|known| known == AUDIENCE) => {
                Ok(user)
            }
            _ => Err(Refusal::NotAuthenticated(format!("the API server does not accept this token for audience {AUDIENCE}"))),
        }
    }

    /// Whether the caller may apply staged state.
    async fn allowed(&self, user: UserInfo) -> Result<(), Refusal> {
        let resource = ResourceAttributes {
            group: Some(BootComponent::group(&()).into_owned()),
            resource: Some(BootComponent::plural(&()).into_owned()),
            verb: Some(VERB.to_owned()),
            ..ResourceAttributes::default()
        };
        let name = user.username.clone().unwrap_or_default();
        let spec = SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            resource_attributes: Some(resource),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let status = self.review(Api::<SubjectAccessReview>::all(self.client.clone()), &review).await?.status.unwrap_or_default();
        if status.allowed {
            return Ok(());
        }
        Err(Refusal::NotAllowed(format!("{name} needs the verb {VERB} on bootcomponents, as ClusterRole bos-workload-manager gives it")))
    }

    async fn review<K>(&self, api: Api<K>, review: &K) -> Result<K, Refusal>
    where
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        match tokio::time::timeout(PATIENCE, api.create(&PostParams::default(), review)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the API server does not say who may apply staged state");
                Err(Refusal::TryLater("the API server does not say who may do this".to_owned()))
            }
            Err(_) => Err(Refusal::TryLater("the API server does not say in time who may do this".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(body: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let read = read(body.as_bytes());
        read.map(|(names, rest)| (names.iter().map(|name| name.as_str().to_owned()).collect(), rest))
            .map_err(|refusal| format!("{refusal:?}"))
    }

    #[test]
    fn a_node_is_meant_once_and_what_is_no_name_is_given_back() {
        let (names, rest) = names(r#"{"xnames": ["x1000c0s0b0n1", "X1000C0S0B0N1", "nid1", "x1000c0s0b0n0"]}"#).unwrap();
        assert_eq!(names, ["x1000c0s0b0n0", "x1000c0s0b0n1"]);
        assert_eq!(rest, ["nid1"]);
    }

    #[test]
    fn what_is_no_list_of_names_is_refused() {
        for body in ["", "[]", r#"{"nodes": []}"#, r#"{"xnames": "x1000c0s0b0n0"}"#, r#"{"xnames": [], "force": true}"#] {
            assert!(names(body).unwrap_err().contains("xnames"), "{body}");
        }
        let many = format!(r#"{{"xnames": [{}]}}"#, vec!["\"x0c0s0b0n0\""; MAX_NODES + 1].join(","));
        assert!(names(&many).unwrap_err().contains("at most 32768"));
    }
}
