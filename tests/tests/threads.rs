//! 64 threads that hold locks over blocking calls inside functions that never return, updated back and
//! forth in one process: nothing is lost, nobody is stuck, no OLD loop goes on.
//!
//! `DSU_THREAD_UPDATES=1000` asks for a thousand updates instead of [`UPDATES`]: each update looks at the
//! records of all before it, so that a thousand take many minutes in a build for debugging.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Pair, Talker};

/// Kinds of loops, as `threads.c` counts them.
const KINDS: [&str; 10] = [
    "mutex",
    "condition variable",
    "spin lock",
    "reader",
    "writer",
    "barrier",
    "pool",
    "pipe",
    "spawner",
    "short thread",
];
/// Every loop must have gone around this soon after an update.
const GOES_AROUND: Duration = Duration::from_secs(10);
/// Updates between two looks at every loop; each of them changes the version.
const BETWEEN_LOOKS: usize = 25;

/// What the program answers.
struct Answer {
    right: bool,
    /// By version, by kind.
    rounds: [Vec<u64>; 2],
}

fn ask(program: &mut Talker) -> Answer {
    let line = program.ask("?");
    let mut words = line.split(' ');
    let right = words.next() == Some("right");
    let numbers: Vec<u64> = words.map(|w| w.parse().unwrap()).collect();
    assert_eq!(numbers.len(), 2 * KINDS.len(), "{line}");
    let (old, new) = numbers.split_at(KINDS.len());
    Answer { right, rounds: [old.to_vec(), new.to_vec()] }
}

/// All loops run in `version` (0 is OLD), and none in the other one any more.
fn all_loops_run_in(version: usize, program: &mut Talker) {
    let before = ask(program);
    assert!(before.right, "the sums are wrong");
    let start = Instant::now();
    loop {
        let now = ask(program);
        assert!(now.right, "the sums are wrong");
        assert_eq!(now.rounds[1 - version], before.rounds[1 - version], "OLD code has run");
        let stuck: Vec<&str> = (0..KINDS.len())
            .filter(|kind| now.rounds[version][*kind] == before.rounds[version][*kind])
            .map(|kind| KINDS[kind])
            .collect();
        if stuck.is_empty() {
            return;
        }
        assert!(start.elapsed() < GOES_AROUND, "do not go around: {stuck:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Updates of one process.
const UPDATES: usize = 200;

#[test]
fn sixty_four_threads_there_and_back() {
    let updates = std::env::var("DSU_THREAD_UPDATES").ok().map_or(UPDATES, |n| n.parse().unwrap());
    let pair = Pair::of("threads/threads.c", "gcc", &["-O2", "-pthread"]);
    let mut program = pair.start();
    all_loops_run_in(0, &mut program);
    let start = Instant::now();
    let mut pauses = Vec::new();
    let (mut frames, mut attempts) = (0, 0);
    for number in 0..updates {
        let outcome = pair.update(number, &program);
        assert!(
            outcome.result.is_ok(),
            "update {}: {}\nafter it: {}",
            number + 1,
            outcome.text(true),
            program.ask("?")
        );
        pauses.push(outcome.pause);
        if number % 100 == 99 {
            println!("{}: {:?} so far", number + 1, start.elapsed());
        }
        frames += outcome.frames();
        attempts += outcome.attempts;
        if number % BETWEEN_LOOKS == BETWEEN_LOOKS - 1 || number < 4 || number + 1 == updates {
            all_loops_run_in((number + 1) % 2, &mut program);
        }
    }
    pauses.sort_unstable();
    println!(
        "{updates} updates in {:?}: pause {:?}/{:?}/{:?} (min/median/max), {attempts} attempts, \
         {frames} frames carried over",
        start.elapsed(),
        pauses[0],
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
    assert!(frames > updates, "frames were pending");
    let last = program.finish();
    assert!(last.starts_with("right"), "{last}");
}
