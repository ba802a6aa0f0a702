//! One object's status, as the server holds it and as it should be.

use std::sync::Arc;

use serde::Serialize;

use crate::writer::{Body, Submitted};

/// One object's status, as it is and as it should be. What is equal is mostly the same in memory too.
#[derive(Debug)]
pub(super) struct Shown<S> {
    pub(super) uid: String,
    pub(super) resource_version: Option<String>,
    pub(super) generation: i64,
    /// What the server acknowledged.
    written: Arc<S>,
    /// What it should hold.
    wanted: Arc<S>,
    /// Submitted and not acknowledged, oldest first.
    underway: Vec<(u64, Arc<S>)>,
    /// The newest that a watch has told of while ours were on their way, and its version.
    told: Option<(String, Arc<S>)>,
}

impl<S: PartialEq + Serialize + Send + Sync + 'static> Shown<S> {
    pub(super) fn new(uid: String, resource_version: Option<String>, generation: i64, status: S) -> Self {
        let status = Arc::new(status);
        Self { uid, resource_version, generation, written: Arc::clone(&status), wanted: status, underway: Vec::new(), told: None }
    }

    pub(super) fn written(&self) -> &S {
        &self.written
    }

    pub(super) fn wanted(&self) -> &S {
        &self.wanted
    }

    pub(super) fn want(&mut self, status: S) {
        if *self.wanted != status {
            self.wanted = Arc::new(status);
        }
    }

    /// This was found in the place of what our write of that version expected. Later ones are on their way still, and get their
    /// answers. A watch may have told of a newer status already.
    pub(super) fn adopt(&mut self, status: S, resource_version: Option<String>, version: u64) {
        let answer = number(resource_version.as_deref());
        if self.underway.is_empty() && answer < number(self.resource_version.as_deref()) {
            return;
        }
        self.written = Arc::new(status);
        self.resource_version = resource_version;
        self.underway.retain(|(submitted, _)| *submitted > version);
        if self.underway.is_empty() {
            let _anew = self.take_up_told(answer);
        }
    }

    /// Nothing of ours is on its way any more: the server holds what a watch has told of meanwhile, if that is newer than the last
    /// answer. True when it is another status than that answer was about.
    fn take_up_told(&mut self, answer: Option<u64>) -> bool {
        let Some((seen, status)) = self.told.take().filter(|(seen, _)| number(Some(seen)) > answer) else { return false };
        self.reached(&seen, self.generation);
        let before = std::mem::replace(&mut self.written, status);
        !same(&before, &self.written)
    }

    /// A watch tells of a status: true when somebody else wrote it, so that ours is to be written again. Otherwise the version
    /// alone would move on, and nothing would ever contradict what we take the server to hold. While ours is on its way it meets that
    /// status, or has arrived before it: the answer tells which.
    pub(super) fn notice_overwritten(&mut self, seen: Option<&str>, status: Option<&S>) -> bool
    where
        S: Clone + Default,
    {
        if number(seen) <= number(self.resource_version.as_deref()) {
            return false;
        }
        let nothing = S::default();
        let status = status.unwrap_or(&nothing);
        let ours = self.may_hold().find(|ours| ***ours == *status).or_else(|| {
            // As the API server has it: it may write the same time otherwise.
            let status = serde_json::to_value(status).ok();
            self.may_hold().find(|ours| serde_json::to_value(&***ours).ok() == status)
        });
        let (theirs, status) = (ours.is_none(), ours.cloned().unwrap_or_else(|| Arc::new(status.clone())));
        if !self.underway.is_empty() {
            self.told = seen.map(|seen| (seen.to_owned(), status));
            return false;
        }
        if theirs {
            self.written = status;
        }
        theirs
    }

    /// A watch may be behind our own writes: only a later version replaces the known one. While one is on its way, only a version whose
    /// status is ours: ours was made without knowing another, and is to conflict with it.
    pub(super) fn advance(&mut self, seen: Option<String>, status: Option<&S>)
    where
        S: Default,
    {
        if number(seen.as_deref()) <= number(self.resource_version.as_deref()) {
            return;
        }
        let nothing = S::default();
        let status = status.unwrap_or(&nothing);
        if self.underway.is_empty() || self.may_hold().any(|ours| **ours == *status) {
            self.resource_version = seen;
        }
    }

    /// Whatever of these the server may hold by now.
    fn may_hold(&self) -> impl Iterator<Item = &Arc<S>> {
        std::iter::once(&self.written).chain(self.underway.iter().map(|(_, status)| status))
    }

    pub(super) fn is_current(&self) -> bool {
        self.underway.is_empty() && same(&self.written, &self.wanted)
    }

    /// The merge patch that makes the wanted status out of whatever the server may hold; None when nothing is to be written.
    pub(super) fn patch(&mut self, version: u64) -> Option<Body> {
        let newest = self.underway.last().map_or(&self.written, |(_, status)| status);
        if same(newest, &self.wanted) {
            return None;
        }
        let held = self.may_hold().cloned().collect();
        self.underway.push((version, Arc::clone(&self.wanted)));
        Some(Body::status(held, Arc::clone(&self.wanted)))
    }

    /// What the writer said of the newest.
    pub(super) fn submitted(&mut self, submitted: Submitted) {
        // The server will never hold the one before, if that is still minded here.
        if submitted == Submitted::InPlaceOfUnsent
            && let Some(before) = self.underway.len().checked_sub(2)
        {
            self.underway.remove(before);
        }
    }

    /// Our write of that version has arrived. True when somebody else has written the status since, so that ours is to be written again.
    pub(super) fn acknowledged(&mut self, version: u64, resource_version: &str, generation: i64) -> bool {
        if let Some(position) = self.underway.iter().position(|(submitted, _)| *submitted == version) {
            let done = self.underway.drain(..=position).next_back();
            if let Some((_, status)) = done {
                self.written = status;
            }
        }
        self.reached(resource_version, generation);
        self.underway.is_empty() && self.take_up_told(number(Some(resource_version)))
    }

    /// A write of ours brought the object to this version, or further: a watch may have told more already.
    pub(super) fn reached(&mut self, resource_version: &str, generation: i64) {
        if number(Some(resource_version)) >= number(self.resource_version.as_deref()) {
            self.resource_version = Some(resource_version.to_owned());
        }
        self.generation = self.generation.max(generation);
    }
}

