//! What a Session says of the services that it needs.

use bos_crds::ConditionStatus;
use bos_crds::reasons;

use crate::health::{Outage, Service, TRIED_AGAIN};
use crate::model::World;
use crate::session::{Session, SessionEnd, Stage};
use crate::time::{Timestamp, span_text};

/// Whether a Session needs a service at any time. A Shutdown needs HSM and power only (rule 14).
#[must_use]
pub fn uses(world: &World, session: &Session, service: Service) -> bool {
    use bos_crds::Operation::{Boot, Configure, Reboot, Shutdown};
    match service {
        Service::Hsm => true,
        Service::Pcs | Service::Capmc => service == world.power_service.service(),
        Service::Cfs => matches!(session.spec.operation, Boot | Reboot | Configure),
        Service::Bss | Service::Ims | Service::S3 => match session.spec.operation {
            Boot | Reboot => true,
            Shutdown | Configure => false,
        },
    }
}

/// Whether a Session that has not ended may still send a power action.
#[must_use]
pub fn switches_power(session: &Session) -> bool {
    !matches!(session.stage, Stage::Ended(_)) && session.spec.operation != bos_crds::Operation::Configure
}

/// The last outage of each service that this Session needs, as far as it fell into its life.
fn outages<'a>(world: &'a World, session: &'a Session) -> impl Iterator<Item = (Service, &'a Outage)> {
    let begun = session.run().map(|run| run.started);
    let since = begun.map_or(session.created, |started| started.min(session.created));
    // What its agent was told counts, where it has one.
    let of_agent = session.run().filter(|run| run.plan.agent && !world.is_agent).map(|run| run.outages.iter());
    let ours = of_agent.is_none().then(|| world.services.outages());
    let of_agent = of_agent.into_iter().flatten().map(|(service, outage)| (*service, outage));
    of_agent.chain(ours.into_iter().flatten()).filter(move |(service, outage)| {
        // Images are read at set-up and never again.
        let in_time = *service != Service::S3 || begun.is_none_or(|started| outage.since <= started);
        in_time && uses(world, session, *service) && outage.until.is_none_or(|until| until >= since)
    })
}

/// Services that this Session needs and that have been away for so long.
pub fn lasting<'a>(
    world: &'a World,
    session: &'a Session,
    least: std::time::Duration,
    now: Timestamp,
) -> impl Iterator<Item = (Service, &'a Outage)> {
    outages(world, session).filter(move |(_, outage)| outage.until.is_none() && now.since(outage.since) >= least)
}

/// Services that this Session needs and that are back after they were away for so long.
pub fn recovered<'a>(
    world: &'a World,
    session: &'a Session,
    least: std::time::Duration,
) -> impl Iterator<Item = (Service, &'a Outage, Timestamp)> {
    let back = outages(world, session).filter_map(|(service, outage)| Some((service, outage, outage.until?)));
    back.filter(move |(_, outage, until)| until.since(outage.since) >= least)
}

/// One condition for all services: what is away, and what was away since this session began.
pub(super) fn condition(world: &World, session: &Session) -> (ConditionStatus, &'static str, String) {
    let known: Vec<(Service, &Outage)> = outages(world, session).collect();
    let texts: Vec<String> = known.iter().map(|(service, outage)| outage_text(*service, outage)).collect();
    let fault = world.discovery.fault.as_deref();
    match known.iter().find(|(_, outage)| outage.until.is_none()) {
        Some((service, _)) => (ConditionStatus::False, unavailable(*service), texts.join("; ")),
        None if fault.is_some() && session.run().is_none() => {
            (ConditionStatus::False, reasons::HSM_FAULT, fault.unwrap_or_default().to_owned())
        }
        None => (ConditionStatus::True, reasons::SERVICES_ANSWER, texts.join("; ")),
    }
}

/// The same of a Session that has ended: nothing is waited for any more, whatever goes on.
pub(super) fn condition_at_end(world: &World, session: &Session, end: &SessionEnd) -> (ConditionStatus, &'static str, String) {
    let felt: Vec<(Service, &Outage)> = outages(world, session).filter(|(_, outage)| outage.since <= end.at).collect();
    let lasted = |outage: &Outage| outage.until.is_none_or(|until| until > end.at);
    let text = |(service, outage): &(Service, &Outage)| match lasted(outage) {
        true => format!("{service} was not available from {} until its end: {}", outage.since.clock(), outage.words()),
        false => outage_text(*service, outage),
    };
    let texts = felt.iter().map(text).collect::<Vec<_>>().join("; ");
    if felt.iter().any(|(_, outage)| lasted(outage)) {
        (ConditionStatus::Unknown, reasons::COMPLETE, texts)
    } else {
        (ConditionStatus::True, reasons::SERVICES_ANSWER, texts)
    }
}

/// The services that the message of a condition says are away.
pub fn told_away(message: &str) -> impl Iterator<Item = Service> {
    let says = |service: &Service| {
        let begin = format!("{service}{AWAY}");
        message.split("; ").any(|part| part.starts_with(&begin))
    };
    Service::ALL.into_iter().filter(says)
}

/// What is said of a service while it is away; what follows is since when.
const AWAY: &str = " is not available since ";

fn outage_text(service: Service, outage: &Outage) -> String {
    let (from, words) = (outage.since.clock(), outage.words());
    match outage.until {
        None => format!("{service}{AWAY}{from}: {words}; {TRIED_AGAIN}, no attempt is used"),
        Some(until) => {
            let span = span_text(until.since(outage.since));
            format!("{service} was not available for {span} from {from} on: {words}; no attempt was used")
        }
    }
}

/// The reason that says that a service does not answer.
#[must_use]
pub const fn unavailable(service: Service) -> &'static str {
    match service {
        Service::Hsm => reasons::HSM_UNAVAILABLE,
        Service::Pcs => reasons::PCS_UNAVAILABLE,
        Service::Capmc => reasons::CAPMC_UNAVAILABLE,
        Service::Bss => reasons::BSS_UNAVAILABLE,
        Service::Cfs => reasons::CFS_UNAVAILABLE,
        Service::Ims => reasons::IMS_UNAVAILABLE,
        Service::S3 => reasons::S3_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_condition_says_is_read_back() {
        let outage = |until| Outage {
            since: Timestamp::from_millis(0),
            until,
            detail: "post: 503: HSM is not available since noon; try later".into(),
            failures: 1,
            next_try: Timestamp::from_millis(0),
        };
        let over = outage(Some(Timestamp::from_millis(60_000)));
        let message =
            [outage_text(Service::Bss, &over), outage_text(Service::Pcs, &outage(None)), outage_text(Service::Cfs, &outage(None))];
        assert_eq!(told_away(&message.join("; ")).collect::<Vec<_>>(), [Service::Pcs, Service::Cfs], "{message:?}");
        assert_eq!(told_away("").count(), 0);
    }
}
