//! What every generated schema must be like.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

fn crds() -> Vec<Value> {
    bos_crds::all_crds().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect()
}

fn kind(crd: &Value) -> &str {
    crd.pointer("/spec/names/kind").and_then(Value::as_str).unwrap()
}

fn crd(wanted: &str) -> Value {
    crds().into_iter().find(|crd| kind(crd) == wanted).unwrap()
}

fn root(crd: &Value) -> &Value {
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap()
}

/// Calls `visit` with path and schema of everything below `schema`.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, part) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(&format!("{path}.{name}"), part, visit);
    }
    if let Some(items) = schema.get("items") {
        walk(&format!("{path}[]"), items, visit);
    }
}

/// Paths of all kinds where `wrong` holds.
fn offenders(wrong: impl Fn(&str, &Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for crd in &crds() {
        walk(kind(crd), root(crd), &mut |path, schema| {
            if wrong(path, schema) {
                found.push(path.to_owned());
            }
        });
    }
    found
}

#[test]
fn files_are_as_generated() {
    let folder = Path::new("../manifests/crds");
    let files = bos_crds::manifests::files();
    for file in &files {
        let found = std::fs::read_to_string(folder.join(&file.name)).unwrap_or_default();
        assert!(found == file.content, "manifests/crds/{} differs: run `cargo run -p bos-crds --bin crdgen`", file.name);
    }
    let expected: BTreeSet<String> = files.into_iter().map(|file| file.name).collect();
    let found: BTreeSet<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected, "files in manifests/crds that nobody generates");
}

#[test]
fn every_field_is_described() {
    let bare = offenders(|path, schema| {
        let described = schema.get("description").and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
        !path.ends_with("[]") && !described
    });
    assert_eq!(bare, Vec::<String>::new());
}

