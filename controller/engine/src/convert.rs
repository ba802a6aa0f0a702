//! From the objects of the API server to the model, field by field.

use std::sync::Arc;
use std::time::Duration;

use bos_core::by_hand::{Asked, Goal, Parked, Wish};
use bos_core::model::{Digest, Identity, NodeId, Owner, PowerSeen, Reported, SessionUid, Token, World};
use bos_core::options::Options;
use bos_core::plan::Evidence;
use bos_core::project::LAST_FAILED;
use bos_core::session::SessionSeen;
use bos_core::time::Timestamp;
use bos_core::xname::Xname;
use bos_crds::{BootComponent, BootEvidence, BootOptionsSpec, LastAction, PowerState, Session, SessionPhase, SessionStatus, reasons};
use kube::ResourceExt;

/// What the status of a node says that its agent writes: what was seen of its power. A node that the agent has switched off runs nothing
/// of what it said before.
pub fn shown_by_agent(world: &mut World, id: NodeId, object: &BootComponent) {
    let Some(status) = object.status.as_ref().filter(|status| status.is_observed()) else { return };
    let Some(node) = world.nodes.get_mut(id.0 as usize) else { return };
    // Old news, as everything in a status: it is shown, and no decision rests on it.
    node.power = Some(PowerSeen { power: power(status.power), at: Timestamp::from_millis(0), detail: "".into() });
    let off = matches!(status.last_action, Some(LastAction::PoweringOffGracefully | LastAction::PoweringOffForcefully));
    let since = status.last_action_time.as_ref().map(|at| Timestamp::from(at.0)).filter(|_| off && status.power == PowerState::Off);
    if since.is_some_and(|since| !node.spoke_since(since)) {
        (node.heard, node.reported) = (None, None);
    }
}

const fn power(state: PowerState) -> bos_core::model::Power {
    match state {
        PowerState::On => bos_core::model::Power::On,
        PowerState::Off => bos_core::model::Power::Off,
        PowerState::Unknown => bos_core::model::Power::Unknown,
    }
}

/// Labels and annotations by which GitOps tools mark what they track. Argo CD has taken the first for it by default, which Helm sets
/// too: what a chart makes comes again with the chart.
const TRACKING: [&str; 5] = [
    "app.kubernetes.io/instance",
    "argocd.argoproj.io/instance",
    "argocd.argoproj.io/tracking-id",
    "kustomize.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/name",
];

/// A Session for the World.
#[must_use]
pub fn session(object: &Session) -> Option<SessionSeen> {
    let tracked = is_tracked(object);
    let created = Timestamp::from(object.creation_timestamp()?.0);
    Some(SessionSeen {
        uid: SessionUid(object.uid()?.into()),
        namespace: object.namespace()?.into(),
        name: object.name_any().into(),
        created,
        generation: object.metadata.generation.unwrap_or_default(),
        tracked,
        spec: object.spec.clone(),
        complete: object
            .status
            .as_ref()
            .filter(|status| status.phase == Some(SessionPhase::Complete))
            .map(|status| ended_at(status).unwrap_or(created)),
    })
}

/// When a Session ended, as its status says.
fn ended_at(status: &SessionStatus) -> Option<Timestamp> {
    status.end_time.as_ref().map(|at| Timestamp::from(at.0))
}

/// Puts what a BootComponent says into the World: its spec always, its status only while `loading` (rule 12).
pub fn component(world: &mut World, object: &BootComponent, loading: bool, now: Timestamp) -> Option<NodeId> {
    let xname = Xname::parse(&object.name_any()).ok()?;
    let id = world.intern(&xname);
    let suspended = object.spec.suspend;
    let retry_policy = object.spec.retry_policy.and_then(|limit| u16::try_from(limit).ok());
    let owner = object.spec.session.as_ref().map(|owner| {
        // Nobody is newer than all that is to come, whatever somebody wrote there.
        let created = Timestamp::from(owner.created_at.0).min(now + SKEW);
        Owner { created, uid: SessionUid(owner.uid.as_str().into()) }
    });
    let by_hand = object.status.as_ref().filter(|_| loading).and_then(|status| status.owned_since.as_ref());
    world.fold_owner(id, owner, by_hand.map(|at| Timestamp::from(at.0)));
    if loading {
        world.load_asked(id, asked(object), &wish(object));
    }
    let node = world.nodes.get_mut(id.0 as usize)?;
    let changed = !node.recorded || node.suspended != suspended || node.retry_policy != retry_policy;
    node.recorded = true;
    node.suspended = suspended;
    node.retry_policy = retry_policy;
    if loading {
        load_status(node, object, now);
    }
    if changed {
        world.touched.insert(id);
    }
    Some(id)
}

