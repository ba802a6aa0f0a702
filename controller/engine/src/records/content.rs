//! How a record looks as a ConfigMap: its name, labels and data.

use std::collections::BTreeMap;

use bos_crds::labels;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;

use super::{RecordError, SessionKey};

const CONTENT: &str = "content";
const SESSION: &str = "session";
const DIGEST: &str = "digest";
const CHUNK: &str = "chunk";
const CHUNKS: &str = "chunks";

/// The largest part of a plan in one ConfigMap. The API server allows 1 MiB in all.
pub const CHUNK_BYTES: usize = 900 * 1024;
/// The largest record that cannot be split.
pub const MAX_RECORD_BYTES: usize = 1000 * 1024;

/// The kinds of records.
#[derive(Debug, Clone, Copy)]
pub(super) enum Record<'a> {
    Plan { uid: &'a str, key: &'a SessionKey, index: usize, chunks: usize },
    Journal { uid: &'a str, key: Option<&'a SessionKey>, epoch: i64 },
    Agent { uid: &'a str, epoch: i64 },
    Epoch { epoch: i64 },
    Artifacts { digest: &'a str },
    Ledger { shard: usize, epoch: i64 },
}

impl Record<'_> {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Plan { uid, index, .. } => labels::plan_name(uid, *index),
            Self::Journal { uid, .. } => labels::journal_name(uid),
            Self::Agent { uid, .. } => labels::agent_name(uid),
            Self::Epoch { .. } => labels::EPOCH_JOURNAL.to_owned(),
            Self::Artifacts { digest } => labels::artifacts_name(&digest.to_lowercase()),
            Self::Ledger { shard, .. } => format!("{}-{shard}", labels::SESSION_NAMES),
        }
    }

    /// The value of the record label.
    fn kind(&self) -> &'static str {
        match self {
            Self::Plan { .. } => labels::RECORD_PLAN,
            Self::Journal { .. } | Self::Epoch { .. } => labels::RECORD_JOURNAL,
            Self::Agent { .. } => labels::RECORD_AGENT,
            Self::Artifacts { .. } => labels::RECORD_ARTIFACTS,
            Self::Ledger { .. } => labels::RECORD_SESSION_NAMES,
        }
    }

    fn is_immutable(&self) -> bool {
        matches!(self, Self::Plan { .. } | Self::Artifacts { .. })
    }

    /// Whom the record is about, for messages.
    pub(super) fn of(&self) -> String {
        match self {
            Self::Plan { key, uid, .. } => format!("Session {key} (uid {uid})"),
            Self::Journal { uid, .. } | Self::Agent { uid, .. } => format!("Session uid {uid}"),
            Self::Epoch { .. } => "the leader".to_owned(),
            Self::Artifacts { digest } => format!("artifact set {digest}"),
            Self::Ledger { shard, .. } => format!("ledger {shard}"),
        }
    }

    fn epoch(&self) -> Option<i64> {
        match self {
            Self::Journal { epoch, .. } | Self::Agent { epoch, .. } | Self::Epoch { epoch } | Self::Ledger { epoch, .. } => Some(*epoch),
            Self::Plan { .. } | Self::Artifacts { .. } => None,
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut put = |name: &str, value: &str| all.insert(name.to_owned(), value.to_owned());
        put(labels::PART_OF, labels::PART_OF_VALUE);
        put(labels::MANAGED_BY, labels::MANAGER_OPERATOR);
        put(labels::RECORD, self.kind());
        match self {
            Self::Plan { uid, index, .. } => {
                put(labels::SESSION_UID, uid);
                put(labels::PLAN, &index.to_string());
            }
            Self::Journal { uid, .. } => {
                put(labels::SESSION_UID, uid);
                put(labels::JOURNAL, labels::RECORD_JOURNAL);
            }
            Self::Agent { uid, .. } => {
                put(labels::SESSION_UID, uid);
            }
            Self::Artifacts { digest } => {
                put(labels::ARTIFACTS, labels::digest_label(digest));
            }
            Self::Epoch { .. } | Self::Ledger { .. } => {}
        }
        all
    }

    /// What stands beside the content, for a person and for reading back.
    fn fields(&self) -> BTreeMap<String, String> {
        let mut data = BTreeMap::new();
        match self {
            Self::Plan { key, index, chunks, .. } => {
                data.insert(SESSION.to_owned(), key.to_string());
                data.insert(CHUNK.to_owned(), index.to_string());
                data.insert(CHUNKS.to_owned(), chunks.to_string());
            }
            Self::Journal { key: Some(key), .. } => {
                data.insert(SESSION.to_owned(), key.to_string());
            }
            Self::Artifacts { digest } => {
                data.insert(DIGEST.to_owned(), (*digest).to_owned());
            }
            Self::Journal { key: None, .. } | Self::Agent { .. } | Self::Epoch { .. } | Self::Ledger { .. } => {}
        }
        data
    }

    pub(super) fn to_object(self, content: &[u8]) -> ConfigMap {
        let mut object = ConfigMap {
            metadata: ObjectMeta { name: Some(self.name()), labels: Some(self.labels()), ..ObjectMeta::default() },
            data: Some(self.fields()),
            immutable: self.is_immutable().then_some(true),
            ..ConfigMap::default()
        };
        if let Some(epoch) = self.epoch() {
            set_epoch(&mut object, epoch);
        }
        put_content(&mut object, content);
        object
    }
}

