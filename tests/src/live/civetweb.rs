//! civetweb: `main`, the thread that accepts, and the workers that keep connections.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Looping, Loops, Variant, variants};
use crate::clients::http::Http;
use crate::corpus::tail;
use crate::load;
use crate::scenario::civetweb::{NO_LOOPS, Running};

/// The program.
#[derive(Debug)]
pub struct Civetweb;

// The variable that NEW adds holds a value over the sleep that no OLD frame has.
const VARIANTS: &[Variant] = &variants("a local over a sleep", "main", "since");

impl Loops for Civetweb {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn loops(&self) -> &'static [&'static str] {
        &["master_thread", "worker_thread", "its connections"]
    }

    fn start(&self, program: &Path) -> Result<Box<dyn Looping>> {
        Ok(Box::new(Running::start(program)?))
    }
}

impl Looping for Running {
    fn pid(&self) -> i32 {
        self.server.pid()
    }

    fn clients(&self) -> Result<Vec<load::Client>> {
        self.load()
    }

    fn alive(&mut self) -> Result<()> {
        self.check_alive()
    }

    fn ask(&mut self) -> Result<Option<Vec<u64>>> {
        // A connection of its own, for the loops that wait for one.
        let mut other = Http::connect(self.port)?;
        let response = other.ask("GET", "/missing", &[("Connection", "close")], b"")?;
        ensure!(response.status == 404, "GET /missing: {}", response.status);
        let response = self.connection.ask("GET", "/live", &[], b"")?;
        let text = String::from_utf8_lossy(&response.body).into_owned();
        match (response.status, text.strip_prefix("LIVE ")) {
            (200, None) if text == NO_LOOPS => Ok(None),
            (200, Some(numbers)) => {
                let numbers: Result<Vec<u64>, _> = numbers.split(' ').map(str::parse).collect();
                let numbers = numbers.with_context(|| format!("/live: {text:?}"))?;
                // The first is `main`, which goes around once in a second: asked at the end.
                Ok(Some(numbers.get(1..).unwrap_or_default().to_vec()))
            }
            (status, _) => bail!("/live: {status} {text:?}"),
        }
    }

    fn end(mut self: Box<Self>) -> Result<String> {
        self.files()?;
        kill(Pid::from_raw(self.server.pid()), Signal::SIGTERM)?;
        let status = self.server.wait(Duration::from_secs(20));
        let log = tail(&self.log, 20);
        let status = status.with_context(|| format!("not ended within 20 s of SIGTERM:\n{log}"))?;
        ensure!(status.success(), "ended with {status}:\n{log}");
        ensure!(log.contains("live: main"), "main did not end in NEW:\n{log}");
        Ok("at the end main and all threads returned in NEW".to_owned())
    }
}
