//! Starts the workers of a gateway and adds up their figures.
//!
//! Each worker is one thread that runs an [`EventLoop`] over one shard. Other threads reach it
//! through its [`WorkerQueue`]; the gateway joins the thread.

use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use mio::Poll;
use tidewire_engine::fanout::hub::Hub;
use tidewire_engine::fanout::shard::{Shard, ShardStats};
use tidewire_engine::port::Wake;

use super::event_loop::{EventLoop, LoopParts, WAKE_TOKEN};
use super::shard_port::ShardPort;
use super::worker_queue::{WorkerQueue, WorkerWaker};
use crate::socket::memory::MemoryBudget;

/// Connections queued for a worker; when it is full, they go to the next worker.
const QUEUED_MAX: usize = 4_096;

/// A running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Where its connections go.
    pub queue: WorkerQueue,
    /// A recent copy of its shard's figures.
    pub stats: Arc<Mutex<ShardStats>>,
    /// Its thread, which ends after a [requested drain](WorkerWaker::request_drain).
    pub thread: JoinHandle<()>,
}

/// The figures of all workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkerStats(Arc<[Arc<Mutex<ShardStats>>]>);

impl WorkerStats {
    /// The figures of these workers.
    pub fn of(workers: &[WorkerHandle]) -> Self {
        Self(workers.iter().map(|worker| Arc::clone(&worker.stats)).collect())
    }

    /// Whether there are workers; a process without them has no streams.
    pub fn has_workers(&self) -> bool {
        !self.0.is_empty()
    }

    /// The sum over all workers. A channel with subscribers in two workers counts twice.
    pub fn total(&self) -> ShardStats {
        self.0.iter().fold(ShardStats::default(), |sum, one| {
            let one = *one.lock().unwrap_or_else(PoisonError::into_inner);
            ShardStats {
                websockets: sum.websockets + one.websockets,
                streams: sum.streams + one.streams,
                subscriptions: sum.subscriptions + one.subscriptions,
                channels: sum.channels + one.channels,
                backlogged: sum.backlogged + one.backlogged,
                behind: sum.behind + one.behind,
                deliveries: sum.deliveries + one.deliveries,
                bytes: sum.bytes + one.bytes,
            }
        })
    }
}

/// Starts this many workers over the hub; 0 starts one per processor. Their connections share
/// `memory`.
pub fn start_all(
    count: usize,
    memory: &Arc<MemoryBudget>,
    hub: &Arc<Hub>,
) -> io::Result<Vec<WorkerHandle>> {
    let count = match count {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    (0..count)
        .map(|number| start(number, Arc::clone(memory), |wake| Shard::new(hub, wake)))
        .collect()
}

/// Starts a worker with the shard that `make_shard` returns; its argument wakes the worker.
#[expect(clippy::disallowed_methods, reason = "the gateway joins what is started here")]
pub fn start<S: ShardPort + Send + 'static>(
    number: usize,
    memory: Arc<MemoryBudget>,
    make_shard: impl FnOnce(Arc<dyn Wake>) -> S,
) -> io::Result<WorkerHandle> {
    let poll = Poll::new()?;
    let waker = Arc::new(WorkerWaker::new(mio::Waker::new(poll.registry(), WAKE_TOKEN)?));
    let (connections, inbox) = sync_channel(QUEUED_MAX);
    let stats = Arc::<Mutex<ShardStats>>::default();
    let shard = make_shard(Arc::clone(&waker) as Arc<dyn Wake>);
    let parts = LoopParts { poll, inbox, waker: Arc::clone(&waker), memory };
    let mut event_loop = EventLoop::new(shard, parts);
    let shared_stats = Arc::clone(&stats);
    let thread = std::thread::Builder::new()
        .name(format!("streams-{number}"))
        .spawn(move || event_loop.run(&shared_stats))?;
    Ok(WorkerHandle { queue: WorkerQueue { connections, waker }, stats, thread })
}
