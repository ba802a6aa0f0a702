//! Jobs run for real: kube-controller-manager makes the pods, the node agent runs them.
//!
//! One control plane for many cases. Each is known by the name of its Job; what the containers print is read from their logs.

use bos_e2e::control_plane::{ControlPlane, procstat};
use bos_e2e::node_agent::{NODE, NodeAgent, NodeAgentConfig};
use bos_e2e::rig::watch_until;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Node, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::Result;
use crate::bench::{Cases, LIMIT};

/// A container of no rights at all, as BOA's is.
const UNPRIVILEGED: &str = r#"{"runAsUser": 65532, "runAsGroup": 65532, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}"#;

struct Place {
    control_plane: ControlPlane,
    agent: NodeAgent,
    jobs: Api<Job>,
    pods: Api<Pod>,
    client: Client,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_on_the_node() -> Result {
    let control_plane = ControlPlane::builder().controller_manager(true).start().await?;
    let config = NodeAgentConfig::default().executable("/opt/tools/kubectl", control_plane.kubectl_binary());
    let agent = NodeAgent::start(&control_plane, config).await?;
    let client = control_plane.client().await?;
    let (jobs, pods) = (Api::namespaced(client.clone(), "default"), Api::namespaced(client.clone(), "default"));
    let place = Place { control_plane, agent, jobs, pods, client };
    let mut cases = Cases::default();
    cases
        .together(vec![
            ("a Job succeeds", Box::pin(succeeds(&place))),
            ("environment and volumes", Box::pin(surroundings(&place))),
            ("a token of its own", Box::pin(token(&place))),
            ("waits for its ConfigMap", Box::pin(waits_for_a_config_map(&place))),
            ("an exit code that fails the Job", Box::pin(fail_job(&place))),
            ("an exit code that is tried again", Box::pin(tried_again(&place))),
            ("the Job is deleted", Box::pin(deleted(&place))),
            ("a pod that ignores SIGTERM", Box::pin(ignores_sigterm(&place))),
            ("the Job's deadline", Box::pin(job_deadline(&place))),
            ("the pod's deadline", Box::pin(pod_deadline(&place))),
            ("killed from outside", Box::pin(killed(&place))),
            ("a lost machine", Box::pin(lost(&place))),
            ("refused", Box::pin(refused(&place))),
        ])
        .await;
    cases.run("the API server is away", api_server_away(&place)).await;
    cases.run("nothing is left behind", nothing_is_left(place)).await;
    cases.verdict()
}

impl Place {
    /// Creates a Job that runs this script; `change` gets the Job's spec.
    async fn job(&self, name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Result<Job> {
        let mut spec = json!({
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "none", "command": ["/bin/sh", "-c", script]}],
            }},
        });
        change(&mut spec);
        let job = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
        Ok(self.jobs.create(&PostParams::default(), &job).await?)
    }

    /// Waits for pods of a Job, oldest first, of which this is true.
    async fn pods_of(&self, job: &str, is_right: impl Fn(&[Pod]) -> bool) -> Result<Vec<Pod>> {
        let config = watcher::Config::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        let found = watch_until(self.pods.clone(), config, LIMIT, |all| {
            let mut pods: Vec<Pod> = all.values().cloned().collect();
            pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
            is_right(&pods).then_some(pods)
        });
        found.await.map_err(|error| error.context(format!("pods of Job {job}")))
    }

    /// The only pod of a Job, once it is in this phase.
    async fn pod(&self, job: &str, phase: &str) -> Result<Pod> {
        let pods = self.pods_of(job, |pods| matches!(pods, [pod] if in_phase(pod, phase))).await?;
        pods.into_iter().next().ok_or_else(|| anyhow::anyhow!("no pod"))
    }

    /// Waits until a Job has this condition, and returns its reason.
    async fn ended(&self, job: &str, condition: &str) -> Result<String> {
        let config = watcher::Config::default().fields(&format!("metadata.name={job}"));
        let found = watch_until(self.jobs.clone(), config, LIMIT, |all| {
            let conditions = all.get(job)?.status.as_ref()?.conditions.as_ref()?;
            let found = conditions.iter().find(|it| it.type_ == condition && it.status == "True")?;
            Some(found.reason.clone().unwrap_or_default())
        });
        found.await.map_err(|error| error.context(format!("Job {job} to be {condition}")))
    }

    async fn gone(&self, pod: &Pod) -> Result {
        let name = pod.metadata.name.as_deref().unwrap();
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        watch_until(self.pods.clone(), config, LIMIT, |all| all.is_empty().then_some(())).await
    }

    /// Waits until a pod has printed this: its files bring no events, so it is looked at again and again.
    async fn printed(&self, pod: &Pod, text: &str) -> Result {
        let look = async {
            while !self.agent.log_text(pod).is_ok_and(|log| log.contains(text)) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, look).await.map_err(|_| anyhow::anyhow!("{text} was not printed: {:?}", self.agent.log_text(pod)))
    }
}

