//! Why our timelines differ from BOS's, rule by rule. A rule is a switch in the model of BOS (`bos.rs`): with it the model does what the
//! rule says and not what BOS does. It counts where the timeline would be another one without it.

/// A difference from BOS that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// While power is unknown the node is held; after a quarter of an hour it has failed. To BOS unknown is on.
    UnknownPowerHolds,
    /// An `off` of PCS is unknown as long as a report of the node is newer than what PCS may have seen.
    ContradictedOffIsUnknown,
    /// A report from before the power-on proves nothing.
    OldReportProvesNothing,
    /// CFS is asked when it is its turn. BOS drops a node CFS does not know before it does anything.
    CfsAskedOnlyWhenBooted,
    /// A boot leaves a running node alone if nobody knows what it runs.
    UnknownImageIsLeft,
    /// The last attempt leaves the node on.
    LastAttemptLeavesOn,
    /// CFS has four hours. BOS waits for ever.
    ConfigurationHasADeadline,
    /// An image that IMS did not tag is not booted.
    NoPowerOnUntagged,
    /// No power-on before boot parameters and configuration are confirmed.
    NoPowerOnUnprepared,
    /// A node that a service refuses has failed, with its words. BOS waits for a time-out.
    RefusedHasFailed,
    /// What did not reach the power service is no attempt and is sent as soon as it can be.
    NotSentIsNoAttempt,
    /// What may not have been heard and shows no effect is given back, and a shutdown is asked for again, not forced.
    UnheardIsGivenBack,
    /// HSM is asked at set-up alone.
    HsmAskedAtSetUp,
    /// A set-up waits for a service that does not answer. In BOS the session is over.
    SetUpWaits,
    /// A person's hold keeps the node in its session, and what it reports meanwhile counts. A node disabled in BOS is out of it.
    HoldKeepsItsPlace,
    /// Staged Sessions are another matter: nothing here plays them.
    StagedIsNotPlayed,
    /// What a person writes into a component under way is another matter: nothing here plays it.
    EditIsNotPlayed,
}

impl Rule {
    /// The rules the model of BOS can follow.
    pub(crate) const SWITCHES: [Self; 15] = [
        Self::UnknownPowerHolds,
        Self::ContradictedOffIsUnknown,
        Self::OldReportProvesNothing,
        Self::CfsAskedOnlyWhenBooted,
        Self::UnknownImageIsLeft,
        Self::LastAttemptLeavesOn,
        Self::ConfigurationHasADeadline,
        Self::NoPowerOnUntagged,
        Self::NoPowerOnUnprepared,
        Self::RefusedHasFailed,
        Self::NotSentIsNoAttempt,
        Self::UnheardIsGivenBack,
        Self::HsmAskedAtSetUp,
        Self::SetUpWaits,
        Self::HoldKeepsItsPlace,
    ];

    pub(crate) const fn basis(self) -> &'static str {
        match self {
            Self::UnknownPowerHolds => "rule 2, §21.2 no. 6",
            Self::ContradictedOffIsUnknown => "rule 2",
            Self::OldReportProvesNothing => "rule 3, §21.2 no. 9",
            Self::CfsAskedOnlyWhenBooted => "rule 14, §21.2 no. 7",
            Self::UnknownImageIsLeft => "rule 3",
            Self::LastAttemptLeavesOn => "rule 8",
            Self::ConfigurationHasADeadline => "rule 15, §21.2 no. 20",
            Self::NoPowerOnUntagged => "rule 6, §21.2 no. 4",
            Self::NoPowerOnUnprepared => "rule 6, §21.2 no. 3",
            Self::RefusedHasFailed => "rule 13, §21.2 no. 8",
            Self::NotSentIsNoAttempt => "rule 14, §21.2 no. 8",
            Self::UnheardIsGivenBack => "rule 14, ADR 9",
            Self::HsmAskedAtSetUp => "rule 14, §21.2 no. 21",
            Self::SetUpWaits => "rule 14, §21.2 no. 10",
            Self::HoldKeepsItsPlace => "rule 10",
            Self::StagedIsNotPlayed => "API (staging)",
            Self::EditIsNotPlayed => "API (a run)",
        }
    }
}
