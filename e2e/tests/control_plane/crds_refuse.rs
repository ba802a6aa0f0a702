//! Malformed objects are refused by the API server itself, without our webhook, and the message names the field.

use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

use crate::Result;
use crate::crds::with_crds;

fn template() -> Value {
    json!({"kind": "SessionTemplate", "metadata": {"name": "valid"}, "spec": {
        "description": "all compute nodes",
        "cfs": {"configuration": "cos-3.3.12"},
        "bootSets": [{"name": "compute", "type": "s3", "arch": "X86", "path": "s3://boot-images/7f0c/manifest.json", "etag": "1d4f",
            "kernelParameters": "console=ttyS0", "nodeList": ["x3000c0s19b1n0"], "nodeRolesGroups": ["Compute", "Application_UAN"],
            "rootfsProvider": "sbps", "rootfsProviderPassthrough": "sbps:v1:iqn.2023-06.csm.iscsi:_sbps-hsn._tcp.example.com:300"}]}})
}

fn session() -> Value {
    json!({"kind": "Session", "metadata": {"name": "valid"}, "spec": {
        "operation": "Boot", "templateName": "cos-3.3.12", "limit": "x1000,!x1000c0s3b0n1,&Compute",
        "startBefore": "2026-11-23T18:00:00Z", "runningNodes": "Leave", "maxPowerCycled": 10}})
}

fn component() -> Value {
    json!({"kind": "BootComponent", "metadata": {"name": "x3000c0s19b1n0"}, "spec": {
        "run": "1", "retryPolicy": 2, "desiredState": {"artifacts": "sha256:0123456789abcdef", "configuration": "cos-3.3.12"}}})
}

fn options() -> Value {
    json!({"kind": "BootOptions", "metadata": {"name": "default"}, "spec": {"maxBootWaitTimeSeconds": 600}})
}

fn plural(object: &Value) -> &'static str {
    match object["kind"].as_str() {
        Some("SessionTemplate") => "namespaces/default/sessiontemplates",
        Some("Session") => "namespaces/default/sessions",
        Some("BootComponent") => "bootcomponents",
        _ => "bootoptions",
    }
}

/// What `kubectl apply --dry-run=server` would send. Nothing is stored.
async fn create(client: &Client, mut object: Value) -> std::result::Result<Value, kube::Error> {
    object["apiVersion"] = "bos.hpe.com/v1alpha1".into();
    let uri = format!("/apis/bos.hpe.com/v1alpha1/{}?dryRun=All&fieldValidation=Strict", plural(&object));
    let request = Request::builder().method(Method::POST).uri(uri).header("content-type", "application/json");
    client.request(request.body(object.to_string().into_bytes()).unwrap()).await
}

/// The refusal's message; panics with what was wrong if it was accepted or failed otherwise.
fn refusal(result: std::result::Result<Value, kube::Error>, what: &str) -> String {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => status.message.clone(),
        Err(error) => panic!("{what}: {error}"),
        Ok(object) => panic!("{what}: accepted as {object}"),
    }
}

/// Changes one place of a valid object (null removes it) and says which words the refusal must have.
struct Case {
    object: fn() -> Value,
    pointer: &'static str,
    value: Value,
    words: &'static [&'static str],
}

