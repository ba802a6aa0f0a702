//! The options: names, defaults and bounds of BOS, and one source of defaults.

#![allow(clippy::unwrap_used, reason = "tests")]

use bos_crds::BootOptionsSpec;
use serde_json::{Map, Value, json};

fn properties() -> Map<String, Value> {
    let crds = bos_crds::all_crds();
    let crd = crds.iter().find(|crd| crd.spec.names.kind == "BootOptions").unwrap();
    let crd = serde_json::to_value(crd).unwrap();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap().as_object().unwrap().clone()
}

#[test]
fn defaults_of_the_schema_are_those_of_the_program() {
    let in_schema: Map<String, Value> =
        properties().into_iter().filter_map(|(name, schema)| schema.get("default").map(|value| (name, value.clone()))).collect();
    let in_program = serde_json::to_value(BootOptionsSpec::default()).unwrap();
    assert_eq!(Value::Object(in_schema), in_program);
    // A list without a default is empty; every other field must have one.
    let without: Vec<String> =
        properties().into_iter().filter(|(_, schema)| schema.get("default").is_none()).map(|(name, _)| name).collect();
    assert_eq!(without, ["sessionNamespaces"]);
}

#[test]
fn no_field_is_needed() {
    assert_eq!(serde_json::from_value::<BootOptionsSpec>(json!({})).unwrap(), BootOptionsSpec::default());
}

/// Name in BOS, our name, default.
#[test]
fn every_option_of_bos_is_there_with_its_default() {
    let options = [
        ("bss_read_timeout", "bssReadTimeoutSeconds", json!(20)),
        ("cfs_read_timeout", "cfsReadTimeoutSeconds", json!(20)),
        ("hsm_read_timeout", "hsmReadTimeoutSeconds", json!(20)),
        ("ims_read_timeout", "imsReadTimeoutSeconds", json!(20)),
        ("pcs_read_timeout", "pcsReadTimeoutSeconds", json!(20)),
        ("cleanup_completed_session_ttl", "cleanupCompletedSessionTtl", json!("7d")),
        ("clear_stage", "clearStage", json!(false)),
        ("component_actual_state_ttl", "componentActualStateTtl", json!("4h")),
        ("default_retry_policy", "defaultRetryPolicy", json!(3)),
        ("discovery_frequency", "discoveryFrequencySeconds", json!(300)),
        ("ims_errors_fatal", "imsErrorsFatal", json!(false)),
        ("ims_images_must_exist", "imsImagesMustExist", json!(false)),
        ("logging_level", "loggingLevel", json!("INFO")),
        ("max_boot_wait_time", "maxBootWaitTimeSeconds", json!(1200)),
        ("max_component_batch_size", "maxComponentBatchSize", json!(2800)),
        ("max_power_off_wait_time", "maxPowerOffWaitTimeSeconds", json!(300)),
        ("max_power_on_wait_time", "maxPowerOnWaitTimeSeconds", json!(120)),
        ("polling_frequency", "pollingFrequencySeconds", json!(15)),
        ("reject_nids", "rejectNids", json!(false)),
        ("session_limit_required", "sessionLimitRequired", json!(false)),
    ];
    let properties = properties();
    for (bos, ours, default) in options {
        let schema = properties.get(ours).unwrap_or_else(|| panic!("{bos} is missing"));
        assert_eq!(schema["default"], default, "{bos}");
    }
}

#[test]
fn whole_numbers_have_both_bounds_and_name_their_default() {
    for (name, schema) in properties() {
        if schema["type"] != json!("integer") {
            continue;
        }
        assert!(schema.get("maximum").is_some(), "{name}");
        let text = schema["description"].as_str().unwrap();
        let default = schema["default"].to_string();
        assert!(text.contains(&default) && text.to_lowercase().contains("default"), "{name}: {text}");
    }
}
