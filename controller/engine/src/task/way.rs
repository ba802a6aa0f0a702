//! Statuses give way to journals.

use std::time::Duration;

use tokio::time::Instant;

use crate::writer::GiveWay;

/// So much way is given at once, and then half of the time: somebody waits all the time while nodes come up one after the other, or
/// while the API server refuses a journal, and statuses must go on.
const LONGEST: Duration = Duration::from_secs(5);

/// The way that is given now, with an account of it.
#[derive(Debug)]
pub(super) struct Way<G = GiveWay> {
    given: Option<G>,
    /// What was given and not made good since by as much time without.
    spent: Duration,
    /// As of then.
    at: Option<Instant>,
}

impl<G> Default for Way<G> {
    fn default() -> Self {
        Self { given: None, spent: Duration::ZERO, at: None }
    }
}

impl<G> Way<G> {
    /// Gives way while a call or a node waits for a journal: from when it begins to wait, as to get there and to be read beside statuses
    /// takes longer than the write itself.
    pub(super) fn mind(&mut self, awaited: bool, now: Instant, give: impl FnOnce() -> G) {
        let passed = self.at.replace(now).map_or(Duration::ZERO, |at| now.duration_since(at));
        self.spent = if self.given.is_some() { self.spent + passed } else { self.spent.saturating_sub(passed) };
        if !awaited || self.spent >= LONGEST {
            self.given = None;
        } else if self.given.is_none() {
            self.given = Some(give());
        }
    }

    #[cfg(test)]
    pub(super) fn is_given(&self) -> bool {
        self.given.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    /// For how many of so many steps way is given, when somebody waits in those that `awaited` says.
    fn given(steps: u32, awaited: impl Fn(u32) -> bool) -> usize {
        const STEP: Duration = Duration::from_millis(50);
        let (mut way, writer, start) = (Way::default(), Rc::new(()), Instant::now());
        let is_given = |step: &u32| {
            way.mind(awaited(*step), start + STEP * *step, || Rc::clone(&writer));
            Rc::strong_count(&writer) > 1
        };
        (0..steps).filter(is_given).count()
    }

    #[test]
    fn way_is_given_while_somebody_waits() {
        assert_eq!(given(90, |_| false), 0);
        assert_eq!(given(90, |_| true), 90);
        assert_eq!(given(90, |step| (20..40).contains(&step)), 20);
    }

    #[test]
    fn half_of_the_time_is_for_statuses_if_somebody_always_waits() {
        let first = 100;
        let most = |steps: u32| first + (steps as usize - first) / 2 + 2;
        for pauses in [u32::MAX, 9, 3] {
            let steps = 1200;
            let count = given(steps, |step| step % pauses != pauses - 1);
            assert!(count <= most(steps), "{pauses}: {count}");
            assert!(count >= steps as usize / 2, "{pauses}: {count}");
        }
    }
}
