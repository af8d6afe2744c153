//! `--wait-healthy CMD`: whether a process does its work after the update.
//!
//! Takes a command and a time; runs it by the shell, with the process's id in `DSU_PID`, until it succeeds
//! or the time is over. Gives what it said last.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a command that runs is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until the command succeeds.
///
/// # Errors
/// It did not within that time; the error says how it ended.
pub fn wait(command: &str, pid: i32, within: Duration) -> Result<(), String> {
    let until = Instant::now() + within;
    loop {
        let why = match run(command, pid, until) {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        if Instant::now() + PAUSE >= until {
            return Err(why);
        }
        std::thread::sleep(PAUSE);
    }
}

fn run(command: &str, pid: i32, until: Instant) -> Result<(), String> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("DSU_PID", pid.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("{command}: {e}"))?;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{command}: {status}")),
            Ok(None) if Instant::now() >= until => {
                // It may have ended just now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{command}: it took too long"));
            }
            Ok(None) => std::thread::sleep(LOOK),
            Err(e) => return Err(format!("{command}: {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes() {
        let short = Duration::from_millis(300);
        assert_eq!(wait("test $DSU_PID = 12", 12, short), Ok(()));
        assert!(wait("exit 3", 1, short).unwrap_err().contains("exit status: 3"));
        assert!(wait("sleep 30", 1, short).unwrap_err().contains("too long"));
        let file = tempfile::NamedTempFile::new().unwrap();
        // Fails once, then succeeds.
        let text = format!("test -s {0} || {{ echo x > {0}; exit 1; }}", file.path().display());
        assert_eq!(wait(&text, 1, Duration::from_secs(20)), Ok(()));
    }
}
