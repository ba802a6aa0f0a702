//! What is served: `/validate` and `/mutate` for the API server.
//!
//! Whoever reaches the port may send anything, so what a request may cost is bounded before it is understood: bytes, time, and
//! requests at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::judge::{Judge, requested_by};
use crate::metrics::{Metrics, ReviewOutcome};
use crate::review::{Answer, Malformed, Request};

/// A review holds an object twice, and etcd takes none larger than 1.5 MiB.
const MAX_BODY: usize = 3_400_000;
/// Most reviews are smaller. Of larger ones some are read and judged at a time, of very large ones one: they take memory.
const USUAL_BODY: usize = 16 * 1024;
/// Larger ones, as of templates that list thousands of nodes, are very large beyond this.
const LARGE_BODY: usize = 256 * 1024;
/// Larger reviews that are read and judged at a time.
const LARGE_AT_A_TIME: usize = 4;
/// How long a body may take to arrive. The API server gives up after three seconds.
const BODY_TIME: Duration = Duration::from_secs(4);
/// Reviews that are judged at a time; others wait.
const AT_A_TIME: usize = 32;

/// What the handlers share.
#[derive(Clone)]
struct Endpoint {
    judge: Arc<Judge>,
    metrics: Arc<Metrics>,
    large: Arc<Semaphore>,
    very_large: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// The routes for the API server.
pub(crate) fn router(judge: Arc<Judge>, metrics: Arc<Metrics>) -> Router {
    let endpoint = Endpoint {
        judge,
        metrics,
        large: Arc::new(Semaphore::new(LARGE_AT_A_TIME)),
        very_large: Arc::new(Semaphore::new(1)),
        turns: Arc::new(Semaphore::new(AT_A_TIME)),
    };
    Router::new()
        .route("/validate", post(validate).fallback(wrong_method))
        .route("/mutate", post(mutate).fallback(wrong_method))
        .fallback(wrong_path)
        .with_state(endpoint)
}

/// Why a request is not answered with a review.
#[derive(Debug)]
enum Refusal {
    TooLarge,
    TooSlow,
    Broken,
    Starting(&'static str),
    Malformed(Malformed),
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, format!("a review has at most {MAX_BODY} bytes")),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {} s", BODY_TIME.as_secs())),
            Self::Broken => (StatusCode::BAD_REQUEST, "the body broke off".to_owned()),
            Self::Starting(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("admission has just started and waits for: {what}")),
            Self::Malformed(error) => (StatusCode::BAD_REQUEST, error.to_string()),
        };
        tracing::debug!(%status, text, "refused");
        let mut response = (status, format!("{text}\n")).into_response();
        if status != StatusCode::BAD_REQUEST && status != StatusCode::SERVICE_UNAVAILABLE {
            // What is left of the body is not waited for.
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
    }
}

async fn validate(State(endpoint): State<Endpoint>, request: HttpRequest) -> Result<Response, Refusal> {
    let answer = judged(&endpoint, request).await;
    if let Err(refusal) = &answer {
        let outcome = if matches!(refusal, Refusal::Starting(_)) { ReviewOutcome::Starting } else { ReviewOutcome::Refused };
        endpoint.metrics.review("", outcome);
    }
    answer
}

async fn judged(endpoint: &Endpoint, request: HttpRequest) -> Result<Response, Refusal> {
    let body = endpoint.body(request).await?;
    let arrived = Instant::now();
    let Ok(_turn) = endpoint.turns.acquire().await else { return Err(Refusal::Starting("its end")) };
    if let Some(what) = endpoint.judge.waits_for() {
        return Err(Refusal::Starting(what));
    }
    let review = Request::parse(&body.bytes)?;
    let verdict = endpoint.judge.judge(&review).await?;
    let answer = Answer::of(&review.uid, &verdict);
    let outcome = match (answer.allowed(), verdict.warnings().is_empty()) {
        (false, _) => ReviewOutcome::Denied,
        (true, false) => ReviewOutcome::Warned,
        (true, true) => ReviewOutcome::Allowed,
    };
    endpoint.metrics.review(review.kind().unwrap_or_default(), outcome);
    endpoint.metrics.judged(arrived.elapsed());
    tracing::info!(
        operation = ?review.operation,
        kind = review.kind().unwrap_or_default(),
        namespace = review.namespace,
        name = review.name,
        user = review.user_info.username,
        allowed = answer.allowed(),
        refusal = verdict.refusal().unwrap_or_default(),
        "review"
    );
    Ok(reviewed(&answer))
}

async fn mutate(State(endpoint): State<Endpoint>, request: HttpRequest) -> Result<Response, Refusal> {
    let body = endpoint.body(request).await?;
    let Ok(_turn) = endpoint.turns.acquire().await else { return Err(Refusal::Starting("its end")) };
    let review = Request::parse(&body.bytes)?;
    let operations = requested_by(&review)?;
    Ok(reviewed(&Answer::with_patch(&review.uid, &operations)))
}

fn reviewed(answer: &Answer) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], answer.document().to_string()).into_response()
}

async fn wrong_path() -> Response {
    (StatusCode::NOT_FOUND, "reviews go to POST /validate or POST /mutate\n").into_response()
}

async fn wrong_method() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")], "only POST\n").into_response()
}

/// A body; a large one keeps others from being read.
struct Held {
    bytes: Bytes,
    _turns: Vec<OwnedSemaphorePermit>,
}

impl Endpoint {
    async fn body(&self, request: HttpRequest) -> Result<Held, Refusal> {
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > MAX_BODY as u64) {
            return Err(Refusal::TooLarge);
        }
        tokio::time::timeout(BODY_TIME, self.read(request.into_body())).await.map_err(|_| Refusal::TooSlow)?
    }

    async fn read(&self, mut body: Body) -> Result<Held, Refusal> {
        let mut bytes = BytesMut::new();
        let mut turns: Vec<OwnedSemaphorePermit> = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::Broken)?;
            let Ok(data) = frame.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > MAX_BODY {
                return Err(Refusal::TooLarge);
            }
            // By what has arrived, not by what is announced: those that only announce much hold nobody up.
            for (bound, semaphore) in [(USUAL_BODY, &self.large), (LARGE_BODY, &self.very_large)].into_iter().skip(turns.len()) {
                if length > bound {
                    turns.push(Arc::clone(semaphore).acquire_owned().await.map_err(|_| Refusal::Broken)?);
                }
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Held { bytes: bytes.freeze(), _turns: turns })
    }
}
