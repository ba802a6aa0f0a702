//! What all clients share: one HTTP client for each service, with limits on time, size and number of calls, and the
//! reading of failures.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::{Instrument as _, Span};
use url::Url;

use crate::answer::{Answer, Malformed};
use crate::config::ConfigError;
use crate::error::{ErrorKind, Reached, Service, ServiceError};
use crate::token::{Token, TokenSource};
use crate::trust::{HttpClients, Trust};

/// Header that names one request in our log and, where it keeps one, in that of the service.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// As much of the body of a failure as is read. CAPMC names in it every node that it refuses.
const FAILURE_BODY: usize = 512 * 1024;
/// The largest answer about the whole system: some hundred bytes a component, for a hundred thousand components.
pub(crate) const LARGE: usize = 64 * 1024 * 1024;
/// The largest answer about one thing.
pub(crate) const SMALL: usize = 1024 * 1024;

/// How a call ended, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallOutcome {
    /// With an answer.
    Ok,
    /// The service, or the way to it, was at fault.
    Unavailable,
    /// The service refused this request.
    Rejected,
}

impl CallOutcome {
    /// The name in metric labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
        }
    }
}

/// Is told of every HTTP request that ended, for metrics. Must not block.
pub trait CallObserver: Send + Sync {
    /// A request ended after `elapsed` (the time it waited for its turn not counted).
    fn observed(&self, service: Service, call: &'static str, outcome: CallOutcome, elapsed: Duration);

    /// Adds headers that tell the service to which trace a request belongs; called within its span.
    fn trace(&self, _headers: &mut HeaderMap) {}
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl CallObserver for NoObserver {
    fn observed(&self, _: Service, _: &'static str, _: CallOutcome, _: Duration) {}
}

/// The time limits for whole answers. Clones share them, so they can be changed while calls run; a change counts for
/// later calls.
#[derive(Debug, Clone, Default)]
pub struct Timeouts(Arc<[AtomicU64; Service::ALL.len()]>);

impl Timeouts {
    /// Changes the limit of one service; less than a millisecond counts as one.
    pub fn set(&self, service: Service, limit: Duration) {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
        if let Some(slot) = self.slot(service) {
            slot.store(millis, Ordering::Relaxed);
        }
    }

    /// The limit of one service.
    #[must_use]
    pub fn get(&self, service: Service) -> Duration {
        Duration::from_millis(self.slot(service).map_or(0, |slot| slot.load(Ordering::Relaxed)).max(1))
    }

    fn slot(&self, service: Service) -> Option<&AtomicU64> {
        Service::ALL.iter().position(|each| *each == service).and_then(|index| self.0.get(index))
    }
}

/// Holds power actions back while it is set, and every call that changes something when this process may not act any more. Clones
/// share it.
#[derive(Clone, Default)]
pub struct StopSwitch {
    switch: Arc<Switch>,
    /// For a service that switches no power: people do not stop it.
    unstopped: bool,
}

#[derive(Default)]
struct Switch {
    set: AtomicBool,
    may_act: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl StopSwitch {
    /// Sets or lifts it. A call that has waited for its turn, or for its connection, is held back too.
    pub fn set(&self, stop: bool) {
        self.switch.set.store(stop, Ordering::SeqCst);
    }

    /// From now on it counts as set where `may_act` says no, too: a process that was frozen for longer than its lease wakes with
    /// calls that wait for their connection. Once; later ones change nothing.
    pub fn only_while(&self, may_act: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.switch.may_act.set(Box::new(may_act));
    }

    /// The same for a service that switches no power.
    pub(crate) fn without_power(&self) -> Self {
        Self { switch: Arc::clone(&self.switch), unstopped: true }
    }

    /// Whether calls that change something are held back.
    #[must_use]
    pub fn is_set(&self) -> bool {
        let stopped = !self.unstopped && self.switch.set.load(Ordering::SeqCst);
        stopped || self.switch.may_act.get().is_some_and(|may_act| !may_act())
    }
}

impl fmt::Debug for StopSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StopSwitch").field(&self.is_set()).finish()
    }
}

/// Calls were held back when the connection for one was ready.
#[derive(Debug, thiserror::Error)]
#[error("the stop switch is set, or this process does not lead any more")]
pub(crate) struct Stopped;

/// What one [`Transport`] is made of.
pub(crate) struct Settings {
    pub(crate) service: Service,
    /// Holds back the calls that change something.
    pub(crate) stop: Option<StopSwitch>,
    pub(crate) base: Url,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) credentials: Credentials,
    pub(crate) insecure: bool,
    pub(crate) max_in_flight: usize,
}

/// What a service is shown of who we are.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// Nothing.
    None,
    /// A token that somebody else renews, read at every call.
    File(PathBuf),
    /// A token that we renew.
    Source(TokenSource),
}

/// The way to one service.
pub(crate) struct Transport {
    service: Service,
    base: Url,
    clients: HttpClients,
    /// Puts requests together, and never sends one: by whom they are sent is known only then.
    blank: Client,
    credentials: Credentials,
    turns: Semaphore,
    timeouts: Timeouts,
    observer: Arc<dyn CallObserver>,
}

