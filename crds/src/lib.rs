//! API types of `bos.hpe.com/v1alpha1`.
//!
//! Four kinds: [`SessionTemplate`], [`Session`], [`BootComponent`] and [`BootOptions`]. The manifests in `manifests/crds`
//! are generated from here by `cargo run -p bos-crds --bin crdgen`; a test fails when they differ.
//!
//! Always take the CRDs from [`all_crds`]: it finishes what the derive makes (see [`schema`]).

// `KubeSchema` repeats each type inside a private function, and the repetition is reported at the original.
#![allow(unreachable_pub)]

pub mod boot_component;
pub mod boot_component_status;
pub mod boot_options;
pub mod conditions;
pub mod labels;
pub mod manifests;
pub mod reasons;
pub mod schema;
pub mod session;
pub mod session_status;
pub mod session_template;
mod wire;

pub use boot_component::{BootComponent, BootComponentSpec, DesiredState, SessionRef, StagedState};
pub use boot_component_status::{
    ActualState, Attempts, BootComponentStatus, LastAction, LastSession, NodePhase, NodeStatus, PowerState, Transition,
};
pub use boot_options::{BootEvidence, BootOptions, BootOptionsSpec, BootOptionsStatus, LoggingLevel};
pub use conditions::{ConditionStatus, NewCondition, set_condition};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use manifests::all_crds;
pub use schema::{bounded, merge_diff};
pub use session::{Mode, Operation, RunningNodes, Session, SessionSpec};
pub use session_status::{
    BootSetPhase, BootSetPhaseName, BootSetReason, BootSetStatus, ExcludedGroup, FailureGroup, Outcome, SessionCounts, SessionPercentages,
    SessionPhase, SessionStatus,
};
pub use session_template::{
    Arch, BootSet, BootSetReport, BootSetType, CfsSpec, SessionTemplate, SessionTemplateSpec, SessionTemplateStatus,
};
pub use wire::UnknownWord;

/// The API group of every kind here.
pub const GROUP: &str = "bos.hpe.com";
/// The version of every kind here.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every object here.
pub const API_VERSION: &str = "bos.hpe.com/v1alpha1";
/// Name of the one [`BootOptions`].
pub const OPTIONS_NAME: &str = "default";
