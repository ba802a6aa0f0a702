//! Dispatchers: carry out what left the World, each in a task of its own, and bring back what became of it, node by node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bos_core::artifacts::ArtifactSet;
use bos_core::batch::{Outcome, Progress, Task};
use bos_core::fold::Fault;
use bos_core::health::Service;
use bos_core::manifest::S3Path;
use bos_core::model::{ConfigRecord, ConfigStatus, NodeId, Power, PowerAction, Token};
use bos_core::running::{Dispatch, Order};
use bos_core::time::Timestamp;
use bos_core::xname::Xname;
use bos_services::{
    BootParams, Clients, ConfigPatch, ErrorKind, PowerOperation, Reached, Reading, Requested, ServiceError, TaskFailure, TaskState,
    TransitionId,
};
use futures::{StreamExt, stream};
use tokio::net::TcpStream;

/// Nodes with their names.
pub type Named = Vec<(NodeId, Xname)>;

/// An error in words, without the name of the service.
#[must_use]
pub fn detail(error: &ServiceError) -> String {
    if error.detail.is_empty() {
        format!("{}: {}", error.call, error.kind)
    } else {
        format!("{}: {}: {}", error.call, error.kind, error.detail)
    }
}

/// The fault of a read that failed.
#[must_use]
pub fn fault(error: &ServiceError) -> Fault {
    Fault { service: error.service, detail: detail(error).into() }
}

/// What a failed effect means (rule 14).
fn failed(error: &ServiceError) -> Outcome {
    if error.kind == ErrorKind::Stopped {
        return Outcome::HeldBack;
    }
    let detail: Arc<str> = detail(error).into();
    match (error.reached, error.is_transient()) {
        (_, false) => Outcome::Rejected { detail },
        (Reached::No, true) => Outcome::NotSent { service: error.service, detail },
        (Reached::Unknown | Reached::Yes, true) => Outcome::Unknown { detail },
    }
}

fn names(nodes: &[(NodeId, Xname)]) -> Vec<Xname> {
    nodes.iter().map(|(_, xname)| xname.clone()).collect()
}

/// Carries out a released batch.
pub async fn carry_out(services: &Clients, dispatch: &Dispatch, artifacts: Option<Arc<ArtifactSet>>) -> Outcome {
    match &dispatch.order {
        Order::BootParameters { artifacts: digest } => match artifacts {
            Some(artifacts) => boot_parameters(services, &artifacts, &names(&dispatch.nodes)).await,
            None => Outcome::Impossible { detail: format!("the artifact set {} is not stored any more", digest.0).into() },
        },
        Order::Configuration { name, enabled, clear_state } => configuration(services, dispatch, name, *enabled, *clear_state).await,
        Order::Power(action) => power(services, *action, &dispatch.nodes).await,
    }
}

async fn boot_parameters(services: &Clients, artifacts: &ArtifactSet, nodes: &[Xname]) -> Outcome {
    if artifacts.params.contains("root=sbps-s3")
        && let Err(outcome) = tag_image(services, artifacts).await
    {
        return outcome;
    }
    let params = BootParams { kernel: artifacts.kernel.clone(), initrd: artifacts.initrd.clone(), params: artifacts.params.clone() };
    match services.boot_parameters.put(&params, nodes).await {
        Ok(token) => Outcome::Stored { token: Token(token.as_str().into()) },
        Err(error) => failed(&error),
    }
}

/// An image that nodes mount by SBPS must carry IMS's tag, or it is not projected and they hang (BOS behaviour §9.1 step 3).
async fn tag_image(services: &Clients, artifacts: &ArtifactSet) -> Result<(), Outcome> {
    let path = S3Path::parse(&artifacts.kernel).ok();
    let Some(id) = path.as_ref().and_then(S3Path::image_id) else {
        return Err(Outcome::Impossible { detail: format!("no IMS image id can be read from {}", artifacts.kernel).into() });
    };
    services.images.tag_sbps(id).await.map_err(|error| {
        let detail: Arc<str> = format!("tagging image {id}: {}", detail(&error)).into();
        if error.is_transient() { Outcome::NotSent { service: Service::Ims, detail } } else { Outcome::Impossible { detail } }
    })
}

