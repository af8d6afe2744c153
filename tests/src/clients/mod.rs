//! Small clients of the protocols that the programs speak: blocking, with a limit on every wait,
//! and strict: what is not exactly the expected reply is an error.

pub mod dns;
pub mod ftp;
pub mod http;
pub mod memcache;
pub mod postgres;
pub mod resp;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// No reply may take longer.
pub const REPLY_LIMIT: Duration = Duration::from_secs(15);

/// A connection with buffered reading.
#[derive(Debug)]
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    /// Connects to a port of 127.0.0.1.
    pub fn connect(port: u16) -> Result<Wire> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, REPLY_LIMIT)
            .with_context(|| format!("connect to port {port}"))?;
        stream.set_read_timeout(Some(REPLY_LIMIT))?;
        stream.set_write_timeout(Some(REPLY_LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream: BufReader::new(stream) })
    }

    /// Sends all bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes).context("send")
    }

    /// Reads a line, without its CR LF.
    pub fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).context("read a line")?;
        ensure!(
            line.ends_with(b"\n"),
            "connection closed after {:?}",
            String::from_utf8_lossy(&line)
        );
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
        Ok(line)
    }

    /// Reads a line as text.
    pub fn text_line(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.line()?).into_owned())
    }

    /// Reads exactly `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).context("read a reply")?;
        Ok(bytes)
    }

    /// Reads until the peer closes.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).context("read to the end")?;
        Ok(bytes)
    }

    /// Reads one line that must be `expected`.
    pub fn expect_line(&mut self, expected: &str) -> Result<()> {
        let line = self.text_line()?;
        if line != expected {
            bail!("expected {expected:?}, got {line:?}");
        }
        Ok(())
    }
}
