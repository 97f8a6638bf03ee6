//! What was spent and is reserved, and whether more fits.
//!
//! Invariant: spent and reserved together exceed a limit only by recorded overruns.

use sentinel_proto::Money;

/// A running total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Total {
    /// Charged for what has ended.
    pub(crate) spent: Money,
    /// Set aside for what is in flight.
    pub(crate) reserved: Money,
}

impl Total {
    /// Spent and reserved together.
    pub(crate) fn committed(self) -> Money {
        self.spent.saturating_add(self.reserved)
    }

    /// What it would be with this cost; none: more than any limit.
    pub(crate) fn with(self, cost: Money) -> Option<Money> {
        self.spent.checked_add(self.reserved)?.checked_add(cost)
    }

    pub(crate) fn reserve(&mut self, cost: Money) {
        self.reserved = self.reserved.saturating_add(cost);
    }

    /// Puts another charge in the place of one.
    pub(crate) fn correct(&mut self, before: Money, charged: Money) {
        self.spent = self.spent.saturating_sub(before).saturating_add(charged);
    }

    /// Turns a reservation into a charge.
    pub(crate) fn settle(&mut self, reserved: Money, charged: Money) {
        self.reserved = self.reserved.saturating_sub(reserved);
        self.spent = self.spent.saturating_add(charged);
    }
}
