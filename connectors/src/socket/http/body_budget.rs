//! The memory budget of request bodies and of the answers to them, with a share per client address.
//!
//! Bytes are claimed as they arrive, and as they come out of a decoder, never by what a header
//! announces: a client that announces much and sends nothing takes nothing. Each body holds a
//! [`BodyPermit`], which returns its bytes when it is dropped, whichever way the request ends. So
//! does each answer, until it is written: a client may send without reading.
//!
//! Nothing waits for bytes: beyond the budget a claim fails, and the request with it. A client can
//! still fill the budget with bodies that it never ends, so while the budget is short, those end
//! that move more slowly than [`BodyPermit::least_bytes_per_s`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::socket::limits::{AddressBlock, BODY_BYTES_PER_S, ConnectionLimits};

/// Bytes of all bodies and their answers, from their arrival until the answer is written: sixteen
/// of the largest bodies.
pub const INGEST_BYTES: usize = 64 * 1_024 * 1_024;

/// Those of one address: four of the largest, and with two more such addresses there
/// is still room for others.
pub const INGEST_BYTES_PER_ADDRESS: usize = INGEST_BYTES / 4;

/// Those of one site, which is an IPv6 network of 48 bits: one customer can have that many networks
/// of 64 bits that each would be an address of its own.
const INGEST_BYTES_PER_SITE: usize = INGEST_BYTES / 2;

/// From how many claimed bytes on the budget counts as short: three quarters.
const SHORT_BYTES: usize = INGEST_BYTES / 4 * 3;

/// In how many seconds a body or answer has to move as many bytes as it holds while the budget is
/// short. To hold all of it takes as much traffic as to fill it every eight seconds, and a body of
/// the largest size has to arrive at 4 Mbit/s.
const SHORT_SECONDS: u64 = 8;

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
    /// The same per site.
    sites: HashMap<AddressBlock, usize>,
}

/// What a client's bytes count for.
#[derive(Clone, Copy, Debug)]
struct ClientBlocks {
    address: AddressBlock,
    site: AddressBlock,
}

impl ClaimedBytes {
    /// The sums that this client has a part in, each with its limit.
    fn shares(&mut self, client: ClientBlocks) -> [Share<'_>; 2] {
        let Self { addresses, sites, .. } = self;
        [
            Share { sums: addresses, block: client.address, most: INGEST_BYTES_PER_ADDRESS },
            Share { sums: sites, block: client.site, most: INGEST_BYTES_PER_SITE },
        ]
    }
}

/// The sum of one block, which has an entry unless it is 0.
struct Share<'a> {
    sums: &'a mut HashMap<AddressBlock, usize>,
    block: AddressBlock,
    most: usize,
}

impl Share<'_> {
    fn has_room(&self, bytes: usize) -> bool {
        self.sums.get(&self.block).copied().unwrap_or(0) + bytes <= self.most
    }

    fn add(&mut self, bytes: usize) {
        if bytes > 0 {
            *self.sums.entry(self.block).or_default() += bytes;
        }
    }

    fn remove(&mut self, bytes: usize) {
        if let Some(sum) = self.sums.get_mut(&self.block) {
            *sum -= bytes;
            if *sum == 0 {
                self.sums.remove(&self.block);
            }
        }
    }
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
        let client = client
            .filter(|address| !(self.loopback_exempt && address.to_canonical().is_loopback()))
            .map(|address| ClientBlocks {
                address: AddressBlock::of(address),
                site: AddressBlock::site_of(address),
            });
        BodyPermit { budget: Arc::clone(self), client, bytes: 0 }
    }

    fn claimed(&self) -> MutexGuard<'_, ClaimedBytes> {
        // No code between two changes of the sums can panic.
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claimed bytes of one body or answer.
#[derive(Debug)]
pub struct BodyPermit {
    budget: Arc<BodyBudget>,
    client: Option<ClientBlocks>,
    bytes: usize,
}

impl BodyPermit {
    /// Claims bytes that have arrived. Nothing is claimed if it fails.
    pub fn claim(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        let mut claimed = self.budget.claimed();
        if claimed.total + bytes > INGEST_BYTES {
            return Err(BudgetExceeded::Process);
        }
        if let Some(client) = self.client {
            let mut shares = claimed.shares(client);
            if !shares.iter().all(|share| share.has_room(bytes)) {
                return Err(BudgetExceeded::Address);
            }
            shares.iter_mut().for_each(|share| share.add(bytes));
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
        if let Some(client) = self.client {
            claimed.shares(client).iter_mut().for_each(|share| share.remove(bytes));
        }
    }

    /// The bytes that are claimed.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A permit without bytes, for the answer to the same client.
    pub fn for_answer(&self) -> Self {
        Self { budget: Arc::clone(&self.budget), client: self.client, bytes: 0 }
    }

    /// The rate at which it has to move to keep its bytes: 0 unless most of the budget is claimed.
    pub fn least_bytes_per_s(&self) -> u64 {
        let is_short = self.budget.claimed().total > SHORT_BYTES;
        match self.bytes {
            0 => 0,
            _ if !is_short => 0,
            held => BODY_BYTES_PER_S.max(held as u64 / SHORT_SECONDS),
        }
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
        let blocks = claimed.addresses.len() + claimed.sites.len();
        assert_eq!((claimed.total, blocks), (0, 0));
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
        assert_eq!(other.least_bytes_per_s(), 0, "half of the budget is left");
        let mut same_site = permit(&budget, "2001:db8:0:2::1");
        assert_eq!(same_site.claim(1), Err(BudgetExceeded::Address), "the /48 has its share");
        permit(&budget, "2001:db8:1::1").claim(1).expect("another site");
    }

    #[test]
    fn while_the_budget_is_short_a_body_moves_in_proportion_to_what_it_holds() {
        let budget = shared();
        let mut others: Vec<BodyPermit> =
            (1..=3).map(|n| permit(&budget, &format!("203.0.113.{n}"))).collect();
        others.iter_mut().for_each(|body| {
            body.claim(INGEST_BYTES_PER_ADDRESS).expect("the whole share");
        });
        let mut body = permit(&budget, "198.51.100.1");
        assert_eq!(body.least_bytes_per_s(), 0, "it holds nothing");
        body.claim(100).expect("room");
        assert_eq!(body.least_bytes_per_s(), 1_024);
        body.claim((4 << 20) - 100).expect("room");
        assert_eq!(body.least_bytes_per_s(), 512 << 10);
        others.pop();
        assert_eq!(body.least_bytes_per_s(), 0);
    }

    #[test]
    fn exempt_loopback_clients_share_the_budget_of_the_process() {
        let limits = ConnectionLimits::for_open_files(1_024);
        let budget = BodyBudget::new(&ConnectionLimits { loopback_exempt: true, ..limits });
        let mut local = permit(&budget, "::ffff:127.0.0.1");
        local.claim(INGEST_BYTES).expect("all of it");
        assert_eq!(local.least_bytes_per_s(), INGEST_BYTES as u64 / 8);
        assert_eq!(permit(&budget, "203.0.113.7").claim(1), Err(BudgetExceeded::Process));
        let mut local = permit(&shared(), "127.0.0.1");
        assert_eq!(local.claim(INGEST_BYTES), Err(BudgetExceeded::Address));
    }
}
