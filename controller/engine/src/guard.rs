//! Objects that a watch brings, each of which may be unreadable without holding up the others.
//!
//! kube's `DeserializeGuard` does the same by a copy of a general tree, managedFields and all. With thousands of nodes in motion that costs a
//! twentieth of the operator's CPU more (docs/performance.md).

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

/// An object without its managedFields, or what is known of one that is not of the schema.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<K>(pub(crate) Result<K, InvalidObject>);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
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
    use serde_json::json;

    use super::*;

    fn read(spec: &Value) -> serde_json::Result<Guarded<BootComponent>> {
        let fields = json!([{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]);
        serde_json::from_value(json!({
            "apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "spec": spec,
            "metadata": {"name": "x1000c0s0b0n0", "uid": "u", "managedFields": fields},
        }))
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
    fn what_has_no_metadata_is_no_object() {
        assert!(serde_json::from_value::<Guarded<BootComponent>>(json!({"spec": {}})).is_err());
    }
}
