//! Judges one object: gathers what is known and what services say, and asks the decisions of the operator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bos_core::admission::{self, TemplateSeen, Verdict};
use bos_core::model::{Digest, SessionUid, World};
use bos_core::options::Options;
use bos_core::resolve::{Facts, Snapshot};
use bos_core::session::{Pending, Session, Stage};
use bos_core::session_setup::{Selection, boots};
use bos_core::xname::Xname;
use bos_crds::{
    BootComponent, BootComponentSpec, BootComponentStatus, BootOptions, BootOptionsSpec, BootOptionsStatus, OPTIONS_NAME,
    Operation as Does, SessionSpec, SessionStatus, SessionTemplate, SessionTemplateSpec, SessionTemplateStatus, labels,
};
use bos_engine::clients::bounded;
use bos_engine::watches::{News, Seen};
use bos_engine::{convert, tenants};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::known::{Shared, now};
use crate::looks::{Looks, NoAnswer, Wanted};
use crate::review::{Malformed, Object, Operation, Request};

/// For inventory, images and configurations.
const LOOKS: Duration = Duration::from_millis(1800);
/// For all of it, the power of nodes included. The API server waits three seconds for a review; the way there and back, and deciding,
/// take the rest.
const BUDGET: Duration = Duration::from_millis(2400);

/// Judges objects.
pub(crate) struct Judge {
    known: Shared,
    looks: Looks,
    client: kube::Client,
    namespace: String,
}

impl Judge {
    pub(crate) const fn new(known: Shared, looks: Looks, client: kube::Client, namespace: String) -> Self {
        Self { known, looks, client, namespace }
    }

