//! What can go wrong in a call to an outside service, said precisely enough to decide what it costs.
//!
//! Two questions matter to the engine. Did the service get the request ([`Reached`])? That decides whether the call counts
//! as an attempt. And is this the fault of the service or of the request ([`ServiceError::is_transient`])? That decides
//! whether a session waits or a node fails.

use std::fmt;

/// The longest [`ServiceError::detail`], in characters.
pub const MAX_DETAIL: usize = 300;

pub use bos_core::health::Service;

/// Whether the service got the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reached {
    /// Certainly not: we never sent it, no connection came about, or it was turned away for want of credentials.
    No,
    /// Nobody can say. To be treated as sent.
    Unknown,
    /// Yes: the service itself answered.
    Yes,
}

/// The kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No connection: refused, name unknown, TLS failed, or not within the connect time.
    Connect,
    /// Connected, but no whole answer within the read time.
    Timeout,
    /// The connection broke before the whole answer was there.
    Interrupted,
    /// The service, or a proxy before it, says that it cannot serve now.
    Server(u16),
    /// Turned away for want of credentials (401 or 403).
    Denied(u16),
    /// Our own bearer token or keys could not be read or fetched; nothing was sent.
    Credentials,
    /// The service looked at the request and refused it.
    Rejected(u16),
    /// An answer, but not one that this service gives: HTML, other JSON, missing parts, a redirect.
    Malformed,
    /// The answer was larger than any right answer is.
    TooLarge,
    /// Held back by the stop switch, at the last moment before it would have been written; nothing was sent.
    Stopped,
    /// Our own refusal: the request would have been wrong or dangerous, for example an empty list of nodes.
    Refused,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("cannot connect"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Interrupted => f.write_str("connection lost"),
            Self::Server(status) => write!(f, "unavailable (HTTP {status})"),
            Self::Denied(status) => write!(f, "access denied (HTTP {status})"),
            Self::Credentials => f.write_str("own credentials not to be had"),
            Self::Rejected(status) => write!(f, "rejected (HTTP {status})"),
            Self::Malformed => f.write_str("unexpected answer"),
            Self::TooLarge => f.write_str("answer too large"),
            Self::Stopped => f.write_str("held back: the stop switch is set, or this process does not lead any more"),
            Self::Refused => f.write_str("not sent"),
        }
    }
}

/// A call to an outside service that did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service} {call}: {kind}{}{detail}", if detail.is_empty() { "" } else { ": " })]
pub struct ServiceError {
    /// Which service.
    pub service: Service,
    /// Which call, for example `put bootparameters`; a fixed set of names, fit for metric labels.
    pub call: &'static str,
    /// Whether the service got the request.
    pub reached: Reached,
    /// The kind of failure.
    pub kind: ErrorKind,
    /// What it answered or what the network said, for people; at most [`MAX_DETAIL`] characters, on one line.
    pub detail: String,
}

impl ServiceError {
    /// An error of a call; the detail is cut to [`MAX_DETAIL`].
    #[must_use]
    pub fn new(service: Service, call: &'static str, reached: Reached, kind: ErrorKind, detail: impl AsRef<str>) -> Self {
        Self { service, call, reached, kind, detail: tidy(detail.as_ref()) }
    }

    /// A request that we do not send because it would be wrong or dangerous.
    #[must_use]
    pub fn refused(service: Service, call: &'static str, why: impl AsRef<str>) -> Self {
        Self::new(service, call, Reached::No, ErrorKind::Refused, why)
    }

    /// An answer of another form than this service gives. Whether it did what was asked is not known.
    #[must_use]
    pub fn malformed(service: Service, call: &'static str, what: impl AsRef<str>) -> Self {
        Self::new(service, call, Reached::Unknown, ErrorKind::Malformed, what)
    }

    /// Whether waiting may help: the service (or the way to it) is at fault, not the request.
    ///
    /// Transient errors are shown as one condition on the Session and fail no node. The others are the service's own
    /// verdict on this request, or our own refusal, and come again however often one asks.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self.kind {
            ErrorKind::Connect
            | ErrorKind::Timeout
            | ErrorKind::Interrupted
            | ErrorKind::Server(_)
            | ErrorKind::Denied(_)
            | ErrorKind::Credentials
            | ErrorKind::Malformed
            | ErrorKind::TooLarge
            | ErrorKind::Stopped => true,
            ErrorKind::Rejected(_) | ErrorKind::Refused => false,
        }
    }

    /// The HTTP status, where one came.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self.kind {
            ErrorKind::Server(status) | ErrorKind::Denied(status) | ErrorKind::Rejected(status) => Some(status),
            ErrorKind::Connect
            | ErrorKind::Timeout
            | ErrorKind::Interrupted
            | ErrorKind::Credentials
            | ErrorKind::Malformed
            | ErrorKind::TooLarge
            | ErrorKind::Stopped
            | ErrorKind::Refused => None,
        }
    }
}

/// One line of at most [`MAX_DETAIL`] characters: white space folded, control characters gone.
pub(crate) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_DETAIL * 4));
    let mut length = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = true;
            continue;
        }
        if length + 2 > MAX_DETAIL {
            out.push('…');
            break;
        }
        if gap && !out.is_empty() {
            out.push(' ');
            length += 1;
        }
        gap = false;
        out.push(c);
        length += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_one_bounded_line() {
        assert_eq!(tidy(" a\r\n\tb \u{7}c "), "a b c");
        let long = tidy(&"é ".repeat(5_000));
        assert!(long.chars().count() <= MAX_DETAIL && long.ends_with('…'));
        assert_eq!(tidy(&"x".repeat(MAX_DETAIL - 1)).chars().count(), MAX_DETAIL - 1);
    }

    #[test]
    fn only_verdicts_and_refusals_are_permanent() {
        let kind = |kind| ServiceError::new(Service::Pcs, "x", Reached::Yes, kind, "").is_transient();
        assert!(!kind(ErrorKind::Rejected(400)) && !kind(ErrorKind::Refused));
        for transient in [ErrorKind::Connect, ErrorKind::Timeout, ErrorKind::Server(503), ErrorKind::Denied(401), ErrorKind::Malformed] {
            assert!(kind(transient), "{transient}");
        }
    }

    #[test]
    fn reads_like_a_sentence() {
        let error = ServiceError::new(Service::Bss, "put bootparameters", Reached::Unknown, ErrorKind::Server(400), "No data");
        assert_eq!(error.to_string(), "BSS put bootparameters: unavailable (HTTP 400): No data");
    }
}
