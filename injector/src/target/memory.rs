//! The process's memory, through one narrow reader, so that everything that plans can be tested on
//! arrays.
//!
//! Takes addresses; gives bytes or the operation that failed. `/proc/PID/mem` refers to the address
//! space that the process had when it was opened: after an `execve` it reads and writes nothing
//! (proc(5)), so a new program can never be hit by mistake.

use crate::address::ProcAddr;
use crate::error::SysError;
use crate::faults::{self, Call};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

/// Tries of a write on which it depends that the process is as it was.
const TRIES: usize = 3;

/// Where bytes of a process are read from.
pub trait ReadMemory {
    /// Fills `buffer` from `at`, whole.
    ///
    /// # Errors
    /// The operation that failed; nothing is said about the buffer then.
    fn read(&self, at: ProcAddr, buffer: &mut [u8]) -> Result<(), SysError>;

    /// Reads `len` bytes. Lengths come from files and processes: callers bound them first.
    ///
    /// # Errors
    /// As [`ReadMemory::read`].
    fn read_vec(&self, at: ProcAddr, len: usize) -> Result<Vec<u8>, SysError> {
        let mut buffer = vec![0; len];
        self.read(at, &mut buffer)?;
        Ok(buffer)
    }

    /// Reads a little-endian word of 8 bytes.
    ///
    /// # Errors
    /// As [`ReadMemory::read`].
    fn read_u64(&self, at: ProcAddr) -> Result<u64, SysError> {
        let mut word = [0; 8];
        self.read(at, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Reads a little-endian word of 4 bytes.
    ///
    /// # Errors
    /// As [`ReadMemory::read`].
    fn read_u32(&self, at: ProcAddr) -> Result<u32, SysError> {
        let mut word = [0; 4];
        self.read(at, &mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    /// Reads a string that ends with a zero byte, at most `longest` bytes of it.
    ///
    /// # Errors
    /// As [`ReadMemory::read`].
    fn read_str(&self, at: ProcAddr, longest: usize) -> Result<Vec<u8>, SysError> {
        let mut text = Vec::new();
        while text.len() < longest {
            let mut chunk = [0; 64];
            // Do not cross a page for bytes that the string does not have.
            let from = at.offset(text.len() as u64);
            let in_page = crate::address::PAGE - (from.0 % crate::address::PAGE);
            let len = usize::try_from(in_page).unwrap_or(64).min(64);
            self.read(from, &mut chunk[..len])?;
            if let Some(end) = chunk[..len].iter().position(|b| *b == 0) {
                text.extend_from_slice(&chunk[..end]);
                break;
            }
            text.extend_from_slice(&chunk[..len]);
        }
        Ok(text)
    }
}

/// `/proc/PID/mem`, open for reading and writing.
#[derive(Debug)]
pub struct ProcessMemory {
    pid: i32,
    file: File,
}

impl ProcessMemory {
    /// Opens the memory of `pid`. Needs the rights of ptrace(2).
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open(pid: i32) -> Result<Self, SysError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .map_err(|e| SysError::io(format!("open the memory of pid {pid}"), &e))?;
        Ok(Self { pid, file })
    }

    /// Writes `bytes` at `at`, whole, through write protection.
    ///
    /// # Errors
    /// The operation that failed; a part may have been written.
    pub fn write(&self, at: ProcAddr, bytes: &[u8]) -> Result<(), SysError> {
        let written = faults::pass(Call::Write(bytes.len())).map_err(std::io::Error::from);
        written.and_then(|()| self.file.write_all_at(bytes, at.0)).map_err(|e| {
            SysError::io(format!("write {} bytes at {at} in pid {}", bytes.len(), self.pid), &e)
        })
    }
}

impl ProcessMemory {
    /// Writes back what was there, or what says so: more than once if need be.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_back(&self, at: ProcAddr, bytes: &[u8]) -> Result<(), SysError> {
        let mut result = self.write(at, bytes);
        for _ in 1..TRIES {
            if result.is_ok() {
                break;
            }
            result = self.write(at, bytes);
        }
        result
    }
}

impl ReadMemory for ProcessMemory {
    fn read(&self, at: ProcAddr, buffer: &mut [u8]) -> Result<(), SysError> {
        let read = faults::pass(Call::Read(buffer.len())).map_err(std::io::Error::from);
        read.and_then(|()| self.file.read_exact_at(buffer, at.0)).map_err(|e| {
            SysError::io(format!("read {} bytes at {at} in pid {}", buffer.len(), self.pid), &e)
        })
    }
}

/// Memory made of pieces, for tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct FakeMemory(pub Vec<(ProcAddr, Vec<u8>)>);

#[cfg(test)]
impl ReadMemory for FakeMemory {
    fn read(&self, at: ProcAddr, buffer: &mut [u8]) -> Result<(), SysError> {
        for (start, bytes) in &self.0 {
            let Ok(offset) = usize::try_from(at.since(*start)) else { continue };
            if let Some(found) = bytes.get(offset..).and_then(|b| b.get(..buffer.len())) {
                buffer.copy_from_slice(found);
                return Ok(());
            }
        }
        Err(SysError::new(format!("read {} bytes at {at}", buffer.len()), nix::errno::Errno::EIO))
    }
}
