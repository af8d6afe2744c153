//! How many call sites of changed functions `dsu-build` can carry over.
//!
//! ```text
//! builds     pairs of builds: ladders by gcc and clang, one source with other code generation
//! (here)     dsu-build over one pair, its answer counted
//! reasons    what stands against blind call sites, as a histogram
//! ```
//!
//! A call site counts as carried over when the checker has accepted it and it is planted. Sites that only a
//! local of NEW's stands against are counted apart (a value that OLD never had cannot be carried over).

pub mod builds;
pub mod reasons;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::tool;
use builds::Pair;
use dsu_samples::tools::Tools;
use reasons::Reasons;

/// Builds that differ in every function take their time.
const LIMIT: Duration = Duration::from_secs(1800);
/// dsu-build's exit codes: written, refused, nothing to do.
const ANSWERS: [i32; 3] = [0, 4, 5];

/// Call sites of one pair, or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Replaced functions.
    pub functions: u64,
    /// Carried over where they are.
    pub proven: u64,
    /// Carried over a little later, from the next point that OLD's code comes to.
    pub passing: u64,
    /// Blind for a local that only NEW has, and nothing else.
    pub new_local: u64,
    /// All.
    pub all: u64,
}

impl Count {
    /// Adds another pair's.
    pub fn add(&mut self, other: Self) {
        self.functions += other.functions;
        self.proven += other.proven;
        self.passing += other.passing;
        self.new_local += other.new_local;
        self.all += other.all;
    }

    /// Those carried over, in percent of those that a local of NEW's alone does not stand against.
    pub fn percent(&self) -> f64 {
        let of = self.all - self.new_local;
        // Call sites of one program: far below 2^52.
        let carried = self.proven + self.passing;
        if of == 0 { 100.0 } else { 100.0 * carried as f64 / of as f64 }
    }

    /// A line of the table.
    pub fn line(&self) -> String {
        let blind = self.all - self.proven - self.passing - self.new_local;
        format!(
            "{:>6} {:>7} {:>7} {:>7} {:>9} {:>7} {:>7.1} %",
            self.functions,
            self.all,
            self.proven,
            self.passing,
            self.new_local,
            blind,
            self.percent()
        )
    }
}

/// The heading over lines of [`Count::line`].
pub const HEADING: &str = "  func   sites  proven passing new local   blind carried";

/// What dsu-build said of a pair.
#[derive(Debug, Default)]
pub struct Measured {
    /// Counted.
    pub count: Count,
    /// Why it refused the update as a whole; nothing is counted then.
    pub refused: Option<String>,
}

/// Builds one patch, and counts its call sites.
pub fn measure(
    tools: &Tools,
    pair: &Pair,
    bundle: &Path,
    flags: &[&str],
    reasons: &mut Reasons,
) -> Result<Measured> {
    let said = tool::build_within(tools, &pair.old, &pair.new, bundle, flags, LIMIT)?;
    ensure!(ANSWERS.contains(&said.exit), "{} ({})", said.summary(), said.command);
    if let Some(refusal) = said.refusals().first() {
        let refused = Some(format!("{}: {}", refusal.subject, refusal.text));
        return Ok(Measured { refused, ..Measured::default() });
    }
    let mut count = Count::default();
    let frames = said.json["frames"].as_array().cloned().unwrap_or_default();
    for function in &frames {
        count.functions += 1;
        count.proven += function["sites"].as_u64().unwrap_or(0);
        count.passing += function["passing"].as_u64().unwrap_or(0);
        count.all += function["of"].as_u64().unwrap_or(0);
    }
    for point in said.json["blind_points"].as_array().into_iter().flatten() {
        if point["kind"] != "return" {
            continue;
        }
        if point["new_local"] == true {
            count.new_local += 1;
            continue;
        }
        let index = point["function"].as_u64().and_then(|i| usize::try_from(i).ok());
        let name = index.and_then(|i| frames.get(i)).and_then(|f| f["name"].as_str());
        let (name, why) = (name.unwrap_or("?"), point["why"].as_str().unwrap_or(""));
        reasons.add(&format!("{name}:{}", point["line"]), why);
    }
    Ok(Measured { count, refused: None })
}