/// The clock of the API server, which tells when a Session was created, may be ahead of ours by that.
const SKEW: Duration = Duration::from_secs(60);

/// What was answered of what a BootComponent asks for; None where its status was never written.
#[must_use]
pub fn asked(object: &BootComponent) -> Option<Asked> {
    let status = object.status.as_ref().filter(|status| status.is_observed())?;
    let (taken, applied) = (status.run.as_deref().map(Arc::from), status.applied_staged.as_deref().map(Arc::from));
    Some(Asked { taken, applied, ..Asked::default() })
}

/// A GitOps tool tracks it.
fn is_tracked(object: &impl ResourceExt) -> bool {
    TRACKING.iter().any(|mark| object.labels().contains_key(*mark) || object.annotations().contains_key(*mark))
}

/// What a BootComponent asks for by hand.
#[must_use]
pub fn wish(object: &BootComponent) -> Wish {
    let spec = &object.spec;
    let text = |text: &Option<String>| text.as_deref().map(Arc::from);
    let goal = |artifacts: &Option<String>, image: &Option<String>, configuration: &Option<String>| Goal {
        artifacts: text(artifacts),
        image: text(image).unwrap_or_default(),
        configuration: text(configuration).unwrap_or_default(),
    };
    let parked = spec.staged_state.as_ref().map(|staged| Parked {
        operation: staged.operation.into(),
        goal: goal(&staged.artifacts, &staged.image, &staged.configuration),
        session: SessionUid(staged.session.uid.as_str().into()),
        namespace: staged.session.namespace.as_str().into(),
    });
    Wish {
        run: text(&spec.run),
        goal: spec.desired_state.as_ref().map(|wanted| goal(&wanted.artifacts, &wanted.image, &wanted.configuration)),
        tracked: is_tracked(object),
        session: spec.session.as_ref().map(|session| SessionUid(session.uid.as_str().into())),
        apply: text(&spec.apply_staged),
        parked,
    }
}

fn load_status(node: &mut bos_core::model::Node, object: &BootComponent, now: Timestamp) {
    let Some(status) = object.status.as_ref().filter(|status| status.is_observed()) else { return };
    let power = power(status.power);
    node.macs = status.macs.iter().map(|mac| Arc::from(mac.as_str())).collect();
    node.before = Identity {
        nid: status.nid,
        empty: bos_crds::conditions::find(&status.conditions, bos_crds::conditions::IN_INVENTORY)
            .is_some_and(|condition| condition.reason == reasons::EMPTY_IN_HSM),
    };
    // What was driven and is not taken up again has lost its records: it failed in that Session.
    let failed = status.last_session.as_ref().filter(|session| session.outcome == LAST_FAILED || status.enabled);
    node.failed_in = failed.map(|session| (session.namespace.as_str().into(), session.name.as_str().into()));
    // Old news: it is shown, but every decision asks for a newer look.
    node.power = Some(PowerSeen { power, at: Timestamp::from_millis(0), detail: "".into() });
    let Some(actual) = &status.actual_state else { return };
    let Some(token) = &actual.bss_token else { return };
    let since = actual.last_updated.as_ref().map_or(now, |at| Timestamp::from(at.0)).min(now);
    node.reported = Some(Reported {
        token: Token(token.as_str().into()),
        artifacts: actual.artifacts.as_deref().map(|digest| Digest(digest.into())),
        since,
        // Its age counts only time in which we could have heard (rule 4): it begins anew.
        at: now,
        // Of one that has expired the image is not shown any more.
        expired: actual.artifacts.is_some() && actual.image.is_none(),
    });
}