async fn configuration(services: &Clients, dispatch: &Dispatch, name: &str, enabled: bool, clear_state: bool) -> Outcome {
    let patch = ConfigPatch {
        enabled: Some(enabled),
        desired_config: Some(name.to_owned()),
        session_tag: Some(dispatch.session.to_string()),
        clear_state,
    };
    match services.configuration.patch(&names(&dispatch.nodes), &patch).await {
        Ok(changed) => {
            let ids = index(&dispatch.nodes);
            Outcome::Configured { changed: changed.iter().filter_map(|xname| ids.get(xname).copied()).collect() }
        }
        Err(error) => failed(&error),
    }
}

fn index(nodes: &[(NodeId, Xname)]) -> HashMap<&Xname, NodeId> {
    nodes.iter().map(|(id, xname)| (xname, *id)).collect()
}

async fn power(services: &Clients, action: PowerAction, nodes: &[(NodeId, Xname)]) -> Outcome {
    let operation = match action {
        PowerAction::On => PowerOperation::On,
        PowerAction::SoftOff => PowerOperation::SoftOff,
        PowerAction::ForceOff => PowerOperation::ForceOff,
    };
    match services.power.request(operation, &names(nodes)).await {
        Ok(Requested::Transition(id)) => Outcome::Accepted { transition: id.as_str().into() },
        Ok(Requested::Taken { failed, note }) => Outcome::Taken { failed: tasks(failed, nodes), note: note.into() },
        Ok(Requested::Refused { because, detail }) => Outcome::Refused { because: tasks(because, nodes), detail: detail.into() },
        Err(error) => failed(&error),
    }
}

/// What was said of single nodes, as far as they are among those that were asked for.
fn tasks(said: Vec<(Xname, TaskState)>, nodes: &[(NodeId, Xname)]) -> Vec<(NodeId, Task)> {
    let ids = index(nodes);
    said.into_iter().filter_map(|(xname, state)| Some((*ids.get(&xname)?, task(state)))).collect()
}

/// Looks at a transition.
pub async fn follow(services: &Clients, transition: &str, nodes: &[(NodeId, Xname)]) -> Progress {
    match services.power.transition(&TransitionId::new(transition)).await {
        Ok(None) => Progress::Gone,
        Ok(Some(seen)) => Progress::Tasks { done: seen.done, tasks: tasks(seen.tasks, nodes) },
        Err(error) => Progress::Unavailable { detail: detail(&error).into() },
    }
}

fn task(state: TaskState) -> Task {
    match state {
        TaskState::Open => Task::Open,
        TaskState::Succeeded => Task::Succeeded,
        TaskState::Failed { error, kind } => match kind {
            TaskFailure::Reservation => Task::Untouched { detail: error.into(), permanent: false },
            TaskFailure::Missing | TaskFailure::Unsupported => Task::Untouched { detail: error.into(), permanent: true },
            TaskFailure::Timeout | TaskFailure::Other => Task::Failed { detail: error.into() },
        },
    }
}

/// Reads the power of nodes.
///
/// # Errors
/// When the power service did not answer.
pub async fn read_power(services: &Clients, nodes: &[(NodeId, Xname)]) -> Result<Vec<(NodeId, Power, Arc<str>)>, Fault> {
    let readings = services.power.status(&names(nodes)).await.map_err(|error| fault(&error))?;
    let read = |xname: &Xname| match readings.get(xname) {
        Some(Reading::On) => (Power::On, Arc::from("")),
        Some(Reading::Off) => (Power::Off, Arc::from("")),
        Some(Reading::Undefined { detail }) if detail.is_empty() => (Power::Unknown, "undefined, its controller does not answer".into()),
        Some(Reading::Undefined { detail }) => (Power::Unknown, detail.as_str().into()),
        Some(Reading::Missing) | None => (Power::Unknown, "no record of this node".into()),
    };
    Ok(nodes
        .iter()
        .map(|(id, xname)| {
            let (power, detail) = read(xname);
            (*id, power, detail)
        })
        .collect())
}

