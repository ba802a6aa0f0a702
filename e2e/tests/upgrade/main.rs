//! From an older release to this one and back, with Sessions under way: nothing is lost, and no node gets a command twice.
//!
//! `hack/upgrade.sh` builds the older release and runs this; without it there is nothing to upgrade from, and the test is ignored.
//! `BOS_CASE=text` runs only the cases with this in their name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../boot/bench.rs"]
mod bench;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bench::{Bench, Cases, Commands, LIMIT, Mark, Result, outcome};
use bos_crds::labels;
use bos_e2e::rig::{NAMESPACE, Profile, Rig, RigConfig, operator_binary, template};
use bos_e2e::site::InitialState;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

/// The operator of the older release.
const OPERATOR: &str = "BOS_OLD_OPERATOR_BIN";
/// Its manifests.
const MANIFESTS: &str = "BOS_OLD_MANIFESTS";
const NODES: usize = 6;
/// What it says when it finds a record that it cannot read.
const UNREADABLE: &str = "Delete the Session's two ConfigMaps to give it up";

/// A release: its program and its manifests.
#[derive(Clone)]
struct Release {
    program: PathBuf,
    manifests: PathBuf,
}

/// How an operator ends.
#[derive(Clone, Copy)]
enum End {
    Told,
    Killed,
}

/// Where a Session is when that happens.
#[derive(Clone, Copy)]
enum Moment {
    GoingOff,
    ComingUp,
}

struct Upgrade {
    bench: Bench,
    old: Release,
    new: Release,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "hack/upgrade.sh builds what it needs"]
async fn sessions_live_through_an_upgrade_and_the_way_back() -> Result {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set; see hack/upgrade.sh"));
    let old = Release { program: path(OPERATOR)?, manifests: path(MANIFESTS)? };
    let new = Release { program: operator_binary(Profile::Dev).await?, manifests: Rig::manifests() };
    let mut config = RigConfig::with_nodes(NODES).boot_time(Duration::from_secs(2)).unsupervised();
    config.site.settings.off_delay = Duration::from_millis(1500);
    config.site.settings.boot_spread = Duration::from_secs(1);
    config.site.settings.report_backoff_scale = 0.05;
    config.manifests = Some(old.manifests.clone());
    config.operator_binary = Some(old.program.clone());
    let it = Upgrade { bench: Bench::start(config).await?, old, new };
    let mut cases = Cases::default();
    cases.run("up, told to end, nodes go off", it.up("off-told", Moment::GoingOff, End::Told)).await;
    cases.run("up, killed, nodes go off", it.up("off-killed", Moment::GoingOff, End::Killed)).await;
    cases.run("up, told to end, nodes come up", it.up("on-told", Moment::ComingUp, End::Told)).await;
    cases.run("up, killed, nodes come up", it.up("on-killed", Moment::ComingUp, End::Killed)).await;
    cases.run("up, with what a Session has inherited", it.inherited()).await;
    cases.run("back, told to end, nodes go off", it.back("back-off", Moment::GoingOff, End::Told, false)).await;
    cases.run("back, killed, nodes come up", it.back("back-on", Moment::ComingUp, End::Killed, false)).await;
    cases.run("back to the older kinds", it.back("back-kinds", Moment::ComingUp, End::Told, true)).await;
    cases.run("back, with what cannot be read", it.back_unreadable()).await;
    it.bench.rig.stop().await;
    cases.verdict()
}

impl Upgrade {
    fn nodes(&self) -> Vec<String> {
        self.bench.nodes(0..NODES)
    }

    /// This release runs, with its own manifests, whatever was before.
    async fn begin(&self, release: &Release) -> Result {
        let operator = self.bench.rig.operator();
        operator.stop().await;
        self.bench.rig.apply_release(&release.manifests).await?;
        operator.set_program(&release.program);
        self.bench.rig.start_operator().await
    }

    /// A Reboot of nodes that are up, at that moment.
    async fn reboot(&self, name: &str, moment: Moment) -> Result<Mark> {
        let nodes = self.nodes();
        self.bench.site.set_state(&["all"], &InitialState::Off);
        self.bench.template(name, &nodes, |_| {}).await?;
        let first = format!("{name}-first");
        let booted = self.bench.boot(&first, name).await?;
        assert_eq!(outcome(&booted), "Succeeded/Succeeded", "{:?}", booted.status);
        let mark = self.bench.mark();
        self.bench.rig.apply(&template::session(name, name, "Reboot")).await?;
        let come = |got: Commands| match moment {
            Moment::GoingOff => got.soft_off == 1 && got.on == 0,
            Moment::ComingUp => got.on == 1,
        };
        let seen = format!("{name} is under way");
        self.bench.at_site(&seen, |_| nodes.iter().any(|node| come(self.bench.commands(&mark, node)))).await?;
        Ok(mark)
    }

