//! Checks of templates and Sessions that need no service, for admission and set-up alike.
//!
//! All findings come at once, each with the path of its field. An error stops the object, or the Session that uses it; a warning is shown
//! and nothing else happens.

use std::collections::BTreeMap;
use std::fmt;

use bos_crds::{BootSet, Mode, Operation, RunningNodes, SessionSpec, SessionTemplateSpec, bounded};
use jiff::Timestamp;

use crate::hostlist;
use crate::kernel_parameters::{RootfsProvider, bss_warnings, words};
use crate::limit::{Limit, looks_like_nid, parent_of_nodes};
use crate::manifest::S3Path;
use crate::xname::Xname;

/// Findings about the entries of one list; more are only counted.
const SHOWN_PER_LIST: usize = 5;

/// The longest name CFS accepts for a configuration.
const CONFIGURATION_CHARS: usize = 60;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It works, but perhaps not as meant.
    Warning,
    /// It cannot work.
    Error,
}

/// One thing a person should know about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Path of the field, for example `spec.bootSets[compute].path`.
    pub field: String,
    /// What is wrong, with the value and what is allowed.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Gathers findings.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { field: field.into(), message: message.into(), severity: Severity::Error });
    }

    fn warning(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { field: field.into(), message: message.into(), severity: Severity::Warning });
    }

    /// Reports the bad entries of a list, the first few by themselves.
    fn entries<'a>(&mut self, field: &str, entries: &'a [String], check: impl Fn(&'a str) -> Option<String>) {
        let mut bad = entries.iter().enumerate().filter_map(|(index, entry)| Some((index, check(entry)?)));
        for (index, message) in bad.by_ref().take(SHOWN_PER_LIST) {
            self.error(format!("{field}[{index}]"), message);
        }
        match bad.count() {
            0 => {}
            more => self.error(field, format!("{more} more entries are wrong")),
        }
    }
}

/// Warnings that a person is shown at a time, and the length of each (the API server cuts longer ones).
const WARNINGS_MAX: usize = 10;
const WARNING_CHARS: usize = 256;

/// What a person is shown of many warnings: at most ten, each of bounded length; the last says how many more there are.
#[must_use]
pub fn at_most_ten(mut warnings: Vec<String>) -> Vec<String> {
    let more = warnings.len().saturating_sub(WARNINGS_MAX);
    if more > 0 {
        warnings.truncate(WARNINGS_MAX - 1);
        warnings.push(format!("{} more warnings.", more + 1));
    }
    warnings.iter().map(|text| bounded(text, WARNING_CHARS)).collect()
}

/// Checks a template for a Session that boots it.
#[must_use]
pub fn validate_template(template: &SessionTemplateSpec) -> Vec<Finding> {
    validate_template_for(template, Operation::Boot)
}

/// Checks a template for one operation: what only a boot needs is no more than a warning for the others, because a broken image must not keep anybody
/// from shutting nodes down.
#[must_use]
pub fn validate_template_for(template: &SessionTemplateSpec, operation: Operation) -> Vec<Finding> {
    let mut findings = Findings::default();
    if template.boot_sets.is_empty() {
        findings.error("spec.bootSets", "is empty; a template needs at least one boot set");
    }
    check_names(&template.boot_sets, &mut findings);
    for (index, boot_set) in template.boot_sets.iter().enumerate() {
        let field = boot_set_field(index, boot_set);
        check_nodes(&field, boot_set, &mut findings);
        let mut image = Findings::default();
        check_image(&field, boot_set, &mut image);
        check_parameters(&field, boot_set, &mut image);
        findings.0.extend(image.0.into_iter().map(|finding| as_needed_for(operation, finding)));
    }
    check_repeated_nodes(&template.boot_sets, &mut findings);
    check_configurations(template, &mut findings);
    findings.0
}

fn as_needed_for(operation: Operation, finding: Finding) -> Finding {
    match operation {
        Operation::Boot | Operation::Reboot => finding,
        Operation::Shutdown | Operation::Configure => Finding { severity: Severity::Warning, ..finding },
    }
}

