//! The pages for administrators name only what there is: options, reasons, other pages.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bos_crds::reasons;
use bos_e2e::tables::{quoted, rows};
use serde_json::Value;

const CONFIGURE: &str = include_str!("../../../docs/configure.md");
const TROUBLESHOOT: &str = include_str!("../../../docs/troubleshoot.md");
const OPTIONS: &str = include_str!("../../../manifests/crds/bootoptions.bos.hpe.com.yaml");

fn first(cell: &str) -> String {
    quoted(cell).into_iter().next().unwrap_or_default()
}

#[test]
fn every_option_is_listed_with_its_default_and_no_other() {
    let crd: Value = serde_saphyr::from_str(OPTIONS).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap().as_object().unwrap();
    let text = |schema: &Value| match &schema["default"] {
        // A list that is left out is empty.
        Value::Null => "[]".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let wanted: BTreeMap<String, String> = spec.iter().map(|(option, schema)| (option.clone(), text(schema))).collect();
    let listed: BTreeMap<String, String> = rows(CONFIGURE, "## Options").iter().map(|row| (first(&row[0]), first(&row[1]))).collect();
    assert!(wanted.len() > 30, "{wanted:?}");
    assert_eq!(listed, wanted);
}

#[test]
fn every_reason_is_explained_and_no_other() {
    let explained: BTreeSet<String> = rows(TROUBLESHOOT, "## What each reason means").iter().map(|row| first(&row[0])).collect();
    let all: BTreeSet<String> = reasons::ALL.iter().map(|(reason, _)| (*reason).to_owned()).collect();
    assert_eq!(explained, all);
}

/// The pages of a folder, and the one at the top.
fn pages() -> Vec<PathBuf> {
    let top = Path::new("../..");
    let docs = std::fs::read_dir(top.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<PathBuf> =
        docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")).chain([top.join("README.md")]).collect();
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// The anchors of the headings of a page, as they are made of their words.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let letter = |letter: char| match letter {
        ' ' => Some('-'),
        kept if kept.is_alphanumeric() || kept == '-' || kept == '_' => Some(kept.to_ascii_lowercase()),
        _ => None,
    };
    headings.map(|heading| heading.chars().filter_map(letter).collect()).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut wrong = Vec::new();
    for path in pages() {
        let page = std::fs::read_to_string(&path).unwrap();
        let links = page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let there = match (target.exists(), anchor) {
                (there, "") => there,
                (there, anchor) => there && anchors(&std::fs::read_to_string(&target).unwrap()).contains(anchor),
            };
            if !there {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