/// A request that is being put together.
pub(crate) struct Request<'a> {
    transport: &'a Transport,
    call: &'static str,
    builder: RequestBuilder,
    /// It changes something.
    changes: bool,
    largest: usize,
    has_body: bool,
}

impl Transport {
    pub(crate) fn new(settings: Settings, timeouts: Timeouts, observer: Arc<dyn CallObserver>) -> Result<Self, ConfigError> {
        let trust = Trust {
            key: settings.service.label(),
            plain: settings.base.scheme() == "http",
            ca_file: settings.ca_file,
            insecure: settings.insecure,
            stop: settings.stop,
        };
        Ok(Self {
            service: settings.service,
            clients: HttpClients::new(trust)?,
            blank: blank()
                .map_err(|error| ConfigError::one(format!("{}: cannot set up HTTP: {}", settings.service.label(), chain(&error))))?,
            base: settings.base,
            credentials: settings.credentials,
            turns: Semaphore::new(settings.max_in_flight),
            timeouts,
            observer,
        })
    }

    pub(crate) const fn service(&self) -> Service {
        self.service
    }

    /// A request that only reads; `path` is given in parts, which are escaped.
    pub(crate) fn read(&self, call: &'static str, method: Method, path: &[&str]) -> Request<'_> {
        self.request(false, call, method, self.url(path))
    }

    /// A request that changes something.
    pub(crate) fn write(&self, call: &'static str, method: Method, path: &[&str]) -> Request<'_> {
        self.request(true, call, method, self.url(path))
    }

    /// A request that only reads, with a ready URL.
    pub(crate) fn read_url(&self, call: &'static str, method: Method, url: Url) -> Request<'_> {
        self.request(false, call, method, url)
    }

    fn request(&self, changes: bool, call: &'static str, method: Method, url: Url) -> Request<'_> {
        let has_body = method != Method::HEAD;
        Request { transport: self, call, builder: self.blank.request(method, url), changes, largest: SMALL, has_body }
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn shown(&self, call: &'static str) -> Result<Shown<'_>, ServiceError> {
        let fault = |why: String| ServiceError::new(self.service, call, Reached::No, ErrorKind::Credentials, why);
        match &self.credentials {
            Credentials::None => Ok(Shown::Nothing),
            Credentials::File(path) => token_in(path).await.map(Shown::File).map_err(fault),
            Credentials::Source(source) => source.token().await.map(|token| Shown::Token(source, token)).map_err(fault),
        }
    }
}

/// What one request shows of who we are.
enum Shown<'a> {
    Nothing,
    File(HeaderValue),
    Token(&'a TokenSource, Token),
}

impl Shown<'_> {
    fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::File(header) => Some(header.clone()),
            Self::Token(_, token) => Some(token.header.clone()),
        }
    }
}

async fn token_in(path: &Path) -> Result<HeaderValue, String> {
    let fault = |why: String| format!("token file {}: {why}", path.display());
    let text = tokio::fs::read_to_string(path).await.map_err(|error| fault(error.to_string()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(fault("it is empty".to_owned()));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| fault("it does not hold a token".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Request<'_> {
    /// Adds a query.
    pub(crate) fn query<T: Serialize + ?Sized>(mut self, query: &T) -> Self {
        self.builder = self.builder.query(query);
        self
    }

    /// Adds a body.
    pub(crate) fn json<T: Serialize + ?Sized>(mut self, body: &T) -> Self {
        self.builder = self.builder.json(body);
        self
    }

    /// The largest answer that is read.
    pub(crate) const fn largest(mut self, bytes: usize) -> Self {
        self.largest = bytes;
        self
    }

    /// Sends the request and reads the answer with `read`; logs and counts how it ended.
    pub(crate) async fn answer<T, E: CallError>(self, read: impl FnOnce(Answer) -> Result<T, E>) -> Result<T, E> {
        let (transport, call) = (self.transport, self.call);
        let _turn = transport.turns.acquire().await;
        let id = uuid::Uuid::new_v4().to_string();
        let started = Instant::now();
        let span = span_of(transport.service, call, &id);
        let result = self.send(&id).instrument(span.clone()).await.map_err(E::from).and_then(read);
        if result.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        let elapsed = started.elapsed();
        let outcome = match &result {
            Ok(_) => CallOutcome::Ok,
            Err(error) if error.transient() => CallOutcome::Unavailable,
            Err(_) => CallOutcome::Rejected,
        };
        match &result {
            Ok(_) => tracing::debug!(service = transport.service.label(), call, request = id, ?elapsed, "call answered"),
            Err(error) => tracing::warn!(service = transport.service.label(), call, request = id, ?elapsed, %error, "call failed"),
        }
        transport.observer.observed(transport.service, call, outcome, elapsed);
        result
    }

    /// Sends the request and reads the body of a good answer with `parse`.
    pub(crate) async fn parsed<T>(self, parse: impl FnOnce(&[u8]) -> Result<T, Malformed>) -> Result<T, ServiceError> {
        self.answer(|answer| answer.parse(parse)).await
    }

    /// Sends the request. A service that answers 401 has not carried it out: it was our token that is no longer good, so it is
    /// sent once more with a new one, and never again.
    async fn send(self, id: &str) -> Result<Answer, ServiceError> {
        let Self { transport, call, builder, changes, largest, has_body } = self;
        let network = |error: reqwest::Error| network_error(transport.service, call, error);
        let mut context = HeaderMap::new();
        transport.observer.trace(&mut context);
        let builder = builder.headers(context).header(REQUEST_ID, id).timeout(transport.timeouts.get(transport.service));
        let request = builder.build().map_err(network)?;
        let sender = Sender { transport, call, changes, largest, has_body };
        let shown = transport.shown(call).await?;
        let again = if let Shown::Token(..) = shown { request.try_clone() } else { None };
        let answer = sender.exchange(request, shown.header()).await?;
        let (Shown::Token(source, token), Some(again), 401) = (shown, again, answer.status) else { return Ok(answer) };
        source.refused(&token);
        tracing::info!(service = transport.service.label(), call, request = id, "the token is refused; asking for another one");
        let shown = transport.shown(call).await?;
        let mut answer = sender.exchange(again, shown.header()).await?;
        if answer.status == 401 {
            answer.note = Some(format!("(a new token of {} is refused too)", source.from));
        }
        Ok(answer)
    }
}

/// How one request is sent and its answer read.
struct Sender<'a> {
    transport: &'a Transport,
    call: &'static str,
    changes: bool,
    largest: usize,
    has_body: bool,
}

impl Sender<'_> {
    async fn exchange(&self, mut request: reqwest::Request, token: Option<HeaderValue>) -> Result<Answer, ServiceError> {
        let Self { transport, call, largest, .. } = *self;
        let network = |error: reqwest::Error| network_error(transport.service, call, error);
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        let clients = transport.clients.current().await;
        let client = if self.changes { &clients.fresh } else { &clients.pooled };
        let response = client.execute(request).await.map_err(network)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = if !self.has_body {
            Bytes::new()
        } else if status < 300 {
            read_body(response, largest).await.map_err(network)?.ok_or_else(|| {
                ServiceError::new(transport.service, call, Reached::Unknown, ErrorKind::TooLarge, format!("more than {largest} bytes"))
            })?
        } else {
            read_start(response).await
        };
        Ok(Answer { service: transport.service, call, status, headers, body, note: None })
    }
}

/// A request that is made for a Session has a span of its own. Regular reads, for all Sessions together, have none: there are too many.
fn span_of(service: Service, call: &'static str, id: &str) -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    let (service, failed) = (service.label(), tracing::field::Empty);
    tracing::info_span!("request", service, call, request = id, otel.kind = "client", otel.status_code = failed)
}

/// An error that a call can end with.
pub(crate) trait CallError: From<ServiceError> + std::fmt::Display {
    /// See [`ServiceError::is_transient`].
    fn transient(&self) -> bool;
}

impl CallError for ServiceError {
    fn transient(&self) -> bool {
        self.is_transient()
    }
}

/// Reads a page of a long answer, again if need be: losing one page would lose all that were read before it.
pub(crate) async fn page<T, F>(mut read: impl FnMut() -> F) -> Result<T, ServiceError>
where
    F: Future<Output = Result<T, ServiceError>>,
{
    const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
    for pause in PAUSES {
        match read().await {
            // After a timeout, asking again would only double the wait.
            Err(error) if error.is_transient() && error.kind != ErrorKind::Timeout => tokio::time::sleep(pause).await,
            result => return result,
        }
    }
    read().await
}

/// A client that only puts requests together.
fn blank() -> Result<Client, reqwest::Error> {
    Client::builder().tls_certs_only([]).build()
}

/// The whole body, or `None` if it is larger than allowed.
pub(crate) async fn read_body(mut response: Response, largest: usize) -> Result<Option<Bytes>, reqwest::Error> {
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    if announced > largest {
        return Ok(None);
    }
    let mut body = BytesMut::with_capacity(announced);
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > largest {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

/// The beginning of the body of a failure; the status counts even if the body does not come.
async fn read_start(mut response: Response) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = FAILURE_BODY - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if body.len() >= FAILURE_BODY {
            break;
        }
    }
    body.freeze()
}

fn network_error(service: Service, call: &'static str, error: reqwest::Error) -> ServiceError {
    // The URL may carry a signature.
    let error = error.without_url();
    let (reached, kind) = if is_stopped(&error) {
        (Reached::No, ErrorKind::Stopped)
    } else if error.is_connect() {
        (Reached::No, ErrorKind::Connect)
    } else if error.is_builder() {
        (Reached::No, ErrorKind::Refused)
    } else if error.is_timeout() {
        (Reached::Unknown, ErrorKind::Timeout)
    } else {
        (Reached::Unknown, ErrorKind::Interrupted)
    };
    ServiceError::new(service, call, reached, kind, chain(&error))
}

fn is_stopped(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.into_iter().any(|cause| cause.is::<Stopped>())
}

/// An error with its causes; each cause once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The value of a header, if it is text and not empty.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).filter(|value| !value.is_empty())
}
