//! Compares limits, node resolution, kernel parameters and decisions with recorded answers of BOS 2.50.
//!
//! Every recorded case must agree, or deviate by a rule that has a name here and that by itself explains the difference. The counts per rule
//! are fixed in the tests, so a change of behaviour shows even where it is still explained.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it does not expect")]

mod acting;
mod decision;
#[path = "../sim/desk.rs"]
mod desk;
mod extended;
#[path = "../sim/fixture.rs"]
mod fixture;
#[path = "../sim/golden.rs"]
mod golden;
mod kernel_params;
mod limit;
mod resolution;
mod support;
mod timelines;
