//! The recorded scenarios.

use std::collections::BTreeMap;
use std::time::Duration;

use bos_core::options::Options;
use bos_crds::Operation;
use serde_json::Value;

use super::site::{Code, millis};

/// A service that may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Hsm,
    S3,
    Ims,
    Bss,
    Cfs,
    CfsRead,
    Pcs,
    PcsRead,
}

/// When services fail: the first calls, or all within spans of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    first: BTreeMap<Service, u64>,
    spans: Vec<(Service, u64, u64)>,
    codes: BTreeMap<Service, Code>,
}

impl Faults {
    fn parse(faults: &Value, line: &Value) -> Self {
        let mut parsed = Self::default();
        for (name, when) in faults.as_object().into_iter().flatten() {
            let service = service(name);
            match when {
                Value::Number(calls) => drop(parsed.first.insert(service, calls.as_u64().unwrap())),
                spans => {
                    let spans = spans.as_array().unwrap().iter();
                    parsed.spans.extend(spans.map(|span| (service, millis(&span[0]), millis(&span[1]))));
                }
            }
            parsed.codes.insert(service, code(service, line));
        }
        parsed
    }

    /// A call comes in; how it fails, if it does.
    pub(crate) fn fail(&mut self, service: Service, at: u64) -> Option<Code> {
        let first = self.first.get_mut(&service).is_some_and(|left| {
            let fails = *left > 0;
            *left = left.saturating_sub(1);
            fails
        });
        let spanned = self.spans.iter().any(|(known, from, to)| *known == service && (*from..*to).contains(&at));
        (first || spanned).then(|| self.codes[&service])
    }
}

/// The service a fault is named after.
fn service(name: &str) -> Service {
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let read = has(&["get", "read", "list", "status"]);
    match name {
        _ if has(&["hsm"]) => Service::Hsm,
        _ if has(&["s3"]) => Service::S3,
        _ if has(&["ims"]) => Service::Ims,
        _ if has(&["bss"]) => Service::Bss,
        _ if has(&["cfs"]) && read => Service::CfsRead,
        _ if has(&["cfs"]) => Service::Cfs,
        _ if read => Service::PcsRead,
        _ => Service::Pcs,
    }
}

/// The service of a recorded call.
pub(crate) fn service_of(call: &str) -> Option<Service> {
    Some(match call {
        _ if call.contains("/hsm/") => Service::Hsm,
        _ if call.contains("/images/") => Service::Ims,
        _ if call.contains("/bootparameters") => Service::Bss,
        _ if call.starts_with("GET /v3/components") => Service::CfsRead,
        _ if call.contains("/v3/components") => Service::Cfs,
        _ if call.contains("/power-status") => Service::PcsRead,
        _ if call.contains("/transitions") => Service::Pcs,
        _ => return None,
    })
}

/// Name and code of a recorded call: an object, or a pair where a read failed.
pub(crate) fn call(call: &Value) -> (&str, Code) {
    match call {
        Value::Array(pair) => (pair[0].as_str().unwrap(), pair[1].as_u64()),
        other => (other["call"].as_str().unwrap(), other["code"].as_u64()),
    }
}

/// With what a service fails in this line.
fn code(service: Service, line: &Value) -> Code {
    let events = line["events"].as_array().unwrap().iter();
    let calls = events.flat_map(|event| event["calls"].as_array().into_iter().flatten()).map(call);
    let failed = calls.filter(|(name, code)| service_of(name) == Some(service) && *code != Some(200)).map(|(_, code)| code).next();
    failed.unwrap_or(Some(400))
}

/// What a person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Enable(bool),
    Session(Operation),
}

/// What a line says of its site and its session.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    pub(crate) operation: Operation,
    pub(crate) configuration: String,
    pub(crate) on: bool,
    pub(crate) running: Option<String>,
    pub(crate) config: String,
    pub(crate) on_delay: u64,
    pub(crate) soft_off_delay: u64,
    pub(crate) force_off_delay: u64,
    pub(crate) report_delay: u64,
    pub(crate) cfs_delay: u64,
    pub(crate) on_works: bool,
    pub(crate) soft_off_works: bool,
    pub(crate) force_off_works: bool,
    pub(crate) reports: bool,
    pub(crate) cfs_present: bool,
    pub(crate) cfs_result: Option<String>,
    pub(crate) faults: Faults,
    pub(crate) power_view: Vec<(u64, u64, String)>,
    pub(crate) deeds: Vec<(u64, Deed)>,
    pub(crate) retry_policy: Option<u16>,
    pub(crate) options: Options,
    pub(crate) until: u64,
}

/// Why a line is not played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotPlayed {
    /// The session is staged.
    Staged,
    /// A person edits the component.
    Edited,
    /// A parameter, option or value that is not known here.
    Unknown(String),
}

