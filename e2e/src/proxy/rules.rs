//! Which request a test wants to hold, and the two ends of the hold.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::Method;
use tokio::sync::oneshot;

use crate::control_plane::{Process, RequestKind};

/// At which point a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The API server has not seen it.
    Before,
    /// The API server has done it, the client does not know.
    AnswerWithheld,
}

/// Names one request: the n-th one that matches everything set here.
#[derive(Debug, Clone)]
pub struct Rule {
    when: When,
    kind: Option<RequestKind>,
    method: Option<Method>,
    path_contains: String,
    body_contains: String,
    nth: u64,
}

impl Rule {
    /// The first request of any kind, held at this point.
    pub fn new(when: When) -> Self {
        Self { when, kind: None, method: None, path_contains: String::new(), body_contains: String::new(), nth: 1 }
    }

    /// Held before the API server has seen it.
    pub fn before() -> Self {
        Self::new(When::Before)
    }

    /// Held after the API server has done it.
    pub fn answer_withheld() -> Self {
        Self::new(When::AnswerWithheld)
    }

    /// Only requests of this kind, such as `patch` and `bootcomponents/status`.
    #[must_use]
    pub fn kind(mut self, verb: &str, resource: &str) -> Self {
        self.kind = Some(RequestKind::new(verb, resource));
        self
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Only requests whose path or query contains this.
    #[must_use]
    pub fn path_contains(mut self, text: impl Into<String>) -> Self {
        self.path_contains = text.into();
        self
    }

    /// Only requests whose body contains this; the name of an object that is created, for example, stands only there.
    #[must_use]
    pub fn body_contains(mut self, text: impl Into<String>) -> Self {
        self.body_contains = text.into();
        self
    }

    /// The n-th that matches, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = nth;
        self
    }

    fn matches(&self, seen: &Seen, body: &[u8]) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == seen.kind)
            && self.method.as_ref().is_none_or(|method| *method == seen.method)
            && seen.path.contains(&self.path_contains)
            && contains(body, self.body_contains.as_bytes())
    }
}

/// A request that the proxy has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Verb and resource.
    pub kind: RequestKind,
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub path: String,
}

/// The test's end of a hold. Dropping it cuts the request off; before it was reached, takes the rule back.
#[derive(Debug)]
pub struct Hit {
    id: u64,
    rules: Weak<Mutex<Vec<Armed>>>,
    reached: oneshot::Receiver<Seen>,
    let_go: Option<oneshot::Sender<()>>,
}

impl Hit {
    /// Waits until the request is held. From then on nothing happens to it until this is let go or dropped.
    pub async fn reached(&mut self) -> anyhow::Result<Seen> {
        (&mut self.reached).await.map_err(|_| anyhow::anyhow!("the proxy stopped before the request came, or the hit was awaited twice"))
    }

    /// Waits until the request is held, then kills the process (SIGKILL) and cuts the request off.
    pub async fn kill(mut self, process: &Process) -> anyhow::Result<Seen> {
        let seen = self.reached().await?;
        process.kill();
        Ok(seen)
    }

    /// Lets the request, or its answer, go on as if nothing had been.
    pub fn let_go(mut self) {
        if let Some(let_go) = self.let_go.take() {
            // The client may have gone away while it was held.
            let _gone = let_go.send(());
        }
    }
}

impl Drop for Hit {
    fn drop(&mut self) {
        if let Some(rules) = self.rules.upgrade() {
            lock(&rules).retain(|armed| armed.id != self.id);
        }
    }
}

/// The proxy's end of a hold.
#[derive(Debug)]
pub(super) struct Hold {
    when: When,
    reached: oneshot::Sender<Seen>,
    let_go: oneshot::Receiver<()>,
}

impl Hold {
    pub(super) fn when(&self) -> When {
        self.when
    }

    /// Tells the test, then waits for its word. An error means: cut.
    pub(super) async fn wait(self, seen: Seen) -> Result<(), oneshot::error::RecvError> {
        // A test that has gone away has dropped the other channel too.
        let _gone = self.reached.send(seen);
        self.let_go.await
    }
}

/// A rule that waits for its request.
#[derive(Debug)]
struct Armed {
    id: u64,
    rule: Rule,
    left: u64,
    hold: Hold,
}

/// All rules that wait.
#[derive(Debug, Default)]
pub(super) struct Rules {
    armed: Arc<Mutex<Vec<Armed>>>,
    next_id: AtomicU64,
}

impl Rules {
    pub(super) fn add(&self, rule: Rule) -> Hit {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reached_sender, reached) = oneshot::channel();
        let (let_go, let_go_receiver) = oneshot::channel();
        let hold = Hold { when: rule.when, reached: reached_sender, let_go: let_go_receiver };
        lock(&self.armed).push(Armed { id, left: rule.nth.max(1), rule, hold });
        Hit { id, rules: Arc::downgrade(&self.armed), reached, let_go: Some(let_go) }
    }

    /// Counts a request for all rules that it matches; the oldest whose turn has come gets it.
    pub(super) fn look(&self, seen: &Seen, body: &[u8]) -> Option<Hold> {
        let mut armed = lock(&self.armed);
        for waiting in armed.iter_mut().filter(|waiting| waiting.rule.matches(seen, body)) {
            waiting.left = waiting.left.saturating_sub(1);
        }
        let due = armed.iter().position(|waiting| waiting.left == 0)?;
        Some(armed.remove(due).hold)
    }
}

fn lock(armed: &Mutex<Vec<Armed>>) -> MutexGuard<'_, Vec<Armed>> {
    armed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(verb: &str, path: &str) -> Seen {
        Seen { kind: RequestKind::new(verb, "configmaps"), method: Method::PUT, path: path.to_owned() }
    }

    #[tokio::test]
    async fn only_the_nth_match_is_held() {
        let rules = Rules::default();
        let mut hit = rules.add(Rule::before().kind("update", "configmaps").path_contains("journal").body_contains("epoch").nth(2));
        let other = [(seen("update", "/plan"), "epoch"), (seen("get", "/journal"), "epoch"), (seen("update", "/journal"), "era")];
        for (seen, body) in &other {
            assert!(rules.look(seen, body.as_bytes()).is_none());
        }
        assert!(rules.look(&seen("update", "/journal"), b"an epoch").is_none());
        let hold = rules.look(&seen("update", "/journal"), b"an epoch").unwrap();
        assert!(rules.look(&seen("update", "/journal"), b"an epoch").is_none());
        let held = tokio::spawn(hold.wait(seen("update", "/journal")));
        assert_eq!(hit.reached().await.unwrap().path, "/journal");
        hit.let_go();
        assert!(held.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_dropped_hit_cuts_or_takes_its_rule_back() {
        let rules = Rules::default();
        drop(rules.add(Rule::before()));
        assert!(rules.look(&seen("get", "/"), b"").is_none());
        let hit = rules.add(Rule::answer_withheld());
        let hold = rules.look(&seen("get", "/"), b"").unwrap();
        assert_eq!(hold.when(), When::AnswerWithheld);
        drop(hit);
        assert!(hold.wait(seen("get", "/")).await.is_err());
    }

    #[test]
    fn two_rules_due_at_once_hold_two_requests() {
        let rules = Rules::default();
        let _hits = (rules.add(Rule::before()), rules.add(Rule::answer_withheld()));
        assert_eq!(rules.look(&seen("get", "/"), b"").map(|hold| hold.when()), Some(When::Before));
        assert_eq!(rules.look(&seen("get", "/"), b"").map(|hold| hold.when()), Some(When::AnswerWithheld));
    }
}
