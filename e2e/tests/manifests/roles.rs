//! Roles for people: what each may, and that it may nothing else.

use std::collections::BTreeSet;

use anyhow::Context as _;
use bos_e2e::control_plane::ControlPlane;
use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use crate::bench::{LIMIT, Result};

/// The namespaces of two tenants; the operator's own is `bos`.
const TENANTS: [&str; 2] = ["blue", "red"];
const VERBS: [&str; 9] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "apply-staged"];
const LOOK: &str = "get list watch";
const WRITE: &str = "get list watch create update patch delete";
const NOTHING: &str = "";

/// Who has which role: name, how it is bound (in a namespace, or in all), the role.
const PEOPLE: [(&str, Option<&str>, &str); 9] = [
    ("vera", None, "bos-viewer"),
    ("anna", Some("blue"), "bos-session-author"),
    ("dirk", None, "bos-node-driver"),
    ("olga", None, "bos-administrator"),
    ("slurm", None, "bos-workload-manager"),
    // The roles of Kubernetes itself.
    ("kate", Some("blue"), "view"),
    ("carl", None, "view"),
    ("eddi", None, "edit"),
    ("alma", None, "admin"),
];

/// The rights of one person: on templates and Sessions in `blue`, on those elsewhere, on BootComponents and on BootOptions.
const RIGHTS: [(&str, [&str; 4]); 9] = [
    ("vera", [LOOK, LOOK, LOOK, LOOK]),
    ("anna", [WRITE, NOTHING, NOTHING, NOTHING]),
    ("dirk", [NOTHING, NOTHING, "get list watch update patch", NOTHING]),
    (
        "olga",
        [
            "get list watch create update patch delete deletecollection",
            "get list watch create update patch delete deletecollection",
            WRITE,
            "get list watch create update patch",
        ],
    ),
    ("slurm", [NOTHING, NOTHING, "apply-staged", NOTHING]),
    ("kate", [LOOK, NOTHING, NOTHING, NOTHING]),
    ("carl", [LOOK, LOOK, LOOK, LOOK]),
    ("eddi", [LOOK, LOOK, LOOK, LOOK]),
    ("alma", [LOOK, LOOK, LOOK, LOOK]),
];

/// Every verb on every kind of ours, of everybody.
pub async fn right_by_right(control_plane: &ControlPlane) -> Result {
    bind(control_plane).await?;
    let client = control_plane.client().await?;
    // The controller manager puts the role view together when it comes to it.
    let put_together = async {
        while !may(&client, "carl", "list", "sessions", Some("blue"), None).await? {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Result::Ok(())
    };
    tokio::time::timeout(LIMIT, put_together).await.context("bos-viewer does not become part of the role view")??;
    let mut wrong = Vec::new();
    for (who, [in_blue, elsewhere, nodes, options]) in RIGHTS {
        let kinds = [("sessiontemplates", true), ("sessions", true), ("bootcomponents", false), ("bootoptions", false)];
        for (resource, namespaced) in kinds {
            for namespace in if namespaced { vec![Some("blue"), Some("red"), Some("bos")] } else { vec![None] } {
                let wanted = match (resource, namespace) {
                    ("bootcomponents", _) => nodes,
                    ("bootoptions", _) => options,
                    (_, Some("blue")) => in_blue,
                    _ => elsewhere,
                };
                let wanted: BTreeSet<&str> = wanted.split_whitespace().collect();
                let asked = VERBS.map(|verb| may(&client, who, verb, resource, namespace, None));
                let answers = try_join_all(asked).await?;
                let allowed: BTreeSet<&str> = VERBS.into_iter().zip(answers).filter_map(|(verb, yes)| yes.then_some(verb)).collect();
                if allowed != wanted {
                    wrong.push(format!("{who} on {resource} in {namespace:?}: {allowed:?}, not {wanted:?}"));
                }
                // What is shown is written by the operator alone.
                for verb in ["update", "patch"] {
                    if may(&client, who, verb, resource, namespace, Some("status")).await? {
                        wrong.push(format!("{who} may {verb} the status of {resource} in {namespace:?}"));
                    }
                }
            }
        }
        for (verb, resource, what) in [("get", "secrets", "Secrets"), ("update", "configmaps", "the records of the operator")] {
            let of_kubernetes = ["eddi", "alma"].contains(&who);
            if may(&client, who, verb, resource, Some("bos"), None).await? != of_kubernetes {
                wrong.push(format!("{who} may {verb} {what} in namespace bos: {}", !of_kubernetes));
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n  "));
    Ok(())
}

async fn bind(control_plane: &ControlPlane) -> Result {
    for namespace in TENANTS {
        control_plane.kubectl(&["create", "namespace", namespace]).await?.ok()?;
    }
    for (who, namespace, role) in PEOPLE {
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={who}"));
        let args = match namespace {
            Some(namespace) => vec!["create", "rolebinding", who, "-n", namespace, &role, &user],
            None => vec!["create", "clusterrolebinding", who, &role, &user],
        };
        control_plane.kubectl(&args).await?.ok()?;
    }
    Ok(())
}

/// The API server's own answer.
async fn may(client: &Client, who: &str, verb: &str, resource: &str, namespace: Option<&str>, part: Option<&str>) -> Result<bool> {
    let group = if ["secrets", "configmaps"].contains(&resource) { "" } else { "bos.hpe.com" };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(who.to_owned()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: part.map(str::to_owned),
                verb: Some(verb.to_owned()),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    Ok(api.create(&PostParams::default(), &review).await?.status.is_some_and(|status| status.allowed))
}

/// The same by kubectl, in the name of each.
pub async fn as_people_use_them(control_plane: &ControlPlane) -> Result {
    let session = |namespace: &str| {
        json!({"apiVersion": bos_crds::API_VERSION, "kind": "Session", "metadata": {"name": "of-a-person", "namespace": namespace},
               "spec": {"operation": "Boot", "templateName": "none"}})
        .to_string()
    };
    for (who, namespace, allowed) in [
        ("anna", "blue", true),
        ("anna", "red", false),
        ("anna", "bos", false),
        ("vera", "blue", false),
        ("dirk", "blue", false),
        ("alma", "blue", false),
        ("olga", "bos", true),
    ] {
        let flag = format!("--as={who}");
        let args = ["create", &flag, "--dry-run=server", "-f", "-"];
        let output = control_plane.kubectl_command().run_with_input(&args, &session(namespace)).await?;
        let refused = output.stderr.contains("Forbidden") && output.stderr.contains("cannot create resource \"sessions\"");
        anyhow::ensure!(output.success() == allowed && refused != allowed, "{who} in {namespace}: {}", output.stderr);
    }
    let node = json!({"apiVersion": bos_crds::API_VERSION, "kind": "BootComponent", "metadata": {"name": "x9998c0s0b0n0"}, "spec": {}});
    control_plane.apply(&node.to_string()).await?.ok()?;
    for (who, allowed) in [("dirk", true), ("olga", true), ("anna", false), ("vera", false), ("slurm", false), ("alma", false)] {
        let flag = format!("--as={who}");
        let args = ["patch", &flag, "bc", "x9998c0s0b0n0", "--dry-run=server", "--type=merge", "-p", r#"{"spec":{"run":"now"}}"#];
        let output = control_plane.kubectl(&args).await?;
        anyhow::ensure!(output.success() == allowed, "{who} on a node: {}{}", output.stdout, output.stderr);
    }
    Ok(())
}
