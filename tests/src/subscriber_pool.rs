//! Thousands of WebSocket subscribers on one thread, cheaper than the server that feeds them.
//!
//! While a schedule is followed, epoll watches every member and every frame is parsed. While the
//! server is saturated, only a sample is parsed; the bulk is swept now and then with
//! `recv(MSG_TRUNC)`, which lets the kernel count and drop bytes without copying them. A sweep
//! replaces `SO_RCVLOWAT`, for which there is no safe wrapper: both spare a wake-up per write. All
//! members get the same bytes, so the sample tells how many bytes the others must have got.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Socket, Type};
use std::os::fd::AsRawFd;

use crate::frames::{FrameKind, FrameSplitter, ParsedFrame, client_pong, client_text};
use crate::latency::Latencies;
use crate::publisher::{PublishProgress, Schedule};

/// How long a step of the handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// Members per loopback source address: below the 28,000 ephemeral ports of one address, with
/// reserve for those of a former run in TIME_WAIT.
const SUBSCRIBERS_PER_SOURCE: usize = 5_000;

/// Shortest time between two sweeps of the bulk.
const MIN_SWEEP_INTERVAL: Duration = Duration::from_millis(10);

/// A sweep costs about 1 µs per member; waiting five times that between sweeps keeps it below a
/// fifth of a core.
const SWEEP_PAUSE_PER_SUBSCRIBER: Duration = Duration::from_micros(5);

/// Servers drop clients without a sign of life for 60 s; members that are swept see no ping.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Bytes read or dropped in one call; larger than any receive buffer here.
const SCRATCH_BYTES: usize = 1 << 20;

/// How long nothing may arrive before the rest counts as lost.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// How to connect: address, path, the message to send, a part of the reply that ends the
/// handshake, and how events are recognised.
#[derive(Clone, Debug)]
pub struct SubscriberEndpoint {
    /// The server.
    pub addr: SocketAddr,
    /// Path and query of the upgrade request.
    pub path: String,
    /// A text frame to send, and a part of the text frame that answers it.
    pub greeting: Option<(String, &'static str)>,
    /// The text before an event's number in its frame, such as `"seq":"`; digits and a quote
    /// follow. A frame without it is not an event.
    pub seq_marker: &'static str,
}

/// What the members got while the server was saturated, and whether that was everything.
#[derive(Debug, Default)]
pub struct DeliveryTotals {
    /// Events that members should have got, all members together.
    pub expected: u64,
    /// Events that they got.
    pub delivered: u64,
    /// Members whose bytes differ from those of the sampled ones by an event or more.
    pub uneven_subscribers: usize,
    /// Mean bytes of an event's frame on the wire.
    pub frame_bytes: f64,
}

/// One subscriber.
#[derive(Debug)]
struct PooledSubscriber {
    stream: TcpStream,
    splitter: FrameSplitter,
    /// Events seen, by number: a repeated one must not hide a lost one.
    seen: SeenSequences,
    /// Bytes of event frames, while parsed.
    event_bytes: u64,
    /// Bytes dropped by sweeps.
    swept_bytes: u64,
    /// Why it can't continue.
    broken: Option<String>,
}

/// Which event numbers arrived.
#[derive(Debug, Default)]
struct SeenSequences {
    words: Vec<u64>,
    distinct: u64,
    repeated: u64,
}

impl SeenSequences {
    fn insert(&mut self, seq: u64) {
        let word = usize::try_from(seq / 64).expect("a benchmark's events fit in memory");
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (seq % 64);
        match self.words[word] & bit {
            0 => self.distinct += 1,
            _ => self.repeated += 1,
        }
        self.words[word] |= bit;
    }
}

/// The members, and the epoll of their one thread.
#[derive(Debug)]
pub struct SubscriberPool {
    poll: Poll,
    ready: Events,
    subscribers: Vec<PooledSubscriber>,
    sampled: usize,
    seq_marker: &'static [u8],
    scratch: Vec<u8>,
    last_keepalive: Instant,
    last_sweep: Instant,
}

impl SubscriberPool {
    /// Connects `size` members one after the other, each ready before the next; the first `sampled`
    /// are still parsed when the bulk is swept.
    pub fn connect(endpoint: &SubscriberEndpoint, size: usize, sampled: usize) -> io::Result<Self> {
        let mut subscribers = Vec::with_capacity(size);
        for index in 0..size {
            subscribers.push(PooledSubscriber::connect(endpoint, index).map_err(|error| {
                io::Error::new(error.kind(), format!("member {index}: {error}"))
            })?);
        }
        let mut pool = Self {
            poll: Poll::new()?,
            ready: Events::with_capacity(1_024),
            subscribers,
            sampled: sampled.min(size),
            seq_marker: endpoint.seq_marker.as_bytes(),
            scratch: vec![0; SCRATCH_BYTES],
            last_keepalive: Instant::now(),
            last_sweep: Instant::now(),
        };
        pool.watch(0..size)?;
        Ok(pool)
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.subscribers.len()
    }

