//! One running process up a ladder.
//!
//! For each step: dsu-build from two neighbouring builds alone, dsu-apply to the process that took all steps
//! before, then the load's progress, the program's state and oracles, and the entries of the replaced functions.
//! A step that is refused, as it has to be, ends the process; a new one goes on from the build after it.
//! A step with nothing to do leaves the process at the build before: the next bundle is made from that one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::corpus::{Ladder, Step};
use crate::entries;
use crate::load::Load;
use crate::report::{Report, Verdict};
use crate::scenario::{Expect, Fill, Program, Server, Updates, Version};
use crate::tool::{self, Said};
use dsu_samples::tools::Tools;

/// dsu-build's exit codes.
const WRITTEN: i32 = 0;
const REFUSED: i32 = 4;
const NOTHING: i32 = 5;
/// dsu-apply's exit codes.
const UPDATED: i32 = 0;
const BLOCKED: i32 = 17;

/// Operations of the load that must come through between an update and the checks.
const OPERATIONS_AFTER: u64 = 200;

/// A bundle that was applied, for the repetitions.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The build that it takes a process from.
    pub old: Step,
    /// The build that it takes a process to.
    pub new: Step,
    /// The file.
    pub bundle: PathBuf,
}

/// A process on the ladder.
struct Climber {
    // Dropped before the server, or its clients would wait for answers that never come.
    load: Load,
    server: Box<dyn Server>,
    /// The build that the process was started from.
    first: Step,
    /// The build that the process now runs.
    running: Step,
}

impl Climber {
    /// The load is light while a bundle is made, which nothing of the process goes into, and whole while it is
    /// applied and behind it.
    fn lighten(&mut self, light: bool) -> Result<()> {
        self.load.lighten(light);
        self.server.lighten(light)
    }
}

/// How a step ended that was as expected.
enum End {
    /// The process goes on, updated or with nothing to do.
    Goes { text: String, pause_us: Option<u64>, applied: Option<Applied> },
    /// The process cannot take this step: a new one is needed.
    Stays { text: String },
}

impl End {
    /// This file's end, then the next file's.
    fn and(self, next: End) -> End {
        match (self, next) {
            (
                End::Goes { text, pause_us, applied },
                End::Goes { text: more, pause_us: other, applied: last },
            ) => {
                let text = if text.is_empty() { more } else { format!("{text}; {more}") };
                End::Goes { text, pause_us: pause_us.max(other), applied: last.or(applied) }
            }
            (_, stays) => stays,
        }
    }
}

/// Takes `program` up its ladder. Gives the bundles that were applied.
pub fn climb(
    program: &dyn Program,
    ladder: &Ladder,
    tools: &Tools,
    bundles: &Path,
    report: &mut Report,
) -> Vec<Applied> {
    let key = program.recipe().key;
    let mut applied = Vec::new();
    let mut climber = start(program, ladder, &ladder.steps[0], report);
    for step in &ladder.steps[1..] {
        let Some(current) = climber.as_mut() else {
            report.failure(key, &step.label(), &anyhow::anyhow!("no process to update"));
            climber = start(program, ladder, step, report);
            continue;
        };
        match take(program, ladder, current, step, tools, bundles) {
            Ok(End::Goes { text, pause_us, applied: bundle }) => {
                report.add(key, &step.label(), Verdict::Passed, &text, pause_us);
                applied.extend(bundle);
            }
            Ok(End::Stays { text }) => {
                let text = format!("{text}; a new process goes on from this build");
                report.add(key, &step.label(), Verdict::Passed, &text, None);
                drop(climber.take());
                climber = start(program, ladder, step, report);
            }
            Err(error) => {
                report.failure(key, &step.label(), &error);
                drop(climber.take());
                climber = start(program, ladder, step, report);
            }
        }
    }
    if let Some(climber) = climber {
        finish(program, ladder, climber, report);
    }
    let updates = Updates { tools, applied: &applied };
    for (name, result) in program.apart(ladder, Some(&updates)) {
        report.outcome(key, &name, result);
    }
    applied
}

