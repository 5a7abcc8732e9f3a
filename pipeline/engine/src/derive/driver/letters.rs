//! Dead letters of the task that a test drives.

use crate::dead_letters::{DeadLetter, destination, requeued_record};
use crate::derive::TopologyDriver;
use crate::record::{Offset, Partition, Record};
use crate::topology::Lane;

impl TopologyDriver {
    /// The dead letters that were written since the last call.
    pub(crate) fn read_dead_letters(&mut self) -> Vec<DeadLetter> {
        let topic = self.topology().dead_letters().clone();
        let timestamp = self.now();
        let read =
            |body| DeadLetter::of(Partition(0), Record { offset: Offset(0), timestamp, body });
        self.read_output(&topic).into_iter().map(read).collect()
    }

    /// Processes the record of an operator's dead letter again.
    pub(crate) fn requeue(&mut self, letter: &DeadLetter) {
        let to = destination(self.topology(), letter).expect("it can be requeued");
        assert_eq!(&to.topic, self.topology().facts());
        self.pipe_body(Lane::Facts, requeued_record(letter, &to).body);
    }
}
