//! The call log: what clients asked, in order, and what became of it.
//!
//! What the virtual nodes do themselves is not here but in their history.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::Service;

const KEEP: usize = 200_000;
const BODY_LIMIT: usize = 512;
const PATH_LIMIT: usize = 300;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallOutcome {
    /// Not answered yet: held, delayed or being processed.
    Pending,
    /// Answered with the status in the record.
    Answered,
    /// The connection was closed by the site without an answer.
    Dropped,
    /// The client went away before the answer.
    Abandoned,
}

/// One request of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    /// Running number over all services, from 1.
    pub seq: u64,
    /// Seconds since the site started, on the monotonic clock.
    pub at: f64,
    /// Seconds since the start when it was answered.
    pub ended: Option<f64>,
    /// The service.
    pub service: Service,
    /// HTTP method.
    pub method: String,
    /// Path and query, bounded.
    pub path: String,
    /// What a write does, e.g. the power operation.
    pub operation: Option<String>,
    /// The nodes a write names, all of them.
    pub nodes: Vec<String>,
    /// How many nodes the body or query names.
    pub node_count: usize,
    /// Beginning of the body.
    pub body: String,
    /// Answer code.
    pub status: Option<u16>,
    /// What became of it.
    pub outcome: CallOutcome,
    /// Whether the service acted on it.
    pub processed: bool,
    /// Where the service says that what was begun can be looked at.
    #[serde(default)]
    pub location: Option<String>,
}

/// Which records are wanted. Absent fields match everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CallFilter {
    /// Only this service.
    pub service: Option<Service>,
    /// Only this method.
    pub method: Option<String>,
    /// Only paths (with query) that contain this.
    pub path: Option<String>,
    /// Only this operation.
    pub operation: Option<String>,
    /// Only records that name this node.
    pub node: Option<String>,
    /// Only records after this sequence number.
    pub since: Option<u64>,
    /// Only records with this answer code.
    pub status: Option<u16>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

impl CallFilter {
    /// All requests to one service.
    pub fn service(service: Service) -> Self {
        Self { service: Some(service), ..Self::default() }
    }

    fn admits(&self, call: &CallRecord) -> bool {
        self.service.is_none_or(|s| s == call.service)
            && self.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(&call.method))
            && self.path.as_ref().is_none_or(|p| call.path.contains(p.as_str()))
            && self.operation.as_ref().is_none_or(|o| call.operation.as_deref().is_some_and(|have| have.eq_ignore_ascii_case(o)))
            && self.node.as_ref().is_none_or(|n| call.nodes.contains(n))
            && self.since.is_none_or(|s| call.seq > s)
            && self.status.is_none_or(|s| call.status == Some(s))
    }
}

/// What a body or query says, as far as the log cares.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    operation: Option<String>,
    nodes: Vec<String>,
    node_count: usize,
    body: String,
}

/// The log itself.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    records: VecDeque<CallRecord>,
    counts: BTreeMap<Service, BTreeMap<String, u64>>,
    last_seq: u64,
}

impl CallLog {
    pub(crate) fn begin(&mut self, at: f64, service: Service, method: &str, path: &str, summary: Summary) -> u64 {
        self.last_seq += 1;
        let bare = path.split('?').next().unwrap_or_default();
        *self.counts.entry(service).or_default().entry(format!("{method} {}", generalise(bare))).or_default() += 1;
        if self.records.len() >= KEEP {
            self.records.pop_front();
        }
        self.records.push_back(CallRecord {
            seq: self.last_seq,
            at,
            ended: None,
            service,
            method: method.to_owned(),
            path: clip(path, PATH_LIMIT),
            operation: summary.operation,
            nodes: summary.nodes,
            node_count: summary.node_count,
            body: summary.body,
            status: None,
            outcome: CallOutcome::Pending,
            processed: false,
            location: None,
        });
        self.last_seq
    }

