//! Durations, counted in steps of about 5 %, so that counting is one addition.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Steps for each power of two.
const FINE: u32 = 16;
/// Powers of two of microseconds: up to an hour.
const POWERS: u32 = 32;

/// Counts by duration.
#[derive(Debug)]
pub struct Latency(Vec<AtomicU64>);

/// What is told of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// How many.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        Self((0..FINE * POWERS).map(|_| AtomicU64::new(0)).collect())
    }
}

fn step(micros: u64) -> usize {
    let micros = micros.max(1);
    let power = micros.ilog2();
    // The bits behind the highest one.
    let fine = ((u128::from(micros) * u128::from(FINE)) >> power) - u128::from(FINE);
    let step = power * FINE + u32::try_from(fine).unwrap_or(FINE - 1);
    usize::try_from(step.min(FINE * POWERS - 1)).unwrap_or(0)
}

/// The longest duration that is counted in a step.
fn longest(step: usize) -> Duration {
    let step = u64::try_from(step).unwrap_or(0) + 1;
    let (power, fine) = (step / u64::from(FINE), step % u64::from(FINE));
    Duration::from_micros(((u64::from(FINE) + fine) << power) / u64::from(FINE))
}

impl Latency {
    /// Counts one.
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.0.get(step(micros)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Starts over.
    pub fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// What was counted so far.
    pub fn percentiles(&self) -> Percentiles {
        let counts: Vec<u64> = self.0.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let at = |percent: u64| {
            let wanted = (count * percent).div_ceil(100);
            let mut seen = 0;
            let found = counts.iter().position(|n| {
                seen += n;
                seen >= wanted && seen > 0
            });
            found.map_or(Duration::ZERO, longest)
        };
        Percentiles { count, p50: at(50), p99: at(99), max: at(100) }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = |d: Duration| d.as_micros();
        let (p50, p99, max) = (micros(self.p50), micros(self.p99), micros(self.max));
        write!(f, "p50 {p50} us, p99 {p99} us, longest {max} us ({} requests)", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_a_step_of_the_truth() {
        let latency = Latency::default();
        assert_eq!(latency.percentiles().count, 0);
        for micros in 1..=10_000 {
            latency.add(Duration::from_micros(micros));
        }
        latency.add(Duration::from_secs(3));
        let found = latency.percentiles();
        let near = |d: Duration, micros: f64| {
            let ratio = d.as_secs_f64() * 1e6 / micros;
            assert!((1.0..1.08).contains(&ratio), "{d:?} for {micros}");
        };
        assert_eq!(found.count, 10_001);
        near(found.p50, 5000.0);
        near(found.p99, 9900.0);
        near(found.max, 3e6);
    }
}
