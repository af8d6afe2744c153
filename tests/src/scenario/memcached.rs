//! memcached's security update: 22 functions, and two structs of per-request life that grow.

use std::process::Command;

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;

use super::{Expect, Fill, Program, Server, Steps, Version};
use crate::clients::memcache::Memcache;
use crate::corpus::{Ladder, Recipe, Step, programs, shell};
use crate::live::{self, Loops};
use crate::load;
use crate::process::{Guard, free_port, threads, wait_for_port};

/// The program.
#[derive(Debug)]
pub struct Memcached;

const STEPS: Steps = &[("deb12u1", Expect::Applied)];

/// Live for one request: the user accepts their change.
const LAYOUTS: &[&str] = &["mcp_parser_s", "mcp_request_s"];

/// The tests of its tree that pass against a running daemon. Not issue_22: it counts evictions in a
/// server of its own with 3 MiB, and in a busy one that is not updated it fails as often as not.
const OWN_TESTS: &[&str] = &[
    "binary-get",
    "bogus-commands",
    "cas",
    "chunked-items",
    "evictions",
    "flags",
    "getandtouch",
    "incrdecr",
    "issue_108",
    "issue_152",
    "issue_192",
    "issue_3",
    "issue_67",
    "issue_68",
    "issue_70",
    "malicious-commands",
    "multiversioning",
    "noreply",
    "quit",
    "strtol-testing",
    "touch",
];

impl Program for Memcached {
    fn recipe(&self) -> &'static Recipe {
        &programs::MEMCACHED
    }

    fn steps(&self) -> Steps {
        STEPS
    }

    fn accepted(&self, _patch: &str, _image: usize) -> &'static [&'static str] {
        LAYOUTS
    }

    fn start(&self, _ladder: &Ladder, step: &Step, fill: Fill) -> Result<Box<dyn Server>> {
        Ok(Box::new(Running::start(step, if fill == Fill::Full { 20_000 } else { 1_000 })?))
    }

    fn own_tests(&self, ladder: &Ladder, server: &mut dyn Server) -> Vec<(String, Result<String>)> {
        // They ask one build what it can do, and start servers of their own by the other.
        let (line, log) = ("make -j2 memcached-debug timedrun", ladder.tree.join("prove.log"));
        let mut passed = shell(line, &ladder.tree, &log);
        for test in OWN_TESTS {
            passed = passed.and_then(|()| prove(ladder, server.port(), test));
        }
        let result = passed.map(|()| format!("{} files pass", OWN_TESTS.len()));
        vec![("prove t/".to_owned(), result)]
    }

    fn loops(&self) -> Option<&'static dyn Loops> {
        Some(&live::memcached::Memcached)
    }

    fn repeated(&self) -> bool {
        true
    }
}

/// One test file of the tree, against the running server.
fn prove(ladder: &Ladder, port: u16, test: &str) -> Result<()> {
    // Each file expects a server of its own, without the keys of the one before.
    Memcache::connect(port)?.expect("flush_all", "OK")?;
    let log = ladder.tree.join("prove.log");
    let _ = std::fs::remove_file(&log);
    let line = format!("T_MEMD_USE_DAEMON=127.0.0.1:{port} timeout 120 prove t/{test}.t");
    shell(&line, &ladder.tree, &log)?;
    let text = crate::corpus::tail(&log, 3);
    ensure!(text.contains("Result: PASS"), "t/{test}.t: {text}");
    Ok(())
}

struct Running {
    server: Guard,
    port: u16,
    keys: usize,
    dir: TempDir,
}

impl Running {
    fn start(step: &Step, keys: usize) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        let mut command = Command::new(&step.program);
        // -U 0: no UDP. Eight workers and memcached's own threads make more than twelve.
        command.args([
            "-l",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-U",
            "0",
            "-t",
            "8",
            "-m",
            "128",
            "-u",
            "root",
        ]);
        let log = dir.path().join("log");
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        let mut client = Memcache::connect(port)?;
        for number in 0..keys {
            client.store("set", &format!("kept{number}"), &format!("value {number}"))?;
        }
        Ok(Running { server, port, keys, dir })
    }
}

impl Server for Running {
    fn targets(&self) -> Vec<i32> {
        vec![self.server.pid()]
    }

    fn port(&self) -> u16 {
        self.port
    }

    /// One client for each worker thread: connections are dealt to them in turn.
    fn clients(&self) -> Result<Vec<load::Client>> {
        (0..8).map(|number| client(self.port, number)).collect()
    }

    fn alive(&mut self) -> Result<()> {
        match self.server.ended() {
            Some(status) => {
                bail!(
                    "memcached ended: {status}\n{}",
                    crate::corpus::tail(&self.dir.path().join("log"), 10)
                )
            }
            None => Ok(()),
        }
    }

    fn check(&mut self, _version: Version<'_>) -> Result<String> {
        let mut client = Memcache::connect(self.port)?;
        for number in 0..self.keys {
            client.expect_value(&format!("kept{number}"), &format!("value {number}"))?;
        }
        Ok(format!("{} keys, {} threads", self.keys, threads(self.server.pid())))
    }
}

/// A client whose keys are its own, so that it knows every reply.
pub fn client(port: u16, number: usize) -> Result<load::Client> {
    let mut client = Memcache::connect(port)?;
    let mut round: u64 = 0;
    Ok(Box::new(move || {
        round += 1;
        one_round(&mut client, number, round)
    }))
}

fn one_round(client: &mut Memcache, number: usize, round: u64) -> Result<()> {
    let key = format!("load:{number}:{}", round % 50);
    let value = format!("{round}:{}", "z".repeat(usize::try_from(round % 900)?));
    client.store("set", &key, &value)?;
    client.expect_value(&key, &value)?;
    client.store("append", &key, "+")?;
    let longer = format!("{value}+");
    let Some((found, unique)) = client.gets(&key)? else { bail!("{key} is gone") };
    ensure!(found == longer, "{key}: appended value is wrong");
    client.expect(&format!("cas {key} 0 0 2 {unique}\r\n41"), "STORED")?;
    client.expect(&format!("cas {key} 0 0 2 {unique}\r\n40"), "EXISTS")?;
    client.expect(&format!("incr {key} 1"), "42")?;
    client.expect_lines(&format!("mg {key} v"), &["VA 2", "42"])?;
    client.expect(&format!("delete {key}"), "DELETED")
}
