//! DNS questions for one address over UDP.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::REPLY_LIMIT;

/// A socket that asks one server.
#[derive(Debug)]
pub struct Dns {
    socket: UdpSocket,
    next: u16,
}

impl Dns {
    /// A socket for the server at a port of 127.0.0.1.
    pub fn connect(port: u16) -> Result<Dns> {
        Dns::with_limit(port, REPLY_LIMIT)
    }

    /// The same, with another limit for each answer.
    pub fn with_limit(port: u16, limit: Duration) -> Result<Dns> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(limit))?;
        Ok(Dns { socket, next: 1 })
    }

    /// The A record of `name`: exactly one address must come back.
    pub fn address(&mut self, name: &str) -> Result<[u8; 4]> {
        self.next = self.next.wrapping_add(1);
        self.socket.send(&question(self.next, name)).context("send")?;
        let mut buffer = [0; 512];
        let length =
            self.socket.recv(&mut buffer).with_context(|| format!("no answer for {name}"))?;
        let answer = &buffer[..length];
        ensure!(length > 16 && answer[..2] == self.next.to_be_bytes(), "{name}: not our answer");
        ensure!(answer[3] & 15 == 0 && answer[6..8] == [0, 1], "{name}: {:x?}", &answer[..12]);
        // The address is the last thing in an answer without additional records.
        Ok([answer[length - 4], answer[length - 3], answer[length - 2], answer[length - 1]])
    }
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}