fn in_phase(pod: &Pod, phase: &str) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some(phase))
}

fn container(spec: &mut Value) -> &mut Value {
    &mut spec["template"]["spec"]["containers"][0]
}

fn terminated(pod: &Pod) -> ContainerStateTerminated {
    let status = pod.status.clone().unwrap_or_default().container_statuses.unwrap_or_default().swap_remove(0);
    status.state.unwrap().terminated.expect("the container has ended")
}

fn condition(pod: &Pod, type_: &str) -> String {
    let conditions = pod.status.clone().unwrap_or_default().conditions.unwrap_or_default();
    conditions.into_iter().find(|condition| condition.type_ == type_).map_or_else(String::new, |condition| condition.status)
}

async fn succeeds(place: &Place) -> Result {
    place
        .job("succeeds", "mkfifo /go/on; echo begun; read word </go/on; echo $word over >&2", |spec| {
            container(spec)["volumeMounts"] = json!([{"name": "go", "mountPath": "/go"}]);
            spec["template"]["spec"]["volumes"] = json!([{"name": "go", "emptyDir": {}}]);
        })
        .await?;
    let pod = place.pod("succeeds", "Running").await?;
    let status = pod.status.clone().unwrap_or_default();
    assert_eq!((status.pod_ip.as_deref(), status.qos_class.as_deref()), (Some("127.0.0.1"), Some("BestEffort")));
    for type_ in ["PodScheduled", "Initialized", "Ready", "ContainersReady"] {
        assert_eq!(condition(&pod, type_), "True", "{type_}");
    }
    let running = status.container_statuses.unwrap().swap_remove(0).state.unwrap().running.unwrap();
    place.printed(&pod, "begun").await?;
    // It waits for us within its own mounts.
    let process = place.agent.pid(&pod).unwrap();
    std::fs::write(std::path::Path::new("/proc").join(process.to_string()).join("root").join("go/on"), "all\n")?;
    place.ended("succeeds", "Complete").await?;
    let pod = place.pod("succeeds", "Succeeded").await?;
    let end = terminated(&pod);
    assert_eq!((end.exit_code, end.reason.as_deref(), end.started_at), (0, Some("Completed"), running.started_at));
    assert!(end.finished_at.is_some());
    assert_eq!(condition(&pod, "Ready"), "False");
    assert_eq!(place.agent.log_text(&pod)?, "begun\nall over\n");
    assert!(place.agent.pid(&pod).is_none() && place.agent.kill(&pod, Signal::TERM).is_err());
    let nodes: Api<Node> = Api::all(place.client.clone());
    let ready = nodes.get(NODE).await?.status.and_then(|status| status.conditions).unwrap_or_default();
    assert!(ready.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"));
    Ok(())
}

async fn surroundings(place: &Place) -> Result {
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "given", "namespace": "default"}, "data": {"key": "from-map", "b": "2"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "given", "namespace": "default"}, "stringData": {"password": "hush"}},
    ]});
    place.control_plane.apply(&objects.to_string()).await?.ok()?;
    let script = "echo $0 $1 $MAP $SECRET $NAME $NS $UID_ $LABEL $ABSENT- $TWICE; id -u; pwd; cat /etc/own/deep/k /secrets/password; \
                  ls /etc/own; echo kept >/scratch/x && cat /scratch/x; touch /y 2>/dev/null || echo read-only; [ -n \"$HOME\" ] && echo $CARGO_TARGET_DIR-";
    place
        .job("surroundings", script, |spec| {
            let pod = &mut spec["template"];
            pod["metadata"] = json!({"labels": {"colour": "blue"}});
            pod["spec"]["volumes"] = json!([
                {"name": "map", "configMap": {"name": "given", "items": [{"key": "key", "path": "deep/k"}]}},
                {"name": "secret", "secret": {"secretName": "given", "defaultMode": 0o400}},
                {"name": "none", "configMap": {"name": "absent", "optional": true}},
                {"name": "scratch", "emptyDir": {}},
            ]);
            pod["spec"]["securityContext"] = json!({"fsGroup": 65532});
            let main = container(spec);
            main["securityContext"] = serde_json::from_str(UNPRIVILEGED).unwrap();
            main["workingDir"] = json!("/scratch");
            main["args"] = json!(["$(NAME)", "$(MISSING)"]);
            main["env"] = json!([
                {"name": "MAP", "valueFrom": {"configMapKeyRef": {"name": "given", "key": "key"}}},
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "given", "key": "password"}}},
                {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "x", "optional": true}}},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                {"name": "UID_", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['colour']"}}},
                {"name": "TWICE", "value": "$(LABEL)$(LABEL)"},
            ]);
            main["volumeMounts"] = json!([
                {"name": "map", "mountPath": "/etc/own"},
                {"name": "secret", "mountPath": "/secrets"},
                {"name": "none", "mountPath": "/none"},
                {"name": "scratch", "mountPath": "/scratch"},
            ]);
        })
        .await?;
    let pod = place.pod("surroundings", "Succeeded").await?;
    let (name, uid) = (pod.metadata.name.as_deref().unwrap(), pod.metadata.uid.as_deref().unwrap());
    let first = format!("{name} $(MISSING) from-map hush {name} default {uid} blue - blueblue");
    let expected = format!("{first}\n65532\n/scratch\nfrom-maphushdeep\nkept\nread-only\n-\n");
    assert_eq!(place.agent.log_text(&pod)?, expected);
    Ok(())
}