/// Whether HSM calls these nodes Ready, and with `ssh`, whether their port 22 can be reached too; nodes it does not know are left out.
///
/// # Errors
/// When HSM did not answer.
pub async fn read_states(services: &Clients, nodes: &[(NodeId, Xname)], ssh: bool) -> Result<Vec<(NodeId, bool)>, Fault> {
    let states = services.inventory.states(&names(nodes)).await.map_err(|error| fault(&error))?;
    let told = nodes.iter().filter_map(|(id, xname)| Some((*id, xname, states.get(xname)?.eq_ignore_ascii_case("ready"))));
    if !ssh {
        return Ok(told.map(|(id, _, ready)| (id, ready)).collect());
    }
    let told: Vec<_> = told.map(|(id, xname, ready)| (id, xname.clone(), ready)).collect();
    let looks = stream::iter(told).map(|(id, xname, ready)| async move { (id, ready && is_reached(xname.as_str(), SSH).await) });
    Ok(looks.buffer_unordered(CONNECTIONS).collect().await)
}

/// Where Ansible reaches a node.
const SSH: u16 = 22;

/// Nodes that are tried at the same time.
const CONNECTIONS: usize = 64;

/// How long a node may take to answer.
const REACH: Duration = Duration::from_secs(3);

/// Whether somebody listens there.
async fn is_reached(host: &str, port: u16) -> bool {
    matches!(tokio::time::timeout(REACH, TcpStream::connect((host, port))).await, Ok(Ok(_)))
}

/// When these nodes last fetched their boot scripts.
///
/// # Errors
/// When BSS did not answer.
pub async fn read_scripts(services: &Clients, nodes: &[(NodeId, Xname)]) -> Result<HashMap<NodeId, Timestamp>, Fault> {
    let fetched = services.boot_parameters.scripts_fetched().await.map_err(|error| fault(&error))?;
    let at = |xname: &Xname| fetched.get(xname).map(|epoch| Timestamp::from_millis(epoch.saturating_mul(1000)));
    Ok(nodes.iter().filter_map(|(id, xname)| Some((*id, at(xname)?))).collect())
}

/// Reads the CFS records of nodes.
///
/// # Errors
/// When CFS did not answer.
pub async fn read_configuration(services: &Clients, nodes: &[(NodeId, Xname)]) -> Result<Vec<(NodeId, ConfigRecord)>, Fault> {
    let readings = services.configuration.components(&names(nodes)).await.map_err(|error| fault(&error))?;
    let record = |reading: &bos_services::ConfigReading| ConfigRecord {
        desired: reading.desired.as_str().into(),
        status: match &reading.status {
            bos_services::ConfigStatus::Configured => ConfigStatus::Configured,
            bos_services::ConfigStatus::Pending => ConfigStatus::Pending,
            bos_services::ConfigStatus::Failed => ConfigStatus::Failed,
            bos_services::ConfigStatus::Unconfigured => ConfigStatus::Unconfigured,
            bos_services::ConfigStatus::Other(text) => ConfigStatus::Other(text.as_str().into()),
        },
    };
    Ok(nodes.iter().filter_map(|(id, xname)| Some((*id, record(readings.get(xname)?)))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: ErrorKind, reached: Reached) -> Outcome {
        failed(&ServiceError { service: Service::Pcs, call: "post transitions", kind, reached, detail: String::new() })
    }

    #[test]
    fn only_what_did_not_reach_its_service_is_no_attempt() {
        assert!(matches!(outcome(ErrorKind::Connect, Reached::No), Outcome::NotSent { service: Service::Pcs, .. }));
        assert!(matches!(outcome(ErrorKind::Timeout, Reached::Unknown), Outcome::Unknown { .. }));
        assert!(matches!(outcome(ErrorKind::Server(503), Reached::Yes), Outcome::Unknown { .. }));
        assert!(matches!(outcome(ErrorKind::Rejected(400), Reached::Yes), Outcome::Rejected { .. }));
        assert!(matches!(outcome(ErrorKind::Stopped, Reached::No), Outcome::HeldBack));
    }

    #[tokio::test]
    async fn a_port_is_reached_where_somebody_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_reached("127.0.0.1", port).await);
        drop(listener);
        assert!(!is_reached("127.0.0.1", port).await);
        assert!(!is_reached("x0c0s0b0n0.invalid", port).await);
    }
}
