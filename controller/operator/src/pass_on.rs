//! What reaches an operator that stands by is passed on to the one that leads: behind one Service a node cannot choose.
//!
//! The answer is the leader's, so 200 still means durable. Where the leader cannot be reached the answer is 503, as it is while
//! nobody leads, and readiness says so: the Service then sends nodes elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use bos_engine::lease::Leader;
use bos_engine::telemetry::Telemetry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::listener::CONNECTIONS;
use crate::metrics::{Metrics, ReportOutcome};
use crate::reports::try_later;

/// Marks what an operator has passed on. It is never passed on again: of two that each take the other for the leader, one says 503.
const PASSED_ON: HeaderName = HeaderName::from_static("bos-passed-on");
/// What the leader needs to see of a request.
const THERE: [HeaderName; 3] = [header::AUTHORIZATION, header::CONTENT_TYPE, header::CONTENT_LENGTH];
/// What the caller needs to see of its answer.
const BACK: [HeaderName; 3] = [header::CONTENT_TYPE, header::RETRY_AFTER, header::ALLOW];
/// Requests that are passed on at a time: every connection may bring one.
const AT_A_TIME: usize = CONNECTIONS;
/// The leader answers within forty seconds, one way or the other.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long a connection may take: pods are near one another.
const CONNECT: Duration = Duration::from_secs(2);
/// How often an operator that stands by looks whether the leader can be reached.
const LOOK: Duration = Duration::from_secs(5);

/// The way to the leader.
#[derive(Clone)]
pub(crate) struct PassOn {
    telemetry: Arc<Telemetry>,
    metrics: Arc<Metrics>,
    http: reqwest::Client,
    places: Arc<Semaphore>,
}

impl PassOn {
    /// # Errors
    /// When the HTTP client cannot be made.
    pub(crate) fn new(telemetry: Arc<Telemetry>, metrics: Arc<Metrics>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            // A report that may have arrived is the node's to repeat.
            .retry(reqwest::retry::never())
            // The leader is called by plain HTTP; an image without authorities must still start.
            .tls_certs_only([])
            .build()?;
        telemetry.set_cannot_pass_on("who leads is not known yet");
        Ok(Self { telemetry, metrics, http, places: Arc::new(Semaphore::new(AT_A_TIME)) })
    }

    /// Looks whether the leader can be reached, for as long as this process stands by, and says so to readiness.
    pub(crate) async fn watch_leader(self, cancel: CancellationToken) {
        let mut leader = self.telemetry.leader.subscribe();
        loop {
            let now = leader.borrow_and_update().clone();
            if let Some(now) = &now {
                self.telemetry.set_cannot_pass_on(self.look(now).await.err().unwrap_or_default());
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = leader.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK), if now.is_some() => {}
            }
        }
    }

    /// Any answer will do: the leader has no path for this.
    async fn look(&self, leader: &Leader) -> Result<(), String> {
        let Some(url) = &leader.reports else {
            return Err(format!("{} leads and does not say where it takes reports (is its podIp set?)", leader.identity));
        };
        let asked = self.http.get(url).header(PASSED_ON, "1").timeout(LOOK).send().await;
        asked.map(drop).map_err(|error| format!("{} leads and cannot be reached at {url}: {error:#}", leader.identity))
    }

    async fn pass_on(&self, url: &str, request: Request) -> Result<Response, &'static str> {
        let Ok(_place) = self.places.try_acquire() else { return Err("too many reports are under way") };
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
        let mut there = self.http.request(head.method, format!("{url}{path}")).header(PASSED_ON, "1");
        for name in THERE {
            if let Some(value) = head.headers.get(&name) {
                there = there.header(name, value);
            }
        }
        let sent = there.body(reqwest::Body::wrap_stream(body.into_data_stream())).send().await;
        let answer = sent.map_err(|error| {
            tracing::debug!(url, %error, "a request could not be passed on to the leader");
            "this operator stands by, and the one that leads does not answer"
        })?;
        let mut back = Response::builder().status(answer.status());
        for name in BACK {
            if let Some(value) = answer.headers().get(&name) {
                back = back.header(name, value);
            }
        }
        back.body(Body::from_stream(answer.bytes_stream())).map_err(|_| "the answer of the operator that leads cannot be read")
    }
}

