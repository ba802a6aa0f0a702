//! The steps of a rotation, as a pure function of the Secret's content and the time.
//!
//! Every API server must trust a certificate before it is served, and trust the one before as long as somebody may serve it. So the
//! next pair is made first, and its authority published; after the overlap it is served; after another overlap the old authority
//! goes. Each step is one write to the Secret with its resourceVersion: whichever replica comes first makes it, the others follow.

use std::time::Duration;

use jiff::Timestamp;

use super::pair::Pair;

/// What the Secret holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// Served now.
    pub(super) current: Pair,
    /// Until when it is good.
    pub(super) expires: Timestamp,
    /// The names it is for, or those of the next where there is one.
    pub(super) names: Vec<String>,
    /// Served next, once every API server trusts it.
    pub(super) next: Option<(Pair, Timestamp)>,
    /// Trusted still: a replica may serve the certificate before.
    pub(super) previous: Option<String>,
    /// When the last step was made.
    pub(super) since: Timestamp,
}

/// How certificates are made and how long steps take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    /// How long a certificate is good.
    pub(super) lifetime: Duration,
    /// The names of the server.
    pub(super) names: Vec<String>,
    /// How long the API servers may take to hear of another authority, and replicas of another certificate.
    pub(super) overlap: Duration,
}

impl State {
    /// All authorities that are to be trusted, in PEM.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|(pair, _)| pair.authority.as_str());
        [Some(self.current.authority.as_str()), next, self.previous.as_deref()].into_iter().flatten().collect()
    }

    /// The state after the step that is due now; None while none is. `trusted`: how long the API servers have been told to trust
    /// all that [`State::bundle`] names.
    pub(super) fn step(
        &self,
        now: Timestamp,
        trusted: Duration,
        pace: &Pace,
        make: impl FnOnce() -> anyhow::Result<Pair>,
    ) -> anyhow::Result<Option<Self>> {
        let waited = elapsed(self.since, now) >= pace.overlap;
        if let Some((next, expires)) = &self.next {
            // Not by the clock alone: who was never told whom to trust would refuse the next certificate.
            let waited = waited && trusted >= pace.overlap;
            let served = Self {
                current: next.clone(),
                expires: *expires,
                names: self.names.clone(),
                next: None,
                previous: Some(self.current.authority.clone()),
                since: now,
            };
            return Ok(waited.then_some(served));
        }
        if self.previous.is_some() {
            return Ok(waited.then(|| Self { previous: None, since: now, ..self.clone() }));
        }
        // The last third of its life is time enough for everything that may go wrong.
        let due = elapsed(now, self.expires) <= pace.lifetime / 3 || self.names != pace.names;
        if !due {
            return Ok(None);
        }
        let next = (make()?, now + pace.lifetime);
        Ok(Some(Self { next: Some(next), names: pace.names.clone(), since: now, ..self.clone() }))
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> Pair {
        Pair { certificate: format!("cert {name}\n"), key: format!("key {name}\n"), authority: format!("ca {name}\n") }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pace(name: &str) -> Pace {
        Pace { lifetime: Duration::from_secs(900), names: vec![name.to_owned()], overlap: Duration::from_secs(10) }
    }

    fn first() -> State {
        State { current: pair("a"), expires: at(900), names: vec!["one".to_owned()], next: None, previous: None, since: at(0) }
    }

    fn step(state: &State, second: i64) -> Option<State> {
        state.step(at(second), TOLD, &pace("one"), || Ok(pair("b"))).unwrap()
    }

    /// The API servers have heard of everything long ago.
    const TOLD: Duration = Duration::from_secs(3600);

    #[test]
    fn what_nobody_was_told_to_trust_is_not_served() {
        let announced = step(&first(), 600).unwrap();
        for told in [Duration::ZERO, Duration::from_secs(9)] {
            assert_eq!(announced.step(at(800), told, &pace("one"), || Ok(pair("c"))).unwrap(), None);
        }
        assert_eq!(announced.step(at(800), Duration::from_secs(10), &pace("one"), || Ok(pair("c"))).unwrap().unwrap().current, pair("b"));
    }

    #[test]
    fn a_certificate_is_trusted_before_it_is_served_and_as_long_as_it_may_be() {
        assert_eq!(step(&first(), 599), None);
        let announced = step(&first(), 600).unwrap();
        assert_eq!((announced.current.clone(), announced.bundle().as_str()), (pair("a"), "ca a\nca b\n"));
        assert_eq!(step(&announced, 609), None, "not every API server may know it yet");
        let served = step(&announced, 610).unwrap();
        assert_eq!((served.current.clone(), served.expires, served.bundle().as_str()), (pair("b"), at(1500), "ca b\nca a\n"));
        assert_eq!(step(&served, 619), None, "a replica may still serve the old one");
        let done = step(&served, 620).unwrap();
        assert_eq!((done.bundle().as_str(), done.next.clone()), ("ca b\n", None));
        assert_eq!(step(&done, 621), None);
        assert_eq!(step(&done, 1200).unwrap().bundle(), "ca b\nca b\n");
    }

    #[test]
    fn one_that_has_expired_meanwhile_goes_through_the_same_steps() {
        let announced = step(&first(), 5000).unwrap();
        assert_eq!(announced.next, Some((pair("b"), at(5900))));
        assert_eq!(step(&announced, 5010).unwrap().current, pair("b"));
    }

    #[test]
    fn another_name_needs_another_certificate_once() {
        let announced = first().step(at(1), TOLD, &pace("two"), || Ok(pair("b"))).unwrap().unwrap();
        let served = announced.step(at(11), TOLD, &pace("two"), || Ok(pair("c"))).unwrap().unwrap();
        let done = served.step(at(21), TOLD, &pace("two"), || Ok(pair("c"))).unwrap().unwrap();
        assert_eq!((done.current.clone(), done.step(at(22), TOLD, &pace("two"), || Ok(pair("c"))).unwrap()), (pair("b"), None));
    }

    #[test]
    fn a_clock_that_goes_back_only_delays() {
        let announced = step(&first(), 600).unwrap();
        assert_eq!(step(&announced, 100), None);
    }
}
