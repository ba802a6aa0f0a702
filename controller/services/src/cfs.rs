//! CFS, the Configuration Framework Service: which configuration a node shall have and whether it has it.

use std::collections::HashMap;

use async_trait::async_trait;
use bos_core::xname::Xname;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::answer::{Malformed, json, or_default};
use crate::error::ServiceError;
use crate::http::{LARGE, Transport, page};

/// The configuration status that CFS computes for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigStatus {
    /// Every layer is applied.
    Configured,
    /// Some layer is still to be applied.
    Pending,
    /// CFS gave up.
    Failed,
    /// Nothing to apply. CFS says this too when the named configuration does not exist.
    Unconfigured,
    /// A word that we do not know.
    Other(String),
}

/// What CFS says about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigReading {
    /// The desired configuration; empty when none.
    pub desired: String,
    /// How far it is.
    pub status: ConfigStatus,
    /// Whether CFS acts on the node; the node itself turns this on when it is up.
    pub enabled: bool,
    /// Failed tries so far.
    pub error_count: i64,
}

/// A change to nodes in CFS; what is `None` or false stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigPatch {
    /// Whether CFS shall act on the node now.
    pub enabled: Option<bool>,
    /// The desired configuration.
    pub desired_config: Option<String>,
    /// The name of the session, kept as tag `bos_session`.
    pub session_tag: Option<String>,
    /// Forget what was applied, so that every layer runs again.
    pub clear_state: bool,
}

/// Configuration of nodes.
#[async_trait]
pub trait Configuration: Send + Sync {
    /// Whether a configuration of this name exists.
    ///
    /// # Errors
    /// When CFS cannot be asked.
    async fn configuration_exists(&self, name: &str) -> Result<bool, ServiceError>;

    /// What CFS knows about these nodes; a node it does not know is absent. An empty list is refused.
    ///
    /// # Errors
    /// When CFS cannot be asked, or a page cannot be read.
    async fn components(&self, nodes: &[Xname]) -> Result<HashMap<Xname, ConfigReading>, ServiceError>;

    /// Changes these nodes and returns those that CFS really changed (it leaves out unknown ones without a word).
    /// An empty list is refused, because to CFS it means every node of the system; so is a patch that changes nothing.
    ///
    /// # Errors
    /// When CFS cannot be asked or refuses. With more than 1000 nodes some of them may be changed nevertheless.
    async fn patch(&self, nodes: &[Xname], patch: &ConfigPatch) -> Result<Vec<Xname>, ServiceError>;
}

/// Names in one read. The names are in the URL, and CFS accepts 16 KiB of it.
const READ_BATCH: usize = 200;
/// Names in one change.
const PATCH_BATCH: usize = 1000;
/// Batches that are under way at a time.
const PARALLEL: usize = 4;

/// [`Configuration`] by CFS v3.
pub struct CfsClient {
    http: Transport,
}

impl CfsClient {
    pub(crate) const fn new(http: Transport) -> Self {
        Self { http }
    }

    async fn read_batch(&self, nodes: &[Xname]) -> Result<Vec<(Xname, ConfigReading)>, ServiceError> {
        let ids = csv(nodes);
        let mut found = Vec::with_capacity(nodes.len());
        let mut after: Option<NextWire> = None;
        // Each page brings at least one of the names that were asked for.
        for _ in 0..=nodes.len() {
            let read = page(|| self.read_page(&ids, after.as_ref())).await?;
            found.extend(read.readings);
            match read.next {
                None => return Ok(found),
                Some(next) if after.as_ref().is_some_and(|after| after.after_id >= next.after_id) => break,
                Some(next) => after = Some(next),
            }
        }
        Err(ServiceError::malformed(self.http.service(), GET_COMPONENTS, "pages without an end"))
    }

    async fn read_page(&self, ids: &str, after: Option<&NextWire>) -> Result<Page, ServiceError> {
        let mut request = self.http.read(GET_COMPONENTS, Method::GET, &["components"]).query(&[("ids", ids)]);
        // Our own names again, never those of `next`: without names CFS answers with the whole system.
        if let Some(after) = after {
            request = request.query(&[("after_id", &after.after_id)]);
            if let Some(limit) = after.limit {
                request = request.query(&[("limit", limit)]);
            }
        }
        request.largest(LARGE).parsed(parse_page).await
    }

