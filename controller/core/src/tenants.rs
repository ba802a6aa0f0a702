//! Tenants of the machine, as TAPMS knows them: Sessions in a tenant's namespaces act on the tenant's nodes alone.
//!
//! BOS asks TAPMS at each request and trusts a header for the name of the tenant (BOS behaviour §16). Here the namespace is the
//! tenant, so who may create objects in it is the API server's business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::World;
use crate::time::Timestamp;
use crate::xname::Xname;

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tenant {
    /// Its name.
    pub name: Arc<str>,
    /// Its namespaces: `status.childnamespaces`.
    pub namespaces: Vec<Arc<str>>,
    /// Its nodes: `status.tenantresources[].xnames`.
    pub nodes: BTreeSet<Xname>,
}

/// All tenants, as last read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tenants {
    /// By namespace. One that two tenants claim is nobody's.
    by_namespace: BTreeMap<Arc<str>, Option<Arc<Tenant>>>,
    /// When they were asked for last.
    asked: Option<Timestamp>,
}

impl Tenants {
    /// All there are, asked for at this time.
    #[must_use]
    pub fn new(all: Vec<Tenant>, asked: Timestamp) -> Self {
        let mut tenants = Self { asked: Some(asked), ..Self::default() };
        for tenant in all.into_iter().map(Arc::new) {
            for namespace in &tenant.namespaces {
                tenants.by_namespace.entry(namespace.clone()).and_modify(|known| *known = None).or_insert_with(|| Some(tenant.clone()));
            }
        }
        tenants
    }

    /// The tenant that a namespace belongs to.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Option<&Arc<Tenant>> {
        self.by_namespace.get(namespace)?.as_ref()
    }

    /// Whether more than one tenant claims a namespace.
    #[must_use]
    pub fn disputed(&self, namespace: &str) -> bool {
        matches!(self.by_namespace.get(namespace), Some(None))
    }

    /// Nobody can tell which tenants there are.
    #[must_use]
    pub fn unknown(&self) -> bool {
        self.asked.is_some_and(|asked| asked == Timestamp::default())
    }

    /// Whether a tenant that came up since then may be missing.
    #[must_use]
    pub fn may_lack(&self, since: Timestamp) -> bool {
        self.asked.is_some_and(|asked| asked <= since)
    }
}

impl World {
    /// Whether Sessions in a namespace are acted on.
    #[must_use]
    pub fn acts_in(&self, namespace: &Arc<str>) -> bool {
        let allowed = &self.options.session_namespaces;
        let home = allowed.is_empty() && *namespace == self.install_namespace;
        !self.tenants.disputed(namespace) && (home || self.tenants.of(namespace).is_some() || allowed.contains(namespace))
    }

    /// Whether it is still to be heard whose a namespace is. Until then its Sessions might act on anybody's nodes.
    pub(crate) fn is_waited_for(&self, namespace: &Arc<str>) -> bool {
        self.tenants.unknown() && *namespace != self.install_namespace
    }

    /// Why what a Session of this namespace once staged at a node is not for it any more.
    pub(crate) fn not_of_namespace(&self, namespace: &Arc<str>, node: &Xname) -> Option<String> {
        if self.is_waited_for(namespace) {
            return Some(format!("whether namespace {namespace}, where it was staged, belongs to a tenant is not known at the moment."));
        }
        if !self.acts_in(namespace) {
            return Some(format!("it was staged in namespace {namespace}, where Sessions are not acted on any more."));
        }
        let tenant = self.tenants.of(namespace).filter(|tenant| !tenant.nodes.contains(node))?;
        Some(format!("it was staged in namespace {namespace} of tenant {}, which does not own the node any more.", tenant.name))
    }
}
