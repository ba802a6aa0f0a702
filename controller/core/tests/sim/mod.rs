//! A deterministic simulation in virtual time: the whole core, driven as the engine drives it, against a site that fails.

pub(crate) mod cells;
pub(crate) mod check;
pub(crate) mod components;
pub(crate) mod coverage;
pub(crate) mod crowd;
pub(crate) mod fixture;
pub(crate) mod hands;
pub(crate) mod hsm;
pub(crate) mod operator;
pub(crate) mod orders;
pub(crate) mod people;
pub(crate) mod restart;
pub(crate) mod rng;
pub(crate) mod scenario;
pub(crate) mod site;
pub(crate) mod wire;

pub(crate) use operator::Sim;
pub(crate) use scenario::Scenario;
