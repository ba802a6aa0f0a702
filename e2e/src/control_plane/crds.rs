//! Which paths the API server serves once a CRD is in force.

use anyhow::Context as _;
use serde::Deserialize;

/// One CRD, as far as waiting for it needs.
#[derive(Debug, PartialEq)]
pub(super) struct Crd {
    /// Its name, `sessions.bos.hpe.com`.
    pub(super) name: String,
    group: String,
    plural: String,
    version: String,
}

impl Crd {
    /// Where the description of its group's fields lies, which `kubectl explain` reads.
    pub(super) fn openapi_path(&self) -> String {
        format!("/openapi/v3/apis/{}/{}", self.group, self.version)
    }

    /// The path of all its objects, with the quotes that it has in that description.
    pub(super) fn path(&self) -> String {
        format!("\"/apis/{}/{}/{}\"", self.group, self.version, self.plural)
    }
}

/// The CRDs that `kubectl apply -o json` has printed: one object or a list.
pub(super) fn parse(applied: &str) -> anyhow::Result<Vec<Crd>> {
    let applied: serde_json::Value = serde_json::from_str(applied).context("what kubectl apply printed")?;
    let objects = applied.get("items").and_then(|items| items.as_array().cloned()).unwrap_or_else(|| vec![applied.clone()]);
    objects.into_iter().filter(|object| object["kind"] == "CustomResourceDefinition").map(crd).collect()
}

fn crd(object: serde_json::Value) -> anyhow::Result<Crd> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Name,
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        group: String,
        names: Names,
        versions: Vec<Name>,
    }
    #[derive(Deserialize)]
    struct Names {
        plural: String,
    }
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    let Object { metadata, spec } = serde_json::from_value(object).context("a CRD")?;
    let version = spec.versions.into_iter().next_back().context("a CRD without versions")?.name;
    Ok(Crd { name: metadata.name, group: spec.group, plural: spec.names.plural, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_list_and_a_single_object() {
        let object = r#"{"kind":"CustomResourceDefinition","metadata":{"name":"as.b"},"spec":{"group":"b","names":{"plural":"as"},"versions":[{"name":"v1"}]}}"#;
        let expected = parse(object).unwrap();
        assert_eq!(expected[0].path(), "\"/apis/b/v1/as\"");
        assert_eq!(parse(&format!(r#"{{"kind":"List","items":[{object},{{"kind":"Namespace"}}]}}"#)).unwrap(), expected);
    }
}
