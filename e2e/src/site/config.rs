//! Settings of the simulated site: what is fixed at start, and what may change while it runs.
//!
//! All times are given in seconds (fractions allowed) in JSON. Unknown keys are refused, so that a
//! misspelt fault does not silently become a healthy site.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::faults::{Faults, OutageKind, OutageSpec};

/// Durations as seconds in JSON.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_f64(value.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        let value = f64::deserialize(input)?;
        Duration::try_from_secs_f64(value).map_err(|e| D::Error::custom(format!("{value} is not a duration in seconds: {e}")))
    }

    /// The same for a duration that may be absent.
    pub(crate) mod option {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer, Serializer, de::Error};

        pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => out.serialize_some(&value.as_secs_f64()),
                None => out.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
            Option::<f64>::deserialize(input)?
                .map(|value| {
                    Duration::try_from_secs_f64(value).map_err(|e| D::Error::custom(format!("{value} is not a duration in seconds: {e}")))
                })
                .transpose()
        }
    }
}

/// One of the simulated services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Hardware State Manager: inventory, groups, locks.
    Hsm,
    /// Power Control Service.
    Pcs,
    /// Cray Advanced Platform Monitoring and Control.
    Capmc,
    /// Boot Script Service.
    Bss,
    /// Configuration Framework Service, version 3.
    Cfs,
    /// Image Management Service.
    Ims,
    /// Object store.
    S3,
}

impl Service {
    /// All services, in the order of their ports in [`SiteConfig::ports`].
    pub const ALL: [Service; 7] = [Service::Hsm, Service::Pcs, Service::Capmc, Service::Bss, Service::Cfs, Service::Ims, Service::S3];

    /// The name as it appears in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Service::Hsm => "hsm",
            Service::Pcs => "pcs",
            Service::Capmc => "capmc",
            Service::Bss => "bss",
            Service::Cfs => "cfs",
            Service::Ims => "ims",
            Service::S3 => "s3",
        }
    }
}

/// The whole configuration file of the site.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SiteConfig {
    /// The machines, block after block. Each block goes on where the last one of the same cabinet ended.
    pub blocks: Vec<NodeBlock>,
    /// Boot images present at start.
    pub images: Vec<ImageSpec>,
    /// Names of CFS configurations present at start.
    pub configurations: Vec<String>,
    /// Per-node faults present at start.
    pub faults: Vec<FaultRule>,
    /// Outages that begin at (or some time after) the start.
    pub outages: Vec<OutageSpec>,
    /// What may also be changed while the site runs.
    pub settings: Settings,
    /// Access key that the object store knows.
    pub s3_access_key: String,
    /// Secret that belongs to the access key.
    pub s3_secret_key: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Fixed ports by service name or `admin`; a service not named here takes a free port.
    pub ports: BTreeMap<String, u16>,
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self {
            blocks: vec![NodeBlock::default()],
            images: vec![ImageSpec::default()],
            configurations: vec!["cos-3.3.12".into(), "uan-3.3.12".into()],
            faults: Vec::new(),
            outages: Vec::new(),
            settings: Settings::default(),
            s3_access_key: "site-access".into(),
            s3_secret_key: "site-secret".into(),
            seed: 1,
            ports: BTreeMap::new(),
        }
    }
}

impl SiteConfig {
    /// The default site with this many compute nodes.
    pub fn with_nodes(count: usize) -> Self {
        Self { blocks: vec![NodeBlock { count, ..NodeBlock::default() }], ..Self::default() }
    }
}

/// A run of like nodes. Names go through chassis 0-7, slots 0-7, BMCs 0-1 and nodes 0-1 of one
/// cabinet, then on to the next cabinet: 256 nodes a cabinet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeBlock {
    /// How many nodes.
    pub count: usize,
    /// First cabinet.
    pub cabinet: u32,
    /// HSM Role.
    pub role: String,
    /// HSM SubRole, if any.
    pub sub_role: Option<String>,
    /// HSM Arch: X86, ARM, Other, UNKNOWN; null = the component has no such key.
    pub arch: Option<String>,
    /// HSM Class.
    pub class: String,
    /// HSM groups that all nodes of the block belong to.
    pub groups: Vec<String>,
    /// HSM partition, if any.
    pub partition: Option<String>,
    /// State at start.
    pub initial: InitialState,
}

impl Default for NodeBlock {
    fn default() -> Self {
        Self {
            count: 100,
            cabinet: 1000,
            role: "Compute".into(),
            sub_role: None,
            arch: Some("X86".into()),
            class: "Mountain".into(),
            groups: Vec::new(),
            partition: None,
            initial: InitialState::Off,
        }
    }
}

