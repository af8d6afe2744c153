//! The table at the end, and the counts.

use std::time::Duration;

/// How one case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it has to be.
    Passed,
    /// Not as it has to be.
    Failed,
    /// The source was not to be had, so nothing was shown.
    NotHad,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    program: String,
    case: String,
    verdict: Verdict,
    text: String,
    pause_us: Option<u64>,
}

/// All lines so far; printed as they come, and again as a table.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a case and prints it at once.
    pub fn add(
        &mut self,
        program: &str,
        case: &str,
        verdict: Verdict,
        text: &str,
        pause_us: Option<u64>,
    ) {
        let row = Row {
            program: program.to_owned(),
            case: case.to_owned(),
            verdict,
            text: text.to_owned(),
            pause_us,
        };
        println!("{}", line(&row, true));
        self.rows.push(row);
    }

    /// Adds a case that passed or failed.
    pub fn outcome(&mut self, program: &str, case: &str, result: anyhow::Result<String>) {
        match result {
            Ok(text) => self.add(program, case, Verdict::Passed, &text, None),
            Err(error) => self.failure(program, case, &error),
        }
    }

    /// Adds a failure, or a source that was not had.
    pub fn failure(&mut self, program: &str, case: &str, error: &anyhow::Error) {
        let not_had = error.downcast_ref::<crate::corpus::NotHad>().is_some();
        let verdict = if not_had { Verdict::NotHad } else { Verdict::Failed };
        self.add(program, case, verdict, &format!("{error:#}"), None);
    }

    /// Prints the table and the last line; gives whether all passed.
    pub fn finish(&self, took: Duration) -> bool {
        println!("\nprogram    step                                           pause us  outcome");
        for row in &self.rows {
            println!("{}", line(row, false));
        }
        let count = |v: Verdict| self.rows.iter().filter(|r| r.verdict == v).count();
        let not_had = count(Verdict::NotHad);
        if not_had > 0 {
            println!("{not_had} not had (neither passed nor failed)");
        }
        println!("took {} s", took.as_secs());
        let failed = count(Verdict::Failed);
        println!("{} passed, {failed} failed", count(Verdict::Passed));
        failed == 0
    }
}

/// A row as text; `long` keeps all lines of its outcome.
fn line(row: &Row, long: bool) -> String {
    let mark = match row.verdict {
        Verdict::Passed => "ok",
        Verdict::Failed => "FAILED",
        Verdict::NotHad => "NOT HAD",
    };
    let case: String = row.case.chars().take(46).collect();
    let pause = row.pause_us.map_or(String::new(), |us| us.to_string());
    let text = if long { row.text.clone() } else { shorten(&row.text) };
    format!("{:<10} {case:<46} {pause:>8}  {mark}: {text}", row.program)
}

fn shorten(text: &str) -> String {
    let first = text.lines().next().unwrap_or("");
    let short: String = first.chars().take(110).collect();
    if short.len() < text.len() { format!("{short} ...") } else { short }
}
