//! HSM, the Hardware State Manager: which nodes there are, their roles, groups, partitions and locks.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use bos_core::xname::Xname;
use reqwest::Method;
use serde::{Deserialize, Deserializer, Serialize};

use crate::answer::{Malformed, json, optional_text, or_default};
use crate::error::{ErrorKind, ServiceError};
use crate::http::{LARGE, Transport};

/// A node as HSM knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The node.
    pub xname: Xname,
    /// The node id; absent on nodes that have none.
    pub nid: Option<i64>,
    /// For example `Compute`; absent where HSM has none.
    pub role: Option<String>,
    /// For example `Worker`.
    pub sub_role: Option<String>,
    /// `X86`, `ARM`, `Other` or `UNKNOWN`; a node that was never discovered has none.
    pub arch: Option<String>,
    /// For example `Ready`. It does not follow power by itself: ask PCS for power.
    pub state: Option<String>,
    /// Whether the node is enabled in HSM; `None` when HSM does not say.
    pub enabled: Option<bool>,
    /// Whether an administrator has locked the node.
    pub locked: bool,
    /// `River`, `Mountain` or `Hill`.
    pub class: Option<String>,
}

/// All nodes of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Components {
    /// The nodes, ordered by name, each once.
    pub nodes: Vec<Component>,
    /// How many components of type Node had an id that is not the name of a node; they are left out of `nodes`.
    pub skipped: usize,
}

/// A network interface of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The node.
    pub xname: Xname,
    /// Its hardware address, as HSM writes it, in lower case.
    pub mac: String,
}

/// A group of HSM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The label.
    pub label: String,
    /// The members that are nodes; a group may hold other hardware too.
    pub members: Vec<Xname>,
}

/// A partition of HSM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The name, `pN` or `pN.M`.
    pub name: String,
    /// The members that are nodes.
    pub members: Vec<Xname>,
}

/// The inventory. Every read is whole or an error: half an inventory is a fault, never an answer.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Every node.
    ///
    /// # Errors
    /// When HSM cannot be asked, or one entry of the answer cannot be read.
    async fn components(&self) -> Result<Components, ServiceError>;

    /// The hardware addresses of every node, as far as HSM has discovered them.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    async fn interfaces(&self) -> Result<Vec<Interface>, ServiceError>;

    /// Every group.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    async fn groups(&self) -> Result<Vec<Group>, ServiceError>;

    /// Every partition.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    async fn partitions(&self) -> Result<Vec<Partition>, ServiceError>;

    /// Every node that is locked now.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    async fn locked(&self) -> Result<BTreeSet<Xname>, ServiceError>;

    /// The states of these nodes, for example `Ready`; nodes HSM does not know are left out. An empty list is refused.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    async fn states(&self, nodes: &[Xname]) -> Result<HashMap<Xname, String>, ServiceError>;

    /// Those of these nodes that are locked or reserved now: a power service refuses to switch them.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    async fn held(&self, nodes: &[Xname]) -> Result<BTreeSet<Xname>, ServiceError>;
}

/// [`Inventory`] by HSM v2.
pub struct HsmClient {
    http: Transport,
}

impl HsmClient {
    pub(crate) const fn new(http: Transport) -> Self {
        Self { http }
    }
}

#[async_trait]
impl Inventory for HsmClient {
    async fn components(&self) -> Result<Components, ServiceError> {
        let request = self.http.read("get components", Method::GET, &["State", "Components"]);
        request.query(&[("type", "Node")]).largest(LARGE).parsed(parse_components).await
    }

    async fn interfaces(&self) -> Result<Vec<Interface>, ServiceError> {
        let request = self.http.read("get interfaces", Method::GET, &["Inventory", "EthernetInterfaces"]);
        request.query(&[("Type", "Node")]).largest(LARGE).parsed(parse_interfaces).await
    }

    async fn groups(&self) -> Result<Vec<Group>, ServiceError> {
        self.http.read("get groups", Method::GET, &["groups"]).largest(LARGE).parsed(parse_groups).await
    }

    async fn partitions(&self) -> Result<Vec<Partition>, ServiceError> {
        self.http.read("get partitions", Method::GET, &["partitions"]).largest(LARGE).parsed(parse_partitions).await
    }

