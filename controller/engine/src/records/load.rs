//! Reading everything back when a leader begins.

use std::collections::BTreeMap;

use bos_crds::labels;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::content::{self, Record};
use super::store::Store;
use super::{RecordError, Records, SessionKey};

/// How many records are taken over at once.
const IN_FLIGHT: usize = 8;

/// A Session's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The Session's uid.
    pub uid: String,
    /// Its namespace and name.
    pub key: SessionKey,
    /// Its plan, whole.
    pub plan: Vec<u8>,
    /// Its journal.
    pub journal: JournalBytes,
    /// The uid of the Job it was given to: the journal is that agent's, and was only read. Empty: it was taken back.
    pub agent: Option<String>,
}

/// A Session's journal, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalBytes {
    /// Made before the plan and not written since.
    Empty,
    /// What was written last.
    Written(Vec<u8>),
    /// Not there, although it is made before the plan: the removal of the records was cut short, or somebody deleted it.
    Lost,
}

/// Everything that was stored, after it was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Sessions with a whole plan, by uid.
    pub sessions: Vec<StoredSession>,
    /// Artifact sets: digest and content.
    pub artifacts: Vec<(String, Vec<u8>)>,
    /// Uids of Sessions whose plan had missing parts and whose journal is empty. It counts as never written and was removed: no
    /// effect can have left.
    pub incomplete: Vec<String>,
    /// Uids of Sessions that have a journal and no plan. Somebody removed the plan; nothing can be
    /// followed. [`Records::remove_session`] removes the journal.
    pub orphans: Vec<String>,
    /// How many Session names the ledger remembers.
    pub remembered: usize,
}

/// What the list holds, sorted by kind.
#[derive(Default)]
struct Listed {
    plans: BTreeMap<String, Vec<ConfigMap>>,
    journals: BTreeMap<String, ConfigMap>,
    agents: BTreeMap<String, ConfigMap>,
    epoch: Option<ConfigMap>,
    artifacts: Vec<ConfigMap>,
    ledger: Vec<ConfigMap>,
}

/// The highest epoch any record carries; 0 when there is none. For
/// [`crate::lease::Elector::raise_floor`], before a leadership exists.
///
/// # Errors
/// [`RecordError::Cancelled`] when `cancel` comes first.
pub async fn highest_epoch(client: Client, namespace: &str, cancel: CancellationToken) -> Result<i64, RecordError> {
    let store = Store::new(client, namespace, cancel);
    let objects = store.list(&format!("{} in ({},{})", labels::RECORD, labels::RECORD_JOURNAL, labels::RECORD_SESSION_NAMES)).await?;
    Ok(objects.iter().map(content::epoch).max().unwrap_or(0))
}

pub(super) async fn load_all(records: &Records) -> Result<Loaded, RecordError> {
    let listed = sort(records.store.list(labels::RECORD).await?);
    let mut loaded = Loaded::default();
    load_ledger(records, listed.ledger).await?;
    loaded.remembered = records.ledger.len();
    keep_epoch(records, listed.epoch).await?;
    loaded.artifacts = artifacts(&listed.artifacts);
    let agents = claim_agents(records, listed.agents).await?;
    let (theirs, ours) = listed.journals.into_iter().partition(|(uid, _)| agents.get(uid).is_some_and(|job| !job.is_empty()));
    let mut journals = claim_journals(records, ours).await?;
    let theirs: BTreeMap<String, ConfigMap> = theirs;
    journals.extend(theirs.into_iter().map(|(uid, object)| (uid, written_content(&object))));
    load_sessions(records, listed.plans, journals, &agents, &mut loaded).await?;
    Ok(loaded)
}

fn sort(objects: Vec<ConfigMap>) -> Listed {
    let mut listed = Listed::default();
    for object in objects {
        let uid = content::label(&object, labels::SESSION_UID).map(str::to_owned);
        match (content::label(&object, labels::RECORD).unwrap_or_default(), uid) {
            (labels::RECORD_PLAN, Some(uid)) => listed.plans.entry(uid).or_default().push(object),
            (labels::RECORD_JOURNAL, Some(uid)) => {
                listed.journals.insert(uid, object);
            }
            (labels::RECORD_AGENT, Some(uid)) => {
                listed.agents.insert(uid, object);
            }
            (labels::RECORD_JOURNAL, None) => listed.epoch = Some(object),
            (labels::RECORD_ARTIFACTS, _) => listed.artifacts.push(object),
            (labels::RECORD_SESSION_NAMES, _) => listed.ledger.push(object),
            (kind, _) => tracing::warn!(record = content::name(&object), kind, "not a record of ours; left alone"),
        }
    }
    listed
}

