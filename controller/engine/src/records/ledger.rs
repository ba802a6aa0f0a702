//! The names of Sessions that have run. A name runs once in its namespace, also when its Session has
//! been deleted and is created again, from a backup or by a GitOps tool.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::{RecordError, SessionKey};

/// Shards keep one write small; a name's shard never changes.
pub(super) const SHARDS: usize = 8;
/// Entries a shard keeps; the oldest go first.
const SHARD_ENTRIES: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: SessionKey,
    uid: String,
    created_at: String,
}

/// The ledger in memory.
#[derive(Default)]
pub(super) struct Ledger {
    shards: [Shard; SHARDS],
}

#[derive(Default)]
struct Shard {
    entries: Mutex<Arc<VecDeque<Entry>>>,
    /// Held from preparing a change until it is durable, so that no change is lost to another.
    writing: tokio::sync::Mutex<()>,
}

/// A change that becomes visible when it was written.
pub(super) struct Change<'a> {
    shard: usize,
    entries: VecDeque<Entry>,
    target: &'a Shard,
    _writing: tokio::sync::MutexGuard<'a, ()>,
}

impl Ledger {
    /// The change that remembers a Session; none when it is remembered already.
    pub(super) async fn prepare(&self, key: &SessionKey, uid: &str, created_at: &str) -> Result<Option<Change<'_>>, RecordError> {
        let number = shard_of(key);
        let target = &self.shards[number];
        let writing = target.writing.lock().await;
        match self.ran(key) {
            Some(ran) if ran == uid => return Ok(None),
            Some(uid) => return Err(RecordError::AlreadyRan { key: key.clone(), uid }),
            None => {}
        }
        let mut entries = (*target.current()).clone();
        while entries.len() >= SHARD_ENTRIES {
            entries.pop_front();
        }
        entries.push_back(Entry { key: key.clone(), uid: uid.to_owned(), created_at: created_at.to_owned() });
        Ok(Some(Change { shard: number, entries, target, _writing: writing }))
    }

    pub(super) fn ran(&self, key: &SessionKey) -> Option<String> {
        let entries = self.shards[shard_of(key)].current();
        entries.iter().rev().find(|entry| entry.key == *key).map(|entry| entry.uid.clone())
    }

    /// Takes a stored shard in. Lines that cannot be read are left out and counted.
    pub(super) fn load(&self, shard: usize, content: &[u8]) -> usize {
        let Some(target) = self.shards.get(shard) else { return 0 };
        let text = String::from_utf8_lossy(content);
        let parsed: Vec<Option<Entry>> = text.lines().filter(|line| !line.is_empty()).map(parse).collect();
        let unreadable = parsed.iter().filter(|entry| entry.is_none()).count();
        target.set(parsed.into_iter().flatten().collect());
        unreadable
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.current().len()).sum()
    }
}

impl Shard {
    fn current(&self) -> Arc<VecDeque<Entry>> {
        Arc::clone(&self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, entries: VecDeque<Entry>) {
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(entries);
    }
}

impl Change<'_> {
    pub(super) fn shard(&self) -> usize {
        self.shard
    }

    pub(super) fn content(&self) -> Vec<u8> {
        let mut text = String::new();
        for Entry { key, uid, created_at } in &self.entries {
            let _ = writeln!(text, "{created_at} {uid} {key}");
        }
        text.into_bytes()
    }

    pub(super) fn commit(self) {
        self.target.set(self.entries);
    }
}

/// The names that a stored shard remembers, each with the uid of the Session that ran; lines that cannot be read are left out.
pub(super) fn names(content: &[u8]) -> Vec<(SessionKey, String)> {
    let text = String::from_utf8_lossy(content);
    text.lines().filter_map(parse).map(|entry| (entry.key, entry.uid)).collect()
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let (created_at, uid, key) = (words.next()?, words.next()?, words.next()?);
    Some(Entry { key: SessionKey::parse(key)?, uid: uid.to_owned(), created_at: created_at.to_owned() })
}

/// FNV-1a: the same in every build and on every machine, which std's hashers do not promise.
fn shard_of(key: &SessionKey) -> usize {
    let hash =
        key.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    usize::try_from(hash % SHARDS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn remember(ledger: &Ledger, name: &str, uid: &str) -> Option<(usize, Vec<u8>)> {
        let key = SessionKey::new("bos", name);
        let change = ledger.prepare(&key, uid, "2026-11-23T14:00:00Z").await.unwrap()?;
        let stored = (change.shard(), change.content());
        change.commit();
        Some(stored)
    }

    #[tokio::test]
    async fn a_name_is_remembered_across_a_load_and_refused_to_another_uid() {
        let ledger = Ledger::default();
        let (shard, stored) = remember(&ledger, "boot-1", "u-1").await.unwrap();
        assert_eq!(remember(&ledger, "boot-1", "u-1").await, None);
        let again = Ledger::default();
        assert_eq!(again.load(shard, &stored), 0);
        let key = SessionKey::new("bos", "boot-1");
        assert_eq!(again.ran(&key).as_deref(), Some("u-1"));
        let refused = again.prepare(&key, "u-2", "t").await.err();
        assert_eq!(refused, Some(RecordError::AlreadyRan { key, uid: "u-1".to_owned() }));
        assert_eq!(again.ran(&SessionKey::new("other", "boot-1")), None);
    }

    #[tokio::test]
    async fn the_oldest_names_go_when_a_shard_is_full() {
        let ledger = Ledger::default();
        for n in 0..SHARDS * SHARD_ENTRIES * 2 {
            remember(&ledger, &format!("boot-{n}"), &format!("u-{n}")).await.unwrap();
        }
        assert_eq!(ledger.len(), SHARDS * SHARD_ENTRIES);
        assert_eq!(ledger.ran(&SessionKey::new("bos", "boot-0")), None);
        let newest = SHARDS * SHARD_ENTRIES * 2 - 1;
        assert_eq!(ledger.ran(&SessionKey::new("bos", format!("boot-{newest}"))), Some(format!("u-{newest}")));
    }

    #[test]
    fn a_names_shard_never_changes() {
        assert_eq!(shard_of(&SessionKey::new("bos", "boot-1")), 2);
        assert_eq!(shard_of(&SessionKey::new("bos", "boot-x1000-1123a")), 1);
    }

    #[test]
    fn unreadable_lines_are_counted_and_the_rest_kept() {
        let ledger = Ledger::default();
        let key = SessionKey::new("bos", "boot-1");
        assert_eq!(ledger.load(shard_of(&key), b"t u-1 bos/boot-1\ngarbage\n"), 1);
        assert_eq!(ledger.ran(&key).as_deref(), Some("u-1"));
    }
}
