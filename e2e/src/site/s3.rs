//! The object store: path style, every request signed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;

use super::answers::{empty, xml_error};
use super::core::Core;
use super::lock;
use super::sigv4::{self, Signed};

/// How long a signed URL is handed out again before a new one is made.
const REUSE: Duration = Duration::from_secs(60);

/// An object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) body: Bytes,
    pub(crate) etag: String,
    modified: Timestamp,
}

/// What the store holds: objects by bucket and key.
#[derive(Debug, Default)]
pub(crate) struct Store {
    buckets: BTreeMap<String, BTreeMap<String, Object>>,
    signed: HashMap<String, (Instant, String)>,
}

impl Store {
    /// Puts an object and returns its etag, without quotes.
    pub(crate) fn put(&mut self, bucket: &str, key: &str, body: Bytes) -> String {
        let etag = sigv4::sha256_hex(&body)[..32].to_owned();
        let object = Object { body, etag: etag.clone(), modified: Timestamp::now() };
        self.buckets.entry(bucket.to_owned()).or_default().insert(key.to_owned(), object);
        etag
    }

    pub(crate) fn body(&self, bucket: &str, key: &str) -> Option<Bytes> {
        self.buckets.get(bucket)?.get(key).map(|object| object.body.clone())
    }

    pub(crate) fn remove(&mut self, bucket: &str, key: &str) -> bool {
        self.buckets.get_mut(bucket).is_some_and(|b| b.remove(key).is_some())
    }

    pub(crate) fn make_bucket(&mut self, bucket: &str) {
        self.buckets.entry(bucket.to_owned()).or_default();
    }

    fn find(&self, path: &str) -> Result<&Object, (StatusCode, &'static str, &'static str)> {
        let path = percent_decode(path);
        let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        let Some(objects) = self.buckets.get(bucket) else {
            return Err((StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist"));
        };
        objects.get(key).ok_or((StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist."))
    }

    /// A signed URL for an `s3://` path; anything else is returned as it is.
    pub(crate) fn presign_path(&mut self, core: &Core, path: &str) -> String {
        let Some(rest) = path.strip_prefix("s3://") else { return path.to_owned() };
        if let Some((_, url)) = self.signed.get(path).filter(|(made, _)| made.elapsed() < REUSE) {
            return url.clone();
        }
        let host = core.s3_url.get().and_then(|u| u.strip_prefix("http://")).unwrap_or_default();
        let url = sigv4::presign(&core.keys, host, &format!("/{}", sigv4::encode_path(rest)));
        self.signed.insert(path.to_owned(), (Instant::now(), url.clone()));
        url
    }

    /// What a GET of a signed path (with query) would say.
    pub(crate) fn check_presigned(&self, core: &Core, target: &str) -> Result<(), String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = HeaderMap::new();
        let host = core.s3_url.get().and_then(|u| u.strip_prefix("http://")).unwrap_or_default();
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(header::HOST, host);
        }
        let signed = Signed { method: "GET", path, query: Some(query), headers: &headers };
        signed.check(&core.keys).map_err(|(_, code, _)| format!("{path}: {code}"))?;
        self.find(path).map(|_| ()).map_err(|(_, code, _)| format!("{path}: {code}"))
    }
}

fn percent_decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(h, 16).ok())).flatten();
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(crate) fn routes(core: Arc<Core>) -> Router {
    Router::new().fallback(serve).with_state(core)
}

async fn serve(State(core): State<Arc<Core>>, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    let refuse = |status, code: &str, message: &str| if head { empty(status) } else { xml_error(status, code, message) };
    let signed =
        Signed { method: request.method().as_str(), path: request.uri().path(), query: request.uri().query(), headers: request.headers() };
    if let Err((status, code, message)) = signed.check(&core.keys) {
        return refuse(status, code, &message);
    }
    if !head && request.method() != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "The specified method is not allowed against this resource.");
    }
    let world = lock(&core.world);
    match world.s3.find(request.uri().path()) {
        Ok(object) => object_answer(object, head),
        Err((status, code, message)) => refuse(status, code, message),
    }
}

fn object_answer(object: &Object, head: bool) -> Response {
    let mut response = Response::new(if head { Body::empty() } else { Body::from(object.body.clone()) });
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("binary/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, object.body.len().into());
    let modified = object.modified.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for (name, value) in [(header::ETAG, format!("\"{}\"", object.etag)), (header::LAST_MODIFIED, modified)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}