    fn get_mut(&mut self, seq: u64) -> Option<&mut CallRecord> {
        let first = self.records.front()?.seq;
        self.records.get_mut(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    pub(crate) fn processed(&mut self, seq: u64, location: Option<String>) {
        if let Some(call) = self.get_mut(seq) {
            call.processed = true;
            call.location = location;
        }
    }

    pub(crate) fn end(&mut self, seq: u64, at: f64, outcome: CallOutcome, status: Option<u16>) {
        if let Some(call) = self.get_mut(seq) {
            call.outcome = outcome;
            call.status = status;
            call.ended = Some(at);
        }
    }

    pub(crate) fn get(&self, seq: u64) -> Option<CallRecord> {
        let first = self.records.front()?.seq;
        self.records.get(usize::try_from(seq.checked_sub(first)?).ok()?).cloned()
    }

    pub(crate) fn select(&self, filter: &CallFilter) -> Vec<CallRecord> {
        let limit = filter.limit.unwrap_or(usize::MAX);
        let mut found: Vec<_> = self.records.iter().rev().filter(|c| filter.admits(c)).take(limit).cloned().collect();
        found.reverse();
        found
    }

    pub(crate) fn counts(&self) -> BTreeMap<Service, u64> {
        self.counts.iter().map(|(service, by)| (*service, by.values().sum())).collect()
    }

    pub(crate) fn counts_by_call(&self) -> BTreeMap<Service, BTreeMap<String, u64>> {
        self.counts.clone()
    }

    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.counts.clear();
    }
}

/// Replaces ids in a path, so that calls of one kind are counted together.
fn generalise(path: &str) -> String {
    path.split('/')
        .map(|part| {
            let id = super::names::kind(part).is_some() || (part.len() == 36 && part.bytes().filter(|b| *b == b'-').count() == 4);
            if id { "{id}" } else { part }
        })
        .collect::<Vec<_>>()
        .join("/")
}

fn clip(text: &str, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Reads from a request what the log keeps: every node of a write, only the number of a read.
pub(crate) fn summarise(service: Service, method: &str, path: &str, body: &[u8]) -> Summary {
    let shown = String::from_utf8_lossy(&body[..body.len().min(BODY_LIMIT)]).into_owned();
    let value: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap_or(Value::Null) };
    let bare = path.split('?').next().unwrap_or_default();
    let (operation, nodes) = match service {
        Service::Pcs if bare.ends_with("/transitions") && method == "POST" => {
            (text_at(&value, "operation"), names(value.get("location"), Some("xname")))
        }
        Service::Pcs => (None, names(value.get("xname"), None)),
        Service::Capmc => (capmc_operation(bare, &value), names(value.get("xnames"), None)),
        Service::Bss => (None, names(value.get("hosts"), None)),
        Service::Hsm => (None, names(value.get("ComponentIDs"), None)),
        Service::Cfs if method == "PATCH" || method == "PUT" => cfs_write(bare, &value),
        Service::Cfs => (None, query_ids(path)),
        Service::Ims => (text_at(value.get("metadata").unwrap_or(&Value::Null), "operation"), Vec::new()),
        Service::S3 => (None, Vec::new()),
    };
    let write = match service {
        Service::Pcs => bare.ends_with("/transitions"),
        Service::Capmc => operation.is_some(),
        Service::Hsm => false,
        _ => method != "GET" && method != "HEAD",
    };
    let node_count = nodes.len();
    Summary { operation, nodes: if write { nodes } else { Vec::new() }, node_count, body: shown }
}

/// The power operation of a call, by the name that PCS has for it.
fn capmc_operation(path: &str, value: &Value) -> Option<String> {
    let force = value.get("force").and_then(Value::as_bool) == Some(true);
    let name = match path.rsplit('/').next() {
        Some("xname_on") => "On",
        Some("xname_off") if force => "Force-Off",
        Some("xname_off") => "Soft-Off",
        _ => return None,
    };
    Some(name.to_owned())
}

fn cfs_write(path: &str, value: &Value) -> (Option<String>, Vec<String>) {
    if let Some(list) = value.as_array() {
        return (Some("list".into()), names(Some(&Value::Array(list.clone())), Some("id")));
    }
    if let Some(patch) = value.get("patch") {
        let keys = patch.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>().join(",")).unwrap_or_default();
        let ids = value.pointer("/filters/ids").and_then(Value::as_str).unwrap_or_default();
        return (Some(keys), ids.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect());
    }
    let id = path.rsplit_once("/components/").map(|(_, id)| vec![id.to_owned()]).unwrap_or_default();
    (None, id)
}

fn query_ids(path: &str) -> Vec<String> {
    let query = path.split_once('?').map_or("", |(_, q)| q);
    let ids = query.split('&').find_map(|p| p.strip_prefix("ids=")).unwrap_or_default().replace("%2C", ",");
    ids.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

fn text_at(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn names(list: Option<&Value>, key: Option<&str>) -> Vec<String> {
    let Some(Value::Array(list)) = list else { return Vec::new() };
    let name = |entry: &Value| match key {
        Some(key) => entry.get(key).and_then(Value::as_str).map(str::to_owned),
        None => entry.as_str().map(str::to_owned),
    };
    list.iter().filter_map(name).collect()
}
