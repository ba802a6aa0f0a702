//! The state of the machine room: nodes, groups, and what each service has stored.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use uuid::Uuid;

use super::bss::Bss;
use super::cfs::Cfs;
use super::config::{InitialState, Inventory, NodeBlock, Settings, SiteConfig};
use super::core::{Core, Event, Timers};
use super::faults::Faults;
use super::history::{History, PowerEvent};
use super::ims::Ims;
use super::names;
use super::pcs::Pcs;
use super::s3::Store;

/// A reservation that PCS holds in HSM.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) by: Uuid,
    pub(crate) created: Timestamp,
    pub(crate) expires: Timestamp,
}

/// What a node with power runs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) token: Option<String>,
    pub(crate) kernel: String,
    pub(crate) params: String,
    pub(crate) up: bool,
}

/// A virtual node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) xname: String,
    pub(crate) nid: u32,
    pub(crate) role: String,
    pub(crate) sub_role: Option<String>,
    pub(crate) arch: Option<String>,
    pub(crate) class: String,
    pub(crate) enabled: bool,
    pub(crate) locked: bool,
    pub(crate) reserved: Option<Reservation>,
    pub(crate) state: &'static str,
    pub(crate) power: bool,
    /// Power as PCS saw it at its last sample.
    pub(crate) sampled: bool,
    pub(crate) power_changed: Timestamp,
    /// Counts power commands; an earlier command that has not taken effect yet is overtaken.
    pub(crate) command: u64,
    /// Counts changes of power.
    pub(crate) boot: u64,
    /// Counts rounds of reports; a timer of an earlier round does nothing.
    pub(crate) chain: u64,
    pub(crate) run: Option<Running>,
    pub(crate) faults: Faults,
    pub(crate) failed_boots: u32,
    pub(crate) script_epoch: i64,
    pub(crate) history: History,
}

impl Node {
    fn new(xname: String, nid: u32, block: &NodeBlock) -> Self {
        Self {
            xname,
            nid,
            role: block.role.clone(),
            sub_role: block.sub_role.clone(),
            arch: block.arch.clone(),
            class: block.class.clone(),
            enabled: true,
            locked: false,
            reserved: None,
            state: "Off",
            power: false,
            sampled: false,
            power_changed: Timestamp::now(),
            command: 0,
            boot: 0,
            chain: 0,
            run: None,
            faults: Faults::default(),
            failed_boots: 0,
            script_epoch: 0,
            history: History::default(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.run.as_ref().is_some_and(|r| r.up)
    }

    /// A made-up but stable hardware address.
    pub(crate) fn mac(&self) -> String {
        let [_, b, c, d] = self.nid.to_be_bytes();
        format!("00:40:a6:{b:02x}:{c:02x}:{d:02x}")
    }
}

/// An HSM group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) description: String,
    pub(crate) members: Vec<String>,
}

/// Everything behind one lock.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) index: HashMap<String, usize>,
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) partitions: BTreeMap<String, Vec<String>>,
    pub(crate) pcs: Pcs,
    pub(crate) bss: Bss,
    pub(crate) cfs: Cfs,
    pub(crate) ims: Ims,
    pub(crate) s3: Store,
    pub(crate) timers: Timers,
}

