//! A model of the API server's storage: versions, uids, conflicts, pages and watches, with faults
//! injected per call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use futures::channel::mpsc;
use http::{Method, Request, Response};
use kube::Client;
use serde_json::{Value, json};

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never arrives.
    LostBefore,
    /// It is carried out and the connection breaks before the answer.
    LostAfter,
    /// It is carried out so late that nobody waits for the answer any more.
    Late(Duration),
    /// It is answered after a while.
    Slow(Duration),
    /// It is answered with this code and not carried out.
    Code(u16),
}

/// A call as the fault rule and the log see it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Value,
    /// Counts all calls.
    pub(crate) number: usize,
}

impl Call {
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

type Rule = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    uids: u64,
    calls: Vec<Call>,
    rule: Option<Rule>,
    in_flight: usize,
    most_in_flight: usize,
    history: Vec<(u64, String, Value)>,
    watchers: Vec<(String, mpsc::UnboundedSender<Value>)>,
}

/// The modelled server. Cheap to clone; all clones share the storage.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

/// An answer: code and body.
type Answer = (u16, Value);

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        Client::new(
            tower::service_fn(move |request: Request<kube::client::Body>| {
                let fake = fake.clone();
                async move { fake.serve(request).await }
            }),
            "bos",
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Decides what happens to each call from now on.
    pub(crate) fn faults(&self, rule: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.state().rule = Some(Box::new(rule));
    }

    pub(crate) fn no_faults(&self) {
        self.state().rule = None;
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    pub(crate) fn paths(&self, prefix: &str) -> Vec<String> {
        self.state().objects.keys().filter(|path| path.starts_with(prefix)).cloned().collect()
    }

    /// Changes an object as somebody else would.
    pub(crate) fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        let mut object = state.objects.get(path).cloned().unwrap();
        change(&mut object);
        state.store(path, object, "MODIFIED");
    }

    /// Creates an object; returns its uid and version.
    pub(crate) fn create(&self, path: &str, mut object: Value) -> (String, String) {
        let mut state = self.state();
        object["metadata"]["name"] = json!(path.rsplit('/').next());
        let (code, created) = state.create(path, object);
        assert_eq!(code, 201, "{created}");
        let text = |field: &str| created["metadata"][field].as_str().unwrap().to_owned();
        (text("uid"), text("resourceVersion"))
    }

    pub(crate) fn delete(&self, path: &str) {
        self.state().delete(path, &Value::Null);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.state().most_in_flight
    }

    async fn serve(&self, request: Request<kube::client::Body>) -> Result<Response<Body>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let path = parts.uri.path().to_owned();
        let (fault, call) = self.arrive(parts.method, path, body);
        let _guard = InFlight::new(self);
        match fault {
            Some(Fault::LostBefore) => return Err(broken()),
            Some(Fault::LostAfter) => {
                self.state().answer(&call, &query);
                return Err(broken());
            }
            Some(Fault::Late(delay)) => {
                let fake = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    fake.state().answer(&call, &query);
                });
                return std::future::pending().await;
            }
            Some(Fault::Code(code)) => return Ok(respond((code, status(code, "Injected", "injected")))),
            Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
            None => {}
        }
        if query.split('&').any(|part| part == "watch=true" || part == "watch=1") {
            return Ok(self.watch(&call.path, &query));
        }
        let answer = self.state().answer(&call, &query);
        Ok(respond(answer))
    }

    fn arrive(&self, method: Method, path: String, body: Value) -> (Option<Fault>, Call) {
        let mut state = self.state();
        let call = Call { method, path, body, number: state.calls.len() };
        state.calls.push(call.clone());
        let mut rule = state.rule.take();
        let fault = rule.as_mut().and_then(|rule| rule(&call));
        state.rule = rule;
        (fault, call)
    }

    fn watch(&self, collection: &str, query: &str) -> Response<Body> {
        let since: u64 = parameter(query, "resourceVersion").and_then(|since| since.parse().ok()).unwrap_or(0);
        let (tx, rx) = mpsc::unbounded();
        let mut state = self.state();
        for (version, path, event) in &state.history {
            if *version > since && is_in(path, collection) {
                tx.unbounded_send(event.clone()).unwrap();
            }
        }
        state.watchers.push((collection.to_owned(), tx));
        // In the order of an API server, which tells the type first.
        let line = |event: Value| format!("{{\"type\":{},\"object\":{}}}\n", event["type"], event["object"]);
        let lines = rx.map(move |event| Ok::<_, std::io::Error>(line(event)));
        Response::builder().status(200).body(Body::from_stream(lines)).unwrap()
    }

    /// Ends all watches, as a server does now and again.
    pub(crate) fn end_watches(&self) {
        self.state().watchers.clear();
    }
}

struct InFlight<'a>(&'a FakeApi);

impl<'a> InFlight<'a> {
    fn new(fake: &'a FakeApi) -> Self {
        let mut state = fake.state();
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        Self(fake)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
    }
}

impl State {
    fn answer(&mut self, call: &Call, query: &str) -> Answer {
        let (path, is_status) = match call.path.strip_suffix("/status") {
            Some(path) => (path.to_owned(), true),
            None => (call.path.clone(), false),
        };
        match call.method.as_str() {
            "GET" if is_collection(&path) => self.list(&path, query),
            "GET" => self.objects.get(&path).map_or_else(not_found, |object| (200, object.clone())),
            "POST" => {
                let name = call.body["metadata"]["name"].as_str().unwrap().to_owned();
                self.create(&format!("{path}/{name}"), call.body.clone())
            }
            "PUT" => self.replace(&path, call.body.clone()),
            "PATCH" => self.patch(&path, &call.body, is_status),
            "DELETE" => self.delete(&path, &call.body),
            other => panic!("{other} is not modelled"),
        }
    }