/// What a node does when the site starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "state", deny_unknown_fields)]
pub enum InitialState {
    /// Powered off, no boot parameters in BSS.
    #[default]
    Off,
    /// On and up with boot parameters that BSS knows.
    On {
        /// Referral token; absent = a random one per node.
        token: Option<String>,
        /// Image it runs, one of those in the object store.
        image: String,
        /// Kernel parameters it was booted with.
        #[serde(default)]
        params: String,
        /// CFS configuration that was applied, if any.
        #[serde(default)]
        configuration: Option<String>,
    },
    /// On and up with a token that nobody handed out.
    OnUnknown,
}

/// An image in the object store with its IMS record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ImageSpec {
    /// Image id: first segment of the keys and id of the IMS record.
    pub id: String,
    /// Name in IMS.
    pub name: String,
    /// Architecture in IMS: x86_64 or aarch64.
    pub arch: String,
    /// Bucket.
    pub bucket: String,
    /// Content of the boot-parameters object; null = the image has none.
    pub boot_parameters: Option<String>,
    /// What is wrong with it.
    pub defect: Option<ImageDefect>,
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            id: "7f0c3a52-1d4f-4c7e-9a51-0b8f6a2d9e10".into(),
            name: "cos-3.3.12".into(),
            arch: "x86_64".into(),
            bucket: "boot-images".into(),
            boot_parameters: Some("console=ttyS0,115200 quiet".into()),
            defect: None,
        }
    }
}

/// Ways in which an image may be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageDefect {
    /// There is no manifest object.
    NoManifest,
    /// The manifest is cut off in the middle.
    BadJson,
    /// The manifest is JSON, but not of the right shape.
    WrongShape,
    /// The manifest is larger than 1 MiB.
    HugeManifest,
    /// The manifest names no kernel.
    NoKernel,
    /// The manifest names no initrd.
    NoInitrd,
    /// The manifest names two kernels.
    DuplicateKernel,
    /// The manifest names a kernel that is not in the store.
    MissingKernelObject,
    /// The manifest names an initrd that is not in the store.
    MissingInitrdObject,
    /// The manifest names no rootfs.
    NoRootfs,
    /// The boot parameters are not UTF-8.
    BadBootParameters,
    /// No IMS record.
    NoImsRecord,
}

/// Faults for a list of nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    /// The nodes; `["all"]` means every node.
    pub xnames: Vec<String>,
    /// What is wrong with them.
    pub faults: Faults,
}

/// How much of the inventory HSM shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inventory {
    /// Everything.
    #[default]
    Full,
    /// Every second node is missing.
    Half,
    /// No component at all.
    Empty,
}

/// Behaviour of one service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// Wait before a request is processed. It is processed even if the client has gone by then.
    #[serde(with = "seconds")]
    pub latency: Duration,
    /// Random addition to `latency`, evenly spread from 0 to this.
    #[serde(with = "seconds")]
    pub latency_spread: Duration,
    /// Wait between processing and answer.
    #[serde(with = "seconds")]
    pub answer_delay: Duration,
    /// Share of requests (0 to 1) that fail.
    pub error_rate: f64,
    /// How they fail.
    pub error_kind: OutageKind,
}

