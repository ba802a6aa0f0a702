//! What a SessionTemplate is worth: do its fields make sense, are its artifacts in S3, does CFS know its configurations?
//!
//! The rules are those of set-up, so that a template that is Ready can be set up.

use bos_core::admission::{BootSetSeen, ConfigurationSeen};
use bos_core::artifacts::ArtifactSet;
use bos_core::health::clause;
use bos_core::project_session::unavailable;
use bos_core::session_setup::SetupFault;
use bos_core::validation::{Severity, validate_template};
use bos_crds::conditions::{ARTIFACTS_AVAILABLE, CONFIGURATION_KNOWN, READY, VALID};
use bos_crds::{
    BootSet, BootSetReport, ConditionStatus, NewCondition, SessionTemplateSpec, SessionTemplateStatus, bounded, reasons, set_condition,
};
use bos_engine::boot_set::LookRules;
use bos_engine::template_looks;
use bos_services::Clients;
use jiff::Timestamp;

/// The bound of a boot set's message in the schema.
const MESSAGE_CHARS: usize = 2048;

/// One answer about a template.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    status: ConditionStatus,
    reason: &'static str,
    message: String,
}

/// All answers about a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    valid: Verdict,
    artifacts: Verdict,
    configuration: Verdict,
    boot_sets: Vec<BootSetReport>,
}

impl Verdict {
    fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::True, reason, message: message.into() }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::False, reason, message: message.into() }
    }

    fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::Unknown, reason, message: message.into() }
    }
}

/// Looks at everything. A service that does not answer makes an answer Unknown, never False.
pub(crate) async fn check(services: &Clients, template: &SessionTemplateSpec, rules: &LookRules) -> Checked {
    let seen = template_looks::all(services, template, rules).await;
    let (artifacts, boot_sets) = artifacts(template, seen.boot_sets);
    Checked { valid: valid(template), artifacts, configuration: configuration(&seen.configurations), boot_sets }
}

impl Checked {
    /// Whether asking again soon may give another answer.
    pub(crate) fn is_open(&self) -> bool {
        self.parts().iter().any(|verdict| verdict.status == ConditionStatus::Unknown)
    }

    /// Writes the answers into a status and says whether that changed it.
    pub(crate) fn apply(self, status: &mut SessionTemplateStatus, generation: i64, now: Timestamp) -> bool {
        let ready = self.ready();
        let mut changed = status.observed_generation != generation || status.boot_sets != self.boot_sets;
        status.observed_generation = generation;
        status.boot_sets = self.boot_sets;
        let verdicts =
            [(VALID, self.valid), (ARTIFACTS_AVAILABLE, self.artifacts), (CONFIGURATION_KNOWN, self.configuration), (READY, ready)];
        for (type_, Verdict { status: holds, reason, message }) in verdicts {
            let condition = NewCondition { type_, status: holds, reason, message, observed_generation: Some(generation) };
            changed |= set_condition(&mut status.conditions, &condition, now);
        }
        changed
    }

    const fn parts(&self) -> [&Verdict; 3] {
        [&self.valid, &self.artifacts, &self.configuration]
    }

    /// The first answer that is no; otherwise the first that is missing; otherwise yes, with all warnings.
    fn ready(&self) -> Verdict {
        let first = |status| self.parts().into_iter().find(|verdict| verdict.status == status);
        if let Some(no) = first(ConditionStatus::False) {
            return no.clone();
        }
        if let Some(unknown) = first(ConditionStatus::Unknown) {
            return Verdict::unknown(reasons::NOT_CHECKED, unknown.message.clone());
        }
        let warnings: Vec<&str> = self
            .parts()
            .into_iter()
            .filter(|verdict| verdict.reason == reasons::CHECKED_WITH_WARNINGS)
            .map(|verdict| verdict.message.as_str())
            .collect();
        if warnings.is_empty() {
            Verdict::yes(reasons::CHECKED, "A Session can boot nodes by this template.")
        } else {
            Verdict::yes(reasons::CHECKED_WITH_WARNINGS, warnings.join(" "))
        }
    }
}

fn valid(template: &SessionTemplateSpec) -> Verdict {
    let findings = validate_template(template);
    let worst = findings.iter().map(|finding| finding.severity).max();
    let told = |severity| {
        let told = findings.iter().filter(|finding| finding.severity == severity).map(|finding| format!("{finding}."));
        told.collect::<Vec<_>>().join(" ")
    };
    match worst {
        None => Verdict::yes(reasons::CHECKED, "The fields make sense together."),
        Some(Severity::Warning) => Verdict::yes(reasons::CHECKED_WITH_WARNINGS, told(Severity::Warning)),
        Some(Severity::Error) => Verdict::no(reasons::TEMPLATE_INVALID, told(Severity::Error)),
    }
}

