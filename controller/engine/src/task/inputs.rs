//! Folding what the API server says into World and views.

use std::collections::HashSet;

use bos_core::by_hand::Wish;
use bos_core::images::ImageRules;
use bos_core::tenants::{Tenant, Tenants};

use super::*;
use crate::boot_set::LookRules;
use crate::clients::CALL_TIMEOUT;

impl Task {
    /// A template was seen.
    pub fn set_template(&mut self, template: &SessionTemplate) {
        if let Some(namespace) = template.namespace() {
            let generation = template.metadata.generation.unwrap_or_default();
            self.templates.insert((namespace, template.name_any()), (template.spec.clone(), generation));
        }
    }

    pub(super) fn fold_templates(&mut self, seen: Seen<SessionTemplate>) {
        let key = |template: &SessionTemplate| (template.namespace().unwrap_or_default(), template.name_any());
        match seen {
            Seen::Reset { items, invalid } => {
                let kept: HashSet<_> = invalid.iter().map(|bad| (bad.namespace.clone().unwrap_or_default(), bad.name.clone())).collect();
                let there: HashSet<_> = items.iter().map(key).collect();
                self.templates.retain(|known, _| there.contains(known) || kept.contains(known));
                for template in &items {
                    self.set_template(template);
                }
            }
            Seen::Applied(template) => self.set_template(&template),
            Seen::Deleted(template) => drop(self.templates.remove(&key(&template))),
            Seen::Invalid(bad) => tracing::error!(template = bad.name, error = bad.error, "a SessionTemplate cannot be read"),
            Seen::InvalidDeleted(_) => {}
        }
    }

    /// The tenants, as read just now; None while nobody can tell: then Sessions in namespaces that may be a tenant's wait.
    pub fn set_tenants(&mut self, all: Option<Vec<Tenant>>) {
        // They were asked for a little before: nobody is refused for that.
        let asked = all.as_ref().map_or_else(Timestamp::default, |_| self.clock.now() - CALL_TIMEOUT);
        self.world.tenants = Tenants::new(all.unwrap_or_default(), asked);
    }

    /// The options object, or the defaults where there is none.
    pub fn set_options(&mut self, object: Option<&bos_crds::BootOptions>) {
        let defaults = BootOptionsSpec::default();
        let spec = object.map_or(&defaults, |object| &object.spec);
        let (options, problems) = convert::options(spec, &self.world.options);
        let doubts = convert::doubts(spec);
        // Not again when only the status is new.
        if self.known_options.as_ref() != Some(spec) {
            // Of doubts the operator tells.
            tell::tell_options(self.known_options.as_ref(), spec, if self.world.is_agent { &[] } else { &doubts });
            self.known_options = Some(spec.clone());
        }
        for problem in &problems {
            tracing::error!(problem, "BootOptions");
        }
        self.world.options = options;
        let options = &self.world.options;
        let images = ImageRules { errors_fatal: options.ims_errors_fatal, must_exist: options.ims_images_must_exist };
        self.telemetry.look_rules.send_replace(LookRules { update_frequency: options.actual_state_ttl_text.to_string(), images });
        self.telemetry.logging.send_if_modified(|level| std::mem::replace(level, spec.logging_level) != spec.logging_level);
        if let Some(object) = object.filter(|_| !self.world.is_agent) {
            self.views.options_taken(object, problems, &doubts, self.clock.now());
        }
        // The schema's default leaves the operator's own configuration in force.
        for (service, value, default) in [
            (bos_services::Service::Bss, spec.bss_read_timeout_seconds, defaults.bss_read_timeout_seconds),
            (bos_services::Service::Cfs, spec.cfs_read_timeout_seconds, defaults.cfs_read_timeout_seconds),
            (bos_services::Service::Hsm, spec.hsm_read_timeout_seconds, defaults.hsm_read_timeout_seconds),
            (bos_services::Service::Ims, spec.ims_read_timeout_seconds, defaults.ims_read_timeout_seconds),
            (self.world.power_service.service(), spec.pcs_read_timeout_seconds, defaults.pcs_read_timeout_seconds),
        ] {
            let configured = self.configured_timeouts.get(&service).copied();
            let asked = u64::try_from(value).ok().filter(|_| value != default).map(Duration::from_secs);
            if let Some(limit) = asked.or(configured) {
                self.services.timeouts.set(service, limit);
            }
        }
    }