fn number(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

fn same<S: PartialEq>(a: &Arc<S>, b: &Arc<S>) -> bool {
    Arc::ptr_eq(a, b) || **a == **b
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(status: Value) -> Shown<Value> {
        Shown::new("u".to_owned(), None, 1, status)
    }

    fn patch(shown: &mut Shown<Value>, version: u64, wanted: Value) -> Option<Value> {
        shown.want(wanted);
        shown.patch(version).map(|body| serde_json::from_str(body.text().unwrap().get()).unwrap())
    }

    #[test]
    fn a_patch_undoes_what_is_still_on_its_way() {
        let mut shown = shown(json!({"a": 1, "b": {"x": 1}}));
        assert_eq!(patch(&mut shown, 1, json!({"a": 2, "b": {"x": 1}})), Some(json!({"a": 2})));
        shown.submitted(Submitted::New);
        let back = json!({"a": 1, "b": {"x": 2}});
        assert_eq!(patch(&mut shown, 2, back.clone()), Some(json!({"a": 1, "b": {"x": 2}})));
        shown.submitted(Submitted::New);
        assert_eq!(patch(&mut shown, 3, back), None);
        shown.acknowledged(1, "5", 1);
        assert!(!shown.is_current());
        shown.acknowledged(2, "6", 1);
        assert!(shown.is_current());
    }

    #[test]
    fn what_is_on_its_way_is_not_forgotten_for_an_earlier_conflict() {
        let mut shown = shown(json!({"a": 1}));
        patch(&mut shown, 1, json!({"a": 2}));
        patch(&mut shown, 2, json!({"a": 2, "c": 1}));
        shown.adopt(json!({"x": 1}), None, 1);
        assert_eq!(patch(&mut shown, 3, json!({"a": 2})), Some(json!({"a": 2, "c": null, "x": null})));
        shown.acknowledged(2, "6", 1);
        shown.acknowledged(3, "7", 1);
        assert!(shown.is_current());
    }

    #[test]
    fn a_status_of_somebody_else_is_seen_once_ours_are_settled() {
        let mut shown = Shown::new("u".to_owned(), Some("4".to_owned()), 1, json!({"a": 1}));
        let theirs = json!({"a": 1, "x": 1});
        assert!(!shown.notice_overwritten(Some("4"), Some(&theirs)), "older news");
        assert!(!shown.notice_overwritten(Some("5"), Some(&json!({"a": 1}))), "only the spec is new");
        patch(&mut shown, 1, json!({"a": 2}));
        assert!(!shown.notice_overwritten(Some("6"), Some(&theirs)), "ours is on its way");
        assert!(!shown.acknowledged(1, "7", 1), "and came to lie over it");
        assert!(shown.notice_overwritten(Some("8"), Some(&theirs)));
        assert_eq!(patch(&mut shown, 2, json!({"a": 2})), Some(json!({"a": 2, "x": null})));
    }

    #[test]
    fn a_status_of_somebody_else_upon_ours_is_seen_with_the_answer_to_ours() {
        let mut shown = Shown::new("u".to_owned(), Some("4".to_owned()), 1, json!({"a": 1}));
        patch(&mut shown, 1, json!({"a": 2}));
        let theirs = json!({"a": 2, "x": 1});
        assert!(!shown.notice_overwritten(Some("6"), Some(&theirs)));
        assert!(shown.acknowledged(1, "5", 1));
        assert_eq!(patch(&mut shown, 2, json!({"a": 2})), Some(json!({"x": null})));
        assert_eq!(shown.resource_version.as_deref(), Some("6"));
        assert!(!shown.acknowledged(2, "7", 1));

        patch(&mut shown, 3, json!({"a": 3}));
        assert!(!shown.notice_overwritten(Some("9"), Some(&theirs)));
        assert!(!shown.notice_overwritten(Some("10"), Some(&json!({"a": 3}))), "somebody put ours back");
        assert!(!shown.acknowledged(3, "8", 1));

        patch(&mut shown, 4, json!({"a": 4}));
        shown.advance(Some("12".to_owned()), Some(&json!({"a": 3})));
        assert!(!shown.notice_overwritten(Some("13"), Some(&json!({"a": 3}))));
        shown.advance(Some("13".to_owned()), Some(&json!({"a": 3})));
        assert!(shown.acknowledged(4, "11", 1), "somebody put what was there before ours back");
        assert_eq!(patch(&mut shown, 5, json!({"a": 4})), Some(json!({"a": 4})));
    }

    #[test]
    fn what_a_watch_has_told_is_newer_than_what_was_found_in_the_place_of_ours() {
        let mut shown = Shown::new("u".to_owned(), Some("4".to_owned()), 1, json!({"a": 1}));
        patch(&mut shown, 1, json!({"a": 2}));
        assert!(!shown.notice_overwritten(Some("12"), Some(&json!({"x": 1}))));
        // Its answer was lost: found is our own write, at an older version.
        shown.adopt(json!({"a": 2}), Some("10".to_owned()), 1);
        assert_eq!(patch(&mut shown, 2, json!({"a": 2})), Some(json!({"a": 2, "x": null})));
        assert_eq!(shown.resource_version.as_deref(), Some("12"));

        assert!(!shown.notice_overwritten(Some("13"), Some(&json!({"x": 2}))));
        shown.adopt(json!({"y": 1}), Some("14".to_owned()), 2);
        assert_eq!(patch(&mut shown, 3, json!({"a": 2})), Some(json!({"a": 2, "y": null})), "found later than that");
        shown.acknowledged(3, "15", 1);

        // In the place of a spec, while no status was on its way.
        assert!(shown.notice_overwritten(Some("17"), Some(&json!({"x": 3}))));
        shown.advance(Some("17".to_owned()), Some(&json!({"x": 3})));
        shown.adopt(json!({"a": 2}), Some("16".to_owned()), 4);
        assert_eq!(patch(&mut shown, 5, json!({"a": 2})), Some(json!({"a": 2, "x": null})));
    }

    #[test]
    fn a_version_that_a_watch_has_told_of_is_not_forgotten_for_an_answer() {
        let mut shown = Shown::new("u".to_owned(), Some("4".to_owned()), 1, json!({"a": 1}));
        patch(&mut shown, 1, json!({"a": 2}));
        shown.advance(Some("6".to_owned()), Some(&json!({"a": 2})));
        shown.acknowledged(1, "5", 1);
        assert_eq!(shown.resource_version.as_deref(), Some("6"), "ours, and an edit of the spec behind it");
    }

    #[test]
    fn ours_conflicts_with_a_status_of_somebody_else_that_it_was_made_without() {
        let mut shown = Shown::new("u".to_owned(), Some("4".to_owned()), 1, json!({"a": 1}));
        patch(&mut shown, 1, json!({"a": 2}));
        let mut seen = |version: &str, status: Value| {
            shown.advance(Some(version.to_owned()), Some(&status));
            shown.resource_version.clone().unwrap()
        };
        assert_eq!(seen("5", json!({"a": 1, "x": 1})), "4");
        assert_eq!(seen("6", json!({"a": 1})), "6", "only the spec is new");
        assert_eq!(seen("7", json!({"a": 2})), "7", "ours has arrived, before its answer");
        shown.acknowledged(1, "7", 1);
        shown.advance(Some("8".to_owned()), Some(&json!({"x": 1})));
        assert_eq!(shown.resource_version.as_deref(), Some("8"), "noticed by notice_overwritten, and undone");
    }

    #[test]
    fn what_never_left_need_not_be_undone() {
        let mut shown = shown(json!({"a": 1}));
        patch(&mut shown, 1, json!({"a": 2}));
        shown.submitted(Submitted::New);
        patch(&mut shown, 2, json!({"a": 3, "b": 1}));
        shown.submitted(Submitted::New);
        patch(&mut shown, 3, json!({"a": 4}));
        shown.submitted(Submitted::InPlaceOfUnsent);
        assert_eq!(patch(&mut shown, 4, json!({"a": 1})), Some(json!({"a": 1})), "b was only in the second");
        shown.submitted(Submitted::InPlaceOfUnsent);
        shown.acknowledged(1, "5", 1);
        assert!(!shown.is_current());
        shown.acknowledged(4, "6", 1);
        assert!(shown.is_current());
    }
}
