//! Child processes that never outlive the test, and what `/proc` says about a process.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a server may take to accept its first connection.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// A child process and its descendants, killed by their own ids on drop.
#[derive(Debug)]
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Starts `command` without input, its output in `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Guard> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Guard { child })
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Waits for the process to end by itself, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let running = self.ended().is_none();
        if running {
            // A stopped parent starts nobody while its children are collected.
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGSTOP);
        }
        // Collect before killing: orphans are given to another parent.
        let family = descendants(self.pid());
        if running {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for pid in family {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The direct children of a process, oldest first.
pub fn children(pid: i32) -> Vec<i32> {
    let mut list = Vec::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return list };
    for task in tasks.flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        list.extend(text.split_whitespace().filter_map(|w| w.parse::<i32>().ok()));
    }
    list.sort_unstable();
    list
}

/// All descendants of a process.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut list = children(pid);
    let mut next = 0;
    while next < list.len() {
        list.extend(children(list[next]));
        next += 1;
    }
    list
}

/// The resident ids of the threads of a process.
pub fn threads(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// A free TCP port of 127.0.0.1.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until `port` accepts connections, or the process is gone.
pub fn wait_for_port(port: u16, server: &mut Guard, log: &Path) -> Result<()> {
    let start = Instant::now();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while start.elapsed() < START_DEADLINE {
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        if let Some(status) = server.ended() {
            bail!("server ended at its start: {status}\n{}", crate::corpus::tail(log, 10));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!(
        "no connection to port {port} within {START_DEADLINE:?}\n{}",
        crate::corpus::tail(log, 10)
    )
}

/// Polls `condition` until it holds, at most `limit`.
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !condition() {
        ensure!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// One line of `/proc/PID/maps`.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// Readable, writable, executable, as `r-xp`.
    pub permissions: String,
    /// Offset in the file.
    pub offset: u64,
    /// The file, or a name in brackets, or nothing.
    pub path: String,
}

impl Mapping {
    /// Says whether `address` is inside.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Executable memory that no file backs.
    pub fn is_anonymous_code(&self) -> bool {
        let named = self.path.starts_with('/') && !self.path.starts_with("/memfd:");
        self.permissions.contains('x')
            && !named
            && self.path != "[vdso]"
            && self.path != "[vsyscall]"
    }
}

/// The mappings of a process.
pub fn maps(pid: i32) -> Result<Vec<Mapping>> {
    let path = format!("/proc/{pid}/maps");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.lines().filter_map(parse_mapping).collect())
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?.to_owned();
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let path = words.skip(2).collect::<Vec<_>>().join(" ");
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        permissions,
        offset,
        path,
    })
}

/// Reads memory of another process.
pub fn read_memory(pid: i32, address: u64, length: usize) -> Result<Vec<u8>> {
    let file = File::open(format!("/proc/{pid}/mem"))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, address)
        .with_context(|| format!("read {length} bytes at {address:#x} in pid {pid}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_parsed() {
        let line = "7f00-7f10 r-xp 00001000 fe:00 12   /usr/bin/a (deleted)";
        let mapping = parse_mapping(line).unwrap();
        assert_eq!((mapping.start, mapping.end, mapping.offset), (0x7f00, 0x7f10, 0x1000));
        assert_eq!(mapping.path, "/usr/bin/a (deleted)");
        assert!(!mapping.is_anonymous_code());
        assert!(parse_mapping("7f00-7f10 r-xp 00000000 00:00 0").unwrap().is_anonymous_code());
    }

    #[test]
    fn own_memory_can_be_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let text = maps(pid).unwrap().into_iter().find(|m| m.permissions == "r-xp").unwrap();
        assert_eq!(read_memory(pid, text.start, 4).unwrap().len(), 4);
    }
}