    pub(super) fn fold_options(&mut self, seen: Seen<bos_crds::BootOptions>) {
        match seen {
            Seen::Reset { items, invalid } => match items.iter().find(|options| options.name_any() == bos_crds::OPTIONS_NAME) {
                Some(options) => self.set_options(Some(options)),
                None if invalid.is_empty() => self.set_options(None),
                None => {}
            },
            Seen::Applied(options) if options.name_any() == bos_crds::OPTIONS_NAME => self.set_options(Some(&options)),
            Seen::Deleted(options) if options.name_any() == bos_crds::OPTIONS_NAME => self.set_options(None),
            Seen::Invalid(bad) => tracing::error!(error = bad.error, "the BootOptions cannot be read; the last good values stay in force"),
            Seen::Applied(_) | Seen::Deleted(_) | Seen::InvalidDeleted(_) => {}
        }
    }

    /// A Session at start; `planned` are those with a stored plan.
    pub fn load_session(&mut self, object: &Session, planned: &HashSet<&str>) -> Option<bos_core::session::SessionSeen> {
        let seen = convert::session(object)?;
        if !planned.contains(&*seen.uid.0) {
            self.note_ran(&seen.namespace, &seen.name);
        }
        self.views.session_seen(object, None);
        Some(seen)
    }

    /// What is shown as driven and is not, because somebody deleted its record, must not stay so.
    pub fn touch_shown_as_driven(&mut self) {
        self.world.touched.extend(self.views.driven());
    }

    /// What the ledger knows of a name.
    fn note_ran(&mut self, namespace: &Arc<str>, name: &Arc<str>) {
        if let Some(uid) = self.records.ran(&SessionKey::new(&**namespace, &**name)) {
            self.world.ran.insert((namespace.clone(), name.clone()), SessionUid::from(uid.as_str()));
        }
    }

    fn see_session(&mut self, object: &Session, now: Timestamp) {
        let Some(seen) = convert::session(object) else { return };
        if !self.world.sessions.contains_key(&seen.uid) {
            self.note_ran(&seen.namespace, &seen.name);
        }
        let changed = self.world.sessions.get(&seen.uid).is_some_and(|known| known.generation != seen.generation);
        let uid = seen.uid.clone();
        if self.charge.as_ref().is_some_and(|charge| charge.uid != uid) {
            return;
        }
        if self.charge.is_none() && self.views.session_seen(object, None) {
            self.world.touched_sessions.insert(uid.clone());
        }
        self.world.fold_session(seen, now);
        if changed && let Some(run) = self.world.sessions.get(&uid).and_then(|session| session.running()) {
            let nodes: Vec<NodeId> = run.open().collect();
            self.world.touched.extend(nodes);
        }
    }

    pub(super) fn fold_sessions(&mut self, seen: Seen<Session>, now: Timestamp) {
        match seen {
            Seen::Reset { items, invalid } => {
                let uids = items.iter().filter_map(kube::ResourceExt::uid).chain(invalid.into_iter().map(|bad| bad.uid));
                let there: HashSet<SessionUid> = uids.map(|uid| SessionUid(uid.into())).collect();
                let gone: Vec<SessionUid> = self.with_object().filter(|uid| !there.contains(uid)).collect();
                for object in &items {
                    self.see_session(object, now);
                }
                for uid in gone {
                    self.session_gone(&uid);
                }
            }
            Seen::Applied(object) => self.see_session(&object, now),
            Seen::Deleted(object) => {
                if let Some(uid) = object.uid() {
                    self.session_gone(&SessionUid(uid.into()));
                }
            }
            Seen::Invalid(bad) => tracing::error!(session = bad.name, error = bad.error, "a Session cannot be read"),
            Seen::InvalidDeleted(bad) => self.session_gone(&SessionUid(bad.uid.into())),
        }
    }

    /// Sessions that have an object, or had one.
    fn with_object(&self) -> impl Iterator<Item = SessionUid> {
        self.world.sessions.values().filter(|session| !session.by_hand).map(|session| session.uid.clone())
    }

    fn session_gone(&mut self, uid: &SessionUid) {
        self.forget_agent(uid);
        self.world.fold_session_gone(uid);
        self.views.session_gone(uid);
        self.events.forget(&uid.0);
        self.spans.over(uid);
    }