/// A boot set by its name where it has a usable one, as Kubernetes writes entries of keyed lists.
fn boot_set_field(index: usize, boot_set: &BootSet) -> String {
    if is_name(&boot_set.name) { format!("spec.bootSets[{}]", boot_set.name) } else { format!("spec.bootSets[{index}]") }
}

fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    ends && name.len() <= 127 && name.chars().all(inner)
}

fn check_names(boot_sets: &[BootSet], findings: &mut Findings) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, boot_set) in boot_sets.iter().enumerate() {
        let field = format!("spec.bootSets[{index}].name");
        if !is_name(&boot_set.name) {
            let shown: String = boot_set.name.chars().take(64).collect();
            let allowed = "1 to 127 letters, digits, \".\", \"-\" and \"_\", the first and last a letter or digit";
            findings.error(&field, format!("{shown:?} is not a name; allowed are {allowed}"));
        }
        if let Some(first) = seen.insert(&boot_set.name, index) {
            findings.error(field, format!("{:?} is also the name of spec.bootSets[{first}]; each boot set needs its own", boot_set.name));
        }
    }
}

fn check_nodes(field: &str, boot_set: &BootSet, findings: &mut Findings) {
    if boot_set.node_list.is_empty() && boot_set.node_groups.is_empty() && boot_set.node_roles_groups.is_empty() {
        findings.error(field, "names no nodes; give nodeList, nodeGroups or nodeRolesGroups at least one entry");
    }
    findings.entries(&format!("{field}.nodeList"), &boot_set.node_list, node_problem);
    findings.entries(&format!("{field}.nodeGroups"), &boot_set.node_groups, label_problem);
    findings.entries(&format!("{field}.nodeRolesGroups"), &boot_set.node_roles_groups, label_problem);
}

fn node_problem(text: &str) -> Option<String> {
    let error = Xname::parse(text).err()?;
    let shown = &error.text;
    Some(if looks_like_nid(text) {
        format!("{shown:?} looks like a NID; name the node by its xname, for example x1000c0s0b0n0")
    } else if Xname::parse(text.trim()).is_ok() {
        format!("{shown:?} has blanks around the name; remove them")
    } else if let Some(parent) = parent_of_nodes(text) {
        format!("{shown:?} is the parent of nodes, not a node; a node is for example {}", child_of(&parent))
    } else {
        error.to_string()
    })
}

/// An example of a node below a cabinet, chassis, slot or BMC.
fn child_of(parent: &str) -> String {
    let missing = ["c0", "s0", "b0"].into_iter().skip(parent.matches(['c', 's', 'b']).count());
    missing.fold(parent.to_owned(), |name, part| name + part) + "n0"
}

fn label_problem(text: &str) -> Option<String> {
    let shown: String = text.chars().take(64).collect();
    if text.is_empty() {
        Some("is empty".to_owned())
    } else if text.contains(',') {
        Some(format!("{shown:?} has a comma; write one entry for each name"))
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Some(format!("{shown:?} has a blank; names in HSM have none"))
    } else {
        None
    }
}

fn check_image(field: &str, boot_set: &BootSet, findings: &mut Findings) {
    match S3Path::parse(&boot_set.path) {
        Err(error) => findings.error(format!("{field}.path"), error.to_string()),
        Ok(path) if path.image_id().is_none() => findings.warning(
            format!("{field}.path"),
            format!(
                "{:?} is not where IMS keeps images (s3://boot-images/<image id>/manifest.json), so IMS cannot be asked about it",
                path.to_string()
            ),
        ),
        Ok(_) => {}
    }
    if boot_set.etag.as_deref().is_some_and(|etag| etag.contains('"')) {
        findings.warning(format!("{field}.etag"), "has quotation marks; S3 shows them around an etag, but they are no part of it");
    }
    check_provider(field, boot_set, findings);
}