/// Starts every build in a process of its own and asks what it must answer: are the oracles themselves right?
pub fn oracles_alone(program: &dyn Program, ladder: &Ladder, report: &mut Report) {
    let key = program.recipe().key;
    for step in &ladder.steps {
        let result = program.start(ladder, step, Fill::Small).and_then(|mut server| {
            let load = Load::start(server.clients()?);
            load.progress(OPERATIONS_AFTER)?;
            server.alive()?;
            let asked = server.check(Version { ladder, number: step.number })?;
            Ok(format!("{asked}; {} operations", load.finish()?))
        });
        report.outcome(key, &format!("{} by itself", step.label()), result);
    }
    for (name, result) in program.apart(ladder, None) {
        report.outcome(key, &name, result);
    }
}

/// Starts a process of `step`, with its load, and asks what it must answer.
fn start(
    program: &dyn Program,
    ladder: &Ladder,
    step: &Step,
    report: &mut Report,
) -> Option<Climber> {
    let started = || -> Result<Climber> {
        let mut server = program.start(ladder, step, Fill::Full)?;
        server.check(Version { ladder, number: step.number }).context("before any update")?;
        let load = Load::yielding(server.clients()?);
        load.progress(OPERATIONS_AFTER)?;
        Ok(Climber { server, load, first: step.clone(), running: step.clone() })
    };
    match started() {
        Ok(climber) => Some(climber),
        Err(error) => {
            let case = format!("start of {}", step.label());
            report.failure(program.recipe().key, &case, &error);
            None
        }
    }
}

/// Ends the load, and runs the package's own tests against the updated server.
fn finish(program: &dyn Program, ladder: &Ladder, climber: Climber, report: &mut Report) {
    let Climber { mut server, load, .. } = climber;
    let key = program.recipe().key;
    let operations = load.finish().map(|n| format!("{n} operations, every reply as expected"));
    report.outcome(key, "load over the whole climb", operations);
    server.quiet();
    for (name, result) in program.own_tests(ladder, server.as_mut()) {
        report.outcome(key, &name, result);
    }
    report.outcome(key, "alive at the end", server.alive().map(|()| String::new()));
}

/// One step.
fn take(
    program: &dyn Program,
    ladder: &Ladder,
    climber: &mut Climber,
    step: &Step,
    tools: &Tools,
    bundles: &Path,
) -> Result<End> {
    let key = program.recipe().key;
    let firsts = program.images(&climber.first);
    let olds = program.images(&climber.running);
    let mut total = End::Goes { text: String::new(), pause_us: None, applied: None };
    for (index, new) in program.images(step).into_iter().enumerate() {
        let bundle = bundles.join(format!("{key}-{:02}-{index}.dsu", step.number));
        let image =
            Image { index, first: &firsts[index], old: &olds[index], new: &new, bundle: &bundle };
        climber.lighten(true)?;
        let end = one_image(program, climber, step, tools, &image)?;
        total = total.and(end);
        if matches!(total, End::Stays { .. }) {
            break;
        }
    }
    climber.lighten(false)?;
    climber.load.progress(OPERATIONS_AFTER)?;
    climber.server.alive()?;
    let number = match &mut total {
        End::Goes { applied: Some(applied), .. } => {
            applied.old = climber.running.clone();
            climber.running = step.clone();
            step.number
        }
        End::Goes { .. } => step.number,
        // The process runs what it ran before, and must serve as before.
        End::Stays { .. } => step.number - 1,
    };
    let asked = climber.server.check(Version { ladder, number })?;
    climber.load.check()?;
    Ok(match total {
        End::Goes { text, pause_us, applied } => {
            End::Goes { text: format!("{text}; {asked}"), pause_us, applied }
        }
        stays => stays,
    })
}

/// One file that is updated: as the process was started from it, as it runs, as it is to be.
struct Image<'a> {
    index: usize,
    first: &'a Path,
    old: &'a Path,
    new: &'a Path,
    bundle: &'a Path,
}