    /// The operator ends in this way and that of another release begins.
    async fn replace(&self, end: End, release: &Release) -> Result {
        let operator = self.bench.rig.operator();
        match end {
            End::Told => operator.stop().await,
            End::Killed => operator.process().context("it runs")?.kill(),
        }
        operator.set_program(&release.program);
        self.bench.rig.start_operator().await
    }

    async fn ended_well(&self, name: &str, mark: &Mark, commands: Commands) -> Result {
        let ended = self.bench.ended(name).await?;
        assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{:?}", ended.status);
        self.bench.assert_commands(mark, &self.nodes(), commands);
        Ok(())
    }

    /// One release goes on with what another has begun; `kinds_too`: with manifests of its own.
    async fn handed_on(&self, name: &str, at: (Moment, End), (from, to): (&Release, &Release), kinds_too: bool) -> Result {
        let (moment, end) = at;
        self.begin(from).await?;
        let mark = self.reboot(name, moment).await?;
        if kinds_too {
            self.bench.rig.apply_release(&to.manifests).await?;
        }
        self.replace(end, to).await?;
        self.ended_well(name, &mark, Commands::ONE_CYCLE).await?;
        let nodes = self.nodes();
        self.bench.at_site("the reports are answered 200", |site| site.all_acknowledged(&nodes)).await
    }

    async fn up(&self, name: &str, moment: Moment, end: End) -> Result {
        self.handed_on(name, (moment, end), (&self.old, &self.new), true).await
    }

    /// A newer Session has taken the nodes from an older one, whose boot parameters they may still come up with.
    async fn inherited(&self) -> Result {
        self.begin(&self.old).await?;
        let mark = self.taken_over("heir").await?;
        self.bench.rig.apply_release(&self.new.manifests).await?;
        self.replace(End::Killed, &self.new).await?;
        self.ended_well("heir", &mark, Commands::ONE_ON).await
    }

    /// Two Boots, the second while the nodes of the first come up.
    async fn taken_over(&self, name: &str) -> Result<Mark> {
        let nodes = self.nodes();
        self.bench.site.set_state(&["all"], &InitialState::Off);
        self.bench.template(name, &nodes, |_| {}).await?;
        let mark = self.bench.mark();
        self.bench.rig.apply(&template::session(&format!("{name}-first"), name, "Boot")).await?;
        self.bench.at_site("nodes have power", |site| site.nodes().iter().all(|node| node.power)).await?;
        self.bench.rig.apply(&template::session(name, name, "Boot")).await?;
        // It is in the record of the newer one that it knows the token of the older one.
        let written = async {
            while !self.journal(name).await?.is_some_and(|text| text.contains("\"inherited\":[")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Result::Ok(())
        };
        tokio::time::timeout(LIMIT, written).await.context("nothing is inherited")??;
        Ok(mark)
    }

    /// The journal of a Session as text.
    async fn journal(&self, name: &str) -> Result<Option<String>> {
        let session = self.bench.rig.session(name).await?.context("the Session is there")?;
        let maps: Api<ConfigMap> = Api::namespaced(self.bench.rig.client(), NAMESPACE);
        let found = maps.get_opt(&labels::journal_name(&session.metadata.uid.unwrap())).await?;
        Ok(found.map(|map| map.data.unwrap_or_default().into_values().collect()))
    }

    /// The older one goes on with what the newer one has begun.
    async fn back(&self, name: &str, moment: Moment, end: End, kinds_too: bool) -> Result {
        self.handed_on(name, (moment, end), (&self.new, &self.old), kinds_too).await
    }

    /// What the older one cannot read it says, and touches no node until the newer one is back.
    async fn back_unreadable(&self) -> Result {
        self.begin(&self.new).await?;
        let mark = self.taken_over("held").await?;
        let operator = self.bench.rig.operator();
        operator.process().context("it runs")?.kill();
        operator.set_program(&self.old.program);
        operator.start()?;
        let said = async {
            while !operator.log_tail(50).contains(UNREADABLE) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, said).await.with_context(|| format!("it does not say so: {}", operator.log_tail(20)))?;
        self.bench.assert_commands(&mark, &self.nodes(), Commands::ONE_ON);
        self.replace(End::Told, &self.new).await?;
        self.ended_well("held", &mark, Commands::ONE_ON).await
    }
}
