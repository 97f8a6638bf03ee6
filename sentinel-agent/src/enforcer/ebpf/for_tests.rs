//! What tests of the enforcer see and do that nobody else may.

use super::EbpfEnforcer;
use crate::enforcer::EnforcerError;
use crate::enforcer::connections::Connections;
use crate::enforcer::maps::Maps;

impl EbpfEnforcer {
    /// From now on connections are left to the kernel side alone.
    pub(in crate::enforcer) fn leave_connections(&mut self) {
        self.connections.leave();
    }

    /// As if a mark had been made for an earlier process with the same pid.
    pub(in crate::enforcer) fn make_mark_old(&mut self, tgid: u32) -> Result<(), EnforcerError> {
        self.update_mark(tgid, |mark| {
            mark.marked_at = 1;
            Ok(())
        })
    }

    pub(in crate::enforcer) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(in crate::enforcer) fn maps(&self) -> &Maps {
        &self.maps
    }
}
