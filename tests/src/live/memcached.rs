//! memcached: `main`, the workers' `worker_libevent` and `drive_machine`, and its maintenance threads.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Looping, Loops, Variant, variants};
use crate::clients::memcache::Memcache;
use crate::corpus::tail;
use crate::load;
use crate::process::{Guard, free_port, wait_for_port};
use crate::scenario::memcached::client;

/// The program.
#[derive(Debug)]
pub struct Memcached;

/// Threads for connections.
const WORKERS: usize = 4;
/// Keys that are there from the start to the end.
const KEYS: usize = 500;
/// Functions that say a word when they return, and how often.
const ENDS: &[(&str, usize)] = &[
    ("main", 1),
    ("worker_libevent", WORKERS),
    ("assoc_maintenance_thread", 1),
    ("lru_maintainer_thread", 1),
    ("item_crawler_thread", 1),
    ("slab_rebalance_thread", 1),
    ("logger_thread", 1),
];

// The variable that NEW adds holds a value over the sleep that no OLD frame has.
const VARIANTS: &[Variant] = &variants("a local over its loop", "lru_maintainer_thread", "begun");

impl Loops for Memcached {
    fn variants(&self) -> &'static [Variant] {
        VARIANTS
    }

    fn loops(&self) -> &'static [&'static str] {
        &["main", "drive_machine", "lru_maintainer_thread", "logger_thread", "item_crawler_thread"]
    }

    fn start(&self, program: &Path) -> Result<Box<dyn Looping>> {
        Ok(Box::new(Running::start(program)?))
    }
}

struct Running {
    server: Guard,
    /// Opened before any update.
    connection: Memcache,
    /// Keeps the logger going.
    _watcher: Memcache,
    port: u16,
    dir: TempDir,
}

impl Running {
    fn start(program: &Path) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["-l", "127.0.0.1", "-U", "0", "-m", "64", "-u", "root"]);
        command.args(["-p", &port.to_string(), "-t", &WORKERS.to_string()]);
        let log = dir.path().join("log");
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        let mut connection = Memcache::connect(port)?;
        for number in 0..KEYS {
            connection.store("set", &format!("kept{number}"), &format!("value {number}"))?;
        }
        let mut watcher = Memcache::connect(port)?;
        watcher.expect("watch sysevents", "OK")?;
        Ok(Running { server, connection, _watcher: watcher, port, dir })
    }

    fn log(&self) -> String {
        tail(&self.dir.path().join("log"), 100)
    }
}

impl Looping for Running {
    fn pid(&self) -> i32 {
        self.server.pid()
    }

    fn clients(&self) -> Result<Vec<load::Client>> {
        (0..2 * WORKERS).map(|number| client(self.port, number)).collect()
    }

    fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.server.ended() {
            bail!("memcached ended: {status}\n{}", self.log());
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<Option<Vec<u64>>> {
        let answer = self.connection.line("live")?;
        // A connection of its own makes `main` go around; the crawler sleeps until it is asked.
        Memcache::connect(self.port)?.line("lru_crawler crawl all")?;
        match answer.strip_prefix("LIVE ") {
            None => {
                ensure!(answer == "ERROR", "live: {answer:?}");
                Ok(None)
            }
            Some(numbers) => {
                let numbers: Result<Vec<u64>, _> = numbers.split(' ').map(str::parse).collect();
                Ok(Some(numbers.with_context(|| format!("live: {answer:?}"))?))
            }
        }
    }

    fn end(mut self: Box<Self>) -> Result<String> {
        for number in 0..KEYS {
            let (key, value) = (format!("kept{number}"), format!("value {number}"));
            self.connection.expect_value(&key, &value)?;
        }
        kill(Pid::from_raw(self.server.pid()), Signal::SIGUSR1)?;
        let status = self.server.wait(Duration::from_secs(20));
        let log = self.log();
        let status = status.with_context(|| format!("not ended within 20 s of SIGUSR1:\n{log}"))?;
        ensure!(status.success(), "ended with {status}:\n{log}");
        for (function, times) in ENDS {
            let word = format!("live: {function}");
            let found = log.lines().filter(|line| *line == word).count();
            ensure!(found == *times, "{found} of {times} times {word:?} at the end:\n{log}");
        }
        let count: usize = ENDS.iter().map(|(_, times)| times).sum();
        Ok(format!("{KEYS} keys; at the end {count} frames of its start returned in NEW"))
    }
}
