//! AdmissionReview v1 on the wire.
//!
//! Only what is needed is read, and objects stay text until their kind is known: a tree of a hostile document would take many times
//! the memory of its text, as would kube's own types, which keep managed fields as trees.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bos_core::admission::Verdict;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// A uid is a UUID; it is sent back as it is.
const UID_MAX: usize = 128;

/// Values in one object. Sixteen thousand nodes in a list are fine, and so is what the API server notes of who set what.
const VALUES_MAX: usize = 100_000;
/// JSON objects in one object: each may become a structure of many times its text.
const OBJECTS_MAX: usize = 20_000;

/// Why a document is no review that can be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// Not JSON, or not of this form.
    #[error("this is no AdmissionReview: {0}")]
    NotAReview(#[from] serde_json::Error),
    /// Of another version, or something else.
    #[error("this is {found}, not {API_VERSION} {KIND}")]
    OtherKind {
        /// What it says it is.
        found: String,
    },
    /// There is no request in it.
    #[error("the review has no request")]
    NoRequest,
    /// The request cannot be answered by name.
    #[error("request.uid must have 1 to {UID_MAX} characters")]
    Uid,
    /// An object is missing, or is not of its kind.
    #[error("request.{field}: {detail}")]
    Object {
        /// Which one.
        field: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// No kind of ours.
    #[error("request.kind {0} is not judged here")]
    UnknownKind(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

/// What the API server asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request<'a> {
    pub(crate) uid: String,
    pub(crate) kind: GroupKind,
    #[serde(default)]
    pub(crate) sub_resource: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) namespace: String,
    pub(crate) operation: Operation,
    #[serde(default)]
    pub(crate) user_info: UserInfo,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old_object: Option<&'a RawValue>,
}

/// Which kind of object.
#[derive(Debug, Deserialize)]
pub(crate) struct GroupKind {
    #[serde(default)]
    group: String,
    kind: String,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// Who does it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct UserInfo {
    #[serde(default)]
    pub(crate) username: String,
}

/// The part of an object that is judged.
#[derive(Debug, Deserialize)]
#[serde(bound = "Spec: DeserializeOwned, Status: DeserializeOwned")]
pub(crate) struct Object<Spec, Status> {
    #[serde(default)]
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
    pub(crate) status: Option<Status>,
}

/// The part of the metadata that is judged.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    creation_timestamp: Option<Time>,
    #[serde(default)]
    pub(crate) deletion_timestamp: Option<Time>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Metadata {
    /// For the functions that the operator shares; what a new object lacks yet is filled in.
    pub(crate) fn complete(self, request: &Request<'_>, now: jiff::Timestamp) -> ObjectMeta {
        ObjectMeta {
            name: Some(if self.name.is_empty() { request.name.clone() } else { self.name }),
            namespace: self.namespace.or_else(|| Some(request.namespace.clone())).filter(|name| !name.is_empty()),
            uid: self.uid.or_else(|| Some(request.uid.clone())),
            generation: self.generation,
            creation_timestamp: self.creation_timestamp.or(Some(Time(now))),
            labels: self.labels,
            annotations: self.annotations,
            ..ObjectMeta::default()
        }
    }
}

impl<'a> Request<'a> {
    /// Reads a review.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let review: Review<'a> = serde_json::from_slice(body)?;
        if review.api_version != API_VERSION || review.kind != KIND {
            let shown = |text: &str| text.chars().take(64).collect::<String>();
            return Err(Malformed::OtherKind { found: format!("{:?} {:?}", shown(&review.api_version), shown(&review.kind)) });
        }
        let request = review.request.ok_or(Malformed::NoRequest)?;
        if request.uid.is_empty() || request.uid.len() > UID_MAX {
            return Err(Malformed::Uid);
        }
        Ok(request)
    }

    /// The kind, if it is one of ours.
    pub(crate) fn kind(&self) -> Result<&str, Malformed> {
        if self.kind.group == bos_crds::GROUP {
            return Ok(&self.kind.kind);
        }
        let shown = |text: &str| text.chars().take(64).collect::<String>();
        Err(Malformed::UnknownKind(format!("{}/{}", shown(&self.kind.group), shown(&self.kind.kind))))
    }

    /// The object as it is to be.
    pub(crate) fn object<Spec: DeserializeOwned, Status: DeserializeOwned>(&self) -> Result<Object<Spec, Status>, Malformed> {
        read("object", self.object)
    }

    /// The object as it was; None for a new one.
    pub(crate) fn old_object<Spec: DeserializeOwned, Status: DeserializeOwned>(&self) -> Result<Option<Object<Spec, Status>>, Malformed> {
        self.old_object.map(|old| read("oldObject", Some(old))).transpose()
    }
}

fn read<T: DeserializeOwned>(field: &'static str, raw: Option<&RawValue>) -> Result<T, Malformed> {
    let raw = raw.ok_or_else(|| Malformed::Object { field, detail: "is missing".to_owned() })?;
    if !is_bounded(raw.get()) {
        let detail = format!("has more than {VALUES_MAX} values or {OBJECTS_MAX} objects");
        return Err(Malformed::Object { field, detail });
    }
    serde_json::from_str(raw.get()).map_err(|error| Malformed::Object { field, detail: error.to_string() })
}

/// Whether what is read of this text stays within some times its size.
fn is_bounded(text: &str) -> bool {
    let (mut values, mut objects, mut in_string, mut escaped) = (0, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b',' if !in_string => values += 1,
            b'{' if !in_string => objects += 1,
            _ => {}
        }
    }
    values < VALUES_MAX && objects < OBJECTS_MAX
}

