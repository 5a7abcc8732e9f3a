//! A fake broker that answers every connection in one way, until the test process ends.
//!
//! Of Kafka's protocol it has what a client sends first: API versions (KIP-35) and the SASL
//! handshake (KIP-43).

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// API keys.
const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;

/// Error codes.
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const UNSUPPORTED_VERSION: i16 = 35;

/// How it behaves.
#[derive(Clone)]
pub(super) enum FakeBroker {
    /// It accepts connections and sends nothing.
    Silent,
    /// It closes every connection.
    Closing,
    /// It is a web server that rejects what it does not understand.
    Http,
    /// It is a Kafka broker with these APIs up to these versions.
    Kafka(Vec<(i16, i16)>),
    /// The same with a SASL mechanism, whose login never succeeds.
    Login(Vec<(i16, i16)>, &'static str),
}

/// Starts listening and returns the address.
pub(super) fn start_fake_broker(broker: FakeBroker) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let broker = broker.clone();
            // The client may be gone before it gets a response.
            thread::spawn(move || answer(stream, &broker).ok());
        }
    });
    address
}

fn answer(mut stream: TcpStream, broker: &FakeBroker) -> io::Result<()> {
    match broker {
        FakeBroker::Closing => Ok(()),
        FakeBroker::Silent => io::copy(&mut stream, &mut io::sink()).map(drop),
        FakeBroker::Http => {
            stream.read_exact(&mut [0])?;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        }
        FakeBroker::Kafka(apis) => serve(&mut stream, apis, None),
        FakeBroker::Login(apis, mechanism) => serve(&mut stream, apis, Some(mechanism)),
    }
}

fn serve(stream: &mut TcpStream, apis: &[(i16, i16)], mechanism: Option<&str>) -> io::Result<()> {
    loop {
        let mut size = [0; 4];
        stream.read_exact(&mut size)?;
        let mut request = vec![0; usize::try_from(u32::from_be_bytes(size)).expect("32 bits")];
        stream.read_exact(&mut request)?;
        let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let mut body = request[4..8].to_vec();
        match (number(0), number(2), mechanism) {
            (API_VERSIONS, 0, _) => body.extend(versions(0, apis)),
            // An older broker answers a newer request like this, in the oldest form.
            (API_VERSIONS, ..) => body.extend(versions(UNSUPPORTED_VERSION, apis)),
            (SASL_HANDSHAKE, _, Some(mechanism)) => body.extend(handshake(mechanism)),
            _ => return Ok(()),
        }
        stream.write_all(&u32::try_from(body.len()).expect("few bytes").to_be_bytes())?;
        stream.write_all(&body)?;
    }
}

fn versions(error: i16, apis: &[(i16, i16)]) -> Vec<u8> {
    let mut body = error.to_be_bytes().to_vec();
    body.extend(u32::try_from(apis.len()).expect("few").to_be_bytes());
    for (operation, most) in apis {
        body.extend([*operation, 0, *most].iter().flat_map(|number| number.to_be_bytes()));
    }
    body
}

fn handshake(mechanism: &str) -> Vec<u8> {
    let mut body = UNSUPPORTED_SASL_MECHANISM.to_be_bytes().to_vec();
    body.extend(1u32.to_be_bytes());
    body.extend(u16::try_from(mechanism.len()).expect("short").to_be_bytes());
    body.extend(mechanism.as_bytes());
    body
}
