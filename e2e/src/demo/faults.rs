//! What goes wrong in a demo, as words on the command line.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::rig::SiteClient;
use crate::site::{Faults, OutageKind, OutageSpec, Service};

/// One word of `--faults`.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// These faults, on so many nodes.
    Nodes(usize, Box<Faults>),
    /// An outage of a service.
    Outage(OutageSpec),
    /// A delay in front of every call.
    Latency(f64),
    /// A share of calls fails.
    Errors(f64),
    /// The operator is killed that often.
    Kill(Duration),
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: expected NAME=VALUE; --help lists them"))?;
        let nodes = |faults: Faults| Ok(Self::Nodes(number(name, value)?, Box::new(faults)));
        match name {
            "never-reports" => nodes(Faults { never_reports: true, ..Faults::default() }),
            "never-powers-on" => nodes(Faults { never_powers_on: true, ..Faults::default() }),
            "fails-first-boot" => nodes(Faults { fail_boots: 1, ..Faults::default() }),
            // Longer than any deadline that the demo sets for such nodes.
            "late" => nodes(Faults { report_late: Some(Duration::from_secs(25)), ..Faults::default() }),
            "bmc-unknown" => nodes(Faults { bmc_undefined: true, ..Faults::default() }),
            "stuck" => nodes(Faults { ignores_soft_off: true, ..Faults::default() }),
            "cfs-fails" => nodes(Faults { cfs_fails: true, ..Faults::default() }),
            "outage" => outage(value).map(Self::Outage),
            "latency" => seconds(name, value).map(|delay| Self::Latency(delay.as_secs_f64())),
            "errors" => share(name, value).map(Self::Errors),
            "kill" => seconds(name, value).map(Self::Kill),
            _ => Err(format!("{name}: no such fault; --help lists them")),
        }
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: {value} is not a number"))
}

fn share(name: &str, value: &str) -> Result<f64, String> {
    let share = Some(number(name, value)?).filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{name}: {value} is not a share from 0 to 1"))
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    let positive = Duration::try_from_secs_f64(number(name, value)?).ok().filter(|duration| !duration.is_zero());
    positive.ok_or_else(|| format!("{name}: {value} is not a number of seconds"))
}

fn outage(value: &str) -> Result<OutageSpec, String> {
    let mut parts = value.splitn(3, ':');
    let name = parts.next().unwrap_or_default();
    let service = Service::ALL.into_iter().find(|service| service.name().eq_ignore_ascii_case(name));
    let service = service.ok_or_else(|| format!("outage: {name} is not one of HSM, PCS, CAPMC, BSS, CFS, IMS, S3"))?;
    let lasts = seconds("outage", parts.next().ok_or("outage: expected NAME:SECONDS[:KIND]")?)?;
    let kind: OutageKind = match parts.next() {
        None => OutageKind::Unavailable,
        Some(kind) => serde_json::from_value(json!(kind)).map_err(|_| format!("outage: no kind {kind}; --help lists them"))?,
    };
    Ok(OutageSpec::new(service, kind).lasting(lasts))
}

/// All that goes wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    nodes: Vec<(usize, Faults)>,
    outages: Vec<OutageSpec>,
    latency: f64,
    errors: f64,
    /// The operator is killed that often.
    pub(super) kills: Option<Duration>,
}

impl Trouble {
    pub(super) fn of(faults: &[Fault]) -> Self {
        let mut all = Self::default();
        for fault in faults {
            match fault {
                Fault::Nodes(count, faults) => all.nodes.push((*count, (**faults).clone())),
                Fault::Outage(spec) => all.outages.push(spec.clone()),
                Fault::Latency(seconds) => all.latency = *seconds,
                Fault::Errors(share) => all.errors = *share,
                Fault::Kill(every) => all.kills = Some(*every),
            }
        }
        all
    }

    /// How many nodes have faults.
    pub(super) fn nodes_hurt(&self) -> usize {
        self.nodes.iter().map(|(count, _)| *count).fold(0, usize::saturating_add)
    }

    /// Whether nodes have faults, so that deadlines will pass.
    pub(super) fn hurts_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Lets it go wrong from now on. Each fault has nodes of its own, as far as there are enough.
    pub(super) async fn begin(&self, site: &SiteClient, nodes: usize) -> anyhow::Result<()> {
        let names: Vec<String> = site.nodes().await?.into_iter().map(|node| node.xname).collect();
        let mut left = names.iter();
        for (count, faults) in &self.nodes {
            let hurt: Vec<&String> = left.by_ref().take(*count).collect();
            anyhow::ensure!(hurt.len() == *count, "--faults name more nodes than the {nodes} there are");
            site.set_faults(&hurt, faults).await.context("setting faults of nodes")?;
        }
        let every = |value: serde_json::Value| {
            let services: serde_json::Map<_, _> = Service::ALL.iter().map(|service| (service.name().to_owned(), value.clone())).collect();
            json!({ "services": services })
        };
        if self.latency > 0.0 || self.errors > 0.0 {
            let settings = json!({"latency": self.latency, "errorRate": self.errors, "errorKind": "unavailable"});
            site.change_settings(&every(settings)).await.context("setting delays and errors of services")?;
        }
        for outage in &self.outages {
            site.add_outage(outage).await.context("beginning an outage")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(word: &str) -> Result<Fault, String> {
        word.parse()
    }

    #[test]
    fn every_fault_of_the_help_is_understood() {
        for name in ["never-reports", "never-powers-on", "fails-first-boot", "late", "bmc-unknown", "stuck", "cfs-fails"] {
            let Ok(Fault::Nodes(2, faults)) = parse(&format!("{name}=2")) else { panic!("{name}") };
            assert_ne!(*faults, Faults::default(), "{name}");
        }
        for kind in ["unavailable", "internal-error", "hang", "reset", "refuse", "garbage", "html", "empty", "store-down"] {
            assert!(matches!(parse(&format!("outage=PCS:10:{kind}")), Ok(Fault::Outage(_))), "{kind}");
        }
    }

    #[test]
    fn an_outage_has_service_time_and_kind() {
        let Ok(Fault::Outage(spec)) = parse("outage=s3:2.5") else { panic!("not an outage") };
        assert_eq!((spec.service, spec.kind, spec.lasts), (Service::S3, OutageKind::Unavailable, Some(Duration::from_millis(2500))));
    }

    #[test]
    fn a_mistake_is_named() {
        for (word, named) in [
            ("never-reports", "expected NAME=VALUE"),
            ("never-reports=some", "some is not a number"),
            ("sleepy=1", "sleepy: no such fault"),
            ("outage=DNS:3", "DNS is not one of"),
            ("outage=PCS", "NAME:SECONDS"),
            ("outage=PCS:0", "not a number of seconds"),
            ("outage=PCS:3:sulk", "no kind sulk"),
            ("latency=-1", "not a number of seconds"),
            ("errors=20", "not a share from 0 to 1"),
            ("errors=NaN", "not a share from 0 to 1"),
        ] {
            let error = parse(word).unwrap_err();
            assert!(error.contains(named), "{word}: {error}");
        }
    }
}
