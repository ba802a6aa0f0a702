//! Our CRDs as a person meets them: established, explained, listed, waited for.

use std::path::Path;

use bos_e2e::control_plane::ControlPlane;
use serde_json::Value;

use crate::Result;

/// The shared control plane with our CRDs installed.
pub(crate) async fn with_crds() -> Result<&'static ControlPlane> {
    static INSTALLED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let control_plane = ControlPlane::shared().await?;
    let folder = Path::new("../manifests/crds");
    INSTALLED.get_or_try_init(|| async { control_plane.install_crds(folder).await }).await?;
    Ok(control_plane)
}

async fn kubectl(args: &str) -> Result<String> {
    let args: Vec<&str> = args.split(' ').collect();
    with_crds().await?.kubectl(&args).await?.ok()
}

/// Column names of the first line.
fn header(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or_default().split("  ").map(str::trim).filter(|column| !column.is_empty()).collect()
}

#[tokio::test]
async fn all_four_are_established_without_a_complaint() -> Result {
    let list: Value = serde_json::from_str(&kubectl("get crds -o json").await?)?;
    let crds: Vec<&Value> = list["items"].as_array().unwrap().iter().filter(|crd| crd["spec"]["group"] == "bos.hpe.com").collect();
    assert_eq!(crds.len(), 4);
    for crd in crds {
        let name = &crd["metadata"]["name"];
        let condition = |kind: &str| {
            let all = crd["status"]["conditions"].as_array().unwrap();
            all.iter().find(|condition| condition["type"] == kind).map(|condition| condition["status"].clone())
        };
        assert_eq!(condition("Established"), Some("True".into()), "{name}");
        assert_eq!(condition("NamesAccepted"), Some("True".into()), "{name}");
        // Present only where the schema is not structural: pruning and defaults would not work.
        assert_eq!(condition("NonStructuralSchema"), None, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn applying_the_crds_again_changes_and_warns_of_nothing() -> Result {
    let control_plane = with_crds().await?;
    let folder = Path::new("../manifests/crds");
    let diff = control_plane.kubectl(&["diff", "--server-side", "-k", folder.to_str().unwrap()]).await?;
    assert!(diff.success() && diff.stdout.is_empty(), "{}{}", diff.stdout, diff.stderr);
    assert_eq!(diff.stderr, "");
    Ok(())
}

/// The API server describes a new kind some moments after it has taken it.
async fn described() -> Result {
    let control_plane = with_crds().await?;
    let kinds = ["sessiontemplates", "sessions", "bootcomponents", "bootoptions"];
    let all = async {
        loop {
            let told = control_plane.kubectl(&["get", "--raw", "/openapi/v3/apis/bos.hpe.com/v1alpha1"]).await?.stdout;
            if kinds.iter().all(|kind| told.contains(&format!("/{kind}\""))) {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await?
}

#[tokio::test]
async fn explain_says_what_a_field_is_for() -> Result {
    described().await?;
    for (field, words) in [
        ("sessiontemplates.spec.bootSets.path", "manifest"),
        ("sessions.spec.limit", "separated by commas"),
        ("sessions.status.conditions", "Complete"),
        ("bs.spec.operation", "Shutdown"),
        ("bootcomponents.spec.run", "token"),
        ("bc.status.enabled", "HSM"),
        ("bootoptions.spec.maxBootWaitTimeSeconds", "1200"),
    ] {
        let text = kubectl(&format!("explain {field}")).await?;
        let description = text.split_once("DESCRIPTION:").map(|(_, description)| description).unwrap_or_default();
        assert!(description.contains(words), "{field}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn lists_have_the_columns_people_know() -> Result {
    let control_plane = with_crds().await?;
    let manifest = "apiVersion: bos.hpe.com/v1alpha1
kind: SessionTemplate
metadata: {name: columns}
spec: {bootSets: [{name: compute, path: 's3://boot-images/7f0c/manifest.json', nodeRolesGroups: [Compute]}]}
---
apiVersion: bos.hpe.com/v1alpha1
kind: Session
metadata: {name: columns}
spec: {operation: Boot, templateName: columns}
---
apiVersion: bos.hpe.com/v1alpha1
kind: BootComponent
metadata: {name: x9000c0s0b0n0}
spec: {}
";
    control_plane.apply(manifest).await?.ok()?;
    let columns = ["NAME", "OPERATION", "TEMPLATE", "PHASE", "OUTCOME", "NODES", "DONE", "FAILED", "PROGRESS", "AGE"];
    assert_eq!(header(&kubectl("get sessions columns").await?), columns);
    let wide = ["LIMIT", "EXCLUDED", "SUPERSEDED", "POWERCYCLED", "MESSAGE"];
    assert_eq!(header(&kubectl("get bs columns -o wide").await?), [&columns[..], &wide[..]].concat());
    let columns = ["NAME", "STATUS", "PHASE", "SESSION", "POWER", "LAST ACTION", "TRIES", "SINCE", "REASON"];
    assert_eq!(header(&kubectl("get bootcomponents x9000c0s0b0n0").await?), columns);
    let wide = ["ENABLED", "NID", "IMAGE", "CONFIG", "NEXT", "MESSAGE", "AGE"];
    assert_eq!(header(&kubectl("get bc x9000c0s0b0n0 -o wide").await?), [&columns[..], &wide[..]].concat());
    let all = kubectl("get bos -o name").await?;
    for name in ["session.bos.hpe.com/columns", "sessiontemplate.bos.hpe.com/columns", "bootcomponent.bos.hpe.com/x9000c0s0b0n0"] {
        assert!(all.lines().any(|line| line == name), "{all}");
    }
    Ok(())
}

#[tokio::test]
async fn a_status_can_be_waited_for_and_selected_by() -> Result {
    let control_plane = with_crds().await?;
    let manifest = "apiVersion: bos.hpe.com/v1alpha1
kind: Session
metadata: {name: waited-for}
spec: {operation: Reboot, templateName: none}
status: {phase: Complete}
---
apiVersion: bos.hpe.com/v1alpha1
kind: BootComponent
metadata: {name: x9000c0s0b1n0}
spec: {}
";
    control_plane.apply(manifest).await?.ok()?;
    // Nobody but the operator writes the status, and kstatus must not take an unseen Session for a current one.
    let status = kubectl("get session waited-for -o jsonpath={.status}").await?;
    assert_eq!(serde_json::from_str::<Value>(&status)?, serde_json::json!({"observedGeneration": -1}));

    // Without observedGeneration kubectl would take the condition for one of an earlier generation, and wait on.
    let ended = r#"{"status":{"observedGeneration":1,"phase":"Complete","outcome":"Failed","conditions":[{"type":"Complete","status":"True","reason":"Failed","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#;
    let patch = ["patch", "session", "waited-for", "--subresource=status", "--type=merge", "-p", ended];
    control_plane.kubectl(&patch).await?.ok()?;
    kubectl("wait --for=condition=Complete --timeout=30s session/waited-for").await?;
    assert_eq!(
        kubectl("get bs --field-selector status.outcome=Failed,spec.operation=Reboot -o name").await?,
        "session.bos.hpe.com/waited-for\n"
    );

    let failed = r#"{"status":{"status":"Failed","power":"On"}}"#;
    let patch = ["patch", "bc", "x9000c0s0b1n0", "--subresource=status", "--type=merge", "-p", failed];
    control_plane.kubectl(&patch).await?.ok()?;
    for (selector, expected) in
        [("status.status=Failed,status.power=On", "bootcomponent.bos.hpe.com/x9000c0s0b1n0\n"), ("status.power=Off", "")]
    {
        assert_eq!(kubectl(&format!("get bc --field-selector {selector} -o name")).await?, expected, "{selector}");
    }
    Ok(())
}