    async fn patch_batch(&self, nodes: &[Xname], patch: &ConfigPatch) -> Result<Vec<Xname>, ServiceError> {
        let body = PatchOrder { patch: PatchWire::new(patch), filters: Filters { ids: csv(nodes) } };
        self.http.write(PATCH_COMPONENTS, Method::PATCH, &["components"]).json(&body).parsed(parse_patched).await
    }
}

const GET_COMPONENTS: &str = "get components";
const PATCH_COMPONENTS: &str = "patch components";

#[async_trait]
impl Configuration for CfsClient {
    async fn configuration_exists(&self, name: &str) -> Result<bool, ServiceError> {
        const CALL: &str = "get configuration";
        // An empty name would read the list; dots would walk up the path.
        if matches!(name, "" | "." | "..") {
            return Err(ServiceError::refused(self.http.service(), CALL, format!("{name:?} cannot be the name of a configuration")));
        }
        let request = self.http.read(CALL, Method::GET, &["configurations", name]);
        request.answer(|answer| answer.parse_or_unknown(parse_configuration)).await.map(|found| found.is_some())
    }

    async fn components(&self, nodes: &[Xname]) -> Result<HashMap<Xname, ConfigReading>, ServiceError> {
        if nodes.is_empty() {
            return Err(ServiceError::refused(self.http.service(), GET_COMPONENTS, "an empty list would read every node of the system"));
        }
        let batches: Vec<_> = nodes.chunks(READ_BATCH).map(|batch| self.read_batch(batch)).collect();
        let mut batches = stream::iter(batches).buffer_unordered(PARALLEL);
        let mut all = HashMap::with_capacity(nodes.len());
        while let Some(found) = batches.try_next().await? {
            all.extend(found);
        }
        Ok(all)
    }

    async fn patch(&self, nodes: &[Xname], patch: &ConfigPatch) -> Result<Vec<Xname>, ServiceError> {
        let refused = |why: &str| Err(ServiceError::refused(self.http.service(), PATCH_COMPONENTS, why));
        if nodes.is_empty() {
            return refused("an empty list would change every node of the system");
        }
        if *patch == ConfigPatch::default() {
            return refused("nothing to change");
        }
        let batches: Vec<_> = nodes.chunks(PATCH_BATCH).map(|batch| self.patch_batch(batch, patch)).collect();
        let changed: Vec<Vec<Xname>> = stream::iter(batches).buffered(PARALLEL).try_collect().await?;
        Ok(changed.into_iter().flatten().collect())
    }
}

fn csv(nodes: &[Xname]) -> String {
    let mut text = String::with_capacity(nodes.len() * 16);
    for node in nodes {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(node.as_str());
    }
    text
}

#[derive(Serialize)]
struct PatchOrder<'a> {
    patch: PatchWire<'a>,
    filters: Filters,
}

#[derive(Serialize)]
struct PatchWire<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired_config: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Tags<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<[(); 0]>,
}

#[derive(Serialize)]
struct Tags<'a> {
    bos_session: &'a str,
}

#[derive(Serialize)]
struct Filters {
    ids: String,
}

impl<'a> PatchWire<'a> {
    fn new(patch: &'a ConfigPatch) -> Self {
        Self {
            enabled: patch.enabled,
            desired_config: patch.desired_config.as_deref(),
            tags: patch.session_tag.as_deref().map(|bos_session| Tags { bos_session }),
            state: patch.clear_state.then_some([]),
        }
    }
}

