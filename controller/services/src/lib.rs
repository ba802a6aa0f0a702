//! Clients of the services that boot a node: HSM (inventory), PCS or CAPMC (power), BSS (boot parameters), CFS (configuration),
//! IMS (images) and S3 (boot artifacts).
//!
//! Each is a trait, so that the engine can be tested without a network, and one implementation over HTTP. The clients
//! never retry: the engine decides what a failure costs (only pages of a long read are asked again). Every answer is read
//! strictly, because half an answer is worse than none, and an answer about many nodes is read node by node.
//!
//! | trait | service | calls |
//! |---|---|---|
//! | [`Inventory`] | HSM | components, groups, partitions, locks |
//! | [`Power`] | PCS, or CAPMC | power status, start a transition and follow it, or switch power |
//! | [`BootParameters`] | BSS | put boot parameters |
//! | [`Configuration`] | CFS | configuration exists, read and patch components |
//! | [`Images`] | IMS | read an image, tag it |
//! | [`ObjectStore`] | S3 | get, head |

mod absent;
mod answer;
pub mod auth;
pub mod bss;
pub mod capmc;
pub mod cfs;
mod clients;
pub mod config;
pub mod error;
pub mod figures;
pub mod flags;
pub mod hsm;
pub mod http;
pub mod ims;
pub mod pcs;
pub mod s3;
mod token;
mod trust;

pub use bss::{BootParameters, BootParams, Token};
pub use cfs::{ConfigPatch, ConfigReading, ConfigStatus, Configuration};
pub use clients::Clients;
pub use config::{ConfigError, PowerService, PowerStateSource, ServicesConfig};
pub use error::{ErrorKind, Reached, Service, ServiceError};
pub use figures::CallFigures;
pub use hsm::{Component, Components, Group, Inventory, Partition};
pub use http::{CallObserver, CallOutcome, NoObserver, StopSwitch, Timeouts};
pub use ims::{Image, Images};
pub use pcs::{Power, PowerOperation, PowerReadings, Reading, Requested, TaskFailure, TaskState, Transition, TransitionId};
pub use s3::{Object, ObjectHead, ObjectStore, S3Error, S3ErrorKind};
pub use trust::Document;
