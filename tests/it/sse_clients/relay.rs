//! A relay between one client and the server that counts keepalives and cuts the stream.
//!
//! It passes bytes unchanged. A cut ends the connection as a proxy does that stops, in the middle
//! of an event or between two. Later connections wait until the relay is opened again.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for the relay.
const WAIT_LIMIT: Duration = Duration::from_secs(90);

/// Where an event is cut: behind so many bytes of its line of data, within ASCII.
const CUT_AT_BYTES: usize = 24;

/// The most bytes of a request's head.
const HEAD_MAX_BYTES: usize = 16 << 10;

/// What the relay does with a stream's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RelayMode {
    Open,
    /// Cuts within the next event.
    Cutting,
    Closed,
}

struct RelayState {
    mode: RelayMode,
    /// Comments so far, over all connections.
    keepalives: usize,
    /// The head of each request, in lower case.
    heads: Vec<String>,
    /// The open connection: to the client and to the server.
    streams: Option<[TcpStream; 2]>,
}

struct SharedRelay {
    state: Mutex<RelayState>,
    changed: Condvar,
}

/// A relay for one client; its thread ends with the process.
pub(super) struct Relay {
    addr: SocketAddr,
    shared: Arc<SharedRelay>,
}

impl Relay {
    /// Relays to a server.
    pub(super) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let state =
            RelayState { mode: RelayMode::Open, keepalives: 0, heads: Vec::new(), streams: None };
        let shared = Arc::new(SharedRelay { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(io::Result::ok) {
                drop(accepting.wait_while(|state| state.mode == RelayMode::Closed));
                accepting.connect(client, server);
            }
        });
        Self { addr, shared }
    }

    /// Where its client connects.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until so many keepalives have passed in all.
    pub(super) fn wait_for_keepalives(&self, count: usize) {
        drop(self.shared.wait_while(|state| state.keepalives < count));
    }

    /// The heads of the requests so far, in lower case.
    pub(super) fn heads(&self) -> Vec<String> {
        self.shared.lock().heads.clone()
    }

    /// Cuts the connection between two events.
    pub(super) fn cut(&self) {
        self.shared.close(&mut self.shared.lock());
    }

    /// Cuts the connection within the next event.
    pub(super) fn cut_next_event(&self) {
        self.shared.lock().mode = RelayMode::Cutting;
    }

    /// Waits until the connection is cut.
    pub(super) fn wait_until_cut(&self) {
        drop(self.shared.wait_while(|state| state.mode != RelayMode::Closed));
    }

    /// Lets the client connect again.
    pub(super) fn open(&self) {
        self.shared.lock().mode = RelayMode::Open;
        self.shared.changed.notify_all();
    }
}

impl SharedRelay {
    fn lock(&self) -> MutexGuard<'_, RelayState> {
        self.state.lock().expect("no thread panics while it holds this")
    }

    fn wait_while(&self, holds: impl Fn(&RelayState) -> bool) -> MutexGuard<'_, RelayState> {
        let deadline = Instant::now() + WAIT_LIMIT;
        let mut state = self.lock();
        while holds(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{:?}, {} keepalives", state.mode, state.keepalives);
            let waited = self.changed.wait_timeout(state, left);
            state = waited.expect("no thread panics while it holds this").0;
        }
        state
    }

    /// Reads the request, sends it on and relays the response in a thread of its own.
    fn connect(self: &Arc<Self>, mut client: TcpStream, server: SocketAddr) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_MAX_BYTES {
            match client.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let mut upstream = TcpStream::connect(server).expect("the server runs");
        upstream.write_all(&head).expect("the server runs");
        let cloned = |stream: &TcpStream| stream.try_clone().expect("a free descriptor");
        let mut state = self.lock();
        state.heads.push(String::from_utf8_lossy(&head).to_lowercase());
        state.streams = Some([cloned(&client), cloned(&upstream)]);
        drop(state);
        let shared = Arc::clone(self);
        thread::spawn(move || shared.relay(&mut upstream, &mut client));
    }

    fn relay(&self, upstream: &mut TcpStream, client: &mut TcpStream) {
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = upstream.read(&mut buffer) {
            let mut state = self.lock();
            let passed = state.pass(&buffer[..count], &mut line);
            if client.write_all(&buffer[..passed]).is_err() {
                return;
            }
            if passed < count {
                self.close(&mut state);
                return;
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Cuts the open connection. What was passed before still arrives.
    fn close(&self, state: &mut RelayState) {
        state.mode = RelayMode::Closed;
        for stream in state.streams.take().into_iter().flatten() {
            // The peer may have closed it first.
            stream.shutdown(Shutdown::Both).ok();
        }
        self.changed.notify_all();
    }
}

impl RelayState {
    /// Counts keepalives in the bytes of a response; returns how many bytes may be passed.
    fn pass(&mut self, bytes: &[u8], line: &mut Vec<u8>) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            let is_data = line.len() == CUT_AT_BYTES && line.starts_with(b"data: ");
            if is_data && self.mode == RelayMode::Cutting {
                return at;
            }
            if *byte != b'\n' {
                line.push(*byte);
                continue;
            }
            self.keepalives += usize::from(line.starts_with(b":"));
            line.clear();
        }
        bytes.len()
    }
}