    /// Events that came more than once, at members that were parsed.
    pub fn repeated(&self) -> u64 {
        self.subscribers.iter().map(|subscriber| subscriber.seen.repeated).sum()
    }

    /// Parses everything until every member has every event of the schedule, or nothing more comes.
    /// Returns the latencies of all members, from the moment an event was due; fewer than expected
    /// means loss.
    pub fn follow(&mut self, schedule: &Schedule) -> io::Result<Latencies> {
        let expected =
            self.subscribers.len() * usize::try_from(schedule.count).unwrap_or(usize::MAX);
        let mut latencies = Latencies::default();
        let mut last_arrival = schedule.end().max(Instant::now());
        while latencies.count() < expected && last_arrival.elapsed() < SILENCE_LIMIT {
            let before = latencies.count();
            self.parse_ready(MIN_SWEEP_INTERVAL, |seq, at| {
                if let Some(due) = schedule.intended(seq) {
                    latencies.record(at.saturating_duration_since(due));
                }
            })?;
            if latencies.count() > before {
                last_arrival = last_arrival.max(Instant::now());
            }
            self.send_keepalive()?;
        }
        self.check_alive()?;
        Ok(latencies)
    }

    /// Parses everything until every member has `count` different events, or nothing more comes.
    /// Returns how many they have together, and when the last of them came.
    pub fn collect(&mut self, count: u64) -> io::Result<(u64, Instant)> {
        let expected = count * self.subscribers.len() as u64;
        let mut last_arrival = Instant::now();
        while self.distinct() < expected && last_arrival.elapsed() < SILENCE_LIMIT {
            self.parse_ready(MIN_SWEEP_INTERVAL, |_, at| last_arrival = at)?;
            self.send_keepalive()?;
        }
        self.check_alive()?;
        Ok((self.distinct(), last_arrival))
    }

    fn distinct(&self) -> u64 {
        self.subscribers.iter().map(|subscriber| subscriber.seen.distinct).sum()
    }

    /// Stops watching the bulk, which from now on is swept. Nothing may be in flight.
    pub fn begin_sweeping(&mut self) -> io::Result<()> {
        for subscriber in &mut self.subscribers[self.sampled..] {
            self.poll.registry().deregister(&mut SourceFd(&subscriber.stream.as_raw_fd()))?;
        }
        for subscriber in &mut self.subscribers {
            (subscriber.event_bytes, subscriber.swept_bytes) = (0, 0);
            subscriber.seen = SeenSequences::default();
        }
        Ok(())
    }

    /// One round of the closed loop: parses the sampled members, sweeps the bulk when it is due,
    /// and reports the progress of the slowest member. Returns the events delivered so far, over
    /// all members.
    pub fn sweep(&mut self, progress: &PublishProgress) -> io::Result<f64> {
        self.parse_ready(MIN_SWEEP_INTERVAL, |_, _| {})?;
        let pause =
            SWEEP_PAUSE_PER_SUBSCRIBER * u32::try_from(self.subscribers.len()).unwrap_or(u32::MAX);
        if self.last_sweep.elapsed() >= pause.max(MIN_SWEEP_INTERVAL) {
            for subscriber in &mut self.subscribers[self.sampled..] {
                subscriber.sweep(&mut self.scratch);
            }
            self.last_sweep = Instant::now();
            self.send_keepalive()?;
        }
        let frame_bytes = self.frame_bytes();
        if frame_bytes == 0.0 {
            return Ok(0.0);
        }
        let slowest = self.subscribers.iter().map(|m| m.event_bytes + m.swept_bytes).min();
        progress.arrived((slowest.unwrap_or(0) as f64 / frame_bytes) as u64);
        Ok(self.total_bytes() as f64 / frame_bytes)
    }

