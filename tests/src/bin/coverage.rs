//! Call sites of changed functions that a patch can carry over, over ladders of real programs.
//!
//! See [`dsu_tests::coverage`].

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use dsu_samples::tools::Tools;
use dsu_tests::corpus::{Recipe, ladder::Builder, needs, programs};
use dsu_tests::coverage::builds::Series;
use dsu_tests::coverage::{Count, HEADING, measure, reasons::Reasons};
use dsu_tests::workspace;

/// Site coverage of dsu-build over real programs.
#[derive(Debug, Parser)]
struct Arguments {
    /// These programs.
    #[arg(long, value_delimiter = ',', value_name = "KEY", default_value = "redis7,nginx122")]
    only: Vec<String>,
    /// Where OLD and NEW come from.
    #[arg(
        long,
        value_delimiter = ',',
        value_enum,
        default_value = "gcc,clang,unscheduled,nosched,o1"
    )]
    series: Vec<Series>,
    /// Only steps in whose label this occurs.
    #[arg(long, value_name = "TEXT")]
    step: Option<String>,
    /// Further options for dsu-build, as in --build-option=--init-new-locals
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    build_option: Vec<String>,
    /// Fail where a total is below the goal of its series.
    #[arg(long)]
    enforce: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("coverage: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let recipes = chosen(&arguments.only)?;
    needs::install(&recipes)?;
    let tools = Tools::ready()?;
    let mut builder = Builder::new(&workspace::corpus_dir())?;
    let bundles = tempfile::TempDir::new()?;
    let flags: Vec<&str> = arguments.build_option.iter().map(String::as_str).collect();
    let mut met = true;
    for series in &arguments.series {
        let mut total = Count::default();
        let mut reasons = Reasons::default();
        println!("\n{:<46} {HEADING}", series.name());
        for recipe in &recipes {
            let pairs = series.pairs(recipe, &mut builder);
            let pairs = pairs.with_context(|| format!("{}, {}", recipe.key, series.name()))?;
            for pair in pairs {
                if arguments.step.as_ref().is_some_and(|text| !pair.label.contains(text)) {
                    continue;
                }
                let bundle = bundles.path().join("bundle");
                let measured = measure(&tools, &pair, &bundle, &flags, &mut reasons)?;
                let label: String =
                    format!("{} {}", recipe.key, pair.label).chars().take(46).collect();
                match measured.refused {
                    Some(why) => println!("{label:<46} refused: {why}"),
                    None => println!("{label:<46} {}", measured.count.line()),
                }
                total.add(measured.count);
            }
        }
        let goal = series.goal();
        println!("{:<46} {}  (goal {goal} %)", "total", total.line());
        println!("\n sites  alone  what stands against {} blind call sites", reasons.sites());
        reasons.lines().iter().for_each(|line| println!("{line}"));
        met &= total.percent() >= goal;
    }
    Ok(met || !arguments.enforce)
}

fn chosen(keys: &[String]) -> Result<Vec<Recipe>> {
    let all = programs::ALL;
    for key in keys {
        let known: Vec<&str> = all.iter().map(|r| r.key).collect();
        ensure!(known.contains(&key.as_str()), "no program {key}; there are {}", known.join(", "));
    }
    Ok(keys.iter().filter_map(|key| all.iter().find(|r| r.key == key)).copied().collect())
}
