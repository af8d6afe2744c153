//! The guided tour: see [`dsu_samples::tour`].

use std::process::ExitCode;

fn main() -> ExitCode {
    match dsu_samples::tour::tour() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ntour: {error:#}");
            ExitCode::FAILURE
        }
    }
}
