//! One look at everything that a template names: its boot sets in S3 and IMS, its configurations in CFS. The controller of templates
//! shows what was found, admission says it beforehand.

use std::collections::BTreeSet;

use bos_core::admission::{BootSetSeen, ConfigurationSeen, TemplateSeen};
use bos_core::session_setup::configuration_name;
use bos_crds::SessionTemplateSpec;
use bos_services::Clients;
use futures::{FutureExt, StreamExt};

use crate::boot_set::{LookRules, look};

/// Boot sets, and configurations, looked at together.
const AT_A_TIME: usize = 4;

/// Looks at the image of every boot set.
pub async fn boot_sets(services: &Clients, template: &SessionTemplateSpec, rules: &LookRules) -> Vec<BootSetSeen> {
    // Boxed, because the compiler cannot see that a closure over borrowed boot sets is good for every lifetime.
    let looks = template.boot_sets.iter().map(|set| {
        let seen = async {
            let found = look(services, set, rules).await.map(|looked| (looked.artifacts, looked.warnings));
            BootSetSeen { name: set.name.clone(), found }
        };
        seen.boxed()
    });
    futures::stream::iter(looks.collect::<Vec<_>>()).buffered(AT_A_TIME).collect().await
}

/// Asks CFS for every configuration that the template names.
pub async fn configurations(services: &Clients, template: &SessionTemplateSpec) -> Vec<(String, ConfigurationSeen)> {
    let names: BTreeSet<&str> =
        template.boot_sets.iter().map(|set| configuration_name(template, set)).filter(|name| !name.is_empty()).collect();
    let looks = names.into_iter().map(|name| async { (name.to_owned(), configuration(services, name).await) }.boxed());
    futures::stream::iter(looks.collect::<Vec<_>>()).buffered(AT_A_TIME).collect().await
}

/// Asks CFS for one configuration.
pub async fn configuration(services: &Clients, name: &str) -> ConfigurationSeen {
    match services.configuration.configuration_exists(name).await {
        Ok(true) => ConfigurationSeen::Known,
        Ok(false) => ConfigurationSeen::Unknown,
        Err(error) if error.is_transient() => ConfigurationSeen::Unanswered(error.to_string()),
        Err(error) => ConfigurationSeen::Refused(error.to_string()),
    }
}

/// Looks at everything.
pub async fn all(services: &Clients, template: &SessionTemplateSpec, rules: &LookRules) -> TemplateSeen {
    let (boot_sets, configurations) = futures::join!(boot_sets(services, template, rules), configurations(services, template));
    TemplateSeen { boot_sets, configurations }
}