impl World {
    /// The nodes, groups and images of a configuration. Initial power states come with
    /// [`World::start`].
    pub(crate) fn new(config: &SiteConfig) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            index: HashMap::new(),
            groups: BTreeMap::new(),
            partitions: BTreeMap::new(),
            pcs: Pcs::default(),
            bss: Bss::default(),
            cfs: Cfs::default(),
            ims: Ims::default(),
            s3: Store::default(),
            timers: Timers::default(),
        };
        let mut used: HashMap<u32, usize> = HashMap::new();
        for block in &config.blocks {
            let next = used.entry(block.cabinet).or_default();
            for _ in 0..block.count {
                world.add_node(names::node_name(block.cabinet, *next), block);
                *next += 1;
            }
        }
        for image in &config.images {
            world.add_image(image);
        }
        for name in &config.configurations {
            world.cfs.add_configuration(name);
        }
        world
    }

    fn add_node(&mut self, xname: String, block: &NodeBlock) {
        // Two blocks may run into each other when one fills its cabinets; the first one wins.
        if self.index.contains_key(&xname) {
            return;
        }
        for group in &block.groups {
            self.groups.entry(group.clone()).or_default().members.push(xname.clone());
        }
        if let Some(partition) = &block.partition {
            self.partitions.entry(partition.clone()).or_default().push(xname.clone());
        }
        self.cfs.add_component(&xname);
        self.index.insert(xname.clone(), self.nodes.len());
        let nid = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX - 1) + 1;
        self.nodes.push(Node::new(xname, nid, block));
    }

    /// Brings nodes into their initial states and starts the clocks.
    pub(crate) fn start(&mut self, core: &Core, config: &SiteConfig) {
        let mut at = 0;
        for block in &config.blocks {
            for _ in 0..block.count {
                if at < self.nodes.len() {
                    self.set_initial(core, at, &block.initial);
                }
                at += 1;
            }
        }
        for rule in &config.faults {
            for node in self.select(&rule.xnames) {
                self.set_faults(core, node, rule.faults.clone());
            }
        }
        let interval = core.settings().sample_interval;
        if !interval.is_zero() {
            self.timers.set(core, interval, Event::Sample);
        }
    }

    pub(crate) fn set_initial(&mut self, core: &Core, at: usize, initial: &InitialState) {
        match initial {
            InitialState::Off => {}
            InitialState::OnUnknown => {
                let token = core.uuid().to_string();
                self.set_running(
                    at,
                    Running { token: Some(token), kernel: "s3://boot-images/unknown/kernel".into(), params: String::new(), up: true },
                );
            }
            InitialState::On { token, image, params, configuration } => {
                let token = token.clone().unwrap_or_else(|| core.uuid().to_string());
                let (kernel, initrd) = self.image_paths(image);
                let xname = self.nodes[at].xname.clone();
                self.bss.seed(&xname, &token, &kernel, &initrd, params);
                self.set_running(at, Running { token: Some(token), kernel, params: params.clone(), up: true });
                if let Some(name) = configuration {
                    self.cfs.set_configured(&xname, name);
                }
            }
        }
    }

    /// Makes a node run something, as if it had long been up.
    pub(crate) fn set_running(&mut self, at: usize, running: Running) {
        let node = &mut self.nodes[at];
        node.power = true;
        node.sampled = true;
        node.power_changed = Timestamp::now();
        node.boot += 1;
        node.state = if running.up { "Ready" } else { "On" };
        node.run = Some(running);
    }

    /// The numbers of the named nodes; `all` means every node, unknown names are left out.
    pub(crate) fn select<S: AsRef<str>>(&self, xnames: &[S]) -> Vec<usize> {
        if xnames.iter().any(|x| x.as_ref() == "all") {
            return (0..self.nodes.len()).collect();
        }
        xnames.iter().filter_map(|x| self.index.get(x.as_ref()).copied()).collect()
    }

    pub(crate) fn node(&self, xname: &str) -> Option<&Node> {
        self.index.get(xname).map(|at| &self.nodes[*at])
    }

    /// Changes what is wrong with a node; CFS hears of it, as a cured node may now be configured.
    pub(crate) fn set_faults(&mut self, core: &Core, at: usize, faults: Faults) {
        self.nodes[at].faults = faults;
        self.nodes[at].failed_boots = 0;
        self.cfs_kick(core, at);
    }

    /// Whether HSM shows a node at present.
    pub(crate) fn in_inventory(&self, settings: &Settings, at: usize) -> bool {
        let shown = match settings.inventory {
            Inventory::Full => true,
            Inventory::Half => at.is_multiple_of(2),
            Inventory::Empty => false,
        };
        shown && !self.nodes[at].faults.missing_from_hsm
    }

    pub(crate) fn note(&mut self, core: &Core, at: usize, event: PowerEvent) {
        self.nodes[at].history.push(core.elapsed(), event);
    }

    /// Acts on a timer.
    pub(crate) fn handle(&mut self, core: &Core, event: Event) {
        match event {
            Event::Power { node, command, on } => self.power_applied(core, node, command, on),
            Event::Script { node, boot } => self.fetch_script(core, node, boot),
            Event::Up { node, boot } => self.come_up(core, node, boot),
            Event::Report { node, chain, attempt } => self.send_report(core, node, chain, attempt),
            Event::CfsReport { node, boot, attempt } => self.report_to_cfs(core, node, boot, attempt),
            Event::CfsRun { node, generation } => self.cfs_run(core, node, generation),
            Event::TransitionStart(id) => self.transition_start(core, id),
            Event::TransitionCheck(id) => self.transition_check(core, id),
            Event::Sample => self.sample(core),
        }
    }

    fn sample(&mut self, core: &Core) {
        for node in &mut self.nodes {
            if node.sampled != node.power {
                node.sampled = node.power;
                node.power_changed = Timestamp::now();
            }
        }
        let interval = core.settings().sample_interval;
        if !interval.is_zero() {
            self.timers.set(core, interval, Event::Sample);
        }
    }
}
