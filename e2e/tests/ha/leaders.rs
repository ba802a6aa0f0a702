//! Which of the two operators leads, and what each has written.

use anyhow::Context as _;
use bos_crds::labels;
use bos_e2e::rig::{NAMESPACE, Rig, Standby};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::Value;

use crate::bench::Result;
use crate::until;

pub const FIRST: &str = "bos-operator-0";
pub const SECOND: &str = "bos-operator-1";
/// The program's exit code when it has lost the leadership.
const DEPOSED: i32 = 3;

pub struct Leaders<'a> {
    rig: &'a Rig,
    http: reqwest::Client,
}

impl<'a> Leaders<'a> {
    pub fn new(rig: &'a Rig) -> Self {
        Self { rig, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    fn second(&self) -> &Standby {
        self.rig.standby().unwrap()
    }

    pub async fn readiness(&self, of: &str) -> String {
        if of == FIRST { self.rig.readiness().await } else { self.second().readiness(&self.http).await }
    }

    pub async fn metrics_of_second(&self) -> Result<String> {
        self.second().metrics(&self.http).await
    }

    /// Waits until it leads and has read everything.
    pub async fn leads(&self, which: &str) -> Result {
        until(&format!("{which} leads"), async || self.readiness(which).await == "ok: leading\n").await
    }

    async fn lease(&self) -> Result<Lease> {
        Ok(Api::<Lease>::namespaced(self.rig.client(), NAMESPACE).get(labels::LEASE).await?)
    }

    /// How often the lease has changed hands.
    pub async fn transitions(&self) -> Result<i32> {
        self.lease().await?.spec.and_then(|spec| spec.lease_transitions).context("the lease has no epoch")
    }

    /// Starts the first anew, and makes it lead and the second stand by, whichever led before.
    pub async fn second_becomes_standby_of_first(&self) -> Result {
        self.rig.operator().start()?;
        until("the first stands by", async || self.readiness(FIRST).await == format!("ok: standing by; {SECOND} leads\n")).await?;
        self.second().operator().stop().await;
        self.leads(FIRST).await?;
        self.second().operator().start()?;
        until("the second stands by", async || self.readiness(SECOND).await == format!("ok: standing by; {FIRST} leads\n")).await
    }

    /// The first ends by itself, and says why by its exit code.
    pub async fn first_ends_deposed(&self) -> Result {
        let process = self.rig.operator().process().context("the first was started")?;
        let status = process.wait().await;
        anyhow::ensure!(status.code() == Some(DEPOSED), "it ended with {status}");
        Ok(())
    }

    /// From the newer's first journal write on, the older's are all refused.
    pub fn no_journal_of_the_older_after_the_newer(&self, older: &str, newer: &str) -> Result {
        let writes = self.journal_writes()?;
        let begun = writes.iter().rposition(|write| write.by == older && write.done);
        let taken = writes.iter().position(|write| write.by == newer && write.done && write.at >= self.newest_lease_of(newer));
        let (last, first) = (begun.map(|place| &writes[place]), taken.map(|place| &writes[place]));
        let first = first.with_context(|| format!("{newer} wrote no journal"))?;
        anyhow::ensure!(last.is_none_or(|last| last.at < first.at), "{older} wrote {last:?} after {first:?}");
        Ok(())
    }

    /// When this one took the lease last.
    fn newest_lease_of(&self, holder: &str) -> String {
        // The API server renews leases of its own.
        let is_ours = |entry: &Value| entry["objectRef"]["resource"] == "leases" && entry["objectRef"]["name"] == labels::LEASE;
        let taken = self.audit().unwrap_or_default().into_iter().filter(is_ours);
        let mut holders = taken.filter(|entry| entry["verb"] == "update" && entry["responseStatus"]["code"] == 200).map(|entry| {
            let by = if agent(&entry).contains(holder) { holder.to_owned() } else { String::new() };
            (by, time(&entry))
        });
        let mut newest = String::new();
        let mut before = holders.next().map_or_else(String::new, |(by, _)| by);
        for (by, at) in holders {
            if by == holder && before != holder {
                newest = at;
            }
            before = by;
        }
        newest
    }

    fn journal_writes(&self) -> Result<Vec<Write>> {
        let is_journal = |entry: &Value| {
            entry["objectRef"]["resource"] == "configmaps"
                && entry["objectRef"]["name"].as_str().is_some_and(|name| name.starts_with("bos-journal-"))
                && matches!(entry["verb"].as_str(), Some("create" | "update" | "patch"))
        };
        let writes = self.audit()?.into_iter().filter(is_journal).map(|entry| Write {
            by: if agent(&entry).contains(FIRST) { FIRST } else { SECOND },
            done: entry["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300),
            at: time(&entry),
        });
        let mut writes: Vec<Write> = writes.collect();
        writes.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(writes)
    }

    fn audit(&self) -> Result<Vec<Value>> {
        let log = self.rig.control_plane().audit_log().context("there is an audit log")?;
        let text = std::fs::read_to_string(log)?;
        // The last line may be half written.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

/// A write of a journal, as the API server answered it.
#[derive(Debug)]
struct Write {
    by: &'static str,
    done: bool,
    at: String,
}

fn agent(entry: &Value) -> &str {
    entry["userAgent"].as_str().unwrap_or_default()
}

/// When it was answered; these sort as text.
fn time(entry: &Value) -> String {
    entry["stageTimestamp"].as_str().unwrap_or_default().to_owned()
}
