//! The Kubernetes-facing modules against a modelled API server, in virtual time and with faults.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "k8s/fake.rs"]
mod fake;
#[path = "k8s/lease.rs"]
mod lease;
#[path = "k8s/records.rs"]
mod records;
#[path = "k8s/watches.rs"]
mod watches;
#[path = "k8s/writer.rs"]
mod writer;
