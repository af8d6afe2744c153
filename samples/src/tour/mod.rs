//! The guided tour: a server with a bug is fixed while it runs, under load.
//!
//! Takes nothing but a C compiler; builds the two tools and two versions of `tour/`'s little shop,
//! and shows each step of an update with what the server answers before and after.

mod client;
mod server;

use crate::tools::{Said, Tools, say};
use anyhow::{Context, Result, bail, ensure};
use client::{Connection, Load};
use server::Server;
use std::path::Path;
use std::time::{Duration, Instant};

/// Exit code of dsu-apply: not permitted to trace the process.
const NOT_PERMITTED: i32 = 12;
/// Connections that ask without pause while the update happens.
const LOAD: usize = 8;

/// The whole tour, told on standard output.
///
/// # Errors
/// A tool that is missing or fails, or an update that did not do what the tour says.
pub fn tour() -> Result<()> {
    println!("dsu: a server with a bug is fixed while it runs. Nothing is restarted.\n");
    server::compiler_is_there()?;

    title(1, "build dsu-build and dsu-apply, and two versions of a small server");
    let tools = Tools::ready()?;
    let dir = server::scratch()?;
    let old = server::build(1, &dir)?;
    let new = server::build(2, &dir)?;
    println!("   $ {}", server::COMMAND);
    println!("   {} and {}: an ordinary build each", show(&old), show(&new));

    title(2, "start version 1 and use it");
    let mut server = Server::start(&old)?;
    println!("   pid {}, port {}", server.pid(), server.port());
    let mut shopper = Connection::open(server.port())?;
    dialogue(&mut shopper, &["add 1999", "add 106", "load"])?;
    println!("   19.99 and 1.06 are 21.05, not 21.5: that is the bug.");
    let load = Load::start(server.port(), LOAD)?;
    load.wait_for(10_000)?;
    println!("   From here on {LOAD} more connections send requests without pause.");

    title(3, "make the patch from the two builds");
    let patch = dir.join("fix.patch");
    let said = tool(&tools.build, "dsu-build", &[&show(&old), &show(&new), "-o", &show(&patch)])?;
    ensure!(said.exit == 0, "dsu-build ended with {}", said.exit);

    title(4, "put it into the running process");
    let before = load.answered();
    let pid = server.pid().to_string();
    let start = Instant::now();
    let said = tool(&tools.apply, "dsu-apply", &[&show(&patch), "--pid", &pid])?;
    let took = start.elapsed();
    if said.exit == NOT_PERMITTED {
        bail!(
            "tracing another process takes root here: run the tour with sudo, or as root in a \
               container started with --cap-add SYS_PTRACE"
        );
    }
    ensure!(said.exit == 0, "dsu-apply ended with {}", said.exit);
    println!(
        "   All of dsu-apply took {:.1} ms; the server stood still for the pause alone.",
        millis(took)
    );
    load.wait_for(before + 20_000)?;

    title(5, "go on, on the same connection");
    dialogue(&mut shopper, &["total", "load"])?;
    let report = load.stop()?;
    println!(
        "   The cart is still there, its sum is right, and `load` is a request that version 1 did not know."
    );
    println!(
        "   The other {LOAD} connections: {} requests, {} failed, every sum right, slowest answer {:.1} ms.",
        report.answered,
        report.failed,
        millis(report.slowest)
    );
    ensure!(report.failed == 0, "{}", report.first_failure);
    ensure!(server.is_running()?, "the server has ended");
    println!("   Still pid {pid}, started {:.1} s ago.", server.age().as_secs_f64());

    title(6, "stop it");
    server.stop()?;
    println!("   Done. Both builds and the patch are in {}.", show(&dir));
    println!("   Try it on a program of your own: README.md, \"Your own program\".");
    Ok(())
}

fn title(number: u32, text: &str) {
    println!("\n{number}. {text}");
}

fn show(path: &Path) -> String {
    // Relative to where the reader stands, when it can be.
    let here = std::env::current_dir().ok();
    let short = here.and_then(|h| path.strip_prefix(h).ok().map(Path::to_path_buf));
    short.unwrap_or_else(|| path.to_path_buf()).display().to_string()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Asks, and shows question and answer.
fn dialogue(connection: &mut Connection, questions: &[&str]) -> Result<()> {
    for question in questions {
        let answer = connection.ask(question).with_context(|| format!("ask {question}"))?;
        println!("   > {question:<9}  < {answer}");
    }
    Ok(())
}

/// Runs one of the two programs and shows command line and output.
fn tool(path: &Path, name: &str, arguments: &[&str]) -> Result<Said> {
    println!("   $ {name} {}", arguments.join(" "));
    let said = say(path, arguments)?;
    for line in said.stdout.lines().chain(said.stderr.lines()) {
        println!("   | {line}");
    }
    Ok(said)
}
