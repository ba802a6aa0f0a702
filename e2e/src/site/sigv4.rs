//! Signatures of the object store (AWS signature version 4), written from the public description:
//! those in the query as well as those in the `Authorization` header.

use std::fmt::Write as _;

use hmac::{Hmac, Mac};
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use sha2::{Digest, Sha256};

use super::query::Query;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// How far the clocks of client and store may differ.
const SKEW: SignedDuration = SignedDuration::from_mins(15);

/// The one key pair that the store knows.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) access: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("access", &self.access).finish_non_exhaustive()
    }
}

/// Why a request is refused: status, S3 code, message.
pub(crate) type Refusal = (StatusCode, &'static str, String);

fn refuse(code: &'static str, message: impl Into<String>) -> Refusal {
    (StatusCode::FORBIDDEN, code, message.into())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
        // An HMAC takes keys of every length.
        Err(_) => Vec::new(),
    }
}

/// Percent-encodes as the signature wants it: everything but letters, digits and `-._~`.
fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

fn canonical_query(query: &Query) -> String {
    let mut pairs: Vec<(String, String)> =
        query.pairs().iter().filter(|(k, _)| k != "X-Amz-Signature").map(|(k, v)| (encode(k), encode(v))).collect();
    pairs.sort();
    pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&")
}

/// The parts of a credential: `key/date/region/service/aws4_request`.
struct Scope<'a> {
    access: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
}

impl<'a> Scope<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('/');
        let scope = Self { access: parts.next()?, date: parts.next()?, region: parts.next()?, service: parts.next()? };
        (parts.next() == Some("aws4_request") && parts.next().is_none()).then_some(scope)
    }

    fn signature(&self, secret: &str, stamp: &str, canonical: &str) -> String {
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let to_sign = format!("{ALGORITHM}\n{stamp}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
        let mut key = hmac(format!("AWS4{secret}").as_bytes(), self.date);
        for part in [self.region, self.service, "aws4_request"] {
            key = hmac(&key, part);
        }
        hex(&hmac(&key, &to_sign))
    }
}

/// What a client signed.
struct Claim<'a> {
    credential: &'a str,
    stamp: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    payload: &'a str,
    /// How long the signature holds; `None` = only as long as clocks may differ.
    expires: Option<i64>,
}

/// A request as far as its signature goes.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// The path as it came, still encoded.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
}

impl Signed<'_> {
    /// Checks the signature, wherever it is.
    pub(crate) fn check(&self, keys: &Keys) -> Result<(), Refusal> {
        let query = Query::parse(self.query);
        if query.first("X-Amz-Algorithm").is_some() {
            let get = |key: &str| query.first(key).ok_or_else(|| refuse("AccessDenied", format!("{key} is missing")));
            let (credential, stamp, headers, signature) =
                (get("X-Amz-Credential")?, get("X-Amz-Date")?, get("X-Amz-SignedHeaders")?, get("X-Amz-Signature")?);
            let expires = get("X-Amz-Expires")?
                .parse()
                .map_err(|_| refuse("AuthorizationQueryParametersError", "X-Amz-Expires should be a number"))?;
            let claim = Claim {
                credential: &credential,
                stamp: &stamp,
                signed_headers: &headers,
                signature: &signature,
                payload: UNSIGNED,
                expires: Some(expires),
            };
            return self.verify(keys, &query, &claim);
        }
        let header = |name: &str| self.headers.get(name).and_then(|v| v.to_str().ok());
        let Some(fields) = header("authorization").and_then(|a| a.strip_prefix(ALGORITHM)) else {
            return Err(refuse("AccessDenied", "Access Denied"));
        };
        let field = |key: &str| fields.split(',').find_map(|f| f.trim().strip_prefix(key)?.strip_prefix('='));
        match (field("Credential"), header("x-amz-date"), field("SignedHeaders"), field("Signature")) {
            (Some(credential), Some(stamp), Some(signed_headers), Some(signature)) => {
                let payload = header("x-amz-content-sha256").unwrap_or(UNSIGNED);
                self.verify(keys, &query, &Claim { credential, stamp, signed_headers, signature, payload, expires: None })
            }
            _ => Err(refuse("AccessDenied", "Access Denied")),
        }
    }

    fn verify(&self, keys: &Keys, query: &Query, claim: &Claim<'_>) -> Result<(), Refusal> {
        let Some(scope) = Scope::parse(claim.credential).filter(|s| claim.stamp.starts_with(s.date)) else {
            return Err((
                StatusCode::BAD_REQUEST,
                "AuthorizationQueryParametersError",
                "Error parsing the X-Amz-Credential parameter".into(),
            ));
        };
        if scope.access != keys.access {
            return Err(refuse("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."));
        }
        check_time(claim)?;
        let canonical = self.canonical(query, claim);
        if scope.signature(&keys.secret, claim.stamp, &canonical) == claim.signature {
            Ok(())
        } else {
            Err(refuse("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."))
        }
    }

    fn canonical(&self, query: &Query, claim: &Claim<'_>) -> String {
        let mut headers = String::new();
        for name in claim.signed_headers.split(';') {
            let value = self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(headers, "{name}:{value}");
        }
        format!("{}\n{}\n{}\n{headers}\n{}\n{}", self.method, self.path, canonical_query(query), claim.signed_headers, claim.payload)
    }
}

fn check_time(claim: &Claim<'_>) -> Result<(), Refusal> {
    let at = DateTime::strptime("%Y%m%dT%H%M%SZ", claim.stamp)
        .ok()
        .and_then(|t| t.to_zoned(TimeZone::UTC).ok())
        .ok_or_else(|| refuse("AccessDenied", "X-Amz-Date is malformed"))?
        .timestamp();
    let age = Timestamp::now().duration_since(at);
    if age < -SKEW || (claim.expires.is_none() && age > SKEW) {
        return Err(refuse("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."));
    }
    match claim.expires {
        Some(expires) if age > SignedDuration::from_secs(expires) => Err(refuse("AccessDenied", "Request has expired")),
        _ => Ok(()),
    }
}

/// Signs a GET of `path` on `host` for a day, as BSS does for the nodes.
pub(crate) fn presign(keys: &Keys, host: &str, path: &str) -> String {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = &stamp[..8];
    let credential = encode(&format!("{}/{date}/default/s3/aws4_request", keys.access));
    let query = format!(
        "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={credential}&X-Amz-Date={stamp}&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    );
    let canonical = format!("GET\n{path}\n{query}\nhost:{host}\n\nhost\n{UNSIGNED}");
    let scope = Scope { access: &keys.access, date, region: "default", service: "s3" };
    let signature = scope.signature(&keys.secret, &stamp, &canonical);
    format!("http://{host}{path}?{query}&X-Amz-Signature={signature}")
}

/// Encodes a key for use in a path; slashes stay.
pub(crate) fn encode_path(key: &str) -> String {
    key.split('/').map(encode).collect::<Vec<_>>().join("/")
}