    /// Why nothing can be judged yet.
    pub(crate) fn waits_for(&self) -> Option<&'static str> {
        self.known.read().waits_for()
    }

    /// What is said of an object.
    pub(crate) async fn judge(&self, request: &Request<'_>) -> Result<Verdict, Malformed> {
        let kind = request.kind()?;
        let writes = matches!(request.operation, Operation::Create | Operation::Update) && request.sub_resource.is_empty();
        let deadline = Instant::now() + LOOKS;
        match kind {
            _ if !writes => Ok(Verdict::default()),
            "SessionTemplate" => self.template(request, deadline).await,
            "Session" => self.session(request, deadline).await,
            "BootComponent" => self.component(request, deadline).await,
            "BootOptions" => options(request),
            other => Err(Malformed::UnknownKind(other.chars().take(64).collect())),
        }
    }

    async fn template(&self, request: &Request<'_>, deadline: Instant) -> Result<Verdict, Malformed> {
        let Some(object) = written::<SessionTemplateSpec, SessionTemplateStatus>(request)? else { return Ok(Verdict::default()) };
        let rules = self.known.read().look_rules.clone();
        let wanted = Wanted { images: true, configurations: true };
        let (seen, late) = self.looks.template(&object.spec, &rules, wanted, deadline).await;
        let mut verdict = admission::template(&object.spec, &seen);
        not_checked(&mut verdict, &late);
        Ok(verdict)
    }

    async fn session(&self, request: &Request<'_>, deadline: Instant) -> Result<Verdict, Malformed> {
        if request.operation != Operation::Create {
            // The schema lets only suspend and cancel change.
            return Ok(Verdict::default());
        }
        let object = request.object::<SessionSpec, SessionStatus>()?;
        let Some(session) = as_session(object, request) else {
            return Err(Malformed::Object { field: "object", detail: "metadata.namespace is missing".to_owned() });
        };
        self.read_what_may_be_new(&session, deadline).await;
        let mut verdict = self.session_alone(&session, deadline).await;
        let (template, rules, batch) = {
            let known = self.known.read();
            if admission::is_old(&known.world, &session, now()) {
                return Ok(verdict);
            }
            let template = known.template(&session.namespace, &session.spec.template_name);
            (template, known.look_rules.clone(), known.world.options.batch_size)
        };
        let Some(template) = template else {
            let name = &session.spec.template_name;
            verdict.warn(format!(
                "spec.templateName: SessionTemplate {name} does not exist in namespace {}; the Session waits for it.",
                session.namespace
            ));
            return Ok(verdict);
        };
        let operation = session.spec.operation;
        let wanted = Wanted { images: boots(operation), configurations: operation != Does::Shutdown };
        let (inventory, (seen, late)) =
            futures::join!(self.looks.inventory(deadline), self.looks.template(&template, &rules, wanted, deadline));
        let selection = self.nodes(&mut verdict, &session, &template, inventory);
        admission::services(&mut verdict, &session, &seen);
        not_checked(&mut verdict, &late);
        let begins = admission::begins(&self.known.read().world, &session, now());
        if let Some(selection) = selection.filter(|_| begins && verdict.is_allowed()) {
            self.foresee(&mut verdict, &session, &selection, &seen, batch, deadline + (BUDGET - LOOKS)).await;
        }
        Ok(verdict)
    }

    /// By what is known of the cluster alone.
    async fn session_alone(&self, session: &Session, deadline: Instant) -> Verdict {
        if !self.known.read().world.acts_in(&session.namespace) {
            self.read_tenants(deadline).await;
        }
        let known = self.known.read();
        if known.has_session(&session.namespace, &session.name) {
            // The API server says itself that it exists already.
            return Verdict::default();
        }
        let mut verdict = admission::session(&known.world, session, known.tenants_known, now());
        if known.world.emergency_stop {
            verdict.warn(format!("The stop switch is set: no power action leaves until ConfigMap {} is deleted.", labels::EMERGENCY_STOP));
        }
        verdict
    }

    /// One `kubectl apply` writes template, options and Session within milliseconds; the watches have not brought them yet.
    async fn read_what_may_be_new(&self, session: &Session, deadline: Instant) {
        let templates: Api<SessionTemplate> = Api::namespaced(self.client.clone(), &session.namespace);
        let options: Api<BootOptions> = Api::all(self.client.clone());
        let limit = deadline.saturating_duration_since(Instant::now());
        let (template, options) =
            futures::join!(bounded(limit, templates.get_opt(&session.spec.template_name)), bounded(limit, options.get_opt(OPTIONS_NAME)));
        let mut known = self.known.write();
        // What cannot be read now, or only by another version, is judged as it was known.
        if let Ok(Some(template)) = template {
            known.take(News::Template(Seen::Applied(Box::new(template))), now());
        }
        if let Ok(Some(options)) = options {
            known.take(News::Options(Seen::Applied(Box::new(options))), now());
        }
    }

    /// A tenant that came up in the last seconds is not known yet.
    async fn read_tenants(&self, deadline: Instant) {
        let read = tokio::time::timeout_at(deadline, tenants::all(&self.client)).await;
        let mut known = self.known.write();
        match read {
            Ok(Ok(all)) => known.take(News::Tenants(Some(all.unwrap_or_default())), now()),
            Ok(Err(_)) | Err(_) => known.tenants_known = false,
        }
    }

    fn nodes(
        &self,
        verdict: &mut Verdict,
        session: &Session,
        template: &SessionTemplateSpec,
        inventory: Result<Arc<Snapshot>, NoAnswer>,
    ) -> Option<Selection> {
        match inventory {
            Ok(snapshot) => admission::nodes(verdict, &self.known.read().world, session, template, &snapshot),
            Err(why) => {
                not_checked(verdict, &[why]);
                None
            }
        }
    }

    async fn foresee(
        &self,
        verdict: &mut Verdict,
        session: &Session,
        selection: &Selection,
        seen: &TemplateSeen,
        batch: usize,
        deadline: Instant,
    ) {
        let nodes: Vec<Xname> = selection.resolved.boot_sets.iter().flat_map(|set| &set.nodes).cloned().collect();
        let power = match self.looks.power(&nodes, batch, deadline).await {
            Ok(power) => power,
            Err(why) => {
                verdict.warn(format!("{why}; power is taken as it was seen last."));
                BTreeMap::new()
            }
        };
        let known = self.known.read();
        admission::foresee(verdict, (&known.world, &known.switched), session, selection, seen, &power, now());
        for text in admission::overlaps(&known.world, &known.driven, selection) {
            verdict.warn(text);
        }
    }

    async fn component(&self, request: &Request<'_>, deadline: Instant) -> Result<Verdict, Malformed> {
        let Some(object) = written::<BootComponentSpec, BootComponentStatus>(request)? else { return Ok(Verdict::default()) };
        let old = request.old_object::<BootComponentSpec, BootComponentStatus>()?;
        let answered = object.status.as_ref().and_then(|status| status.run.as_deref());
        let in_vain = old.as_ref().and_then(|old| admission::desired_in_vain(&object.spec, &old.spec, answered));
        if old.is_some_and(|old| old.spec.run == object.spec.run) || object.spec.run.is_none() {
            let mut verdict = Verdict::default();
            in_vain.into_iter().for_each(|text| verdict.warn(text));
            return Ok(verdict);
        }
        let metadata = object.metadata.complete(request, now().wall());
        let component = BootComponent { metadata, spec: object.spec, status: object.status };
        let Ok(xname) = Xname::parse(component.metadata.name.as_deref().unwrap_or_default()) else { return Ok(Verdict::default()) };
        let wanted = component.spec.desired_state.as_ref().and_then(|wanted| wanted.configuration.clone()).filter(|name| !name.is_empty());
        let configuration = async {
            match wanted {
                Some(name) => Some(self.looks.configuration(&name, deadline).await),
                None => None,
            }
        };
        let (inventory, artifacts, configuration) = futures::join!(self.looks.inventory(deadline), self.artifacts(deadline), configuration);
        let mut world = self.small_world(&component);
        let id = world.intern(&xname);
        let wish = convert::wish(&component);
        convert::component(&mut world, &component, true, now());
        world.fold_wish(id, wish, now());
        let mut missing = Vec::new();
        match inventory {
            Ok(snapshot) => {
                if let Some(node) = world.node_mut(id) {
                    node.facts = snapshot.nodes.get(&xname).cloned();
                    node.locked = snapshot.locked.contains(&xname);
                }
            }
            Err(why) => {
                // Nothing is held against it that nobody knows.
                if let Some(node) = world.node_mut(id) {
                    node.facts = Some(Facts::default());
                }
                missing.push(why);
            }
        }
        let wanted = component.spec.desired_state.as_ref().and_then(|wanted| wanted.artifacts.clone());
        match artifacts {
            Ok(digests) => world.artifacts.extend(digests),
            Err(why) => {
                world.artifacts.extend(wanted.map(|digest| known_artifacts(bos_core::by_hand::bare(&digest))));
                missing.push(why);
            }
        }
        let mut verdict = admission::component(&world, id, configuration.as_ref());
        in_vain.into_iter().for_each(|text| verdict.warn(text));
        not_checked(&mut verdict, &missing);
        Ok(verdict)
    }

    /// What a decision about one node needs to know.
    fn small_world(&self, component: &BootComponent) -> World {
        let known = self.known.read();
        let named = component.spec.session.as_ref().map(|session| SessionUid::from(session.uid.as_str()));
        let session = named.and_then(|uid| Some((uid.clone(), known.world.sessions.get(&uid)?.clone())));
        World {
            options: known.world.options.clone(),
            tenants: known.world.tenants.clone(),
            install_namespace: known.world.install_namespace.clone(),
            sessions: session.into_iter().collect(),
            ..World::default()
        }
    }

    /// The artifact sets that are stored, by digest.
    async fn artifacts(&self, deadline: Instant) -> Result<Vec<(Digest, Arc<bos_core::artifacts::ArtifactSet>)>, NoAnswer> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&format!("{}={}", labels::RECORD, labels::RECORD_ARTIFACTS));
        let limit = deadline.saturating_duration_since(Instant::now());
        let list = bounded(limit, api.list_metadata(&params)).await.map_err(|error| error.message())?;
        let digest = |meta: kube::core::PartialObjectMeta<ConfigMap>| meta.metadata.labels?.remove(labels::ARTIFACTS);
        Ok(list.items.into_iter().filter_map(digest).map(|digest| known_artifacts(&digest)).collect())
    }
}