/// Before the routes: answers itself while this process leads, or while nobody is known to.
pub(crate) async fn or_answer(State(to): State<PassOn>, request: Request, next: Next) -> Response {
    let leading = to.telemetry.leading.load(Ordering::Relaxed);
    let leader = to.telemetry.leader.borrow().as_ref().and_then(|leader| leader.reports.clone());
    let Some(url) = leader.filter(|_| !leading && !request.headers().contains_key(PASSED_ON)) else {
        return next.run(request).await;
    };
    let (is_report, begun) = (request.method() == Method::PATCH, Instant::now());
    let (outcome, response) = match to.pass_on(&url, request).await {
        Ok(response) => (ReportOutcome::PassedOn, response),
        Err(why) => (ReportOutcome::TryLater, try_later(why)),
    };
    if is_report {
        to.metrics.report(outcome, begun.elapsed());
    }
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::body::to_bytes;
    use axum::http::{HeaderValue, StatusCode};
    use axum::middleware::from_fn_with_state;
    use axum::routing::any;
    use tower::ServiceExt;

    use super::*;

    /// A leader that answers with what it was asked.
    async fn leader() -> SocketAddr {
        let echo = async |request: Request| {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap();
            let seen = format!("{} {} {:?} {}", head.method, head.uri, head.headers.get("authorization"), String::from_utf8_lossy(&body));
            (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "7"), ("x-other", "1")], seen)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(echo))).await });
        address
    }

    struct Fixture {
        router: Router,
        to: PassOn,
    }

    fn standing_by(reports: Option<String>) -> Fixture {
        drop(rustls::crypto::ring::default_provider().install_default());
        let telemetry = Telemetry::shared();
        telemetry.leader.send_replace(Some(Leader { identity: "pod-a".to_owned(), reports }));
        let to = PassOn::new(Arc::clone(&telemetry), Arc::new(Metrics::new(telemetry))).unwrap();
        let own = Router::new().fallback(any(async || "answered here"));
        Fixture { router: own.layer(from_fn_with_state(to.clone(), or_answer)), to }
    }

    async fn report(router: &Router, mark: bool) -> (StatusCode, String, Option<HeaderValue>) {
        let mut request = Request::builder().method("PATCH").uri("/v2/components/x1?a=b").header("authorization", "Bearer t");
        if mark {
            request = request.header(PASSED_ON, "1");
        }
        let answer = router.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        assert_eq!(answer.headers().get("x-other"), None);
        let (status, retry) = (answer.status(), answer.headers().get(header::RETRY_AFTER).cloned());
        (status, String::from_utf8(to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap(), retry)
    }

    #[tokio::test]
    async fn who_stands_by_passes_on_and_gives_back_the_leaders_answer() {
        let Fixture { router, to } = standing_by(Some(format!("http://{}", leader().await)));
        let (status, said, retry) = report(&router, false).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(said, "PATCH /v2/components/x1?a=b Some(Sensitive) {}".replace("Some(Sensitive)", "Some(\"Bearer t\")"));
        assert_eq!(retry.unwrap(), "7");
        assert!(to.metrics.text().unwrap().contains(r#"bos_reports_total{outcome="passed_on"} 1"#));
    }

    #[tokio::test]
    async fn what_was_passed_on_is_answered_and_so_is_all_while_leading() {
        let Fixture { router, to } = standing_by(Some(format!("http://{}", leader().await)));
        assert_eq!(report(&router, true).await.1, "answered here");
        to.telemetry.leading.store(true, Ordering::Relaxed);
        assert_eq!(report(&router, false).await.1, "answered here");
    }

    #[tokio::test]
    async fn a_leader_that_is_away_is_503_and_said() {
        // A port that nobody listens on any more.
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let Fixture { router, to } = standing_by(Some(format!("http://{gone}")));
        let (status, said, retry) = report(&router, false).await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && said.contains("does not answer"), "{status} {said}");
        assert_eq!(retry.unwrap(), "5");
        let leader = to.telemetry.leader.borrow().clone().unwrap();
        let why = to.look(&leader).await.unwrap_err();
        assert!(why.contains("pod-a leads") && why.contains(&gone.to_string()), "{why}");
        let silent = Leader { reports: None, ..leader };
        assert!(to.look(&silent).await.unwrap_err().contains("podIp"));
    }

    #[tokio::test]
    async fn any_answer_shows_that_the_leader_can_be_reached() {
        let Fixture { to, .. } = standing_by(Some(format!("http://{}", leader().await)));
        let leader = to.telemetry.leader.borrow().clone().unwrap();
        to.look(&leader).await.unwrap();
    }
}
