//! Encodes the few WebSocket frames that the socket side adds: pongs, closes and move requests.
//!
//! They go into the connection's outgoing buffer, so they never mix with those of the shard, which
//! are encoded in the engine.

/// The opcode of a pong.
pub const PONG: u8 = 0xa;

/// The opcode of a close.
pub const CLOSE: u8 = 0x8;

/// Appends an unmasked control frame (RFC 6455 §5.5). A longer payload is cut to 125 bytes.
pub fn put_control(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    let payload = &payload[..payload.len().min(125)];
    out.extend_from_slice(&[0x80 | opcode, payload.len() as u8]);
    out.extend_from_slice(payload);
}

/// Appends a text frame. Only for the frames that this side adds; the shard encodes all others.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(0x81);
    match text.len() {
        short @ 0..=125 => out.push(short as u8),
        long @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
        huge => {
            out.push(127);
            out.extend_from_slice(&(huge as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends a close frame.
pub fn put_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut payload = code.to_be_bytes().to_vec();
    // A reason that is cut to fit must stay UTF-8.
    let cut = (0..=reason.len().min(123)).rev().find(|at| reason.is_char_boundary(*at));
    let cut = cut.unwrap_or(0);
    payload.extend_from_slice(&reason.as_bytes()[..cut]);
    put_control(out, CLOSE, &payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_is_cut_at_a_character_boundary() {
        let mut out = Vec::new();
        put_close(&mut out, 4008, &"é".repeat(100));
        assert_eq!(out[1], 124);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }
}
