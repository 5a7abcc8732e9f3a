//! Stub.
use std::sync::Arc;
use super::snapshot::ChannelSnapshot;
use crate::fanout::identity::Accounts;
use crate::record::Partition;
pub(crate) struct SnapshotRequest { pub channel: Box<str>, pub partition: Partition, pub accounts: Accounts,
    pub answer: Box<dyn FnOnce(SnapshotAnswer) + Send> }
pub enum SnapshotAnswer { Found(Arc<ChannelSnapshot>), Unavailable }
#[derive(Default)]
pub(crate) struct SnapshotMailbox;
impl SnapshotMailbox { pub fn ask(&self, request: SnapshotRequest) -> Result<(), SnapshotRequest> { Err(request) } }