/// The options of a BootOptions object in the units of the model. Problems are values that are not used; the last good one stays.
#[must_use]
pub fn options(spec: &BootOptionsSpec, last_good: &Options) -> (Options, Vec<String>) {
    let mut problems = Vec::new();
    let seconds = |value: i32| Duration::from_secs(u64::try_from(value).unwrap_or(0));
    let count = |value: i32| usize::try_from(value).unwrap_or(0);
    let ttl = age(&spec.component_actual_state_ttl);
    if ttl.is_none() {
        problems.push(format!(
            "componentActualStateTtl: {:?} is not an age such as 4h; {} stays in force",
            spec.component_actual_state_ttl, last_good.actual_state_ttl_text
        ));
    }
    let batch_size = if spec.max_component_batch_size == 0 { usize::MAX } else { count(spec.max_component_batch_size) };
    let options = Options {
        clear_stage: spec.clear_stage,
        retry_policy: u16::try_from(spec.default_retry_policy).unwrap_or(u16::MAX),
        batch_size,
        max_boot_wait: seconds(spec.max_boot_wait_time_seconds),
        v1_boot_wait: seconds(spec.v1_boot_wait_time_seconds),
        v1_ssh_check: spec.v1_ssh_check,
        max_power_on_wait: seconds(spec.max_power_on_wait_time_seconds),
        max_power_off_wait: seconds(spec.max_power_off_wait_time_seconds),
        power_unknown_wait: seconds(spec.power_unknown_wait_time_seconds),
        configuration_wait: seconds(spec.configuration_wait_time_seconds),
        template_wait: seconds(spec.template_wait_time_seconds),
        discovery_frequency: seconds(spec.discovery_frequency_seconds.max(1)),
        actual_state_ttl: ttl.unwrap_or(last_good.actual_state_ttl),
        actual_state_ttl_text: if ttl.is_some() {
            spec.component_actual_state_ttl.as_str().into()
        } else {
            last_good.actual_state_ttl_text.clone()
        },
        ims_errors_fatal: spec.ims_errors_fatal,
        ims_images_must_exist: spec.ims_images_must_exist,
        evidence: match spec.boot_evidence {
            BootEvidence::NodeReport => Evidence::NodeReport,
            BootEvidence::HsmReady => Evidence::HsmReady,
            BootEvidence::PowerState => Evidence::PowerState,
        },
        session_ttl: age(&spec.cleanup_completed_session_ttl).filter(|ttl| !ttl.is_zero()),
        polling_frequency: seconds(spec.polling_frequency_seconds),
        max_nodes_in_flight: count(spec.max_nodes_in_flight),
        power_ons_per_second: count(spec.power_ons_per_second),
        include_management: spec.include_management,
        limit_required: spec.session_limit_required,
        reject_nids: spec.reject_nids,
        session_namespaces: spec.session_namespaces.iter().map(|name| Arc::from(name.as_str())).collect(),
        inventory_shrink_percent: count(spec.inventory_shrink_percent),
        mass_timeout_minimum: count(spec.mass_boot_timeout_minimum),
        mass_timeout_percent: count(spec.mass_boot_timeout_percent),
    };
    (options, problems)
}

/// Values that are in force and likely a mistake, each with what it does.
#[must_use]
pub fn doubts(spec: &BootOptionsSpec) -> Vec<String> {
    let mut doubts = Vec::new();
    let mut doubt = |holds: bool, text: String| doubts.extend(holds.then_some(text));
    let short = |value: i32, least: i32| value < least;
    doubt(spec.default_retry_policy == 0, "defaultRetryPolicy 0 sends no power action: every node that needs one fails at once".to_owned());
    for (option, value, least, what) in [
        ("maxBootWaitTimeSeconds", spec.max_boot_wait_time_seconds, 60, "nodes are power-cycled before they can be up"),
        ("v1BootWaitTimeSeconds", spec.v1_boot_wait_time_seconds, 60, "nodes of Sessions of mode v1 fail before they can be up"),
        ("maxPowerOnWaitTimeSeconds", spec.max_power_on_wait_time_seconds, 10, "power-ons fail before the power service can show them"),
        ("maxPowerOffWaitTimeSeconds", spec.max_power_off_wait_time_seconds, 10, "nodes are forced off before they can shut down"),
        ("powerUnknownWaitTimeSeconds", spec.power_unknown_wait_time_seconds, 10, "nodes fail for one answer that their controller missed"),
        ("configurationWaitTimeSeconds", spec.configuration_wait_time_seconds, 60, "nodes fail before CFS can have configured them"),
    ] {
        doubt(short(value, least), format!("{option} {value} is very short: {what}"));
    }
    doubt(
        spec.mass_boot_timeout_minimum == 0 && spec.mass_boot_timeout_percent == 0,
        "massBootTimeoutMinimum 0 and massBootTimeoutPercent 0: no node that stays silent is power-cycled, one by one or together"
            .to_owned(),
    );
    let ttl = &spec.cleanup_completed_session_ttl;
    let soon = age(ttl).is_some_and(|age| !age.is_zero() && age < Duration::from_secs(3600));
    doubt(soon, format!("cleanupCompletedSessionTtl {ttl} removes Sessions so soon after their end that nobody can look at them"));
    let (discovery, polling) = (spec.discovery_frequency_seconds, spec.polling_frequency_seconds);
    doubt(
        short(discovery, 10),
        format!("discoveryFrequencySeconds {discovery} reads the whole inventory of HSM every {} s", discovery.max(1)),
    );
    doubt(short(polling, 1), format!("pollingFrequencySeconds {polling} asks the power service once a second and CFS four times a second"));
    doubts
}

