//! The shorter form of a journal that would be longer than the largest record.

use std::collections::BTreeMap;

use super::{Group, IssuedRecord, Journal, JournalError, MINUTE_MS, State};
use crate::model::EndKind;
use crate::ranges;

/// How exact instants are in a journal that would be too long otherwise.
const SECOND_MS: i64 = 1000;

impl Journal {
    /// The stored bytes, at most `limit` of them: where per-node texts of services would make it longer they are left out, and instants are
    /// less exact, as nodes that are powered on one after the other would share nothing otherwise.
    /// What decides is kept; a journal that cannot be written would stop every Session of the site (rule 15).
    ///
    /// # Errors
    /// As [`Journal::encode`].
    pub fn encode_within(mut self, limit: usize) -> Result<Vec<u8>, JournalError> {
        let whole = self.encode()?;
        if whole.len() <= limit {
            return Ok(whole);
        }
        // No less exact than need be.
        for step_ms in [SECOND_MS, MINUTE_MS] {
            self.shorten(step_ms)?;
            let short = self.encode()?;
            if short.len() <= limit {
                return Ok(short);
            }
        }
        self.encode()
    }

    /// Leaves out texts and rounds instants. Nodes that differed in that alone share an entry again: one each would still be too long.
    fn shorten(&mut self, step_ms: i64) -> Result<(), JournalError> {
        let mut merged: BTreeMap<State, Vec<u32>> = BTreeMap::new();
        for Group { mut state, nodes } in std::mem::take(&mut self.groups) {
            if let Some(drive) = &mut state.drive {
                drive.cause = "".into();
                drive.error = "".into();
            }
            if let Some(end) = &mut state.end {
                end.message = "See the log of the operator.".into();
                if end.kind == EndKind::Succeeded {
                    // Nothing is to be waited out any more, and the status says what was done.
                    state.action = None;
                    state.earlier = None;
                }
            }
            state.round(step_ms);
            let nodes = ranges::decode(&nodes, u32::MAX).ok_or(JournalError::Positions(nodes))?;
            merged.entry(state).or_default().extend(nodes);
        }
        self.groups = merged
            .into_iter()
            .map(|(state, mut nodes)| {
                nodes.sort_unstable();
                Group { state, nodes: ranges::encode(&nodes) }
            })
            .collect();
        Ok(())
    }
}

impl State {
    /// Makes instants less exact, all of them later: to this step where nothing waits for the action any more, for the node has booted or
    /// ended, and to the second elsewhere.
    fn round(&mut self, step_ms: i64) {
        let over = self.end.is_some() || self.drive.as_ref().is_some_and(|drive| drive.booted_ms.is_some());
        let step = if over { step_ms } else { SECOND_MS };
        if let Some(action) = &mut self.action {
            action.round(step);
        }
        if let Some((_, at_ms)) = &mut self.earlier {
            *at_ms = rounded_up(*at_ms, step_ms);
        }
        if let Some(drive) = &mut self.drive {
            round_up(&mut drive.last_on_ms, step);
            round_up(&mut drive.held_in_ms, SECOND_MS);
            if let Some((_, _, remaining)) = &mut drive.hold {
                *remaining = rounded_up(*remaining, SECOND_MS);
            }
        }
        let flights = self.drive.iter_mut().filter_map(|drive| drive.in_flight.as_mut());
        for flight in flights.chain(self.left.iter_mut().filter_map(|left| left.flight.as_mut())) {
            flight.issued.round(SECOND_MS);
            round_up(&mut flight.last_on_ms, SECOND_MS);
        }
        if let Some(left) = &mut self.left {
            round_up(&mut left.unsettled_in_ms, SECOND_MS);
        }
    }
}

impl IssuedRecord {
    fn round(&mut self, step_ms: i64) {
        self.age_ms = self.age_ms.div_euclid(step_ms) * step_ms;
        self.power_in_ms = rounded_up(self.power_in_ms, step_ms);
        self.boot_in_ms = rounded_up(self.boot_in_ms, step_ms);
        round_up(&mut self.wall_ms, step_ms);
    }
}

pub(super) fn rounded_up(ms: i64, step_ms: i64) -> i64 {
    ms.saturating_add(step_ms - 1).div_euclid(step_ms).saturating_mul(step_ms)
}

fn round_up(ms: &mut Option<i64>, step_ms: i64) {
    *ms = ms.map(|ms| rounded_up(ms, step_ms));
}