async fn token(place: &Place) -> Result {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "boa", "namespace": "default"}});
    place.control_plane.apply(&account.to_string()).await?.ok()?;
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let script = format!("cat {folder}/namespace; echo; /opt/tools/kubectl auth whoami -o json");
    place
        .job("token", &script, |spec| {
            spec["template"]["spec"]["serviceAccountName"] = json!("boa");
            container(spec)["securityContext"] = serde_json::from_str(UNPRIVILEGED).unwrap();
        })
        .await?;
    let pod = place.pod("token", "Succeeded").await.inspect_err(|error| println!("{error:#}"))?;
    let log = place.agent.log_text(&pod)?;
    let (namespace, who) = log.split_once('\n').unwrap_or_default();
    let who: Value = serde_json::from_str(who)?;
    let user = &who["status"]["userInfo"];
    assert_eq!((namespace, user["username"].as_str()), ("default", Some("system:serviceaccount:default:boa")));
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-uid"], json!([pod.metadata.uid]));
    Ok(())
}

async fn waits_for_a_config_map(place: &Place) -> Result {
    place
        .job("waits", "echo $LATE", |spec| {
            container(spec)["env"] = json!([{"name": "LATE", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "value"}}}]);
        })
        .await?;
    let why = |pod: &Pod| {
        let status = pod.status.clone()?.container_statuses?.swap_remove(0);
        status.state?.waiting?.message
    };
    let waiting = |pods: &[Pod]| pods.iter().any(|pod| why(pod).is_some_and(|why| why.contains("\"late\" not found")));
    place.pods_of("waits", waiting).await?;
    place.control_plane.kubectl(&["create", "configmap", "late", "--from-literal=value=here"]).await?.ok()?;
    let pod = place.pod("waits", "Succeeded").await?;
    assert_eq!(place.agent.log_text(&pod)?, "here\n");
    Ok(())
}