fn check_provider(field: &str, boot_set: &BootSet, findings: &mut Findings) {
    let passthrough = boot_set.rootfs_provider_passthrough.as_deref().unwrap_or_default();
    let passthrough_field = || format!("{field}.rootfsProviderPassthrough");
    if passthrough.chars().any(char::is_whitespace) {
        findings.warning(passthrough_field(), "has a blank, which ends the root= parameter there");
    }
    match boot_set.rootfs_provider.as_deref().map(RootfsProvider::parse) {
        Some(Err(error)) => findings.error(format!("{field}.rootfsProvider"), error.to_string()),
        Some(Ok(RootfsProvider::Cpss3)) => {
            findings
                .warning(format!("{field}.rootfsProvider"), "\"cpss3\" needs CPS and DVS; BOS gave it up in 2.45, use sbps where you can");
        }
        Some(Ok(RootfsProvider::Sbps)) if !passthrough.is_empty() && !passthrough.starts_with("sbps:v1:") => {
            findings.warning(passthrough_field(), "for sbps the usual form is sbps:v1:<IQN domain>:<DNS SRV name>:<seconds>");
        }
        Some(Ok(RootfsProvider::Sbps)) if passthrough.is_empty() => {
            let text = "is missing; without it nodes do not find their root file system. The usual form is sbps:v1:<IQN domain>:<DNS SRV name>:<seconds>";
            findings.warning(passthrough_field(), text);
        }
        None if !passthrough.is_empty() => {
            findings.warning(passthrough_field(), "is used without rootfsProvider; the kernel is given root=:: followed by this text");
        }
        Some(Ok(RootfsProvider::Sbps)) | None => {}
    }
}

fn check_parameters(field: &str, boot_set: &BootSet, findings: &mut Findings) {
    let Some(parameters) = boot_set.kernel_parameters.as_deref() else { return };
    let field = format!("{field}.kernelParameters");
    for warning in bss_warnings(parameters).iter().take(SHOWN_PER_LIST) {
        findings.warning(&field, warning.to_string());
    }
    if parameters.trim_end_matches(['\n', '\r']).chars().any(char::is_control) {
        findings.warning(&field, "has line breaks or control characters; they are replaced by blanks");
    }
    if parameters.matches('"').count() % 2 == 1 {
        findings.warning(&field, "has an odd number of quotation marks; the last one runs to the end of the kernel command line");
    }
    let own_root = words(parameters).any(|word| word.starts_with("root="));
    let other_root =
        boot_set.rootfs_provider.is_some() || boot_set.rootfs_provider_passthrough.as_deref().is_some_and(|text| !text.is_empty());
    if own_root && other_root {
        findings.warning(field, "has a root= word, but the one made for rootfsProvider and rootfsProviderPassthrough comes later and wins");
    }
}

/// Only node lists can be compared without HSM; nodes that meet by groups or roles show at set-up.
fn check_repeated_nodes(boot_sets: &[BootSet], findings: &mut Findings) {
    let mut owner: BTreeMap<Xname, usize> = BTreeMap::new();
    let mut repeated: BTreeMap<(usize, usize), Vec<Xname>> = BTreeMap::new();
    for (index, boot_set) in boot_sets.iter().enumerate() {
        for node in boot_set.node_list.iter().filter_map(|text| Xname::parse(text).ok()) {
            match owner.insert(node.clone(), index) {
                Some(earlier) if earlier != index => repeated.entry((earlier, index)).or_default().push(node),
                Some(_) | None => {}
            }
        }
    }
    for ((earlier, later), nodes) in repeated {
        let name = |index: usize| boot_sets.get(index).map_or("", |boot_set| boot_set.name.as_str());
        let message =
            format!("{} also in boot set {:?}; the last boot set that fits a node gets it", hostlist::fold(&nodes, 100), name(earlier));
        findings.warning(format!("spec.bootSets[{}].nodeList", name(later)), message);
    }
}

