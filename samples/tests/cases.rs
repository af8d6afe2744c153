//! Every case under `samples/cases`, once for each of its build lines.
//!
//! `cargo test -p dsu-samples --test cases NAME` runs the cases whose name contains NAME.

use dsu_samples::tools::Tools;
use dsu_samples::{case, needs, run};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use std::sync::OnceLock;

fn main() {
    let arguments = Arguments::from_args();
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    let cases = match case::all(dir) {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("{error:#}");
            std::process::exit(1);
        }
    };
    let trials = cases.into_iter().flat_map(|case| {
        let builds = case.builds();
        builds.into_iter().map(move |build| {
            let case = case.clone();
            Trial::test(format!("{} [{build}]", case.name), move || trial(&case, &build))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn trial(case: &case::Case, build: &str) -> Result<(), Failed> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        needs::install().and_then(|()| Tools::ready()).map_err(|e| format!("{e:#}"))
    });
    let tools = tools.as_ref().map_err(|e| Failed::from(e.as_str()))?;
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("samples");
    run::run(case, build, tools, &scratch).map_err(|e| Failed::from(format!("{e:#}")))
}
