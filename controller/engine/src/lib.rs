//! (see the crate description)

pub mod clients;
pub mod events;
pub mod lease;
pub mod records;
pub mod watches;
pub mod writer;
