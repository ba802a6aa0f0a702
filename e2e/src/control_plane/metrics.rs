//! How many requests the API server has answered, by verb and resource, from its own metrics.

use std::collections::BTreeMap;

/// What kind of request it was, in the API server's own words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKind {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `apply`, `delete`, `deletecollection`.
    pub verb: String,
    /// The plural, with the subresource where there is one: `bootcomponents/status`.
    pub resource: String,
}

impl RequestKind {
    /// This verb on this resource.
    pub fn new(verb: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { verb: verb.into(), resource: resource.into() }
    }

    /// Whether it can change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// Numbers of requests by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestTotals(pub BTreeMap<RequestKind, u64>);

impl RequestTotals {
    /// Reads `apiserver_request_total` from the metrics text.
    pub(super) fn parse(metrics: &str) -> Self {
        let mut totals = Self::default();
        for line in metrics.lines() {
            if let Some((kind, count)) = parse_line(line) {
                *totals.0.entry(kind).or_default() += count;
            }
        }
        totals
    }

    /// What has come since an earlier look. After a restart of the server, all of it.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |(kind, count): (&RequestKind, &u64)| {
            let before = earlier.0.get(kind).copied().filter(|before| before <= count).unwrap_or(0);
            (*count > before).then(|| (kind.clone(), count - before))
        };
        Self(self.0.iter().filter_map(difference).collect())
    }

    /// How many of this kind.
    pub fn of(&self, verb: &str, resource: &str) -> u64 {
        self.0.get(&RequestKind::new(verb, resource)).copied().unwrap_or(0)
    }

    /// Only those that can change something.
    #[must_use]
    pub fn writes(&self) -> Self {
        Self(self.0.iter().filter(|(kind, _)| kind.is_write()).map(|(kind, count)| (kind.clone(), *count)).collect())
    }

    /// How many in all.
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }
}

fn parse_line(line: &str) -> Option<(RequestKind, u64)> {
    let (labels, value) = line.strip_prefix("apiserver_request_total{")?.split_once("} ")?;
    let label = |name: &str| {
        let (_, rest) = labels.split(',').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))?.1.split_once('"')?;
        rest.strip_suffix('"').map(str::to_owned)
    };
    let resource = label("resource").filter(|resource| !resource.is_empty())?;
    let resource = match label("subresource") {
        Some(subresource) if !subresource.is_empty() => format!("{resource}/{subresource}"),
        _ => resource,
    };
    // A count; large ones are printed as 1.2e+06. What a test makes is far below where that loses digits.
    let count: f64 = value.split_whitespace().next()?.parse().ok()?;
    let verb = match label("verb")?.to_lowercase().as_str() {
        "post" => String::from("create"),
        "put" => String::from("update"),
        "delete" if label("scope")? != "resource" => String::from("deletecollection"),
        verb => verb.to_owned(),
    };
    Some((RequestKind::new(verb, resource), count as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"# HELP apiserver_request_total Counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="bos.hpe.com",resource="bootcomponents",scope="resource",subresource="status",verb="PATCH",version="v1alpha1"} 7
apiserver_request_total{code="409",component="apiserver",dry_run="",group="bos.hpe.com",resource="bootcomponents",scope="resource",subresource="status",verb="PATCH",version="v1alpha1"} 2
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="cluster",subresource="",verb="LIST",version="v1"} 1.5e+01
apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/healthz",verb="GET",version=""} 99
apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 4
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="PUT",version="v1"} 5
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="DELETE",version="v1"} 6
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="DELETE",version="v1"} 8
apiserver_other_total{resource="pods",verb="LIST"} 3
"#;

    #[test]
    fn sums_over_codes_and_names_subresources() {
        let totals = RequestTotals::parse(METRICS);
        assert_eq!(totals.0.len(), 6);
        assert_eq!((totals.of("delete", "configmaps"), totals.of("deletecollection", "configmaps")), (6, 8));
        assert_eq!((totals.of("create", "configmaps"), totals.of("update", "configmaps")), (4, 5));
        assert_eq!(totals.of("patch", "bootcomponents/status"), 9);
        assert_eq!(totals.of("list", "pods"), 15);
        assert_eq!((totals.sum(), totals.writes().sum()), (47, 32));
    }

    #[test]
    fn a_difference_survives_a_restart_of_the_server() {
        let count = |n| RequestTotals(BTreeMap::from([(RequestKind::new("create", "sessions"), n)]));
        assert_eq!(count(9).since(&count(4)), count(5));
        assert_eq!(count(3).since(&count(4)), count(3));
        assert_eq!(count(4).since(&count(4)), RequestTotals::default());
    }
}
