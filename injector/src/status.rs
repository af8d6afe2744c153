//! `--status`: what runs in a process.
//!
//! Takes a pid; gives for each image that was updated its build, and its updates in order with their time, and
//! how many frames of the version before each still wait on some stack to be carried over. For that count
//! all threads are stopped for as long as a look at their stacks takes. Changes nothing; what a tool has
//! left behind that was killed is told, and left for `--recover`.

use crate::address::ProcAddr;
use crate::error::ApplyError;
use crate::outcome::count;
use crate::ptrace::keeper::{self, Keeping};
use crate::ptrace::process::StoppedProcess;
use crate::ptrace::sched::Undisturbed;
use crate::ptrace::thread::Stopped;
use crate::record::{self, Found, State, standing};
use crate::recover;
use crate::target::lock::Lock;
use crate::target::maps::Maps;
use crate::target::memory::{ProcessMemory, ReadMemory};
use crate::target::module::Module;
use crate::target::process;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// How long all threads are waited for.
const STOP_WITHIN: Duration = Duration::from_millis(500);
/// A stack that is larger is looked at as far as this.
const LONGEST: u64 = 1 << 26;

/// One update of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// What the process holds of it.
    pub found: Found,
    /// Frames of the version before that wait to be carried over; a stale word may be among them.
    pub pending: usize,
}

/// One image that was updated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// File name.
    pub file: String,
    /// Build id of the file that was loaded.
    pub loaded: String,
    /// Its updates that count, oldest first.
    pub updates: Vec<Update>,
    /// Updates that were taken back.
    pub undone: Vec<Found>,
}

/// What runs in a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Process id.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// The images that were updated.
    pub images: Vec<Image>,
    /// A tool was killed and has left something behind.
    pub left_behind: bool,
    /// Who keeps the time-outs of calls that were under way.
    pub keeping: Keeping,
}

impl Image {
    /// The build that runs.
    #[must_use]
    pub fn runs(&self) -> &str {
        self.updates.last().map_or(&self.loaded, |u| &u.found.record.new_build_id)
    }
}

/// Looks at a process.
///
/// # Errors
/// It cannot be looked at, or another tool is at work on it.
pub fn status(pid: i32) -> Result<Status, ApplyError> {
    let name = process::check(pid)?.name;
    let _lock = Lock::of(pid)?;
    let memory = ProcessMemory::open(pid)?;
    let maps = Maps::of(pid)?;
    let records = record::find_all(&memory, &maps);
    let left_behind = recover::is_needed(&records);
    let waits = |f: &Found| !f.record.sites.is_empty() || !f.record.passages.is_empty();
    let (pending, keeping) = match records.iter().any(waits) {
        true => pending(pid, &memory, &records)?,
        false => (BTreeMap::new(), keeper::tell(pid)),
    };
    let modules = Module::all(&memory, &maps);
    let images = modules.iter().filter_map(|m| image(m, &memory, &records, &pending)).collect();
    Ok(Status { pid, name, images, left_behind, keeping })
}

fn image(
    module: &Module,
    memory: &ProcessMemory,
    records: &[Found],
    pending: &BTreeMap<ProcAddr, usize>,
) -> Option<Image> {
    let of = |state| {
        let wanted = move |f: &&Found| f.record.image_bias == module.bias && f.state == state;
        records.iter().filter(wanted).cloned()
    };
    let update =
        |found: Found| Update { pending: pending.get(&found.at).copied().unwrap_or(0), found };
    let updates: Vec<_> = of(State::Applied).map(update).collect();
    let undone: Vec<_> = of(State::Undone).collect();
    if updates.is_empty() && undone.is_empty() {
        return None;
    }
    let loaded = module.build_id(memory).unwrap_or_default();
    Some(Image { file: module.file_name().to_owned(), loaded, updates, undone })
}

/// By the first address of where frames may wait: past the last one, and the place of the update's record.
type Waiting = BTreeMap<u64, (u64, ProcAddr)>;

