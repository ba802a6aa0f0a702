//! What is to be minded where the power service does not tell the end of what it accepted (CAPMC): it may still be at work on a
//! node, and only looks at the node show what it did.

use std::time::Duration;

use crate::model::{Issued, Node, Power, PowerAction, World};
use crate::time::Timestamp;

impl Node {
    /// Whether an `off` that was asked for at `at` is the first one after a power-off of its session.
    #[must_use]
    pub fn first_off_since_our_power_off(&self, at: Timestamp) -> bool {
        self.drive
            .as_ref()
            .and_then(|drive| drive.action)
            .is_some_and(|issued| issued.action != PowerAction::On && issued.at <= at && self.power_since(issued.at) != Some(Power::Off))
    }

    /// Until when the session's last power action may still take effect: nobody knows that it was accepted; or it was, no look has
    /// shown its effect, and the service will not tell its end. Such a service may be at work for `untold` after the deadline. The
    /// same of what the session itself still waits for, since it took the node from another.
    #[must_use]
    pub fn unsettled_until(&self, untold: Option<Duration>) -> Option<Timestamp> {
        self.unsettled_after(self.drive.as_ref()?.action, untold)
    }

    /// The same if this was the session's last power action.
    pub(crate) fn unsettled_after(&self, action: Option<Issued>, untold: Option<Duration>) -> Option<Timestamp> {
        let drive = self.drive.as_ref()?;
        let own = action.and_then(|issued| {
            let on = issued.action == PowerAction::On;
            let seen = self.power_since(issued.at) == Some(if on { Power::On } else { Power::Off }) || (on && drive.booted.is_some());
            issued.unsettled_until(seen, untold)
        });
        Some(drive.held_since).max(own)
    }
}

impl Issued {
    /// Until when the action may still take effect; `seen`: a look has shown that it did.
    pub(crate) fn unsettled_until(self, seen: bool, untold: Option<Duration>) -> Option<Timestamp> {
        let unsettled = !self.failed && (!self.accepted || (untold.is_some() && !seen));
        unsettled.then(|| self.power_by + untold.unwrap_or_default())
    }
}

impl World {
    /// How long an accepted power action may go on after its deadline, where the power service does not tell its end.
    #[must_use]
    pub fn untold(&self) -> Option<Duration> {
        (!self.power_service.tells_the_end()).then_some(self.power_rest)
    }
}
