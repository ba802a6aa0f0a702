//! Pure decisions of the boot operator.
//!
//! Nothing in this crate reads a clock, draws a random number or does I/O: time is an argument, inputs are values, and every
//! decision can be repeated from them.

pub mod artifacts;
pub mod hostlist;
pub mod kernel_parameters;
pub mod limit;
pub mod manifest;
pub mod resolve;
pub mod xname;
