//! The discovery operator: asks HSM for its inventory at a slow pace, so that every node has a BootComponent.

use crate::health::Service;
use crate::model::World;
use crate::time::Timestamp;
use crate::want::Want;

/// Asks for an inventory when one is due.
#[must_use]
pub fn reconcile(world: &World, now: Timestamp) -> Vec<Want> {
    let due = !world.discovery.reading && now >= world.discovery.due && world.services.may_call(Service::Hsm, now);
    if due { vec![Want::ReadInventory] } else { Vec::new() }
}

/// Whether an inventory of `seen` nodes may be believed when `known` were known before (rule 9).
///
/// # Errors
/// Says why not, for people.
pub fn believe(seen: usize, known: usize, shrink_percent: usize) -> Result<(), String> {
    if seen == 0 {
        return Err("HSM answered with an empty inventory".to_owned());
    }
    let missing = known.saturating_sub(seen);
    if missing > 0 && missing.saturating_mul(100) >= known.saturating_mul(shrink_percent.max(1)) {
        return Err(format!(
            "HSM answered with {seen} nodes where {known} are known; nothing was changed. If {missing} nodes were really removed, delete their BootComponents"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::believe;

    #[test]
    fn an_empty_or_shrunken_inventory_is_a_fault() {
        assert!(believe(0, 0, 10).is_err());
        assert!(believe(0, 100, 10).is_err());
        assert!(believe(50, 100, 10).is_err());
        assert!(believe(90, 100, 10).is_err());
        assert!(believe(91, 100, 10).is_ok());
        assert!(believe(100, 0, 10).is_ok());
        assert!(believe(120, 100, 10).is_ok());
    }
}
