//! BOS's record of a component as the recording describes it, with what PCS and CFS say of the node.

use bos_core::artifacts::ArtifactSet;
use bos_core::model::{Digest, Phase};
use serde_json::Value;

/// What PCS says of the node's power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Missing,
    On,
    Off,
    /// Anything else, or an error text beside whatever it is.
    Text(String),
}

/// `last_action.action`, as far as it decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    On,
    SoftOff,
    ForceOff,
    /// Nothing of the power operators: set-up, discovery, clean-up, or no word at all.
    Other,
}

/// `status.status_override`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Override {
    None,
    OnHold,
    Failed,
}

/// `boot_artifacts`; a key that is missing is None.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifacts {
    pub(crate) kernel: Option<String>,
    pub(crate) initrd: Option<String>,
    pub(crate) params: Option<String>,
}

/// CFS's record of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cfs {
    /// In lower case, as both read it.
    pub(crate) status: Option<String>,
    pub(crate) desired: Option<String>,
}

/// One component in front of one pass of BOS's status operator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) desired: Option<Artifacts>,
    pub(crate) actual: Option<Artifacts>,
    pub(crate) power: Said,
    pub(crate) cfs: Option<Cfs>,
    pub(crate) configuration: Option<String>,
    pub(crate) last: Last,
    pub(crate) last_failed: bool,
    /// Milliseconds since the last action; None where the record has no time stamp.
    pub(crate) age: Option<u64>,
    /// Power-on, graceful, forceful.
    pub(crate) attempts: [u16; 3],
    pub(crate) phase: Phase,
    pub(crate) overriding: Override,
    pub(crate) error: String,
    pub(crate) enabled: bool,
    pub(crate) retry_policy: Option<u16>,
}

const PARAMS: &str = "console=ttyS0 root=sbps-s3:s3://boot-images/img-a/rootfs";

