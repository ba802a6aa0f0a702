//! Helpers that shape the generated schemas.
//!
//! The derive does most of the work. What is here repairs what it cannot say: it drops `null` from optional
//! fields, gives every status its "not looked at yet" default, and offers the few rules that several kinds share.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// Longest `message` and `next` of a BootComponent. Kept short because there may be 10,000 of these objects.
pub const COMPONENT_MESSAGE_MAX: usize = 512;
/// Longest free text in any other status: messages, samples of node names, condition messages.
pub const TEXT_MAX: usize = 2048;
/// Longest reason, here and in conditions.
pub const REASON_MAX: usize = 64;
/// Most nodes in one boot set's `nodeList`.
pub const NODE_LIST_MAX: usize = 16_384;
/// Most boot sets of one template.
pub const BOOT_SETS_MAX: usize = 127;
/// Most groups in `failures` and in `excluded` of a Session's status.
pub const GROUPS_MAX: usize = 32;
/// Most entries in `transitions` of a BootComponent's status.
pub const TRANSITIONS_MAX: usize = 8;

/// Cuts a text to at most `max` characters, ending in `...` where something was cut.
///
/// The API server refuses a status with a text over its bound, so every writer passes its texts through here.
#[must_use]
pub fn bounded(text: &str, max: usize) -> String {
    const DOTS: &str = "...";
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max.saturating_sub(DOTS.len())).collect();
    cut.extend(DOTS.chars().take(max));
    cut
}

/// The JSON merge patch that turns `old` into `new`, or `None` where they are equal.
///
/// Fields that vanished become `null`, which a merge patch needs to remove them. Lists are replaced whole.
#[must_use]
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        let known = before.get(key);
        // A merge patch descends into objects only; against anything else the value stands for itself.
        let part = known.map_or_else(|| Some(value.clone()), |known| merge_diff(known, value));
        if let Some(part) = part {
            patch.insert(key.clone(), part);
        }
    }
    Some(Value::Object(patch))
}

/// A field that cannot be changed after creation, added later or taken away.
///
/// `has_default` says that the API server always fills the field in.
pub(crate) fn unchanged(field: &str, has_default: bool) -> Rule {
    let same = format!("self.{field} == oldSelf.{field}");
    let rule = if has_default { same } else { format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {same})") };
    Rule::new(rule)
        .message(&*format!("{field} cannot be changed after the Session was created; only suspend and cancel can. Create another Session."))
        .field_path(format!(".{field}"))
}

/// Schema of a list of standard conditions, with short descriptions and bounds.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "description": "Name of the condition.", "minLength": 1, "maxLength": 316},
                "status": {"type": "string", "description": "True, False or Unknown.", "enum": ["True", "False", "Unknown"]},
                "reason": {
                    "type": "string", "description": "Why, as one word for programs.",
                    "minLength": 1, "maxLength": REASON_MAX, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": {"type": "string", "description": "Why, as text for people.", "maxLength": TEXT_MAX},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When status last changed."},
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The metadata.generation this was judged on."
                }
            }
        }
    })
}

/// Makes a generated CRD fit for the API server. See the module documentation.
pub(crate) fn finish(crd: &mut Value) {
    let versions = crd.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        let Some(root) = version.pointer_mut("/schema/openAPIV3Schema") else { continue };
        without_null(root);
        if let Some(status) = root.pointer_mut("/properties/status").and_then(Value::as_object_mut) {
            finish_status(status);
        }
    }
}

/// kstatus calls an object without conditions "Current". The default makes it wait until we have looked. The status
/// has one writer, so it is one field for field ownership, which halves `managedFields`.
fn finish_status(status: &mut Map<String, Value>) {
    status.insert("default".into(), json!({"observedGeneration": -1}));
    status.insert("x-kubernetes-map-type".into(), json!("atomic"));
    status.insert("description".into(), json!("What the operator last saw and did. Written by the operator only."));
}

/// Takes `nullable` and `null` enum members away, so that the API server drops a `null` instead of storing it.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            if let Some(members) = map.get_mut("enum").and_then(Value::as_array_mut) {
                members.retain(|member| !member.is_null());
            }
            map.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// For `#[serde(default)]` of switches that are on.
pub(crate) const fn yes() -> bool {
    true
}

/// For `#[serde(default)]` of `observedGeneration`: nothing was looked at yet.
pub(crate) const fn not_observed() -> i64 {
    -1
}

/// For `skip_serializing_if` of switches that are off by default.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(crate) const fn is_false(value: &bool) -> bool {
    !*value
}

/// For `skip_serializing_if` of counters nobody needs to see at zero.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(crate) const fn is_zero(value: &i32) -> bool {
    *value == 0
}
