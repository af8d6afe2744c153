//! A program below `tests/live` in two versions, their bundles there and back, and a running child that
//! answers lines.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dsu_injector::{ApplyOptions, Outcome, apply};
use dsu_samples::tools::Tools;
use dsu_tests::tool;
use dsu_tests::workspace;

/// Every wait ends after this.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The two programs under test, built once.
pub fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| Tools::ready().unwrap())
}

/// Two versions of a program, and the bundles between them.
#[derive(Debug)]
pub struct Pair {
    /// The programs, OLD first.
    pub programs: [PathBuf; 2],
    bundles: [PathBuf; 2],
    dir: tempfile::TempDir,
}

impl Pair {
    /// Compiles `tests/live/SOURCE` with `-g` and these flags, NEW with `-DNEW`; makes both bundles.
    pub fn of(source: &str, compiler: &str, flags: &[&str]) -> Pair {
        let dir = tempfile::TempDir::new().unwrap();
        let versions: [&[&str]; 2] = [&[], &["-DNEW"]];
        let programs = [0, 1].map(|version| {
            let program = dir.path().join(["old", "new"][version]);
            compile(source, compiler, &[flags, versions[version]].concat(), &program);
            program
        });
        let bundles = [(0, 1), (1, 0)].map(|(from, to)| {
            let bundle = dir.path().join(format!("{from}{to}.dsu"));
            make_bundle(&programs[from], &programs[to], &bundle, &[]);
            bundle
        });
        Pair { programs, bundles, dir }
    }

    /// Starts OLD.
    pub fn start(&self) -> Talker {
        Talker::start(&self.programs[0], &[])
    }

    /// The update with this number: the even ones lead to NEW, the others back.
    pub fn update(&self, number: usize, program: &Talker) -> Outcome {
        apply(&ApplyOptions::new(&self.bundles[number % 2], program.pid()))
    }

    /// The bundle to NEW.
    pub fn bundle(&self) -> &Path {
        &self.bundles[0]
    }

    /// Where more files may be put.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Compiles one program.
pub fn compile(source: &str, compiler: &str, flags: &[&str], program: &Path) {
    let source = workspace::root().join("tests/live").join(source);
    let status = Command::new(compiler)
        .args(["-g", "-Wl,--build-id"])
        .args(flags)
        .arg(&source)
        .arg("-o")
        .arg(program)
        .status()
        .unwrap_or_else(|e| panic!("run {compiler}: {e}; install it"));
    assert!(status.success(), "{compiler} {flags:?} {}: {status}", source.display());
}

/// Makes a bundle.
pub fn make_bundle(old: &Path, new: &Path, bundle: &Path, flags: &[&str]) -> tool::Said {
    let said = tool::build(tools(), old, new, bundle, flags).unwrap();
    assert_eq!(said.exit, 0, "{}: {}", said.command, said.summary());
    said
}

/// A child that says `ready`, answers each line with one line, and ends with 0 when its input ends.
#[derive(Debug)]
pub struct Talker {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Talker {
    /// Starts a program and waits until it is ready.
    pub fn start(program: &Path, arguments: &[&str]) -> Talker {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        let talker = Talker { child, input, lines };
        assert_eq!(talker.line(), "ready");
        talker
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends a line.
    pub fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line of its output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("no answer: it has ended, or is stuck")
    }

    /// Sends a line and gives the next line of its output.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.line()
    }

    /// Waits until it waits for its next line: until then it is somewhere behind its last answer.
    pub fn waits_for_input(&self) {
        let path = format!("/proc/{}/syscall", self.pid());
        let start = Instant::now();
        // The number of `read` is 0.
        while !std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with("0 0x0 ")) {
            assert!(start.elapsed() < PATIENCE, "{path}: it does not read");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends its input; gives the last line. It has to end well.
    pub fn finish(mut self) -> String {
        drop(self.input.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(status.success(), "ended with {status}");
        self.lines.iter().last().unwrap_or_default()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