/// Everything that may be changed while the site runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// Base URL of the operator's report endpoint, without `/apis/bos/v2/...`; null = nobody listens yet.
    pub operator_url: Option<String>,
    /// Accept any certificate of the report endpoint.
    pub operator_insecure: bool,
    /// The bearer token that each node shows when it reports, by xname; one that is not named shows none.
    pub report_tokens: BTreeMap<String, String>,
    /// Time from the power-on command until the node has power.
    #[serde(with = "seconds")]
    pub on_delay: Duration,
    /// Time from a graceful power-off command until the node is off.
    #[serde(with = "seconds")]
    pub off_delay: Duration,
    /// Time from a forced power-off command until the node is off.
    #[serde(with = "seconds")]
    pub force_off_delay: Duration,
    /// Time from power until the node asks BSS for its boot script.
    #[serde(with = "seconds")]
    pub script_delay: Duration,
    /// Time from power until the node is up and reports.
    #[serde(with = "seconds")]
    pub boot_time: Duration,
    /// Random addition to `boot_time`, evenly spread from 0 to this.
    #[serde(with = "seconds")]
    pub boot_spread: Duration,
    /// Wait before a failed boot script or image load is tried again.
    #[serde(with = "seconds")]
    pub boot_retry_delay: Duration,
    /// Time CFS needs to configure a node that is up, enabled and pending.
    #[serde(with = "seconds")]
    pub cfs_delay: Duration,
    /// Factor on the reporter's back-off of min(30, 2 x attempt) seconds.
    pub report_backoff_scale: f64,
    /// Time limit of one report.
    #[serde(with = "seconds")]
    pub report_timeout: Duration,
    /// Whether nodes report again every 0.75 x `bos_update_frequency` of their kernel parameters.
    pub periodic_reports: bool,
    /// How often PCS looks whether a transition was achieved (the real one: 15 s).
    #[serde(with = "seconds")]
    pub confirm_delay: Duration,
    /// How often PCS samples power states (the real one: 30 s); 0 = it always knows.
    #[serde(with = "seconds")]
    pub sample_interval: Duration,
    /// Length of a minute in `taskDeadlineMinutes`.
    #[serde(with = "seconds")]
    pub task_minute: Duration,
    /// How long CAPMC lets PCS begin before it answers (the real one: 2 s and more).
    #[serde(with = "seconds")]
    pub capmc_wait: Duration,
    /// CAPMC older than 3: it talks to the hardware itself and names what failed there, and one disabled node spoils an order for all.
    pub old_capmc: bool,
    /// What HSM shows.
    pub inventory: Inventory,
    /// Groups that HSM leaves out; `*` = all.
    pub missing_groups: Vec<String>,
    /// HSM older than 2.45: `/locks/status` answers 400 when nothing matches.
    pub old_locks_status: bool,
    /// HSM State follows power and boot; off = it keeps what it last said.
    pub state_follows_power: bool,
    /// BSS stops in the middle of a PUT at the first of these hosts, with an error.
    pub bss_put_stops_at: Vec<String>,
    /// Time BSS takes to write one host; the hosts of a PUT are written one after the other.
    #[serde(with = "seconds")]
    pub bss_host_write: Duration,
    /// Failures after which CFS gives a node up.
    pub cfs_retries: u32,
    /// Page size of CFS when the client names none.
    pub cfs_page_size: usize,
    /// Delays and error rates by service.
    pub services: BTreeMap<Service, ServiceSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            operator_url: None,
            operator_insecure: false,
            report_tokens: BTreeMap::new(),
            on_delay: Duration::ZERO,
            off_delay: Duration::from_millis(200),
            force_off_delay: Duration::ZERO,
            script_delay: Duration::from_millis(100),
            boot_time: Duration::from_secs(3),
            boot_spread: Duration::ZERO,
            boot_retry_delay: Duration::from_secs(1),
            cfs_delay: Duration::ZERO,
            report_backoff_scale: 1.0,
            report_timeout: Duration::from_secs(10),
            periodic_reports: true,
            confirm_delay: Duration::from_millis(50),
            sample_interval: Duration::ZERO,
            task_minute: Duration::from_secs(60),
            capmc_wait: Duration::from_millis(20),
            old_capmc: false,
            inventory: Inventory::Full,
            missing_groups: Vec::new(),
            old_locks_status: false,
            state_follows_power: true,
            bss_put_stops_at: Vec::new(),
            bss_host_write: Duration::ZERO,
            cfs_retries: 3,
            cfs_page_size: 1000,
            services: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Delays as on real hardware: PCS confirms every 15 s and samples every 30 s, nodes need minutes.
    pub fn realistic(mut self) -> Self {
        self.on_delay = Duration::from_secs(5);
        self.off_delay = Duration::from_secs(60);
        self.force_off_delay = Duration::from_secs(5);
        self.script_delay = Duration::from_secs(60);
        self.boot_time = Duration::from_secs(300);
        self.boot_spread = Duration::from_secs(120);
        self.boot_retry_delay = Duration::from_secs(30);
        self.cfs_delay = Duration::from_secs(120);
        self.confirm_delay = Duration::from_secs(15);
        self.capmc_wait = Duration::from_secs(2);
        self.sample_interval = Duration::from_secs(30);
        self
    }

    /// The settings of one service.
    pub fn service(&self, service: Service) -> ServiceSettings {
        self.services.get(&service).cloned().unwrap_or_default()
    }

    /// The settings of one service, to change them.
    pub fn service_mut(&mut self, service: Service) -> &mut ServiceSettings {
        self.services.entry(service).or_default()
    }
}
