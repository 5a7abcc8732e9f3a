//! The set of connections that have something to write: one bit each.
//!
//! Marking a connection that is marked already costs one look at a small bit map, which makes a hot
//! channel with ten thousand subscribers cheap. A list beside the bits holds the connections that
//! the worker has not been given yet.

/// Whether a connection was already waiting at the last check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadySince {
    Before,
    Now,
}

/// The marked connections.
#[derive(Default)]
pub(super) struct ReadySet {
    bits: Vec<u64>,
    /// Those of `bits` that were marked at the last call of `waiting` and ever since.
    seen: Vec<u64>,
    list: Vec<u32>,
}

impl ReadySet {
    /// Marks a slot; it is listed once until it is cleared.
    pub(super) fn mark(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit == 0 {
            self.bits[word] |= bit;
            self.list.push(slot);
        }
    }

    /// Marks a slot without listing it: its worker fills it again without being told.
    pub(super) fn hold(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1u64 << (slot % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= bit;
    }

    /// Unmarks a slot whose connection has been given everything.
    pub(super) fn clear(&mut self, slot: u32) {
        if let Some(word) = self.bits.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
        if let Some(word) = self.seen.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    /// Unmarks and unlists a slot whose connection is gone, so that the next one starts clean.
    pub(super) fn forget(&mut self, slot: u32) {
        let marked = self.bits.get(slot as usize / 64).is_some_and(|w| w >> (slot % 64) & 1 == 1);
        if marked {
            self.clear(slot);
            self.list.retain(|listed| *listed != slot);
        }
    }

    /// The slots marked since the last call.
    pub(super) fn drain(&mut self) -> std::vec::Drain<'_, u32> {
        self.list.drain(..)
    }

    /// Every marked slot, listed or not, and whether it has been marked since the last call.
    pub(super) fn waiting(&mut self) -> Vec<(u32, ReadySince)> {
        self.seen.resize(self.bits.len(), 0);
        let mut waiting = Vec::new();
        for (at, (bits, seen)) in self.bits.iter().zip(&mut self.seen).enumerate() {
            let mut left = *bits;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let since =
                    if *seen >> bit & 1 == 1 { ReadySince::Before } else { ReadySince::Now };
                waiting.push((at as u32 * 64 + bit, since));
            }
            *seen = *bits;
        }
        waiting
    }

    pub(super) fn count(&self) -> usize {
        self.bits.iter().map(|word| word.count_ones() as usize).sum()
    }
}
