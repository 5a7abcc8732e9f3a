//! The primitives of DERIVE's persisted formats: big-endian integers, LEB128 lengths and counts.
//!
//! Every read returns `None` if it would pass the end of the bytes, so that a damaged record is
//! refused and never read past its end. Nothing allocates by a count that was not checked against
//! the bytes left.

use crate::record::put_varint;

/// Appends a length, then the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a signed number as zigzag LEB128: numbers close to zero are short.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// A cursor over persisted bytes.
pub struct FieldDecoder<'a>(pub &'a [u8]);

impl<'a> FieldDecoder<'a> {
    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(*self.take(8)?.first_chunk()?))
    }

    /// An unsigned LEB128 number.
    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        let (byte, rest) = self.0.split_first()?;
        if *byte < 0x80 {
            self.0 = rest;
            return Some(u64::from(*byte));
        }
        self.long_varint()
    }

    /// A number of more than one byte.
    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// An unsigned LEB128 number of at most 32 bits.
    pub fn number(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    /// A count of items of at least `each` bytes; `None` if the bytes left can't hold so many.
    pub fn count(&mut self, each: usize) -> Option<usize> {
        let count = usize::try_from(self.varint()?).ok()?;
        (count <= self.0.len() / each).then_some(count)
    }

    /// A number that [`put_signed`] wrote.
    pub fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// Bytes that [`put_bytes`] wrote.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    /// Bytes that [`put_bytes`] wrote, as UTF-8.
    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// `Some` if no byte is left.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_read_back(signed: i64, unsigned: u64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_signed(&mut out, signed);
            put_varint(&mut out, unsigned);
            put_bytes(&mut out, &bytes);
            let mut fields = FieldDecoder(&out);
            prop_assert_eq!(fields.signed(), Some(signed));
            prop_assert_eq!(fields.varint(), Some(unsigned));
            prop_assert_eq!(fields.bytes(), Some(&bytes[..]));
            prop_assert_eq!(fields.end(), Some(()));
        }
    }
}
