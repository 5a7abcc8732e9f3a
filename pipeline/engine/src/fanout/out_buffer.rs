//! The bytes that a connection is due: copies of small frames and references to large ones, in
//! order.
//!
//! A reference costs 32 bytes whatever the frame's size, so ten thousand connections that do not
//! read an event of 256 KiB keep it once. It holds the frame's own buffer alone, not the segment
//! with its records. Small frames are copied: that is cheaper than counting a reference, and all
//! that is due goes out in one write.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::totals::FanoutTotals;

/// Bytes from which on a frame is referred to instead of copied.
pub const REFERENCE_MIN_BYTES: usize = 4 * 1_024;

/// The bytes of a large frame, counted until the last reference is dropped.
#[derive(Debug)]
pub(super) struct SharedFrame {
    bytes: Box<[u8]>,
    totals: Arc<FanoutTotals>,
}

impl SharedFrame {
    pub(super) fn new(bytes: Box<[u8]>, totals: &Arc<FanoutTotals>) -> Self {
        totals.held_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes, totals: Arc::clone(totals) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for SharedFrame {
    fn drop(&mut self) {
        self.totals.held_bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// A part of a shared frame.
#[derive(Debug)]
struct FrameReference {
    /// How many of the buffer's own bytes come before it.
    at: usize,
    frame: Arc<SharedFrame>,
    from: u32,
    to: u32,
}

impl FrameReference {
    fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    fn bytes(&self) -> &[u8] {
        &self.frame.bytes[self.from as usize..self.to as usize]
    }
}

/// Bytes to be written to one connection.
#[derive(Debug, Default)]
pub struct OutBuffer {
    own: Vec<u8>,
    /// Ascending by `at`.
    references: Vec<FrameReference>,
    referenced_bytes: usize,
}

impl OutBuffer {
    /// An empty buffer with space for this many bytes of its own.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { own: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Bytes to write, referenced ones included.
    pub fn len(&self) -> usize {
        self.own.len() + self.referenced_bytes
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that this buffer alone uses for what it holds.
    pub fn own_bytes(&self) -> usize {
        self.own.len() + self.references.len() * size_of::<FrameReference>()
    }

    /// The bytes of its own, to append to.
    pub fn own_mut(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.own.clear();
        self.references.clear();
        self.referenced_bytes = 0;
    }

    /// Appends the bytes of a shared frame from `from` on, by reference.
    pub(super) fn put_reference(&mut self, frame: &Arc<SharedFrame>, from: usize) {
        let (from, to) = (from as u32, frame.bytes.len() as u32);
        let reference = FrameReference { at: self.own.len(), frame: Arc::clone(frame), from, to };
        self.referenced_bytes += reference.len();
        self.references.push(reference);
    }

    /// Appends what `other` holds and empties it.
    pub fn append(&mut self, other: &mut Self) {
        let base = self.own.len();
        self.own.append(&mut other.own);
        let moved = other.references.drain(..);
        self.references
            .extend(moved.map(|reference| FrameReference { at: base + reference.at, ..reference }));
        self.referenced_bytes += std::mem::take(&mut other.referenced_bytes);
    }

    /// The bytes to write, in order, in as few pieces as there are references between.
    pub fn pieces(&self) -> Vec<&[u8]> {
        let mut pieces = Vec::with_capacity(2 * self.references.len() + 1);
        let mut written = 0;
        for reference in &self.references {
            if reference.at > written {
                pieces.push(&self.own[written..reference.at]);
                written = reference.at;
            }
            pieces.push(reference.bytes());
        }
        if written < self.own.len() {
            pieces.push(&self.own[written..]);
        }
        pieces
    }

    /// All bytes, if there is one piece without a reference.
    pub fn as_one_piece(&self) -> Option<&[u8]> {
        self.references.is_empty().then_some(&self.own)
    }

    /// Removes the first `count` bytes, which have been written.
    pub fn consume(&mut self, count: usize) {
        let mut left = count;
        let mut own = 0;
        let mut whole = 0;
        for reference in &mut self.references {
            let before = (reference.at - own).min(left);
            (own, left) = (own + before, left - before);
            let taken = reference.len().min(left);
            left -= taken;
            self.referenced_bytes -= taken;
            reference.from += taken as u32;
            whole += usize::from(reference.from == reference.to);
            if left == 0 {
                break;
            }
        }
        own += left.min(self.own.len() - own);
        self.references.drain(..whole);
        self.own.drain(..own);
        for reference in &mut self.references {
            reference.at -= own;
        }
    }

    /// Gives back the memory that it does not use.
    pub fn shrink(&mut self) {
        self.own.shrink_to_fit();
        self.references.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(buffer: &OutBuffer) -> Vec<u8> {
        buffer.pieces().concat()
    }

    proptest! {
        #[test]
        fn it_holds_the_same_bytes_as_a_vector_however_they_are_written(
            puts in proptest::collection::vec((any::<bool>(), 0usize..40, 0usize..40), 0..12),
            cuts in proptest::collection::vec(0usize..60, 0..20),
        ) {
            let totals = Arc::default();
            let (mut buffer, mut model) = (OutBuffer::default(), Vec::new());
            for (n, (shared, len, from)) in puts.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..len).map(|at| (n * 40 + at) as u8).collect();
                if shared && from < len {
                    let frame = Arc::new(SharedFrame::new(bytes.clone().into(), &totals));
                    buffer.put_reference(&frame, from);
                    model.extend_from_slice(&bytes[from..]);
                } else {
                    let mut other = OutBuffer::default();
                    other.own_mut().extend_from_slice(&bytes);
                    buffer.append(&mut other);
                    model.extend_from_slice(&bytes);
                }
            }
            for cut in cuts {
                prop_assert_eq!(written(&buffer), model.clone());
                prop_assert_eq!(buffer.len(), model.len());
                let cut = cut.min(model.len());
                buffer.consume(cut);
                model.drain(..cut);
            }
            prop_assert_eq!(written(&buffer), model);
            drop(buffer);
            prop_assert_eq!(totals.bytes_beside_rings(), 0);
        }
    }
}
