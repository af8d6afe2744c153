//! The load: connections that ask a number and check the answer, its version, and the order of answers.
//!
//! Which versions may answer is one word that whoever updates keeps up to date: both of an update from
//! before it begins until every client has had an answer to a question that it asked afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::latency::{Latency, Percentiles};
use super::server::{Server, VERSIONS, answer};
use crate::clients::Wire;
use crate::load::{Client, Load};

/// Connections.
pub const CLIENTS: usize = 32;
/// What a client waits between two questions.
const PAUSE: Duration = Duration::from_millis(3);
/// Parts of a run that are counted apart.
pub const PARTS: usize = 3;

/// Shared by all.
#[derive(Debug, Default)]
struct Shared {
    /// Bits by version.
    allowed: AtomicU64,
    part: AtomicU64,
    latency: [Latency; PARTS],
    answers: Vec<AtomicU64>,
}

/// All clients at work.
#[derive(Debug)]
pub struct Clients {
    load: Load,
    shared: Arc<Shared>,
}

impl Clients {
    /// Connects them to a server that runs its first version.
    pub fn start(port: u16) -> Result<Clients> {
        let shared = Arc::new(Shared {
            allowed: AtomicU64::new(1),
            answers: (0..CLIENTS).map(|_| AtomicU64::new(0)).collect(),
            ..Shared::default()
        });
        let client = |number| client(port, number, Arc::clone(&shared));
        let all = (0..CLIENTS).map(client).collect::<Result<_>>()?;
        Ok(Clients { load: Load::start(all), shared })
    }

    /// From now on these versions may answer.
    pub fn allow(&self, versions: &[usize]) {
        let bits = versions.iter().fold(0, |bits, version| bits | 1 << version);
        self.shared.allowed.store(bits, Ordering::SeqCst);
    }

    /// From now on this part is counted.
    pub fn count_in(&self, part: usize) {
        self.shared.part.store(part as u64, Ordering::SeqCst);
    }

    /// Forgets what was counted in a part.
    pub fn start_over(&self, part: usize) {
        self.shared.latency[part % PARTS].clear();
    }

    /// What was counted in a part.
    pub fn latency(&self, part: usize) -> Percentiles {
        self.shared.latency[part % PARTS].percentiles()
    }

    /// Waits until every client has had an answer to a question that it has asked from now on.
    pub fn all_answered(&self) -> Result<()> {
        let now = || self.shared.answers.iter().map(|n| n.load(Ordering::SeqCst));
        // One may be on its way.
        let goals: Vec<u64> = now().map(|n| n + 2).collect();
        let start = Instant::now();
        while now().zip(&goals).any(|(n, goal)| n < *goal) {
            self.load.check()?;
            if start.elapsed() > Server::PATIENCE {
                bail!("a client had no answer for {:?}", Server::PATIENCE);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        self.load.check()
    }

    /// Ends them; gives the number of answers, all of which were right.
    pub fn finish(self) -> Result<u64> {
        self.load.finish()
    }
}

fn client(port: u16, number: usize, shared: Arc<Shared>) -> Result<Client> {
    let mut wire = Wire::connect(port)?;
    let mut asked: u64 = 0;
    Ok(Box::new(move || {
        std::thread::sleep(PAUSE);
        asked += 1;
        let question = asked * CLIENTS as u64 + number as u64 + 1;
        let before = shared.allowed.load(Ordering::SeqCst);
        let part = shared.part.load(Ordering::SeqCst);
        let start = Instant::now();
        wire.send(format!("{question}\n").as_bytes())?;
        let line = wire.text_line()?;
        let part = &shared.latency[usize::try_from(part)? % PARTS];
        part.add(start.elapsed());
        let allowed = before | shared.allowed.load(Ordering::SeqCst);
        let (answered, lines) = line.split_once(' ').unwrap_or_default();
        ensure!(lines == asked.to_string(), "answer {asked} says {line:?}");
        let version = (0..VERSIONS).find(|v| answer(*v, question).to_string() == answered);
        ensure!(
            version.is_some_and(|version| allowed >> version & 1 == 1),
            "{question} was answered {line:?} (by version {version:?}, and {allowed:#b} may answer)"
        );
        if let Some(answers) = shared.answers.get(number) {
            answers.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }))
}
