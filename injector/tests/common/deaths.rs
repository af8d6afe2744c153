//! What tests share that kill the tool.

use std::process::Child;

/// Any unevenness will do, but the same in each run.
pub struct Noise(pub u64);

impl Noise {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// The guardian of a running `dsu-apply`, if it is there.
pub fn guardian_of(front: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{front}/task/{front}/children"));
    children.ok()?.split_whitespace().next()?.parse().ok()
}

/// The guardian of a running `dsu-apply`, once it is there; `None` when all is over before it was seen.
pub fn guardian(tool: &mut Child) -> Option<u32> {
    while tool.try_wait().unwrap().is_none() {
        if let Some(guardian) = guardian_of(tool.id()) {
            return Some(guardian);
        }
    }
    None
}

pub fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    // It may have ended by itself.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}
