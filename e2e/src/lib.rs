//! Control-plane harness, simulated site, scenarios, benchmark and demo.

pub mod control_plane;
pub mod proxy;
pub mod rig;
pub mod site;