    async fn locked(&self) -> Result<BTreeSet<Xname>, ServiceError> {
        let request = self.http.read("get locks", Method::GET, &["locks", "status"]);
        let request = request.query(&[("type", "Node"), ("locked", "True")]).largest(LARGE);
        request
            .answer(|answer| match answer.parse(parse_locked) {
                // HSM before 2.45 says this when no node is locked.
                Err(error) if error.kind == ErrorKind::Rejected(400) && error.detail.contains("Component not found") => Ok(BTreeSet::new()),
                result => result,
            })
            .await
    }

    async fn states(&self, nodes: &[Xname]) -> Result<HashMap<Xname, String>, ServiceError> {
        const CALL: &str = "post components query";
        if nodes.is_empty() {
            return Err(ServiceError::refused(self.http.service(), CALL, "no nodes"));
        }
        let request = self.http.read(CALL, Method::POST, &["State", "Components", "Query"]);
        let found = request.json(&OfNodes { nodes }).largest(LARGE).parsed(parse_components).await?;
        Ok(found.nodes.into_iter().map(|node| (node.xname, node.state.unwrap_or_default())).collect())
    }

    async fn held(&self, nodes: &[Xname]) -> Result<BTreeSet<Xname>, ServiceError> {
        const CALL: &str = "post locks";
        if nodes.is_empty() {
            return Err(ServiceError::refused(self.http.service(), CALL, "no nodes"));
        }
        let request = self.http.read(CALL, Method::POST, &["locks", "status"]).json(&OfNodes { nodes }).largest(LARGE);
        request.parsed(parse_held).await
    }
}

#[derive(Serialize)]
struct OfNodes<'a> {
    #[serde(rename = "ComponentIDs")]
    nodes: &'a [Xname],
}

#[derive(Deserialize)]
struct ComponentsWire<'a> {
    #[serde(rename = "Components", borrow)]
    components: Vec<ComponentWire<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ComponentWire<'a> {
    #[serde(rename = "ID", borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(rename = "NID", default, deserialize_with = "nid")]
    nid: Option<i64>,
    #[serde(default, deserialize_with = "optional_text")]
    role: Option<String>,
    #[serde(default, deserialize_with = "optional_text")]
    sub_role: Option<String>,
    #[serde(default, deserialize_with = "optional_text")]
    arch: Option<String>,
    #[serde(default, deserialize_with = "optional_text")]
    state: Option<String>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    locked: bool,
    #[serde(default, deserialize_with = "optional_text")]
    class: Option<String>,
}

#[derive(Deserialize)]
struct MembersWire<'a> {
    // Go prints an empty list as null now and then.
    #[serde(default, borrow, deserialize_with = "or_default")]
    ids: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct GroupWire<'a> {
    label: String,
    #[serde(borrow)]
    members: MembersWire<'a>,
}

#[derive(Deserialize)]
struct PartitionWire<'a> {
    name: String,
    #[serde(borrow)]
    members: MembersWire<'a>,
}

#[derive(Deserialize)]
struct InterfaceWire<'a> {
    #[serde(rename = "MACAddress", borrow, default)]
    mac: Cow<'a, str>,
    #[serde(rename = "ComponentID", borrow, default)]
    component: Cow<'a, str>,
}

#[derive(Deserialize)]
struct LocksWire<'a> {
    #[serde(rename = "Components", borrow)]
    components: Vec<LockWire<'a>>,
}

#[derive(Deserialize)]
struct LockWire<'a> {
    #[serde(rename = "ID", borrow)]
    id: Cow<'a, str>,
    #[serde(rename = "Locked")]
    locked: bool,
    #[serde(rename = "Reserved", default)]
    reserved: bool,
}

/// A node id is a number, in some versions as text; none may be absent, null or an empty text.
fn nid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Nid {
        Number(i64),
        Text(String),
    }
    match Option::<Nid>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Nid::Number(number)) => Ok(Some(number)),
        Some(Nid::Text(text)) if text.is_empty() => Ok(None),
        Some(Nid::Text(text)) => text.parse().map(Some).map_err(|_| serde::de::Error::custom(format!("NID {text:?} is not a number"))),
    }
}

fn parse_components(body: &[u8]) -> Result<Components, Malformed> {
    let wire: ComponentsWire<'_> = json(body)?;
    let mut found = Components::default();
    found.nodes.reserve(wire.components.len());
    for entry in wire.components {
        if !entry.r#type.eq_ignore_ascii_case("Node") {
            continue;
        }
        match Xname::parse(&entry.id) {
            Ok(xname) => found.nodes.push(component(xname, entry)),
            Err(_) => found.skipped += 1,
        }
    }
    found.nodes.sort_unstable_by(|a, b| a.xname.cmp(&b.xname));
    found.nodes.dedup();
    // Two entries that differ: we cannot know which one holds.
    if let Some(pair) = found.nodes.windows(2).find(|pair| matches!(pair, [a, b] if a.xname == b.xname)) {
        let name = pair.first().map(|node| node.xname.to_string()).unwrap_or_default();
        return Err(Malformed(format!("{name} is there twice, with different facts")));
    }
    Ok(found)
}

