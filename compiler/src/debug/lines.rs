//! Source positions of code (DWARF 5, section 6.2), of all units in one sorted table.
//!
//! Takes: line programs. Decides: which sequences the linker kept. Gives: [`LineTable`]. A program
//! that cannot be decoded gives its rows up to there, and a warning.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use gimli::{ColumnType, Dwarf, LineProgramHeader};
use rayon::prelude::*;

use super::error::{DebugError, Warning};
use super::model::{FileId, Unit};
use super::paths;
use super::raw::{Input, RawUnit, text};
use super::sections::Extents;
use super::units::{LineSource, Units};

/// From this address on, up to the next row's, code belongs to this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRow {
    /// The address.
    pub address: u64,
    /// The file.
    pub file: FileId,
    /// The line; 0 for code that belongs to none.
    pub line: u32,
    /// The column; 0 for the left edge.
    pub column: u32,
    /// A recommended place for a breakpoint.
    pub is_stmt: bool,
    /// No code of this sequence from here on: only `address` means something.
    pub end_sequence: bool,
}

/// Source positions of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineTable {
    /// File names, independent of the build directory, by [`FileId`].
    pub files: Vec<String>,
    /// Rows, by rising address.
    pub rows: Vec<LineRow>,
}

impl LineTable {
    /// The name of a file.
    pub fn file(&self, file: FileId) -> &str {
        self.files.get(file.0 as usize).map_or("", String::as_str)
    }

    /// The row that holds at an address.
    pub fn row_at(&self, address: u64) -> Option<&LineRow> {
        let after = self.rows.partition_point(|row| row.address <= address);
        let row = self.rows.get(after.checked_sub(1)?)?;
        (!row.end_sequence).then_some(row)
    }

    /// The rows that hold in a range: the one in effect at its start, and all that begin before
    /// its end.
    pub fn rows_in(&self, range: Range<u64>) -> &[LineRow] {
        let end = self.rows.partition_point(|row| row.address < range.end);
        let after = self.rows.partition_point(|row| row.address <= range.start);
        let mut start = after.saturating_sub(1);
        // All rows at the address of the one in effect, for their is_stmt.
        while start > 0 && self.rows[start - 1].address == self.rows[start].address {
            start -= 1;
        }
        self.rows.get(start..end).unwrap_or_default()
    }
}

/// The names of a unit's files, by the numbers that the unit uses.
pub(super) type FileTable = Arc<Vec<String>>;

/// The file tables of all units. Type units share that of the unit they were made for, and there
/// may be very many.
#[derive(Debug, Default)]
pub(super) struct FileTables {
    /// By the offset of the line program and the directory that names are relative to.
    known: Mutex<HashMap<(usize, String), FileTable>>,
}

impl FileTables {
    /// The file table of a unit, by the numbers that the unit uses.
    pub(super) fn of<'a>(
        &self,
        dwarf: &Dwarf<Input<'a>>,
        source: &LineSource<'a>,
        unit: &Unit,
    ) -> FileTable {
        let Some(program) = &source.line_program else {
            return Arc::default();
        };
        let header = program.header();
        let key = (header.offset().0, unit.comp_dir.clone());
        // What a panicking thread left here is whole.
        let locked = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = locked().get(&key) {
            return Arc::clone(table);
        }
        let table = Arc::new(file_names(dwarf, source, unit, header));
        locked().insert(key, Arc::clone(&table));
        table
    }
}

/// The directory that a unit was compiled in. Type units do not say; the file table of DWARF 5
/// does (section 6.2.4).
pub(super) fn comp_dir<'a>(dwarf: &Dwarf<Input<'a>>, source: &LineSource<'a>) -> String {
    let header = source.line_program.as_ref().map(|program| program.header());
    let from_table = || {
        let directory = header.filter(|header| header.version() >= 5)?.directory(0)?;
        dwarf.attr_string(source, directory).ok()
    };
    source.comp_dir.or_else(from_table).map(|dir| text(dir.slice())).unwrap_or_default()
}

/// A file whose name is damaged is nameless.
fn file_names<'a>(
    dwarf: &Dwarf<Input<'a>>,
    source: &LineSource<'a>,
    unit: &Unit,
    header: &LineProgramHeader<Input<'a>>,
) -> Vec<String> {
    let string =
        |value| dwarf.attr_string(source, value).map(|name| text(name.slice())).unwrap_or_default();
    let name = |entry: &gimli::FileEntry<Input<'a>>| {
        let directory = entry.directory(header).map(string).unwrap_or_default();
        let directory = paths::join(&unit.comp_dir, &directory);
        let path = paths::join(&directory, &string(entry.path_name()));
        paths::independent(&unit.comp_dir, &path)
    };
    let mut files: Vec<String> = header.file_names().iter().map(name).collect();
    // Before DWARF 5 the table counts from 1, and 0 is the unit's own file.
    if header.version() < 5 {
        files.insert(0, unit.name.clone());
    }
    files
}