    /// A BootComponent at start: its status counts.
    pub fn load_component(&mut self, object: &BootComponent, now: Timestamp) {
        if let Some(id) = convert::component(&mut self.world, object, true, now)
            && let Some(wish) = self.views.component_seen(id, object, None)
        {
            self.world.fold_wish(id, wish, now);
        }
    }

    pub(super) fn fold_components(&mut self, seen: Seen<BootComponent>, now: Timestamp) {
        match seen {
            Seen::Reset { items, invalid } => {
                let names = items.iter().map(kube::ResourceExt::name_any).chain(invalid.into_iter().map(|bad| bad.name));
                let there: HashSet<String> = names.collect();
                let nodes = self.world.by_name.iter();
                let gone: Vec<NodeId> = nodes.filter(|(xname, _)| !there.contains(xname.as_str())).map(|(_, id)| *id).collect();
                for object in &items {
                    self.see_component(object, now);
                }
                for id in gone {
                    self.component_gone(id);
                }
            }
            Seen::Applied(object) => self.see_component(&object, now),
            Seen::Deleted(object) => {
                if let Some(id) = Xname::parse(&object.name_any()).ok().and_then(|xname| self.world.by_name.get(&xname).copied()) {
                    self.component_gone(id);
                }
            }
            Seen::Invalid(bad) => tracing::error!(xname = bad.name, error = bad.error, "a BootComponent cannot be read"),
            Seen::InvalidDeleted(_) => {}
        }
    }

    fn see_component(&mut self, object: &BootComponent, now: Timestamp) {
        if self.charge.is_some() {
            return self.see_own(object, now);
        }
        let Some(id) = convert::component(&mut self.world, object, false, now) else { return };
        self.see_shown_by_agent(id, object);
        let known = self.views.is_known(id, object);
        if !known || !self.world.is_shown_by_agent(id) && self.views.notice_overwritten(id, object) {
            self.world.touched.insert(id);
        }
        if let Some(wish) = self.views.component_seen(id, object, None) {
            self.take_up_wish(id, object, known, wish, now);
        }
    }

    /// What a BootComponent asks for. If it was not known, somebody made or restored it: what it says is no request then, as at our
    /// start (rule 5).
    pub(super) fn take_up_wish(&mut self, id: NodeId, object: &BootComponent, known: bool, wish: Wish, now: Timestamp) {
        if !known {
            self.world.load_asked(id, convert::asked(object), &wish);
        }
        self.world.fold_wish(id, wish, now);
    }

    /// A deleted BootComponent: the node is known from HSM still and gets a new one at the next inventory; a run goes on, for
    /// its plan and journal are the record.
    fn component_gone(&mut self, id: NodeId) {
        if self.charge.is_some() {
            return self.out_of_sight(id);
        }
        self.views.component_gone(id);
        self.world.component_gone(id);
        if self.world.driver(id).is_some() {
            self.views.create_component(&self.world, id);
        }
    }

    /// The stop switch was set, lifted, or says something else.
    pub(super) fn fold_stop_switch(&mut self, why: Option<Arc<str>>, now: Timestamp) {
        let was_set = self.world.emergency_stop;
        if why.as_deref() == was_set.then_some(&*self.world.stop_note) {
            return;
        }
        self.set_emergency_stop(why);
        if self.world.emergency_stop != was_set {
            self.tell_stop_switch(now);
        }
        self.touch_driven();
    }

    /// Sets the stop switch with what was written into it, or lifts it, for what is decided and for calls that wait for a connection.
    pub fn set_emergency_stop(&mut self, why: Option<Arc<str>>) {
        let set = why.is_some();
        self.world.emergency_stop = set;
        self.world.stop_note = why.unwrap_or_default();
        let now = self.now();
        self.stopped_since = set.then(|| self.stopped_since.unwrap_or(now));
        self.services.stop.set(set);
        self.telemetry.emergency_stop.store(set, std::sync::atomic::Ordering::Relaxed);
    }

    fn touch_driven(&mut self) {
        let running = self.world.sessions.values().filter_map(|session| session.running());
        let driven: Vec<NodeId> = running.flat_map(|run| run.open()).collect();
        self.world.touched.extend(driven);
        let open = self.world.sessions.values().filter(|session| !matches!(session.stage, Stage::Ended(_)));
        self.world.touched_sessions.extend(open.map(|session| session.uid.clone()).collect::<Vec<_>>());
    }
}
