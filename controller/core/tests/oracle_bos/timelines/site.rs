//! The small site of the recorded timelines: one node, PCS, BSS, CFS and IMS by the rules of the recording. BOS's model and our core
//! are driven against it alike. Times are milliseconds from the start.

use bos_core::model::PowerAction;
use serde_json::Value;

use super::scenario::{Faults, Parameters, Service};
use crate::decision::record::{Cfs, Said, said};

/// Why a call failed: what the service answered, or None where no connection came about.
pub(crate) type Code = Option<u64>;

/// A token of BSS: its number, and the image it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) number: usize,
    pub(crate) image: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Happening {
    On { report_at: u64 },
    Off,
    Report { boot: u32, first: bool },
    Configured { boot: u32 },
}

pub(crate) struct Site {
    parameters: Parameters,
    faults: Faults,
    on: bool,
    turning_on: bool,
    /// It came up in this boot.
    up: bool,
    boot: u32,
    bss: Option<Token>,
    running: Option<Token>,
    tokens: usize,
    cfs: Option<Cfs>,
    queue: Vec<(u64, Happening)>,
}

impl Site {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let running = parameters.running.clone().map(|image| Token { number: 0, image });
        let status = if parameters.config.is_empty() { "unconfigured" } else { "configured" };
        let cfs = Cfs { status: Some(status.to_owned()), desired: Some(parameters.config.clone()) };
        Self {
            faults: parameters.faults.clone(),
            on: parameters.on,
            turning_on: false,
            up: parameters.on,
            boot: 0,
            bss: running.clone(),
            running: running.filter(|_| parameters.on),
            tokens: 0,
            cfs: parameters.cfs_present.then_some(cfs),
            queue: Vec::new(),
            parameters: parameters.clone(),
        }
    }

    pub(crate) fn fails(&mut self, service: Service, at: u64) -> Option<Code> {
        self.faults.fail(service, at)
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<u64> {
        self.queue.iter().map(|(at, _)| *at).min()
    }

    /// The next thing happens; a report of the node, where that is what it is.
    pub(crate) fn happen(&mut self) -> Option<(u64, Token)> {
        let next = self.next()?;
        let position = self.queue.iter().position(|(at, _)| *at == next)?;
        let (at, happening) = self.queue.remove(position);
        match happening {
            Happening::On { report_at } => {
                self.on = true;
                self.turning_on = false;
                self.boot += 1;
                self.running = self.bss.clone();
                if self.running.is_some() && self.parameters.reports {
                    self.queue.push((report_at.max(at), Happening::Report { boot: self.boot, first: true }));
                }
            }
            Happening::Off => {
                (self.on, self.up) = (false, false);
            }
            Happening::Report { boot, first } if self.on && boot == self.boot => {
                self.up = true;
                if first {
                    self.queue.push((at + self.parameters.cfs_delay, Happening::Configured { boot }));
                }
                return self.running.clone().map(|token| (at, token));
            }
            Happening::Configured { boot } if self.on && boot == self.boot => {
                let result = self.parameters.cfs_result.clone();
                if let (Some(record), Some(result)) = (&mut self.cfs, result)
                    && record.status.as_deref() == Some("pending")
                {
                    record.status = Some(result);
                }
            }
            Happening::Report { .. } | Happening::Configured { .. } => {}
        }
        None
    }

    /// A report that was refused comes again.
    pub(crate) fn refused(&mut self, at: u64) {
        self.queue.push((at + 30_000, Happening::Report { boot: self.boot, first: false }));
    }

    /// What PCS says, which may not be what is.
    pub(crate) fn power(&self, at: u64) -> Said {
        let view = self.parameters.power_view.iter().find(|(from, to, _)| (*from..*to).contains(&at));
        view.map_or(if self.on { Said::On } else { Said::Off }, |(.., power)| said(power))
    }

    /// PCS accepts a transition.
    pub(crate) fn switch(&mut self, action: PowerAction, at: u64) -> Result<(), Code> {
        if let Some(code) = self.fails(Service::Pcs, at) {
            return Err(code);
        }
        let parameters = &self.parameters;
        match action {
            PowerAction::On if !self.on && !self.turning_on && parameters.on_works => {
                self.turning_on = true;
                self.queue.push((at + parameters.on_delay, Happening::On { report_at: at + parameters.report_delay }));
            }
            PowerAction::SoftOff if self.on && parameters.soft_off_works => {
                self.queue.push((at + parameters.soft_off_delay, Happening::Off))
            }
            PowerAction::ForceOff if self.on && parameters.force_off_works => {
                self.queue.push((at + parameters.force_off_delay, Happening::Off));
            }
            PowerAction::On | PowerAction::SoftOff | PowerAction::ForceOff => {}
        }
        Ok(())
    }

    /// BSS stores parameters.
    pub(crate) fn store(&mut self, image: &str, at: u64) -> Result<Token, Code> {
        if let Some(code) = self.fails(Service::Bss, at) {
            return Err(code);
        }
        self.tokens += 1;
        let token = Token { number: self.tokens, image: image.to_owned() };
        self.bss = Some(token.clone());
        Ok(token)
    }

    /// CFS takes another configuration; whether it knows the node.
    pub(crate) fn configure(&mut self, name: &str, enabled: bool, at: u64) -> Result<bool, Code> {
        if let Some(code) = self.fails(Service::Cfs, at) {
            return Err(code);
        }
        let Some(record) = &mut self.cfs else { return Ok(false) };
        record.desired = Some(name.to_owned());
        record.status = Some(if name.is_empty() { "unconfigured" } else { "pending" }.to_owned());
        if enabled && self.up {
            self.queue.push((at + self.parameters.cfs_delay, Happening::Configured { boot: self.boot }));
        }
        Ok(true)
    }

    pub(crate) fn configuration(&mut self, at: u64) -> Result<Option<Cfs>, Code> {
        match self.fails(Service::CfsRead, at) {
            Some(code) => Err(code),
            None => Ok(self.cfs.clone()),
        }
    }
}

/// Seconds of the recording in milliseconds.
pub(crate) fn millis(value: &Value) -> u64 {
    std::time::Duration::from_secs_f64(value.as_f64().unwrap()).as_millis().try_into().unwrap()
}