fn case(object: fn() -> Value, pointer: &'static str, value: Value, words: &'static [&'static str]) -> Case {
    Case { object, pointer, value, words }
}

impl Case {
    fn malformed(&self) -> Value {
        let mut object = (self.object)();
        let (parent, field) = self.pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
        match (parent, &self.value) {
            (Value::Object(map), Value::Null) => drop(map.remove(field).unwrap_or_else(|| panic!("no {}", self.pointer))),
            (Value::Object(map), value) => drop(map.insert(field.to_owned(), value.clone())),
            (Value::Array(items), value) => items[field.parse::<usize>().unwrap()] = value.clone(),
            (other, _) => panic!("{other} has no fields"),
        }
        object
    }
}

fn template_cases() -> Vec<Case> {
    let boot_set = template()["spec"]["bootSets"][0].clone();
    vec![
        case(template, "/spec", Value::Null, &["spec"]),
        case(template, "/spec/bootSets", Value::Null, &["spec.bootSets", "Required"]),
        case(template, "/spec/bootSets", json!([]), &["spec.bootSets", "at least 1"]),
        case(template, "/spec/bootSets", json!([boot_set, boot_set]), &["spec.bootSets[1]", "Duplicate"]),
        case(template, "/spec/bootSets/0/name", json!("-a"), &["spec.bootSets[0].name"]),
        case(template, "/spec/bootSets/0/path", Value::Null, &["spec.bootSets[0].path", "Required"]),
        case(template, "/spec/bootSets/0/path", json!("/images/manifest.json"), &["spec.bootSets[0].path", "s3://bucket/key"]),
        case(template, "/spec/bootSets/0/type", json!("nfs"), &["spec.bootSets[0].type", "\"s3\""]),
        case(template, "/spec/bootSets/0/arch", json!("x86_64"), &["spec.bootSets[0].arch", "\"X86\", \"ARM\""]),
        case(template, "/spec/bootSets/0/nodeList/0", json!("nid000001"), &["spec.bootSets[0].nodeList[0]", "nid000001"]),
        case(template, "/spec/bootSets/0/nodeList", json!("x3000c0s19b1n0"), &["spec.bootSets[0].nodeList", "array"]),
        case(template, "/spec/bootSets/0/kernelParameters", json!("k".repeat(4097)), &["spec.bootSets[0].kernelParameters", "4096"]),
        case(template, "/spec/bootSets/0/nodeGroup", json!(["a"]), &["unknown field \"spec.bootSets[0].nodeGroup\""]),
        case(template, "/spec/cfs/configuration", json!(""), &["spec.cfs.configuration"]),
        case(template, "/spec/enableCfs", json!("yes"), &["spec.enableCfs", "boolean"]),
        case(template, "/spec/enableCFS", json!(false), &["unknown field \"spec.enableCFS\""]),
    ]
}

fn session_cases() -> Vec<Case> {
    vec![
        case(session, "/spec/operation", Value::Null, &["spec.operation", "Required"]),
        case(
            session,
            "/spec/operation",
            json!("boot"),
            &["spec.operation", "\"boot\"", "\"Boot\", \"Reboot\", \"Shutdown\", \"Configure\""],
        ),
        case(session, "/spec/templateName", Value::Null, &["spec.templateName", "Required"]),
        case(session, "/spec/templateName", json!(""), &["spec.templateName"]),
        case(session, "/spec/mode", json!("v3"), &["spec.mode", "\"v2\""]),
        case(session, "/spec/limit", json!(""), &["spec.limit"]),
        case(session, "/spec/limit", json!("x1000, x1001"), &["spec.limit", "no blanks"]),
        case(session, "/spec/limit", json!("x1000,,x1001"), &["spec.limit", "no empty items"]),
        case(session, "/spec/limit", json!("x1000,!&Compute"), &["spec.limit", "at most one"]),
        case(session, "/spec/startBefore", json!("tomorrow"), &["spec.startBefore", "date-time"]),
        case(session, "/spec/maxPowerCycled", json!(-1), &["spec.maxPowerCycled", "greater than or equal to 0"]),
        case(session, "/spec/operation", json!("Shutdown"), &["spec.runningNodes", "Boot only"]),
        case(session, "/spec/retryOf", json!("valid"), &["spec.retryOf", "earlier Session"]),
        case(session, "/spec/stag", json!(true), &["unknown field \"spec.stag\""]),
        case(session, "/metadata/name", json!("a".repeat(51)), &["name of a Session", "50"]),
    ]
}

fn other_cases() -> Vec<Case> {
    vec![
        case(component, "/metadata/name", json!("x3000c0s019b1n0"), &["xname", "leading zeros"]),
        case(component, "/metadata/name", json!("nid000001"), &["xname"]),
        case(component, "/spec/run", json!(""), &["spec.run"]),
        case(component, "/spec/retryPolicy", json!(-1), &["spec.retryPolicy"]),
        case(component, "/spec/desiredState/artifacts", json!("latest"), &["spec.desiredState.artifacts"]),
        case(component, "/spec/session", json!({"name": "a"}), &["spec.session.uid", "Required"]),
        case(component, "/spec/enabled", json!(true), &["unknown field \"spec.enabled\""]),
        case(options, "/metadata/name", json!("other"), &["its name is default"]),
        case(options, "/spec/bssReadTimeoutSeconds", json!(9), &["spec.bssReadTimeoutSeconds", "10"]),
        case(options, "/spec/maxComponentBatchSize", json!(131_072), &["spec.maxComponentBatchSize", "131071"]),
        case(options, "/spec/loggingLevel", json!("TRACE"), &["spec.loggingLevel", "\"DEBUG\""]),
        case(options, "/spec/componentActualStateTtl", json!("4"), &["spec.componentActualStateTtl"]),
        case(options, "/spec/cleanupCompletedSessionTtl", json!("7 days"), &["spec.cleanupCompletedSessionTtl"]),
        case(options, "/spec/sessionNamespaces", json!(["bos", "bos"]), &["spec.sessionNamespaces[1]", "Duplicate"]),
        case(options, "/spec/inventoryShrinkPercent", json!(0), &["spec.inventoryShrinkPercent"]),
        case(options, "/spec/maxBootWaitTime", json!(5), &["unknown field \"spec.maxBootWaitTime\""]),
    ]
}

#[tokio::test]
async fn valid_objects_are_accepted() -> Result {
    let client = with_crds().await?.client().await?;
    for object in [template(), session(), component(), options()] {
        let created = create(&client, object.clone()).await?;
        assert_eq!(created["metadata"]["name"], object["metadata"]["name"]);
    }
    Ok(())
}

#[tokio::test]
async fn malformed_objects_are_refused_by_the_name_of_the_field() -> Result {
    let client = with_crds().await?.client().await?;
    let mut wrong = vec![];
    for case in template_cases().into_iter().chain(session_cases()).chain(other_cases()) {
        let object = case.malformed();
        let what = format!("{} {} = {:.40}", object["kind"], case.pointer, case.value.to_string());
        match create(&client, object).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
                let missing: Vec<_> = case.words.iter().filter(|word| !status.message.contains(**word)).collect();
                if !missing.is_empty() {
                    wrong.push(format!("{what}: without {missing:?}: {}", status.message));
                }
            }
            other => wrong.push(format!("{what}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn a_boot_set_without_nodes_is_refused() -> Result {
    let client = with_crds().await?.client().await?;
    let mut object = template();
    let boot_set = object["spec"]["bootSets"][0].as_object_mut().unwrap();
    boot_set.remove("nodeRolesGroups");
    boot_set.insert("nodeList".to_owned(), json!([]));
    let message = refusal(create(&client, object).await, "no nodes");
    assert!(message.contains("spec.bootSets[0]") && message.contains("nodeList, nodeGroups or nodeRolesGroups"), "{message}");
    Ok(())
}

#[tokio::test]
async fn kubectl_apply_shows_the_refusal() -> Result {
    let control_plane = with_crds().await?;
    let manifest = "apiVersion: bos.hpe.com/v1alpha1
kind: Session
metadata: {name: refused}
spec: {operation: boot, templateName: cos-3.3.12}
";
    let output = control_plane.apply(manifest).await?;
    assert!(!output.success());
    assert!(output.stderr.contains("spec.operation: Unsupported value: \"boot\""), "{}", output.stderr);
    Ok(())
}

#[tokio::test]
async fn a_session_cannot_be_changed_but_suspended_and_cancelled() -> Result {
    let control_plane = with_crds().await?;
    let mut object = session();
    object["apiVersion"] = "bos.hpe.com/v1alpha1".into();
    object["metadata"]["name"] = "unchangeable".into();
    control_plane.apply(&object.to_string()).await?.ok()?;
    let client = control_plane.client().await?;
    let patch = async |spec: Value| {
        let uri = "/apis/bos.hpe.com/v1alpha1/namespaces/default/sessions/unchangeable";
        let request = Request::builder().method(Method::PATCH).uri(uri).header("content-type", "application/merge-patch+json");
        client.request::<Value>(request.body(json!({"spec": spec}).to_string().into_bytes()).unwrap()).await
    };
    for (field, value) in [
        ("mode", json!("v1")),
        ("operation", json!("Reboot")),
        ("templateName", json!("other")),
        ("limit", json!("x1")),
        ("limit", Value::Null),
        ("stage", json!(true)),
        ("includeDisabled", json!(true)),
        ("startBefore", json!("2026-11-24T18:00:00Z")),
        ("retryOf", json!("earlier")),
        ("runningNodes", json!("Restart")),
        ("maxPowerCycled", json!(11)),
        ("maxPowerCycled", Value::Null),
    ] {
        let message = refusal(patch(json!({field: value})).await, field);
        assert!(message.contains(&format!("spec.{field}")) && message.contains("cannot be changed"), "{field}: {message}");
    }
    patch(json!({"suspend": true})).await?;
    patch(json!({"suspend": false, "cancel": true})).await?;
    let message = refusal(patch(json!({"cancel": false})).await, "cancel");
    assert!(message.contains("spec.cancel") && message.contains("cannot be taken back"), "{message}");
    Ok(())
}