/// Frames that wait at the sites of each update, or where OLD's code runs on to one, by the place of its
/// record.
fn pending(
    pid: i32,
    memory: &ProcessMemory,
    records: &[Found],
) -> Result<(BTreeMap<ProcAddr, usize>, Keeping), ApplyError> {
    let mut sites = Waiting::new();
    for images in records.chunk_by(|a, b| a.record.image_bias == b.record.image_bias) {
        let applied = || images.iter().filter(|f| f.state == State::Applied);
        let updates: Vec<_> = applied().map(|f| &f.record).collect();
        let stand = standing::sites(&updates, None);
        let passages = standing::passages(&updates, None);
        let passes = |at: u64| passages.iter().any(|p| p.extent.start == at);
        // What stands of an update whose record is gone counts as the oldest one's.
        if let Some(oldest) = applied().next() {
            sites.extend(stand.keys().map(|at| (*at, (*at + 1, oldest.at))));
            let passages = passages.iter().map(|p| p.extent);
            sites.extend(passages.map(|p| (p.start, (p.end(), oldest.at))));
        }
        for found in applied() {
            let own = found.record.sites.iter().filter(|site| stand.contains_key(&site.at));
            sites.extend(own.map(|site| (site.at, (site.at + 1, found.at))));
            let own = found.record.passages.iter().map(|p| p.extent);
            let own = own.filter(|extent| passes(extent.start));
            sites.extend(own.map(|extent| (extent.start, (extent.end(), found.at))));
        }
    }
    let _undisturbed = Undisturbed::begin();
    let process =
        StoppedProcess::stop(pid, STOP_WITHIN).inspect_err(|_| _ = keeper::let_go(pid))?;
    let maps = Maps::of(pid);
    let mut sum = BTreeMap::new();
    if let Ok(maps) = &maps {
        for thread in &process.threads {
            count_words(thread, memory, maps, &sites, &mut sum);
        }
    }
    let _ = process.release();
    let keeping = keeper::let_go(pid);
    maps?;
    Ok((sum, keeping))
}

fn count_words(
    thread: &Stopped,
    memory: &ProcessMemory,
    maps: &Maps,
    sites: &Waiting,
    sum: &mut BTreeMap<ProcAddr, usize>,
) {
    let Ok(registers) = thread.registers() else { return };
    let rsp = registers.rsp & !7;
    let Some(stack) = maps.find(ProcAddr(rsp)) else { return };
    let len = usize::try_from(stack.end.0.saturating_sub(rsp).min(LONGEST)).unwrap_or(0);
    let Ok(bytes) = memory.read_vec(ProcAddr(rsp), len) else { return };
    let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    for word in words.chain([registers.rip]) {
        if let Some((_, (end, update))) = sites.range(..=word).next_back()
            && word < *end
        {
            *sum.entry(*update).or_default() += 1;
        }
    }
}

impl Status {
    /// For tools.
    #[must_use]
    pub fn json(&self) -> Value {
        let update = |u: &Update| {
            let mut value = record_json(&u.found);
            value["frames_pending"] = u.pending.into();
            value
        };
        let images = self.images.iter().map(|image| {
            json!({
                "file": image.file,
                "loaded_build_id": image.loaded,
                "runs_build_id": image.runs(),
                "updates": image.updates.iter().map(update).collect::<Vec<_>>(),
                "undone": image.undone.iter().map(record_json).collect::<Vec<_>>(),
            })
        });
        json!({
            "pid": self.pid,
            "name": self.name,
            "images": images.collect::<Vec<_>>(),
            "left_behind": self.left_behind,
            "timeouts": self.keeping.json(),
        })
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (pid, name) = (self.pid, &self.name);
        if self.images.is_empty() {
            writeln!(out, "process {pid} ({name}): no updates")?;
        }
        for image in &self.images {
            let done = image.updates.last().map_or(0, |last| last.found.record.sequence);
            let updates = count(usize::try_from(done).unwrap_or(usize::MAX), "update");
            writeln!(
                out,
                "process {pid} ({name}): {} runs build {}, {updates}",
                image.file,
                image.runs()
            )?;
            writeln!(out, "  started as {}", image.loaded)?;
            for update in &image.updates {
                let record = &update.found.record;
                write!(
                    out,
                    "  {}. {} -> {}",
                    record.sequence,
                    when(record.when),
                    record.new_build_id
                )?;
                write!(out, " ({}", count(record.functions.len(), "function"))?;
                if !record.sites.is_empty() {
                    let pending = count(update.pending, "frame");
                    write!(out, ", {}, {pending} pending", count(record.sites.len(), "site"))?;
                }
                writeln!(out, ", bundle {})", record.bundle.get(..16).unwrap_or(&record.bundle))?;
            }
            for found in &image.undone {
                writeln!(out, "  taken back: {}", found.record.new_build_id)?;
            }
        }
        if self.left_behind {
            writeln!(
                out,
                "process {pid}: a tool was killed and has left something behind: run dsu-apply \
                 --recover --pid {pid}"
            )?;
        }
        out.push_str(&self.keeping.text());
        Ok(())
    }
}

fn record_json(found: &Found) -> Value {
    let record = &found.record;
    json!({
        "sequence": record.sequence,
        "when": record.when,
        "bundle": record.bundle,
        "old_build_id": record.old_build_id,
        "new_build_id": record.new_build_id,
        "functions": record.functions,
        "sites": record.sites.len(),
        "memory_bytes": record.span_len,
    })
}

/// Seconds since 1970 as a date, UTC (days to date: H. Hinnant, "chrono-compatible low-level date
/// algorithms").
pub(crate) fn when(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(when(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(when(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(when(1_796_000_000), "2026-11-30 00:53:20 UTC");
    }
}
