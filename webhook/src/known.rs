//! What the webhook knows of the cluster: as much of every object as decisions need, and no more.
//!
//! It is a World like the operator's, filled by the same watches and the same conversions, in which nothing is driven.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bos_core::images::ImageRules;
use bos_core::model::{Node, NodeId, SessionUid, World};
use bos_core::tenants::Tenants;
use bos_core::time::Timestamp;
use bos_core::xname::Xname;
use bos_crds::{BootComponent, BootOptions, BootOptionsSpec, NodePhase, OPTIONS_NAME, Session, SessionTemplate, SessionTemplateSpec};
use bos_engine::boot_set::LookRules;
use bos_engine::convert;
use bos_engine::records::SessionKey;
use bos_engine::watches::{News, Seen};
use kube::ResourceExt;

/// Now, by the wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(jiff::Timestamp::now())
}

/// Shared by reviews, which read, and watches, which write.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<RwLock<Known>>);

impl Shared {
    /// Empty, for an operator in this namespace.
    pub(crate) fn new(install_namespace: &str) -> Self {
        let shared = Self::default();
        {
            let world = &mut shared.write().world;
            world.install_namespace = install_namespace.into();
            // Whether the operator launches agents its own settings say; it refuses such a Session if not.
            world.launches_agents = true;
        }
        shared
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that is known.
#[derive(Default)]
pub(crate) struct Known {
    /// Nodes, Sessions, options, tenants, names that ran, the stop switch.
    pub(crate) world: World,
    /// Nodes that are driven now.
    pub(crate) driven: BTreeSet<NodeId>,
    /// Those of them that are being powered on or off.
    pub(crate) switched: BTreeSet<NodeId>,
    /// What looks at images need to know of the options.
    pub(crate) look_rules: LookRules,
    /// Whether the tenants could be read.
    pub(crate) tenants_known: bool,
    templates: HashMap<(String, String), Arc<SessionTemplateSpec>>,
    names: HashMap<String, Vec<(SessionKey, String)>>,
    arrived: Arrived,
}

/// Which kinds have arrived for the first time.
#[derive(Default)]
struct Arrived {
    templates: bool,
    sessions: bool,
    components: bool,
    options: bool,
    tenants: bool,
    names: bool,
}

impl Known {
    /// What has not arrived yet; None when everything has.
    pub(crate) fn waits_for(&self) -> Option<&'static str> {
        let arrived = &self.arrived;
        let kinds = [
            (arrived.templates, "sessiontemplates"),
            (arrived.sessions, "sessions"),
            (arrived.components, "bootcomponents"),
            (arrived.options, "bootoptions"),
            (arrived.tenants, "tenants"),
            (arrived.names, "the names of Sessions that ran"),
        ];
        kinds.into_iter().find(|(arrived, _)| !arrived).map(|(_, kind)| kind)
    }

    /// A template, if it is there.
    pub(crate) fn template(&self, namespace: &str, name: &str) -> Option<Arc<SessionTemplateSpec>> {
        self.templates.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Whether a Session of this name is there now.
    pub(crate) fn has_session(&self, namespace: &str, name: &str) -> bool {
        self.world.sessions.values().any(|session| *session.namespace == *namespace && *session.name == *name)
    }

    /// Takes what a watch brings.
    pub(crate) fn take(&mut self, news: News, now: Timestamp) {
        match news {
            News::Template(seen) => self.take_templates(seen),
            News::Session(seen) => self.take_sessions(seen, now),
            News::Component(seen) => self.take_components(seen, now),
            News::Options(seen) => self.take_options(seen),
            // Not watched here.
            News::Job(_) | News::Pod(_) | News::AgentJournal(_) => {}
            News::EmergencyStop(why) => self.world.emergency_stop = why.is_some(),
            News::Tenants(all) => {
                self.arrived.tenants = true;
                self.tenants_known = all.is_some();
                let asked = if all.is_some() { now } else { Timestamp::default() };
                self.world.tenants = Tenants::new(all.unwrap_or_default(), asked);
            }
        }
        // Nobody projects anything here.
        self.world.touched.clear();
        self.world.touched_sessions.clear();
    }

    /// One ConfigMap of the ledger; empty where it is gone.
    pub(crate) fn take_names(&mut self, record: String, names: Vec<(SessionKey, String)>) {
        self.names.insert(record, names);
        let all = self.names.values().flatten();
        self.world.ran =
            all.map(|(key, uid)| ((key.namespace.as_str().into(), key.name.as_str().into()), SessionUid::from(uid.as_str()))).collect();
    }

    /// The whole ledger was listed.
    pub(crate) fn names_arrived(&mut self) {
        self.arrived.names = true;
    }

    fn take_templates(&mut self, seen: Seen<SessionTemplate>) {
        let key = |template: &SessionTemplate| (template.namespace().unwrap_or_default(), template.name_any());
        match seen {
            Seen::Reset { items, .. } => {
                self.templates = items.into_iter().map(|template| (key(&template), Arc::new(template.spec))).collect();
                self.arrived.templates = true;
            }
            Seen::Applied(template) => {
                self.templates.insert(key(&template), Arc::new(template.spec));
            }
            Seen::Deleted(template) => drop(self.templates.remove(&key(&template))),
            Seen::Invalid(bad) | Seen::InvalidDeleted(bad) => {
                self.templates.remove(&(bad.namespace.unwrap_or_default(), bad.name));
            }
        }
    }

    fn take_sessions(&mut self, seen: Seen<Session>, now: Timestamp) {
        match seen {
            Seen::Reset { items, .. } => {
                self.world.sessions.clear();
                for session in &items {
                    self.set_session(session, now);
                }
                self.arrived.sessions = true;
            }
            Seen::Applied(session) => self.set_session(&session, now),
            Seen::Deleted(session) => self.remove_session(&session.uid().unwrap_or_default()),
            Seen::Invalid(bad) | Seen::InvalidDeleted(bad) => self.remove_session(&bad.uid),
        }
    }

    fn remove_session(&mut self, uid: &str) {
        self.world.sessions.remove(&SessionUid::from(uid));
    }

    /// Begun anew each time: whether it has ended is read from its status, not followed.
    fn set_session(&mut self, object: &Session, now: Timestamp) {
        let Some(seen) = convert::session(object) else { return };
        self.world.sessions.remove(&seen.uid);
        self.world.fold_session(seen, now);
    }

    fn take_components(&mut self, seen: Seen<BootComponent>, now: Timestamp) {
        match seen {
            Seen::Reset { items, .. } => {
                let known = std::mem::take(&mut self.world.nodes);
                self.world.nodes = known.into_iter().map(|node| Node::new(node.xname)).collect();
                self.driven.clear();
                self.switched.clear();
                for component in &items {
                    self.set_component(component, now);
                }
                self.arrived.components = true;
            }
            Seen::Applied(component) => self.set_component(&component, now),
            Seen::Deleted(component) => self.forget_component(&component.name_any()),
            Seen::Invalid(bad) | Seen::InvalidDeleted(bad) => self.forget_component(&bad.name),
        }
    }

    fn forget_component(&mut self, name: &str) {
        let known = Xname::parse(name).ok().and_then(|xname| self.world.by_name.get(&xname).copied());
        let Some(id) = known else { return };
        self.driven.remove(&id);
        self.switched.remove(&id);
        if let Some(node) = self.world.nodes.get_mut(id.0 as usize) {
            *node = Node::new(node.xname.clone());
        }
    }

    fn set_component(&mut self, object: &BootComponent, now: Timestamp) {
        self.forget_component(&object.name_any());
        let Some(id) = convert::component(&mut self.world, object, true, now) else { return };
        let Some(status) = object.status.as_ref().filter(|status| status.enabled) else { return };
        self.driven.insert(id);
        if matches!(status.phase, Some(NodePhase::PoweringOn | NodePhase::PoweringOff)) {
            self.switched.insert(id);
        }
    }

    fn take_options(&mut self, seen: Seen<BootOptions>) {
        match seen {
            Seen::Reset { items, invalid } => {
                let found = items.iter().find(|options| options.name_any() == OPTIONS_NAME);
                if found.is_some() || invalid.is_empty() {
                    self.set_options(found);
                }
                self.arrived.options = true;
            }
            Seen::Applied(options) if options.name_any() == OPTIONS_NAME => self.set_options(Some(&options)),
            Seen::Deleted(options) if options.name_any() == OPTIONS_NAME => self.set_options(None),
            // The operator keeps the last good values too.
            Seen::Applied(_) | Seen::Deleted(_) | Seen::Invalid(_) | Seen::InvalidDeleted(_) => {}
        }
    }

    fn set_options(&mut self, object: Option<&BootOptions>) {
        let defaults = BootOptionsSpec::default();
        let (options, _) = convert::options(object.map_or(&defaults, |object| &object.spec), &self.world.options);
        let images = ImageRules { errors_fatal: options.ims_errors_fatal, must_exist: options.ims_images_must_exist };
        self.look_rules = LookRules { update_frequency: options.actual_state_ttl_text.to_string(), images };
        self.world.options = options;
    }
}
