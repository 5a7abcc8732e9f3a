//! Connection limits of a process, and the counts of open connections held against them.
//!
//! Each connection that is served holds a [`ConnectionPermit`]. Dropping it decrements the counts,
//! whichever way the connection ends, so no code path can forget to. The tables of addresses and
//! users have at most one entry per permit.
//!
//! Nothing waits for a permit: at a limit the client is refused with 429 or 503.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidewire_engine::fanout::identity::{Accounts, Identity};

/// File descriptors reserved for everything but client sockets: the log's files, the listener,
/// epoll.
pub const RESERVED_FILES: usize = 1_024;

/// Connections from one address, or one /64 network of IPv6: enough for an office behind NAT, too
/// few for a runaway client.
pub const CONNECTIONS_PER_ADDRESS: usize = 200;

/// Streams of one user: enough for phones, laptops and many tabs.
pub const STREAMS_PER_USER: usize = 20;

/// Refused connections that are answered at the same time; those beyond are closed unanswered.
pub const REFUSALS_AT_ONCE: usize = 256;

/// A request head, start line included; positions in a query fit.
pub const REQUEST_HEAD_BYTES: usize = 16 * 1_024;

/// Bytes of one body, unpacked.
pub const BODY_BYTES: usize = 4 * 1_024 * 1_024;

/// Events of one body.
pub const BODY_EVENTS: usize = 1_000;

/// The slowest that a body may arrive, over [`RequestTimeouts::body_window`]: a tenth of what a
/// phone reaches over GPRS, the slowest network still in use.
pub const BODY_BYTES_PER_S: u64 = 1_024;

/// The leading bits of an IPv6 address that count as one client: a provider gives every customer at
/// least a /64, so the rest of the address is the customer's to choose (RFC 6177).
const IPV6_PREFIX_BITS: u32 = 64;

/// The leading bits of what one customer may have at most: a /48 (RFC 6177).
const IPV6_SITE_BITS: u32 = 48;

/// The `Retry-After` of refused requests, in seconds.
pub const RETRY_AFTER_SECONDS: u64 = 5;

/// How long clients may take to send a request, and how long they wait for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTimeouts {
    /// For a request's head; a kept-alive connection may stay silent for as long.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// Over which its rate is at least [`BODY_BYTES_PER_S`]: long enough for a phone that loses a
    /// few packets in a row.
    pub body_window: Duration,
    /// For a response to be read, from the moment its connection accepts no more bytes.
    pub response: Duration,
    /// A plain HTTP connection on which no byte moved for this long is closed, unless the server is
    /// working on a request.
    pub stall: Duration,
    /// For the log to confirm events: shorter than clients usually wait, so that they get an answer
    /// instead of their own timeout.
    pub append: Duration,
}

impl RequestTimeouts {
    /// How often the rate of bodies and responses is checked while memory for them is short.
    pub fn rate_check(&self) -> Duration {
        self.body_window / 10
    }
}

impl Default for RequestTimeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            body: Duration::from_secs(30),
            body_window: Duration::from_secs(10),
            response: Duration::from_secs(30),
            stall: Duration::from_secs(45),
            append: Duration::from_secs(20),
        }
    }
}

/// The limits of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections of the whole process.
    pub connections: usize,
    /// Connections from one address.
    pub per_address: usize,
    /// Streams of one user.
    pub per_user: usize,
    /// Whether the limits per address and per user don't count loopback connections; true in
    /// development, where one machine runs all clients.
    pub loopback_exempt: bool,
}

impl ConnectionLimits {
    /// The limits of a process that may open this many files: all but [`RESERVED_FILES`], at least
    /// a quarter.
    pub fn for_open_files(open_files: usize) -> Self {
        Self {
            connections: open_files.saturating_sub(RESERVED_FILES).max(open_files / 4),
            per_address: CONNECTIONS_PER_ADDRESS,
            per_user: STREAMS_PER_USER,
            loopback_exempt: false,
        }
    }

    /// The limits of this process, from its open-file limit.
    pub fn of_process() -> Self {
        Self::for_open_files(open_files())
    }
}

/// The open-file limit of this process.
pub fn open_files() -> usize {
    let now = getrlimit(Resource::Nofile).current;
    now.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// Raises the open-file limit of this process to the hard limit and returns the limit in force. A
/// failure is not an error: the connection limits follow from the limit in force.
pub fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the open-file limit could not be raised");
    }
    open_files()
}