/// What is answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
}

impl Answer {
    /// A verdict. `kubectl` shows `Error from server (Invalid)`, as for what the schema refuses.
    pub(crate) fn of(uid: &str, verdict: &Verdict) -> Self {
        let refusal = verdict.refusal();
        let status = refusal.map(|message| json!({"status": "Failure", "reason": "Invalid", "code": 422, "message": message}));
        let warnings = verdict.warnings();
        Self { uid: uid.to_owned(), allowed: status.is_none(), status, warnings, patch_type: None, patch: None }
    }

    /// Yes, with these changes.
    pub(crate) fn with_patch(uid: &str, operations: &[Value]) -> Self {
        let patch = (!operations.is_empty()).then(|| base64(Value::from(operations).to_string().as_bytes()));
        let patch_type = patch.is_some().then_some("JSONPatch");
        Self { uid: uid.to_owned(), allowed: true, status: None, warnings: Vec::new(), patch_type, patch }
    }

    /// The whole document.
    pub(crate) fn document(&self) -> Value {
        json!({"apiVersion": API_VERSION, "kind": KIND, "response": self})
    }

    /// Whether the object is taken.
    pub(crate) const fn allowed(&self) -> bool {
        self.allowed
    }
}

/// As `k8s_openapi` writes bytes.
fn base64(bytes: &[u8]) -> String {
    match serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())) {
        Ok(Value::String(text)) => text,
        Ok(_) | Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_many_times_its_size_is_not_read() {
        assert!(is_bounded(&format!("[{}0]", "0,".repeat(VALUES_MAX - 1))));
        assert!(!is_bounded(&format!("[{}0]", "0,".repeat(VALUES_MAX))));
        assert!(!is_bounded(&format!("[{}0]", "{},".repeat(OBJECTS_MAX))));
        assert!(is_bounded(&format!(r#"["{}", "\"{}"]"#, ",{".repeat(VALUES_MAX), ",{".repeat(VALUES_MAX))), "within texts");
    }
    use bos_crds::{SessionSpec, SessionStatus};

    fn review(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut review = json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "request": {"uid": "u-1", "kind": {"group": "bos.hpe.com", "version": "v1alpha1", "kind": "Session"}, "name": "boot",
                        "namespace": "bos", "operation": "CREATE", "userInfo": {"username": "alice", "groups": ["admins"]},
                        "object": {"apiVersion": "bos.hpe.com/v1alpha1", "kind": "Session", "metadata": {"name": "boot"},
                                   "spec": {"operation": "Boot", "templateName": "cos"}}, "oldObject": null, "dryRun": true}
        });
        change(&mut review);
        review.to_string().into_bytes()
    }

    fn refused(body: &[u8]) -> String {
        Request::parse(body).unwrap_err().to_string()
    }

    #[test]
    fn a_review_is_read_and_its_object_too() {
        let body = review(|_| {});
        let request = Request::parse(&body).unwrap();
        assert_eq!(
            (request.kind().unwrap(), request.operation, request.user_info.username.as_str()),
            ("Session", Operation::Create, "alice")
        );
        let object: Object<SessionSpec, SessionStatus> = request.object().unwrap();
        assert_eq!((object.metadata.name.as_str(), object.spec.template_name.as_str()), ("boot", "cos"));
        assert!(request.old_object::<SessionSpec, SessionStatus>().unwrap().is_none());
        let meta = object.metadata.complete(&request, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!((meta.namespace.as_deref(), meta.uid.as_deref()), (Some("bos"), Some("u-1")));
    }

    #[test]
    fn what_is_malformed_is_said_precisely() {
        assert!(refused(b"{").starts_with("this is no AdmissionReview: EOF"));
        assert!(refused(b"[]").starts_with("this is no AdmissionReview: "));
        assert_eq!(
            refused(&review(|r| r["apiVersion"] = json!("admission.k8s.io/v1beta1"))),
            "this is \"admission.k8s.io/v1beta1\" \"AdmissionReview\", not admission.k8s.io/v1 AdmissionReview"
        );
        assert_eq!(refused(&review(|r| r["request"] = Value::Null)), "the review has no request");
        assert_eq!(refused(&review(|r| r["request"]["uid"] = json!(""))), "request.uid must have 1 to 128 characters");
        assert!(refused(&review(|r| r["request"]["operation"] = json!("PATCH"))).contains("unknown variant `PATCH`"));
        let body = review(|r| r["request"]["object"]["spec"]["operation"] = json!("Explode"));
        let error = Request::parse(&body).unwrap().object::<SessionSpec, SessionStatus>().unwrap_err().to_string();
        assert!(error.starts_with("request.object: unknown variant `Explode`"), "{error}");
        let body = review(|r| r["request"]["kind"]["group"] = json!("apps"));
        assert_eq!(Request::parse(&body).unwrap().kind().unwrap_err().to_string(), "request.kind apps/Session is not judged here");
    }

    #[test]
    fn a_deep_document_is_refused_without_harm() {
        let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
        assert!(refused(&deep).starts_with("this is no AdmissionReview"));
    }

    #[test]
    fn a_patch_is_base64_and_left_out_where_empty() {
        let answer = Answer::with_patch("u", &[json!({"op": "add"})]).document();
        assert_eq!(answer["response"]["patch"], "W3sib3AiOiJhZGQifV0=");
        assert_eq!(Answer::with_patch("u", &[]).document()["response"], json!({"uid": "u", "allowed": true}));
    }
}
