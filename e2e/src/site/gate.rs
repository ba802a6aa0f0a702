//! What every request passes before and after the service: log, hooks, outages, delays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;

use super::calls::{CallOutcome, summarise};
use super::config::Service;
use super::core::Core;
use super::faults::{self, OutageKind};
use super::hooks::{Hold, When};
use super::listener::Connection;
use super::outages::{Call, Pick};
use super::{answers, lock};

const BODY_LIMIT: usize = 64 * 1024 * 1024;
/// Longest request line that the configuration service's web server takes.
const CFS_LINE_LIMIT: usize = 16 * 1024;

/// Ends the log entry when the request's future is dropped, because the client went away.
struct Entry {
    core: Arc<Core>,
    seq: u64,
    open: bool,
}

impl Entry {
    fn end(mut self, outcome: CallOutcome, status: Option<StatusCode>) {
        self.open = false;
        lock(&self.core.calls).end(self.seq, self.core.elapsed(), outcome, status.map(|s| s.as_u16()));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.open {
            lock(&self.core.calls).end(self.seq, self.core.elapsed(), CallOutcome::Abandoned, None);
        }
    }
}

/// The layer around the routes of one service.
pub(crate) async fn pass(core: Arc<Core>, service: Service, connection: Connection, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return answers::problem(StatusCode::PAYLOAD_TOO_LARGE, "request body too large");
    };
    let method = parts.method.as_str().to_owned();
    let path = parts.uri.path_and_query().map_or_else(|| parts.uri.path().to_owned(), ToString::to_string);
    let entry = begin(&core, service, &method, &path, &body);
    let hold = lock(&core.hooks).take(service, &method, &path, &body);
    let hold = match before(&core, entry.seq, hold).await {
        Ok(hold) => hold,
        Err(()) => return dropped(entry, &connection).await,
    };
    if service == Service::Cfs && path.len() > CFS_LINE_LIMIT {
        return dropped(entry, &connection).await;
    }
    let pick = core.pick_outage(&Call { service, method: &method, path: &path, of_node: false });
    let lost = match &pick {
        Some(pick) if pick.kind == OutageKind::LostAnswer => true,
        Some(pick) => return fail(pick, service, &parts.method, entry, &connection).await,
        None => false,
    };
    let response = process(&core, service, entry.seq, Request::from_parts(parts, Body::from(body)), next).await;
    if lost || !after(&core, entry.seq, hold).await {
        return dropped(entry, &connection).await;
    }
    entry.end(CallOutcome::Answered, Some(response.status()));
    response
}

fn begin(core: &Arc<Core>, service: Service, method: &str, path: &str, body: &Bytes) -> Entry {
    let summary = summarise(service, method, path, body);
    let seq = lock(&core.calls).begin(core.elapsed(), service, method, path, summary);
    Entry { core: core.clone(), seq, open: true }
}

/// Waits at a hook that holds requests before they are processed; a hook of the other kind is
/// handed on.
async fn before(core: &Core, seq: u64, hold: Option<Hold>) -> Result<Option<Hold>, ()> {
    match hold {
        Some(hold) if hold.when == When::Before => {
            if wait(core, seq, hold).await {
                Ok(None)
            } else {
                Err(())
            }
        }
        other => Ok(other),
    }
}

async fn after(core: &Core, seq: u64, hold: Option<Hold>) -> bool {
    match hold {
        Some(hold) => wait(core, seq, hold).await,
        None => true,
    }
}

async fn wait(core: &Core, seq: u64, hold: Hold) -> bool {
    let call = lock(&core.calls).get(seq);
    match call {
        Some(call) => hold.wait(call).await,
        None => true,
    }
}

/// Runs the service in a task of its own: like a real service it finishes what it has begun, also
/// when the client no longer waits.
async fn process(core: &Arc<Core>, service: Service, seq: u64, request: Request, next: Next) -> Response {
    let settings = core.settings().service(service);
    let latency = settings.latency + settings.latency_spread.mul_f64(core.random());
    let core = core.clone();
    let work = async move {
        pause(latency).await;
        let response = next.run(request).await;
        let location = response.headers().get(http::header::LOCATION).and_then(|place| place.to_str().ok());
        lock(&core.calls).processed(seq, location.map(str::to_owned));
        pause(settings.answer_delay).await;
        response
    };
    match tokio::spawn(work).await {
        Ok(response) => response,
        Err(error) => answers::text(StatusCode::INTERNAL_SERVER_ERROR, format!("the simulated service failed: {error}")),
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

async fn fail(pick: &Pick, service: Service, method: &http::Method, entry: Entry, connection: &Connection) -> Response {
    let Some(mut response) = faults::answer(pick.kind, service, method) else {
        if pick.kind == OutageKind::Hang {
            hang(pick).await;
        }
        return dropped(entry, connection).await;
    };
    if let Some(after) = pick.retry_after {
        response.headers_mut().insert(http::header::RETRY_AFTER, after.into());
    }
    entry.end(CallOutcome::Answered, Some(response.status()));
    response
}

/// Hangs until the outage is over.
async fn hang(pick: &Pick) {
    let end = async {
        match pick.ends {
            Some(ends) => tokio::time::sleep(ends.saturating_duration_since(Instant::now())).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = end => {}
        () = pick.cleared.cancelled() => {}
    }
}

/// Resets the connection. What is returned never leaves, as the connection is dead already.
async fn dropped(entry: Entry, connection: &Connection) -> Response {
    entry.end(CallOutcome::Dropped, None);
    connection.reset();
    answers::empty(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The connection of a request, for the layer.
pub(crate) fn connection(request: &Request) -> Option<Connection> {
    request.extensions().get::<ConnectInfo<Connection>>().map(|c| c.0.clone())
}
