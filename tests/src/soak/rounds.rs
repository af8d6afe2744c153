//! Minutes of update, revert, update: by bundles forward and back, and from what the process holds.
//!
//! Fails at the first wrong, late or missing answer; when the process grows after the first rounds; and when
//! answers take longer in the end than in the beginning.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dsu_samples::tools::Tools;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clients::Clients;
use super::latency::Percentiles;
use super::server::{Builds, Memory, Server, VERSIONS};
use crate::tool::{self, Said};

/// Rounds in which the process may grow: each bundle is new to it.
const FIRST: usize = 60;
/// What later rounds may take more than the first ones: a record is larger or smaller by what it holds, the C
/// library keeps what it once had.
const MORE: Memory = Memory { virtual_kb: 256, resident_kb: 512, mappings: 12 };
/// How often latency at rest is measured at most, for a machine on which others work, too.
const TRIES: usize = 4;

/// How long.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of the rounds.
    pub rounds: Duration,
    /// Of the measurement before and behind them.
    pub rest: Duration,
    /// Chooses other rounds.
    pub seed: u64,
}

/// What was seen.
#[derive(Debug, Default)]
struct Tally {
    updates: usize,
    reverts: usize,
    again: usize,
    blocked: usize,
    longest_pause_us: u64,
}

/// Runs the plan.
pub fn run(tools: &Tools, builds: &Builds, plan: Plan) -> Result<()> {
    let mut server = builds.start()?;
    let clients = Clients::start(server.port)?;
    let before = rest(&clients, 0, plan.rest)?;
    println!("before: {before}; {}", server.memory()?);
    clients.count_in(1);
    let mut walk = Walk {
        tools,
        builds,
        clients: &clients,
        noise: StdRng::seed_from_u64(plan.seed),
        version: 0,
        back: None,
        tally: Tally::default(),
    };
    let (mut first, mut later) = (Memory::default(), Memory::default());
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < plan.rounds {
        walk.round(&mut server)?;
        round += 1;
        let memory = server.memory()?;
        if round <= FIRST {
            first = first.most(memory);
        } else {
            later = later.most(memory);
            no_larger(later, first)?;
        }
        if round % 1000 == 0 {
            println!("{round} rounds in {} s; {memory}", start.elapsed().as_secs());
        }
    }
    let tally = format!("{:?}", walk.tally);
    walk.home(&server)?;
    println!("during: {}; {tally}", clients.latency(1));
    println!("most in the first {FIRST} of {round} rounds: {first}");
    println!("most in the others: {later}");
    ensure!(round > FIRST, "only {round} rounds: too few to see whether it grows");
    let mut after = rest(&clients, 2, plan.rest)?;
    for _ in 1..TRIES {
        if is_as_before(before, after) {
            break;
        }
        println!("after (once more): {after}");
        after = rest(&clients, 2, plan.rest)?;
    }
    println!("after: {after}; {}", server.memory()?);
    ensure!(is_as_before(before, after), "answers take longer than before: {after} ({before})");
    println!("{} answers, all of them right", clients.finish()?);
    server.alive()
}

/// Latency with nothing else going on.
fn rest(clients: &Clients, part: usize, time: Duration) -> Result<Percentiles> {
    clients.start_over(part);
    clients.count_in(part);
    std::thread::sleep(time);
    clients.all_answered()?;
    Ok(clients.latency(part))
}

fn is_as_before(before: Percentiles, after: Percentiles) -> bool {
    // A jump more in each function costs nanoseconds; the rest is the machine's noise.
    let no_longer =
        |was: Duration, is: Duration, noise| is <= was * 3 / 2 + Duration::from_micros(noise);
    no_longer(before.p50, after.p50, 30) && no_longer(before.p99, after.p99, 500)
}

fn no_larger(later: Memory, first: Memory) -> Result<()> {
    let grown = |is: u64, was: u64, more: u64| is > was + more;
    ensure!(
        !grown(later.virtual_kb, first.virtual_kb, MORE.virtual_kb)
            && !grown(later.resident_kb, first.resident_kb, MORE.resident_kb)
            && !grown(later.mappings, first.mappings, MORE.mappings),
        "the process grows: {later}, in the first {FIRST} rounds {first}"
    );
    Ok(())
}

/// From version to version.
struct Walk<'a> {
    tools: &'a Tools,
    builds: &'a Builds,
    clients: &'a Clients,
    noise: StdRng,
    version: usize,
    /// Where the last update came from, if its functions return soon.
    back: Option<usize>,
    tally: Tally,
}

impl Walk<'_> {
    fn round(&mut self, server: &mut Server) -> Result<()> {
        match self.back {
            Some(before) if self.noise.random_bool(0.5) => self.revert(server, before)?,
            _ => {
                let next = (self.version + self.noise.random_range(1..VERSIONS)) % VERSIONS;
                self.update(server, next)?;
            }
        }
        server.alive()
    }

    /// To version `next` by a bundle.
    fn update(&mut self, server: &Server, next: usize) -> Result<()> {
        let old = self.version;
        let pid = server.pid().to_string();
        let bundle = self.builds.bundle(old, next);
        let said = self.change(next, |tools| {
            tool::operate(tools, &[bundle.as_os_str(), "--pid".as_ref(), pid.as_ref()])
        })?;
        ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
        self.tally.updates += 1;
        self.tally.again += usize::from(said.json["memory_again"] == true);
        // The loop of version 3 is never left.
        self.back = (old != 2 && next != 2).then_some(old);
        Ok(())
    }

    /// To version `before`, from what the process holds.
    fn revert(&mut self, server: &Server, before: usize) -> Result<()> {
        let pid = server.pid().to_string();
        let said = self.change(before, |tools| {
            tool::operate(tools, &["--revert".as_ref(), "--pid".as_ref(), pid.as_ref()])
        })?;
        ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
        self.tally.reverts += 1;
        self.back = None;
        Ok(())
    }

    fn change(&mut self, next: usize, tool: impl Fn(&Tools) -> Result<Said>) -> Result<Said> {
        self.clients.allow(&[self.version, next]);
        let said = tool(self.tools)?;
        if said.exit != 0 {
            return Ok(said);
        }
        let pause = said.pause_us().unwrap_or(0);
        self.tally.longest_pause_us = self.tally.longest_pause_us.max(pause);
        self.tally.blocked += usize::from(said.json["attempts"].as_u64() > Some(1));
        self.clients.all_answered()?;
        self.version = next;
        self.clients.allow(&[next]);
        Ok(said)
    }

    /// To the first version, in which latency was measured before.
    fn home(&mut self, server: &Server) -> Result<()> {
        if self.version != 0 { self.update(server, 0) } else { Ok(()) }
    }
}
