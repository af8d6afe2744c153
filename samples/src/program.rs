//! A running sample: it printed `ready`, answers each line with one line, and ends when its input
//! does. Killed by its own id when dropped.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// No sample thinks longer about an answer.
const LIMIT: Duration = Duration::from_secs(20);

/// The process.
#[derive(Debug)]
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Program {
    /// Starts a program and waits until it says `ready`.
    ///
    /// # Errors
    /// It cannot be started, ends, or says something else.
    pub fn start(path: &Path) -> Result<Self> {
        let mut command = Command::new(path);
        // What it leaves behind (gmon.out of -pg) goes where it lies itself.
        command.current_dir(path.parent().unwrap_or(path));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {}", path.display()))?;
        let input = child.stdin.take();
        let lines = read_lines(child.stdout.take());
        let errors = read_lines(child.stderr.take());
        let mut program = Self { child, input, lines, errors };
        let first = program.line("its start")?;
        ensure!(first == "ready", "{} said {first:?} instead of ready", path.display());
        Ok(program)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it answers.
    ///
    /// # Errors
    /// It has ended, or does not answer in time.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        let input = self.input.as_mut().context("its input is closed")?;
        // A program that has ended is told apart when its answer is read.
        let _ = writeln!(input, "{question}").and_then(|()| input.flush());
        self.line(question)
    }

    fn line(&mut self, what: &str) -> Result<String> {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("no answer to {what:?} within {LIMIT:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait()?;
                let errors: Vec<String> = self.errors.iter().collect();
                bail!("the program ended ({status}) at {what:?} {}", errors.join("\n"))
            }
        }
    }

    /// Closes its input and sees it end well.
    ///
    /// # Errors
    /// A bad end, none at all, or words on its standard error.
    pub fn end(mut self) -> Result<()> {
        drop(self.input.take());
        let status = self.wait()?;
        ensure!(status.success(), "the program ended with {status}");
        let errors: Vec<String> = self.errors.iter().collect();
        ensure!(errors.is_empty(), "the program complained: {}", errors.join("\n"));
        Ok(())
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("the program has not ended within {LIMIT:?}")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // It may end between the two calls; there is nothing to be done about errors here.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read_lines<R: Read + Send + 'static>(pipe: Option<R>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let Some(pipe) = pipe else { return };
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
