//! Tests of the decoder: RFC 6455 clause by clause, and random input beside tungstenite.

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

/// The close reasons that a violation of RFC 6455 can have.
const INVALID: ClientInput = ClientInput::Violation(CloseReason::InvalidFrame);
const TOO_LARGE: ClientInput = ClientInput::Violation(CloseReason::TooLarge);
const NOT_UTF8: ClientInput = ClientInput::Violation(CloseReason::InvalidUtf8);

/// A masked client frame with the shortest length.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    out
}

fn text(text: &str) -> ClientInput {
    ClientInput::Text(text.to_owned())
}

/// Decodes pieces one after another, up to an input that ends the connection.
fn decode_all(pieces: &[&[u8]]) -> (Vec<ClientInput>, FrameDecoder) {
    let (mut inputs, mut decoder) = (Vec::new(), FrameDecoder::default());
    for piece in pieces {
        let mut rest = *piece;
        while let Some(input) = decoder.decode(&mut rest) {
            let ends = matches!(
                input,
                ClientInput::Close(_) | ClientInput::Binary | ClientInput::Violation(_)
            );
            inputs.push(input);
            if ends {
                return (inputs, decoder);
            }
        }
        assert!(rest.is_empty(), "all bytes are consumed");
    }
    (inputs, decoder)
}

fn check(bytes: &[u8], expected: &[ClientInput]) {
    assert_eq!(decode_all(&[bytes]).0, expected);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(decode_all(&single).0, expected, "byte by byte");
}

#[test]
fn a_ping_inside_a_fragmented_message_is_reported_and_the_message_completes() {
    let bytes = [frame(0x01, b"he"), frame(0x89, b"?"), frame(0x80, b"llo")].concat();
    check(&bytes, &[ClientInput::Ping(b"?".to_vec()), text("hello")]);
    let (_, decoder) = decode_all(&[&bytes]);
    assert!(!decoder.is_mid_message(), "nothing is kept between messages");
}

#[test]
fn a_frame_that_section_5_2_forbids_is_refused_by_its_header() {
    check(&[0x81, 0x01], &[INVALID]); // not masked (§5.1)
    for bits in [0x40, 0x20, 0x10] {
        check(&[0x81 | bits, 0x80], &[INVALID]); // reserved bits
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        check(&[0x80 | opcode, 0x80], &[INVALID]);
    }
    check(&[0x81, 0xfe, 0, 125, 1, 2, 3, 4], &[INVALID]); // not the shortest length
    check(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4], &[INVALID]);
    let highest_bit = [0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    check(&highest_bit, &[TOO_LARGE]);
}

#[test]
fn fragments_are_in_the_order_of_section_5_4() {
    check(&[0x80, 0x80], &[INVALID]); // continues nothing
    check(&[frame(0x01, b"a"), frame(0x81, b"b")].concat(), &[INVALID]); // begins within another
    check(&[frame(0x01, b"a"), frame(0x82, b"b")].concat(), &[INVALID]);
    let three = [frame(0x01, b"a"), frame(0x00, b""), frame(0x80, b"c")].concat();
    check(&three, &[text("ac")]);
}

#[test]
fn control_frames_are_short_and_whole_as_section_5_5_says() {
    check(&frame(0x09, b"x"), &[INVALID]);
    check(&frame(0x89, &[0; 126]), &[INVALID]);
    check(&frame(0x89, &[7; 125]), &[ClientInput::Ping(vec![7; 125])]);
    check(&frame(0x8a, b"x"), &[ClientInput::Pong]);
    for (payload, expected) in [
        (&b""[..], ClientInput::Close(vec![])),
        (b"\x03\xe8bye", ClientInput::Close(b"\x03\xe8bye".to_vec())),
        (b"\x0b\xb8", ClientInput::Close(b"\x0b\xb8".to_vec())),
        (b"\x03", INVALID),     // half a code
        (b"\x03\xed", INVALID), // 1005 is never sent (§7.4.1)
        (b"\x03\xee", INVALID), // 1006
        (b"\x03\xf7", INVALID), // 1015
        (b"\x03\xec", INVALID), // 1004
        (b"\x07\xd0", INVALID), // 2000 is reserved
        (b"\x13\x88", INVALID), // 5000
        (b"\x00\x00", INVALID),
        (b"\x03\xe8\xff", NOT_UTF8),
    ] {
        check(&frame(0x88, payload), &[expected]);
    }
}

#[test]
fn text_is_utf_8_over_all_its_fragments() {
    check(&frame(0x81, &[0xff]), &[NOT_UTF8]);
    let halves = [frame(0x01, &[0xc3]), frame(0x80, &[0xa9])].concat();
    check(&halves, &[text("é")]);
    check(&[frame(0x01, &[0xc3]), frame(0x80, b"x")].concat(), &[NOT_UTF8]);
}

#[test]
fn a_message_over_a_limit_is_refused_before_its_payload() {
    let largest = "x".repeat(CLIENT_FRAME_MAX_BYTES);
    assert_eq!(decode_all(&[&frame(0x81, largest.as_bytes())]).0, [text(&largest)]);
    let longer = frame(0x81, &vec![b'x'; CLIENT_FRAME_MAX_BYTES + 1]);
    check(&longer[..14], &[TOO_LARGE]);
    let halves = [frame(0x01, &[b'x'; 40_000]), frame(0x80, &[b'x'; 40_000])].concat();
    assert_eq!(decode_all(&[&halves]).0, [TOO_LARGE]);
    let endless = [frame(0x01, b""), frame(0x00, b"").repeat(CLIENT_MESSAGE_MAX_FRAMES)].concat();
    assert_eq!(decode_all(&[&endless]).0, [TOO_LARGE]);
}