/// The connection limit that refused a connection or stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// Connections of the process.
    Process,
    /// Connections from one address.
    Address,
    /// Streams of one user.
    User,
}

impl LimitReached {
    /// The label in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Process => "process_full",
            Self::Address => "address_full",
            Self::User => "user_full",
        }
    }
}

/// Addresses that count together: an IPv4 address, or a network of IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressBlock(IpAddr);

impl AddressBlock {
    /// What counts as one client: the address, or its /64 network. An IPv4 address that is written
    /// as IPv6 is an IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        Self::with_prefix(address, IPV6_PREFIX_BITS)
    }

    /// What one customer may have at most: the IPv4 address, or the /48 network of an IPv6 address.
    pub fn site_of(address: IpAddr) -> Self {
        Self::with_prefix(address, IPV6_SITE_BITS)
    }

    fn with_prefix(address: IpAddr, bits: u32) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                let mask = u128::MAX << (u128::BITS - bits);
                Self(Ipv6Addr::from_bits(address.to_bits() & mask).into())
            }
        }
    }
}

/// What counts as one user: the name, within its accounts where they are known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserKey {
    name: Box<str>,
    /// Sorted. `None` for a user of all accounts, whose name is all there is.
    accounts: Option<Box<[Box<str>]>>,
}

impl UserKey {
    /// The user of this identity.
    pub fn of(identity: &Identity) -> Self {
        let accounts = match &identity.accounts {
            Accounts::All => None,
            Accounts::Only(accounts) => {
                let sorted: BTreeSet<&str> = accounts.iter().map(|account| &**account).collect();
                Some(sorted.into_iter().map(Box::from).collect())
            }
        };
        Self { name: identity.user.clone(), accounts }
    }
}

#[derive(Debug, Default)]
struct ConnectionCounts {
    total: usize,
    addresses: HashMap<AddressBlock, usize>,
    users: HashMap<Arc<UserKey>, usize>,
}

/// Counts the connections of one process and refuses those beyond its limits.
#[derive(Debug)]
pub struct ConnectionLimiter {
    limits: ConnectionLimits,
    counts: Mutex<ConnectionCounts>,
}

impl ConnectionLimiter {
    /// A limiter without connections.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.counts().total
    }

    /// A permit for a new connection from `address`.
    pub fn acquire(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, LimitReached> {
        let mut counts = self.counts();
        if counts.total >= self.limits.connections {
            return Err(LimitReached::Process);
        }
        let address = address.to_canonical();
        let counted = !self.is_exempt(address);
        if counted {
            let of_address = counts.addresses.entry(AddressBlock::of(address)).or_default();
            if *of_address >= self.limits.per_address {
                return Err(LimitReached::Address);
            }
            *of_address += 1;
        }
        counts.total += 1;
        drop(counts);
        Ok(ConnectionPermit { limiter: Arc::clone(self), address, user: None })
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.limits.loopback_exempt && address.is_loopback()
    }

    fn counts(&self) -> MutexGuard<'_, ConnectionCounts> {
        // A panic in another thread can't leave a count half changed: each change is one addition.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
    user: Option<Arc<UserKey>>,
}

impl ConnectionPermit {
    /// The address of the client.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Counts the connection as a stream of the user of `identity`.
    pub fn count_stream(&mut self, identity: &Identity) -> Result<(), LimitReached> {
        if self.limiter.is_exempt(self.address) || self.user.is_some() {
            return Ok(());
        }
        let key = UserKey::of(identity);
        let mut counts = self.limiter.counts();
        let user = match counts.users.get_key_value(&key) {
            Some((_, taken)) if *taken >= self.limiter.limits.per_user => {
                return Err(LimitReached::User);
            }
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(key),
        };
        *counts.users.entry(Arc::clone(&user)).or_default() += 1;
        drop(counts);
        self.user = Some(user);
        Ok(())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.limiter.counts();
        counts.total -= 1;
        if !self.limiter.is_exempt(self.address) {
            decrement(&mut counts.addresses, &AddressBlock::of(self.address));
        }
        if let Some(user) = &self.user {
            decrement(&mut counts.users, user);
        }
    }
}

fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(taken) = counts.get_mut(key) {
        *taken -= 1;
        if *taken == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewire_engine::fanout::identity::Roles;

    use super::*;

    const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn user(name: &str, accounts: Option<&[&str]>) -> Identity {
        let accounts = accounts.map_or(Accounts::All, |of| {
            Accounts::Only(of.iter().map(|account| Box::from(*account)).collect())
        });
        Identity { user: name.into(), accounts, roles: Roles::CLIENT }
    }

    fn limiter(
        connections: usize,
        per_address: usize,
        loopback_exempt: bool,
    ) -> Arc<ConnectionLimiter> {
        ConnectionLimiter::new(ConnectionLimits {
            connections,
            per_address,
            per_user: 2,
            loopback_exempt,
        })
    }

    #[test]
    fn dropping_a_permit_removes_its_counts() {
        let limiter = limiter(10, 1, false);
        let mut permit = limiter.acquire(REMOTE).expect("below the limit");
        permit.count_stream(&user("ann", None)).expect("below the limit");
        assert_eq!(limiter.acquire(REMOTE).err(), Some(LimitReached::Address));
        drop(permit);
        assert_eq!(limiter.connections(), 0);
        assert!(limiter.counts().addresses.is_empty() && limiter.counts().users.is_empty());
        assert!(limiter.acquire(REMOTE).is_ok());
    }

    #[test]
    fn the_limit_of_the_process_counts_loopback_connections() {
        let limiter = limiter(2, 1, true);
        let _two =
            [limiter.acquire(LOCAL).expect("first"), limiter.acquire(LOCAL).expect("second")];
        assert_eq!(limiter.acquire(LOCAL).err(), Some(LimitReached::Process));
    }

    #[test]
    fn streams_of_a_user_are_limited_over_all_its_connections() {
        let limiter = limiter(10, 10, false);
        let mut taken: Vec<ConnectionPermit> =
            (0..3).map(|_| limiter.acquire(REMOTE).expect("below the limit")).collect();
        assert_eq!(taken[0].count_stream(&user("ann", None)), Ok(()));
        assert_eq!(taken[1].count_stream(&user("ann", None)), Ok(()));
        assert_eq!(taken[2].count_stream(&user("ann", None)), Err(LimitReached::User));
        assert_eq!(taken[2].count_stream(&user("bob", None)), Ok(()));
    }

    #[test]
    fn users_of_one_name_in_different_accounts_are_different_users() {
        let limiter = limiter(10, 10, false);
        let count = |accounts: Option<&[&str]>| {
            let mut permit = limiter.acquire(REMOTE).expect("below the limit");
            permit.count_stream(&user("ann", accounts)).map(|()| permit)
        };
        let _open = [
            count(Some(&["acme"])).expect("the first"),
            count(Some(&["acme"])).expect("the second"),
            count(Some(&["globex"])).expect("another account"),
            count(None).expect("of all accounts"),
            count(Some(&["a", "b"])).expect("of two accounts"),
            count(Some(&["b", "a", "b"])).expect("of the same two"),
        ];
        assert_eq!(count(Some(&["acme"])).err(), Some(LimitReached::User));
        assert_eq!(count(Some(&["a", "b"])).err(), Some(LimitReached::User));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let limiter = limiter(10, 1, false);
        let acquire = |text: &str| limiter.acquire(text.parse().expect("an address"));
        let first = acquire("2001:db8:0:7::1").expect("the first of its network");
        let neighbour = acquire("2001:db8:0:7:ffff:ffff:ffff:ffff");
        assert_eq!(neighbour.err(), Some(LimitReached::Address));
        let _other = acquire("2001:db8:0:8::1").expect("another network");
        // An IPv4 address in IPv6 form is an IPv4 address: not all of them are one client.
        let _mapped = acquire("::ffff:203.0.113.7").expect("the first");
        assert_eq!(acquire("203.0.113.7").err(), Some(LimitReached::Address));
        let _next = acquire("::ffff:203.0.113.8").expect("another address");
        drop(first);
        assert!(acquire("2001:db8:0:7::2").is_ok());
        assert!(limiter.counts().addresses.len() < 5, "no entry stays behind");
    }

    #[test]
    fn limits_reserve_files_but_leave_at_least_a_quarter_for_clients() {
        assert_eq!(ConnectionLimits::for_open_files(20_000).connections, 18_976);
        assert_eq!(ConnectionLimits::for_open_files(1_024).connections, 256);
    }
}