/// That there is such a set is all that matters.
fn known_artifacts(digest: &str) -> (Digest, Arc<bos_core::artifacts::ArtifactSet>) {
    (Digest(digest.into()), Arc::default())
}

/// An object that is new, or whose spec changes and that is not about to go.
fn written<Spec, Status>(request: &Request<'_>) -> Result<Option<Object<Spec, Status>>, Malformed>
where
    Spec: DeserializeOwned + PartialEq,
    Status: DeserializeOwned,
{
    let object = request.object::<Spec, Status>()?;
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let old = request.old_object::<Spec, Status>()?;
    Ok(Some(object).filter(|object| old.is_none_or(|old| old.spec != object.spec)))
}

fn not_checked(verdict: &mut Verdict, why: &[NoAnswer]) {
    for why in why {
        verdict.warn(format!("Not everything was checked: {}.", why.trim_end_matches('.')));
    }
}

/// A Session as the operator would see it in a moment.
fn as_session(object: Object<SessionSpec, SessionStatus>, request: &Request<'_>) -> Option<Session> {
    let metadata = object.metadata.complete(request, now().wall());
    let seen = convert::session(&bos_crds::Session { metadata, spec: object.spec, status: None })?;
    Some(Session {
        uid: seen.uid,
        namespace: seen.namespace,
        name: seen.name,
        created: seen.created,
        sequence: u64::MAX,
        generation: seen.generation,
        spec: seen.spec,
        tracked: seen.tracked,
        by_hand: false,
        agent: bos_core::session::AgentSeen::default(),
        deleted: false,
        stage: Stage::Pending(Pending { since: now(), reading: false, not_before: now(), waiting: "".into() }),
    })
}

fn options(request: &Request<'_>) -> Result<Verdict, Malformed> {
    let Some(object) = written::<BootOptionsSpec, BootOptionsStatus>(request)? else { return Ok(Verdict::default()) };
    let (_, problems) = convert::options(&object.spec, &Options::default());
    Ok(admission::options(&problems, &convert::doubts(&object.spec)))
}

/// What is changed of a Session: who created it is written down, whatever it claims, and stays.
pub(crate) fn requested_by(request: &Request<'_>) -> Result<Vec<Value>, Malformed> {
    let kind = request.kind()?;
    if kind != "Session" || !request.sub_resource.is_empty() {
        return Ok(Vec::new());
    }
    let object = request.object::<IgnoredAny, IgnoredAny>()?;
    let claim = |object: &Object<IgnoredAny, IgnoredAny>| object.metadata.annotations.as_ref()?.get(labels::REQUESTED_BY).cloned();
    let wanted = match request.operation {
        Operation::Create => Some(request.user_info.username.clone()).filter(|user| !user.is_empty()),
        Operation::Update => request.old_object::<IgnoredAny, IgnoredAny>()?.as_ref().and_then(claim),
        Operation::Delete | Operation::Connect => return Ok(Vec::new()),
    };
    let path = format!("/metadata/annotations/{}", labels::REQUESTED_BY.replace('/', "~1"));
    Ok(match (claim(&object), wanted) {
        (claimed, wanted) if claimed == wanted => Vec::new(),
        (_, None) => vec![json!({"op": "remove", "path": path})],
        (_, Some(user)) if object.metadata.annotations.is_some() => vec![json!({"op": "add", "path": path, "value": user})],
        (_, Some(user)) => vec![json!({"op": "add", "path": "/metadata/annotations", "value": {labels::REQUESTED_BY: user}})],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of the annotations of a Session that alice writes.
    fn patch(operation: &str, old: Value, new: Value) -> Vec<Value> {
        let object = |annotations: Value| json!({"metadata": {"name": "s", "annotations": annotations}, "spec": {}});
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u", "kind": {"group": "bos.hpe.com", "kind": "Session"}, "operation": operation, "userInfo": {"username": "alice"},
                        "object": object(new), "oldObject": if old.is_null() { old } else { object(old) }}
        })
        .to_string();
        requested_by(&Request::parse(review.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn whoever_creates_a_session_is_written_down_and_stays() {
        const KEY: &str = "bos.hpe.com/requested-by";
        const PATH: &str = "/metadata/annotations/bos.hpe.com~1requested-by";
        let (alice, mallory) = (json!({KEY: "alice"}), json!({KEY: "mallory"}));
        let set = |who: &str| json!({"op": "add", "path": PATH, "value": who});
        assert_eq!(patch("CREATE", Value::Null, Value::Null), [json!({"op": "add", "path": "/metadata/annotations", "value": alice})]);
        assert_eq!(patch("CREATE", Value::Null, json!({"a": "b"})), [set("alice")]);
        assert_eq!(patch("CREATE", Value::Null, mallory.clone()), [set("alice")]);
        assert_eq!(patch("CREATE", Value::Null, alice), [json!(null); 0]);
        let bob = || json!({KEY: "bob"});
        assert_eq!(patch("UPDATE", bob(), mallory.clone()), [set("bob")]);
        assert_eq!(patch("UPDATE", bob(), json!({"a": "b"})), [set("bob")]);
        assert_eq!(patch("UPDATE", bob(), bob()), [json!(null); 0]);
        assert_eq!(patch("UPDATE", json!({"a": "b"}), mallory), [json!({"op": "remove", "path": PATH})]);
    }
}
