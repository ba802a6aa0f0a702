//! Every reason that our statuses, conditions and Events give, with what it means.
//!
//! A reason is one word for programs; the message beside it is for people. The documentation of each is what the
//! runbook and [`describe`] print.

/// Declares the reasons: constants, and [`ALL`] with their documentation.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $word;)+

        /// Every reason with its documentation.
        pub const ALL: &[(&str, &str)] = &[$(($word, concat!($($doc),+)),)+];
    };
}

/// What a reason means, if it is one of ours.
#[must_use]
pub fn describe(reason: &str) -> Option<&'static str> {
    ALL.iter().find(|(word, _)| *word == reason).map(|(_, doc)| doc.trim())
}

reasons! {
    // Nodes that wait.

    /// Nodes cannot report to us now, so silence proves nothing; no node is power-cycled for it.
    REPORT_PATH_DOWN = "ReportPathDown";
    /// The node is on; its own report, which proves its boot, has not come yet.
    AWAITING_REPORT = "AwaitingReport";
    /// The node is on; HSM does not call it Ready yet, which proves its boot in mode v1 and with bootEvidence HSMReady.
    AWAITING_READY = "AwaitingReady";
    /// The power service said that the last power action failed. It is tried again after a pause, as long as attempts are left.
    AWAITING_RETRY = "AwaitingRetry";
    /// A power action was sent; the power service does not show its effect yet.
    AWAITING_POWER = "AwaitingPower";
    /// CFS has not finished with the node.
    AWAITING_CONFIGURATION = "AwaitingConfiguration";
    /// The pacing options hold the node back until others are through.
    PACED = "Paced";
    /// The power service does not know the power of the node. It is not touched until it does.
    POWER_UNKNOWN = "PowerUnknown";
    /// An earlier operation on the node has not ended yet, or somebody else has reserved or locked it.
    PREVIOUS_OPERATION = "PreviousOperation";
    /// BSS has not confirmed the boot parameters; the node is not powered on before.
    BOOT_PARAMETERS_PENDING = "BootParametersPending";
    /// CFS has not confirmed the wanted configuration; the node is not powered on before.
    CONFIGURATION_PENDING = "ConfigurationPending";
    /// A person holds the node or the Session with suspend.
    SUSPENDED = "Suspended";
    /// The ConfigMap bos-emergency-stop exists: no power action is sent.
    EMERGENCY_STOP = "EmergencyStop";
    /// A service does not answer, or says that it cannot serve. Nothing is lost and no attempt is used; it is tried again.
    SERVICE_UNAVAILABLE = "ServiceUnavailable";
    /// What is wanted was not looked at yet.
    NOT_OBSERVED = "NotObserved";

    // Nodes that ended.

    /// The node is off, and what was asked never powers a node on.
    POWERED_OFF = "PoweredOff";
    /// HSM says that another node is in its place; nothing that was known of the old one holds.
    NODE_REPLACED = "NodeReplaced";
    /// Somebody deleted the record of what was done, so the node is left as it is. Look at it, then use a new Session.
    RECORDS_LOST = "RecordsLost";

    /// Many nodes of the Session timed out together. None is power-cycled; a person decides.
    MASS_BOOT_TIMEOUT = "MassBootTimeout";
    /// No report within the boot wait time of the last attempt. The node was left on: see its console.
    BOOT_TIMEOUT = "BootTimeout";
    /// Still off after the last power-on: its wait time has passed, or the power service said that it failed.
    POWER_ON_TIMEOUT = "PowerOnTimeout";
    /// Still on after the last power-off: its wait time has passed, or the power service said that it failed.
    POWER_OFF_TIMEOUT = "PowerOffTimeout";
    /// The power service refused the power action for this node, for example because it is reserved.
    POWER_REFUSED = "PowerRefused";
    /// BSS refused the boot parameters of this node.
    BOOT_PARAMETERS_REFUSED = "BootParametersRefused";
    /// CFS tried to configure the node and failed. The node stays on.
    CONFIGURATION_FAILED = "ConfigurationFailed";
    /// CFS did not finish with the node in the configuration wait time. The node stays on.
    CONFIGURATION_TIMEOUT = "ConfigurationTimeout";
    /// CFS does not know the node.
    NOT_IN_CONFIGURATION_SERVICE = "NotInConfigurationService";
    /// The node is on and runs something nobody knows. Boot leaves it, unless runningNodes is Restart.
    UNKNOWN_IMAGE_RUNNING = "UnknownImageRunning";
    /// The node was on and was left so, as runningNodes says.
    LEFT_RUNNING = "LeftRunning";
    /// The Session may power-cycle no further node.
    MAX_POWER_CYCLED = "MaxPowerCycled";
    /// A newer Session took the node over, or every node of the Session.
    SUPERSEDED = "Superseded";
    /// The Session was cancelled.
    CANCELLED = "Cancelled";

    // Nodes that a Session leaves out.

    /// HSM has the node locked.
    LOCKED_IN_HSM = "LockedInHSM";
    /// The node is disabled in HSM; includeDisabled takes it in.
    DISABLED_IN_HSM = "DisabledInHSM";
    /// The template names the node, HSM does not know it.
    NOT_IN_HSM = "NotInHSM";
    /// The node has another architecture than the boot set.
    ARCH_MISMATCH = "ArchMismatch";
    /// The slot is empty according to HSM.
    EMPTY_IN_HSM = "EmptyInHSM";
    /// The node has the role Management; the option includeManagement takes it in.
    MANAGEMENT_ROLE = "ManagementRole";
    /// The node belongs to another tenant.
    NOT_OWNED_BY_TENANT = "NotOwnedByTenant";

    // Sessions that wait or run.

    /// Nodes are being driven.
    RUNNING = "Running";
    /// Not seen by the operator yet.
    PENDING = "Pending";
    /// HSM gave an empty, partial or suddenly shrunken inventory. It is taken for a fault of HSM; nothing is changed.
    HSM_FAULT = "HSMFault";
    /// Every service that is needed answers.
    SERVICES_ANSWER = "ServicesAnswer";
    /// HSM does not answer, or says that it cannot serve.
    HSM_UNAVAILABLE = "HSMUnavailable";
    /// PCS does not answer, or says that it cannot serve.
    PCS_UNAVAILABLE = "PCSUnavailable";
    /// CAPMC does not answer, or says that it cannot serve.
    CAPMC_UNAVAILABLE = "CAPMCUnavailable";
    /// BSS does not answer, or says that it cannot serve.
    BSS_UNAVAILABLE = "BSSUnavailable";
    /// CFS does not answer, or says that it cannot serve.
    CFS_UNAVAILABLE = "CFSUnavailable";
    /// IMS does not answer, or says that it cannot serve.
    IMS_UNAVAILABLE = "IMSUnavailable";
    /// S3 does not answer, or says that it cannot serve.
    S3_UNAVAILABLE = "S3Unavailable";

    // Sessions that ended.

    /// Every node that was not taken over reached what was wanted.
    SESSION_SUCCEEDED = "Succeeded";
    /// Some nodes failed.
    NODES_FAILED = "NodesFailed";
    /// No node failed, but all that were not taken over were left as they are, see failures for the reasons.
    NODES_LEFT_RUNNING = "NodesLeftRunning";
    /// Outcome: some nodes succeeded, some did not.
    PARTIALLY_FAILED = "PartiallyFailed";
    /// Outcome: set-up failed, there were no nodes, or none succeeded and at least one failed.
    FAILED = "Failed";
    /// Outcome: nothing was done.
    NOT_STARTED = "NotStarted";
    /// A Session of this name ran before in this namespace. Give the new one another name.
    ALREADY_RAN = "AlreadyRan";
    /// startBefore had passed when the Session was seen.
    EXPIRED = "Expired";
    /// A GitOps tool tracks the Session, and it has no startBefore.
    START_BEFORE_REQUIRED = "StartBeforeRequired";
    /// The options do not list this namespace for Sessions.
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed";
    /// The limit cannot be read, or a name in an exclusion is unknown or stands for no node.
    INVALID_LIMIT = "InvalidLimit";
    /// The options demand a limit, and the Session has none.
    LIMIT_REQUIRED = "LimitRequired";
    /// No node is left to act on.
    NO_NODES = "NoNodes";
    /// The template did not appear in time.
    TEMPLATE_NOT_FOUND = "TemplateNotFound";
    /// The template contradicts itself or cannot be used for this operation.
    TEMPLATE_INVALID = "TemplateInvalid";
    /// S3 has no such manifest, kernel, initrd or root file system, or the manifest cannot be read.
    ARTIFACTS_MISSING = "ArtifactsMissing";
    /// IMS says that the image is for another architecture, or does not have it where imsImagesMustExist asks for that.
    IMAGE_REFUSED = "ImageRefused";
    /// The root file system provider is not known. Known are sbps and cpss3.
    UNSUPPORTED_PROVIDER = "UnsupportedProvider";
    /// CFS has no configuration of this name.
    CONFIGURATION_UNKNOWN = "ConfigurationUnknown";
    /// Set-up failed for the reason in the message.
    SETUP_FAILED = "SetupFailed";
    /// The mode is not served by this installation.
    UNSUPPORTED_MODE = "UnsupportedMode";
    /// The agent of a Session of mode v1 ended, or its Job was removed, before the Session was over.
    AGENT_LOST = "AgentLost";
    /// It was on, and a Boot of mode v1 powers on only what is off.
    ALREADY_ON = "AlreadyOn";
    /// A Session of mode v1 waits until no older Session's operation is under way on its nodes; then its Job is made.
    AGENT_WAITING = "AgentWaiting";
    /// The Job of a Session of mode v1 is being made, or its pod is on its way.
    AGENT_STARTING = "AgentStarting";
    /// The agent of a Session of mode v1 is at work.
    AGENT_RUNNING = "AgentRunning";
    /// The agent of a Session of mode v1 has ended.
    AGENT_ENDED = "AgentEnded";

    // Templates and options.

    /// Everything was checked and is right.
    CHECKED = "Checked";
    /// Everything is right but for something worth knowing, see the message.
    CHECKED_WITH_WARNINGS = "CheckedWithWarnings";
    /// The check could not be made because a service did not answer.
    NOT_CHECKED = "NotChecked";
    /// No configuration is wanted.
    NO_CONFIGURATION = "NoConfiguration";
    /// Every option is in force.
    IN_FORCE = "InForce";
    /// An option cannot be used; the last good value stays in force.
    INVALID_VALUE = "InvalidValue";

    // Inventory.


    // Events of Sessions that are not conditions.

    /// Work on the nodes began.
    STARTED = "Started";
    /// The Session ended. Of other conditions: it has ended, so this holds no more.
    COMPLETE = "Complete";
    /// A service answers again.
    SERVICE_BACK = "ServiceBack";
    /// The ConfigMap bos-emergency-stop was deleted: power actions go on.
    EMERGENCY_STOP_LIFTED = "EmergencyStopLifted";
    /// A person took spec.suspend back.
    RESUMED = "Resumed";
}