/// `0`, `4h`, `2d`, `1w`, in either case.
fn age(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let unit = text.chars().last()?;
    let number: u64 = text.get(..text.len().checked_sub(unit.len_utf8())?)?.parse().ok()?;
    let seconds = match unit.to_ascii_lowercase() {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_schema_are_the_defaults_of_the_model() {
        let (read, problems) = options(&BootOptionsSpec::default(), &Options::default());
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(read, Options::default());
    }

    #[test]
    fn values_that_are_likely_a_mistake_are_named() {
        assert_eq!(doubts(&BootOptionsSpec::default()), Vec::<String>::new());
        let spec = BootOptionsSpec { discovery_frequency_seconds: 0, max_boot_wait_time_seconds: 25, ..BootOptionsSpec::default() };
        assert_eq!(
            doubts(&spec),
            [
                "maxBootWaitTimeSeconds 25 is very short: nodes are power-cycled before they can be up",
                "discoveryFrequencySeconds 0 reads the whole inventory of HSM every 1 s"
            ]
        );
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// A node whose spec names a Session that was created at one time, and its status a run by hand of another.
    fn owned(session: Timestamp, by_hand: Option<Timestamp>) -> BootComponent {
        let owner = serde_json::json!({"namespace": "bos", "name": "boot", "uid": "u-1", "createdAt": session.wall().to_string()});
        let since = by_hand.map(|at| at.wall().to_string());
        serde_json::from_value(serde_json::json!({
            "apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "metadata": {"name": "x1000c0s0b0n0"},
            "spec": {"session": owner}, "status": {"observedGeneration": 1, "ownedSince": since}
        }))
        .unwrap()
    }

    fn owner(object: &BootComponent, loading: bool, now: Timestamp) -> Owner {
        let mut world = World::default();
        let id = component(&mut world, object, loading, now).unwrap();
        world.node(id).unwrap().owner.clone().unwrap()
    }

    /// A node that had reported before its agent switched it off was shown with power Unknown, for it had spoken after that look.
    #[test]
    fn what_an_agent_has_switched_off_says_nothing_any_more() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let shown = |power: &str, action: &str, at: Timestamp| -> BootComponent {
            let status = serde_json::json!({
                "observedGeneration": 1, "power": power, "lastAction": action, "lastActionTime": at.wall().to_string(),
            });
            let mut object = owned(now, None);
            object.status = serde_json::from_value(status).unwrap();
            object
        };
        let cases = [
            ("Off", "PoweringOffGracefully", now + HOUR, true),
            ("Off", "PoweringOffForcefully", now + HOUR, true),
            ("Off", "PoweringOffGracefully", now - HOUR, false),
            ("On", "PoweringOffGracefully", now + HOUR, false),
            ("Off", "PoweringOn", now + HOUR, false),
        ];
        for (power, action, at, silent) in cases {
            let mut world = World::default();
            let object = shown(power, action, at);
            let id = component(&mut world, &object, false, now).unwrap();
            let _ = world.fold_report("x1000c0s0b0n0", &Token("t".into()), now);
            shown_by_agent(&mut world, id, &object);
            let node = world.node(id).unwrap();
            assert_eq!((node.heard.is_none(), node.reported.is_none()), (silent, silent), "{power} after {action}");
            let status = bos_core::project::component(&world, id, &bos_crds::BootComponentStatus::default(), 1, now);
            assert_eq!(status.power == PowerState::Off, silent, "{power} after {action}");
        }
    }

    #[test]
    fn a_run_by_hand_that_was_shown_owns_its_node_after_a_restart() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let object = owned(now - 2 * HOUR, Some(now - HOUR));
        assert_eq!(owner(&object, true, now), Owner::by_hand(now - HOUR));
        assert_eq!(owner(&object, false, now).uid, "u-1".into(), "afterwards the status is no input");
        assert_eq!(owner(&owned(now, Some(now - HOUR)), true, now).uid, "u-1".into(), "a newer Session took it");
    }

    #[test]
    fn nobody_owns_a_node_for_all_time_to_come() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        assert_eq!(owner(&owned(now + 1000 * HOUR, None), true, now).created, now + SKEW);
    }

    #[test]
    fn a_bad_age_keeps_the_last_good_one() {
        let spec = BootOptionsSpec { component_actual_state_ttl: "soon".to_owned(), ..BootOptionsSpec::default() };
        let last = Options { actual_state_ttl: Duration::from_secs(7200), actual_state_ttl_text: "2h".into(), ..Options::default() };
        let (read, problems) = options(&spec, &last);
        assert_eq!(read.actual_state_ttl, Duration::from_secs(7200));
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn units_of_ages_are_read_in_either_case() {
        for (text, hours) in [("4h", 4), ("4H", 4), ("2d", 48), ("2D", 48), ("1W", 168)] {
            assert_eq!(age(text), Some(Duration::from_secs(hours * 3600)), "{text}");
        }
    }
}