#[test]
fn a_binary_message_is_reported_by_its_first_bytes() {
    check(&[0x82, 0xff], &[ClientInput::Binary]);
}

#[test]
fn memory_is_kept_for_bytes_that_have_arrived_only() {
    let (_, decoder) = decode_all(&[&[0x81, 0xfe, 0xff, 0xff, 1, 2, 3, 4]]);
    assert!(decoder.is_mid_message());
    assert_eq!(decoder.buffered_bytes(), 0, "a header reserves nothing");
    let (_, decoder) = decode_all(&[&frame(0x81, &[b'x'; 1_000])[..500]]);
    assert!((490..1_024).contains(&decoder.buffered_bytes()), "{}", decoder.buffered_bytes());
    let (_, decoder) = decode_all(&[&frame(0x81, b"x")]);
    assert_eq!(decoder.buffered_bytes(), 0);
}

/// The same bytes through tungstenite, up to what ends the connection.
fn tungstenite(bytes: &[u8]) -> Vec<ClientInput> {
    struct DecoderInput<'a>(&'a [u8]);
    impl std::io::Read for DecoderInput<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(std::io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            }
        }
    }
    impl std::io::Write for DecoderInput<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let settings = WebSocketConfig::default()
        .max_message_size(Some(CLIENT_FRAME_MAX_BYTES))
        .max_frame_size(Some(CLIENT_FRAME_MAX_BYTES));
    let mut decoder = WebSocketContext::new(Role::Server, Some(settings));
    let (mut from, mut inputs) = (DecoderInput(bytes), Vec::new());
    loop {
        let (input, ends) = match decoder.read(&mut from) {
            Ok(Message::Text(text)) => (ClientInput::Text(text.to_string()), false),
            Ok(Message::Ping(payload)) => (ClientInput::Ping(payload.to_vec()), false),
            Ok(Message::Pong(_)) => (ClientInput::Pong, false),
            Ok(Message::Close(_)) => (ClientInput::Close(vec![]), true),
            Ok(Message::Binary(_) | Message::Frame(_)) => (ClientInput::Binary, true),
            Err(Error::Capacity(_)) => (TOO_LARGE, true),
            Err(Error::Utf8(_)) => (NOT_UTF8, true),
            Err(Error::Protocol(_)) => (INVALID, true),
            Err(_) => return inputs,
        };
        inputs.push(input);
        if ends {
            return inputs;
        }
    }
}

/// A frame that a client may send, or nearly.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => prop::sample::select(vec![0x81u8, 0x01, 0x00, 0x80, 0x89, 0x8a]),
        1 => prop::sample::select(vec![0x88u8, 0x82, 0x09, 0xc1, 0x83]),
    ];
    let payload = prop_oneof![
        4 => "[a-zé]{0,20}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (100usize..30_000).prop_map(|len| vec![b'x'; len]),
    ];
    (first, payload).prop_map(|(first, payload)| frame(first, &payload))
}

proptest! {
    /// Both agree up to the end; then on whether there is an end, except that a binary message is
    /// reported earlier here, and text that is not UTF-8 later.
    #[test]
    fn random_frames_are_read_as_tungstenite_reads_them(
        frames in prop::collection::vec(any_frame(), 1..12),
        cuts in prop::collection::vec(0usize..40_000, 0..12),
    ) {
        let bytes = frames.concat();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        let (ours, decoder) = decode_all(&pieces);
        prop_assert_eq!(&ours, &decode_all(&[&bytes]).0, "however they are split");
        let theirs = tungstenite(&bytes);
        let is_end = |input: &ClientInput| matches!(
            input, ClientInput::Close(_) | ClientInput::Binary | ClientInput::Violation(_)
        );
        let whole = |inputs: &[ClientInput]| -> Vec<String> {
            let whole = inputs.iter().filter(|input| !is_end(input));
            whole.map(|input| format!("{input:?}")).collect()
        };
        let (our_whole, their_whole) = (whole(&ours), whole(&theirs));
        let common = our_whole.len().min(their_whole.len());
        prop_assert_eq!(&our_whole[..common], &their_whole[..common]);
        // They report text that is not UTF-8 before its message is complete.
        if theirs.last() == Some(&NOT_UTF8) {
            let is_late = ours.last() == Some(&NOT_UTF8) || decoder.is_mid_message();
            prop_assert!(is_late || ours.last().is_some_and(is_end), "{:?} {:?}", ours, theirs);
        } else if ours.last().is_some_and(is_end) {
            let is_early = ours.last() == Some(&ClientInput::Binary);
            let both_end = theirs.last().is_some_and(is_end);
            prop_assert!(is_early || both_end, "{:?} {:?}", ours, theirs);
        } else {
            prop_assert_eq!(our_whole.len(), their_whole.len());
            prop_assert!(!theirs.last().is_some_and(is_end), "{:?} {:?}", ours, theirs);
        }
    }
}
