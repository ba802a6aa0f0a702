//! What tests and the admin listener can do with a running site.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::calls::{CallFilter, CallRecord};
use super::config::{ImageSpec, InitialState, Service, Settings};
use super::core::{Core, Event};
use super::faults::{Faults, OutageKind, OutageSpec};
use super::history::{PowerEvent, PowerRecord};
use super::hooks::{Hook, Match, When};
use super::listener::Door;
use super::outages::OutageView;
use super::world::{Group, World};
use super::{Urls, lock};

/// A node as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Name.
    pub xname: String,
    /// Node id.
    pub nid: u32,
    /// Whether it has power.
    pub power: bool,
    /// Whether its operating system is up.
    pub up: bool,
    /// Referral token on its command line.
    pub token: Option<String>,
    /// Kernel that it runs, as an `s3://` path.
    pub kernel: Option<String>,
    /// Kernel parameters that it runs with, as they stood in the boot script.
    pub params: Option<String>,
    /// Reports answered 200 so far.
    pub reports: u64,
    /// How often it lost power and got it back.
    pub power_cycles: usize,
    /// HSM's enabled flag.
    pub enabled: bool,
    /// Locked in HSM.
    pub locked: bool,
    /// Reserved by a transition.
    pub reserved: bool,
    /// Status that CFS computes.
    pub cfs_status: Option<String>,
    /// Configuration that CFS is to apply.
    pub cfs_desired: Option<String>,
    /// Whether CFS may work on it.
    pub cfs_enabled: bool,
    /// What is wrong with it.
    pub faults: Faults,
}

/// A handle on a running site.
#[derive(Clone, Debug)]
pub struct SiteHandle {
    pub(crate) core: Arc<Core>,
    urls: Arc<Urls>,
    doors: Arc<BTreeMap<Service, Door>>,
}

impl SiteHandle {
    pub(crate) fn new(core: Arc<Core>, urls: Urls, doors: BTreeMap<Service, Door>) -> Self {
        Self { core, urls: Arc::new(urls), doors: Arc::new(doors) }
    }

