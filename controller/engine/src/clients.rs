//! The five connections to the API server, and what a failed call means.
//!
//! Lease and journal must stay quick while thousands of statuses are written, so each purpose has a
//! client, and with it a connection pool, of its own. kube's built-in retry would outlive a lease
//! and blur what was sent, so it is off wherever this crate retries by itself, and every call has a
//! deadline of its own.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use kube::{Client, Config};

/// How long one write or read of a small object may take before its outcome counts as unknown.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients for the separate purposes; none shares a connection with another.
#[derive(Clone)]
pub struct Clients {
    /// Lists and watches; the only one with kube's own retry.
    pub watch: Client,
    /// Status, spec and Event writes.
    pub writer: Client,
    /// Plans, journals, artifact sets and the ledger.
    pub journal: Client,
    /// Questions about who may do what, which workload managers wait for.
    pub review: Client,
    /// The leader lease and nothing else.
    pub lease: Client,
}

impl Clients {
    /// Builds the clients from one configuration.
    ///
    /// # Errors
    /// When the configuration holds unusable certificates or addresses.
    pub fn new(config: &Config) -> Result<Self, kube::Error> {
        // A watch is ended by the server after 200 s (see `watches`); only a dead connection is
        // silent for longer than this.
        let mut watch = tuned(config, Duration::from_secs(5), Duration::from_secs(250));
        watch.default_retry = true;
        let calls = tuned(config, Duration::from_secs(5), Duration::from_secs(30));
        let lease = tuned(config, Duration::from_secs(2), Duration::from_secs(10));
        Ok(Self {
            watch: Client::try_from(watch)?,
            writer: Client::try_from(calls.clone())?,
            journal: Client::try_from(calls.clone())?,
            review: Client::try_from(calls)?,
            lease: Client::try_from(lease)?,
        })
    }
}

fn tuned(config: &Config, connect: Duration, read: Duration) -> Config {
    let mut config = config.clone();
    config.connect_timeout = Some(connect);
    config.read_timeout = Some(read);
    config.write_timeout = Some(read);
    // Time in the idle pool must not count against the next answer.
    config.reset_reader_on_write = true;
    config.default_retry = false;
    config
}

/// A call to the API server that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time. The call may have taken effect.
    #[error("no answer from the API server within {0:?}")]
    Timeout(Duration),
    /// The client's own error; see [`CallError::verdict`].
    #[error("{0}")]
    Kube(#[from] kube::Error),
}

/// What a failed call means for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The object is not there (404).
    NotFound,
    /// The resourceVersion or uid was not the expected one (409).
    Conflict,
    /// A create met an object of that name (409).
    AlreadyExists,
    /// The server understood and refuses; sending the same again is of no use (400, 413, 422, ...).
    Invalid,
    /// Not allowed (403).
    Forbidden,
    /// A list's continue token or a watch's resourceVersion is too old (410).
    Expired,
    /// Busy, away or unknown (timeout, transport, 401, 429, 5xx). The call may have taken effect.
    Transient {
        /// What the server asked for with Retry-After.
        retry_after: Option<Duration>,
        /// Whether the server as a whole seems away or busy, rather than this one object.
        server: bool,
    },
}

impl CallError {
    /// What the error means.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let away = Verdict::Transient { retry_after: None, server: true };
        let status = match self {
            Self::Timeout(_) => return away,
            Self::Kube(kube::Error::Api(status)) => status,
            // We could not even build the request: the same body will fail again.
            Self::Kube(kube::Error::BuildRequest(_) | kube::Error::HttpError(_)) => return Verdict::Invalid,
            Self::Kube(_) => return away,
        };
        match (status.code, status.reason.as_str()) {
            (404, _) => Verdict::NotFound,
            (409, "AlreadyExists") => Verdict::AlreadyExists,
            (409, _) => Verdict::Conflict,
            (410, _) => Verdict::Expired,
            (403, _) => Verdict::Forbidden,
            (429 | 503 | 504, _) => Verdict::Transient { retry_after: retry_after(status), server: true },
            (401 | 408, _) => away,
            (400..=499, _) => Verdict::Invalid,
            _ => Verdict::Transient { retry_after: retry_after(status), server: false },
        }
    }

    /// The server's own words where there are any, for a status message or the log.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Kube(kube::Error::Api(status)) => format!("{} ({})", status.message, status.code),
            other => other.to_string(),
        }
    }
}

fn retry_after(status: &kube::core::Status) -> Option<Duration> {
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds).min(60)))
}

/// Runs one call with a deadline. On timeout its connection is dropped and its outcome unknown.
///
/// # Errors
/// The client's error, or [`CallError::Timeout`].
pub async fn bounded<T>(limit: Duration, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::Timeout(limit)),
    }
}

/// Pauses that double from `first` to `longest`.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off that has seen no failure yet.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure and tells how long to wait.
    pub fn next_pause(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.longest)
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures came since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, reason: &str) -> CallError {
        let status: kube::core::Status = serde_json::from_value(serde_json::json!({
            "code": code, "reason": reason, "message": "m", "details": {"retryAfterSeconds": 7}
        }))
        .unwrap();
        CallError::Kube(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn a_code_means_what_the_caller_may_do() {
        assert_eq!(api(404, "NotFound").verdict(), Verdict::NotFound);
        assert_eq!(api(409, "Conflict").verdict(), Verdict::Conflict);
        assert_eq!(api(409, "AlreadyExists").verdict(), Verdict::AlreadyExists);
        assert_eq!(api(422, "Invalid").verdict(), Verdict::Invalid);
        assert_eq!(api(413, "RequestEntityTooLarge").verdict(), Verdict::Invalid);
        assert_eq!(api(403, "Forbidden").verdict(), Verdict::Forbidden);
        assert_eq!(api(410, "Expired").verdict(), Verdict::Expired);
        let wait = Some(Duration::from_secs(7));
        assert_eq!(api(429, "TooManyRequests").verdict(), Verdict::Transient { retry_after: wait, server: true });
        assert_eq!(api(500, "InternalError").verdict(), Verdict::Transient { retry_after: wait, server: false });
        assert_eq!(api(401, "Unauthorized").verdict(), Verdict::Transient { retry_after: None, server: true });
        assert_eq!(CallError::Timeout(CALL_TIMEOUT).verdict(), Verdict::Transient { retry_after: None, server: true });
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<u128> = (0..6).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next_pause(), Duration::from_millis(100));
    }
}
