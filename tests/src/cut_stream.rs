//! A TCP stream that a test cuts after a given number of bytes.
//!
//! The cut falls on a byte, not on a frame: an event of which a client read only a part must not
//! count as received.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a read waits before it reports that nothing came, so that callers can check their
/// deadline.
const READ_SLICE: Duration = Duration::from_millis(50);

/// How long a connect may take: it is the loopback, but the machine may be under load.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A stream with an optional number of bytes left to read.
#[derive(Debug)]
pub struct CutStream {
    stream: TcpStream,
    bytes_left: Option<usize>,
}

impl CutStream {
    /// Connects; `bytes_left` is how much may be read before the cut, `None` for no cut.
    pub fn connect(addr: SocketAddr, bytes_left: Option<usize>) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_SLICE))?;
        Ok(Self { stream, bytes_left })
    }
}

impl Read for CutStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = self.bytes_left.map_or(buffer.len(), |left| left.min(buffer.len()));
        if limit == 0 && !buffer.is_empty() {
            // The peer may have closed first; an error here means only that.
            self.stream.shutdown(Shutdown::Both).ok();
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut by the test"));
        }
        let count = self.stream.read(&mut buffer[..limit])?;
        if let Some(left) = &mut self.bytes_left {
            *left -= count;
        }
        Ok(count)
    }
}

impl Write for CutStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Whether an error means only that nothing came within the read time-out.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
