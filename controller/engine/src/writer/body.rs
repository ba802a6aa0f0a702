//! What a write says. It is worked out when it is sent: most statuses are replaced before that, and a body weighs more than
//! what it is made of.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bos_crds::merge_diff;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// The merge patch of the part of an object that is written, or that part of a new object, as text.
#[derive(Clone)]
pub struct Body(Arc<dyn Fn() -> serde_json::Result<Box<RawValue>> + Send + Sync>);

impl Body {
    /// The merge patch that makes a status out of any of those that the server may hold.
    pub fn status<S: Serialize + Send + Sync + 'static>(held: Vec<Arc<S>>, wanted: Arc<S>) -> Self {
        Self(Arc::new(move || difference(&held, &*wanted)))
    }

    /// As the API server takes it.
    ///
    /// # Errors
    /// When it cannot be JSON. That of our own types, whose keys are text, always can.
    pub fn text(&self) -> serde_json::Result<Box<RawValue>> {
        (self.0)()
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self(Arc::new(move || to_raw_value(&value)))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Body").field(&self.text()).finish()
    }
}

/// The fields of an object, as they are written.
type Fields<'a> = BTreeMap<&'a str, &'a RawValue>;

/// A status has about as many bytes.
const USUAL_BYTES: usize = 2048;

fn text<S: Serialize>(status: &S) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut text, status)?;
    Ok(text)
}

/// Most fields are equal, which their text tells; general trees of everything cost a tenth of the operator's CPU.
fn difference<S: Serialize>(held: &[Arc<S>], wanted: &S) -> serde_json::Result<Box<RawValue>> {
    let wanted = text(wanted)?;
    let wanted: Fields<'_> = serde_json::from_slice(&wanted)?;
    let held: Vec<Vec<u8>> = held.iter().map(|held| text(&**held)).collect::<Result<_, _>>()?;
    let held: Vec<Fields<'_>> = held.iter().map(|held| serde_json::from_slice(held)).collect::<Result<_, _>>()?;
    let gone = held.iter().flat_map(Fields::keys).filter(|name| !wanted.contains_key(*name));
    let mut patch: BTreeMap<&str, Cow<'_, RawValue>> = gone.map(|name| (*name, Cow::Borrowed(RawValue::NULL))).collect();
    for (name, after) in &wanted {
        let others: Vec<_> =
            held.iter().map(|held| held.get(name).copied()).filter(|before| before.map(RawValue::get) != Some(after.get())).collect();
        if !others.is_empty() {
            patch.insert(name, change(&others, after)?);
        }
    }
    to_raw_value(&patch)
}

/// The merge patch that makes one field out of each of these.
fn change<'a>(others: &[Option<&RawValue>], after: &'a RawValue) -> serde_json::Result<Cow<'a, RawValue>> {
    if !is_object(after) {
        // It replaces whatever is there.
        return Ok(Cow::Borrowed(after));
    }
    let tree = |text: &RawValue| serde_json::from_str::<Value>(text.get());
    let after = tree(after)?;
    let mut patch = Value::Object(serde_json::Map::new());
    for other in others {
        let more = match other.filter(|other| is_object(other)) {
            Some(before) => merge_diff(&tree(before)?, &after),
            None => Some(after.clone()),
        };
        if let Some(more) = more {
            overlay(&mut patch, more);
        }
    }
    to_raw_value(&patch).map(Cow::Owned)
}

fn is_object(text: &RawValue) -> bool {
    text.get().starts_with('{')
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
    use serde_json::json;

    use super::*;

    fn patch(held: &[Value], wanted: Value) -> Value {
        let body = Body::status(held.iter().cloned().map(Arc::new).collect(), Arc::new(wanted));
        serde_json::from_str(body.text().unwrap().get()).unwrap()
    }

    #[test]
    fn a_patch_leads_from_whatever_is_held_to_what_is_wanted() {
        let held = [json!({"a": 1, "b": {"x": 1}}), json!({"a": 2, "b": {"x": 1}, "c": 1})];
        assert_eq!(patch(&held, json!({"a": 1, "b": {"x": 2}})), json!({"a": 1, "b": {"x": 2}, "c": null}));
        assert_eq!(patch(&held, json!({"a": 2, "b": {"x": 1}})), json!({"a": 2, "c": null}));
        assert_eq!(patch(&held[..1], held[0].clone()), json!({}), "null would remove the status");
    }

    #[test]
    fn lists_are_replaced_as_a_whole_and_objects_field_by_field() {
        let held = [json!({"a": [1, 2], "b": [1], "c": {"x": 1}}), json!({"b": [1], "c": {"y": 1}}), json!({"b": [1], "c": 1})];
        assert_eq!(patch(&held[..1], json!({"a": [2], "b": [1], "c": 1})), json!({"a": [2], "c": 1}));
        assert_eq!(patch(&held, json!({"b": [1], "c": {"z": 2}})), json!({"a": null, "c": {"x": null, "y": null, "z": 2}}));
    }
}