fn check_configurations(template: &SessionTemplateSpec, findings: &mut Findings) {
    let of_sets = template.boot_sets.iter().enumerate().filter_map(|(index, boot_set)| {
        let name = boot_set.cfs.as_ref()?.configuration.as_deref()?;
        Some((format!("{}.cfs.configuration", boot_set_field(index, boot_set)), name))
    });
    let own = template.cfs.as_ref().and_then(|cfs| cfs.configuration.as_deref()).map(|name| ("spec.cfs.configuration".to_owned(), name));
    for (field, name) in own.into_iter().chain(of_sets).filter(|(_, name)| !name.is_empty()) {
        if name.chars().count() > CONFIGURATION_CHARS {
            findings.warning(&field, format!("is longer than the {CONFIGURATION_CHARS} characters that CFS accepts for a name"));
        }
        if !template.enable_cfs {
            findings.warning(field, "has no effect, because spec.enableCfs is false");
        }
    }
}

/// What a site asks of Sessions, and what else is known at admission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionRules<'a> {
    /// Name of the Session, where it is known.
    pub name: Option<&'a str>,
    /// The option `rejectNids`: names in a limit that look like NIDs are refused.
    pub reject_nids: bool,
    /// The option `sessionLimitRequired`: a Session without limit is refused.
    pub limit_required: bool,
    /// The time, for `startBefore`.
    pub now: Option<Timestamp>,
}

/// Checks a Session.
#[must_use]
pub fn validate_session(session: &SessionSpec, rules: &SessionRules<'_>) -> Vec<Finding> {
    let mut findings = Findings::default();
    if session.template_name.trim().is_empty() {
        findings.error("spec.templateName", "is empty; name a SessionTemplate in the same namespace");
    }
    check_limit(session.limit.as_deref(), rules, &mut findings);
    check_combinations(session, &mut findings);
    if session.retry_of.is_some() && session.retry_of.as_deref() == rules.name {
        findings.error("spec.retryOf", "names this Session; name an earlier one");
    }
    if let (Some(limit), Some(now)) = (&session.start_before, rules.now)
        && limit.0 < now
    {
        findings.warning("spec.startBefore", format!("{} is past, so the Session ends NotStarted", limit.0));
    }
    if session.cancel {
        findings.warning("spec.cancel", "is true from the start, so the Session ends without doing anything");
    }
    findings.0
}

fn check_limit(limit: Option<&str>, rules: &SessionRules<'_>, findings: &mut Findings) {
    let field = "spec.limit";
    let Some(text) = limit else {
        if rules.limit_required {
            findings.error(
                field,
                "is missing; this site asks for a limit (option sessionLimitRequired), \"all\" means all nodes of the template",
            );
        }
        return;
    };
    let limit = match Limit::parse(text) {
        Ok(limit) => limit,
        Err(error) => {
            let more = error.problems.len().saturating_sub(SHOWN_PER_LIST);
            for problem in error.problems.iter().take(SHOWN_PER_LIST) {
                findings.error(field, problem.to_string());
            }
            if more > 0 {
                findings.error(field, format!("{more} more items are wrong"));
            }
            return;
        }
    };
    if limit.starts_from_all() {
        let start = "begins with an operator, so it starts from all nodes of the template; in BOS it would have started from none";
        findings.warning(field, start);
    }
    for nid in limit.nids().take(SHOWN_PER_LIST) {
        let nid: String = nid.chars().take(64).collect();
        if rules.reject_nids {
            findings.error(field, format!("{nid:?} looks like a NID, which this site refuses (option rejectNids); name nodes by xname"));
        } else {
            findings.warning(field, format!("{nid:?} looks like a NID; it is taken for the name of a group, nodes are named by xname"));
        }
    }
}

