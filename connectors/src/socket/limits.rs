//! What a gateway lets in: its limits, and the count of who holds a seat now.
//!
//! The one idea: whoever is served holds a [`ConnectionPermit`], a value that gives its place back
//! when it is dropped, whichever way a connection ends. Counts are therefore never adjusted by
//! hand. The table of addresses and users is bounded by the seats themselves.
//!
//! It never waits: a full house is an answer (429 or 503), not a queue.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors kept for what isn't a client socket: the log's files, the listener, epoll.
pub const RESERVED_FILES: usize = 1_024;

/// Connections from one address; an office behind one address fits, a runaway client doesn't.
pub const CONNECTIONS_PER_ADDRESS: usize = 200;

/// Live streams of one user: phones, laptops and many tabs.
pub const STREAMS_PER_USER: usize = 20;

/// Connections answered with a refusal at the same time; those beyond are just closed.
pub const REFUSALS_AT_ONCE: usize = 256;

/// A client's request head, start line included; tokens in a query fit well.
pub const REQUEST_HEAD_BYTES: usize = 16 * 1_024;

/// A plain HTTP connection that moved no byte for this long is closed.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(45);

/// What a refused client is told to wait, in seconds.
pub const RETRY_AFTER_SECONDS: u64 = 5;

/// How long clients may take to say what they want, and how long they are kept waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTimeouts {
    /// For a request's head, which is also how long a kept-alive connection may stay silent.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// For the log to take events: less than clients wait for an answer, so that it is ours they
    /// get.
    pub append: Duration,
}

impl Default for RequestTimeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            body: Duration::from_secs(30),
            append: Duration::from_secs(20),
        }
    }
}

/// The limits of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections of the whole process.
    pub connections: usize,
    /// Connections of one address.
    pub per_address: usize,
    /// Live streams of one user.
    pub per_user: usize,
    /// Whether loopback addresses (and the users that come from there) are counted only as part of
    /// the whole; true in development, where one machine plays all clients.
    pub loopback_exempt: bool,
}

impl ConnectionLimits {
    /// The limits for a process that may open this many files.
    pub fn for_open_files(open_files: usize) -> Self {
        Self {
            connections: open_files.saturating_sub(RESERVED_FILES).max(open_files / 4),
            per_address: CONNECTIONS_PER_ADDRESS,
            per_user: STREAMS_PER_USER,
            loopback_exempt: false,
        }
    }

    /// The limits for this process, by what the system lets it open.
    pub fn of_process() -> Self {
        Self::for_open_files(open_files())
    }
}

/// How many files this process may open now.
pub fn open_files() -> usize {
    let now = getrlimit(Resource::Nofile).current;
    now.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// Raises the number of files this process may open as far as the system lets it, and returns what
/// holds then. Failing to raise is no error: the limits follow what is there.
pub fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    open_files()
}

/// Why somebody got no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// The process holds as many connections as it may.
    Process,
    /// The address does.
    Address,
    /// The user does.
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

#[derive(Debug, Default)]
struct ConnectionCounts {
    total: usize,
    addresses: HashMap<IpAddr, usize>,
    users: HashMap<Arc<str>, usize>,
}

/// All seats of one gateway.
#[derive(Debug)]
pub struct ConnectionLimiter {
    limits: ConnectionLimits,
    counts: Mutex<ConnectionCounts>,
}

impl ConnectionLimiter {
    /// An empty house.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// How many are taken.
    pub fn connections(&self) -> usize {
        self.counts().total
    }

    /// A seat for a new connection from `address`.
    pub fn acquire(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, LimitReached> {
        let mut counts = self.counts();
        if counts.total >= self.limits.connections {
            return Err(LimitReached::Process);
        }
        let address = address.to_canonical();
        let counted = !self.is_exempt(address);
        if counted {
            let of_address = counts.addresses.entry(address).or_default();
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
        // A panic elsewhere can't leave the counts half changed: each change is one addition.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to be connected; dropping it gives the place back.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
    user: Option<Arc<str>>,
}

impl ConnectionPermit {
    /// The address it was given to.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Counts the connection as a live stream of `user`.
    pub fn count_stream(&mut self, user: &str) -> Result<(), LimitReached> {
        if self.limiter.is_exempt(self.address) || self.user.is_some() {
            return Ok(());
        }
        let mut counts = self.limiter.counts();
        let user: Arc<str> = match counts.users.get_key_value(user) {
            Some((_, taken)) if *taken >= self.limiter.limits.per_user => {
                return Err(LimitReached::User);
            }
            Some((known, _)) => Arc::clone(known),
            None => user.into(),
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
            decrement(&mut counts.addresses, &self.address);
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
    use super::*;

    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

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
    fn a_dropped_permit_is_free_again_and_leaves_nothing_in_the_tables() {
        let limiter = limiter(10, 1, false);
        let mut permit = limiter.acquire(AWAY).expect("room");
        permit.count_stream("ann").expect("room");
        assert_eq!(limiter.acquire(AWAY).err(), Some(LimitReached::Address));
        drop(permit);
        assert_eq!(limiter.connections(), 0);
        assert!(limiter.counts().addresses.is_empty() && limiter.counts().users.is_empty());
        assert!(limiter.acquire(AWAY).is_ok());
    }

    #[test]
    fn the_process_has_a_limit_that_holds_on_loopback_too() {
        let limiter = limiter(2, 1, true);
        let _two = [limiter.acquire(HERE).expect("first"), limiter.acquire(HERE).expect("second")];
        assert_eq!(limiter.acquire(HERE).err(), Some(LimitReached::Process));
    }

    #[test]
    fn a_user_may_hold_only_so_many_streams_wherever_from() {
        let limiter = limiter(10, 10, false);
        let mut taken: Vec<ConnectionPermit> =
            (0..3).map(|_| limiter.acquire(AWAY).expect("room")).collect();
        assert_eq!(taken[0].count_stream("ann"), Ok(()));
        assert_eq!(taken[1].count_stream("ann"), Ok(()));
        assert_eq!(taken[2].count_stream("ann"), Err(LimitReached::User));
        assert_eq!(taken[2].count_stream("bob"), Ok(()));
    }

    #[test]
    fn limits_leave_files_for_the_log_and_something_for_clients() {
        assert_eq!(ConnectionLimits::for_open_files(20_000).connections, 18_976);
        assert_eq!(ConnectionLimits::for_open_files(1_024).connections, 256);
    }
}
