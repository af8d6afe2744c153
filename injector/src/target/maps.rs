//! `/proc/PID/maps`: what is where in the process.
//!
//! Takes the text; gives the mappings in ascending order. It is read once more while the process is
//! stopped, so it is parsed by hand: a thousand lines in well under a millisecond.

use crate::address::ProcAddr;
use crate::error::SysError;

/// One line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First byte.
    pub start: ProcAddr,
    /// Past the last byte.
    pub end: ProcAddr,
    /// `r`.
    pub readable: bool,
    /// `w`.
    pub writable: bool,
    /// `x`.
    pub executable: bool,
    /// `p`, copy on write; else shared.
    pub private: bool,
    /// Offset in the file.
    pub offset: u64,
    /// 0 when there is no file.
    pub inode: u64,
    /// File or pseudo name (`[heap]`), as the kernel prints it; empty when there is none.
    pub name: Box<str>,
}

impl Mapping {
    /// Whether `at` lies in it.
    #[must_use]
    pub fn contains(&self, at: ProcAddr) -> bool {
        self.start <= at && at < self.end
    }
}

/// All mappings of a process at one moment, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maps(pub Vec<Mapping>);

impl Maps {
    /// Reads the mappings of `pid`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(pid: i32) -> Result<Self, SysError> {
        let path = format!("/proc/{pid}/maps");
        let text = std::fs::read(&path).map_err(|e| SysError::io(format!("read {path}"), &e))?;
        Ok(Self::parse(&text))
    }

    /// Parses the text of such a file. Lines that are not understood are left out: the kernel
    /// writes none.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        Self(text.split(|b| *b == b'\n').filter_map(line).collect())
    }

    /// The mapping that holds `at`.
    #[must_use]
    pub fn find(&self, at: ProcAddr) -> Option<&Mapping> {
        let after = self.0.partition_point(|m| m.start <= at);
        self.0.get(after.checked_sub(1)?).filter(|m| m.contains(at))
    }

    /// Whether `at` lies between the first and the last mapping of the program itself: memory that was unmapped
    /// was there, too.
    #[must_use]
    pub fn spans(&self, at: ProcAddr) -> bool {
        let own = |m: &&Mapping| &*m.name != "[vsyscall]";
        let first = self.0.first().is_some_and(|m| m.start <= at);
        first && self.0.iter().rfind(own).is_some_and(|m| at < m.end)
    }

    /// Whether all of `[start, start + len)` is mapped, privately.
    #[must_use]
    pub fn covers_privately(&self, start: ProcAddr, len: u64) -> bool {
        let Some(end) = start.checked_add(len) else { return false };
        let mut at = start;
        while at < end {
            match self.find(at) {
                Some(m) if m.private => at = m.end,
                _ => return false,
            }
        }
        true
    }
}

/// `start-end perms offset major:minor inode   name`
fn line(text: &[u8]) -> Option<Mapping> {
    let mut rest = text;
    let start = number(&mut rest, 16)?;
    rest = rest.strip_prefix(b"-")?;
    let end = number(&mut rest, 16)?;
    rest = rest.strip_prefix(b" ")?;
    let (perms, after) = rest.split_at_checked(4)?;
    rest = after.strip_prefix(b" ")?;
    let offset = number(&mut rest, 16)?;
    rest = rest.strip_prefix(b" ")?;
    number(&mut rest, 16)?;
    rest = rest.strip_prefix(b":")?;
    number(&mut rest, 16)?;
    rest = rest.strip_prefix(b" ")?;
    let inode = number(&mut rest, 10)?;
    let name = String::from_utf8_lossy(rest.trim_ascii()).into();
    Some(Mapping {
        start: ProcAddr(start),
        end: ProcAddr(end),
        readable: perms[0] == b'r',
        writable: perms[1] == b'w',
        executable: perms[2] == b'x',
        private: perms[3] == b'p',
        offset,
        inode,
        name,
    })
}

fn number(rest: &mut &[u8], radix: u32) -> Option<u64> {
    let mut value: u64 = 0;
    let mut digits = 0;
    while let Some(digit) = rest.get(digits).and_then(|b| char::from(*b).to_digit(radix)) {
        value = value.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))?;
        digits += 1;
    }
    *rest = rest.get(digits..)?;
    (digits > 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
555555554000-555555556000 r-xp 00001000 fd:01 42                         /usr/bin/a b (deleted)
555555556000-555555557000 rw-s 00000000 00:00 0
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn parses_lines() {
        let maps = Maps::parse(TEXT);
        assert_eq!(maps.0.len(), 3);
        let first = &maps.0[0];
        assert_eq!((first.start.0, first.end.0), (0x5555_5555_4000, 0x5555_5555_6000));
        assert!(first.readable && !first.writable && first.executable && first.private);
        assert_eq!(
            (first.offset, first.inode, &*first.name),
            (0x1000, 42, "/usr/bin/a b (deleted)")
        );
        assert!(!maps.0[1].private);
        assert_eq!(&*maps.0[2].name, "[stack]");
    }

    #[test]
    fn finds_and_covers() {
        let maps = Maps::parse(TEXT);
        assert!(maps.find(ProcAddr(0x5555_5555_3fff)).is_none());
        assert!(maps.find(ProcAddr(0x5555_5555_5fff)).is_some_and(|m| m.executable));
        assert!(maps.find(ProcAddr(0x5555_5555_7000)).is_none());
        assert!(maps.covers_privately(ProcAddr(0x5555_5555_4000), 0x2000));
        assert!(!maps.covers_privately(ProcAddr(0x5555_5555_4000), 0x2001));
    }

    #[test]
    fn nonsense_is_left_out() {
        for text in [&b"x"[..], b"12-", b"12-34 r", b"12-34 rwxp 0 0:0", b"fffffffffffffffff-1 "] {
            assert_eq!(Maps::parse(text), Maps::default());
        }
    }
}
