//! Reading an HTTP answer: is it a good one, a verdict of the service, or a sign that the service cannot be asked?

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{ErrorKind, Reached, Service, ServiceError, tidy};

/// An answer came, of whatever status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) service: Service,
    pub(crate) call: &'static str,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What we did about it before, for people.
    pub(crate) note: Option<String>,
}

/// Why a body is not what the service gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl Malformed {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl Answer {
    /// The body of a good answer.
    pub(crate) fn good(&self) -> Result<&[u8], ServiceError> {
        if (200..300).contains(&self.status) {
            return Ok(&self.body);
        }
        let error = failure(self.service, self.call, self.status, &self.body);
        Err(match &self.note {
            Some(note) => ServiceError { detail: tidy(&format!("{note} {}", error.detail)), ..error },
            None => error,
        })
    }

    /// Reads the body of a good answer.
    pub(crate) fn parse<T>(&self, parse: impl FnOnce(&[u8]) -> Result<T, Malformed>) -> Result<T, ServiceError> {
        parse(self.good()?).map_err(|error| ServiceError::malformed(self.service, self.call, error.0))
    }

    /// As [`parse`](Self::parse), with `None` where the service itself says that there is no such thing. A 404 of a proxy
    /// or of a wrong address is an error.
    pub(crate) fn parse_or_unknown<T>(&self, parse: impl FnOnce(&[u8]) -> Result<T, Malformed>) -> Result<Option<T>, ServiceError> {
        match self.parse(parse) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == ErrorKind::Rejected(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What an answer that is not good means.
///
/// The services explain every refusal in JSON. A refusal in any other form comes from something before the service, or
/// from a wrong address, and says nothing about the request.
pub(crate) fn failure(service: Service, call: &'static str, status: u16, body: &[u8]) -> ServiceError {
    let problem = problem(body);
    let detail = problem.clone().unwrap_or_else(|| text(body));
    let (reached, kind) = match status {
        401 | 403 => (Reached::No, ErrorKind::Denied(status)),
        408 | 429 | 502..=504 => (Reached::Unknown, ErrorKind::Server(status)),
        500.. => (if problem.is_some() { Reached::Yes } else { Reached::Unknown }, ErrorKind::Server(status)),
        // This is how BSS says that its store is down.
        400 if service == Service::Bss && detail.eq_ignore_ascii_case("no data") => (Reached::Yes, ErrorKind::Server(status)),
        400.. if problem.is_some() => (Reached::Yes, ErrorKind::Rejected(status)),
        _ => return ServiceError::malformed(service, call, format!("HTTP {status} that is not an answer of {service}: {detail}")),
    };
    ServiceError::new(service, call, reached, kind, detail)
}

/// What a JSON explanation says; `None` when the body is not one.
fn problem(body: &[u8]) -> Option<String> {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(body) else { return None };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let said = take("detail").or_else(|| take("err_msg")).or_else(|| take("title"))?;
    let errors = fields.get("errors").filter(|errors| errors.is_object()).map(|errors| format!(" {errors}"));
    Some(said + &errors.unwrap_or_default())
}

fn text(body: &[u8]) -> String {
    if body.is_empty() { "(empty body)".to_owned() } else { start(body) }
}

/// The beginning of a body, for people.
fn start(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(..200).unwrap_or(body)).into_owned()
}

/// Reads JSON; the error says what came instead.
pub(crate) fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    let trimmed = body.trim_ascii();
    if trimmed.is_empty() {
        return Err(Malformed::new("empty body instead of JSON"));
    }
    serde_json::from_slice(trimmed).map_err(|error| {
        if matches!(trimmed.first(), Some(b'{' | b'[')) {
            Malformed(format!("{error}: {}", start(trimmed)))
        } else {
            Malformed(format!("not JSON: {}", start(trimmed)))
        }
    })
}

/// A text that may be null; empty counts as absent.
pub(crate) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// A value that may be null, which counts as its default.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBLEM: &[u8] = br#"{"type":"about:blank","title":"Not Found","detail":"no such xname.","status":404}"#;

    fn kind(service: Service, status: u16, body: &[u8]) -> (ErrorKind, Reached, bool) {
        let error = failure(service, "call", status, body);
        (error.kind, error.reached, error.is_transient())
    }

    #[test]
    fn a_verdict_is_explained_in_json() {
        assert_eq!(kind(Service::Hsm, 404, PROBLEM), (ErrorKind::Rejected(404), Reached::Yes, false));
        assert_eq!(failure(Service::Hsm, "call", 404, PROBLEM).detail, "no such xname.");
        let capmc = br#"{"e":400,"err_msg":"disabled or not found: [x9c0s0b0n0]"}"#;
        assert_eq!(failure(Service::Pcs, "call", 400, capmc).detail, "disabled or not found: [x9c0s0b0n0]");
        let ims = br#"{"status":422,"title":"Unprocessable","detail":"Input not valid","errors":{"operation":["bad"]}}"#;
        assert_eq!(failure(Service::Ims, "call", 422, ims).detail, r#"Input not valid {"operation":["bad"]}"#);
    }

    #[test]
    fn text_is_never_a_verdict() {
        for (status, body) in [
            (404, &b"404 page not found"[..]),
            (404, b"<html>nothing here</html>"),
            (405, b""),
            (400, b"\"just a text\""),
            (400, b"{}"),
            (302, b""),
            (304, b""),
        ] {
            assert_eq!(kind(Service::Pcs, status, body), (ErrorKind::Malformed, Reached::Unknown, true), "{status}");
        }
    }

    #[test]
    fn a_proxy_leaves_the_effect_unknown() {
        for status in [408, 429, 502, 503, 504] {
            assert_eq!(kind(Service::Pcs, status, b"upstream connect error"), (ErrorKind::Server(status), Reached::Unknown, true));
        }
        // CFS speaks for itself, but so does a proxy with an error page in JSON.
        assert_eq!(kind(Service::Cfs, 503, PROBLEM).1, Reached::Unknown);
        assert_eq!(kind(Service::Pcs, 500, b"oops").1, Reached::Unknown);
        assert_eq!(kind(Service::Pcs, 500, PROBLEM), (ErrorKind::Server(500), Reached::Yes, true));
    }

    #[test]
    fn no_access_is_not_the_fault_of_the_request() {
        assert_eq!(kind(Service::Bss, 403, b"RBAC: access denied"), (ErrorKind::Denied(403), Reached::No, true));
        assert_eq!(kind(Service::Bss, 401, PROBLEM), (ErrorKind::Denied(401), Reached::No, true));
    }

    #[test]
    fn bss_hides_an_outage_of_its_store_behind_400() {
        let body = br#"{"type":"about:blank","title":"Bad Request","detail":"No data","status":400}"#;
        assert_eq!(kind(Service::Bss, 400, body), (ErrorKind::Server(400), Reached::Yes, true));
        assert_eq!(kind(Service::Hsm, 400, body), (ErrorKind::Rejected(400), Reached::Yes, false));
    }

    #[test]
    fn says_what_came_instead_of_json() {
        assert_eq!(json::<Value>(b" \n").unwrap_err().0, "empty body instead of JSON");
        assert_eq!(json::<Value>(b"Hello World!").unwrap_err().0, "not JSON: Hello World!");
        assert!(json::<Value>(b"<!DOCTYPE html>").unwrap_err().0.starts_with("not JSON: <!DOCTYPE"));
        assert!(json::<Value>(b"{\"a\":").unwrap_err().0.contains("EOF"));
    }
}