/// The files of all units, each once, and where those of each unit are.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Names.
    pub(super) names: Vec<String>,
    /// By unit and the unit's own number.
    by_unit: Vec<Vec<FileId>>,
}

impl Files {
    /// Takes the file tables out of the units.
    pub(super) fn of(units: &mut [RawUnit<'_>]) -> Result<Self, DebugError> {
        let mut known: HashMap<String, FileId> = HashMap::new();
        let mut files = Self::default();
        for unit in units {
            let mut ids = Vec::with_capacity(unit.files.len());
            for name in unit.files.iter() {
                if let Some(&id) = known.get(name) {
                    ids.push(id);
                    continue;
                }
                let id = u32::try_from(files.names.len()).map(FileId);
                let id = id.map_err(|_| DebugError::TooMany { what: "source files" })?;
                known.insert(name.clone(), id);
                files.names.push(name.clone());
                ids.push(id);
            }
            files.by_unit.push(ids);
        }
        Ok(files)
    }

    /// The files of a unit, by its own numbers.
    pub(super) fn of_unit(&self, unit: usize) -> &[FileId] {
        self.by_unit.get(unit).map_or(&[], Vec::as_slice)
    }

    /// The file that a unit means by a number.
    pub(super) fn get(&self, unit: usize, number: Option<u32>) -> Option<FileId> {
        self.by_unit.get(unit)?.get(number? as usize).copied()
    }
}

/// Rows of one unit, and where in them each kept sequence is.
#[derive(Default)]
struct UnitRows {
    rows: Vec<LineRow>,
    sequences: Vec<Range<usize>>,
    damage: Option<gimli::Error>,
}

/// Reads the line programs of all units, each once.
pub(super) fn read(
    units: &Units<'_>,
    files: &Files,
    extents: &Extents,
    warnings: &mut Vec<Warning>,
) -> Vec<LineRow> {
    // Type units and partial units may share the program of another.
    let mut seen = HashSet::new();
    let is_new = |source: &LineSource<'_>| {
        source.line_program.as_ref().is_some_and(|program| seen.insert(program.header().offset().0))
    };
    let programs: Vec<bool> = units.sources.iter().map(is_new).collect();
    let read: Vec<UnitRows> = units
        .sources
        .par_iter()
        .enumerate()
        .map(|(index, source)| match (&source.line_program, programs[index]) {
            (Some(program), true) => unit_rows(index, program.clone(), files, extents),
            _ => UnitRows::default(),
        })
        .collect();
    for (unit, rows) in read.iter().enumerate() {
        if let Some(error) = rows.damage {
            let what = format!("line rows after the first {}: {error}", rows.rows.len());
            warnings.push(Warning { unit: units.raw.units[unit].unit.name.clone(), what });
        }
    }
    merge(&read)
}

fn unit_rows<'a>(
    unit: usize,
    program: gimli::IncompleteLineProgram<Input<'a>>,
    files: &Files,
    extents: &Extents,
) -> UnitRows {
    let mut out = UnitRows::default();
    let mut rows = program.rows();
    let mut start = 0;
    loop {
        let row = match rows.next_row() {
            Ok(Some((_, row))) => row,
            Ok(None) => break,
            Err(error) => {
                out.damage = Some(error);
                break;
            }
        };
        let number = u32::try_from(row.file_index()).ok();
        let line = row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
        let column = match row.column() {
            ColumnType::LeftEdge => 0,
            ColumnType::Column(column) => u32::try_from(column.get()).unwrap_or(0),
        };
        out.rows.push(LineRow {
            address: row.address(),
            // A row of an unknown file has no position.
            file: files.get(unit, number).unwrap_or(FileId(u32::MAX)),
            line,
            column,
            is_stmt: row.is_stmt(),
            end_sequence: row.end_sequence(),
        });
        if row.end_sequence() {
            if extents.has_code(out.rows[start].address) {
                out.sequences.push(start..out.rows.len());
            } else {
                out.rows.truncate(start);
            }
            start = out.rows.len();
        }
    }
    // Rows without an end have no last address.
    out.rows.truncate(start);
    out
}

fn merge(units: &[UnitRows]) -> Vec<LineRow> {
    let mut sequences: Vec<&[LineRow]> = units
        .iter()
        .flat_map(|unit| unit.sequences.iter().map(|range| &unit.rows[range.clone()]))
        .collect();
    sequences.sort_by_key(|rows| rows[0].address);
    let mut merged = Vec::with_capacity(sequences.iter().map(|rows| rows.len()).sum());
    for rows in sequences {
        merged.extend_from_slice(rows);
    }
    // Sequences overlap where the linker folded equal functions, or the program is damaged.
    if !merged.is_sorted_by_key(|row| row.address) {
        merged.sort_by_key(|row| (row.address, !row.end_sequence));
    }
    merged
}
