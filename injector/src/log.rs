//! `--log FILE`: every step with its time, appended as it happens.
//!
//! Nothing is written while threads stand still, and nothing depends on it: where the disk is full, lines are
//! missing.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Where steps are written to; nowhere by default.
#[derive(Debug, Clone, Default)]
pub struct Log(Option<Arc<File>>);

impl Log {
    /// Appends to a file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn to(path: &Path) -> std::io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        Ok(Self(Some(Arc::new(file))))
    }

    /// One line about a process.
    pub fn line(&self, pid: i32, text: &str) {
        let Some(mut file) = self.0.as_deref() else { return };
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let time = crate::status::when(now.as_secs());
        let millis = now.subsec_millis();
        // One write each: tools that log to one file at a time do not mix their lines.
        let line = format!("{}.{millis:03} UTC pid {pid}: {text}\n", time.trim_end_matches(" UTC"));
        let _ = file.write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for _ in 0..2 {
            Log::to(file.path()).unwrap().line(7, "something");
        }
        Log::default().line(7, "nowhere");
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(
            text.lines().filter(|l| l.ends_with("UTC pid 7: something")).count(),
            2,
            "{text}"
        );
    }

    #[test]
    fn a_full_disk_is_no_error() {
        Log::to(Path::new("/dev/full")).unwrap().line(7, "lost");
    }
}
