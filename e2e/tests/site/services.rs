//! The services answer as the real ones do, oddities included.

use std::time::Duration;

use bos_e2e::site::{Faults, ImageDefect, ImageSpec, InitialState, Inventory, Site};
use rusty_s3::actions::S3Action as _;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use serde_json::{Value, json};

use super::{IMAGE, NODE, OTHER, body_of, eventually, followed, get, post, put_parameters, site, transition};

#[tokio::test]
async fn hsm_answers_like_hsm() {
    let (site, client) = site().await;
    let base = site.urls().hsm.clone();
    let all = body_of(get(&client, format!("{base}/State/Components?type=node&enabled=True&nonsense=1")).await).await;
    let components = all["Components"].as_array().unwrap();
    assert_eq!(components.len(), 8);
    assert_eq!(components[0]["Enabled"], true);
    for absent in ["Locked", "SubRole", "ReservationDisabled"] {
        assert!(components[0].get(absent).is_none(), "{absent}");
    }
    let find = async |query: &str| {
        body_of(get(&client, format!("{base}/State/Components?{query}")).await).await["Components"].as_array().unwrap().len()
    };
    assert_eq!(find("id=X1000C0S00B0N0").await, 1);
    assert_eq!(find("id=x9c0s0b0n0").await, 0);
    assert_eq!(find("type=Node&group=nobody").await, 0);
    assert_eq!(find("type=Node&role=!Compute").await, 0);
    assert_eq!(get(&client, format!("{base}/State/Components?type=nonsense")).await.status(), 400);
    assert_eq!(get(&client, format!("{base}/State/Components/nonsense")).await.status(), 404);

    let ask = async |body: Value| post(&client, format!("{base}/State/Components/Query"), body).await;
    assert_eq!(
        body_of(ask(json!({"ComponentIDs": [NODE, NODE, "garbage"], "enabled": ["True"]})).await).await["Components"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(ask(json!({"ComponentIDs": [NODE], "enabled": [true]})).await.status(), 500);
    assert_eq!(ask(json!({"ComponentIDs": []})).await.status(), 400);
    assert!(body_of(ask(json!({"ComponentIDs": ["all"], "type": ["Node"]})).await).await["Components"].as_array().unwrap().len() == 8);

    assert_eq!(body_of(get(&client, format!("{base}/groups")).await).await, json!([]));
    site.set_group("blue", &[NODE]);
    assert_eq!(body_of(get(&client, format!("{base}/groups")).await).await[0]["members"]["ids"], json!([NODE]));
    assert_eq!(get(&client, format!("{base}/groups?partition=p9")).await.status(), 400);
    site.configure(|s| s.missing_groups = vec!["blue".into()]);
    assert_eq!(body_of(get(&client, format!("{base}/groups")).await).await, json!([]));

    assert_eq!(body_of(get(&client, format!("{base}/locks/status?type=Node&locked=True")).await).await, json!({"Components": []}));
    site.set_locked(&[NODE], true);
    let locked = body_of(get(&client, format!("{base}/locks/status?type=Node&locked=True")).await).await;
    assert_eq!(locked["Components"], json!([{"ID": NODE, "Locked": true, "Reserved": false, "ReservationDisabled": false}]));
    assert_eq!(get(&client, format!("{base}/locks/status?locked=maybe")).await.status(), 500);
    site.set_locked(&[NODE], false);
    site.configure(|s| s.old_locks_status = true);
    assert_eq!(get(&client, format!("{base}/locks/status?locked=True")).await.status(), 400);
    let unknown = get(&client, format!("{base}/nonsense")).await;
    assert_eq!((unknown.status().as_u16(), unknown.headers()["content-type"].to_str().unwrap()), (404, "text/plain; charset=utf-8"));
}

#[tokio::test]
async fn hsm_may_show_half_or_nothing() {
    let (site, client) = site().await;
    let count = async || {
        body_of(get(&client, format!("{}/State/Components?type=Node", site.urls().hsm)).await).await["Components"].as_array().unwrap().len()
    };
    site.configure(|s| s.inventory = Inventory::Half);
    assert_eq!(count().await, 4);
    site.configure(|s| s.inventory = Inventory::Empty);
    assert_eq!(count().await, 0);
    site.configure(|s| s.inventory = Inventory::Full);
    site.set_faults(&[NODE], &Faults { missing_from_hsm: true, ..Faults::default() });
    assert_eq!(count().await, 7);
}

#[tokio::test]
async fn pcs_accepts_everything_and_tells_it_in_the_tasks() {
    let (site, client) = site().await;
    site.set_locked(&[OTHER], true);
    let id = transition(&site, &client, "on", &[NODE, OTHER, "x9c0s0b0n0", "zzz", "x3000"]).await;
    let ended = followed(&site, &client, &id).await;
    let task = |at: usize| (ended["tasks"][at]["taskStatus"].as_str().unwrap(), ended["tasks"][at]["error"].as_str().unwrap_or(""));
    assert_eq!(task(0), ("succeeded", ""));
    assert_eq!(task(1), ("failed", "Unable to reserve component"));
    assert_eq!(task(2), ("failed", "Missing xname"));
    assert_eq!(task(3), ("failed", "Invalid xname"));
    assert_eq!(task(4), ("unsupported", "No power control for component type Cabinet"));
    assert_eq!(ended["taskCounts"], json!({"total": 5, "new": 0, "in-progress": 0, "failed": 3, "succeeded": 1, "un-supported": 1}));
    let again = transition(&site, &client, "On", &[NODE]).await;
    let again = followed(&site, &client, &again).await;
    assert_eq!(again["tasks"][0]["taskStatusDescription"], "Component already in desired state");
    let empty = transition(&site, &client, "On", &[]).await;
    assert!(followed(&site, &client, &empty).await.get("tasks").is_none());

    let url = format!("{}/transitions", site.urls().pcs);
    assert_eq!(post(&client, url.clone(), json!({"operation": "Sideways", "location": []})).await.status(), 400);
    assert_eq!(get(&client, format!("{url}/not-a-uuid")).await.status(), 400);
    assert_eq!(get(&client, format!("{url}/11111111-2222-3333-4444-555555555555")).await.status(), 404);
    let wrong = client.put(url).send().await.unwrap();
    assert_eq!((wrong.status().as_u16(), wrong.text().await.unwrap().as_str()), (405, ""));
}

#[tokio::test]
async fn pcs_holds_its_nodes_until_the_slowest_task_ends() {
    let (site, client) = site().await;
    site.configure(|s| s.task_minute = Duration::from_millis(400));
    site.set_state(&[NODE, OTHER], &InitialState::OnUnknown);
    site.set_faults(&[OTHER], &Faults { ignores_soft_off: true, ..Faults::default() });
    let slow = transition(&site, &client, "Soft-Off", &[NODE, OTHER]).await;
    eventually(&site, |s| s.node(NODE).is_some_and(|n| !n.power)).await;
    assert!(site.node(NODE).unwrap().reserved);
    let early = transition(&site, &client, "On", &[NODE]).await;
    assert_eq!(followed(&site, &client, &early).await["tasks"][0]["error"], "Unable to reserve component");
    let ended = followed(&site, &client, &slow).await;
    assert_eq!(ended["tasks"][0]["taskStatus"], "succeeded");
    assert_eq!(ended["tasks"][1]["error"], "Timeout waiting for transition, gracefulshutdown.");
    assert!(!site.node(NODE).unwrap().reserved);
    let late = transition(&site, &client, "On", &[NODE]).await;
    assert_eq!(followed(&site, &client, &late).await["tasks"][0]["taskStatus"], "succeeded");
    assert_eq!((site.power_cycles(NODE), site.power_cycles(OTHER)), (1, 0));
    let off = transition(&site, &client, "Force-Off", &[OTHER]).await;
    assert_eq!(followed(&site, &client, &off).await["tasks"][0]["taskStatusDescription"], "Transition confirmed, off");
    assert_eq!(site.power_offs(OTHER), 1);
}

#[tokio::test]
async fn power_status_is_lower_case_and_strict_about_names() {
    let (site, client) = site().await;
    site.set_faults(&[OTHER], &Faults { bmc_undefined: true, ..Faults::default() });
    let ask = async |xnames: Value| post(&client, format!("{}/v1/power-status", site.urls().pcs), json!({"xname": xnames})).await;
    let status = body_of(ask(json!([NODE, NODE, OTHER, "x9c0s0b0n0"])).await).await;
    let list = status["status"].as_array().unwrap();
    let view = |xname: &str| {
        let e = list.iter().find(|e| e["xname"] == xname).unwrap();
        (
            e["powerState"].as_str().unwrap().to_owned(),
            e["managementState"].as_str().unwrap().to_owned(),
            e["error"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(list.len(), 3);
    assert_eq!(view(NODE), ("off".into(), "available".into(), String::new()));
    assert_eq!(view(OTHER), ("undefined".into(), "unavailable".into(), String::new()));
    assert_eq!(view("x9c0s0b0n0"), (String::new(), String::new(), "Component not found in component map.".into()));
    assert_eq!(body_of(ask(json!([])).await).await["status"].as_array().unwrap().len(), 8);
    for bad in ["garbage", "X1000c0s0b0n0", "x1000c0s00b0n0"] {
        let refused = ask(json!([NODE, bad])).await;
        assert_eq!(refused.status(), 400);
        assert_eq!(body_of(refused).await["detail"], format!("invalid xnames detected: {bad}"));
    }
}

#[tokio::test]
async fn power_status_lags_behind_when_pcs_samples() {
    let (site, client) = site().await;
    site.configure(|s| s.sample_interval = Duration::from_secs(3600));
    site.power(&[NODE], true);
    let body = json!({"xname": [NODE]});
    let status = body_of(post(&client, format!("{}/power-status", site.urls().pcs), body).await).await;
    assert_eq!(status["status"][0]["powerState"], "off");
    assert!(site.node(NODE).unwrap().power);
}

#[tokio::test]
async fn bss_answers_like_bss() {
    let (site, client) = site().await;
    let url = format!("{}/bootparameters", site.urls().bss);
    assert_eq!(body_of(get(&client, url.clone()).await).await, Value::Null);
    assert_eq!(get(&client, format!("{url}?name={NODE}")).await.status(), 404);
    let first = put_parameters(&site, &client, &[NODE, "any-string"]).await;
    let second = put_parameters(&site, &client, &[NODE]).await;
    assert_ne!(first, second);
    assert_eq!(site.bss_token("any-string").as_ref(), Some(&first));
    assert_eq!(site.bss_token(NODE).as_ref(), Some(&second));
    let read = get(&client, format!("{url}?name={NODE},{OTHER}")).await.text().await.unwrap();
    assert!(!read.contains(&second) && read.contains("cloud-init"), "{read}");
    assert_eq!(serde_json::from_str::<Value>(&read).unwrap().as_array().unwrap().len(), 1);
    let nobody = client.put(url.clone()).json(&json!({"hosts": []})).send().await.unwrap();
    assert_eq!((nobody.status().as_u16(), nobody.headers().get("bss-referral-token")), (200, None));
    let merged = client
        .patch(url.clone())
        .json(&json!({"hosts": [NODE], "params": "quiet initrd_x=1 bss_referral_token=mine"}))
        .send()
        .await
        .unwrap();
    assert_eq!((merged.status().as_u16(), merged.headers().get("bss-referral-token")), (200, None));
    let script = get(&client, format!("{}/bootscript?name={NODE}", site.urls().bss)).await.text().await.unwrap();
    assert!(script.starts_with("#!ipxe\n") && script.contains("bss_referral_token=mine"), "{script}");
    assert!(!script.contains(&second) && !script.contains("initrd_x=1"), "{script}");
    assert_eq!(client.put(url.clone()).body("{").send().await.unwrap().status(), 400);
    let exists = post(&client, url.clone(), json!({"hosts": [NODE]})).await;
    assert_eq!(
        (exists.status().as_u16(), body_of(exists).await["detail"].as_str().unwrap()),
        (400, format!("Already exists: {NODE}").as_str())
    );
    assert_eq!(client.delete(url.clone()).json(&json!({"hosts": [NODE]})).send().await.unwrap().status(), 200);
    assert_eq!(client.delete(url).json(&json!({"hosts": [NODE]})).send().await.unwrap().status(), 400);
    assert_eq!(get(&client, format!("{}/nonsense", site.urls().bss)).await.text().await.unwrap(), "Hello World!");
}

#[tokio::test]
async fn bss_may_stop_in_the_middle() {
    let (site, client) = site().await;
    site.configure(|s| s.bss_put_stops_at = vec![OTHER.into()]);
    let body = json!({"hosts": [NODE, OTHER, "x1000c0s0b1n0"], "kernel": "k", "initrd": "i", "params": "p"});
    let response = client.put(format!("{}/bootparameters", site.urls().bss)).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(site.bss_token(NODE).is_some() && site.bss_token(OTHER).is_none() && site.bss_token("x1000c0s0b1n0").is_none());
}

#[tokio::test]
async fn cfs_answers_like_cfs() {
    let (site, client) = site().await;
    let url = format!("{}/components", site.urls().cfs);
    let page = body_of(get(&client, format!("{url}?limit=3")).await).await;
    assert_eq!((page["components"].as_array().unwrap().len(), &page["next"]["limit"]), (3, &json!(3)));
    let after = page["next"]["after_id"].as_str().unwrap();
    let rest = body_of(get(&client, format!("{url}?limit=5&after_id={after}")).await).await;
    assert_eq!((rest["components"].as_array().unwrap().len(), &rest["next"]), (5, &Value::Null));
    let one = body_of(get(&client, format!("{url}?ids={NODE},unknown")).await).await["components"].clone();
    assert_eq!(one, json!([{"id": NODE, "desired_config": "", "configuration_status": "unconfigured", "enabled": true, "error_count": 0}]));
    for bad in ["limit=0", "status=nonsense", "enabled=maybe"] {
        assert_eq!(get(&client, format!("{url}?{bad}")).await.status(), 400, "{bad}");
    }
    let change = async |body: Value| client.patch(&url).json(&body).send().await.unwrap();
    let by_filter = change(json!({"patch": {"desired_config": "cos-3.3.12"}, "filters": {"ids": format!("{NODE},unknown")}})).await;
    assert_eq!(body_of(by_filter).await, json!({"component_ids": [NODE]}));
    assert_eq!(change(json!([{"id": OTHER, "enabled": false}, {"id": "unknown", "enabled": false}])).await.status(), 404);
    assert!(site.node(OTHER).unwrap().cfs_enabled, "the list form is all or nothing");
    assert_eq!(change(json!([])).await.status(), 500);
    assert_eq!(change(json!({"patch": {}})).await.status(), 400);
    assert_eq!(change(json!({"patch": {"nonsense": 1}, "filters": {"ids": NODE}})).await.status(), 400);
    assert_eq!(change(json!({"patch": {}, "filters": {"ids": [NODE]}})).await.status(), 400);
    let stale = body_of(client.patch(format!("{url}/{NODE}")).json(&json!({"desired_config": "nowhere"})).send().await.unwrap()).await;
    assert_eq!(stale["configuration_status"], "unconfigured");
    let everyone = body_of(change(json!({"patch": {"tags": {"a": "b"}}, "filters": {"ids": ""}})).await).await;
    assert_eq!(everyone["component_ids"].as_array().unwrap().len(), 8);
    assert_eq!(get(&client, format!("{}/configurations/cos-3.3.12", site.urls().cfs)).await.status(), 200);
    assert_eq!(get(&client, format!("{}/configurations/nowhere", site.urls().cfs)).await.status(), 404);
    let long = client.get(format!("{url}?ids={}", "x".repeat(17_000))).send().await;
    assert!(long.is_err(), "the request line is too long for this service");
}

#[tokio::test]
async fn cfs_fails_and_waits_as_told() {
    let (site, client) = site().await;
    site.set_state(&[NODE, OTHER], &InitialState::OnUnknown);
    site.set_faults(&[NODE], &Faults { cfs_fails: true, ..Faults::default() });
    site.set_faults(&[OTHER], &Faults { cfs_pending: true, ..Faults::default() });
    let body = json!([{"id": NODE, "desired_config": "cos-3.3.12"}, {"id": OTHER, "desired_config": "cos-3.3.12"}]);
    assert_eq!(client.patch(format!("{}/components", site.urls().cfs)).json(&body).send().await.unwrap().status(), 200);
    eventually(&site, |s| s.node(NODE).is_some_and(|n| n.cfs_status.as_deref() == Some("failed"))).await;
    assert_eq!(site.node(OTHER).unwrap().cfs_status.as_deref(), Some("pending"));
    site.set_faults(&[OTHER], &Faults::default());
    eventually(&site, |s| s.node(OTHER).is_some_and(|n| n.cfs_status.as_deref() == Some("configured"))).await;
    site.set_faults(&[OTHER], &Faults { missing_from_cfs: true, ..Faults::default() });
    assert_eq!(get(&client, format!("{}/components/{OTHER}", site.urls().cfs)).await.status(), 404);
}

#[tokio::test]
async fn ims_keeps_metadata() {
    let (site, client) = site().await;
    let url = format!("{}/images", site.urls().ims);
    let image = body_of(get(&client, format!("{url}/{IMAGE}")).await).await;
    assert_eq!(
        (image["arch"].as_str(), image["link"]["path"].as_str()),
        (Some("x86_64"), Some(&*format!("s3://boot-images/{IMAGE}/manifest.json")))
    );
    let tag = async |operation: &str| {
        let body = json!({"metadata": {"operation": operation, "key": "sbps-project", "value": "true"}});
        client.patch(format!("{url}/{IMAGE}")).json(&body).send().await.unwrap()
    };
    assert_eq!(tag("set").await.status(), 200);
    assert_eq!(site.image_metadata(IMAGE, "sbps-project").as_deref(), Some("true"));
    assert_eq!(tag("remove").await.status(), 200);
    assert_eq!(tag("remove").await.status(), 200);
    let bad = tag("paint").await;
    assert_eq!(bad.status(), 422);
    let bad = body_of(bad).await;
    assert!(bad.get("type").is_none() && bad["errors"].is_object(), "{bad}");
    let unknown = get(&client, format!("{url}/nonsense")).await;
    assert_eq!(unknown.status(), 404);
}

fn signed(site: &Site, secret: &str, key: &str) -> reqwest::Url {
    let endpoint = site.urls().s3.parse().unwrap();
    let bucket = Bucket::new(endpoint, UrlStyle::Path, "boot-images", "default").unwrap();
    let credentials = Credentials::new(&site.urls().s3_access_key, secret);
    bucket.get_object(Some(&credentials), key).sign(Duration::from_secs(60))
}

#[tokio::test]
async fn s3_checks_signatures() {
    let (site, client) = site().await;
    let secret = site.urls().s3_secret_key.clone();
    let key = format!("{IMAGE}/manifest.json");
    let good = client.get(signed(&site, &secret, &key)).send().await.unwrap();
    assert_eq!(good.status(), 200);
    assert!(good.headers()["etag"].to_str().unwrap().starts_with('"'));
    assert_eq!(body_of(good).await["artifacts"].as_array().unwrap().len(), 4);
    let odd = "odd/a key+with=signs&more.json";
    site.put_object("boot-images", odd, "odd");
    assert_eq!(client.get(signed(&site, &secret, odd)).send().await.unwrap().text().await.unwrap(), "odd");
    let missing = client.get(signed(&site, &secret, "nothing")).send().await.unwrap();
    assert_eq!(missing.status(), 404);
    assert!(missing.text().await.unwrap().contains("<Code>NoSuchKey</Code>"));
    let forged = client.get(signed(&site, "other-secret", &key)).send().await.unwrap();
    assert_eq!(forged.status(), 403);
    assert!(forged.text().await.unwrap().contains("<Code>SignatureDoesNotMatch</Code>"));
    let mut moved = signed(&site, &secret, &key);
    moved.set_path(&format!("/boot-images/{IMAGE}/kernel"));
    assert_eq!(client.get(moved).send().await.unwrap().status(), 403);
    let bare = client.get(format!("{}/boot-images/{key}", site.urls().s3)).send().await.unwrap();
    assert_eq!(bare.status(), 403);
    let endpoint = site.urls().s3.parse().unwrap();
    let bucket = Bucket::new(endpoint, UrlStyle::Path, "nowhere", "default").unwrap();
    let credentials = Credentials::new(&site.urls().s3_access_key, &secret);
    let head = bucket.head_object(Some(&credentials), "k").sign(Duration::from_secs(60));
    let head = client.head(head).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.text().await.unwrap().as_str()), (404, ""));
}

#[tokio::test]
async fn images_can_be_broken() {
    let (site, client) = site().await;
    let secret = site.urls().s3_secret_key.clone();
    let read = async |defect: ImageDefect| {
        let id = format!("broken-{defect:?}");
        site.add_image(&ImageSpec { id: id.clone(), defect: Some(defect), ..ImageSpec::default() });
        client.get(signed(&site, &secret, &format!("{id}/manifest.json"))).send().await.unwrap()
    };
    assert_eq!(read(ImageDefect::NoManifest).await.status(), 404);
    assert!(serde_json::from_str::<Value>(&read(ImageDefect::BadJson).await.text().await.unwrap()).is_err());
    assert!(read(ImageDefect::HugeManifest).await.bytes().await.unwrap().len() > 1024 * 1024);
    let kernels = async |defect| {
        let manifest = body_of(read(defect).await).await;
        manifest["artifacts"].as_array().unwrap().iter().filter(|a| a["type"] == "application/vnd.cray.image.kernel").count()
    };
    assert_eq!(kernels(ImageDefect::NoKernel).await, 0);
    assert_eq!(kernels(ImageDefect::DuplicateKernel).await, 2);
    assert_eq!(kernels(ImageDefect::MissingKernelObject).await, 1);
    assert_eq!(client.get(signed(&site, &secret, "broken-MissingKernelObject/kernel")).send().await.unwrap().status(), 404);
}
