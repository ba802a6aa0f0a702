//! What is submitted to the writer, and when. Nothing is sent here.

use super::*;
use crate::figures::WriteFigures;
use crate::writer::WriterConfig;
use bos_core::xname::Xname;
use tokio_util::sync::CancellationToken;

const NODE: &str = "x1000c0s0b0n0";

/// Its object, as a watch tells of it.
fn object(managed_fields: serde_json::Value) -> BootComponent {
    let object = json!({
        "apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "spec": {},
        "metadata": {"name": NODE, "uid": "u", "resourceVersion": "1", "generation": 1, "managedFields": managed_fields},
    });
    serde_json::from_value(object).unwrap()
}

/// A node that was seen without a status, and whose spec has to be written too.
fn staged_anew() -> (Views, World, NodeId) {
    let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let stopped = CancellationToken::new();
    stopped.cancel();
    let (writer, _acks) = StatusWriter::spawn(client, WriterConfig::default(), WriteFigures::default(), stopped);
    let (mut views, mut world) = (Views::new(writer), World::default());
    let id = world.intern(&Xname::parse(NODE).unwrap());
    views.component_seen(id, &object(json!([])), None);
    world.nodes[id.0 as usize].staged = Some(("later".into(), 0));
    (views, world, id)
}

fn project(views: &mut Views, world: &World, id: NodeId) -> usize {
    views.update_component(world, id, 1, Timestamp::from_millis(0));
    views.writer.queue_len()
}

/// A status that went first was written once more, for the generation that the spec had made: a quarter of the writes of a Shutdown.
#[tokio::test]
async fn a_status_waits_for_the_write_of_the_spec() {
    let (mut views, world, id) = staged_anew();
    assert_eq!(project(&mut views, &world, id), 1, "the spec alone");
    let version = views.components[&id].submitted.as_ref().unwrap().0;
    views.component_written(id, Target::Spec, version, "2", 2);
    assert_eq!(project(&mut views, &world, id), 2);
    assert_eq!(views.components[&id].shown.wanted().observed_generation, 2);
}

#[tokio::test]
async fn a_status_that_a_report_waits_for_does_not() {
    let (mut views, world, id) = staged_anew();
    let (answer, _answered) = oneshot::channel();
    views.await_status(&world, id, answer);
    assert_eq!(project(&mut views, &world, id), 2);
}

/// Of ten thousand nodes some say again that they are up while the statuses of all are being written: they were told to come again.
#[tokio::test]
async fn a_status_that_waits_already_is_hurried_for_a_report() {
    let (mut views, world, id) = staged_anew();
    let shown = &mut views.components.get_mut(&id).unwrap().shown;
    shown.want(BootComponentStatus { message: "it may be passing".into(), ..BootComponentStatus::default() });
    let body = shown.patch(1).unwrap();
    views.writer.submit(WriteJob {
        key: ObjectKey::cluster(Kind::BootComponent, NODE),
        uid: "u".to_owned(),
        resource_version: None,
        target: Target::Status,
        body,
        version: 1,
        urgency: Urgency::Normal,
        not_before: Some(Instant::now() + LASTING),
        untracked: false,
    });
    assert_eq!(views.writer.backlog(), 0);
    let (answer, _answered) = oneshot::channel();
    views.await_status(&world, id, answer);
    assert_eq!(views.writer.backlog(), 1);
}

/// ADR 0014.
#[tokio::test]
async fn whose_fields_are_whose_is_forgotten_unless_somebody_applies_the_object() {
    let dropped = |views: &mut Views, world: &World, id| {
        project(views, world, id);
        let waiting = views.writer.waiting(&ObjectKey::cluster(Kind::BootComponent, NODE));
        waiting.into_iter().map(|job| (job.target, job.untracked)).collect::<Vec<_>>()
    };
    let (mut views, world, id) = staged_anew();
    assert_eq!(dropped(&mut views, &world, id), [(Target::Spec, true)]);
    let (mut views, world, id) = staged_anew();
    views.component_seen(id, &object(json!([{"manager": "git", "operation": "Apply"}])), None);
    assert_eq!(dropped(&mut views, &world, id), [(Target::Spec, false)]);
}
