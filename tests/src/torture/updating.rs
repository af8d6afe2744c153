//! dsu-apply's library, on a process that the harness has stopped; and what is worth knowing after a
//! divergence.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use dsu_injector::{ApplyError, ApplyOptions, ExitCode, Outcome};

use super::trial::Update;

/// Nothing moves while it is tried: what matters is that it is tried twice, because tables for exact
/// answers are read after the first try.
const TIMEOUT: Duration = Duration::from_millis(3);

thread_local! {
    /// What this thread is doing, for the message of a panic.
    static DOING: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Puts a bundle into the process. `run_on` lets its threads go to where they can be updated; else they
/// are judged where they stand.
pub fn apply(bundle: &Path, pid: i32, run_on: bool) -> Update {
    update(&dsu_injector::apply(&options(bundle, pid, run_on)))
}

fn update(outcome: &Outcome) -> Update {
    match outcome.result.as_ref().map_err(|error| error.cause()) {
        Ok(()) => Update::Done,
        Err(ApplyError::Blocked { blockers, .. }) => {
            let at: BTreeSet<String> = blockers.iter().map(place).collect();
            Update::Refused(at.into_iter().collect())
        }
        Err(error) if error.exit() == ExitCode::Died => Update::Ended,
        Err(error) if error.exit() == ExitCode::Unsuitable => {
            Update::Refused(vec![error.to_string()])
        }
        Err(error) => Update::Failed(format!("dsu-apply: {:?}: {error}", error.exit())),
    }
}

fn options(bundle: &Path, pid: i32, run_on: bool) -> ApplyOptions {
    let mut options = ApplyOptions::new(bundle, pid);
    options.timeout = TIMEOUT;
    options.even_stopped = run_on;
    options
}

/// The same, with all that is known about it.
pub fn apply_aloud(bundle: &Path, pid: i32, run_on: bool) -> (Update, String) {
    let mut text = String::new();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    if let Some(first) = maps.lines().next() {
        text.push_str(&format!("\n  linked at 0 is {first}"));
    }
    let mut dry = options(bundle, pid, false);
    dry.dry_run = true;
    let places: BTreeSet<String> = dsu_injector::apply(&dry)
        .blockers()
        .iter()
        .map(|b| format!("{} {}", b.address, place(b)))
        .collect();
    text.push_str(&format!("\n  blind frames where it stood: {places:?}"));
    let outcome = dsu_injector::apply(&options(bundle, pid, run_on));
    let mut json = outcome.json();
    if let Some(fields) = json.as_object_mut() {
        fields.retain(|name, _| !["blockers", "phases_us"].contains(&name.as_str()));
    }
    text.push_str(&format!("\n  {json}"));
    (update(&outcome), text)
}

/// `function:line`, and what else was said. That it is stopped is this harness's doing.
fn place(blocker: &dsu_injector::Blocker) -> String {
    let mut text = blocker.function.clone();
    if blocker.line > 0 {
        text.push_str(&format!(":{}", blocker.line));
    }
    if !blocker.note.is_empty() && !blocker.note.starts_with("the process is stopped") {
        text.push_str(&format!(" ({})", blocker.note));
    }
    text
}

/// Says what this thread is doing now; a panic will repeat it.
pub fn doing(what: String) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            usual(info);
            // Release builds abort: this is the last that is heard of it.
            DOING.with_borrow(|what| eprintln!("in: {what}"));
        }));
    });
    DOING.set(what);
}
