//! How the calls of `tests/programs/calls.c` have ended.

use super::Program;
use std::time::Duration;

/// One call: its name, whether it succeeded, its error, and what it was late by, in microseconds.
#[derive(Debug)]
pub struct Ended {
    pub name: String,
    pub ok: bool,
    pub error: i32,
    pub late: i64,
}

impl Ended {
    pub fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [name, how, error, late] = fields[..] else { return None };
        assert_ne!(how, "none", "{name} could not be called");
        let (error, late) = (error.parse().unwrap(), late.parse().unwrap());
        Some(Self { name: name.into(), ok: how == "ok", error, late })
    }

    /// What is wrong with it, when it may be late by so much, and the process stood still for so long.
    pub fn wrong(&self, late_by: i64, stood: Duration) -> Option<String> {
        let Self { name, ok, error, late } = self;
        let right = match &**name {
            "futex" | "futex-until" | "condition" => !ok && *error == libc::ETIMEDOUT,
            "recv" | "recvmmsg" | "accept-timed" | "send" | "connect" | "semtimedop"
            | "sigtimedwait" => !ok && *error == libc::EAGAIN,
            "io-uring-timed" => !ok && *error == libc::ETIME,
            _ => *ok,
        };
        // For these the kernel counts what is left of their time from when they go on.
        let counts = matches!(&**name, "ppoll" | "select");
        let most = late_by + if counts { i64::try_from(stood.as_micros()).unwrap() } else { 0 };
        let right = right && (0..most).contains(late);
        (!right).then(|| format!("{name}: ok {ok}, error {error}, late by {late} us"))
    }
}

impl Program {
    /// Waits for the calls that end by themselves, and ends the others.
    pub fn ended_calls(&mut self) -> Vec<Ended> {
        self.tell("e");
        std::iter::from_fn(|| Ended::parse(&self.line())).collect()
    }
}