/// The bundle of one file, built and applied.
fn one_image(
    program: &dyn Program,
    climber: &mut Climber,
    step: &Step,
    tools: &Tools,
    image: &Image<'_>,
) -> Result<End> {
    let accepted = program.accepted(&step.patch, image.index);
    if !accepted.is_empty() {
        let said = tool::build(tools, image.old, image.new, image.bundle, &[])?;
        refused_naming(&said, accepted, true).context("without its --accept-layout flags")?;
    }
    let flags: Vec<&str> = accepted.iter().flat_map(|layout| ["--accept-layout", layout]).collect();
    let built = tool::build(tools, image.old, image.new, image.bundle, &flags)?;
    let kept = built.line_only();
    let lines =
        if kept > 0 { format!(" ({kept} differ by line number alone)") } else { String::new() };
    let end = match built.exit {
        WRITTEN => apply(climber, &built, step, tools, image)?,
        NOTHING => End::Goes { text: "nothing to do".into(), pause_us: None, applied: None },
        REFUSED => End::Stays { text: format!("dsu-build refuses: {}", reasons(&built)) },
        _ => bail!("{}: {}", built.command, built.summary()),
    };
    agrees(program.expect(&step.patch), &built, &end)?;
    let least = program.line_only(&step.patch);
    ensure!(
        kept >= least,
        "only {kept} functions kept that differ by line number alone, not {least}"
    );
    Ok(match end {
        End::Goes { text, pause_us, applied } => {
            End::Goes { text: text + &lines, pause_us, applied }
        }
        stays => stays,
    })
}

/// Applies the bundle to every process with one command; a refusal at the deadline leaves all as they
/// were.
fn apply(
    climber: &mut Climber,
    built: &Said,
    step: &Step,
    tools: &Tools,
    image: &Image<'_>,
) -> Result<End> {
    climber.lighten(false)?;
    let targets = climber.server.targets();
    let said = tool::apply(tools, image.bundle, &targets, &[])?;
    match said.exit {
        UPDATED => {}
        BLOCKED => {
            let text = format!("dsu-apply: on a stack: {}", said.blockers().join(", "));
            return Ok(End::Stays { text });
        }
        _ => bail!("{}: {}", said.command, said.summary()),
    }
    let (pause, took) = (said.pause_us().unwrap_or(0), said.took.as_millis());
    let (mut checked, mut skipped) = (0, 0);
    for pid in &targets {
        let counts = entries::check(*pid, image.first, image.old, &built.changed())?;
        checked += counts.checked;
        skipped += counts.skipped;
    }
    let count = built.changed().len();
    let mut text = format!("applied to {} process(es), {count} functions", targets.len());
    text += &format!(", {checked} entries lead to NEW");
    if skipped > 0 {
        text += &format!(" ({skipped} not checked: no unique name in the first build)");
    }
    text += &format!(", {} ms to build, {took} ms to apply", built.took.as_millis());
    let (old, new) = (climber.running.clone(), step.clone());
    let applied = Applied { old, new, bundle: image.bundle.to_path_buf() };
    Ok(End::Goes { text, pause_us: Some(pause), applied: Some(applied) })
}

/// Compares what happened with what had to.
fn agrees(expect: Expect, built: &Said, end: &End) -> Result<()> {
    let happened = match (built.exit, end) {
        (NOTHING, _) => "nothing to do".to_owned(),
        (REFUSED, _) => format!("dsu-build refused: {}", reasons(built)),
        (_, End::Goes { .. }) => "applied".to_owned(),
        (_, End::Stays { text }) => text.clone(),
    };
    let right = match expect {
        Expect::Unknown => true,
        Expect::Applied => happened == "applied",
        Expect::Nothing => built.exit == NOTHING,
        Expect::Refused(words) => return refused_naming(built, words, false),
        Expect::Blocked(functions) => {
            happened.starts_with("dsu-apply") && functions.iter().any(|f| happened.contains(f))
        }
    };
    ensure!(right, "expected {expect:?}, but: {happened} ({})", built.command);
    Ok(())
}

/// Asks that dsu-build refused, with a refusal about one of `subjects`, or about all of them.
fn refused_naming(built: &Said, subjects: &[&str], all: bool) -> Result<()> {
    let about: Vec<String> = built.refusals().into_iter().map(|r| r.subject).collect();
    let mut found = subjects.iter().map(|s| about.iter().any(|a| a == s));
    let named = if all { found.all(|f| f) } else { found.any(|f| f) };
    ensure!(
        built.exit == REFUSED && named,
        "expected a refusal about {subjects:?}, but exit {}, about {about:?} ({})",
        built.exit,
        built.command
    );
    Ok(())
}

/// The refusals in one line.
fn reasons(built: &Said) -> String {
    let list: Vec<String> =
        built.refusals().iter().map(|r| format!("{} ({})", r.subject, r.text)).collect();
    list.join("; ")
}
