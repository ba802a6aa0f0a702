//! What happened to each virtual node, in order.

use serde::{Deserialize, Serialize};

/// One thing that happened to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum PowerEvent {
    /// A power-on command arrived.
    OnRequested {
        /// Transition id, or `out-of-band`.
        by: String,
    },
    /// A graceful power-off command arrived.
    SoftOffRequested {
        /// Transition id, or `out-of-band`.
        by: String,
    },
    /// A forced power-off command arrived.
    ForceOffRequested {
        /// Transition id, or `out-of-band`.
        by: String,
    },
    /// The node has power.
    PoweredOn,
    /// The node lost power.
    PoweredOff,
    /// BSS gave it a boot script.
    ScriptFetched {
        /// The referral token in it.
        token: Option<String>,
    },
    /// The boot script, the kernel or the initrd could not be had; it tries again.
    BootFailed {
        /// Why.
        reason: String,
    },
    /// The operating system is up.
    Up {
        /// The referral token on its command line.
        token: Option<String>,
        /// The kernel it loaded.
        kernel: String,
    },
    /// A report was sent to the operator.
    ReportSent {
        /// The token in it.
        token: String,
    },
    /// A report failed; it is repeated.
    ReportFailed {
        /// The answer, or nothing if none came.
        status: Option<u16>,
    },
    /// A report was answered 200.
    ReportAcknowledged {
        /// The token in it.
        token: String,
    },
    /// The node enabled itself in CFS.
    CfsReported,
    /// CFS configured it.
    Configured {
        /// With this configuration.
        configuration: String,
    },
    /// CFS failed to configure it.
    ConfigurationFailed,
}

/// An event and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PowerRecord {
    /// Seconds since the site started, on the monotonic clock.
    pub at: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: PowerEvent,
    /// How many times in a row; `at` is the first time.
    pub repeats: u32,
}

/// The history of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    records: Vec<PowerRecord>,
    acknowledged: u64,
}

impl History {
    /// Notes an event. Failures that repeat themselves are counted, so that a node that tries for
    /// ever does not fill the memory.
    pub(crate) fn push(&mut self, at: f64, event: PowerEvent) {
        match &event {
            PowerEvent::ReportAcknowledged { .. } => self.acknowledged += 1,
            PowerEvent::ScriptFetched { .. }
            | PowerEvent::BootFailed { .. }
            | PowerEvent::ReportFailed { .. }
            | PowerEvent::ReportSent { .. } => {
                // A retry is a pair (sent, failed): look two back as well.
                let tail = self.records.len().saturating_sub(2);
                if let Some(same) = self.records[tail..].iter_mut().find(|r| r.event == event) {
                    same.repeats += 1;
                    return;
                }
            }
            _ => {}
        }
        self.records.push(PowerRecord { at, event, repeats: 1 });
    }

    pub(crate) fn records(&self) -> &[PowerRecord] {
        &self.records
    }

    /// Whether the last report found nobody.
    pub(crate) fn unheard(&self) -> bool {
        self.records.last().is_some_and(|r| r.event == PowerEvent::ReportFailed { status: None })
    }

    /// Reports answered 200.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How often the node lost power.
    pub(crate) fn power_offs(&self) -> usize {
        self.records.iter().filter(|r| r.event == PowerEvent::PoweredOff).count()
    }

    /// How often the node got power.
    pub(crate) fn power_ons(&self) -> usize {
        self.records.iter().filter(|r| r.event == PowerEvent::PoweredOn).count()
    }

    /// How often the node lost power and got it back.
    pub(crate) fn power_cycles(&self) -> usize {
        let mut off = false;
        let mut cycles = 0;
        for record in &self.records {
            match record.event {
                PowerEvent::PoweredOff => off = true,
                PowerEvent::PoweredOn if off => {
                    off = false;
                    cycles += 1;
                }
                _ => {}
            }
        }
        cycles
    }
}
