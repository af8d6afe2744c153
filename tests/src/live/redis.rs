//! redis: `main`, `aeMain`, `aeProcessEvents`, `readQueryFromClient`, and the threads of `IOThreadMain`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{Looping, Loops, Variant, variants};
use crate::clients::resp::{Redis as Client, Reply};
use crate::corpus::tail;
use crate::load;
use crate::process::{Guard, free_port, wait_for_port};
use crate::scenario::redis::client;

/// The program.
#[derive(Debug)]
pub struct Redis;

/// Keys that are there from the start to the end.
const KEYS: usize = 500;
/// Clients: four I/O threads work only where eight or more have something to send.
const CLIENTS: usize = 12;

// The variable that NEW adds holds a value over the call that no OLD frame has.
const VARIANTS: &[Variant] = &variants("a local over a call", "aeMain", "since");

impl Loops for Redis {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn loops(&self) -> &'static [&'static str] {
        &["aeMain", "aeProcessEvents", "readQueryFromClient", "IOThreadMain"]
    }

    fn start(&self, program: &Path) -> Result<Box<dyn Looping>> {
        Ok(Box::new(Running::start(program)?))
    }
}

struct Running {
    server: Guard,
    /// Opened before any update.
    connection: Client,
    port: u16,
    log: PathBuf,
    _dir: TempDir,
}

impl Running {
    fn start(program: &Path) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.current_dir(dir.path()).args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--dir", "."]);
        command.args(["--io-threads", "4", "--io-threads-do-reads", "yes"]);
        let log = dir.path().join("log");
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        let mut connection = Client::connect(port)?;
        for number in 0..KEYS {
            let (key, value) = (format!("kept:{number}"), format!("value {number}"));
            connection.expect(&["SET", &key, &value], &Reply::ok())?;
        }
        Ok(Running { server, connection, port, log, _dir: dir })
    }
}

impl Looping for Running {
    fn pid(&self) -> i32 {
        self.server.pid()
    }

    fn clients(&self) -> Result<Vec<load::Client>> {
        (0..CLIENTS).map(|number| client(self.port, number)).collect()
    }

    fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.server.ended() {
            bail!("redis-server ended: {status}\n{}", tail(&self.log, 60));
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<Option<Vec<u64>>> {
        match self.connection.inline("LIVE")? {
            Reply::Bulk(Some(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let numbers: Result<Vec<u64>, _> = text.split(',').map(str::parse).collect();
                Ok(Some(numbers.with_context(|| format!("LIVE: {text:?}"))?))
            }
            Reply::Error(text) if text.contains("unknown command") => Ok(None),
            other => bail!("LIVE: {other:?}"),
        }
    }

    fn end(mut self: Box<Self>) -> Result<String> {
        for number in 0..KEYS {
            let (key, value) = (format!("kept:{number}"), format!("value {number}"));
            self.connection.expect(&["GET", &key], &Reply::text(&value))?;
        }
        // aeMain, which was entered in OLD, returns in NEW to a main that was entered in OLD.
        // The loop ends before the reply is written, or after.
        let reply = self.connection.inline("LIVE STOP");
        ensure!(!matches!(reply, Ok(Reply::Error(_))), "LIVE STOP: {reply:?}");
        let status = self.server.wait(Duration::from_secs(10));
        let log = tail(&self.log, 60);
        let status = status.with_context(|| format!("not ended within 10 s:\n{log}"))?;
        ensure!(status.success(), "ended with {status}:\n{log}");
        ensure!(log.contains("live: main"), "main did not end in NEW:\n{log}");
        Ok(format!("{KEYS} keys; at the end main and aeMain returned in NEW"))
    }
}
