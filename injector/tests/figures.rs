//! Figures, not checks: pause and wall time by number of threads. Run with
//! `cargo test --release -p dsu-injector --test figures -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)]

mod common;

use common::sites::{add, returns};
use common::{BundleFile, Program, build, bundle};
use std::process::Command;
use std::time::Instant;

const ROUNDS: usize = 15;

#[test]
#[ignore = "prints figures"]
fn pause_and_wall_time() {
    let [old, new] = [1, 2].map(|version| build("threads", version, &[]));
    let file = BundleFile::new(&bundle(&old, &new, &["inner", "middle", "outer"], &[]));
    println!("threads  hot   pause us   wall us  attempts  worst pause");
    for (threads, hot) in [(1, 0), (8, 0), (64, 0), (256, 0), (8, 2), (64, 4), (256, 8), (65, 64)] {
        let (mut pauses, mut walls, mut attempts, mut worst) = (vec![], vec![], vec![], 0);
        for _ in 0..ROUNDS {
            let program =
                Program::start(&old.path, &[&threads.to_string(), &hot.to_string(), "hot"]);
            let start = Instant::now();
            let done = Command::new(env!("CARGO_BIN_EXE_dsu-apply"))
                .arg(file.0.path())
                .args(["--pid", &program.pid.to_string(), "--json"])
                .output()
                .unwrap();
            walls.push(start.elapsed().as_micros());
            let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
            assert_eq!(report["exit"], 0, "{report}");
            pauses.push(report["pause_us"].as_u64().unwrap());
            attempts.push(report["attempts"].as_u64().unwrap());
            worst = worst.max(report["longest_other_pause_us"].as_u64().unwrap());
            if std::env::var_os("VERBOSE").is_some() {
                println!("{}", report["phases_us"]);
            }
        }
        pauses.sort_unstable();
        walls.sort_unstable();
        attempts.sort_unstable();
        let middle = ROUNDS / 2;
        println!(
            "{threads:>7} {hot:>4} {:>10} {:>9} {:>9}  {:>10}",
            pauses[middle], walls[middle], attempts[middle], worst
        );
    }
}

#[test]
#[ignore = "prints figures"]
fn pause_with_many_sites() {
    let [old, new] = [1, 2].map(|version| build("many", version, &[]));
    println!("functions  sites   pause us   wall us  bundle kB");
    for functions in [0, 40, 400] {
        let names = old.symbols.keys().filter(|name| name.starts_with("f_")).take(functions);
        let names: Vec<&'static str> = names.map(|n| &*n.clone().leak()).collect();
        let mut replaced = names.clone();
        if functions == 0 {
            replaced.push("step");
        }
        let mut bundle = bundle(&old, &new, &replaced, &[]);
        let sites: Vec<_> = names.iter().flat_map(|name| returns(&old, name)).collect();
        add(&mut bundle, &old, &new, &sites);
        let file = BundleFile::new(&bundle);
        let (mut pauses, mut walls, mut commits) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let program = Program::start(&old.path, &[]);
            let start = Instant::now();
            let done = Command::new(env!("CARGO_BIN_EXE_dsu-apply"))
                .arg(file.0.path())
                .args(["--pid", &program.pid.to_string(), "--json"])
                .output()
                .unwrap();
            walls.push(start.elapsed().as_micros());
            let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
            assert_eq!(report["exit"], 0, "{report}");
            assert_eq!(report["sites"], sites.len());
            pauses.push(report["pause_us"].as_u64().unwrap());
            commits.push(report["phases_us"]["commit"].as_u64().unwrap());
        }
        pauses.sort_unstable();
        walls.sort_unstable();
        commits.sort_unstable();
        let middle = ROUNDS / 2;
        println!(
            "{:>9} {:>6} {:>10} {:>9} {:>10}  (least {}, commit {})",
            replaced.len(),
            sites.len(),
            pauses[middle],
            walls[middle],
            std::fs::metadata(file.0.path()).unwrap().len() / 1024,
            pauses[0],
            commits[middle],
        );
    }
}
