//! Control-plane harness, simulated site, scenarios, benchmark and demo.

pub mod bench;
mod checkout;
pub mod control_plane;
pub mod demo;
pub mod figures;
pub mod node_agent;
pub mod proxy;
pub mod rig;
pub mod rights;
pub mod signals;
pub mod site;
pub mod tables;
