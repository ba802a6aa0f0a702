//! What a record of BOS can mean to us. BOS does not write down which operation a session asked for, nor whether a node's report is
//! older or newer than the last power action; to us it matters. So a record is read in every way that fits it, and each is a case.

use bos_core::model::{Digest, Phase};
use bos_core::plan::PlannedOperation;

use super::record::{Last, Override, Record, Said};

/// An image in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Image {
    Wanted,
    /// Another one; None where nobody knows which.
    Other(Option<Digest>),
}

/// The node's last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    None,
    /// From before the session had the node.
    Before(Image),
    /// From after the session's last power action, or where there was none after it took the node.
    After(Image),
}

/// Where the node stands in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No session drives it.
    Disabled,
    /// Given up.
    Failed,
    /// Just given to the session: what an earlier one did to it is no part of this run.
    Fresh,
    PoweringOff,
    PoweringOn,
    Configuring,
}

/// One meaning of a record.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) record: Record,
    pub(crate) operation: PlannedOperation,
    pub(crate) standing: Standing,
    pub(crate) report: Report,
}

impl Reading {
    /// All meanings of a record.
    pub(crate) fn all(record: &Record) -> Vec<Self> {
        let standing = standing(record);
        let of = |operation, report| Self { record: record.clone(), operation, standing, report };
        let image = image(record);
        let before = || image.clone().map_or(Report::None, Report::Before);
        let after = || image.clone().map_or(Report::None, Report::After);
        let (boot, reboot) = (PlannedOperation::Boot, PlannedOperation::Reboot);
        if record.wanted().is_none() {
            return vec![of(PlannedOperation::Shutdown, before())];
        }
        match (standing, &image) {
            (Standing::Disabled | Standing::Failed, _) => vec![of(boot, before())],
            // Set-up of a reboot empties the actual state; so does nobody for a boot.
            (Standing::Fresh, None) => vec![of(boot, Report::None), of(reboot, Report::None)],
            (Standing::Fresh, Some(_)) => vec![of(boot, before())],
            (Standing::Configuring, _) => vec![of(boot, after())],
            // What a node ran ends when it is off; BOS's record goes on.
            (Standing::PoweringOn | Standing::PoweringOff, _) if record.power == Said::Off => vec![of(boot, before())],
            (Standing::PoweringOn, _) if record.last != Last::On => vec![of(boot, after())],
            (Standing::PoweringOn, None) => vec![of(boot, Report::None), of(boot, Report::After(Image::Other(None)))],
            (Standing::PoweringOn, Some(_)) => vec![of(boot, before()), of(boot, after())],
            (Standing::PoweringOff, Some(Image::Wanted)) if came_to_nothing(record) => vec![of(boot, before()), of(boot, after())],
            (Standing::PoweringOff, _) if came_to_nothing(record) => vec![of(boot, before())],
            // A boot does not switch off what runs the right image, so it came up since; a reboot does.
            (Standing::PoweringOff, Some(Image::Wanted)) => vec![of(boot, after()), of(reboot, before())],
            (Standing::PoweringOff, Some(Image::Other(_))) => vec![of(boot, before())],
            (Standing::PoweringOff, None) => vec![of(reboot, Report::None)],
        }
    }

    /// Power-on, graceful and forceful attempts of this run. The action that is on record is one of them.
    pub(crate) fn attempts(&self) -> [u16; 3] {
        if self.standing == Standing::Fresh { [0; 3] } else { used(&self.record) }
    }

    pub(crate) fn limit(&self) -> u16 {
        self.record.retry_policy.unwrap_or(3)
    }

    /// The session asked for a power-off of which the node knows nothing better yet.
    pub(crate) fn asked_off(&self) -> bool {
        self.standing == Standing::PoweringOff && matches!(self.record.last, Last::SoftOff | Last::ForceOff)
    }

    /// The node itself proves that it runs what this session wants.
    pub(crate) fn booted(&self) -> bool {
        let reported = self.report == Report::After(Image::Wanted);
        match self.standing {
            Standing::Configuring => self.record.power != Said::Off,
            Standing::PoweringOn => reported && self.record.last == Last::On,
            Standing::PoweringOff => reported && self.attempts()[0] > 0 && !self.asked_off(),
            Standing::Disabled | Standing::Failed | Standing::Fresh => false,
        }
    }
}

fn used(record: &Record) -> [u16; 3] {
    let at_least = |index: usize, action: Last| record.attempts[index].max(u16::from(record.last == action));
    [at_least(0, Last::On), at_least(1, Last::SoftOff), at_least(2, Last::ForceOff)]
}

/// The session powered it on, and that came to nothing.
fn came_to_nothing(record: &Record) -> bool {
    used(record)[0] > 0
}

fn standing(record: &Record) -> Standing {
    match record.phase {
        _ if !record.enabled => Standing::Disabled,
        _ if record.overriding == Override::Failed => Standing::Failed,
        _ if record.overriding == Override::OnHold => Standing::Fresh,
        Phase::None => Standing::Fresh,
        // Somebody changed what is wanted under way: a new run of ours.
        Phase::PoweringOn | Phase::Configuring if record.wanted().is_none() => Standing::Fresh,
        Phase::PoweringOff => Standing::PoweringOff,
        Phase::PoweringOn => Standing::PoweringOn,
        Phase::Configuring => Standing::Configuring,
    }
}

fn image(record: &Record) -> Option<Image> {
    let runs = record.runs()?.digest();
    let wanted = record.wanted().is_some_and(|wanted| wanted.digest() == runs);
    Some(if wanted { Image::Wanted } else { Image::Other(Some(runs)) })
}