    fn create(&mut self, path: &str, mut object: Value) -> Answer {
        if self.objects.contains_key(path) {
            return (409, status(409, "AlreadyExists", "already exists"));
        }
        self.uids += 1;
        object["metadata"]["uid"] = json!(format!("uid-{}", self.uids));
        object["metadata"]["generation"] = json!(1);
        (201, self.store(path, object, "ADDED"))
    }

    fn replace(&mut self, path: &str, mut object: Value) -> Answer {
        let Some(old) = self.objects.get(path) else { return not_found() };
        let wanted = &object["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != old["metadata"]["resourceVersion"] {
            return conflict();
        }
        if old["immutable"] == json!(true) {
            return (422, status(422, "Invalid", "field is immutable when `immutable` is set"));
        }
        object["metadata"]["uid"] = old["metadata"]["uid"].clone();
        (200, self.store(path, object, "MODIFIED"))
    }

    fn patch(&mut self, path: &str, patch: &Value, is_status: bool) -> Answer {
        let Some(old) = self.objects.get(path).cloned() else { return not_found() };
        let wanted = &patch["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != old["metadata"]["resourceVersion"] {
            return conflict();
        }
        let uid = &patch["metadata"]["uid"];
        // A patch of the status keeps the object's metadata and never looks at the uid (the real one does so too).
        if !is_status && !uid.is_null() && *uid != old["metadata"]["uid"] {
            let mut refusal = status(422, "Invalid", "metadata.uid: Invalid value: field is immutable");
            refusal["details"] = json!({"causes": [{"field": "metadata.uid", "reason": "FieldValueInvalid"}]});
            return (422, refusal);
        }
        let mut new = old.clone();
        merge(&mut new, patch);
        let (kept, changed) = if is_status { ("spec", "status") } else { ("status", "spec") };
        if let Some(part) = old.get(kept) {
            new[kept] = part.clone();
        }
        if is_status {
            new["metadata"] = old["metadata"].clone();
        }
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if new == old {
            return (200, old);
        }
        if !is_status && new[changed] != old[changed] {
            new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
        }
        (200, self.store(path, new, "MODIFIED"))
    }

    fn delete(&mut self, path: &str, options: &Value) -> Answer {
        let Some(object) = self.objects.get(path).cloned() else { return not_found() };
        let wanted = &options["preconditions"]["resourceVersion"];
        if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
            return conflict();
        }
        self.store(path, object, "DELETED");
        self.objects.remove(path);
        (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }

    fn store(&mut self, path: &str, mut object: Value, event: &str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        let news = json!({"type": event, "object": object});
        self.history.push((self.version, path.to_owned(), news.clone()));
        self.watchers.retain(|(collection, tx)| !is_in(path, collection) || tx.unbounded_send(news.clone()).is_ok());
        object
    }

    fn list(&self, collection: &str, query: &str) -> Answer {
        let selector = parameter(query, "labelSelector").unwrap_or_default();
        let name = parameter(query, "fieldSelector").map(|field| field.replace("metadata.name=", ""));
        let limit: usize = parameter(query, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        let from = parameter(query, "continue").unwrap_or_default();
        let matching = self.objects.iter().filter(|(path, object)| {
            is_in(path, collection)
                && **path > from
                && selects(&selector, object)
                && name.as_ref().is_none_or(|name| object["metadata"]["name"] == json!(name))
        });
        let mut rest = matching.peekable();
        let (mut items, mut last) = (Vec::new(), String::new());
        while items.len() < limit {
            let Some((path, object)) = rest.next() else { break };
            items.push(object.clone());
            last.clone_from(path);
        }
        // A finished list has an empty token, as custom resources' lists do.
        let token = if rest.peek().is_some() { last } else { String::new() };
        (200, json!({"metadata": {"resourceVersion": self.version.to_string(), "continue": token}, "items": items}))
    }
}

/// Directly in the collection, or in that of any namespace.
fn is_in(path: &str, collection: &str) -> bool {
    let (parent, _) = path.rsplit_once('/').unwrap();
    let (head, plural) = collection.rsplit_once('/').unwrap();
    parent == collection || (parent.starts_with(&format!("{head}/namespaces/")) && parent.ends_with(&format!("/{plural}")))
}

fn is_collection(path: &str) -> bool {
    ["configmaps", "leases", "sessions", "sessiontemplates", "bootcomponents", "bootoptions"].iter().any(|plural| path.ends_with(plural))
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
    Some(decode(value))
}

fn decode(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                out.push(u8::from_str_radix(std::str::from_utf8(&[*high, *low]).unwrap(), 16).unwrap());
                after
            }
            (b'+', _) => {
                out.push(b' ');
                tail
            }
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    String::from_utf8(out).unwrap()
}

/// Label selectors of the forms `a`, `a=b`, `a in (b,c)`, joined by commas outside brackets.
fn selects(selector: &str, object: &Value) -> bool {
    let label = |name: &str| object["metadata"]["labels"][name].as_str().map(str::to_owned);
    if let Some((name, values)) = selector.split_once(" in (") {
        return label(name).is_some_and(|value| values.trim_end_matches(')').split(',').any(|wanted| wanted == value));
    }
    selector.split(',').filter(|term| !term.is_empty()).all(|term| match term.split_once('=') {
        Some((name, wanted)) => label(name).as_deref() == Some(wanted),
        None => label(term).is_some(),
    })
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn not_found() -> Answer {
    (404, status(404, "NotFound", "not found"))
}

fn conflict() -> Answer {
    (409, status(409, "Conflict", "the object has been modified"))
}

fn respond((code, body): Answer) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
}

fn broken() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset")
}
