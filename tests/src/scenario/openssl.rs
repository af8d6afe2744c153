//! libcrypto and libssl 3.0.20 -> 3.0.22 inside a TLS server that knows nothing of it.
//!
//! The server is OpenSSL's own `s_server`, loaded with OLD's libraries by path; clients are the machine's
//! `openssl s_client`, each a connection with many requests, and new ones all the time.
//! Both libraries are updated, one after the other, by two bundles.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Expect, Fill, Program, Server, Steps, Version};
use crate::corpus::{Ladder, Recipe, Step, programs};
use crate::load;
use crate::process::{Guard, free_port, wait_for_port};

/// The libraries.
#[derive(Debug)]
pub struct Openssl;

const STEPS: Steps = &[("3.0.22", Expect::Applied)];

impl Program for Openssl {
    fn recipe(&self) -> &'static Recipe {
        &programs::OPENSSL
    }

    fn steps(&self) -> Steps {
        STEPS
    }

    fn accepted(&self, _patch: &str, image: usize) -> &'static [&'static str] {
        // Of libcrypto: a MAC in the making. Of libssl: a datagram; this server speaks TLS.
        if image == 0 { &["poly1305_data_st"] } else { &["dtls1_record_data_st"] }
    }

    fn images(&self, step: &Step) -> Vec<PathBuf> {
        ["libcrypto.so.3", "libssl.so.3"].iter().map(|name| step.dir.join(name)).collect()
    }

    fn start(&self, _ladder: &Ladder, step: &Step, _fill: Fill) -> Result<Box<dyn Server>> {
        Ok(Box::new(Running::start(step)?))
    }
}

struct Running {
    server: Guard,
    port: u16,
    dir: TempDir,
}

impl Running {
    fn start(step: &Step) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        certificate(dir.path())?;
        let mut command = Command::new(step.dir.join("openssl"));
        command.env("LD_LIBRARY_PATH", &step.dir).current_dir(dir.path());
        command.args([
            "s_server",
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-key",
            "key",
            "-cert",
            "cert",
        ]);
        command.args(["-quiet", "-rev", "-naccept", "1000000"]);
        let log = dir.path().join("log");
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        Ok(Running { server, port, dir })
    }
}

impl Server for Running {
    fn targets(&self) -> Vec<i32> {
        vec![self.server.pid()]
    }

    fn port(&self) -> u16 {
        self.port
    }

    /// `s_server` serves one connection at a time.
    fn clients(&self) -> Result<Vec<load::Client>> {
        let port = self.port;
        let mut session: Option<Session> = None;
        let mut round = 0;
        Ok(vec![Box::new(move || {
            round += 1;
            let mut current = match session.take() {
                Some(session) => session,
                None => Session::open(port)?,
            };
            current.reversed(&format!("line {round}"))?;
            if round % 20 != 0 {
                session = Some(current);
            }
            Ok(())
        })])
    }

    fn alive(&mut self) -> Result<()> {
        match self.server.ended() {
            Some(status) => {
                bail!(
                    "s_server ended: {status}\n{}",
                    crate::corpus::tail(&self.dir.path().join("log"), 10)
                )
            }
            None => Ok(()),
        }
    }

    fn check(&mut self, _version: Version<'_>) -> Result<String> {
        Ok("handshakes and records, from other libraries of this machine".to_owned())
    }
}

fn certificate(dir: &Path) -> Result<()> {
    let out = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert"])
        .args(["-days", "2", "-subj", "/CN=localhost"])
        .current_dir(dir)
        .output()
        .context("openssl req")?;
    ensure!(out.status.success(), "openssl req: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// One TLS connection of the machine's own client.
struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(port: u16) -> Result<Session> {
        let mut child = Command::new("timeout")
            // A server that hangs must not hang the test.
            .args(["60", "openssl", "s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("openssl s_client")?;
        let input = child.stdin.take().context("piped")?;
        let output = BufReader::new(child.stdout.take().context("piped")?);
        Ok(Session { child, input, output })
    }

    /// `-rev` sends every line back reversed.
    fn reversed(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("s_client has ended")?;
        let mut reply = String::new();
        self.output.read_line(&mut reply)?;
        let expected: String = line.chars().rev().collect();
        ensure!(reply.trim_end() == expected, "expected {expected:?}, got {reply:?}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // `timeout` passes this signal on to the client; a killed one would leave it behind.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}
