//! Transactions of the embedded log: held in memory until the commit, then written as one batch.
//!
//! Nothing of an open or aborted transaction is ever in the log, so both isolation levels read the
//! same records and a crash leaves nothing to undo. Only a request for uncommitted ends waits for
//! transactions that are open (`ends.rs`). The order of calls is checked as strictly as Kafka
//! requires it, so that code that works here works there.

use std::sync::Arc;

use tidewire_engine::port::{Committed, GroupToken, LogError, Transactor};
use tidewire_engine::record::{Offset, Outgoing, TopicPartition};

use super::append::WriteBuilder;
use super::core::Core;
use super::group::MembershipProof;
use super::open_transactions::OpenTransaction;
use super::write_queue::ProducerEpoch;
use super::writer;

/// The producer of a transactional id.
pub(super) struct EmbeddedTransactor {
    core: Arc<Core>,
    epoch: ProducerEpoch,
    open: Option<PendingTransaction>,
}

struct PendingTransaction {
    builder: WriteBuilder,
    /// Requests for uncommitted ends wait until it is dropped.
    registered: OpenTransaction,
    /// Whether `drain` came after the last append.
    drained: bool,
}

impl EmbeddedTransactor {
    /// Takes over the transactional id and fences its former producer.
    pub(super) fn new(core: &Arc<Core>, id: &str) -> Result<Self, LogError> {
        let epoch = core.lock_writer()?.next_epoch(id)?;
        Ok(Self { core: core.clone(), epoch, open: None })
    }

    fn open(&mut self) -> Result<&mut PendingTransaction, LogError> {
        self.open.as_mut().ok_or_else(|| invalid("no transaction is open; call begin first"))
    }
}

impl Transactor for EmbeddedTransactor {
    fn begin(&mut self) -> Result<(), LogError> {
        if self.open.is_some() {
            return Err(invalid("a transaction is open already; commit or abort it first"));
        }
        self.core.lock_writer()?.check_epoch(&self.epoch)?;
        let registered = OpenTransaction::begin(&self.core.open_transactions);
        let builder = WriteBuilder::default();
        self.open = Some(PendingTransaction { builder, registered, drained: true });
        Ok(())
    }

    fn append(&mut self, records: &[Outgoing]) -> Result<(), LogError> {
        let core = self.core.clone();
        let open = self.open()?;
        open.drained = false;
        open.builder.add(&core, records, |_, _| {})?;
        let appends = open.builder.write.appends.iter();
        open.registered.writes_to(appends.map(|append| append.log.head_index));
        Ok(())
    }

    fn drain(&mut self) -> Result<(), LogError> {
        self.core.check_failure()?;
        self.open()?.drained = true;
        Ok(())
    }

    fn send_offsets(
        &mut self,
        group: &GroupToken,
        offsets: &[(TopicPartition, Committed)],
    ) -> Result<(), LogError> {
        let core = self.core.clone();
        let open = self.open()?;
        if !open.drained {
            return Err(invalid("records may be in flight; call drain before send_offsets"));
        }
        let proof = group.proof.downcast_ref::<MembershipProof>();
        let proof = proof.ok_or_else(|| invalid("the group token comes from another log"))?;
        let coordinator = core.coordinator.lock().expect("no holder panics");
        coordinator.check(proof)?;
        for (at, committed) in offsets {
            core.partition(at)?;
            let write = &mut open.builder.write;
            write.offsets.push((group.group.clone(), at.clone(), committed.clone()));
        }
        open.builder.write.proofs.push(proof.clone());
        Ok(())
    }

    fn commit(&mut self) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        if !self.open()?.drained {
            return Err(invalid("records may be in flight; call drain before commit"));
        }
        let PendingTransaction { builder, registered, .. } =
            self.open.take().expect("opened above");
        let mut write = builder.write;
        write.epoch = Some(self.epoch.clone());
        let ends: Vec<_> = write
            .appends
            .iter()
            .map(|append| (append.log.at.clone(), append.bodies.len() as u64))
            .collect();
        let firsts = writer::submit(&self.core, write)?;
        // The ends are behind it from here on.
        drop(registered);
        let end_offset = |((at, count), first)| (at, Offset(first + count));
        Ok(ends.into_iter().zip(firsts).map(end_offset).collect())
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.open = None;
        self.core.lock_writer()?.check_epoch(&self.epoch)
    }
}

fn invalid(text: &str) -> LogError {
    LogError::Invalid(text.to_owned())
}