    /// Sweeps until every member has the bytes of `posted` events, or nothing more comes.
    pub fn drain(&mut self, progress: &PublishProgress) -> io::Result<DeliveryTotals> {
        let posted = progress.posted();
        let (mut last_arrival, mut last_bytes) = (Instant::now(), 0);
        while !self.is_complete(posted) && last_arrival.elapsed() < SILENCE_LIMIT {
            self.sweep(progress)?;
            let bytes = self.total_bytes();
            if bytes > last_bytes {
                (last_arrival, last_bytes) = (Instant::now(), bytes);
            }
        }
        self.check_alive()?;
        Ok(self.delivery_totals(posted))
    }

    fn is_complete(&self, posted: u64) -> bool {
        let expected_bytes = self.bytes_of_sampled();
        let (sampled, bulk) = self.subscribers.split_at(self.sampled);
        sampled.iter().all(|subscriber| subscriber.seen.distinct >= posted)
            && bulk.iter().all(|subscriber| subscriber.swept_bytes >= expected_bytes)
    }

    fn delivery_totals(&self, posted: u64) -> DeliveryTotals {
        let expected_bytes = self.bytes_of_sampled();
        let frame_bytes = self.frame_bytes();
        let (sampled, bulk) = self.subscribers.split_at(self.sampled);
        let parsed: u64 = sampled.iter().map(|subscriber| subscriber.seen.distinct).sum();
        // Bytes beyond the events' are a ping or a keepalive, unless they add up to a whole event.
        let is_even = |subscriber: &&PooledSubscriber| {
            let surplus = subscriber.swept_bytes.checked_sub(expected_bytes);
            surplus.is_some_and(|surplus| (surplus as f64) < frame_bytes)
        };
        let counted = |subscriber: &PooledSubscriber| match is_even(&subscriber) {
            true => posted,
            false => (subscriber.swept_bytes as f64 / frame_bytes) as u64,
        };
        let uneven_sampled =
            sampled.iter().filter(|subscriber| subscriber.event_bytes != expected_bytes);
        let uneven = bulk.iter().filter(|subscriber| !is_even(subscriber));
        DeliveryTotals {
            expected: posted * self.subscribers.len() as u64,
            delivered: parsed + bulk.iter().map(counted).sum::<u64>(),
            uneven_subscribers: uneven.count() + uneven_sampled.count(),
            frame_bytes,
        }
    }

    fn bytes_of_sampled(&self) -> u64 {
        let bytes =
            self.subscribers[..self.sampled].iter().map(|subscriber| subscriber.event_bytes);
        bytes.max().unwrap_or(0)
    }

    fn frame_bytes(&self) -> f64 {
        let sampled = &self.subscribers[..self.sampled];
        let bytes: u64 = sampled.iter().map(|subscriber| subscriber.event_bytes).sum();
        let events: u64 = sampled.iter().map(|m| m.seen.distinct + m.seen.repeated).sum();
        bytes as f64 / events.max(1) as f64
    }

    fn total_bytes(&self) -> u64 {
        self.subscribers
            .iter()
            .map(|subscriber| subscriber.event_bytes + subscriber.swept_bytes)
            .sum()
    }

    fn watch(&mut self, which: std::ops::Range<usize>) -> io::Result<()> {
        for index in which {
            let fd = self.subscribers[index].stream.as_raw_fd();
            let mut source = SourceFd(&fd);
            self.poll.registry().register(&mut source, Token(index), Interest::READABLE)?;
        }
        Ok(())
    }