/// Text stays readable with kubectl; anything else goes into binaryData.
fn put_content(object: &mut ConfigMap, content: &[u8]) {
    match std::str::from_utf8(content) {
        Ok(text) => {
            object.data.get_or_insert_default().insert(CONTENT.to_owned(), text.to_owned());
        }
        Err(_) => {
            object.binary_data = Some(BTreeMap::from([(CONTENT.to_owned(), ByteString(content.to_vec()))]));
        }
    }
}

/// The content of a record; none when it is no record of ours.
pub(super) fn content(object: &ConfigMap) -> Option<&[u8]> {
    if let Some(text) = object.data.as_ref().and_then(|data| data.get(CONTENT)) {
        return Some(text.as_bytes());
    }
    object.binary_data.as_ref()?.get(CONTENT).map(|bytes| bytes.0.as_slice())
}

fn field<'a>(object: &'a ConfigMap, name: &str) -> Option<&'a str> {
    object.data.as_ref()?.get(name).map(String::as_str)
}

/// The epoch of the leader that wrote the record; 0 where it carries none.
pub(super) fn epoch(object: &ConfigMap) -> i64 {
    let annotation = object.metadata.annotations.as_ref().and_then(|all| all.get(labels::EPOCH));
    annotation.and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
}

/// Writes an epoch into a record.
pub(super) fn set_epoch(object: &mut ConfigMap, epoch: i64) {
    object.metadata.annotations.get_or_insert_default().insert(labels::EPOCH.to_owned(), epoch.to_string());
}

/// Says in a record who writes it.
pub(super) fn set_writer(object: &mut ConfigMap, writer: &str) {
    object.metadata.labels.get_or_insert_default().insert(labels::MANAGED_BY.to_owned(), writer.to_owned());
}

pub(super) fn session_key(object: &ConfigMap) -> Option<SessionKey> {
    field(object, SESSION).and_then(SessionKey::parse)
}

pub(super) fn digest(object: &ConfigMap) -> Option<&str> {
    field(object, DIGEST)
}

/// Which chunk of how many a part of a plan is.
pub(super) fn chunk(object: &ConfigMap) -> Option<(usize, usize)> {
    Some((field(object, CHUNK)?.parse().ok()?, field(object, CHUNKS)?.parse().ok()?))
}

pub(super) fn label<'a>(object: &'a ConfigMap, label: &str) -> Option<&'a str> {
    object.metadata.labels.as_ref()?.get(label).map(String::as_str)
}

pub(super) fn name(object: &ConfigMap) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn version(object: &ConfigMap) -> String {
    object.metadata.resource_version.clone().unwrap_or_default()
}

pub(super) fn check_size(name: &str, content: &[u8]) -> Result<(), RecordError> {
    if content.len() > MAX_RECORD_BYTES {
        return Err(RecordError::TooLarge { name: name.to_owned(), bytes: content.len() });
    }
    Ok(())
}

/// Cuts a plan into parts that fit, never inside a character, so that each stays readable. An empty plan
/// is one empty part.
pub(super) fn split(content: &[u8]) -> Vec<&[u8]> {
    split_at(content, CHUNK_BYTES)
}

fn split_at(mut content: &[u8], limit: usize) -> Vec<&[u8]> {
    let is_text = std::str::from_utf8(content).is_ok();
    let mut parts = Vec::new();
    while content.len() > limit {
        let mut end = limit;
        while is_text && end > 1 && content[end] & 0xC0 == 0x80 {
            end -= 1;
        }
        let (part, rest) = content.split_at(end);
        parts.push(part);
        content = rest;
    }
    parts.push(content);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_join_to_the_whole_and_text_is_never_cut_inside_a_character() {
        let text = "añb€c".repeat(7);
        for limit in 4..12 {
            let parts = split_at(text.as_bytes(), limit);
            assert_eq!(parts.concat(), text.as_bytes());
            assert!(parts.iter().all(|part| part.len() <= limit && std::str::from_utf8(part).is_ok()));
        }
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(split_at(&bytes, 100).iter().map(|part| part.len()).collect::<Vec<_>>(), [100, 100, 56]);
        assert_eq!(split_at(&[], 100), [&[] as &[u8]]);
    }

    #[test]
    fn what_is_put_is_read() {
        let key = SessionKey::new("bos", "boot-1");
        for bytes in [&b"{\"a\":1}"[..], &[0xFF, 0x00, 0x80], b""] {
            let plan = Record::Plan { uid: "u-1", key: &key, index: 2, chunks: 3 }.to_object(bytes);
            assert_eq!(content(&plan), Some(bytes));
            assert_eq!(chunk(&plan), Some((2, 3)));
            assert_eq!(session_key(&plan), Some(key.clone()));
            assert_eq!(name(&plan), "bos-plan-u-1-2");
            assert_eq!(plan.immutable, Some(true));
        }
        let mut journal = Record::Journal { uid: "u-1", key: None, epoch: 7 }.to_object(b"x");
        assert_eq!((epoch(&journal), journal.immutable), (7, None));
        set_epoch(&mut journal, 8);
        assert_eq!((epoch(&journal), content(&journal)), (8, Some(&b"x"[..])));
    }

    #[test]
    fn a_digest_becomes_a_name() {
        let record = Record::Artifacts { digest: "sha256:0Fab" };
        assert_eq!(record.name(), "bos-artifacts-0fab");
        assert_eq!(digest(&record.to_object(b"")), Some("sha256:0Fab"));
    }
}
