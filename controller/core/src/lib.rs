//! Pure decisions of the boot operator.
//!
//! Nothing in this crate reads a clock, draws a random number or does I/O: time is an argument, inputs are values, and every
//! decision can be repeated from them.

pub mod actual_state_cleanup;
pub mod admission;
pub mod agent;
pub mod artifacts;
pub mod batch;
pub mod by_hand;
pub mod by_phase;
pub mod configuration;
pub mod discovery;
pub mod drive;
pub mod fold;
pub mod forceful_power_off;
pub mod graceful_power_off;
pub mod health;
pub mod hostlist;
pub mod images;
pub mod journal;
pub mod kernel_parameters;
pub mod left_behind;
pub mod limit;
pub mod manifest;
pub mod model;
pub mod options;
pub mod pass;
pub mod plan;
pub mod power_on;
pub mod preview;
pub mod project;
pub mod project_session;
pub mod ranges;
pub mod resolve;
pub mod resume;
pub mod running;
pub mod session;
pub mod session_cleanup;
pub mod session_completion;
pub mod session_setup;
pub mod staging;
pub mod status;
pub mod tenants;
pub mod time;
mod unsent;
pub mod untold;
pub mod validation;
pub mod want;
pub mod xname;
