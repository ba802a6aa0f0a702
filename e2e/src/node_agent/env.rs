//! Environment, command and arguments of a container, with `$(NAME)` replaced as the kubelet does it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

use super::objects::{Data, Objects, field};

/// The environment of a container: what every container has, then its own.
pub(super) async fn environment(
    pod: &Pod,
    container: &Container,
    api_server: SocketAddr,
    objects: &Objects,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::from([
        ("HOSTNAME".to_owned(), pod.metadata.name.clone().unwrap_or_default()),
        ("KUBERNETES_SERVICE_HOST".to_owned(), api_server.ip().to_string()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), api_server.port().to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), api_server.port().to_string()),
    ]);
    for variable in container.env.iter().flatten() {
        // A value may name what was set before it.
        if let Some(value) = value(pod, variable, &env, objects).await? {
            env.insert(variable.name.clone(), value);
        }
    }
    Ok(env)
}

/// Command and arguments of a container.
pub(super) fn command(container: &Container, env: &BTreeMap<String, String>) -> Vec<String> {
    let words = container.command.iter().flatten().chain(container.args.iter().flatten());
    words.map(|word| expand(word, env)).collect()
}

async fn value(pod: &Pod, variable: &EnvVar, env: &BTreeMap<String, String>, objects: &Objects) -> anyhow::Result<Option<String>> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), env)));
    };
    if let Some(selector) = &source.field_ref {
        return field(pod, selector).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let data = objects.config_map(&key.name, optional).await?;
        return pick(data, &key.key, optional, || format!("ConfigMap {}", key.name));
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let data = objects.secret(&key.name, optional).await?;
        return pick(data, &key.key, optional, || format!("Secret {}", key.name));
    }
    anyhow::bail!("the test node agent knows no such source of the variable {}", variable.name)
}

fn pick(data: Option<Data>, key: &str, optional: bool, object: impl Fn() -> String) -> anyhow::Result<Option<String>> {
    let Some(bytes) = data.and_then(|mut data| data.remove(key)) else {
        anyhow::ensure!(optional, "couldn't find key {key} in {}", object());
        return Ok(None);
    };
    String::from_utf8(bytes).map(Some).with_context(|| format!("key {key} of {} is not text", object()))
}

/// Replaces `$(NAME)` where NAME is set; `$$` stands for `$`.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let name = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some(behind) = rest.strip_prefix('$') {
            out.push('$');
            rest = behind;
        } else if let Some((value, behind)) = name.and_then(|(name, behind)| Some((env.get(name)?, behind))) {
            out.push_str(value);
            rest = behind;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_replaced_and_the_rest_left() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        let cases =
            [("$(A)/$(A)", "1/1"), ("$(B)", "$(A)"), ("$$(A) $$$(A)", "$(A) $1"), ("$(C) $(A", "$(C) $(A"), ("$A ${A} 5$", "$A ${A} 5$")];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env), expected);
        }
    }
}
