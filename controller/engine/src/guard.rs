//! Objects that a watch brings, each of which may be unreadable without holding up the others.
//!
//! kube's `DeserializeGuard` does the same by way of general trees, managedFields and all. With thousands of nodes in motion that costs a
//! tenth of the operator's CPU (docs/performance.md). Here the text of an object is kept until its managedFields are cut out of it. An API
//! server sends the type of an event before its object, so that the text can be had.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;
use serde_json::value::RawValue;

/// An object without its managedFields unless it is applied server-side, or what is known of one that is not of the schema.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<K>(pub(crate) Result<K, InvalidObject>);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let text = without_managed_fields(text.get());
        if let Ok(object) = serde_json::from_str(&text) {
            return Ok(Self(Ok(object)));
        }
        // Once more, for an error that names no place in the text.
        let value: Value = serde_json::from_str(&text).map_err(D::Error::custom)?;
        let invalid = match K::deserialize(&value) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error.to_string(),
        };
        // Without metadata nobody can tell which object it is.
        let metadata = value.get("metadata").ok_or_else(|| D::Error::missing_field("metadata"))?;
        let metadata = ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?;
        Ok(Self(Err(InvalidObject { error: invalid, metadata })))
    }
}

/// Where the managedFields of an object are in its text.
#[derive(Deserialize)]
struct Managed<'a> {
    #[serde(borrow)]
    metadata: ManagedFields<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedFields<'a> {
    #[serde(borrow)]
    managed_fields: &'a RawValue,
}

/// What the managedFields say of somebody who applies an object server-side.
pub(crate) const APPLY: &str = "Apply";

/// They are about as long as the rest, and nobody here reads them but for whether there is one who applies the object server-side.
fn without_managed_fields(object: &str) -> Cow<'_, str> {
    let Ok(Managed { metadata }) = serde_json::from_str(object) else { return object.into() };
    let fields = metadata.managed_fields.get();
    if fields.contains(APPLY) {
        return object.into();
    }
    let start = fields.as_ptr().addr() - object.as_ptr().addr();
    match (object.get(..start), object.get(start + fields.len()..)) {
        (Some(before), Some(after)) => [before, "null", after].concat().into(),
        _ => object.into(),
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use bos_crds::BootComponent;
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::json;

    use super::*;

    fn text(spec: &Value) -> String {
        let fields = json!([{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]);
        let object = json!({
            "apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "spec": spec,
            "metadata": {"name": "x1000c0s0b0n0", "uid": "u", "managedFields": fields, "annotations": {"ä": "\"managedFields\": [1]"}},
        });
        object.to_string()
    }

    fn read(spec: &Value) -> serde_json::Result<Guarded<BootComponent>> {
        serde_json::from_str(&text(spec))
    }

    #[test]
    fn what_is_of_the_schema_comes_without_managed_fields() {
        let object = read(&json!({"suspend": true})).unwrap();
        assert!(object.meta().managed_fields.is_none() && object.0.unwrap().spec.suspend);
    }

    #[test]
    fn what_is_not_says_what_it_is_and_what_is_wrong() {
        let object = read(&json!({"suspend": "perhaps"})).unwrap();
        assert_eq!((object.meta().name.as_deref(), object.meta().uid.as_deref()), (Some("x1000c0s0b0n0"), Some("u")));
        let error = object.0.unwrap_err().error;
        assert!(error.contains("perhaps") && error.contains("boolean"), "{error}");
    }

    #[test]
    fn an_event_of_a_watch_is_read() {
        let event = format!(r#"{{"type":"MODIFIED","object":{}}}"#, text(&json!({"suspend": true})));
        let WatchEvent::Modified(object) = serde_json::from_str::<WatchEvent<Guarded<BootComponent>>>(&event).unwrap() else { panic!() };
        assert_eq!(object.meta().name.as_deref(), Some("x1000c0s0b0n0"));
        assert_eq!(object.meta().annotations.as_ref().unwrap()["ä"], "\"managedFields\": [1]");
        assert!(object.0.unwrap().spec.suspend);
    }

    #[test]
    fn so_is_a_list() {
        let list = format!(
            r#"{{"apiVersion":"bos.hpe.com/v1alpha1","kind":"BootComponentList","metadata":{{}},"items":[{0},{0}]}}"#,
            text(&json!({}))
        );
        let list: ObjectList<Guarded<BootComponent>> = serde_json::from_str(&list).unwrap();
        assert!(list.items.len() == 2 && list.items.iter().all(|item| item.0.is_ok()));
    }

    #[test]
    fn nothing_but_managed_fields_is_cut_out() {
        let all = text(&json!({"suspend": true}));
        let mut wanted: Value = serde_json::from_str(&all).unwrap();
        wanted["metadata"]["managedFields"] = Value::Null;
        assert_eq!(serde_json::from_str::<Value>(&without_managed_fields(&all)).unwrap(), wanted);
        for other in [r#"{"metadata":{"name":"x"}}"#, r#"{"spec":{}}"#, "[1]"] {
            assert_eq!(without_managed_fields(other), other);
        }
    }

    #[test]
    fn whoever_applies_it_is_known() {
        let object: Guarded<BootComponent> = serde_json::from_str(&text(&json!({})).replace("Update", "Apply")).unwrap();
        assert_eq!(object.meta().managed_fields.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn what_has_no_metadata_is_no_object() {
        assert!(serde_json::from_value::<Guarded<BootComponent>>(json!({"spec": {}})).is_err());
    }
}
