//! Clients of the tour's server: one that shows what it asks, and a load that checks every answer.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No answer takes longer, unless the server is dead.
const LIMIT: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The server does not accept.
    pub fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// One line there, one line back.
    ///
    /// # Errors
    /// No answer, or a closed connection.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        self.stream.get_mut().write_all(format!("{question}\n").as_bytes())?;
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the server closed the connection");
        Ok(line.trim_end().to_owned())
    }
}

/// What the load saw.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests with a right answer.
    pub answered: u64,
    /// Connections that failed, after which they stop.
    pub failed: u64,
    /// What the first of them met with.
    pub first_failure: String,
    /// The longest time from a request to its answer.
    pub slowest: Duration,
}

/// Connections on threads that add to their carts without pause and check each sum.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<(Duration, Result<()>)>>,
}

impl Load {
    /// Opens the connections and lets them run.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn start(port: u16, connections: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let mut load = Self { stop, answered, threads: Vec::new() };
        for number in 0..connections {
            let connection = Connection::open(port)?;
            let (stop, answered) = (Arc::clone(&load.stop), Arc::clone(&load.answered));
            let shopper = move || shop(connection, number as u64, &stop, &answered);
            load.threads.push(std::thread::spawn(shopper));
        }
        Ok(load)
    }

    /// Right answers so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Returns when there are so many.
    ///
    /// # Errors
    /// That takes too long, or a connection failed.
    pub fn wait_for(&self, answers: u64) -> Result<()> {
        let start = Instant::now();
        while self.answered() < answers {
            if self.threads.iter().any(JoinHandle::is_finished) {
                return Ok(()); // Told by `stop`.
            }
            if start.elapsed() > LIMIT {
                bail!("only {} answers within {LIMIT:?}", self.answered());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends all connections and sums up.
    ///
    /// # Errors
    /// A thread of ours panicked.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for thread in std::mem::take(&mut self.threads) {
            let (slowest, ended) =
                thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
            report.slowest = report.slowest.max(slowest);
            if let Err(error) = ended {
                report.failed += 1;
                report.first_failure = format!("{error:#}");
            }
        }
        report.answered = self.answered();
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One connection's shopping; gives its slowest answer.
fn shop(
    mut connection: Connection,
    number: u64,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> (Duration, Result<()>) {
    let mut slowest = Duration::ZERO;
    let mut cents = 0;
    let mut items = 0;
    while !stop.load(Ordering::Relaxed) {
        let price = (items * 7 + number) % 1000;
        let start = Instant::now();
        let answer = connection.ask(&format!("add {price}"));
        slowest = slowest.max(start.elapsed());
        (cents, items) = (cents + price, items + 1);
        let checked = answer.context("no answer").and_then(|a| check(&a, items, cents));
        if checked.is_err() {
            return (slowest, checked);
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    (slowest, Ok(()))
}

/// Version 1 writes 5 cents as `.5`, version 2 as `.05`: as numbers they are the same.
fn check(answer: &str, items: u64, cents: u64) -> Result<()> {
    let parse = |text: &str| text.parse::<u64>().ok();
    let found = answer.split_once(" items, ").and_then(|(n, sum)| {
        let (whole, part) = sum.split_once('.')?;
        Some((parse(n)?, parse(whole)? * 100 + parse(part)?))
    });
    ensure!(
        found == Some((items, cents)),
        "it answered {answer:?} where {items} items of {cents} cents are right"
    );
    Ok(())
}
