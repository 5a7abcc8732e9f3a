//! Live WebSocket and SSE connections, on worker threads with an epoll loop each.
//!
//! Other threads reach a worker only through its [`worker_queue`]. What a connection is sent comes
//! from the worker's shard, behind the trait of [`shard_port`].
//!
//! In reading order.

pub mod worker;
pub mod worker_queue;

pub mod event_loop;
pub mod frame_decoder;
pub mod frame_encoder;
pub mod live_connection;
pub mod shard_port;

pub mod drain;
pub mod linger;
