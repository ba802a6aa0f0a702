//! One service fails in one way, at the beginning of a Session or in its middle.

use bos_crds::Session;
use bos_e2e::rig::{Rig, template};
use bos_e2e::site::{CallFilter, OutageKind, OutageSpec, PowerEvent, Service, SiteHandle};
use serde_json::json;

use crate::bench::{Bench, Commands, LIMIT, Result, condition, outcome};

/// When the service fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the Session is created.
    Beginning,
    /// After power-ons have been accepted: while they are followed (PCS), before nodes have loaded their boot script (BSS), or when
    /// the first node is up (CFS).
    Middle,
}

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    pub service: Service,
    pub kind: OutageKind,
    pub moment: Moment,
}

impl Trial {
    pub fn name(&self) -> String {
        let kind = serde_json::to_value(self.kind).unwrap_or_default();
        format!("{}-{}-{:?}", self.service.name(), kind.as_str().unwrap_or_default(), self.moment).to_lowercase()
    }

    /// Whether the operator must notice: it does not call BSS once nodes have power. IMS is called before every boot from an image
    /// that nodes mount by SBPS, to tag it.
    fn must_be_shown(&self) -> bool {
        match self.moment {
            Moment::Beginning => true,
            Moment::Middle => self.service == Service::Cfs,
        }
    }

    fn shown(&self, session: &Session) -> bool {
        condition(session, "ServicesAvailable") == ("False".to_owned(), format!("{}Unavailable", self.service.name().to_uppercase()))
    }

    /// Whether the middle of a Session has come.
    fn is_middle(&self, site: &SiteHandle, nodes: &[String], since: u64) -> bool {
        match self.service {
            Service::Cfs => nodes.iter().filter_map(|xname| site.node(xname)).any(|node| node.up),
            Service::Pcs => {
                let filter = CallFilter {
                    method: Some("POST".into()),
                    path: Some("/transitions".into()),
                    since: Some(since),
                    ..CallFilter::service(Service::Pcs)
                };
                site.calls(&filter).iter().any(|call| call.processed && call.ended.is_some())
            }
            _ => nodes.iter().filter_map(|xname| site.node(xname)).any(|node| node.power),
        }
    }
}

/// Boots these nodes, which have never been on: one that reported a moment ago is held when it is off without our doing.
pub async fn run(bench: &Bench, trial: &Trial, nodes: &[String]) -> Result {
    let name = trial.name();
    bench.template(&name, nodes, |_| {}).await?;
    let (mark, newest) = (bench.mark(), bench.site.calls(&CallFilter { limit: Some(1), ..CallFilter::default() }));
    let since = newest.last().map_or(0, |call| call.seq);
    let outage = OutageSpec::new(trial.service, trial.kind);
    if trial.moment == Moment::Beginning {
        bench.site.add_outage(outage.clone());
    }
    bench.rig.apply(&template::session(&name, &name, "Boot")).await?;
    if trial.moment == Moment::Middle {
        bench.at_site("the middle has come", |site| trial.is_middle(site, nodes, since)).await?;
        bench.site.add_outage(outage);
    }
    let result = lasting(bench, trial, &name, nodes).await;
    bench.site.clear_outages();
    result?;
    let ended = bench.ended(&name).await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{:?}", ended.status);
    let counts = ended.status.as_ref().unwrap().counts;
    assert_eq!((counts.succeeded, counts.failed, counts.power_cycled), (4, 0, 0));
    if trial.must_be_shown() {
        // In the end it is over, and the condition still tells of it.
        let status = json!(ended.status);
        let said =
            status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "ServicesAvailable").unwrap().clone();
        assert!(said["message"].as_str().unwrap().contains(&trial.service.name().to_uppercase()), "{said}");
        assert_eq!(said["status"], "True", "{said}");
    }
    bench.assert_commands(&mark, nodes, Commands::ONE_ON);
    for component in bench.components(nodes).await? {
        let status = json!(component.status);
        assert_eq!(
            (&status["attempts"]["powerOn"], &status["status"]),
            (&json!(1), &json!("Stable")),
            "{:?}: {status}",
            component.metadata.name
        );
    }
    Ok(())
}

/// Waits until the outage has been felt.
async fn lasting(bench: &Bench, trial: &Trial, name: &str, nodes: &[String]) -> Result {
    if trial.must_be_shown() {
        let seen = bench.rig.wait_session(name, |session| trial.shown(session) || Rig::is_complete(session), LIMIT).await?;
        anyhow::ensure!(trial.shown(&seen), "the Session ended without showing the outage: {:?}", seen.status);
    } else if trial.service == Service::Bss {
        let failed = |site: &SiteHandle, xname: &String| {
            let missed = |event: &PowerEvent| matches!(event, PowerEvent::BootFailed { .. } | PowerEvent::Up { .. });
            site.history(xname).iter().any(|record| missed(&record.event))
        };
        bench.at_site("nodes missed their boot script", |site| nodes.iter().all(|xname| failed(site, xname))).await?;
    } else {
        // Nobody needs the service any more: the Session ends while it is away.
        bench.ended(name).await?;
    }
    Ok(())
}

/// A Reboot while BSS is away: nodes are not switched off for a boot that nobody can prepare.
pub async fn before_a_power_off(bench: &Bench, nodes: &[String]) -> Result {
    let trial = Trial { service: Service::Bss, kind: OutageKind::Unavailable, moment: Moment::Beginning };
    bench.template("not-off", nodes, |_| {}).await?;
    bench.rig.apply(&template::session("up-first", "not-off", "Boot")).await?;
    bench.ended("up-first").await?;
    let mark = bench.mark();
    bench.site.add_outage(OutageSpec::new(trial.service, trial.kind));
    bench.rig.apply(&template::session("not-off", "not-off", "Reboot")).await?;
    let result = lasting(bench, &trial, "not-off", nodes).await;
    bench.assert_commands(&mark, nodes, Commands::NONE);
    bench.site.clear_outages();
    result?;
    let ended = bench.ended("not-off").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{:?}", ended.status);
    bench.assert_commands(&mark, nodes, Commands::ONE_CYCLE);
    Ok(())
}

/// The operator is restarted while PCS is away: who was told of the outage is told of its end.
pub async fn over_a_restart(bench: &Bench, nodes: &[String]) -> Result {
    let trial = Trial { service: Service::Pcs, kind: OutageKind::Unavailable, moment: Moment::Beginning };
    bench.template("restarted", nodes, |_| {}).await?;
    bench.site.add_outage(OutageSpec::new(trial.service, trial.kind));
    bench.rig.apply(&template::session("restarted", "restarted", "Boot")).await?;
    let result = lasting(bench, &trial, "restarted", nodes).await;
    let pid = bench.rig.operator().pid().ok_or_else(|| anyhow::anyhow!("the operator does not run"))?;
    bench.rig.operator().kill();
    bench.rig.operator().wait_restarted(pid).await;
    // Before the next process asks PCS for the first time, so that all it knows of the outage is what the status says.
    bench.site.clear_outages();
    result?;
    let ended = bench.ended("restarted").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{:?}", ended.status);
    let said =
        bench.rig.kubectl(&["get", "events", "-o", "json", "--field-selector=reason=ServiceBack,involvedObject.name=restarted"]).await?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    let notes: Vec<&str> = said["items"].as_array().unwrap().iter().filter_map(|event| event["message"].as_str()).collect();
    assert!(notes.iter().any(|note| note.starts_with("PCS is available again")), "{notes:?}");
    Ok(())
}
