//! The few bytes of Kafka's protocol and of TLS that probes send and read without a client library.
//!
//! Requests use the oldest version, which every broker since 0.10 answers. Layout of a request,
//! integers big-endian: its size (i32), the operation (i16), its version (i16), a correlation id
//! that the answer repeats (i32), the name of the client (i16 length and bytes; -1: none), the
//! body. Layout of an answer: its size, the correlation id, the body.

use std::collections::BTreeMap;

/// Kafka's numbers of operations.
pub(super) mod api {
    pub(in super::super) const METADATA: i16 = 3;
    pub(in super::super) const JOIN_GROUP: i16 = 11;
    pub(in super::super) const SASL_HANDSHAKE: i16 = 17;
    pub(in super::super) const API_VERSIONS: i16 = 18;
    pub(in super::super) const TXN_OFFSET_COMMIT: i16 = 28;
    pub(in super::super) const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
}

/// Bytes of an answer. A broker has about a hundred operations, so a larger one is not Kafka's.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Identifies the answer to a request.
const CORRELATION_ID: i32 = 0x7469_6465;

/// The largest supported version of each operation, by the operation's number.
pub(super) type Apis = BTreeMap<i16, i16>;

/// A request for the supported operations, which needs no login.
pub(super) fn api_versions() -> Vec<u8> {
    request(api::API_VERSIONS, 0, &[])
}

/// A request to log in with this mechanism; the answer lists the available ones.
pub(super) fn sasl_handshake(mechanism: &str) -> Vec<u8> {
    let bytes = mechanism.as_bytes();
    let mut body = i16::try_from(bytes.len()).unwrap_or(0).to_be_bytes().to_vec();
    body.extend_from_slice(bytes);
    request(api::SASL_HANDSHAKE, 1, &body)
}

fn request(operation: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let size = 10 + body.len();
    bytes.extend_from_slice(&u32::try_from(size).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(&operation.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&CORRELATION_ID.to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The size an answer announces; `None` if it can't be Kafka's.
pub(super) fn announced_size(head: [u8; 4]) -> Option<usize> {
    let size = usize::try_from(i32::from_be_bytes(head)).ok()?;
    (4..=ANSWER_BYTES_MAX).contains(&size).then_some(size)
}

/// Reads the answer to [`api_versions`].
pub(super) fn read_api_versions(answer: &[u8]) -> Option<Apis> {
    let mut rest = AnswerReader(answer);
    let (number, error, count) = (rest.i32()?, rest.i16()?, rest.i32()?);
    if number != CORRELATION_ID || error != 0 {
        return None;
    }
    let mut apis = Apis::new();
    for _ in 0..count {
        let (operation, _least, most) = (rest.i16()?, rest.i16()?, rest.i16()?);
        apis.insert(operation, most);
    }
    Some(apis)
}

/// Reads the answer to [`sasl_handshake`]: an error code and the available mechanisms.
pub(super) fn read_sasl_handshake(answer: &[u8]) -> Option<(i16, Vec<String>)> {
    let mut rest = AnswerReader(answer);
    let (number, error, count) = (rest.i32()?, rest.i16()?, rest.i32()?);
    let mut mechanisms = Vec::new();
    for _ in 0..count {
        mechanisms.push(rest.text()?);
    }
    (number == CORRELATION_ID).then_some((error, mechanisms))
}

/// Reads an answer from its beginning.
struct AnswerReader<'a>(&'a [u8]);

impl AnswerReader<'_> {
    fn i16(&mut self) -> Option<i16> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i16::from_be_bytes(*first))
    }

    fn i32(&mut self) -> Option<i32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*first))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.i16()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// The first message of a TLS client (RFC 5246), with a few cipher suites and no extension. A
/// server continues or refuses; either way it answers with a TLS record.
pub(super) fn client_hello() -> Vec<u8> {
    const SUITES: [u16; 6] = [0xc02b, 0xc02f, 0xc02c, 0xc030, 0x009c, 0x002f];
    let mut body = vec![3, 3];
    // No secret depends on it, so it need not be random.
    body.extend_from_slice(&[0x54; 32]);
    body.push(0);
    body.extend_from_slice(&[0, 2 * SUITES.len() as u8]);
    body.extend(SUITES.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend_from_slice(&[1, 0]);
    let length = body.len() as u8;
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend_from_slice(&body);
    record
}

/// Whether an answer begins like a TLS record: a handshake or an alert, version 3.
pub(super) fn is_tls(head: &[u8]) -> bool {
    matches!(head, [21 | 22, 3, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(error: i16, rows: &[[i16; 3]]) -> Vec<u8> {
        let mut bytes = CORRELATION_ID.to_be_bytes().to_vec();
        bytes.extend(error.to_be_bytes());
        bytes.extend(i32::try_from(rows.len()).unwrap().to_be_bytes());
        bytes.extend(rows.iter().flatten().flat_map(|number| number.to_be_bytes()));
        bytes
    }

    #[test]
    fn a_request_has_the_documented_layout() {
        let bytes = api_versions();
        assert_eq!(bytes.len(), 14);
        assert_eq!(announced_size(bytes[..4].try_into().unwrap()), Some(10));
        let bytes = sasl_handshake("PLAIN");
        assert_eq!(bytes[4..8], [0, 17, 0, 1]);
        assert_eq!(&bytes[14..], b"\0\x05PLAIN");
    }

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let whole = answer(0, &[[3, 0, 13], [18, 0, 4]]);
        assert_eq!(read_api_versions(&whole), Some(Apis::from([(3, 13), (18, 4)])));
        assert_eq!(read_api_versions(&answer(35, &[])), None);
        for cut in 0..whole.len() {
            assert_eq!(read_api_versions(&whole[..cut]), None, "{cut} bytes");
        }
    }

    #[test]
    fn mechanisms_are_read_together_with_the_error_code() {
        let mut bytes = answer(33, &[]);
        bytes[6..10].copy_from_slice(&1i32.to_be_bytes());
        bytes.extend(b"\0\x05PLAIN");
        assert_eq!(read_sasl_handshake(&bytes), Some((33, vec!["PLAIN".to_owned()])));
        assert_eq!(read_sasl_handshake(&bytes[..12]), None);
    }

    #[test]
    fn other_protocols_announce_no_size_and_tls_is_recognised() {
        assert_eq!(announced_size(*b"HTTP"), None);
        assert_eq!(announced_size([0, 0, 0, 3]), None);
        let hello = client_hello();
        assert!(is_tls(&hello) && is_tls(&[21, 3, 3]) && !is_tls(b"HTTP"));
        assert_eq!(usize::from(hello[4]) + 5, hello.len());
    }
}
