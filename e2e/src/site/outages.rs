//! The outages in force, and which request they hit.

use std::time::Instant;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::config::Service;
use super::faults::{OutageKind, OutageSpec};

#[derive(Debug)]
struct Active {
    id: u64,
    spec: OutageSpec,
    begins: Instant,
    ends: Option<Instant>,
    hits: u64,
    cleared: CancellationToken,
}

/// A call as far as outages go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) service: Service,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Whether a virtual node makes it, not a client.
    pub(crate) of_node: bool,
}

/// What an outage does to a request.
#[derive(Debug)]
pub(crate) struct Pick {
    pub(crate) kind: OutageKind,
    pub(crate) retry_after: Option<u64>,
    pub(crate) ends: Option<Instant>,
    pub(crate) cleared: CancellationToken,
}

/// An outage as shown to people and tests.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutageView {
    /// Number to clear it by.
    pub id: u64,
    /// What was asked for.
    pub spec: OutageSpec,
    /// Requests that it hit so far.
    pub hits: u64,
    /// Whether it is in force now.
    pub active: bool,
}

/// All outages.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    list: Vec<Active>,
    last_id: u64,
}

impl Outages {
    pub(crate) fn add(&mut self, spec: OutageSpec, stop: &CancellationToken) -> (u64, CancellationToken) {
        self.last_id += 1;
        let begins = Instant::now() + spec.after;
        let ends = spec.lasts.map(|lasts| begins + lasts);
        let cleared = stop.child_token();
        self.list.push(Active { id: self.last_id, spec, begins, ends, hits: 0, cleared: cleared.clone() });
        (self.last_id, cleared)
    }

    /// Ends one outage; false when there is none of that number.
    pub(crate) fn clear(&mut self, id: u64) -> bool {
        let before = self.list.len();
        self.list.retain(|o| {
            let keep = o.id != id;
            if !keep {
                o.cleared.cancel();
            }
            keep
        });
        self.list.len() != before
    }

    pub(crate) fn clear_all(&mut self) {
        for outage in self.list.drain(..) {
            outage.cleared.cancel();
        }
    }

    pub(crate) fn views(&self) -> Vec<OutageView> {
        let now = Instant::now();
        self.list.iter().map(|o| OutageView { id: o.id, spec: o.spec.clone(), hits: o.hits, active: o.in_force(now) }).collect()
    }

    /// The outage that hits this request, if any; `random` is between 0 and 1.
    pub(crate) fn pick(&mut self, call: &Call<'_>, mut random: impl FnMut() -> f64) -> Option<Pick> {
        let now = Instant::now();
        self.list.retain(|o| o.ends.is_none_or(|e| now < e) || o.spec.kind == OutageKind::Refuse);
        let hit = self.list.iter_mut().find(|o| o.in_force(now) && o.matches(call) && random() < o.spec.rate)?;
        hit.hits += 1;
        Some(Pick { kind: hit.spec.kind, retry_after: hit.spec.retry_after, ends: hit.ends, cleared: hit.cleared.clone() })
    }
}

impl Active {
    fn in_force(&self, now: Instant) -> bool {
        now >= self.begins && self.ends.is_none_or(|e| now < e) && self.spec.count.is_none_or(|c| self.hits < c)
    }

    fn matches(&self, call: &Call<'_>) -> bool {
        self.spec.service == call.service
            && (self.spec.count.is_none() || !call.of_node)
            && (self.spec.kind == OutageKind::Refuse
                || (self.spec.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(call.method))
                    && self.spec.path_contains.as_ref().is_none_or(|p| call.path.contains(p.as_str()))))
    }
}