impl Artifacts {
    /// The artifacts under their names in the recording.
    pub(crate) fn named(kind: &str) -> Option<Self> {
        let part = |text: &str| Some(text.to_owned());
        let of = |image: &str| Self {
            kernel: part(&format!("s3://boot-images/{image}/kernel")),
            initrd: part(&format!("s3://boot-images/{image}/initrd")),
            params: part(PARAMS),
        };
        let (a, b) = (of("img-a"), of("img-b"));
        Some(match kind {
            "absent" => return None,
            "empty" => Self { kernel: part(""), initrd: part(""), params: part("") },
            "A" => a,
            "B_kernel" => Self { kernel: b.kernel, ..a },
            "B_initrd" => Self { initrd: b.initrd, ..a },
            "B_params" => Self { params: part("console=ttyS1"), ..a },
            "nokernel" => Self { kernel: part(""), ..a },
            "A_noparams" => Self { params: None, ..a },
            "A_noinitrd" => Self { initrd: None, ..a },
            "A_emptyparams" => Self { params: part(""), ..a },
            "A_trailing_blank" => Self { params: part(&format!("{PARAMS} ")), ..a },
            "kernel_only" => Self { initrd: part(""), params: part(""), ..a },
            "params_only" => Self { kernel: part(""), initrd: part(""), ..a },
            "timestamp_only" => Self { kernel: None, initrd: None, params: None },
            "nosbps" => Self { params: part("console=ttyS0"), ..a },
            "badpath" => Self { kernel: part("s3://boot-images/kernel"), ..a },
            "A_spire" => Self { params: part(&format!("{PARAMS} spire_join_token=abc")), ..a },
            other => panic!("artifacts {other}"),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        [&self.kernel, &self.initrd, &self.params].into_iter().all(|part| part.as_deref().unwrap_or_default().is_empty())
    }

    /// The digest under which we know them.
    pub(crate) fn digest(&self) -> Digest {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let set = ArtifactSet {
            kernel: text(&self.kernel),
            initrd: text(&self.initrd),
            params: text(&self.params),
            etags: bos_core::artifacts::Etags::default(),
            rootfs: None,
            image: String::new(),
        };
        Digest(set.short_digest().into())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// A text that the recording calls `absent` where the key is not there.
fn present(value: &Value) -> Option<String> {
    Some(text(value)).filter(|word| *word != "absent").map(str::to_owned)
}

pub(crate) fn phase(name: &str) -> Phase {
    match name {
        "" => Phase::None,
        "powering_on" => Phase::PoweringOn,
        "powering_off" => Phase::PoweringOff,
        "configuring" => Phase::Configuring,
        other => panic!("phase {other}"),
    }
}

pub(crate) fn overriding(name: &str) -> Override {
    match name {
        "" => Override::None,
        "on_hold" => Override::OnHold,
        "failed" => Override::Failed,
        other => panic!("override {other}"),
    }
}

pub(crate) fn last(name: &str) -> Last {
    match name {
        "powering_on" => Last::On,
        "powering_off_gracefully" => Last::SoftOff,
        "powering_off_forcefully" => Last::ForceOff,
        _ => Last::Other,
    }
}

pub(crate) fn attempts(value: &Value) -> [u16; 3] {
    let used = |index: usize| u16::try_from(value[index].as_u64().unwrap_or_default()).unwrap();
    [used(0), used(1), used(2)]
}

pub(crate) fn said(power: &str) -> Said {
    match power {
        // BOS takes an entry without a state for no entry.
        "missing" | "blank" => Said::Missing,
        text if text.starts_with("error_") => Said::Text("bmc unreachable".to_owned()),
        text => match text.to_lowercase().as_str() {
            "on" => Said::On,
            "off" => Said::Off,
            other => Said::Text(other.to_owned()),
        },
    }
}

impl Record {
    /// The record a line of the recording describes. Keys that a line's `shape` leaves out are what they are by default: ours are
    /// typed and cannot lack any, and BOS reads them so too.
    pub(crate) fn parse(case: &Value) -> Self {
        let cfs = Some(text(&case["cfs"]))
            .filter(|status| *status != "missing")
            .map(|_| Cfs { status: present(&case["cfs"]).map(|status| status.to_lowercase()), desired: present(&case["cfs_config"]) });
        let full = Self {
            desired: Artifacts::named(text(&case["desired"])),
            actual: Artifacts::named(text(&case["actual"])),
            power: said(text(&case["power"])),
            cfs,
            configuration: present(&case["config"]),
            last: last(text(&case["last_action"])),
            last_failed: case["last_failed"].as_bool().unwrap_or_default(),
            age: case["age"].as_f64().map(|seconds| std::time::Duration::from_secs_f64(seconds).as_millis().try_into().unwrap()),
            attempts: attempts(&case["attempts"]),
            phase: phase(text(&case["phase"])),
            overriding: overriding(text(&case["override"])),
            error: case["error"].as_str().unwrap_or_default().to_owned(),
            enabled: case["enabled"].as_bool().unwrap_or(true),
            retry_policy: case["retry_policy"].as_u64().map(|limit| limit.try_into().unwrap()),
        };
        full.without(case["shape"].as_str().unwrap_or("full"))
    }

    fn without(self, shape: &str) -> Self {
        match shape {
            "full" => self,
            "no_status" => Self { phase: Phase::None, overriding: Override::None, ..self },
            "no_desired_state" => Self { desired: None, configuration: None, ..self },
            "no_actual_state" => Self { actual: None, ..self },
            "no_event_stats" => Self { attempts: [0; 3], ..self },
            "no_error" => Self { error: String::new(), ..self },
            "no_last_action" => Self { last: Last::Other, last_failed: false, age: None, ..self },
            "id_and_enabled_only" => ["no_status", "no_desired_state", "no_actual_state", "no_event_stats", "no_error", "no_last_action"]
                .into_iter()
                .fold(self, Self::without),
            other => panic!("shape {other}"),
        }
    }

    /// What the node is to run; None where it is to be off.
    pub(crate) fn wanted(&self) -> Option<&Artifacts> {
        self.desired.as_ref().filter(|artifacts| artifacts.kernel.as_deref().is_some_and(|kernel| !kernel.is_empty()))
    }

    /// What the record says it runs; None where it says nothing.
    pub(crate) fn runs(&self) -> Option<&Artifacts> {
        self.actual.as_ref().filter(|artifacts| !artifacts.is_empty())
    }

    /// The configuration that is wanted, if any.
    pub(crate) fn wants_configuration(&self) -> bool {
        self.configuration.as_deref().is_some_and(|name| !name.is_empty())
    }

    /// Whether the last action is older than this, by BOS's strict measure.
    pub(crate) fn older_than(&self, seconds: u64) -> bool {
        self.age.is_none_or(|age| age > seconds * 1000)
    }
}
