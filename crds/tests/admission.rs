//! The cases of `testdata/admission.json` are for a real API server, which alone knows CEL. Here it is checked that
//! they are sound, that the types of this crate take what is accepted, and that the regular expressions say what they should.

#![allow(clippy::unwrap_used, reason = "tests")]

use bos_crds::{BootComponent, BootOptions, Session, SessionTemplate};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    object: Value,
    change: Option<Value>,
    refusal: Option<String>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str::<Cases>(include_str!("../testdata/admission.json")).unwrap().cases
}

fn read(object: &Value) -> Result<(), serde_json::Error> {
    let object = object.clone();
    match object["kind"].as_str().unwrap() {
        "SessionTemplate" => serde_json::from_value::<SessionTemplate>(object).map(drop),
        "Session" => serde_json::from_value::<Session>(object).map(drop),
        "BootComponent" => serde_json::from_value::<BootComponent>(object).map(drop),
        "BootOptions" => serde_json::from_value::<BootOptions>(object).map(drop),
        other => panic!("no such kind: {other}"),
    }
}

#[test]
fn accepted_objects_can_be_read() {
    let mut names = std::collections::BTreeSet::new();
    for case in cases() {
        assert!(names.insert(case.name.clone()), "twice: {}", case.name);
        // What a change is refused for was accepted before.
        if case.refusal.is_none() || case.change.is_some() {
            read(&case.object).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
    }
}

#[test]
fn every_kind_and_both_verdicts_are_tried() {
    for kind in ["SessionTemplate", "Session", "BootComponent", "BootOptions"] {
        for refused in [false, true] {
            let found = cases().iter().any(|case| case.object["kind"] == kind && case.refusal.is_some() == refused);
            assert!(found, "{kind}, refused: {refused}");
        }
    }
}

fn schema(kind: &str, path: &str) -> Value {
    let crds = bos_crds::all_crds();
    let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let crd = serde_json::to_value(crd).unwrap();
    crd.pointer(&format!("/spec/versions/0/schema/openAPIV3Schema{path}")).unwrap_or_else(|| panic!("{kind} {path}")).clone()
}

fn pattern(kind: &str, path: &str) -> Regex {
    Regex::new(schema(kind, path)["pattern"].as_str().unwrap()).unwrap()
}

/// The regular expression of a `matches('...')` rule, with the escapes of a CEL string resolved.
fn rule(kind: &str, path: &str) -> Regex {
    let rules = schema(kind, path);
    let text = rules["x-kubernetes-validations"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|rule| rule["rule"].as_str().unwrap().split_once(".matches('").map(|(_, rest)| rest.to_owned()))
        .unwrap();
    let inside = text.strip_suffix("')").unwrap();
    assert!(!inside.replace(r"\\", "").contains('\\'), "CEL would read an escape in {inside}");
    Regex::new(&inside.replace(r"\\", r"\")).unwrap()
}

fn check(expression: &Regex, good: &[&str], bad: &[&str]) {
    for text in good {
        assert!(expression.is_match(text), "{expression} refuses {text:?}");
    }
    for text in bad {
        assert!(!expression.is_match(text), "{expression} takes {text:?}");
    }
}

#[test]
fn expressions_of_templates() {
    let boot_set = "/properties/spec/properties/bootSets/items/properties";
    check(
        &pattern("SessionTemplate", &format!("{boot_set}/nodeList/items")),
        &["x3000c0s19b1n0", "X3000C0S01B0N0", "x0c0s0b0n0", "x9999c7s64b1n15"],
        &["", "nid000001", "x3000", "x3000c0s19b1", "x3000c0s19b1n", "x3000c0s19b1n0,x3000c0s19b1n1", " x3000c0s19b1n0", "x10000c0s0b0n0"],
    );
    check(
        &pattern("SessionTemplate", &format!("{boot_set}/name")),
        &["a", "compute", "a.b-c_d", "0"],
        &["", "-a", "a-", "a b", "_a", "a/b"],
    );
    check(
        &rule("SessionTemplate", &format!("{boot_set}/path")),
        &["s3://boot-images/7f0c/manifest.json", "s3://b/k"],
        &["", "s3://", "s3://b", "s3://b/", "s3:///k", "http://b/k", "xs3://b/k"],
    );
}

#[test]
fn expressions_of_sessions() {
    check(
        &rule("Session", "/properties/spec/properties/limit"),
        &["all", "*", "x1000", "x1000,!x1000c0s3b0n1", "g1,&g2", "!g1", "Application_UAN", "a,b,c"],
        &["", ",", "a,", ",a", "a,,b", "a, b", " a", "a ", "!", "a,!", "!&g1", "&&a", "a\tb", "a,!!b"],
    );
}

#[test]
fn expressions_of_components() {
    check(
        &rule("BootComponent", ""),
        &["x1000c0s0b0n0", "x0c0s0b0n0", "x3000c0s19b1n10", "x9999c7s64b1n15"],
        &[
            "nid000001",
            "x1000c0s0b0",
            "X1000c0s0b0n0",
            "x01000c0s0b0n0",
            "x1000c00s0b0n0",
            "x1000c0s0b0n00",
            "ax1000c0s0b0n0",
            "x1000c0s0b0n0.a",
        ],
    );
    let digest = pattern("BootComponent", "/properties/spec/properties/desiredState/properties/artifacts");
    let long = format!("sha256:{}", "0f".repeat(32));
    check(&digest, &[&long, "0123abcd", "sha256:0123abcd"], &["", "sha256:", "0123ABCD", "md5:0123abcd"]);
}

#[test]
fn expressions_of_options() {
    let options = "/properties/spec/properties";
    check(
        &pattern("BootOptions", &format!("{options}/componentActualStateTtl")),
        &["1h", "4h", "2D", "10w"],
        &["", "4", "0h", "04h", "30m", "4 h", "-1h", "1h30"],
    );
    check(
        &pattern("BootOptions", &format!("{options}/cleanupCompletedSessionTtl")),
        &["0", "0d", "7d", "30m", "10W"],
        &["", "7", "07d", "d", "1y", "00"],
    );
}
