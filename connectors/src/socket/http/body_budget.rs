//! The memory budget of request bodies: one for the process, with a share per client address.
//!
//! Bytes are claimed as they arrive, and as they come out of a decoder, never by what a header
//! announces: a client that announces much and sends nothing takes nothing. Each body holds a
//! [`BodyPermit`], which returns its bytes when it is dropped, whichever way the request ends.
//!
//! Nothing waits for bytes: beyond the budget a claim fails, and the request with it. A client can
//! still fill the budget with bodies that it never ends, so the reader of a body ends the slow ones
//! first when [`BodyPermit::is_budget_short`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::socket::limits::{AddressBlock, ConnectionLimits};

/// Bytes of all bodies from their arrival to the response: sixteen of the largest.
pub const INGEST_BYTES: usize = 64 * 1_024 * 1_024;

/// Bytes of the bodies of one address: four of the largest, and with two more such addresses there
/// is still room for others.
pub const INGEST_BYTES_PER_ADDRESS: usize = INGEST_BYTES / 4;

/// From how many claimed bytes on the budget counts as short: three quarters.
const SHORT_BYTES: usize = INGEST_BYTES / 4 * 3;

/// Why bytes could not be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetExceeded {
    /// The bodies of all clients together have too many bytes.
    Process,
    /// Those of this address have.
    Address,
}

#[derive(Debug, Default)]
struct ClaimedBytes {
    total: usize,
    /// Has an entry per address with claimed bytes.
    addresses: HashMap<AddressBlock, usize>,
}

/// The budget of one process.
#[derive(Debug)]
pub struct BodyBudget {
    /// Whether loopback addresses have no share of their own, only the budget of the process.
    loopback_exempt: bool,
    claimed: Mutex<ClaimedBytes>,
}

impl BodyBudget {
    /// A budget without claims, whose shares have the exemption of these limits.
    pub fn new(limits: &ConnectionLimits) -> Arc<Self> {
        let loopback_exempt = limits.loopback_exempt;
        Arc::new(Self { loopback_exempt, claimed: Mutex::default() })
    }

    /// A permit without bytes for a body of this client. A client whose address is unknown, because
    /// its socket is gone, has no share.
    pub fn permit(self: &Arc<Self>, client: Option<IpAddr>) -> BodyPermit {
        let address = client
            .filter(|address| !(self.loopback_exempt && address.to_canonical().is_loopback()))
            .map(AddressBlock::of);
        BodyPermit { budget: Arc::clone(self), address, bytes: 0 }
    }

    fn claimed(&self) -> MutexGuard<'_, ClaimedBytes> {
        // No code between two changes of the sums can panic.
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claimed bytes of one body.
#[derive(Debug)]
pub struct BodyPermit {
    budget: Arc<BodyBudget>,
    address: Option<AddressBlock>,
    bytes: usize,
}

impl BodyPermit {
    /// Claims bytes that have arrived. Nothing is claimed if it fails.
    pub fn claim(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        let mut claimed = self.budget.claimed();
        if claimed.total + bytes > INGEST_BYTES {
            return Err(BudgetExceeded::Process);
        }
        if let Some(address) = self.address {
            let of_address = claimed.addresses.get(&address).copied().unwrap_or(0) + bytes;
            if of_address > INGEST_BYTES_PER_ADDRESS {
                return Err(BudgetExceeded::Address);
            }
            if of_address > 0 {
                claimed.addresses.insert(address, of_address);
            }
        }
        claimed.total += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Returns bytes that are no longer in memory.
    pub fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let mut claimed = self.budget.claimed();
        claimed.total -= bytes;
        let Some(address) = self.address else { return };
        if let Some(of_address) = claimed.addresses.get_mut(&address) {
            *of_address -= bytes;
            if *of_address == 0 {
                claimed.addresses.remove(&address);
            }
        }
    }

    /// The bytes that are claimed.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether most of the budget is claimed, so that bodies that do not arrive have to give way.
    pub fn is_budget_short(&self) -> bool {
        self.budget.claimed().total > SHORT_BYTES
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget with a share for loopback addresses too.
    fn shared() -> Arc<BodyBudget> {
        BodyBudget::new(&ConnectionLimits::for_open_files(1_024))
    }

    fn permit(budget: &Arc<BodyBudget>, address: &str) -> BodyPermit {
        budget.permit(Some(address.parse().expect("an address")))
    }

    #[test]
    fn dropping_a_permit_returns_its_bytes() {
        let budget = shared();
        let mut body = permit(&budget, "203.0.113.7");
        body.claim(INGEST_BYTES_PER_ADDRESS).expect("the whole share");
        assert_eq!(body.claim(1), Err(BudgetExceeded::Address));
        body.release(10);
        body.claim(10).expect("as much as was returned");
        drop(body);
        let claimed = budget.claimed();
        assert_eq!((claimed.total, claimed.addresses.len()), (0, 0));
    }

    #[test]
    fn one_address_leaves_room_for_the_others_and_a_network_is_one_address() {
        let budget = shared();
        let mut first = permit(&budget, "2001:db8::1");
        first.claim(INGEST_BYTES_PER_ADDRESS).expect("the whole share");
        let mut neighbour = permit(&budget, "2001:db8::ffff:1");
        assert_eq!(neighbour.claim(1), Err(BudgetExceeded::Address));
        let mut other = permit(&budget, "2001:db8:0:1::1");
        other.claim(INGEST_BYTES_PER_ADDRESS).expect("a share of its own");
        assert!(!other.is_budget_short());
    }

    #[test]
    fn exempt_loopback_clients_share_the_budget_of_the_process() {
        let limits = ConnectionLimits::for_open_files(1_024);
        let budget = BodyBudget::new(&ConnectionLimits { loopback_exempt: true, ..limits });
        let mut local = permit(&budget, "::ffff:127.0.0.1");
        local.claim(INGEST_BYTES).expect("all of it");
        assert!(local.is_budget_short());
        assert_eq!(permit(&budget, "203.0.113.7").claim(1), Err(BudgetExceeded::Process));
        let mut local = permit(&shared(), "127.0.0.1");
        assert_eq!(local.claim(INGEST_BYTES), Err(BudgetExceeded::Address));
    }
}