fn failure_policy(spec: &mut Value) {
    spec["podFailurePolicy"] = json!({"rules": [
        {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [3]}},
        {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [0, 3]}},
    ]});
}

async fn fail_job(place: &Place) -> Result {
    place
        .job("fails", "exit 3", |spec| {
            failure_policy(spec);
            spec["backoffLimit"] = json!(6);
        })
        .await?;
    assert_eq!(place.ended("fails", "Failed").await?, "PodFailurePolicy");
    let pod = place.pod("fails", "Failed").await?;
    let end = terminated(&pod);
    assert_eq!((end.exit_code, end.reason.as_deref()), (3, Some("Error")));
    Ok(())
}

async fn tried_again(place: &Place) -> Result {
    place
        .job("again", "echo try; exit 4", |spec| {
            failure_policy(spec);
            spec["backoffLimit"] = json!(1);
        })
        .await?;
    assert_eq!(place.ended("again", "Failed").await?, "BackoffLimitExceeded");
    let pods = place.pods_of("again", |pods| pods.len() >= 2).await?;
    let codes: Vec<i32> = pods.iter().map(|pod| terminated(pod).exit_code).collect();
    assert_eq!(codes, [4, 4]);
    // The second was made only when the first had ended.
    assert!(terminated(&pods[0]).finished_at.unwrap().0 <= pods[1].metadata.creation_timestamp.clone().unwrap().0);
    Ok(())
}

/// Ends with code 0 at SIGTERM.
const OBEDIENT: &str = "trap 'echo told; exit 0' TERM; echo begun; while :; do sleep 1000 & wait; done";

async fn deleted(place: &Place) -> Result {
    place.job("deleted", OBEDIENT, |_| {}).await?;
    let pod = place.pod("deleted", "Running").await?;
    place.printed(&pod, "begun").await?;
    let pid = place.agent.pid(&pod).unwrap();
    place.jobs.delete("deleted", &DeleteParams::foreground()).await?;
    place.gone(&pod).await?;
    assert!(procstat(pid).is_err());
    assert_eq!(place.agent.log_text(&pod)?, "begun\ntold\n");
    Ok(())
}

async fn ignores_sigterm(place: &Place) -> Result {
    place
        .job("deaf", "trap 'echo told' TERM; echo begun; while :; do sleep 1000 & wait; done", |spec| {
            spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(1);
        })
        .await?;
    let pod = place.pod("deaf", "Running").await?;
    place.printed(&pod, "begun").await?;
    place.pods.delete(pod.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await?;
    // A finalizer of the Job's keeps the pod until its end is counted.
    assert_eq!(place.ended("deaf", "Failed").await?, "BackoffLimitExceeded");
    place.gone(&pod).await?;
    assert_eq!(place.agent.log_text(&pod)?, "begun\ntold\n");
    Ok(())
}

async fn job_deadline(place: &Place) -> Result {
    place.job("late", OBEDIENT, |spec| spec["activeDeadlineSeconds"] = json!(2)).await?;
    let pod = place.pod("late", "Running").await?;
    assert_eq!(place.ended("late", "Failed").await?, "DeadlineExceeded");
    place.gone(&pod).await?;
    assert!(place.agent.log_text(&pod)?.ends_with("told\n"));
    Ok(())
}

async fn pod_deadline(place: &Place) -> Result {
    place.job("late-pod", OBEDIENT, |spec| spec["template"]["spec"]["activeDeadlineSeconds"] = json!(2)).await?;
    let pod = place.pod("late-pod", "Failed").await?;
    assert_eq!(pod.status.as_ref().and_then(|status| status.reason.as_deref()), Some("DeadlineExceeded"));
    assert_eq!(terminated(&pod).exit_code, 0);
    assert_eq!(place.ended("late-pod", "Failed").await?, "BackoffLimitExceeded");
    Ok(())
}

async fn killed(place: &Place) -> Result {
    place.job("killed", OBEDIENT, |_| {}).await?;
    let pod = place.pod("killed", "Running").await?;
    place.agent.kill(&pod, Signal::KILL)?;
    let end = terminated(&place.pod("killed", "Failed").await?);
    assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("Error")));
    place.ended("killed", "Failed").await?;
    Ok(())
}