#[test]
fn strings_lists_and_numbers_are_bounded() {
    let unbounded = offenders(|_, schema| match schema.get("type").and_then(Value::as_str) {
        Some("string") => {
            let words = schema.get("enum").is_some();
            let time = schema.get("format") == Some(&json!("date-time"));
            !(words || time || schema.get("maxLength").is_some())
        }
        Some("array") => schema.get("maxItems").is_none() || schema.get("x-kubernetes-list-type").is_none(),
        Some("integer") => schema.get("minimum").is_none(),
        Some("boolean" | "object") => false,
        _ => true,
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn nothing_is_nullable_or_a_choice_of_types() {
    let odd = offenders(|_, schema| {
        let null_word = schema.get("enum").and_then(Value::as_array).is_some_and(|words| words.iter().any(Value::is_null));
        let choice = ["nullable", "anyOf", "oneOf", "allOf", "$ref", "additionalProperties"].iter().any(|key| schema.get(key).is_some());
        let format = schema.get("format").and_then(Value::as_str).unwrap_or("int32");
        null_word || choice || !["int32", "int64", "date-time"].contains(&format)
    });
    assert_eq!(odd, Vec::<String>::new());
}

#[test]
fn a_status_starts_unobserved_and_belongs_to_one_writer() {
    for crd in &crds() {
        let status = root(crd).pointer("/properties/status").unwrap();
        assert_eq!(status["default"], json!({"observedGeneration": -1}), "{}", kind(crd));
        assert_eq!(status["properties"]["observedGeneration"]["default"], json!(-1), "{}", kind(crd));
        assert_eq!(status["x-kubernetes-map-type"], json!("atomic"), "{}", kind(crd));
        assert_eq!(status.get("required"), None, "{}: a merge patch or the default would lack it", kind(crd));
        assert_eq!(crd.pointer("/spec/versions/0/subresources/status"), Some(&json!({})), "{}", kind(crd));
    }
}

#[test]
fn names_are_the_agreed_ones() {
    let names: Vec<Value> = crds()
        .iter()
        .map(|crd| {
            json!([
                kind(crd),
                crd["spec"]["names"]["plural"],
                crd["spec"]["names"]["shortNames"],
                crd["spec"]["names"]["categories"],
                crd["spec"]["scope"]
            ])
        })
        .collect();
    let agreed = json!([
        ["SessionTemplate", "sessiontemplates", ["bst"], ["bos"], "Namespaced"],
        ["Session", "sessions", ["bs"], ["bos"], "Namespaced"],
        ["BootComponent", "bootcomponents", ["bc"], ["bos"], "Cluster"],
        ["BootOptions", "bootoptions", ["bopt"], ["bos"], "Cluster"],
    ]);
    assert_eq!(Value::from(names), agreed);
    for crd in &crds() {
        assert_eq!(crd["spec"]["group"], json!(bos_crds::GROUP));
        assert_eq!(crd["spec"]["versions"][0]["name"], json!(bos_crds::VERSION));
        assert_eq!(crd["spec"]["versions"].as_array().unwrap().len(), 1);
    }
    assert_eq!(bos_crds::API_VERSION, format!("{}/{}", bos_crds::GROUP, bos_crds::VERSION));
}

/// Column names of a kind, narrow ones, then those of `-o wide`.
fn columns(wanted: &str) -> [String; 2] {
    let crd = crd(wanted);
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
    [false, true].map(|wide| {
        let chosen = columns.iter().filter(|column| column.get("priority").is_some_and(|priority| priority == 1) == wide);
        chosen.map(|column| column["name"].as_str().unwrap().to_uppercase()).collect::<Vec<_>>().join(",")
    })
}

#[test]
fn columns_are_the_agreed_ones() {
    assert_eq!(
        columns("Session"),
        ["OPERATION,TEMPLATE,PHASE,OUTCOME,NODES,DONE,FAILED,PROGRESS,AGE", "LIMIT,EXCLUDED,SUPERSEDED,POWERCYCLED,MESSAGE"]
    );
    assert_eq!(
        columns("BootComponent"),
        ["STATUS,PHASE,SESSION,POWER,LAST ACTION,TRIES,SINCE,REASON", "ENABLED,NID,IMAGE,CONFIG,NEXT,MESSAGE,AGE"]
    );
}

/// Columns, selectable fields and `fieldPath`s are plain text; a renamed field would leave them pointing at nothing.
#[test]
fn every_path_leads_to_a_field() {
    for crd in &crds() {
        let version = &crd["spec"]["versions"][0];
        let mut fields = BTreeSet::new();
        walk("", root(crd), &mut |path, _| {
            fields.insert(path.to_owned());
        });
        let listed = |key: &str| version.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        for entry in listed("additionalPrinterColumns").iter().chain(&listed("selectableFields")) {
            let path = entry["jsonPath"].as_str().unwrap();
            let field = path.split("[?").next().unwrap();
            assert!(field.starts_with(".metadata.") || fields.contains(field), "{}: {path}", kind(crd));
        }
        walk("", root(crd), &mut |at, schema| {
            for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                let path = rule.get("fieldPath").and_then(Value::as_str).unwrap_or_default();
                assert!(fields.contains(&format!("{at}{path}")), "{}: {at} fieldPath {path}", kind(crd));
                assert!(rule.get("message").is_some(), "{}: {at}: a rule without a message", kind(crd));
            }
        });
        assert!(listed("selectableFields").len() <= 8, "{}: the API server allows eight", kind(crd));
    }
}

#[test]
fn a_session_is_immutable_but_for_suspend_and_cancel() {
    let crd = crd("Session");
    let spec = root(&crd).pointer("/properties/spec").unwrap();
    let guarded: BTreeSet<String> = spec["x-kubernetes-validations"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["message"].as_str().unwrap().contains("cannot be changed"))
        .map(|rule| rule["fieldPath"].as_str().unwrap().trim_start_matches('.').to_owned())
        .collect();
    let fields: BTreeSet<String> =
        spec["properties"].as_object().unwrap().keys().filter(|field| !["suspend", "cancel"].contains(&field.as_str())).cloned().collect();
    assert_eq!(guarded, fields);
}

/// A rule that names an optional field without `has()` is an error at run time where the field is absent.
#[test]
fn rules_ask_whether_optional_fields_are_there() {
    let crd = crd("Session");
    let spec = root(&crd).pointer("/properties/spec").unwrap();
    let required = spec["required"].as_array().unwrap();
    for (field, schema) in spec["properties"].as_object().unwrap() {
        if schema.get("default").is_some() || required.contains(&json!(field)) {
            continue;
        }
        for rule in spec["x-kubernetes-validations"].as_array().unwrap() {
            let text = rule["rule"].as_str().unwrap();
            let named = text.contains(&format!("self.{field} ")) || text.contains(&format!("Self.{field})"));
            assert!(!named || text.contains(&format!("has(self.{field})")), "{text}");
        }
    }
}

#[test]
fn enabled_says_that_it_is_not_the_flag_of_hsm() {
    let crd = crd("BootComponent");
    let text = root(&crd).pointer("/properties/status/properties/enabled/description").unwrap().as_str().unwrap();
    assert!(text.contains("not the enabled flag of HSM"), "{text}");
}
