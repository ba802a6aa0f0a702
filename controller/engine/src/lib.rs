//! The engine around the pure core: one task that owns the World, the journal that every effect waits for, dispatchers that
//! call the services, and the writer that shows people what happens. Used by the operator and by the boot agent.

pub mod clients;
pub mod engine;
pub mod events;
pub mod lease;
pub mod records;
pub mod reports;
pub mod telemetry;
pub mod watches;
pub mod writer;
