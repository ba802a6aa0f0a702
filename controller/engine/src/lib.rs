//! The engine around the pure core: one task that owns the World, the journal that every effect waits for, dispatchers that
//! call the services, and the writer that shows people what happens. Used by the operator and by the boot agent.

mod again;
pub mod agents;
pub mod applications;
pub mod boot_set;
mod change;
pub mod clients;
pub mod convert;
mod dispatch;
pub mod engine;
pub mod events;
pub mod figures;
mod guard;
mod journals;
pub mod lease;
mod load;
pub mod process;
pub mod records;
pub mod reports;
pub mod setup;
mod task;
pub mod telemetry;
pub mod template_looks;
pub mod tenants;
mod views;
pub mod watches;
pub mod writer;

pub use dispatch::read_power;