fn component(xname: Xname, wire: ComponentWire<'_>) -> Component {
    Component {
        xname,
        nid: wire.nid,
        role: wire.role,
        sub_role: wire.sub_role,
        arch: wire.arch,
        state: wire.state,
        enabled: wire.enabled,
        locked: wire.locked,
        class: wire.class,
    }
}

fn nodes_of(members: &MembersWire<'_>) -> Vec<Xname> {
    members.ids.iter().filter_map(|id| Xname::parse(id).ok()).collect()
}

/// Interfaces that HSM can give to no node are of no use here.
fn parse_interfaces(body: &[u8]) -> Result<Vec<Interface>, Malformed> {
    let wire: Vec<InterfaceWire<'_>> = json(body)?;
    let interface = |wire: InterfaceWire<'_>| {
        let mac = wire.mac.trim().to_ascii_lowercase();
        (!mac.is_empty()).then_some(())?;
        Some(Interface { xname: Xname::parse(&wire.component).ok()?, mac })
    };
    Ok(wire.into_iter().filter_map(interface).collect())
}

fn parse_groups(body: &[u8]) -> Result<Vec<Group>, Malformed> {
    let wire: Vec<GroupWire<'_>> = json(body)?;
    Ok(wire.into_iter().map(|group| Group { members: nodes_of(&group.members), label: group.label }).collect())
}

fn parse_partitions(body: &[u8]) -> Result<Vec<Partition>, Malformed> {
    let wire: Vec<PartitionWire<'_>> = json(body)?;
    Ok(wire.into_iter().map(|partition| Partition { members: nodes_of(&partition.members), name: partition.name }).collect())
}

fn parse_locked(body: &[u8]) -> Result<BTreeSet<Xname>, Malformed> {
    let wire: LocksWire<'_> = json(body)?;
    // Filtered here as well: a service that ignores the filter must not lock the whole system.
    Ok(wire.components.iter().filter(|entry| entry.locked).filter_map(|entry| Xname::parse(&entry.id).ok()).collect())
}

