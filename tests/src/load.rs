//! A load: client threads that check each reply, and stop at the first error.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// A hundred or so operations must come through in this time, or the server is as good as dead.
const PROGRESS_LIMIT: Duration = Duration::from_secs(20);

/// How nice is what yields (setpriority(2)): a tenth of what others get of a processor that both want.
const NICE: i32 = 10;

/// How long each client rests behind each operation while the load is light.
const REST: Duration = Duration::from_millis(5);

/// One client's endless work: each call is one operation whose reply was checked.
pub type Client = Box<dyn FnMut() -> Result<()> + Send>;

/// Running client threads.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    light: AtomicBool,
    operations: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Starts one thread for each client.
    pub fn start(clients: Vec<Client>) -> Load {
        Self::spawn(clients, work)
    }

    /// The same of clients that leave the processors to what is built beside them, where something is.
    pub fn yielding(clients: Vec<Client>) -> Load {
        Self::spawn(clients, |number, client, shared| {
            yield_to_others();
            work(number, client, shared);
        })
    }

    fn spawn(clients: Vec<Client>, work: fn(usize, Client, &Shared)) -> Load {
        let shared = Arc::new(Shared::default());
        let threads = clients
            .into_iter()
            .enumerate()
            .map(|(number, client)| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || work(number, client, &shared))
            })
            .collect();
        Load { shared, threads }
    }

    /// Whether clients rest between operations: while nothing is done to the process, its load need not
    /// keep the processors from what is built meanwhile.
    pub fn lighten(&self, light: bool) {
        self.shared.light.store(light, Ordering::Relaxed);
    }

    /// Operations done so far.
    pub fn operations(&self) -> u64 {
        self.shared.operations.load(Ordering::Relaxed)
    }

    /// An error when any client has failed.
    pub fn check(&self) -> Result<()> {
        let failures = self.shared.failures.lock().unwrap_or_else(|e| e.into_inner()).clone();
        ensure!(failures.is_empty(), "load: {}", failures.join("; "));
        Ok(())
    }

    /// Waits until `count` more operations are done, with no failure.
    pub fn progress(&self, count: u64) -> Result<()> {
        let (target, start) = (self.operations() + count, Instant::now());
        while self.operations() < target {
            self.check()?;
            if start.elapsed() > PROGRESS_LIMIT {
                bail!("load: fewer than {count} operations in {PROGRESS_LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.check()
    }

    /// Ends the load; gives the number of operations.
    pub fn finish(mut self) -> Result<u64> {
        self.join();
        self.check()?;
        Ok(self.operations())
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

/// This thread, and the processes that it starts from now on, leave the processors to others that want them.
pub fn yield_to_others() {
    // On Linux that is the thread's own. Where it may not be, the suite takes longer.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

fn work(number: usize, mut client: Client, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        if let Err(error) = client() {
            let text = format!("client {number}: {error:#}");
            shared.failures.lock().unwrap_or_else(|e| e.into_inner()).push(text);
            return;
        }
        shared.operations.fetch_add(1, Ordering::Relaxed);
        if shared.light.load(Ordering::Relaxed) {
            std::thread::sleep(REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_client_is_seen() {
        let mut left = 3;
        let client: Client = Box::new(move || {
            left -= 1;
            ensure!(left > 0, "wrong reply");
            Ok(())
        });
        let load = Load::start(vec![client]);
        let error = load.progress(100).unwrap_err().to_string();
        assert!(error.contains("client 0: wrong reply"), "{error}");
        assert!(load.finish().is_err());
    }
}
