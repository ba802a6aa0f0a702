//! What kubectl shows after a boot: columns, waiting, explanations, field selectors, and how large objects are.

use serde_json::Value;

use crate::bench::{Bench, Result};

/// No BootComponent is larger than this after its first boot.
const LARGEST: usize = 2048;

pub async fn everything(bench: &Bench) -> Result {
    columns(bench).await?;
    waiting(bench).await?;
    explained(bench).await?;
    selected(bench).await?;
    allowed(bench).await?;
    sizes(bench).await
}

/// A table's header and first line, word by word.
fn head(table: &str) -> (String, String) {
    let line = |number: usize| table.lines().nth(number).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    (line(0), line(1))
}

async fn columns(bench: &Bench) -> Result {
    let (header, row) = head(&bench.rig.kubectl(&["get", "sessions"]).await?);
    assert_eq!(header, "NAME OPERATION TEMPLATE PHASE OUTCOME NODES DONE FAILED PROGRESS AGE");
    assert!(row.starts_with("boot-1 Boot cos-3.3.12 Complete Succeeded 32 32 0 100% "), "{row}");
    let (header, _) = head(&bench.rig.kubectl(&["get", "sessions", "-o", "wide"]).await?);
    assert!(header.ends_with("AGE LIMIT EXCLUDED SUPERSEDED POWERCYCLED MESSAGE"), "{header}");
    let (header, row) = head(&bench.rig.kubectl(&["get", "bootcomponents"]).await?);
    assert_eq!(header, "NAME STATUS PHASE SESSION POWER LAST ACTION TRIES SINCE REASON");
    assert!(row.starts_with("x1000c0s0b0n0 Stable boot-1 On PoweringOn 1/3 "), "{row}");
    let (header, row) = head(&bench.rig.kubectl(&["get", "bc", "-o", "wide"]).await?);
    assert!(header.ends_with("ENABLED NID IMAGE CONFIG NEXT MESSAGE AGE"), "{header}");
    // IMS calls the image as the configuration is called.
    assert!(row.contains(" false 1 ") && row.contains(" cos-3.3.12 cos-3.3.12 "), "{row}");
    Ok(())
}

async fn waiting(bench: &Bench) -> Result {
    for condition in ["Complete", "Succeeded"] {
        bench.rig.kubectl(&["wait", "session/boot-1", &format!("--for=condition={condition}"), "--timeout=10s"]).await?;
    }
    Ok(())
}

async fn explained(bench: &Bench) -> Result {
    for (field, word) in [
        ("sessions.spec.startBefore", "GitOps"),
        ("sessions.status.conditions", "Complete"),
        ("bootcomponents.status.enabled", "HSM"),
        ("sessiontemplates.spec.bootSets", "DESCRIPTION"),
        ("bootoptions.spec.maxBootWaitTimeSeconds", "DESCRIPTION"),
    ] {
        let text = bench.rig.kubectl(&["explain", field]).await?;
        assert!(text.contains(word), "{field}: {text}");
    }
    Ok(())
}

async fn selected(bench: &Bench) -> Result {
    for (selector, nodes) in [
        ("status.status=Stable", 32),
        ("status.status=Failed", 0),
        ("status.power=Off", 0),
        ("status.power=On", 32),
        ("spec.session.name=boot-1", 32),
        ("spec.session.name=other", 0),
    ] {
        let names = bench.rig.kubectl(&["get", "bc", "--field-selector", selector, "-o", "name"]).await?;
        assert_eq!(names.lines().count(), nodes, "{selector}: {names}");
    }
    Ok(())
}

/// What a person may do who has the roles of an administrator, and nothing else.
async fn allowed(bench: &Bench) -> Result {
    bench.rig.kubectl(&["create", "clusterrolebinding", "admins", "--clusterrole=bos-administrator", "--user=alice"]).await?;
    bench.rig.kubectl(&["create", "rolebinding", "admins", "--role=bos-administrator", "--user=alice"]).await?;
    for (verb, what, may) in [
        ("create", "sessions.bos.hpe.com", true),
        ("create", "configmaps", true),
        ("delete", "configmaps/bos-emergency-stop", true),
        ("get", "pods/log", true),
        ("list", "events.events.k8s.io", true),
        ("get", "configmaps/bos-session-names-0", false),
        ("delete", "configmaps/bos-session-names-0", false),
        ("update", "configmaps", false),
        ("get", "secrets", false),
    ] {
        // kubectl ends badly where the answer is no.
        let what = what.strip_suffix("/log").map_or_else(|| vec![what], |pods| vec![pods, "--subresource=log"]);
        let said = bench.rig.kubectl(&[&["auth", "can-i", "--as=alice", verb], &*what].concat()).await;
        assert_eq!(said.is_ok_and(|said| said.trim() == "yes"), may, "{verb} {what:?}");
    }
    Ok(())
}

async fn sizes(bench: &Bench) -> Result {
    let list: Value = serde_json::from_str(&bench.rig.kubectl(&["get", "bc", "-o", "json", "--show-managed-fields"]).await?)?;
    // ADR 0014: a Session has driven all of them, and nobody has applied them.
    let untracked = |item: &&Value| item["metadata"].get("managedFields").is_none();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.iter().filter(untracked).count(), items.len());
    let largest = items.iter().max_by_key(|item| item.to_string().len()).unwrap();
    println!("   the largest BootComponent has {} bytes: {largest}", largest.to_string().len());
    assert!(largest.to_string().len() <= LARGEST, "{} bytes: {largest}", largest.to_string().len());
    Ok(())
}
