//! Hooks for crash tests: hold the n-th matching request until the test lets it go.

use tokio::sync::{mpsc, oneshot};

use super::calls::CallRecord;
use super::config::Service;

/// Which requests a hook is about. Absent fields match everything.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Only this service.
    pub service: Option<Service>,
    /// Only this method.
    pub method: Option<String>,
    /// Only paths (with query) that contain this.
    pub path_contains: Option<String>,
    /// Only bodies that contain this.
    pub body_contains: Option<String>,
    /// The how-many-th matching request, from 1; 0 counts as 1.
    pub nth: u64,
}

impl Match {
    /// The first request to a service with this method.
    pub fn new(service: Service, method: impl Into<String>) -> Self {
        Self { service: Some(service), method: Some(method.into()), path_contains: None, body_contains: None, nth: 1 }
    }

    /// Only paths (with query) that contain this.
    pub fn path(mut self, part: impl Into<String>) -> Self {
        self.path_contains = Some(part.into());
        self
    }

    /// Only bodies that contain this.
    pub fn body(mut self, part: impl Into<String>) -> Self {
        self.body_contains = Some(part.into());
        self
    }

    /// The n-th matching request, from 1.
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = nth;
        self
    }

    fn admits(&self, service: Service, method: &str, path: &str, body: &[u8]) -> bool {
        self.service.is_none_or(|s| s == service)
            && self.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(method))
            && self.path_contains.as_ref().is_none_or(|p| path.contains(p.as_str()))
            && self.body_contains.as_ref().is_none_or(|part| contains(body, part.as_bytes()))
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    part.is_empty() || body.windows(part.len()).any(|w| w == part)
}

/// At which moment the request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the service acts on it.
    Before,
    /// After the service has acted, before its answer leaves.
    AnswerWithheld,
}

/// A set hook. Dropping it takes it away; a request it holds then gets no answer and, if held
/// [`When::Before`], is never processed.
#[derive(Debug)]
pub struct Hook {
    reached: mpsc::UnboundedReceiver<(CallRecord, oneshot::Sender<()>)>,
}

/// A request that a hook holds.
#[derive(Debug)]
pub struct Held {
    /// The request as the log shows it at this moment.
    pub call: CallRecord,
    go: oneshot::Sender<()>,
}

impl Hook {
    /// Waits until the matching request has come. `None` when the site was stopped before.
    pub async fn reached(&mut self) -> Option<Held> {
        let (call, go) = self.reached.recv().await?;
        Some(Held { call, go })
    }
}

impl Held {
    /// Lets the request go on as if nothing had been.
    pub fn release(self) {
        // The client may have gone already; then there is nothing to release.
        let _ = self.go.send(());
    }

    /// Closes the connection without an answer. Held before, the request is never processed. The
    /// same happens when the value is dropped.
    pub fn abandon(self) {
        drop(self);
    }
}

#[derive(Debug)]
struct Entry {
    what: Match,
    when: When,
    seen: u64,
    fire: mpsc::UnboundedSender<(CallRecord, oneshot::Sender<()>)>,
}

/// All hooks of a site.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    entries: Vec<Entry>,
}

/// What a hook wants with a request.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) when: When,
    fire: mpsc::UnboundedSender<(CallRecord, oneshot::Sender<()>)>,
}

impl Hold {
    /// Tells the test and waits for its word: true = go on.
    pub(crate) async fn wait(self, call: CallRecord) -> bool {
        let (go, gone) = oneshot::channel();
        if self.fire.send((call, go)).is_err() {
            // The hook was taken away between the match and now.
            return true;
        }
        gone.await.is_ok()
    }
}

impl Hooks {
    pub(crate) fn add(&mut self, what: Match, when: When) -> Hook {
        let (fire, reached) = mpsc::unbounded_channel();
        self.entries.push(Entry { what, when, seen: 0, fire });
        Hook { reached }
    }

    /// Counts the request against every hook and takes the first hook whose turn it is.
    pub(crate) fn take(&mut self, service: Service, method: &str, path: &str, body: &[u8]) -> Option<Hold> {
        self.entries.retain(|e| !e.fire.is_closed());
        let mut due = None;
        for (at, entry) in self.entries.iter_mut().enumerate() {
            if entry.what.admits(service, method, path, body) {
                entry.seen += 1;
                if due.is_none() && entry.seen >= entry.what.nth.max(1) {
                    due = Some(at);
                }
            }
        }
        let entry = self.entries.remove(due?);
        Some(Hold { when: entry.when, fire: entry.fire })
    }
}
