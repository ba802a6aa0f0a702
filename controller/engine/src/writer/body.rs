//! What a write says. It is worked out when it is sent: most statuses are replaced before that, and a body weighs more than
//! what it is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bos_crds::merge_diff;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The merge patch or the new object of a write.
#[derive(Clone)]
pub struct Body(Arc<dyn Fn() -> Value + Send + Sync>);

impl Body {
    /// The merge patch that makes a status out of any of those that the server may hold.
    pub fn status<S: Serialize + Send + Sync + 'static>(held: Vec<Arc<S>>, wanted: Arc<S>) -> Self {
        // Of our own types, whose keys are text, this cannot fail; and nothing is better than null, which removes a status.
        Self(Arc::new(move || json!({ "status": difference(&held, &*wanted).unwrap_or_default() })))
    }

    /// As the API server takes it.
    #[must_use]
    pub fn value(&self) -> Value {
        (self.0)()
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self(Arc::new(move || value.clone()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Body").field(&self.value()).finish()
    }
}

/// The fields of an object, as they are written.
type Fields<'a> = BTreeMap<&'a str, &'a RawValue>;

/// Most fields are equal, which their text tells; a general tree of everything costs a tenth of the operator's CPU.
fn difference<S: Serialize>(held: &[Arc<S>], wanted: &S) -> serde_json::Result<Map<String, Value>> {
    let wanted = serde_json::to_string(wanted)?;
    let wanted: Fields<'_> = serde_json::from_str(&wanted)?;
    let mut patch = Map::new();
    for held in held {
        let held = serde_json::to_string(&**held)?;
        let held: Fields<'_> = serde_json::from_str(&held)?;
        for name in held.keys().filter(|name| !wanted.contains_key(*name)) {
            patch.insert((*name).to_owned(), Value::Null);
        }
        for (name, after) in &wanted {
            if let Some(more) = change(held.get(name).copied(), after)? {
                overlay(patch.entry(*name).or_insert(Value::Null), more);
            }
        }
    }
    Ok(patch)
}

/// The merge patch of one field.
fn change(before: Option<&RawValue>, after: &RawValue) -> serde_json::Result<Option<Value>> {
    let tree = |text: &RawValue| serde_json::from_str::<Value>(text.get());
    match before {
        None => tree(after).map(Some),
        Some(before) if before.get() == after.get() => Ok(None),
        Some(before) => Ok(merge_diff(&tree(before)?, &tree(after)?)),
    }
}

/// Adds the fields of one difference to another; both give every field the same value.
fn overlay(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_leads_from_whatever_is_held_to_what_is_wanted() {
        let held = || vec![Arc::new(json!({"a": 1, "b": {"x": 1}})), Arc::new(json!({"a": 2, "b": {"x": 1}, "c": 1}))];
        let body = |wanted| Body::status(held(), Arc::new(wanted)).value();
        assert_eq!(body(json!({"a": 1, "b": {"x": 2}})), json!({"status": {"a": 1, "b": {"x": 2}, "c": null}}));
        assert_eq!(body(json!({"a": 2, "b": {"x": 1}})), json!({"status": {"a": 2, "c": null}}));
        let same = Body::status(vec![Arc::new(json!({"a": 1}))], Arc::new(json!({"a": 1})));
        assert_eq!(same.value(), json!({"status": {}}), "null would remove the status");
    }
}
