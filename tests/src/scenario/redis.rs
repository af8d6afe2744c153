//! redis 7.0: 18 fixes under redis-benchmark and clients of our own, with 10^5 keys set before.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::runtest;
use super::{Expect, Fill, Program, Server, Steps, Updates, Version};
use crate::clients::resp::{Redis as Client, Reply};
use crate::corpus::{Ladder, Recipe, Step, programs};
use crate::live::{self, Loops};
use crate::load;
use crate::process::{Guard, free_port, wait_for_port, wait_until};

/// The program.
#[derive(Debug)]
pub struct Redis;

/// What each fix must end in (CORPUS.md).
const STEPS: Steps = &[
    ("0001-Apply-security-fixes", Expect::Applied),
    ("0001-Fix-LUA-garbage-collector", Expect::Applied),
    ("0002-Fix-Read-Write-key-pattern", Expect::Applied),
    ("0001-Limiting-output-buffer", Expect::Applied),
    ("0005-CVE-2025-27151", Expect::Applied),
    ("0006-CVE-2025-32023", Expect::Applied),
    ("0007-CVE-2025-48367", Expect::Applied),
    ("CVE-2025-46817", Expect::Applied),
    // Moves five fields of the global `server`.
    ("CVE-2025-46818", Expect::Refused(&["server"])),
    ("CVE-2025-49844", Expect::Applied),
    ("CVE-2025-46819", Expect::Applied),
    ("CVE-2025-67733", Expect::Applied),
    ("CVE-2026-21863", Expect::Applied),
    ("CVE-2026-23631", Expect::Applied),
    ("CVE-2026-25243", Expect::Applied),
    ("CVE-2026-66373", Expect::Applied),
    // Changes TLS code, which this configuration leaves out.
    ("CVE-2026-81934", Expect::Nothing),
    ("CVE-2026-92925", Expect::Applied),
];

const ACL_FIX: &str = "0001-Apply-security-fixes";
const UNPACK_FIX: &str = "CVE-2025-46817";
const FUNCTION_LIST_FIX: &str = "CVE-2025-67733";
const RESTORE_FIX: &str = "CVE-2026-25243";

const UNPACK: &[&str] = &["EVAL", "return {unpack({1,2,3},0,2147483647)}", "0"];

/// A list whose encoding lies about its length, with a right checksum.
const BAD_DUMP: &[u8] = &[
    0x09, 0x0e, 0x01, 0x01, 0x6b, 0xfe, 0x04, 0, 0, 0, 0, 0x76, 0x61, 0x6c, 0x31, 0xff, 0x09, 0,
    0xd0, 0xf9, 0xe4, 0x1d, 0xe4, 0xfb, 0x11, 0x4c,
];

impl Program for Redis {
    fn recipe(&self) -> &'static Recipe {
        &programs::REDIS
    }

    fn steps(&self) -> Steps {
        STEPS
    }

    fn line_only(&self, patch: &str) -> usize {
        // Forty or so assertions and log lines move with these patches.
        let moves = ["0007-CVE-2025-48367", FUNCTION_LIST_FIX].iter().any(|p| patch.starts_with(p));
        if moves { 30 } else { 0 }
    }

    fn start(&self, ladder: &Ladder, step: &Step, fill: Fill) -> Result<Box<dyn Server>> {
        let mut running = Running::start(step)?;
        if fill != Fill::Nothing {
            running.fill(if fill == Fill::Full { 100_000 } else { 2_000 })?;
            running.benchmark = Some(benchmark(ladder, &running)?);
        }
        Ok(Box::new(running))
    }

    fn apart(
        &self,
        ladder: &Ladder,
        updates: Option<&Updates<'_>>,
    ) -> Vec<(String, Result<String>)> {
        let mut cases = vec![("unpack before its fix".to_owned(), unpack_kills_old(ladder))];
        cases.extend(runtest::fixes(self, ladder, updates));
        cases
    }

    fn own_tests(&self, ladder: &Ladder, server: &mut dyn Server) -> Vec<(String, Result<String>)> {
        runtest::units(&ladder.tree, server.port())
    }

    fn loops(&self) -> Option<&'static dyn Loops> {
        Some(&live::redis::Redis)
    }

    fn repeated(&self) -> bool {
        true
    }
}

struct Running {
    benchmark: Option<Guard>,
    server: Guard,
    port: u16,
    keys: usize,
    dir: TempDir,
}

