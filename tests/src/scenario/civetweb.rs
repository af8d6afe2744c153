//! civetweb: a thread for each connection that is kept open, all in one function that never returns.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;

use super::{Expect, Fill, Program, Server, Steps, Version};
use crate::clients::http::Http;
use crate::corpus::{Ladder, Recipe, Step, programs, tail};
use crate::live::{self, Loops};
use crate::load;
use crate::process::{Guard, free_port, wait_for_port};

/// The program.
#[derive(Debug)]
pub struct Civetweb;

const STEPS: Steps = &[
    // The number of a library that is not built here.
    ("soversion", Expect::Nothing),
    // Methods more in a table of constants, which the worker threads read in a loop that never ends: their
    // frames go on in NEW.
    ("webdav-uploads", Expect::Applied),
];

/// Threads that serve a connection each.
const WORKERS: usize = 12;
const FILES: usize = 20;

impl Program for Civetweb {
    fn recipe(&self) -> &'static Recipe {
        &programs::CIVETWEB
    }

    fn steps(&self) -> Steps {
        STEPS
    }

    fn start(&self, _ladder: &Ladder, step: &Step, _fill: Fill) -> Result<Box<dyn Server>> {
        Ok(Box::new(Running::start(&step.program)?))
    }

    fn loops(&self) -> Option<&'static dyn Loops> {
        Some(&live::civetweb::Civetweb)
    }
}

/// A running server, and a connection to it.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub server: Guard,
    /// Opened at the start and kept.
    pub connection: Http,
    /// Its port.
    pub port: u16,
    /// Its output.
    pub log: PathBuf,
    _dir: TempDir,
}

/// What /live is where no loop answers for it: an error would close the connection.
pub const NO_LOOPS: &str = "none";

impl Running {
    /// Starts a build.
    pub fn start(program: &std::path::Path) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        let root = dir.path().join("root");
        std::fs::create_dir(&root)?;
        for number in 0..FILES {
            std::fs::write(root.join(name(number)), content(number))?;
        }
        std::fs::write(root.join("live"), NO_LOOPS)?;
        let mut command = Command::new(program);
        command.current_dir(dir.path()).arg("-document_root").arg(&root);
        command.args(["-listening_ports", &format!("127.0.0.1:{port}")]);
        command.args(["-num_threads", &WORKERS.to_string(), "-enable_keep_alive", "yes"]);
        command.args(["-keep_alive_timeout_ms", "60000", "-request_timeout_ms", "60000"]);
        let log = dir.path().join("log");
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        let mut connection = Http::connect(port)?;
        connection.expect("/file0", 200, &content(0))?;
        Ok(Running { server, connection, port, log, _dir: dir })
    }

    /// An error when the process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.server.ended() {
            bail!("civetweb ended: {status}\n{}", tail(&self.log, 20));
        }
        Ok(())
    }

    /// Half of the workers keep a connection each; the others serve short ones.
    pub fn load(&self) -> Result<Vec<load::Client>> {
        (0..WORKERS / 2).map(|number| client(self.port, number)).collect()
    }

    /// Every file, on the connection of the start.
    pub fn files(&mut self) -> Result<()> {
        (0..FILES)
            .try_for_each(|n| self.connection.expect(&format!("/{}", name(n)), 200, &content(n)))
    }
}

impl Server for Running {
    fn targets(&self) -> Vec<i32> {
        vec![self.server.pid()]
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn clients(&self) -> Result<Vec<load::Client>> {
        self.load()
    }

    fn alive(&mut self) -> Result<()> {
        self.check_alive()
    }

    fn check(&mut self, _version: Version<'_>) -> Result<String> {
        self.files()?;
        Ok(format!("{FILES} files on the first connection"))
    }
}

fn name(number: usize) -> String {
    format!("file{number}")
}

fn content(number: usize) -> Vec<u8> {
    format!("content {number}\n").repeat(1 + number * 37).into_bytes()
}

fn client(port: u16, number: usize) -> Result<load::Client> {
    let mut kept = Http::connect(port)?;
    let mut round = number;
    Ok(Box::new(move || {
        round += 1;
        let file = round % FILES;
        kept.expect(&format!("/{}", name(file)), 200, &content(file))?;
        kept.expect(&format!("/{}", name((file + 1) % FILES)), 200, &content((file + 1) % FILES))?;
        if round.is_multiple_of(8) {
            let mut short = Http::connect(port)?;
            let response = short.ask("GET", "/missing", &[("Connection", "close")], b"")?;
            ensure!(response.status == 404, "GET /missing: {}", response.status);
        }
        Ok(())
    }))
}
