//! Writes the unscaled bytes of an Avro decimal as exact decimal text.
//!
//! The bytes are a big-endian number in two's complement, and `scale` is the number of digits after
//! the point. The text has every digit, so no value is rounded. Both are limited, because the text
//! of a few bytes could otherwise be as long as the schema says, and the conversion takes time that
//! grows with the square of the bytes.

use std::fmt::Write as _;

/// The most bytes of a decimal, those that only repeat the sign not counted: 2,466 digits.
pub(super) const DECIMAL_MAX_BYTES: usize = 1_024;

/// The most digits after the point; PostgreSQL allows 16,383.
pub(super) const DECIMAL_MAX_SCALE: usize = 16_384;

/// The largest power of ten in a `u32`, and its zeros.
const CHUNK: u64 = 1_000_000_000;
const CHUNK_DIGITS: usize = 9;

/// Appends the decimal as text; returns false and appends nothing if it is beyond a limit.
pub(super) fn write_decimal(bytes: &[u8], scale: usize, out: &mut String) -> bool {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let sign = if negative { 0xff } else { 0 };
    let kept = bytes.iter().position(|byte| *byte != sign).unwrap_or(bytes.len());
    let magnitude = &bytes[kept..];
    if magnitude.len() > DECIMAL_MAX_BYTES || scale > DECIMAL_MAX_SCALE {
        return false;
    }
    let digits = digits(limbs(magnitude, sign));
    let padding = (scale + 1).saturating_sub(digits.len());
    let whole = (digits.len() + padding) - scale;
    if negative {
        out.push('-');
    }
    for at in 0..digits.len() + padding {
        if at == whole {
            out.push('.');
        }
        out.push(if at < padding { '0' } else { char::from(digits[at - padding]) });
    }
    true
}

/// The absolute value in 32-bit limbs, the least significant first; `sign` is what fills the bytes
/// above: 0, or 255 if the number is negative.
fn limbs(magnitude: &[u8], sign: u8) -> Vec<u32> {
    let fill = u32::from_ne_bytes([sign; 4]);
    let mut limbs: Vec<u32> = magnitude
        .rchunks(4)
        .map(|chunk| chunk.iter().fold(fill, |limb, byte| limb << 8 | u32::from(*byte)) ^ fill)
        .collect();
    if fill != 0 {
        // -n is !n + 1.
        let mut carry = true;
        for limb in &mut limbs {
            (*limb, carry) = limb.overflowing_add(u32::from(carry));
        }
        if carry {
            limbs.push(1);
        }
    }
    limbs
}

/// The digits of a number, at least one, the most significant first.
fn digits(mut limbs: Vec<u32>) -> Vec<u8> {
    let mut chunks = Vec::with_capacity(limbs.len() + limbs.len() / 8 + 1);
    loop {
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
        if limbs.is_empty() {
            break;
        }
        let mut rest = 0;
        for limb in limbs.iter_mut().rev() {
            let value = rest << 32 | u64::from(*limb);
            *limb = (value / CHUNK) as u32;
            rest = value % CHUNK;
        }
        chunks.push(rest);
    }
    let mut text = String::with_capacity(chunks.len() * CHUNK_DIGITS + 1);
    write!(text, "{}", chunks.pop().unwrap_or(0)).expect("a string takes everything");
    for chunk in chunks.iter().rev() {
        write!(text, "{chunk:0CHUNK_DIGITS$}").expect("a string takes everything");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The unscaled number of a decimal text in two's complement, by dividing its digits by 256.
    fn to_bytes(text: &str) -> Vec<u8> {
        let mut digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(10)).collect();
        let mut bytes = Vec::new();
        while digits.iter().any(|digit| *digit != 0) {
            let mut rest = 0;
            for digit in &mut digits {
                let value = rest * 10 + *digit;
                *digit = value / 256;
                rest = value % 256;
            }
            bytes.push(u8::try_from(rest).expect("below 256"));
        }
        bytes.push(0);
        if text.starts_with('-') {
            let mut carry = 1;
            for byte in &mut bytes {
                let value = u16::from(!*byte) + carry;
                (*byte, carry) = (value.to_le_bytes()[0], value >> 8);
            }
        }
        bytes.reverse();
        bytes
    }

    fn text(bytes: &[u8], scale: usize) -> Option<String> {
        let mut out = String::new();
        write_decimal(bytes, scale, &mut out).then_some(out)
    }

    #[test]
    fn decimals_are_exact_at_every_edge() {
        for (bytes, scale, expected) in [
            (vec![], 0, "0"),
            (vec![], 2, "0.00"),
            (vec![0], 0, "0"),
            (vec![0x7f], 0, "127"),
            (vec![0x80], 0, "-128"),
            (vec![0xff], 0, "-1"),
            (vec![0xff, 0xff, 0xff, 0xff, 0xff], 1, "-0.1"),
            (vec![0xff, 0x00], 0, "-256"),
            (vec![0xff, 0, 0, 0, 0], 0, "-4294967296"),
            (vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0], 19, "-1.8446744073709551616"),
            (vec![0x00, 0xff], 0, "255"),
            (vec![0xfb, 0x2e], 2, "-12.34"),
            (vec![0x3b, 0x9a, 0xca, 0x00], 0, "1000000000"),
            (vec![0x3b, 0x9a, 0xca, 0x00], 9, "1.000000000"),
        ] {
            assert_eq!(text(&bytes, scale).as_deref(), Some(expected), "{bytes:x?} {scale}");
        }
        let small = format!("0.{}7", "0".repeat(99));
        assert_eq!(text(&[7], 100), Some(small));
    }

    #[test]
    fn decimals_beyond_the_limits_are_refused() {
        let largest = vec![0x7f; DECIMAL_MAX_BYTES];
        assert_eq!(text(&largest, 0).map(|text| text.len()), Some(2_466));
        assert_eq!(text(&[&[0; 5_000][..], &largest].concat(), 7), text(&largest, 7));
        assert_eq!(text(&[1; DECIMAL_MAX_BYTES + 1], 0), None);
        assert_eq!(text(&[1], DECIMAL_MAX_SCALE).map(|text| text.len()), Some(16_386));
        assert_eq!(text(&[1], DECIMAL_MAX_SCALE + 1), None);
        assert_eq!(text(&[1], usize::MAX), None);
    }

    proptest! {
        #[test]
        fn the_text_of_every_decimal_is_exact(
            negative in any::<bool>(),
            whole in "0|[1-9][0-9]{0,150}",
            part in "[0-9]{0,150}",
            repeats in 0usize..40,
        ) {
            let number = if part.is_empty() { whole } else { format!("{whole}.{part}") };
            let is_zero = number.chars().all(|digit| matches!(digit, '0' | '.'));
            let expected = format!("{}{number}", if negative && !is_zero { "-" } else { "" });
            let minimal = to_bytes(&expected);
            let sign = if expected.starts_with('-') { 0xff } else { 0 };
            let bytes = [vec![sign; repeats], minimal].concat();
            prop_assert_eq!(text(&bytes, part.len()), Some(expected));
        }
    }
}