impl Running {
    fn start(step: &Step) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        let mut command = Command::new(&step.program);
        command.current_dir(dir.path()).args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--io-threads", "2", "--dir", "."]);
        command.args(["--enable-debug-command", "yes", "--enable-module-command", "yes"]);
        let log = dir.path().join("log");
        let mut server = Guard::start(command, &log)?;
        wait_for_port(port, &mut server, &log)?;
        Ok(Running { benchmark: None, server, port, keys: 0, dir })
    }

    fn fill(&mut self, keys: usize) -> Result<()> {
        let mut client = Client::connect(self.port)?;
        for first in (0..keys).step_by(1000) {
            let batch: Vec<Vec<Vec<u8>>> = (first..(first + 1000).min(keys))
                .map(|n| vec![b"SET".to_vec(), key(n).into_bytes(), value(n).into_bytes()])
                .collect();
            let replies = client.pipeline(&batch)?;
            ensure!(replies.iter().all(|r| *r == Reply::ok()), "SET did not answer OK");
        }
        self.keys = keys;
        Ok(())
    }

    /// Every key set before is there, with its value.
    fn keys_are_there(&self) -> Result<()> {
        let mut client = Client::connect(self.port)?;
        for first in (0..self.keys).step_by(1000) {
            let numbers: Vec<usize> = (first..(first + 1000).min(self.keys)).collect();
            let mut command = vec!["MGET".to_owned()];
            command.extend(numbers.iter().map(|n| key(*n)));
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let expected = numbers.iter().map(|n| Reply::text(&value(*n))).collect();
            let reply = client.ask_text(&words)?;
            ensure!(
                reply == Reply::List(expected),
                "keys from {} on are not what was set",
                key(first)
            );
        }
        Ok(())
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
        (0..3).map(|number| client(self.port, number)).collect()
    }

    fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.server.ended() {
            let log = crate::corpus::tail(&self.dir.path().join("log"), 60);
            bail!("redis-server ended: {status}\n{log}");
        }
        if let Some(status) = self.benchmark.as_mut().and_then(Guard::ended) {
            let said = crate::corpus::tail(&self.dir.path().join("benchmark"), 5);
            bail!("redis-benchmark ended: {status}: {said}");
        }
        let said = std::fs::read_to_string(self.dir.path().join("benchmark")).unwrap_or_default();
        let error = said.split(['\n', '\r']).find(|l| l.contains("rror"));
        ensure!(error.is_none(), "redis-benchmark: {error:?}");
        Ok(())
    }

    fn lighten(&mut self, light: bool) -> Result<()> {
        let signal = if light { Signal::SIGSTOP } else { Signal::SIGCONT };
        match &self.benchmark {
            Some(benchmark) => Ok(kill(Pid::from_raw(benchmark.pid()), signal)?),
            None => Ok(()),
        }
    }

    fn quiet(&mut self) {
        self.benchmark = None;
    }

    fn check(&mut self, version: Version<'_>) -> Result<String> {
        self.keys_are_there()?;
        let oracles = [
            acl(self.port, version.has(ACL_FIX))?,
            function_list(self.port, version.has(FUNCTION_LIST_FIX))?,
            restore(self.port, version.has(RESTORE_FIX))?,
            unpack(self.port, version.has(UNPACK_FIX))?,
        ];
        Ok(format!("{} keys, oracles {}", self.keys, oracles.concat()))
    }
}

fn key(number: usize) -> String {
    format!("kept:{number:06}")
}

fn value(number: usize) -> String {
    format!("value {number} {}", "x".repeat(number % 40))
}

/// redis' own load generator; it ends by itself at the first error.
fn benchmark(ladder: &Ladder, running: &Running) -> Result<Guard> {
    let program = ladder.steps[0].dir.join("redis-benchmark");
    let mut command = Command::new(program);
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &running.port.to_string(),
        "-l",
        "-q",
        "-c",
        "6",
        "-n",
        "20000",
    ]);
    command.args(["-r", "1000", "-t", "set,get,incr,lpush,rpop,sadd,hset,spop,zadd,zpopmin,mset"]);
    Guard::start(command, &running.dir.path().join("benchmark"))
}

/// A client whose keys are its own, so that it knows every reply.
pub fn client(port: u16, number: usize) -> Result<load::Client> {
    let mut client = Client::connect(port)?;
    let mut round: i64 = 0;
    Ok(Box::new(move || {
        round += 1;
        one_round(&mut client, number, round)
    }))
}