fn artifacts(template: &SessionTemplateSpec, found: Vec<BootSetSeen>) -> (Verdict, Vec<BootSetReport>) {
    let mut reports = Vec::with_capacity(found.len());
    let (mut bad, mut unanswered, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for (set, BootSetSeen { found, .. }) in template.boot_sets.iter().zip(found) {
        let told = |message: &str| format!("Boot set {}: {}.", set.name, clause(message));
        let failed = |message: &str| BootSetReport { name: set.name.clone(), message: shortened(message), ..BootSetReport::default() };
        reports.push(match found {
            Ok((artifacts, doubts)) => {
                warnings.extend(doubts.iter().map(|text| told(text)));
                report(set, artifacts, &doubts)
            }
            Err(SetupFault::Refused { reason, message }) => {
                bad.push((reason, told(&message)));
                failed(&message)
            }
            Err(SetupFault::Unavailable(fault)) => {
                unanswered.push((fault.service, told(&fault.detail)));
                failed(&fault.detail)
            }
            Err(SetupFault::TemplateMissing) => failed(""),
        });
    }
    let texts = |list: Vec<String>| list.join(" ");
    let verdict = if let Some((reason, _)) = bad.first() {
        Verdict::no(reason, texts(bad.into_iter().map(|(_, text)| text).collect()))
    } else if let Some((service, _)) = unanswered.first() {
        Verdict::unknown(unavailable(*service), texts(unanswered.into_iter().map(|(_, text)| text).collect()))
    } else if !warnings.is_empty() {
        Verdict::yes(reasons::CHECKED_WITH_WARNINGS, texts(warnings))
    } else {
        Verdict::yes(reasons::CHECKED, "Manifest, kernel and initrd of every boot set are in S3.")
    };
    (verdict, reports)
}

fn report(set: &BootSet, artifacts: ArtifactSet, doubts: &[String]) -> BootSetReport {
    BootSetReport {
        name: set.name.clone(),
        message: shortened(&doubts.join("; ")),
        kernel: artifacts.kernel,
        initrd: artifacts.initrd,
        image: artifacts.image,
    }
}

fn configuration(seen: &[(String, ConfigurationSeen)]) -> Verdict {
    if seen.is_empty() {
        return Verdict::yes(reasons::NO_CONFIGURATION, "No configuration is wanted.");
    }
    let (mut unknown, mut unanswered) = (Vec::new(), Vec::new());
    for (name, seen) in seen {
        match seen {
            ConfigurationSeen::Known => {}
            ConfigurationSeen::Unknown => unknown.push(format!("CFS has no configuration {name:?}.")),
            ConfigurationSeen::Unanswered(why) => unanswered.push(format!("Configuration {name:?}: {why}.")),
            ConfigurationSeen::Refused(why) => unknown.push(format!("Configuration {name:?}: {why}.")),
        }
    }
    if !unknown.is_empty() {
        Verdict::no(reasons::CONFIGURATION_UNKNOWN, unknown.join(" "))
    } else if !unanswered.is_empty() {
        Verdict::unknown(reasons::CFS_UNAVAILABLE, unanswered.join(" "))
    } else {
        Verdict::yes(reasons::CHECKED, "CFS has every configuration that is named.")
    }
}

fn shortened(message: &str) -> String {
    bounded(message, MESSAGE_CHARS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use async_trait::async_trait;
    use bos_core::xname::Xname;
    use bos_crds::{CfsSpec, conditions};
    use bos_services::{
        ConfigPatch, ConfigReading, Configuration, ErrorKind, Image, Images, NoObserver, Object, ObjectHead, ObjectStore, Reached, S3Error,
        S3ErrorKind, Service, ServiceError, ServicesConfig,
    };
    use std::collections::HashMap;

    use super::*;

    const KEY: &str = "s3://boot-images/7f0c/manifest.json";

    /// A site with one good image and one configuration.
    #[derive(Clone, Default)]
    struct Site {
        objects: BTreeMap<String, String>,
        s3_away: bool,
        cfs_away: bool,
    }

    fn site() -> Site {
        let artifact = |kind: &str| {
            let etag = "e";
            serde_json::json!({"link": {"path": format!("s3://boot-images/7f0c/{kind}"), "etag": etag, "type": "s3"},
                               "type": format!("application/vnd.cray.image.{kind}")})
        };
        let manifest = serde_json::json!({"version": "1.0", "artifacts": [artifact("kernel"), artifact("initrd")]});
        let name = |kind: &str| format!("s3://boot-images/7f0c/{kind}");
        let objects = [(KEY.to_owned(), manifest.to_string()), (name("kernel"), String::new()), (name("initrd"), String::new())].into();
        Site { objects, ..Site::default() }
    }

    impl Site {
        fn find(&self, call: &'static str, bucket: &str, key: &str) -> Result<Object, S3Error> {
            let failed = |kind| S3Error { call, bucket: bucket.into(), key: key.into(), kind, detail: "503".into() };
            if self.s3_away {
                return Err(failed(S3ErrorKind::Unavailable));
            }
            let found = self.objects.get(&format!("s3://{bucket}/{key}")).ok_or_else(|| failed(S3ErrorKind::NotFound))?;
            Ok(Object { bytes: found.clone().into(), etag: "1d4f".into() })
        }

        fn clients(self) -> Clients {
            let mut config = ServicesConfig::default();
            config.s3.access_key = "a".into();
            config.s3.secret_key = bos_services::config::Secret::new("s");
            let site = Arc::new(self);
            let unused = Clients::new(&config, Arc::new(NoObserver)).unwrap();
            Clients { objects: Arc::<Site>::clone(&site), configuration: Arc::<Site>::clone(&site), images: site, ..unused }
        }
    }

    #[async_trait]
    impl ObjectStore for Site {
        async fn get(&self, bucket: &str, key: &str, _: usize) -> Result<Object, S3Error> {
            self.find("get object", bucket, key)
        }
        async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, S3Error> {
            self.find("head object", bucket, key).map(|object| ObjectHead { etag: object.etag, size: None })
        }
    }

    #[async_trait]
    impl Configuration for Site {
        async fn configuration_exists(&self, name: &str) -> Result<bool, ServiceError> {
            if self.cfs_away {
                return Err(ServiceError::new(Service::Cfs, "get configuration", Reached::Yes, ErrorKind::Server(503), "away"));
            }
            Ok(name == "cos")
        }
        async fn components(&self, _: &[Xname]) -> Result<HashMap<Xname, ConfigReading>, ServiceError> {
            unreachable!("templates need no components")
        }
        async fn patch(&self, _: &[Xname], _: &ConfigPatch) -> Result<Vec<Xname>, ServiceError> {
            unreachable!("templates change nothing")
        }
    }

    #[async_trait]
    impl Images for Site {
        async fn image(&self, id: &str) -> Result<Option<Image>, ServiceError> {
            Ok((id == "7f0c").then(|| Image { arch: "x86_64".into(), name: "cos-image".into() }))
        }
        async fn tag_sbps(&self, _: &str) -> Result<(), ServiceError> {
            unreachable!("templates change nothing")
        }
    }

    fn template() -> SessionTemplateSpec {
        let set = BootSet { name: "compute".into(), path: KEY.into(), node_roles_groups: vec!["Compute".into()], ..BootSet::default() };
        SessionTemplateSpec {
            cfs: Some(CfsSpec { configuration: Some("cos".into()) }),
            boot_sets: vec![set],
            ..SessionTemplateSpec::default()
        }
    }

    async fn status(site: Site, template: &SessionTemplateSpec) -> SessionTemplateStatus {
        let mut status = SessionTemplateStatus::default();
        assert!(check(&site.clients(), template, &LookRules::default()).await.apply(&mut status, 3, Timestamp::UNIX_EPOCH));
        status
    }

    /// Conditions as `type=status reason`.
    fn shown(status: &SessionTemplateStatus) -> Vec<String> {
        status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect()
    }

    fn message<'a>(status: &'a SessionTemplateStatus, type_: &str) -> &'a str {
        &conditions::find(&status.conditions, type_).unwrap().message
    }

    #[tokio::test]
    async fn a_good_template_is_ready_and_shows_what_it_boots() {
        let status = status(site(), &template()).await;
        assert_eq!(
            shown(&status),
            ["Valid=True Checked", "ArtifactsAvailable=True Checked", "ConfigurationKnown=True Checked", "Ready=True Checked"]
        );
        assert_eq!(status.observed_generation, 3);
        let report = &status.boot_sets[0];
        assert_eq!(
            (report.kernel.as_str(), report.image.as_str(), report.message.as_str()),
            ("s3://boot-images/7f0c/kernel", "cos-image", "")
        );
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let mut without_kernel = site();
        without_kernel.objects.remove("s3://boot-images/7f0c/kernel");
        let found = status(without_kernel, &template()).await;
        assert_eq!(shown(&found)[1], "ArtifactsAvailable=False ArtifactsMissing");
        assert_eq!(shown(&found)[3], "Ready=False ArtifactsMissing");
        assert_eq!(message(&found, READY), "Boot set compute: kernel s3://boot-images/7f0c/kernel does not exist in S3.");

        let mut nfs = template();
        nfs.boot_sets[0].rootfs_provider = Some("nfs".into());
        let found = status(site(), &nfs).await;
        assert_eq!(shown(&found)[..2], ["Valid=False TemplateInvalid", "ArtifactsAvailable=False UnsupportedProvider"]);

        let mut other = template();
        other.cfs = Some(CfsSpec { configuration: Some("uan".into()) });
        let found = status(site(), &other).await;
        assert_eq!(shown(&found)[2..], ["ConfigurationKnown=False ConfigurationUnknown", "Ready=False ConfigurationUnknown"]);
    }

    #[tokio::test]
    async fn a_service_that_is_away_proves_nothing() {
        let away = Site { s3_away: true, cfs_away: true, ..site() };
        assert!(check(&away.clone().clients(), &template(), &LookRules::default()).await.is_open());
        let found = status(away, &template()).await;
        let want = [
            "Valid=True Checked",
            "ArtifactsAvailable=Unknown S3Unavailable",
            "ConfigurationKnown=Unknown CFSUnavailable",
            "Ready=Unknown NotChecked",
        ];
        assert_eq!(shown(&found), want);
    }

    #[tokio::test]
    async fn another_etag_is_a_warning_and_quotes_do_not_matter() {
        let mut quoted = template();
        quoted.boot_sets[0].etag = Some("\"1d4f\"".into());
        assert_eq!(shown(&status(site(), &quoted).await)[1], "ArtifactsAvailable=True Checked");
        quoted.boot_sets[0].etag = Some("beef".into());
        let found = status(site(), &quoted).await;
        assert_eq!(shown(&found)[3], "Ready=True CheckedWithWarnings");
        assert!(message(&found, READY).contains("beef"), "{}", message(&found, READY));
    }

    /// As `hack/gitops` tests the health checks of Argo CD and Flux with it; `BOS_GOLDEN=write` writes it anew.
    #[tokio::test]
    async fn what_tools_are_tested_with_is_what_is_shown() {
        let mut without_kernel = site();
        without_kernel.objects.remove("s3://boot-images/7f0c/kernel");
        let (mut nfs, mut doubtful) = (template(), template());
        nfs.boot_sets[0].rootfs_provider = Some("nfs".into());
        doubtful.boot_sets[0].etag = Some("beef".into());
        let mut shown = std::collections::BTreeMap::new();
        for (name, site, spec) in [
            ("SessionTemplate ready", site(), template()),
            ("SessionTemplate with warnings", site(), doubtful),
            ("SessionTemplate invalid", site(), nfs),
            ("SessionTemplate without image", without_kernel, template()),
            ("SessionTemplate not checked yet", Site { s3_away: true, ..site() }, template()),
        ] {
            let status = status(site, &spec).await;
            let metadata = serde_json::json!({"name": "cos", "namespace": "bos", "generation": 3});
            let kind = "SessionTemplate";
            let object = serde_json::json!({"apiVersion": bos_crds::API_VERSION, "kind": kind, "metadata": metadata, "spec": spec, "status": status});
            shown.insert(name, object);
        }
        let path = std::path::Path::new("../../hack/gitops/testdata/templates.json");
        let text = format!("{:#}\n", serde_json::json!(shown));
        if std::env::var_os("BOS_GOLDEN").is_some_and(|value| value == "write") {
            std::fs::write(path, &text).unwrap();
        }
        let known = std::fs::read_to_string(path).unwrap_or_default();
        assert!(known == text, "{} is not what is shown now; BOS_GOLDEN=write writes it:\n{text}", path.display());
    }

    #[tokio::test]
    async fn looking_again_changes_nothing() {
        let mut status = status(site(), &template()).await;
        let before = status.clone();
        let again = check(&site().clients(), &template(), &LookRules::default()).await;
        assert!(!again.apply(&mut status, 3, Timestamp::from_second(600).unwrap()));
        assert_eq!(status, before);
        let gone = check(&Site::default().clients(), &template(), &LookRules::default()).await;
        assert!(gone.apply(&mut status, 3, Timestamp::from_second(1200).unwrap()));
    }
}