fn check_combinations(session: &SessionSpec, findings: &mut Findings) {
    if session.operation != Operation::Boot && session.running_nodes != RunningNodes::RestartIfDifferent {
        findings.error("spec.runningNodes", format!("{:?} is for operation Boot only; leave it out", session.running_nodes.as_str()));
    }
    if session.stage && session.mode == Mode::V1 {
        findings.error("spec.stage", "needs mode v2");
    }
    if session.stage && session.operation == Operation::Configure {
        findings.error("spec.stage", "is for Boot, Reboot and Shutdown; a configuration is not staged");
    }
    match (session.max_power_cycled, session.operation) {
        (Some(most), _) if most < 0 => findings.error("spec.maxPowerCycled", format!("{most} is less than 0; leave it out for no limit")),
        (Some(_), Operation::Shutdown | Operation::Configure) => {
            findings.warning("spec.maxPowerCycled", format!("has no effect for operation {}", session.operation));
        }
        (Some(_), Operation::Boot | Operation::Reboot) | (None, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bos_crds::CfsSpec;

    fn boot_set() -> BootSet {
        BootSet {
            name: "compute".into(),
            path: "s3://boot-images/7f0c/manifest.json".into(),
            node_roles_groups: vec!["Compute".into()],
            ..BootSet::default()
        }
    }

    fn template(boot_sets: Vec<BootSet>) -> SessionTemplateSpec {
        SessionTemplateSpec { boot_sets, ..SessionTemplateSpec::default() }
    }

    fn shown(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|finding| format!("{:?} {finding}", finding.severity)).collect()
    }

    #[test]
    fn a_plain_template_and_session_have_no_findings() {
        let good = BootSet {
            kernel_parameters: Some("console=ttyS0,115200 quiet\n".into()),
            rootfs_provider: Some("sbps".into()),
            rootfs_provider_passthrough: Some("sbps:v1:iqn.2023-06.csm.iscsi:_sbps-hsn._tcp.x.example.com:300".into()),
            ..boot_set()
        };
        assert_eq!(shown(&validate_template(&template(vec![good]))), [""; 0]);
        let session = SessionSpec { limit: Some("x1000,!x1000c0s3b0n1".into()), ..SessionSpec::new(Operation::Boot, "cos") };
        assert_eq!(shown(&validate_session(&session, &SessionRules::default())), [""; 0]);
    }

    #[test]
    fn every_mistake_of_a_template_is_found_at_once() {
        let bad = BootSet {
            name: "-".into(),
            path: "boot-images/x".into(),
            node_list: vec!["x1000c0s0b0".into(), "nid000001".into(), " x1c0s0b0n0".into(), "x1c0s0b0n0".into()],
            node_groups: vec!["a,b".into(), "a b".into(), String::new()],
            rootfs_provider: Some("nfs".into()),
            ..BootSet::default()
        };
        let twin =
            BootSet { kernel_parameters: Some("xname=x1 root=a".into()), rootfs_provider_passthrough: Some("dvs".into()), ..boot_set() };
        let spec = SessionTemplateSpec {
            enable_cfs: false,
            cfs: Some(CfsSpec { configuration: Some("c".into()) }),
            ..template(vec![bad, boot_set(), twin, BootSet { node_roles_groups: vec![], name: "none".into(), ..boot_set() }])
        };
        let fields: Vec<(String, Severity)> =
            validate_template(&spec).into_iter().map(|finding| (finding.field, finding.severity)).collect();
        let want = [
            ("spec.bootSets[0].name", Severity::Error),
            ("spec.bootSets[2].name", Severity::Error),
            ("spec.bootSets[0].nodeList[0]", Severity::Error),
            ("spec.bootSets[0].nodeList[1]", Severity::Error),
            ("spec.bootSets[0].nodeList[2]", Severity::Error),
            ("spec.bootSets[0].nodeGroups[0]", Severity::Error),
            ("spec.bootSets[0].nodeGroups[1]", Severity::Error),
            ("spec.bootSets[0].nodeGroups[2]", Severity::Error),
            ("spec.bootSets[0].path", Severity::Error),
            ("spec.bootSets[0].rootfsProvider", Severity::Error),
            ("spec.bootSets[compute].rootfsProviderPassthrough", Severity::Warning),
            ("spec.bootSets[compute].kernelParameters", Severity::Warning),
            ("spec.bootSets[compute].kernelParameters", Severity::Warning),
            ("spec.bootSets[none]", Severity::Error),
            ("spec.cfs.configuration", Severity::Warning),
        ];
        assert_eq!(fields, want.map(|(field, severity)| (field.to_owned(), severity)));
        assert_eq!(shown(&validate_template(&template(vec![]))), ["Error spec.bootSets: is empty; a template needs at least one boot set"]);
    }

    #[test]
    fn a_broken_image_does_not_keep_nodes_on() {
        let broken = template(vec![BootSet { rootfs_provider: Some("nfs".into()), path: "x".into(), ..boot_set() }]);
        let errors =
            |operation| validate_template_for(&broken, operation).iter().filter(|finding| finding.severity == Severity::Error).count();
        assert_eq!([errors(Operation::Boot), errors(Operation::Reboot), errors(Operation::Shutdown)], [2, 2, 0]);
    }

    #[test]
    fn node_mistakes_say_what_was_probably_meant() {
        assert_eq!(
            node_problem("x1000c0s3").unwrap(),
            r#""x1000c0s3" is the parent of nodes, not a node; a node is for example x1000c0s3b0n0"#
        );
        assert!(node_problem(" x1c0s0b0n0").unwrap().contains("blanks around"));
        assert!(node_problem("nid1").unwrap().contains("NID"));
        assert_eq!(node_problem("X1C0S0B0N0"), None);
    }

    #[test]
    fn long_lists_of_mistakes_are_counted() {
        let spec = template(vec![BootSet { node_list: (0..1000).map(|n| format!("node{n}")).collect(), ..boot_set() }]);
        let findings = validate_template(&spec);
        assert_eq!(findings.len(), 6);
        assert_eq!(findings[5].to_string(), "spec.bootSets[compute].nodeList: 995 more entries are wrong");
    }

    #[test]
    fn repeated_nodes_are_named() {
        let listed = |name: &str| BootSet { name: name.into(), node_list: vec!["x1c0s0b0n0".into(), "X1c0s0b0n1".into()], ..boot_set() };
        let findings = validate_template(&template(vec![listed("a"), listed("b")]));
        assert_eq!(
            shown(&findings),
            [r#"Warning spec.bootSets[b].nodeList: x1c0s0b0n[0-1] also in boot set "a"; the last boot set that fits a node gets it"#]
        );
    }

    #[test]
    fn every_mistake_of_a_session_is_found_at_once() {
        let session = SessionSpec {
            mode: Mode::V1,
            limit: Some("!nid1,".into()),
            stage: true,
            running_nodes: RunningNodes::Leave,
            retry_of: Some("me".into()),
            max_power_cycled: Some(-1),
            start_before: Some(bos_crds::Time("2026-11-23T18:00:00Z".parse().unwrap())),
            cancel: true,
            ..SessionSpec::new(Operation::Reboot, " ")
        };
        let rules = SessionRules { name: Some("me"), now: Some("2026-11-23T18:00:01Z".parse().unwrap()), ..SessionRules::default() };
        let fields: Vec<String> = validate_session(&session, &rules).into_iter().map(|finding| finding.field).collect();
        let want = ["templateName", "limit", "runningNodes", "stage", "maxPowerCycled", "retryOf", "startBefore", "cancel"];
        assert_eq!(fields, want.map(|field| format!("spec.{field}")));
    }

    #[test]
    fn limits_follow_the_site_rules() {
        let check = |limit: Option<&str>, reject_nids, limit_required| {
            let session = SessionSpec { limit: limit.map(str::to_owned), ..SessionSpec::new(Operation::Boot, "t") };
            let found = validate_session(&session, &SessionRules { reject_nids, limit_required, ..SessionRules::default() });
            found.into_iter().map(|finding| finding.severity).collect::<Vec<_>>()
        };
        assert_eq!(check(None, true, false), []);
        assert_eq!(check(None, false, true), [Severity::Error]);
        assert_eq!(check(Some(""), false, false), [Severity::Error]);
        assert_eq!(check(Some("all,&nid1"), false, true), [Severity::Warning]);
        assert_eq!(check(Some("all,&nid1"), true, false), [Severity::Error]);
        assert_eq!(check(Some("!blue"), false, false), [Severity::Warning]);
        assert_eq!(check(Some(&",".repeat(20)), false, false).len(), 6);
    }
}
