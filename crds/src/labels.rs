//! Names we put on objects of the API server: labels, annotations, field managers, ConfigMaps, the lease.

/// Label: `metadata.uid` of the Session an object belongs to.
pub const SESSION_UID: &str = "bos.hpe.com/session-uid";
/// Label: name of the Session an object belongs to.
pub const SESSION_NAME: &str = "bos.hpe.com/session-name";
/// Label: namespace of the Session an object belongs to.
pub const SESSION_NAMESPACE: &str = "bos.hpe.com/session-namespace";
/// Label: what a ConfigMap of ours holds, one of the `RECORD_` words.
pub const RECORD: &str = "bos.hpe.com/record";
/// Label of plan ConfigMaps; the value is the number of the chunk, from 0.
pub const PLAN: &str = "bos.hpe.com/plan";
/// Label of journal ConfigMaps; the value is [`RECORD_JOURNAL`].
pub const JOURNAL: &str = "bos.hpe.com/journal";
/// Label of artifact ConfigMaps; the value is the digest as [`digest_label`] shortens it.
pub const ARTIFACTS: &str = "bos.hpe.com/artifacts";
/// Label: what a Session of mode v1 does, on its Job.
pub const OPERATION: &str = "bos.hpe.com/operation";
/// Label that says what a part of BOS is for.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Value of [`COMPONENT`]: Jobs and pods of agents.
pub const COMPONENT_AGENT: &str = "boot-agent";
/// Label every object of ours carries, with [`PART_OF_VALUE`].
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// Value of [`PART_OF`].
pub const PART_OF_VALUE: &str = "bos";
/// Label that says who writes an object, with [`MANAGER_OPERATOR`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Value of [`RECORD`]: resolved nodes of a Session, immutable.
pub const RECORD_PLAN: &str = "plan";
/// Value of [`RECORD`]: batches of a Session and what came of them.
pub const RECORD_JOURNAL: &str = "journal";
/// Value of [`RECORD`]: kernel, initrd and kernel parameters, immutable.
pub const RECORD_ARTIFACTS: &str = "artifacts";
/// Value of [`RECORD`]: names of Sessions that ran.
pub const RECORD_SESSION_NAMES: &str = "session-names";

/// Value of [`RECORD`]: the Job to which a Session of mode v1 was given.
pub const RECORD_AGENT: &str = "agent";

/// Annotation of a Session: who created it. Set by admission, shown in the status.
pub const REQUESTED_BY: &str = "bos.hpe.com/requested-by";
/// Annotation of a journal: epoch of the leader that wrote it last.
pub const EPOCH: &str = "bos.hpe.com/epoch";

/// Field manager of the operator for what it owns (plans, journals, artifact sets, the lease) and for BootComponents but their
/// status, whoever of its parts writes them: each manager costs an object 170 bytes.
pub const MANAGER_OPERATOR: &str = "bos-operator";
/// Field manager of statuses.
pub const MANAGER_STATUS: &str = "bos-operator-status";
/// Field manager of the template controller.
pub const MANAGER_TEMPLATE: &str = "bos-template";
/// Field manager of the agents of Sessions of mode v1.
pub const MANAGER_AGENT: &str = "bos-agent";
/// Field manager of admission.
pub const MANAGER_WEBHOOK: &str = "bos-webhook";
/// Every field manager.
pub const MANAGERS: &[&str] = &[MANAGER_OPERATOR, MANAGER_STATUS, MANAGER_TEMPLATE, MANAGER_AGENT, MANAGER_WEBHOOK];

/// ConfigMap that stops all power actions while it exists in the operator's namespace. Its content does not matter.
pub const EMERGENCY_STOP: &str = "bos-emergency-stop";
/// Lease of the leader.
pub const LEASE: &str = "bos-operator";

/// Annotation of [`LEASE`]: the URL where its holder takes reports of nodes, for operators that stand by.
pub const LEASE_REPORTS: &str = "bos.hpe.com/reports";
/// Journal without content that carries the epoch of the last leader, also while there is no Session.
pub const EPOCH_JOURNAL: &str = "bos-journal-epoch";
/// ConfigMap with the names of Sessions that ran.
pub const SESSION_NAMES: &str = "bos-session-names";

/// Label values hold at most this many characters.
const LABEL_VALUE_MAX: usize = 63;
/// Hexadecimal digits of a digest in the name of its ConfigMap: 128 bits.
const DIGEST_NAME_DIGITS: usize = 32;

/// Name of one chunk of a Session's plan.
#[must_use]
pub fn plan_name(session_uid: &str, chunk: usize) -> String {
    format!("bos-plan-{session_uid}-{chunk}")
}

/// Name of the record that says to which Job a Session was given.
#[must_use]
pub fn agent_name(session_uid: &str) -> String {
    format!("bos-agent-{session_uid}")
}

/// Name of the Job of a Session of mode v1, of its Lease too: at most 63 characters, as a Session's name has at most 50. Sessions of
/// other namespaces may have the same name, so part of the uid goes with it.
#[must_use]
pub fn job_name(session: &str, session_uid: &str) -> String {
    let uid: String = session_uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("boa-{session}-{uid}")
}

/// Name of a Session's journal.
#[must_use]
pub fn journal_name(session_uid: &str) -> String {
    format!("bos-journal-{session_uid}")
}

/// Name of the ConfigMap that holds the artifact set of this digest (`sha256:...`, or the hexadecimal digits alone).
#[must_use]
pub fn artifacts_name(digest: &str) -> String {
    format!("bos-artifacts-{}", digits(digest, DIGEST_NAME_DIGITS))
}

/// The digest as the value of label [`ARTIFACTS`]: its hexadecimal digits, cut to what a label holds.
#[must_use]
pub fn digest_label(digest: &str) -> &str {
    digits(digest, LABEL_VALUE_MAX)
}

fn digits(digest: &str, max: usize) -> &str {
    let all = digest.rsplit(':').next().unwrap_or(digest);
    all.get(..max).unwrap_or(all)
}

/// Label selector for the ConfigMaps of one Session.
#[must_use]
pub fn session_selector(session_uid: &str) -> String {
    format!("{SESSION_UID}={session_uid}")
}
