//! Records that belong to one leader at a time: journals and the ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bos_crds::labels;
use k8s_openapi::api::core::v1::ConfigMap;

use super::content::{self, Record};
use super::store::{Pace, refused};
use super::{RecordError, Records};
use crate::clients::Verdict;

/// The last acknowledged resourceVersion of each record. A slot's lock is held during its write, so
/// that writes of one record never overtake each other.
#[derive(Default)]
pub(super) struct Slots {
    slots: Mutex<HashMap<String, Slot>>,
    /// Records that were taken from an agent, whose epochs count by themselves.
    raised: Mutex<HashMap<String, i64>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<String>>>;

impl Slots {
    fn slot(&self, name: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(name.to_owned()).or_default())
    }

    fn forget(&self, name: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// From now on a record is written with an epoch above this one.
    fn raise_above(&self, name: &str, epoch: i64) {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), epoch.saturating_add(1));
    }

    fn raised(&self, name: &str) -> Option<i64> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }
}

/// What a record turned out to be after a conflict.
enum Found {
    /// It holds exactly what we were writing: an earlier answer was lost.
    Ours(String),
    /// It is at this version (or not there), and ours to write.
    At(Option<String>),
}

impl Records {
    /// The epoch a record is written with.
    fn epoch_of(&self, name: &str) -> i64 {
        self.slots.raised(name).unwrap_or(self.epoch)
    }

    /// Writes a fenced record and returns when it is durable.
    pub(super) async fn write_fenced(&self, record: &Record<'_>, bytes: &[u8]) -> Result<(), RecordError> {
        let name = record.name();
        content::check_size(&name, bytes)?;
        let slot = self.slots.slot(&name);
        let mut version = slot.lock().await;
        let mut object = record.to_object(bytes);
        content::set_epoch(&mut object, self.epoch_of(&name));
        content::set_writer(&mut object, self.writer);
        let mut pace = Pace::default();
        loop {
            object.metadata.resource_version.clone_from(&version);
            let answer = match *version {
                Some(_) => self.store.replace(&object).await?,
                None if self.is_agent() => return Err(RecordError::Gone { name }),
                None => self.store.create(&object).await?,
            };
            let error = match answer {
                Ok(written) => {
                    *version = Some(content::version(&written));
                    return Ok(());
                }
                Err(error) => error,
            };
            match error.verdict() {
                Verdict::Conflict | Verdict::AlreadyExists | Verdict::NotFound => {}
                _ => return Err(refused(&name, &error)),
            }
            match self.look(&object, version.is_some()).await? {
                Found::Ours(now) => {
                    *version = Some(now);
                    return Ok(());
                }
                Found::At(now) => *version = now,
            }
            self.store.pause(&name, &mut pace, &error.message()).await?;
        }
    }

    /// An agent goes on with a journal that is there, and never makes one.
    fn is_agent(&self) -> bool {
        self.writer == labels::MANAGER_AGENT
    }

    /// Makes a fenced record, empty, unless this leader has written or taken it over already.
    pub(super) async fn open_fenced(&self, record: &Record<'_>) -> Result<(), RecordError> {
        let known = self.slots.slot(&record.name()).lock().await.is_some();
        if known { Ok(()) } else { self.write_fenced(record, &[]).await }
    }

    /// Reads a record after a conflict and decides whose it is.
    async fn look(&self, ours: &ConfigMap, known: bool) -> Result<Found, RecordError> {
        let name = content::name(ours).to_owned();
        let found = match self.store.get(&name).await? {
            Some(found) => found,
            None if self.is_agent() => return Err(RecordError::Gone { name }),
            None => return Ok(Found::At(None)),
        };
        let (epoch, own) = (content::epoch(&found), self.epoch_of(&name));
        if epoch > own {
            return Err(RecordError::Deposed { name, epoch });
        }
        if epoch == own {
            let version = content::version(&found);
            let same = content::content(&found) == content::content(ours);
            return Ok(if same { Found::Ours(version) } else { Found::At(Some(version)) });
        }
        if !known {
            return Err(RecordError::Foreign { name, epoch });
        }
        if self.is_agent() && content::label(&found, labels::MANAGED_BY) != Some(self.writer) {
            // It was deleted, and the operator has made it again since: the Session is not ours any more.
            return Err(RecordError::Deposed { name, epoch });
        }
        // We had taken it over and somebody put an old copy back. What we know is newer.
        tracing::warn!(record = name, epoch, "an old copy of the record was put back; writing ours over it");
        Ok(Found::At(Some(content::version(&found))))
    }

    /// Writes our epoch into a record that was listed, keeping its content. Returns it as it is then.
    pub(super) async fn claim(&self, object: ConfigMap) -> Result<Option<ConfigMap>, RecordError> {
        self.claim_over(object, false).await
    }

    /// The same, `whoever` has written it: for the journal of an agent that has lost its Lease.
    pub(super) async fn claim_over(&self, mut object: ConfigMap, whoever: bool) -> Result<Option<ConfigMap>, RecordError> {
        let name = content::name(&object).to_owned();
        let slot = self.slots.slot(&name);
        let mut version = slot.lock().await;
        let mut pace = Pace::default();
        loop {
            let epoch = content::epoch(&object);
            if whoever {
                self.slots.raise_above(&name, epoch.max(self.epoch));
            } else if epoch > self.epoch_of(&name) {
                return Err(RecordError::Deposed { name, epoch });
            }
            content::set_epoch(&mut object, self.epoch_of(&name));
            content::set_writer(&mut object, self.writer);
            // Ours alone to write; nothing that managedFields would tell.
            object.metadata.managed_fields = None;
            match self.store.replace(&object).await? {
                Ok(written) => {
                    *version = Some(content::version(&written));
                    return Ok(Some(written));
                }
                Err(error) => match error.verdict() {
                    Verdict::Conflict | Verdict::NotFound => {
                        self.store.pause(&name, &mut pace, &error.message()).await?;
                    }
                    _ => return Err(refused(&name, &error)),
                },
            }
            match self.store.get(&name).await? {
                Some(now) => object = now,
                None => {
                    drop(version);
                    self.slots.forget(&name);
                    return Ok(None);
                }
            }
        }
    }

    /// Removes a fenced record, unless a later leader owns it.
    pub(super) async fn remove_fenced(&self, record: &Record<'_>) -> Result<(), RecordError> {
        let name = record.name();
        let slot = self.slots.slot(&name);
        let mut version = slot.lock().await;
        let mut pace = Pace::default();
        loop {
            if version.is_none() {
                match self.store.get(&name).await? {
                    Some(found) if content::epoch(&found) > self.epoch_of(&name) => {
                        return Err(RecordError::Deposed { name, epoch: content::epoch(&found) });
                    }
                    Some(found) => *version = Some(content::version(&found)),
                    None => break,
                }
            }
            if self.store.delete(&name, version.take()).await? {
                break;
            }
            self.store.pause(&name, &mut pace, "its version is another by now").await?;
        }
        drop(version);
        self.slots.forget(&name);
        Ok(())
    }
}