fn parse_held(body: &[u8]) -> Result<BTreeSet<Xname>, Malformed> {
    let wire: LocksWire<'_> = json(body)?;
    let held = wire.components.iter().filter(|entry| entry.locked || entry.reserved);
    Ok(held.filter_map(|entry| Xname::parse(&entry.id).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x(name: &str) -> Xname {
        Xname::parse(name).unwrap()
    }

    #[test]
    fn reads_a_full_and_a_bare_component() {
        let found = parse_components(
            br#"{"Components":[
              {"ID":"x3000c0s19b1n0","Type":"Node","State":"Ready","Flag":"OK","Enabled":true,"Role":"Compute","SubRole":"Worker","NID":1,
               "NetType":"Sling","Arch":"X86","Class":"River","SoftwareStatus":"AdminDown","ReservationDisabled":true,"Locked":true},
              {"ID":"X3000C0S01B0N0","Type":"Node","NID":"49168512","Role":"","Enabled":null},
              {"ID":"x3000c0s1b0","Type":"NodeBMC","State":"Ready"}]}"#,
        )
        .unwrap();
        assert_eq!(found.skipped, 0);
        let bare = Component {
            xname: x("x3000c0s1b0n0"),
            nid: Some(49_168_512),
            role: None,
            sub_role: None,
            arch: None,
            state: None,
            enabled: None,
            locked: false,
            class: None,
        };
        let full = Component {
            xname: x("x3000c0s19b1n0"),
            nid: Some(1),
            role: Some("Compute".to_owned()),
            sub_role: Some("Worker".to_owned()),
            arch: Some("X86".to_owned()),
            state: Some("Ready".to_owned()),
            enabled: Some(true),
            locked: true,
            class: Some("River".to_owned()),
        };
        assert_eq!(found.nodes, [full, bare]);
    }

    #[test]
    fn half_an_inventory_is_no_inventory() {
        for body in [
            &b""[..],
            b"{}",
            b"[]",
            br#"{"Components":null}"#,
            br#"{"components":[]}"#,
            br#"{"Components":[{"Type":"Node"}]}"#,
            br#"{"Components":[{"ID":"x1c0s0b0n0"}]}"#,
            br#"{"Components":[{"ID":"x1c0s0b0n0","Type":"Node","NID":"one"}]}"#,
            br#"{"Components":[{"ID":"x1c0s0b0n0","Type":"Node","Enabled":"true"}]}"#,
            br#"{"Components":[{"ID":"x1c0s0b0n0","Type":"Node"}"#,
            br#"{"Components":[{"ID":"x1c0s0b0n0","Type":"Node","Role":"Compute"},{"ID":"x1c0s0b0n0","Type":"Node","Role":"Management"}]}"#,
            b"<html>login</html>",
        ] {
            assert!(parse_components(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(parse_components(br#"{"Components":[]}"#).unwrap(), Components::default());
    }

    #[test]
    fn an_unreadable_name_is_counted_and_a_repetition_is_one_node() {
        let found = parse_components(
            br#"{"Components":[{"ID":"x1c0s0b0n0","Type":"Node"},{"ID":"nid000001","Type":"Node"},{"ID":"X1c0s00b0n0","Type":"node"}]}"#,
        )
        .unwrap();
        assert_eq!((found.nodes.len(), found.skipped), (1, 1));
    }

    #[test]
    fn reads_groups_and_partitions() {
        let groups = parse_groups(
            br#"[{"label":"blue","description":"d","tags":["t1"],"exclusiveGroup":"colors","members":{"ids":["x3000c0s1b0n0","x3000c0s1b0"]}},
                 {"label":"none","members":{"ids":[]}},{"label":"null","members":{"ids":null}}]"#,
        )
        .unwrap();
        let sizes: Vec<_> = groups.iter().map(|group| (group.label.as_str(), group.members.len())).collect();
        assert_eq!(sizes, [("blue", 1), ("none", 0), ("null", 0)]);
        assert_eq!(parse_groups(b"[]").unwrap(), []);
        for body in [&b"null"[..], b"{}", br#"[{"label":"a"}]"#, br#"[{"members":{"ids":[]}}]"#] {
            assert!(parse_groups(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        let partitions = parse_partitions(br#"[{"name":"p1","description":"d","members":{"ids":["x3000c0s1b0n0"]}}]"#).unwrap();
        assert_eq!(partitions, [Partition { name: "p1".to_owned(), members: vec![x("x3000c0s1b0n0")] }]);
    }

    #[test]
    fn reads_locks() {
        let body = br#"{"Components":[{"ID":"x3000c0s2b0n0","Locked":true,"Reserved":false,"CreationTime":"2026-11-22T11:03:07Z","ReservationDisabled":false},
            {"ID":"x3000c0s3b0n0","Locked":false,"Reserved":true,"ReservationDisabled":false},
            {"ID":"x3000c0s4b0n0","Locked":false,"Reserved":false,"ReservationDisabled":false}],"NotFound":["x9c0s0b0n0"]}"#;
        let locked = parse_locked(body).unwrap();
        let held = parse_held(body).unwrap();
        assert_eq!(held.into_iter().collect::<Vec<_>>(), [x("x3000c0s2b0n0"), x("x3000c0s3b0n0")]);
        assert_eq!(locked.into_iter().collect::<Vec<_>>(), [x("x3000c0s2b0n0")]);
        assert!(parse_locked(br#"{"Components":[]}"#).unwrap().is_empty());
        for body in [&b"{}"[..], br#"{"Components":[{"ID":"x3000c0s2b0n0"}]}"#, br#"{"Components":null}"#] {
            assert!(parse_locked(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn interfaces_of_nodes_with_an_address_are_read() {
        let body = br#"[
            {"ID": "0040a6000001", "MACAddress": "00:40:A6:00:00:01", "ComponentID": "x1000c0s0b0n0", "Type": "Node", "IPAddresses": []},
            {"ID": "0040a6000002", "MACAddress": "00:40:a6:00:00:02", "ComponentID": "x1000c0s0b0", "Type": "NodeBMC"},
            {"ID": "", "MACAddress": "", "ComponentID": "x1000c0s0b0n1"},
            {"ID": "0040a6000004", "MACAddress": "00:40:a6:00:00:04", "ComponentID": ""}
        ]"#;
        let expected = Interface { xname: x("x1000c0s0b0n0"), mac: "00:40:a6:00:00:01".to_owned() };
        assert_eq!(parse_interfaces(body).unwrap(), [expected]);
    }
}