impl Parameters {
    pub(crate) fn parse(line: &Value) -> Result<Self, NotPlayed> {
        let mut parameters = Self {
            operation: Operation::Boot,
            configuration: "cfg-1".to_owned(),
            on: false,
            running: None,
            config: String::new(),
            on_delay: 5_000,
            soft_off_delay: 20_000,
            force_off_delay: 5_000,
            report_delay: 90_000,
            cfs_delay: 60_000,
            on_works: true,
            soft_off_works: true,
            force_off_works: true,
            reports: true,
            cfs_present: true,
            cfs_result: Some("configured".to_owned()),
            faults: Faults::default(),
            power_view: Vec::new(),
            deeds: Vec::new(),
            retry_policy: None,
            options: Options::default(),
            until: 7_200_000,
        };
        for (key, value) in line["parameters"].as_object().unwrap() {
            parameters.set(key, value, line)?;
        }
        Ok(parameters)
    }

    fn set(&mut self, key: &str, value: &Value, line: &Value) -> Result<(), NotPlayed> {
        let unknown = || NotPlayed::Unknown(format!("{key} {value}"));
        let text = || value.as_str().map(str::to_owned);
        let works = || value.as_bool().ok_or_else(unknown);
        match key {
            "operation" => self.operation = operation(value).ok_or_else(unknown)?,
            "config_wanted" => self.configuration = text().unwrap_or_default(),
            "enable_cfs" if *value == false => self.configuration.clear(),
            "power" => self.on = value == "on",
            "running" => self.running = text(),
            "config" => self.config = text().unwrap_or_default(),
            "on_delay" => self.on_delay = millis(value),
            "soft_off_delay" => self.soft_off_delay = millis(value),
            "force_off_delay" => self.force_off_delay = millis(value),
            "report_delay" => self.report_delay = millis(value),
            "cfs_delay" => self.cfs_delay = millis(value),
            "on_works" => self.on_works = works()?,
            "soft_off_works" => self.soft_off_works = works()?,
            "force_off_works" => self.force_off_works = works()?,
            "reports" => self.reports = works()?,
            "cfs_present" => self.cfs_present = works()?,
            "cfs_result" => self.cfs_result = text(),
            "faults" => self.faults = Faults::parse(value, line),
            "power_view" => {
                let views = value.as_array().unwrap().iter();
                self.power_view = views.map(|view| (millis(&view[0]), millis(&view[1]), view[2].as_str().unwrap().to_owned())).collect();
            }
            "retry_policy" => self.retry_policy = Some(value.as_u64().ok_or_else(unknown)?.try_into().unwrap()),
            "run_until" => self.until = millis(value),
            "session_extra" if value["stage"] == true => return Err(NotPlayed::Staged),
            "options" => {
                for (option, value) in value.as_object().unwrap() {
                    self.option(option, value)?;
                }
            }
            "user" => {
                for deed in value.as_array().unwrap() {
                    self.deeds.push((millis(&deed[0]), self::deed(deed)?));
                }
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn option(&mut self, option: &str, value: &Value) -> Result<(), NotPlayed> {
        let number = value.as_u64().ok_or_else(|| NotPlayed::Unknown(format!("option {option} {value}")));
        let span = || number.clone().map(Duration::from_secs);
        match option {
            "max_boot_wait_time" => self.options.max_boot_wait = span()?,
            "max_power_on_wait_time" => self.options.max_power_on_wait = span()?,
            "max_power_off_wait_time" => self.options.max_power_off_wait = span()?,
            "default_retry_policy" => self.options.retry_policy = number?.try_into().unwrap(),
            // It matters to staged sessions alone.
            "clear_stage" => {}
            _ => return Err(NotPlayed::Unknown(format!("option {option}"))),
        }
        Ok(())
    }

    pub(crate) fn limit(&self) -> u16 {
        self.retry_policy.unwrap_or(self.options.retry_policy)
    }
}

fn operation(value: &Value) -> Option<Operation> {
    Some(match value.as_str()? {
        "boot" => Operation::Boot,
        "reboot" => Operation::Reboot,
        "shutdown" => Operation::Shutdown,
        _ => return None,
    })
}

fn deed(deed: &Value) -> Result<Deed, NotPlayed> {
    let (path, body) = (deed[2].as_str().unwrap(), &deed[3]);
    if path.ends_with("/applystaged") {
        return Err(NotPlayed::Staged);
    }
    if path.ends_with("/sessions") && deed[1] == "POST" && body["stage"] != true {
        return operation(&body["operation"]).map(Deed::Session).ok_or_else(|| NotPlayed::Unknown(body.to_string()));
    }
    match body.as_object().and_then(|body| body.get("enabled").filter(|_| body.len() == 1)).and_then(Value::as_bool) {
        Some(enabled) if path.contains("/components/") => Ok(Deed::Enable(enabled)),
        _ if path.contains("/components") => Err(NotPlayed::Edited),
        _ => Err(NotPlayed::Unknown(deed.to_string())),
    }
}
