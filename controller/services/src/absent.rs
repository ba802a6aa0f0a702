//! A service that this site does not have, as an OpenCHAMI site has no CFS and no IMS: its base URL is `none`, and what needs it
//! is refused in words that say so.

use std::collections::HashMap;

use async_trait::async_trait;
use bos_core::xname::Xname;

use crate::cfs::{ConfigPatch, ConfigReading, Configuration};
use crate::error::{Service, ServiceError};
use crate::ims::{Image, Images};

/// Stands for a service that is not there. Nothing leaves.
pub struct Absent(pub(crate) Service);

impl Absent {
    fn refused(&self, call: &'static str) -> ServiceError {
        let service = self.0;
        ServiceError::refused(service, call, format!("this site has no {service} ({}.baseUrl is none)", service.label()))
    }
}

#[async_trait]
impl Configuration for Absent {
    async fn configuration_exists(&self, _: &str) -> Result<bool, ServiceError> {
        Err(self.refused("get configuration"))
    }

    async fn components(&self, _: &[Xname]) -> Result<HashMap<Xname, ConfigReading>, ServiceError> {
        Err(self.refused("get components"))
    }

    async fn patch(&self, _: &[Xname], _: &ConfigPatch) -> Result<Vec<Xname>, ServiceError> {
        Err(self.refused("patch components"))
    }
}

#[async_trait]
impl Images for Absent {
    async fn image(&self, _: &str) -> Result<Option<Image>, ServiceError> {
        Err(self.refused("get image"))
    }

    async fn tag_sbps(&self, _: &str) -> Result<(), ServiceError> {
        Err(self.refused("tag image"))
    }
}
