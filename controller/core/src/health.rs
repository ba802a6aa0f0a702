//! Which services answer. A service that does not is one condition on the Session, with back-off; it burns no attempts (rule 14).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The outside services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Hardware State Manager.
    Hsm,
    /// Power Control Service.
    Pcs,
    /// Cray Advanced Platform Monitoring and Control: switches power where there is no PCS.
    Capmc,
    /// Boot Script Service.
    Bss,
    /// Configuration Framework Service.
    Cfs,
    /// Image Management Service.
    Ims,
    /// Object store with images.
    S3,
}

impl Service {
    /// Every service, in the order in which configuration and reports name them.
    pub const ALL: [Self; 7] = [Self::Hsm, Self::Pcs, Self::Capmc, Self::Bss, Self::Cfs, Self::Ims, Self::S3];

    /// The name in metric labels and configuration keys.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hsm => "hsm",
            Self::Pcs => "pcs",
            Self::Capmc => "capmc",
            Self::Bss => "bss",
            Self::Cfs => "cfs",
            Self::Ims => "ims",
            Self::S3 => "s3",
        }
    }

    /// Its name as people say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hsm => "HSM",
            Self::Pcs => "PCS",
            Self::Capmc => "CAPMC",
            Self::Bss => "BSS",
            Self::Cfs => "CFS",
            Self::Ims => "IMS",
            Self::S3 => "S3",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which service tells and switches power: PCS, or CAPMC on a CSM that has no PCS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerService {
    /// Every accepted request is a transition, which tells the end of each node.
    #[default]
    Pcs,
    /// What it accepted is begun; only looks at the nodes show its end.
    Capmc,
}

impl PowerService {
    /// The service that is called.
    #[must_use]
    pub const fn service(self) -> Service {
        match self {
            Self::Pcs => Service::Pcs,
            Self::Capmc => Service::Capmc,
        }
    }

    /// Whether it tells the end of what it accepted.
    #[must_use]
    pub const fn tells_the_end(self) -> bool {
        match self {
            Self::Pcs => true,
            Self::Capmc => false,
        }
    }
}

impl fmt::Display for PowerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service().name())
    }
}

impl FromStr for PowerService {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pcs" => Ok(Self::Pcs),
            "capmc" => Ok(Self::Capmc),
            other => Err(format!("{other:?} is not pcs or capmc")),
        }
    }
}

/// An outage, from the first failed call to the first that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// First failure.
    pub since: Timestamp,
    /// First success after it; None while it lasts.
    pub until: Option<Timestamp>,
    /// What the service answered last.
    pub detail: Arc<str>,
    /// Failures in a row.
    pub failures: u32,
    /// No call before.
    pub next_try: Timestamp,
}

/// Health of all services.
#[derive(Debug, Clone, Default)]
pub struct Services {
    absent: BTreeSet<Service>,
    outages: BTreeMap<Service, Outage>,
}

/// Longest pause between two calls to a service that does not answer.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The same for people.
pub(crate) const TRIED_AGAIN: &str = "tried again at least every 10 s";

impl Outage {
    /// What the service answered last, to be put into a sentence: without a full stop.
    #[must_use]
    pub fn words(&self) -> &str {
        clause(&self.detail)
    }
}

/// A text of a service as a part of a sentence of ours.
#[must_use]
pub fn clause(text: &str) -> &str {
    text.trim_end_matches(['.', ' '])
}

impl Services {
    /// All services but those that this site does not have.
    #[must_use]
    pub fn without(absent: impl IntoIterator<Item = Service>) -> Self {
        Self { absent: absent.into_iter().collect(), outages: BTreeMap::new() }
    }

    /// Whether the site has it.
    #[must_use]
    pub fn has(&self, service: Service) -> bool {
        !self.absent.contains(&service)
    }

    /// A call succeeded. True when this ends an outage.
    pub fn answered(&mut self, service: Service, now: Timestamp) -> bool {
        match self.outages.get_mut(&service) {
            Some(outage) if outage.until.is_none() => {
                outage.until = Some(now);
                true
            }
            _ => false,
        }
    }

    /// A call failed in a way that says the service is not well.
    pub fn failed(&mut self, service: Service, detail: &str, now: Timestamp) {
        let fresh = Outage { since: now, until: None, detail: detail.into(), failures: 0, next_try: now };
        let outage = self.outages.entry(service).or_insert_with(|| fresh.clone());
        if outage.until.is_some() {
            *outage = fresh;
        }
        outage.failures = outage.failures.saturating_add(1);
        outage.detail = detail.into();
        outage.next_try = now + pause(outage.failures);
    }

    /// Whether a call may leave now.
    #[must_use]
    pub fn may_call(&self, service: Service, now: Timestamp) -> bool {
        self.down(service).is_none_or(|outage| now >= outage.next_try)
    }

    /// The outage of a service, while it lasts.
    #[must_use]
    pub fn down(&self, service: Service) -> Option<&Outage> {
        self.outages.get(&service).filter(|outage| outage.until.is_none())
    }

    /// All services with their last outage, over or not.
    pub fn outages(&self) -> impl Iterator<Item = (Service, &Outage)> {
        self.outages.iter().map(|(service, outage)| (*service, outage))
    }

    /// When a waiting call may leave, the earliest.
    #[must_use]
    pub fn next_try(&self) -> Option<Timestamp> {
        self.outages.values().filter(|outage| outage.until.is_none()).map(|outage| outage.next_try).min()
    }
}

/// 0.5, 1, 2, 4, 8, 10, 10 ... seconds.
fn pause(failures: u32) -> Duration {
    Duration::from_millis(500).saturating_mul(1 << failures.saturating_sub(1).min(10)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_from_the_first_failure_to_the_first_answer() {
        let mut services = Services::default();
        let at = |s: i64| Timestamp::from_millis(s * 1000);
        assert!(!services.answered(Service::Pcs, at(0)));
        services.failed(Service::Pcs, "503", at(1));
        services.failed(Service::Pcs, "503 again", at(2));
        assert!(!services.may_call(Service::Pcs, at(2)));
        assert!(services.may_call(Service::Pcs, at(3)));
        assert!(services.may_call(Service::Hsm, at(2)));
        assert!(services.answered(Service::Pcs, at(9)));
        assert!(services.down(Service::Pcs).is_none());
        services.failed(Service::Pcs, "new", at(20));
        assert_eq!(services.down(Service::Pcs).map(|o| o.since), Some(at(20)));
    }
}
