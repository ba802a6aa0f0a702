//! S3, the object store: manifests and boot artifacts.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use url::Url;

use crate::answer::Answer;
use crate::config::S3Config;
use crate::error::{ErrorKind, ServiceError, tidy};
use crate::http::{CallError, Transport, header};

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The whole content.
    pub bytes: Bytes,
    /// The etag without quotes.
    pub etag: String,
}

/// What S3 says about an object without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// The etag without quotes.
    pub etag: String,
    /// The size in bytes, where S3 says it.
    pub size: Option<u64>,
}

/// Why an object could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum S3ErrorKind {
    /// No such object or no such bucket.
    NotFound,
    /// The object is larger than what was allowed.
    TooLarge,
    /// S3 does not let us see this object.
    AccessDenied,
    /// The name cannot be the name of an object; nothing was sent.
    InvalidName,
    /// S3 cannot be asked now, our keys do not work, or the answer is not one of S3.
    Unavailable,
}

/// A failed read from S3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("S3 {call} s3://{bucket}/{key}: {detail}")]
pub struct S3Error {
    /// `get object` or `head object`.
    pub call: &'static str,
    /// The bucket asked for.
    pub bucket: String,
    /// The key asked for.
    pub key: String,
    /// The kind of failure.
    pub kind: S3ErrorKind,
    /// What S3 answered or what the network said, for people; bounded, one line.
    pub detail: String,
}

impl S3Error {
    /// Whether waiting may help. The other kinds are facts about the object.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self.kind {
            S3ErrorKind::Unavailable => true,
            S3ErrorKind::NotFound | S3ErrorKind::TooLarge | S3ErrorKind::AccessDenied | S3ErrorKind::InvalidName => false,
        }
    }
}

/// Objects by bucket and key.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// The whole object, if it has at most `max_bytes`.
    ///
    /// # Errors
    /// See [`S3ErrorKind`].
    async fn get(&self, bucket: &str, key: &str, max_bytes: usize) -> Result<Object, S3Error>;

    /// Whether the object is there, with its etag.
    ///
    /// # Errors
    /// See [`S3ErrorKind`].
    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, S3Error>;
}

/// How long a signature is good. Only the clocks of both sides matter; the call itself is short.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(300);

/// [`ObjectStore`] by an S3 service: path style, signatures of version 4 in the URL.
pub struct S3Client {
    http: Transport,
    endpoint: Url,
    region: String,
    credentials: Credentials,
}

/// One object that was asked for; makes the errors about it.
#[derive(Clone, Copy)]
struct Target<'a> {
    call: &'static str,
    bucket: &'a str,
    key: &'a str,
}

impl S3Client {
    pub(crate) fn new(http: Transport, endpoint: Url, config: &S3Config) -> Self {
        let credentials = Credentials::new(config.access_key.clone(), config.secret_key.expose());
        Self { http, endpoint, region: config.region.clone(), credentials }
    }

    fn bucket(&self, target: Target<'_>) -> Result<Bucket, S3Error> {
        target.check()?;
        Bucket::new(self.endpoint.clone(), UrlStyle::Path, target.bucket.to_owned(), self.region.clone())
            .map_err(|error| target.error(S3ErrorKind::InvalidName, error.to_string()))
    }
}

#[async_trait]
impl ObjectStore for S3Client {
    async fn get(&self, bucket: &str, key: &str, max_bytes: usize) -> Result<Object, S3Error> {
        let target = Target { call: "get object", bucket, key };
        let url = self.bucket(target)?.get_object(Some(&self.credentials), key).sign(SIGNATURE_LIFETIME);
        let request = self.http.read_url(target.call, Method::GET, url).largest(max_bytes);
        let read = |answer: Answer| {
            target.good(&answer)?;
            let etag = target.etag(&answer)?;
            Ok(Object { bytes: answer.body, etag })
        };
        request.answer(|answer| read(answer).map_err(Failed::Verdict)).await.map_err(|failed| failed.about(target))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, S3Error> {
        let target = Target { call: "head object", bucket, key };
        let url = self.bucket(target)?.head_object(Some(&self.credentials), key).sign(SIGNATURE_LIFETIME);
        let read = |answer: Answer| {
            target.good(&answer)?;
            let etag = target.etag(&answer)?;
            let size = header(&answer.headers, "content-length").and_then(|length| length.parse().ok());
            Ok(ObjectHead { etag, size })
        };
        let request = self.http.read_url(target.call, Method::HEAD, url);
        request.answer(|answer| read(answer).map_err(Failed::Verdict)).await.map_err(|failed| failed.about(target))
    }
}

/// An error of the call, before and after it is known to be about an object.
enum Failed {
    Call(ServiceError),
    Verdict(S3Error),
}

impl From<ServiceError> for Failed {
    fn from(error: ServiceError) -> Self {
        Self::Call(error)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Verdict(error) => error.fmt(f),
        }
    }
}

impl CallError for Failed {
    fn transient(&self) -> bool {
        match self {
            Self::Call(error) => error.kind != ErrorKind::TooLarge,
            Self::Verdict(error) => error.is_transient(),
        }
    }
}