async fn lost(place: &Place) -> Result {
    place.job("lost", OBEDIENT, |spec| spec["backoffLimit"] = json!(3)).await?;
    let first = place.pod("lost", "Running").await?;
    place.printed(&first, "begun").await?;
    place.agent.lose(&first)?;
    let name = first.metadata.name.as_deref().unwrap();
    place.agent.collect(&first).await?;
    let second =
        place.pods_of("lost", |pods| pods.iter().any(|pod| pod.metadata.name.as_deref() != Some(name) && in_phase(pod, "Running")));
    let second = second.await?.pop().unwrap();
    // Both run: what a Lease must guard against.
    let (first_pid, second_pid) = (place.agent.pid(&first).unwrap(), place.agent.pid(&second).unwrap());
    assert!(first_pid != second_pid && procstat(first_pid).is_ok() && procstat(second_pid).is_ok());
    assert_eq!(place.agent.log_text(&first)?, "begun\n");
    place.agent.kill(&first, Signal::KILL)?;
    place.jobs.delete("lost", &DeleteParams::foreground()).await?;
    place.gone(&second).await
}

async fn refused(place: &Place) -> Result {
    place.job("probes", "exit 0", |spec| container(spec)["livenessProbe"] = json!({"exec": {"command": ["true"]}})).await?;
    let pod = place.pod("probes", "Failed").await?;
    let message = pod.status.and_then(|status| status.message).unwrap_or_default();
    assert!(message.contains("runs no pod with probes"), "{message}");

    place.job("no-command", "", |spec| container(spec)["command"] = json!(["/no/such/program"])).await?;
    let end = terminated(&place.pod("no-command", "Failed").await?);
    assert_eq!((end.exit_code, end.reason.as_deref()), (128, Some("StartError")));
    assert!(end.message.is_some_and(|message| message.contains("/no/such/program")));

    place.job("as-root", "exit 0", |spec| container(spec)["securityContext"] = json!({"runAsNonRoot": true})).await?;
    let says = |pod: &Pod| {
        let status = pod.status.clone()?.container_statuses?.swap_remove(0);
        status.state?.waiting?.message
    };
    let refused = |pods: &[Pod]| pods.iter().any(|pod| says(pod).is_some_and(|why| why.contains("image will run as root")));
    place.pods_of("as-root", refused).await?;
    // It never ran, and can be deleted.
    let pod = place.pod("as-root", "Pending").await?;
    place.jobs.delete("as-root", &DeleteParams::foreground()).await?;
    place.gone(&pod).await
}

async fn api_server_away(place: &Place) -> Result {
    place.job("away", "trap 'exit 0' TERM; echo begun; while :; do sleep 1000 & wait; done", |_| {}).await?;
    let pod = place.pod("away", "Running").await?;
    place.printed(&pod, "begun").await?;
    place.control_plane.kill_api_server();
    // It ends while nobody can be told.
    let pid = place.agent.pid(&pod).unwrap();
    place.agent.kill(&pod, Signal::TERM)?;
    let ended = async {
        while procstat(pid).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ended).await?;
    place.control_plane.restart_api_server().await?;
    place.ended("away", "Complete").await.map(drop)
}

async fn nothing_is_left(place: Place) -> Result {
    place.job("left", "setsid sleep 1000 & echo begun; wait", |_| {}).await?;
    let pod = place.pod("left", "Running").await?;
    place.printed(&pod, "begun").await?;
    let pid = place.agent.pid(&pod).unwrap();
    let namespace = std::fs::read_link(format!("/proc/{pid}/ns/pid"))?;
    place.agent.stop().await;
    let inside = |process: &std::fs::DirEntry| std::fs::read_link(process.path().join("ns/pid")).is_ok_and(|link| link == namespace);
    assert_eq!(std::fs::read_dir("/proc")?.flatten().filter(inside).count(), 0);
    place.control_plane.stop().await;
    Ok(())
}