#[derive(Deserialize)]
struct PageWire {
    components: Vec<ComponentWire>,
    #[serde(default)]
    next: Option<NextWire>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct NextWire {
    after_id: String,
    #[serde(default)]
    limit: Option<u64>,
}

#[derive(Deserialize)]
struct ComponentWire {
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    desired_config: String,
    configuration_status: String,
    enabled: bool,
    #[serde(default, deserialize_with = "or_default")]
    error_count: i64,
}

#[derive(Deserialize)]
struct PatchedWire {
    component_ids: Vec<String>,
}

#[derive(Deserialize)]
struct ConfigurationWire {
    // Read so that an answer about something else is noticed.
    #[serde(rename = "name")]
    _name: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Page {
    readings: Vec<(Xname, ConfigReading)>,
    next: Option<NextWire>,
}

fn parse_page(body: &[u8]) -> Result<Page, Malformed> {
    let wire: PageWire = json(body)?;
    let readings = wire.components.into_iter().filter_map(|entry| Some((Xname::parse(&entry.id).ok()?, reading(entry)))).collect();
    Ok(Page { readings, next: wire.next })
}

fn reading(entry: ComponentWire) -> ConfigReading {
    let status = match entry.configuration_status.to_ascii_lowercase().as_str() {
        "configured" => ConfigStatus::Configured,
        "pending" => ConfigStatus::Pending,
        "failed" => ConfigStatus::Failed,
        "unconfigured" => ConfigStatus::Unconfigured,
        _ => ConfigStatus::Other(crate::error::tidy(&entry.configuration_status)),
    };
    ConfigReading { desired: entry.desired_config, status, enabled: entry.enabled, error_count: entry.error_count }
}

fn parse_patched(body: &[u8]) -> Result<Vec<Xname>, Malformed> {
    let wire: PatchedWire = json(body)?;
    Ok(wire.component_ids.iter().filter_map(|id| Xname::parse(id).ok()).collect())
}

fn parse_configuration(body: &[u8]) -> Result<(), Malformed> {
    json::<ConfigurationWire>(body).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x(name: &str) -> Xname {
        Xname::parse(name).unwrap()
    }

    #[test]
    fn reads_a_page() {
        let page = parse_page(
            br#"{"components":[
              {"id":"x3000c0s1b0n0","desired_config":"cfg1","configuration_status":"pending","enabled":false,"error_count":2,"retry_policy":3,
               "tags":{"bos_session":"s1"},"logs":"ara/hosts?name=x3000c0s1b0n0"},
              {"id":"X3000C0S02B0N0","desired_config":"","configuration_status":"UNCONFIGURED","enabled":true,"error_count":null},
              {"id":"x3000c0s3b0n0","desired_config":null,"configuration_status":"resting","enabled":true},
              {"id":"login-1","desired_config":"","configuration_status":"configured","enabled":true,"error_count":0}],
              "next":{"after_id":"x3000c0s3b0n0","limit":2,"ids":"","status":"","enabled":null,"config_name":"","tags":"","state_details":false,"config_details":false}}"#,
        )
        .unwrap();
        let reading =
            |desired: &str, status, enabled, error_count| ConfigReading { desired: desired.to_owned(), status, enabled, error_count };
        assert_eq!(
            page.readings,
            [
                (x("x3000c0s1b0n0"), reading("cfg1", ConfigStatus::Pending, false, 2)),
                (x("x3000c0s2b0n0"), reading("", ConfigStatus::Unconfigured, true, 0)),
                (x("x3000c0s3b0n0"), reading("", ConfigStatus::Other("resting".to_owned()), true, 0)),
            ]
        );
        assert_eq!(page.next, Some(NextWire { after_id: "x3000c0s3b0n0".to_owned(), limit: Some(2) }));
        assert_eq!(parse_page(br#"{"components":[],"next":null}"#).unwrap(), Page { readings: vec![], next: None });
    }

    #[test]
    fn a_wrong_page_is_an_error() {
        for body in [
            &b""[..],
            b"[]",
            b"{}",
            br#"{"components":null}"#,
            br#"{"components":[{"id":"x1c0s0b0n0","enabled":true}]}"#,
            br#"{"components":[{"id":"x1c0s0b0n0","configuration_status":"pending"}]}"#,
            br#"{"components":[],"next":{"limit":2}}"#,
        ] {
            assert!(parse_page(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_patch_says_only_what_changes() {
        let wire = |patch: &ConfigPatch| serde_json::to_string(&PatchWire::new(patch)).unwrap();
        let all = ConfigPatch {
            enabled: Some(false),
            desired_config: Some("cfg1".to_owned()),
            session_tag: Some("s1".to_owned()),
            clear_state: true,
        };
        assert_eq!(wire(&all), r#"{"enabled":false,"desired_config":"cfg1","tags":{"bos_session":"s1"},"state":[]}"#);
        assert_eq!(wire(&ConfigPatch { enabled: Some(true), ..ConfigPatch::default() }), r#"{"enabled":true}"#);
    }

    #[test]
    fn reads_what_was_changed() {
        assert_eq!(parse_patched(br#"{"component_ids":["x1c0s0b0n0"]}"#).unwrap(), [x("x1c0s0b0n0")]);
        assert_eq!(parse_patched(br#"{"component_ids":[]}"#).unwrap(), []);
        for body in [&b"[]"[..], b"{}", br#"{"component_ids":null}"#] {
            assert!(parse_patched(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
}
