//! docs/configure.md lists every setting, with its variable and its default, and none that there is not.

use std::collections::{BTreeMap, BTreeSet};

use bos_e2e::tables::{Setting, differences, known_keys, rows, settings};
use bos_services::Service;
use bos_services::config::default_base_url;
use clap::CommandFactory;

use super::ConfigFile;
use crate::args::Args;

const PAGE: &str = include_str!("../../../../docs/configure.md");
const OPERATOR: &str = "## Settings of the operator";
const SERVICES: &str = "## Settings of the services";

/// Stands on the page for each of these.
const EACH: &str = "SERVICE";
const EACH_OF: [&str; 6] = ["hsm", "pcs", "capmc", "bss", "cfs", "ims"];

/// The keys that the file knows in the place of the dots.
fn keys_at(place: &str) -> BTreeSet<String> {
    let error = serde_json::from_str::<ConfigFile>(&place.replace("...", r#"{"?": 1}"#)).unwrap_err();
    known_keys(&error.to_string())
}

/// The keys of all services, as the page writes them.
fn keys_of_services() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for key in keys_at(r#"{"services": ...}"#) {
        let within = || keys_at(&format!(r#"{{"services": {{"{key}": ...}}}}"#));
        match key.as_str() {
            "auth" | "s3" => keys.extend(within().into_iter().map(|inner| format!("{key}.{inner}"))),
            each if EACH_OF.contains(&each) => keys.extend(within().into_iter().map(|inner| format!("{EACH}.{inner}"))),
            _ => drop(keys.insert(key)),
        }
    }
    keys
}

fn listed(heading: &str) -> BTreeSet<String> {
    settings(PAGE, heading).into_iter().map(|setting| setting.key).collect()
}

#[test]
fn every_key_of_the_file_is_listed_and_no_other() {
    let mut operator = keys_at("...");
    assert!(operator.remove("services") && operator.len() > 10, "{operator:?}");
    assert_eq!(listed(OPERATOR), operator);
    assert_eq!(listed(SERVICES), keys_of_services());
}

#[test]
fn flags_variables_and_defaults_are_as_listed() {
    let mut all = settings(PAGE, OPERATOR);
    for setting in settings(PAGE, SERVICES) {
        match setting.key.strip_prefix(EACH) {
            Some(rest) => all.extend(EACH_OF.map(|service| Setting {
                key: format!("{service}{rest}"),
                variable: setting.variable.replace(EACH, &service.to_ascii_uppercase()),
                default: setting.default.clone(),
            })),
            // A secret has no flag; the file that it is in has.
            None if setting.key == "s3.secretKey" => assert_eq!(setting.variable, "S3_SECRET_KEY"),
            None => all.push(setting),
        }
    }
    assert_eq!(differences(&all, &Args::command()), ["--config is not listed", "--s3-secret-key-file is not listed"]);
}

#[test]
fn the_addresses_are_those_of_the_mesh() {
    let addresses = rows(PAGE, SERVICES).into_iter().filter(|row| row.len() == 2);
    let addresses: BTreeMap<String, String> = addresses.map(|row| (row[0].replace('`', ""), row[1].replace('`', ""))).collect();
    let others = Service::ALL.into_iter().filter(|service| *service != Service::S3);
    let wanted: BTreeMap<String, String> =
        others.map(|service| (service.label().to_owned(), default_base_url(service).to_owned())).collect();
    assert_eq!(addresses, wanted);
}
