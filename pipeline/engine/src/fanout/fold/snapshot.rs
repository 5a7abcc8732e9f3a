//! Stub.
use std::sync::Arc;
use crate::fanout::out_buffer::SharedFrame;
use crate::fanout::protocol::snapshot_frame::SnapshotExtent;
use crate::record::Partition;
pub struct ChannelSnapshot { pub(crate) channel: Box<str>, pub(crate) partition: Partition, pub(crate) at: u64, pub(crate) epoch: u32, pub(crate) extent: SnapshotExtent, pub(crate) pages: Vec<Arc<SharedFrame>> }