    /// Waits for watched members and parses what they received.
    fn parse_ready(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(u64, Instant),
    ) -> io::Result<()> {
        match self.poll.poll(&mut self.ready, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        for event in &self.ready {
            let subscriber = &mut self.subscribers[event.token().0];
            subscriber.parse(&mut self.scratch, self.seq_marker, &mut each);
        }
        Ok(())
    }

    fn send_keepalive(&mut self) -> io::Result<()> {
        if self.last_keepalive.elapsed() < KEEPALIVE_INTERVAL {
            return Ok(());
        }
        self.last_keepalive = Instant::now();
        let pong = client_pong();
        self.subscribers.iter().try_for_each(|subscriber| (&subscriber.stream).write_all(&pong))
    }

    fn check_alive(&self) -> io::Result<()> {
        let mut broken =
            self.subscribers.iter().filter_map(|subscriber| subscriber.broken.as_ref());
        match broken.next() {
            None => Ok(()),
            Some(why) => Err(io::Error::other(format!(
                "{} members failed, one of them: {why}",
                1 + broken.count()
            ))),
        }
    }
}

impl PooledSubscriber {
    /// Connects, upgrades, sends the greeting and waits for the reply. Blocking until then.
    fn connect(endpoint: &SubscriberEndpoint, index: usize) -> io::Result<Self> {
        let host = 1 + u8::try_from(index / SUBSCRIBERS_PER_SOURCE).map_err(io::Error::other)?;
        let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&source.into())?;
        socket.connect(&endpoint.addr.into())?;
        let stream: TcpStream = socket.into();
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
        let mut subscriber = Self {
            stream,
            splitter: FrameSplitter::default(),
            seen: SeenSequences::default(),
            event_bytes: 0,
            swept_bytes: 0,
            broken: None,
        };
        subscriber.handshake(endpoint)?;
        subscriber.stream.set_nonblocking(true)?;
        Ok(subscriber)
    }

    fn handshake(&mut self, endpoint: &SubscriberEndpoint) -> io::Result<()> {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            endpoint.path, endpoint.addr
        );
        self.stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more(&mut bytes)?;
        };
        if !bytes.starts_with(b"HTTP/1.1 101") {
            let answer = String::from_utf8_lossy(&bytes).into_owned();
            return Err(io::Error::other(format!("no upgrade: {answer}")));
        }
        bytes.drain(..head_end);
        let Some((greeting, answer)) = &endpoint.greeting else { return Ok(()) };
        self.stream.write_all(&client_text(greeting))?;
        let mut answered = false;
        loop {
            let is_answer = |frame: ParsedFrame<'_>| answered |= contains(frame.payload, answer);
            self.splitter.feed(&bytes, is_answer)?;
            if answered {
                return Ok(());
            }
            bytes.clear();
            self.read_more(&mut bytes)?;
        }
    }

    fn read_more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 4_096];
        let count = self.stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..count]);
        Ok(())
    }

    /// Reads until nothing is left (epoll is edge-triggered here) and parses it.
    fn parse(
        &mut self,
        scratch: &mut [u8],
        seq_marker: &[u8],
        each: &mut impl FnMut(u64, Instant),
    ) {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return self.broken = Some("the server closed the connection".to_owned()),
                Ok(count) => {
                    let at = Instant::now();
                    if let Err(error) =
                        self.take(&scratch[..count], seq_marker, |seq| each(seq, at))
                    {
                        return self.broken = Some(error.to_string());
                    }
                    // A short read empties the buffer; what comes later makes a new edge.
                    if count < scratch.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return self.broken = Some(error.to_string()),
            }
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        seq_marker: &[u8],
        mut each: impl FnMut(u64),
    ) -> io::Result<()> {
        let Self { splitter, seen, event_bytes, stream, .. } = self;
        let mut pinged = false;
        splitter.feed(bytes, |frame| match frame.kind {
            FrameKind::Ping => pinged = true,
            _ => {
                if let Some(seq) = number_in(frame.payload, seq_marker) {
                    seen.insert(seq);
                    *event_bytes += frame.wire_bytes as u64;
                    each(seq);
                }
            }
        })?;
        if pinged {
            stream.write_all(&client_pong())?;
        }
        Ok(())
    }

    /// Lets the kernel drop what has arrived, and counts it.
    fn sweep(&mut self, scratch: &mut [u8]) {
        match recv(&self.stream, scratch, RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.broken = Some("the server closed the connection".to_owned()),
            Ok((count, _)) => self.swept_bytes += count as u64,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => self.broken = Some(error.to_string()),
        }
    }
}

/// The number after the marker.
fn number_in(payload: &[u8], seq_marker: &[u8]) -> Option<u64> {
    let start = payload.windows(seq_marker.len()).position(|window| window == seq_marker)?
        + seq_marker.len();
    let digits = payload[start..].split(|byte| *byte == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn contains(payload: &[u8], part: &str) -> bool {
    payload.windows(part.len()).any(|window| window == part.as_bytes())
}