impl Failed {
    fn about(self, target: Target<'_>) -> S3Error {
        match self {
            Self::Verdict(error) => error,
            Self::Call(error) if error.kind == ErrorKind::TooLarge => target.error(S3ErrorKind::TooLarge, error.detail),
            Self::Call(error) => target.error(S3ErrorKind::Unavailable, format!("{}: {}", error.kind, error.detail)),
        }
    }
}

impl Target<'_> {
    fn error(self, kind: S3ErrorKind, detail: impl AsRef<str>) -> S3Error {
        S3Error { call: self.call, bucket: self.bucket.to_owned(), key: self.key.to_owned(), kind, detail: tidy(detail.as_ref()) }
    }

    /// Names that would turn into another URL than the one meant.
    fn check(self) -> Result<(), S3Error> {
        let bad = |why: &str| Err(self.error(S3ErrorKind::InvalidName, why));
        if self.bucket.is_empty() || self.bucket.len() > 255 || matches!(self.bucket, "." | "..") || self.bucket.contains('/') {
            return bad("this cannot be the name of a bucket");
        }
        if self.key.is_empty() || self.key.len() > 1024 {
            return bad("a key has 1 to 1024 bytes");
        }
        if self.key.split('/').any(|part| matches!(part, "." | "..")) {
            return bad("a key must not have . or .. as a part of its path");
        }
        Ok(())
    }

    fn good(self, answer: &Answer) -> Result<(), S3Error> {
        if (200..300).contains(&answer.status) {
            return Ok(());
        }
        let (kind, detail) = verdict(answer.status, &answer.body);
        Err(self.error(kind, detail))
    }

    /// Every answer of S3 about an object has an etag; what has none comes from somewhere else.
    fn etag(self, answer: &Answer) -> Result<String, S3Error> {
        header(&answer.headers, "etag")
            .map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned())
            .ok_or_else(|| self.error(S3ErrorKind::Unavailable, "an answer without ETag, so not one of an object store"))
    }
}

/// What a status and the XML beside it mean. A HEAD has no XML.
fn verdict(status: u16, body: &[u8]) -> (S3ErrorKind, String) {
    let text = String::from_utf8_lossy(body);
    let code = element(&text, "Code");
    let kind = match (status, code) {
        (404, Some("NoSuchKey" | "NoSuchBucket" | "NotFound" | "NoSuchVersion")) => S3ErrorKind::NotFound,
        (404, None) if body.is_empty() => S3ErrorKind::NotFound,
        // Other codes with 403 mean that our keys or our clock are wrong, which is no fact about the object.
        (403, Some("AccessDenied")) => S3ErrorKind::AccessDenied,
        (403, None) if body.is_empty() => S3ErrorKind::AccessDenied,
        (400..=499, Some("InvalidBucketName" | "KeyTooLongError" | "InvalidURI" | "InvalidObjectName")) => S3ErrorKind::InvalidName,
        _ => S3ErrorKind::Unavailable,
    };
    let said = match (code, element(&text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => text.chars().take(200).collect(),
    };
    (kind, if said.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status} {said}") })
}

/// The text of an XML element, if it has any. The errors of S3 are flat, so this is enough.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content.trim()).filter(|content| !content.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_store_itself_can_say_that_there_is_no_object() {
        let xml = |code: &str| format!(r#"<?xml version="1.0"?><Error><Code>{code}</Code><Message>m</Message></Error>"#);
        for (status, body, kind) in [
            (404, xml("NoSuchKey"), S3ErrorKind::NotFound),
            (404, xml("NoSuchBucket"), S3ErrorKind::NotFound),
            (404, String::new(), S3ErrorKind::NotFound),
            (404, "404 page not found".to_owned(), S3ErrorKind::Unavailable),
            (404, "<html>no such page</html>".to_owned(), S3ErrorKind::Unavailable),
            (403, xml("AccessDenied"), S3ErrorKind::AccessDenied),
            (403, String::new(), S3ErrorKind::AccessDenied),
            (403, xml("SignatureDoesNotMatch"), S3ErrorKind::Unavailable),
            (403, xml("InvalidAccessKeyId"), S3ErrorKind::Unavailable),
            (403, xml("RequestTimeTooSkewed"), S3ErrorKind::Unavailable),
            (403, "RBAC: access denied".to_owned(), S3ErrorKind::Unavailable),
            (400, xml("InvalidBucketName"), S3ErrorKind::InvalidName),
            (301, xml("PermanentRedirect"), S3ErrorKind::Unavailable),
            (500, xml("InternalError"), S3ErrorKind::Unavailable),
            (503, xml("SlowDown"), S3ErrorKind::Unavailable),
        ] {
            assert_eq!(verdict(status, body.as_bytes()).0, kind, "{status} {body}");
        }
        assert_eq!(verdict(404, xml("NoSuchKey").as_bytes()).1, "HTTP 404 NoSuchKey: m");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let check = |bucket, key| Target { call: "get object", bucket, key }.check().map_err(|error| error.kind);
        assert_eq!(check("boot-images", "0b1c/manifest.json"), Ok(()));
        assert_eq!(check("boot-images", "a//b...c"), Ok(()));
        for (bucket, key) in [("", "k"), ("a/b", "k"), ("..", "k"), ("b", ""), ("b", "a/../c"), ("b", "./c"), ("b", "..")] {
            assert_eq!(check(bucket, key), Err(S3ErrorKind::InvalidName), "{bucket} {key}");
        }
    }
}
