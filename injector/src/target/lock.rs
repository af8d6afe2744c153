//! One tool at a time works on a process: what it has begun there, another one would take for left behind.
//!
//! Takes a pid; gives the lock, which ends with the value or with the tool, however that ends: it is the
//! name of a socket, of which the kernel has one only.

use crate::error::ApplyError;
use crate::target::process;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

/// A child that this program forks elsewhere holds the name, too, until it executes its own program: one
/// that is held for longer is another tool's.
const PATIENCE: Duration = Duration::from_millis(100);

/// A process on which nobody else works.
#[derive(Debug)]
pub struct Lock {
    _name: UnixListener,
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// Another tool has it.
    pub fn of(pid: i32) -> Result<Self, ApplyError> {
        // A pid is used again: with the time when it began it is this process's alone.
        let name = format!("dsu-apply/{pid}/{}", process::began(pid));
        let failed = |e| ApplyError::Internal(format!("lock process {pid}: {e}"));
        let address = SocketAddr::from_abstract_name(name).map_err(failed)?;
        let taken = |e: &std::io::Error| e.kind() == std::io::ErrorKind::AddrInUse;
        let start = Instant::now();
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(name) => return Ok(Self { _name: name }),
                Err(e) if taken(&e) && start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(e) if taken(&e) => {
                    return Err(ApplyError::NotPermitted(format!(
                        "another dsu-apply is at work on process {pid}: wait for it to end"
                    )));
                }
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let lock = Lock::of(pid).unwrap();
        assert!(matches!(Lock::of(pid), Err(ApplyError::NotPermitted(_))));
        drop(lock);
        assert!(Lock::of(pid).is_ok());
    }
}
