//! The image of agents: that of the operator's own pod, where the pod of agents names none. Both read each other's journals, so they
//! must be of one version; and what sets images in manifests does not look into the file.

use bos_engine::clients::{CALL_TIMEOUT, Verdict, bounded};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::{Api, Client};

/// Our container in our pod. There may be others, such as that of a mesh.
const CONTAINER: &str = "operator";

/// The pod of agents with an image, or what is missing for it.
pub(crate) async fn complete(template: &PodTemplateSpec, client: &Client, namespace: &str, pod: &str) -> Result<PodTemplateSpec, String> {
    let mut template = template.clone();
    let Some(container) = template.spec.as_mut().and_then(|spec| spec.containers.first_mut()) else { return Ok(template) };
    if container.image.as_ref().is_none_or(String::is_empty) {
        container.image = Some(own(client, namespace, pod).await?);
    }
    Ok(template)
}

async fn own(client: &Client, namespace: &str, pod: &str) -> Result<String, String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let missing = match bounded(CALL_TIMEOUT, pods.get(pod)).await {
        Ok(found) => match image(&found) {
            Some(image) => return Ok(image),
            None => format!("has no container \"{CONTAINER}\""),
        },
        Err(error) if error.verdict() == Verdict::NotFound => {
            "is not there; the identity must be the name of the operator's pod".to_owned()
        }
        Err(error) => format!("cannot be read: {}", error.message()),
    };
    Err(format!(
        "the agent template names no image, so agents get that of the operator's pod, and the pod {namespace}/{pod} {missing}. \
         Or name an image in the agent template"
    ))
}

fn image(pod: &Pod) -> Option<String> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().find(|container| container.name == CONTAINER)?.image.clone().filter(|image| !image.is_empty())
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use serde_json::{Value, json};

    use super::*;

    const PATH: &str = "/api/v1/namespaces/bos/pods/bos-operator-7";

    /// An API server that has one pod, and answers everything else with this code.
    fn server(pod: Value, otherwise: u16) -> Client {
        let answer = move |request: http::Request<kube::client::Body>| {
            let found = request.uri().path() == PATH && !pod.is_null();
            let (code, body) = if found { (200, pod.clone()) } else { (otherwise, status(otherwise)) };
            let response = http::Response::builder().status(code).body(Full::from(body.to_string()));
            async move { response }
        };
        Client::new(tower::service_fn(answer), "bos")
    }

    fn status(code: u16) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": ""})
    }

    fn pod(containers: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bos-operator-7", "namespace": "bos"}, "spec": {"containers": containers}})
    }

    fn template(image: &Value) -> PodTemplateSpec {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "boa", "image": image}, {"name": "other"}]}})).unwrap()
    }

    async fn images(template: &PodTemplateSpec, client: &Client) -> Result<Vec<Option<String>>, String> {
        let complete = complete(template, client, "bos", "bos-operator-7").await?;
        Ok(complete.spec.unwrap().containers.into_iter().map(|container| container.image).collect())
    }

    #[tokio::test]
    async fn agents_run_the_image_of_the_operator() {
        let client =
            server(pod(&json!([{"name": "mesh", "image": "mesh:2"}, {"name": "operator", "image": "registry/bos@sha256:1"}])), 404);
        for nothing in [json!(null), json!("")] {
            assert_eq!(images(&template(&nothing), &client).await, Ok(vec![Some("registry/bos@sha256:1".to_owned()), None]));
        }
    }

    #[tokio::test]
    async fn an_image_that_was_named_stays_and_nobody_is_asked() {
        let client = server(Value::Null, 500);
        assert_eq!(images(&template(&json!("mine:1")), &client).await, Ok(vec![Some("mine:1".to_owned()), None]));
    }

    #[tokio::test]
    async fn what_is_missing_is_said() {
        let other = pod(&json!([{"name": "mesh", "image": "mesh:2"}]));
        for (client, words) in [
            (server(Value::Null, 404), "the identity must be the name"),
            (server(Value::Null, 403), "cannot be read: no (403)"),
            (server(other, 404), "has no container \"operator\""),
        ] {
            let error = images(&template(&Value::Null), &client).await.unwrap_err();
            assert!(error.contains("bos/bos-operator-7") && error.contains(words), "{error}");
        }
    }
}
