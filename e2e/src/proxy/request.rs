//! What a request to the API server is, from its method and path.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Uri};

use crate::control_plane::RequestKind;

/// Subresources of a namespace, which look like resources in it.
const OF_NAMESPACE: [&str; 2] = ["status", "finalize"];

/// Verb and resource as the API server counts them. A path that is no resource (`/version`) stands for itself.
pub(super) fn kind(method: &Method, uri: &Uri, headers: &HeaderMap) -> RequestKind {
    let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let rest = match segments.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] if !rest.is_empty() => rest,
        _ => return RequestKind::new(method.as_str().to_lowercase(), uri.path()),
    };
    let rest = match rest {
        ["namespaces", _name, resource, ..] if !(rest.len() == 3 && OF_NAMESPACE.contains(resource)) => &rest[2..],
        _ => rest,
    };
    let resource = match rest {
        [resource, _name, subresource, ..] => format!("{resource}/{subresource}"),
        [resource, ..] => (*resource).to_owned(),
        [] => String::new(),
    };
    RequestKind::new(verb(method, uri, headers, rest.len() > 1), resource)
}

fn verb(method: &Method, uri: &Uri, headers: &HeaderMap, named: bool) -> String {
    let is_apply = || headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
    let watches = || uri.query().unwrap_or_default().split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
    let verb = match (method.as_str(), named) {
        ("GET", _) if watches() => "watch",
        ("GET", true) => "get",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) if is_apply() => "apply",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        (other, _) => return other.to_lowercase(),
    };
    verb.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_api_servers_names() {
        let cases = [
            ("GET", "/apis/bos.hpe.com/v1alpha1/bootcomponents", "list bootcomponents"),
            ("GET", "/apis/bos.hpe.com/v1alpha1/bootcomponents?watch=true&resourceVersion=1", "watch bootcomponents"),
            ("PATCH", "/apis/bos.hpe.com/v1alpha1/bootcomponents/x3000c0s1b0n0/status?fieldManager=bos", "patch bootcomponents/status"),
            ("PUT", "/api/v1/namespaces/bos/configmaps/journal", "update configmaps"),
            ("POST", "/api/v1/namespaces/bos/configmaps", "create configmaps"),
            ("POST", "/api/v1/namespaces/bos/serviceaccounts/bos/token", "create serviceaccounts/token"),
            ("DELETE", "/apis/batch/v1/namespaces/bos/jobs/boa", "delete jobs"),
            ("DELETE", "/apis/batch/v1/namespaces/bos/jobs?labelSelector=a", "deletecollection jobs"),
            ("GET", "/api/v1/namespaces/bos", "get namespaces"),
            ("PUT", "/api/v1/namespaces/bos/finalize", "update namespaces/finalize"),
            ("GET", "/api/v1/namespaces", "list namespaces"),
            ("GET", "/apis/bos.hpe.com/v1alpha1", "get /apis/bos.hpe.com/v1alpha1"),
            ("GET", "/version", "get /version"),
        ];
        for (method, path, expected) in cases {
            let kind = kind(&method.parse().unwrap(), &path.parse().unwrap(), &HeaderMap::new());
            assert_eq!(format!("{} {}", kind.verb, kind.resource), expected, "{method} {path}");
        }
    }

    #[test]
    fn an_apply_is_not_a_patch() {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/apply-patch+yaml".parse().unwrap())]);
        let uri = "/api/v1/namespaces/a/configmaps/b".parse().unwrap();
        assert_eq!(kind(&Method::PATCH, &uri, &headers), RequestKind::new("apply", "configmaps"));
        assert_eq!(kind(&Method::PATCH, &uri, &HeaderMap::new()), RequestKind::new("patch", "configmaps"));
    }
}