fn one_round(client: &mut Client, number: usize, round: i64) -> Result<()> {
    let name = |kind: &str| format!("load:{number}:{kind}");
    let text = format!("{round}:{}", "y".repeat(usize::try_from(round % 700).unwrap_or(0)));
    let one = Reply::Number(1);
    match round % 8 {
        0 => {
            client.expect(&["SET", &name("string"), &text], &Reply::ok())?;
            client.expect(&["GET", &name("string")], &Reply::text(&text))
        }
        1 => client.expect(&["INCR", &name("count")], &Reply::Number(round / 8 + 1)),
        2 => {
            client.expect(&["RPUSH", &name("list"), &text, "b"], &Reply::Number(2))?;
            let both = Reply::List(vec![Reply::text(&text), Reply::text("b")]);
            client.expect(&["LRANGE", &name("list"), "0", "-1"], &both)?;
            client.expect(&["DEL", &name("list")], &one)
        }
        3 => {
            client.expect(&["HSET", &name("hash"), "field", &text], &one)?;
            client.expect(&["HGET", &name("hash"), "field"], &Reply::text(&text))?;
            client.expect(&["DEL", &name("hash")], &one)
        }
        4 => {
            client.expect(&["ZADD", &name("sorted"), &round.to_string(), "member"], &one)?;
            let score = Reply::text(&round.to_string());
            client.expect(&["ZSCORE", &name("sorted"), "member"], &score)?;
            client.expect(&["ZREM", &name("sorted"), "member"], &one)
        }
        5 => {
            let script = "redis.call('SET', KEYS[1], ARGV[1]); return {redis.call('GET', KEYS[1]), #ARGV[1]}";
            let length = Reply::Number(i64::try_from(text.len())?);
            let both = Reply::List(vec![Reply::text(&text), length]);
            client.expect(&["EVAL", script, "1", &name("script"), &text], &both)
        }
        6 => {
            let queued = Reply::Status("QUEUED".into());
            client.expect(&["MULTI"], &Reply::ok())?;
            client.expect(&["SADD", &name("set"), &text], &queued)?;
            client.expect(&["SREM", &name("set"), &text], &queued)?;
            client.expect(&["EXEC"], &Reply::List(vec![one.clone(), one]))
        }
        _ => {
            client.expect(&["PFADD", &name("loglog"), "a", "b", "c"], &one)?;
            client.expect(&["PFCOUNT", &name("loglog")], &Reply::Number(3))?;
            client.expect(&["XADD", &name("stream"), "1-1", "f", &text], &Reply::text("1-1"))?;
            client.expect(&["DEL", &name("loglog"), &name("stream")], &Reply::Number(2))
        }
    }
}

fn acl(port: u16, fixed: bool) -> Result<&'static str> {
    let mut client = Client::connect(port)?;
    let reply = client.ask_text(&["ACL", "SETUSER", "u1", "%~foo"])?;
    if fixed {
        let syntax = matches!(&reply, Reply::Error(text) if text.contains("Syntax error"));
        ensure!(syntax, "ACL SETUSER u1 %~foo: expected a syntax error, got {reply:?}");
        return Ok("acl:B ");
    }
    ensure!(reply == Reply::ok(), "ACL SETUSER u1 %~foo: expected OK of OLD, got {reply:?}");
    client.expect(&["ACL", "DELUSER", "u1"], &Reply::Number(1))?;
    Ok("acl:A ")
}

fn function_list(port: u16, fixed: bool) -> Result<&'static str> {
    // A connection of its own: OLD's reply is two lines.
    let line = Client::connect(port)?.raw_line(&[b"FUNCTION", b"LIST", b"X\r\n+INJ"])?;
    let line = String::from_utf8_lossy(&line).into_owned();
    if fixed {
        ensure!(line.contains("X  +INJ"), "FUNCTION LIST: expected two spaces, got {line:?}");
        return Ok("function-list:B ");
    }
    ensure!(line.ends_with('X'), "FUNCTION LIST: expected CR LF of OLD, got {line:?}");
    Ok("function-list:A ")
}

fn restore(port: u16, fixed: bool) -> Result<&'static str> {
    let mut client = Client::connect(port)?;
    let reply = client.ask(&[b"RESTORE", b"bad", b"0", BAD_DUMP])?;
    if fixed {
        let bad = matches!(&reply, Reply::Error(text) if text.contains("Bad data format"));
        ensure!(bad, "RESTORE: expected Bad data format, got {reply:?}");
        return Ok("restore:B ");
    }
    ensure!(reply == Reply::ok(), "RESTORE: expected OK of OLD, got {reply:?}");
    client.expect(&["DEL", "bad"], &Reply::Number(1))?;
    Ok("restore:A ")
}

/// OLD aborts: it is asked in a process of its own.
fn unpack(port: u16, fixed: bool) -> Result<&'static str> {
    if !fixed {
        return Ok("");
    }
    let reply = Client::connect(port)?.ask_text(UNPACK)?;
    let right = matches!(&reply, Reply::Error(text) if text.contains("too many results to unpack"));
    ensure!(right, "EVAL unpack: expected too many results to unpack, got {reply:?}");
    Ok("unpack:B")
}

fn unpack_kills_old(ladder: &Ladder) -> Result<String> {
    let fix = ladder.steps.iter().position(|s| s.patch.starts_with(UNPACK_FIX));
    let Some(before) = fix.and_then(|f| ladder.steps.get(f - 1)) else {
        bail!("the ladder has no {UNPACK_FIX}");
    };
    let mut running = Running::start(before)?;
    let reply = Client::connect(running.port)?.ask_text(UNPACK);
    ensure!(reply.is_err(), "build {} answers {reply:?}: expected that it aborts", before.label());
    wait_until(Duration::from_secs(10), "redis-server aborts", || {
        running.server.ended().is_some()
    })?;
    Ok(format!("build {} aborts, as known", before.label()))
}
