//! Work on all processors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Makes something of each of `items`, on all processors; the results in the order of the items.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    on_each_processor(|| {
        loop {
            let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
            let Some(item) = items.get(index) else { break };
            let result = work(item);
            locked(&results).push((index, result));
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Runs `work` on a thread for each processor. A tracer and the process that it steps through share one: to
/// wake somebody on another one takes several times as long.
pub fn on_each_processor(work: impl Fn() + Sync) {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for processor in 0..count {
            let work = &work;
            scope.spawn(move || {
                let mut set = CpuSet::new();
                // Where it is not to be had, all is slower, and nothing else.
                let _ = set.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
                work();
            });
        }
    });
}

/// The content, also after a panic on another thread.
pub fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// So long from now.
#[must_use]
pub fn seconds(count: u64) -> Instant {
    Instant::now() + Duration::from_secs(count)
}