async fn load_ledger(records: &Records, shards: Vec<ConfigMap>) -> Result<(), RecordError> {
    for object in shards {
        let Some(object) = records.claim(object).await? else { continue };
        let shard = content::name(&object).rsplit('-').next().and_then(|shard| shard.parse().ok());
        let unreadable = match (shard, content::content(&object)) {
            (Some(shard), Some(bytes)) => records.ledger.load(shard, bytes),
            _ => 0,
        };
        if unreadable > 0 {
            tracing::error!(record = content::name(&object), unreadable, "lines of the ledger cannot be read");
        }
    }
    Ok(())
}

/// A record of the leader's epoch exists under every leader: if the lease is deleted while there is no Session, it alone tells the next
/// leader that there was an earlier one.
async fn keep_epoch(records: &Records, found: Option<ConfigMap>) -> Result<(), RecordError> {
    let claimed = match found {
        Some(object) => records.claim(object).await?,
        None => None,
    };
    match claimed {
        Some(_) => Ok(()),
        None => records.write_fenced(&Record::Epoch { epoch: records.epoch() }, &[]).await,
    }
}

/// An empty journal is one that was created only to keep an earlier leader out.
fn written_content(object: &ConfigMap) -> Option<Vec<u8>> {
    content::content(object).filter(|bytes| !bytes.is_empty()).map(<[u8]>::to_vec)
}

/// Artifact sets with their digests.
fn artifacts(objects: &[ConfigMap]) -> Vec<(String, Vec<u8>)> {
    objects.iter().filter_map(|object| Some((content::digest(object)?.to_owned(), content::content(object)?.to_vec()))).collect()
}

/// Sessions that were given to an agent, each with the uid of its Job.
async fn claim_agents(records: &Records, agents: BTreeMap<String, ConfigMap>) -> Result<BTreeMap<String, String>, RecordError> {
    let mut given = BTreeMap::new();
    for (uid, object) in agents {
        let Some(object) = records.claim(object).await? else { continue };
        let job = content::content(&object).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        given.insert(uid, job.unwrap_or_default());
    }
    Ok(given)
}

/// The journal that a ConfigMap of an agent holds, with the uid of its Session.
#[must_use]
pub fn journal_bytes(object: &ConfigMap) -> Option<(&str, &[u8])> {
    Some((content::label(object, labels::SESSION_UID)?, content::content(object).filter(|bytes| !bytes.is_empty())?))
}

/// The epoch of the journal of one Session; 0 where there is none. An agent's own must be above it.
///
/// # Errors
/// [`RecordError::Cancelled`] when `cancel` comes first.
pub async fn journal_epoch(client: Client, namespace: &str, uid: &str, cancel: CancellationToken) -> Result<i64, RecordError> {
    let store = Store::new(client, namespace, cancel);
    Ok(store.get(&labels::journal_name(uid)).await?.as_ref().map_or(0, content::epoch))
}

fn found_journal(object: Option<&ConfigMap>) -> JournalBytes {
    match object.map(written_content) {
        None => JournalBytes::Lost,
        Some(None) => JournalBytes::Empty,
        Some(Some(bytes)) => JournalBytes::Written(bytes),
    }
}

pub(super) async fn take_back(records: &Records, uid: &str) -> Result<JournalBytes, RecordError> {
    let claimed = match records.store.get(&labels::journal_name(uid)).await? {
        Some(object) => records.claim_over(object, true).await?,
        None => None,
    };
    Ok(found_journal(claimed.as_ref()))
}

/// None when the Session is not (any more) given to this Job: a pod that comes late must not close the journal to the operator.
pub(super) async fn load_one(records: &Records, uid: &str, job: &str) -> Result<Option<Loaded>, RecordError> {
    let given = records.store.get(&labels::agent_name(uid)).await?;
    if given.as_ref().and_then(content::content).is_none_or(|given| given != job.as_bytes()) {
        return Ok(None);
    }
    let parts = records.store.list(&plan_selector(uid)).await?;
    let (Some((key, plan)), Some(journal)) = (join(parts), records.store.get(&labels::journal_name(uid)).await?) else { return Ok(None) };
    let claimed = records.claim(journal).await?;
    let sets = records.store.list(&format!("{}={}", labels::RECORD, labels::RECORD_ARTIFACTS)).await?;
    let mut loaded = Loaded { artifacts: artifacts(&sets), ..Loaded::default() };
    loaded.sessions.push(StoredSession { uid: uid.to_owned(), key, plan, journal: found_journal(claimed.as_ref()), agent: None });
    Ok(Some(loaded))
}