    fn world<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let result = act(&mut lock(&self.core.world));
        self.core.changed.notify_waiters();
        result
    }

    fn each<S: AsRef<str>>(&self, xnames: &[S], mut act: impl FnMut(&mut World, usize)) -> usize {
        self.world(|world| {
            let nodes = world.select(xnames);
            for at in &nodes {
                act(world, *at);
            }
            nodes.len()
        })
    }

    /// Base URLs and keys of all services.
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// The settings now in force.
    pub fn settings(&self) -> Settings {
        self.core.settings().as_ref().clone()
    }

    /// Changes settings; what is under way keeps its timers.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        let before = self.core.settings().sample_interval;
        self.core.change_settings(change);
        let after = self.core.settings().sample_interval;
        if before.is_zero() && !after.is_zero() {
            self.world(|world| world.timers.set(&self.core, after, Event::Sample));
        }
        if after.is_zero() {
            self.world(|world| world.nodes.iter_mut().for_each(|n| n.sampled = n.power));
        }
    }

    /// Tells the nodes where the operator takes reports.
    pub fn set_operator_url(&self, base: impl Into<String>) {
        let base = base.into();
        self.configure(|s| s.operator_url = Some(base));
        // Those who had nobody to report to need not wait for their next try.
        self.world(|world| {
            for at in 0..world.nodes.len() {
                if world.nodes[at].is_up() && world.nodes[at].history.unheard() {
                    world.begin_reports(&self.core, at, Duration::ZERO);
                }
            }
        });
    }

    /// Requests of clients, in order.
    pub fn calls(&self, filter: &CallFilter) -> Vec<CallRecord> {
        lock(&self.core.calls).select(filter)
    }

    /// Number of client requests by service.
    pub fn call_counts(&self) -> BTreeMap<Service, u64> {
        lock(&self.core.calls).counts()
    }

    /// Number of client requests by service and kind of call (`POST /v1/transitions`).
    pub fn call_counts_by_kind(&self) -> BTreeMap<Service, BTreeMap<String, u64>> {
        lock(&self.core.calls).counts_by_call()
    }

    /// Forgets the calls so far; sequence numbers go on.
    pub fn clear_calls(&self) {
        lock(&self.core.calls).clear();
    }

    /// Seconds since the site started, on the clock of call log and history.
    pub fn elapsed(&self) -> f64 {
        self.core.elapsed()
    }

    /// Holds the n-th matching request, see [`Hook`].
    pub fn on(&self, what: Match, when: When) -> Hook {
        lock(&self.core.hooks).add(what, when)
    }

    /// Begins an outage and returns its number.
    pub fn add_outage(&self, spec: OutageSpec) -> u64 {
        let refuse = (spec.kind == OutageKind::Refuse).then(|| self.doors.get(&spec.service).cloned()).flatten();
        let (after, lasts) = (spec.after, spec.lasts);
        let (id, cleared) = lock(&self.core.outages).add(spec, &self.core.stop);
        if let Some(door) = refuse {
            if after.is_zero() {
                door.shut();
            }
            let handle = self.clone();
            tokio::spawn(async move {
                let whole = async {
                    tokio::time::sleep(after).await;
                    door.shut();
                    match lasts {
                        Some(lasts) => tokio::time::sleep(lasts).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = whole => { handle.clear_outage(id); }
                    () = cleared.cancelled() => {}
                }
                door.open();
            });
        }
        id
    }

    /// Ends one outage; false when there is none of that number.
    pub fn clear_outage(&self, id: u64) -> bool {
        lock(&self.core.outages).clear(id)
    }

    /// Ends all outages.
    pub fn clear_outages(&self) {
        lock(&self.core.outages).clear_all();
    }

    /// The outages in force or still to come.
    pub fn outages(&self) -> Vec<OutageView> {
        lock(&self.core.outages).views()
    }

    /// Sets what is wrong with nodes (`all` = every node); returns how many there were.
    pub fn set_faults<S: AsRef<str>>(&self, xnames: &[S], faults: &Faults) -> usize {
        self.each(xnames, |world, at| world.set_faults(&self.core, at, faults.clone()))
    }

    /// Changes single faults of nodes and leaves the others.
    pub fn change_faults<S: AsRef<str>>(&self, xnames: &[S], change: impl Fn(&mut Faults)) -> usize {
        self.each(xnames, |world, at| {
            let mut faults = world.nodes[at].faults.clone();
            change(&mut faults);
            world.set_faults(&self.core, at, faults);
        })
    }

    /// All node names, in order.
    pub fn xnames(&self) -> Vec<String> {
        lock(&self.core.world).nodes.iter().map(|n| n.xname.clone()).collect()
    }

    /// All nodes.
    pub fn nodes(&self) -> Vec<NodeView> {
        let world = lock(&self.core.world);
        (0..world.nodes.len()).map(|at| self.view(&world, at)).collect()
    }

    /// One node.
    pub fn node(&self, xname: &str) -> Option<NodeView> {
        let world = lock(&self.core.world);
        world.index.get(xname).map(|at| self.view(&world, *at))
    }

    fn view(&self, world: &World, at: usize) -> NodeView {
        let node = &world.nodes[at];
        let cfs = world.cfs.components.get(&node.xname).filter(|_| !node.faults.missing_from_cfs);
        let retries = self.core.settings().cfs_retries;
        NodeView {
            xname: node.xname.clone(),
            nid: node.nid,
            power: node.power,
            up: node.is_up(),
            token: node.run.as_ref().and_then(|r| r.token.clone()),
            kernel: node.run.as_ref().map(|r| r.kernel.clone()),
            params: node.run.as_ref().map(|r| r.params.clone()),
            reports: node.history.acknowledged(),
            power_cycles: node.history.power_cycles(),
            enabled: node.enabled,
            locked: node.locked,
            reserved: node.reserved.is_some(),
            cfs_status: cfs.map(|c| world.cfs.status(c, retries).to_owned()),
            cfs_desired: cfs.map(|c| c.desired_config.clone()),
            cfs_enabled: cfs.is_some_and(|c| c.enabled),
            faults: node.faults.clone(),
        }
    }

    /// What happened to a node, in order.
    pub fn history(&self, xname: &str) -> Vec<PowerRecord> {
        lock(&self.core.world).node(xname).map(|n| n.history.records().to_vec()).unwrap_or_default()
    }

    /// The token of the last report of a node that was answered 200.
    pub fn acknowledged(&self, xname: &str) -> Option<String> {
        self.history(xname).into_iter().rev().find_map(|record| match record.event {
            PowerEvent::ReportAcknowledged { token } => Some(token),
            _ => None,
        })
    }

    /// Whether what these nodes run was reported and the report answered 200. An operator answers only after the status that
    /// tells of the report was written, so whoever saw that status may be here before the answer.
    pub fn all_acknowledged<S: AsRef<str>>(&self, xnames: &[S]) -> bool {
        xnames.iter().map(AsRef::as_ref).all(|xname| {
            let token = self.node(xname).and_then(|node| node.token);
            token.is_some() && token == self.acknowledged(xname)
        })
    }

    /// How often a node lost power and got it back.
    pub fn power_cycles(&self, xname: &str) -> usize {
        lock(&self.core.world).node(xname).map_or(0, |n| n.history.power_cycles())
    }

    /// How often a node lost power.
    pub fn power_offs(&self, xname: &str) -> usize {
        lock(&self.core.world).node(xname).map_or(0, |n| n.history.power_offs())
    }

    /// How often a node got power.
    pub fn power_ons(&self, xname: &str) -> usize {
        lock(&self.core.world).node(xname).map_or(0, |n| n.history.power_ons())
    }

    /// Nodes that lost power and got it back, with the number of times.
    pub fn cycled_nodes(&self) -> BTreeMap<String, usize> {
        let world = lock(&self.core.world);
        world.nodes.iter().map(|n| (n.xname.clone(), n.history.power_cycles())).filter(|(_, c)| *c > 0).collect()
    }

    /// Changes the power of nodes at once, behind everybody's back.
    pub fn power<S: AsRef<str>>(&self, xnames: &[S], on: bool) -> usize {
        self.each(xnames, |world, at| {
            let by = "out-of-band".to_owned();
            world.note(&self.core, at, if on { PowerEvent::OnRequested { by } } else { PowerEvent::ForceOffRequested { by } });
            // A command that has not taken effect yet must not undo this.
            world.nodes[at].command += 1;
            if world.nodes[at].power != on {
                world.set_power(&self.core, at, on);
            }
        })
    }

    /// Makes nodes that are up report now.
    pub fn report_now<S: AsRef<str>>(&self, xnames: &[S]) -> usize {
        self.each(xnames, |world, at| {
            world.begin_reports(&self.core, at, Duration::ZERO);
        })
    }

    /// Brings nodes into a state without any command: off, running an image, running something unknown.
    pub fn set_state<S: AsRef<str>>(&self, xnames: &[S], state: &InitialState) -> usize {
        self.each(xnames, |world, at| {
            if *state == InitialState::Off {
                let node = &mut world.nodes[at];
                node.power = false;
                node.sampled = false;
                node.run = None;
                node.boot += 1;
                node.chain += 1;
                node.state = "Off";
            } else {
                world.set_initial(&self.core, at, state);
            }
        })
    }

    /// Locks or unlocks nodes in HSM.
    pub fn set_locked<S: AsRef<str>>(&self, xnames: &[S], locked: bool) -> usize {
        self.each(xnames, |world, at| world.nodes[at].locked = locked)
    }

    /// Enables or disables nodes in HSM.
    pub fn set_enabled<S: AsRef<str>>(&self, xnames: &[S], enabled: bool) -> usize {
        self.each(xnames, |world, at| world.nodes[at].enabled = enabled)
    }

    /// Changes Role, SubRole and Arch of nodes in HSM.
    pub fn set_role<S: AsRef<str>>(&self, xnames: &[S], role: &str, sub_role: Option<&str>, arch: Option<&str>) -> usize {
        self.each(xnames, |world, at| {
            let node = &mut world.nodes[at];
            node.role = role.to_owned();
            node.sub_role = sub_role.map(str::to_owned);
            node.arch = arch.map(str::to_owned);
        })
    }

    /// Creates or replaces a group.
    pub fn set_group<S: AsRef<str>>(&self, label: &str, members: &[S]) {
        let members = members.iter().map(|m| m.as_ref().to_owned()).collect();
        self.world(|world| world.groups.insert(label.to_owned(), Group { description: String::new(), members }));
    }

    /// Removes a group; false when there was none.
    pub fn remove_group(&self, label: &str) -> bool {
        self.world(|world| world.groups.remove(label).is_some())
    }

    /// Creates or replaces a partition.
    pub fn set_partition<S: AsRef<str>>(&self, name: &str, members: &[S]) {
        let members = members.iter().map(|m| m.as_ref().to_owned()).collect();
        self.world(|world| world.partitions.insert(name.to_owned(), members));
    }

    /// Adds an image; returns path and etag of its manifest.
    pub fn add_image(&self, spec: &ImageSpec) -> (String, String) {
        self.world(|world| world.add_image(spec))
    }

    /// Puts an object into the store and returns its etag.
    pub fn put_object(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> String {
        self.world(|world| world.s3.put(bucket, key, body.into()))
    }

    /// The content of an object.
    pub fn object(&self, bucket: &str, key: &str) -> Option<Bytes> {
        self.world(|world| world.s3.body(bucket, key))
    }

    /// Removes an object; false when there was none.
    pub fn remove_object(&self, bucket: &str, key: &str) -> bool {
        self.world(|world| world.s3.remove(bucket, key))
    }

    /// Adds a CFS configuration.
    pub fn add_configuration(&self, name: &str) {
        self.world(|world| world.cfs.add_configuration(name));
    }

    /// Removes a CFS configuration; false when there was none.
    pub fn remove_configuration(&self, name: &str) -> bool {
        self.world(|world| world.cfs.configurations.remove(name).is_some())
    }

    /// The value of a metadata key of an image in IMS.
    pub fn image_metadata(&self, id: &str, key: &str) -> Option<String> {
        lock(&self.core.world).ims.images.get(id).and_then(|i| i.metadata.get(key).cloned())
    }

    /// The token that BSS now holds for a host.
    pub fn bss_token(&self, xname: &str) -> Option<String> {
        lock(&self.core.world).bss.hosts.get(xname).map(|d| d.token.clone())
    }

    /// Kernel, initrd and parameters that BSS now holds for a host.
    pub fn boot_parameters(&self, xname: &str) -> Option<(String, String, String)> {
        lock(&self.core.world).bss.hosts.get(xname).map(|d| (d.kernel.clone(), d.initrd.clone(), d.params.clone()))
    }

    /// Waits until something holds. It is looked at again whenever a node, a report or a request
    /// changed something; the caller sets the time limit.
    pub async fn wait_until(&self, holds: impl Fn(&SiteHandle) -> bool) {
        loop {
            let changed = self.core.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }
}