async fn claim_journals(
    records: &Records,
    journals: BTreeMap<String, ConfigMap>,
) -> Result<BTreeMap<String, Option<Vec<u8>>>, RecordError> {
    let claimed: Vec<Option<_>> = stream::iter(journals)
        .map(|(uid, object)| async move {
            let claimed = records.claim(object).await?;
            Ok::<_, RecordError>(claimed.map(|object| (uid, written_content(&object))))
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await?;
    Ok(claimed.into_iter().flatten().collect())
}

async fn load_sessions(
    records: &Records,
    plans: BTreeMap<String, Vec<ConfigMap>>,
    mut journals: BTreeMap<String, Option<Vec<u8>>>,
    agents: &BTreeMap<String, String>,
    loaded: &mut Loaded,
) -> Result<(), RecordError> {
    for (uid, parts) in plans {
        let Some((key, plan)) = join(parts) else {
            if matches!(journals.get(&uid), Some(Some(_))) {
                // It was whole once: somebody removed parts of it. Reported as an orphan below.
                tracing::error!(uid, "parts of the plan of a Session that has a journal are missing");
                continue;
            }
            tracing::warn!(uid, "removing a plan that was never completed");
            journals.remove(&uid);
            records.remove_session(&uid).await?;
            loaded.incomplete.push(uid);
            continue;
        };
        let journal = match journals.remove(&uid) {
            Some(Some(bytes)) => JournalBytes::Written(bytes),
            Some(None) => JournalBytes::Empty,
            None if agents.get(&uid).is_some_and(|job| !job.is_empty()) => JournalBytes::Lost,
            None => {
                // Closed to an earlier leader all the same.
                records.write_journal(&uid, &key, &[]).await?;
                JournalBytes::Lost
            }
        };
        let agent = agents.get(&uid).cloned();
        loaded.sessions.push(StoredSession { uid, key, plan, journal, agent });
    }
    for (uid, journal) in journals {
        match journal {
            Some(_) => loaded.orphans.push(uid),
            // Its plan was never written.
            None => records.remove_session(&uid).await?,
        }
    }
    Ok(())
}

/// Joins the parts of a plan; none when one is missing.
fn join(mut parts: Vec<ConfigMap>) -> Option<(SessionKey, Vec<u8>)> {
    parts.sort_by_key(content::chunk);
    let key = content::session_key(parts.first()?)?;
    let mut plan = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        if content::chunk(part)? != (index, parts.len()) {
            return None;
        }
        plan.extend_from_slice(content::content(part)?);
    }
    Some((key, plan))
}

fn plan_selector(uid: &str) -> String {
    format!("{}={},{}", labels::RECORD, labels::RECORD_PLAN, labels::session_selector(uid))
}

pub(super) async fn read_plan(store: &Store, uid: &str) -> Result<Option<Vec<u8>>, RecordError> {
    let parts = store.list(&plan_selector(uid)).await?;
    Ok(join(parts).map(|(_, plan)| plan))
}

/// Removes all parts of a plan, the first one first: without it the plan does not count as whole.
pub(super) async fn remove_plan(store: &Store, uid: &str) -> Result<(), RecordError> {
    let mut parts = store.list(&plan_selector(uid)).await?;
    parts.sort_by_key(content::chunk);
    for part in parts {
        store.delete(content::name(&part), None).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(index: usize, chunks: usize, bytes: &[u8]) -> ConfigMap {
        let key = SessionKey::new("bos", "boot-1");
        Record::Plan { uid: "u-1", key: &key, index, chunks }.to_object(bytes)
    }

    #[test]
    fn a_plan_is_whole_or_nothing() {
        let whole = vec![part(2, 3, b"c"), part(0, 3, b"a"), part(1, 3, b"b")];
        assert_eq!(join(whole).map(|(_, plan)| plan), Some(b"abc".to_vec()));
        assert_eq!(join(vec![part(0, 3, b"a"), part(2, 3, b"c")]), None);
        assert_eq!(join(vec![part(1, 3, b"b"), part(2, 3, b"c")]), None);
        assert_eq!(join(vec![part(0, 2, b"a"), part(1, 3, b"b")]), None);
        assert_eq!(join(Vec::new()), None);
    }
}
