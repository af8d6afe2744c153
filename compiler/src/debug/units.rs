//! The units of an image: found one after the other, read in parallel.
//!
//! Takes: the sections. Decides: what a unit is (compiler, language, name). Gives: raw units, and
//! beside each what its line program needs. Refuses: split DWARF. A unit that cannot be begun is
//! left out with a warning.

use std::collections::HashMap;
use std::mem;

use gimli::{AttributeValue, Dwarf, UnitHeader, UnitType, constants as dw};
use rayon::prelude::*;

use super::attributes::Context;
use super::error::{DebugError, Warning};
use super::lines::{self, FileTables};
use super::model::{Language, Unit};
use super::raw::{Input, Offset, ROOT, RawScope, RawUnit, RawUnits, ScopeKind, text};
use super::sections::Extents;
use super::{paths, scan};

/// A unit as gimli sees it, for its line program.
pub(super) type LineSource<'a> = gimli::Unit<Input<'a>>;

/// All units of an image.
pub(super) struct Units<'a> {
    /// What they hold.
    pub(super) raw: RawUnits<'a>,
    /// The same units, in the same order.
    pub(super) sources: Vec<LineSource<'a>>,
    /// Types by signature.
    pub(super) signatures: HashMap<u64, Offset>,
    /// What was left out.
    pub(super) warnings: Vec<Warning>,
}

/// A unit's header and where it is.
struct Listed<'a> {
    header: UnitHeader<Input<'a>>,
    base: Offset,
}

/// Reads all units.
pub(super) fn read<'a>(
    dwarf: &Dwarf<Input<'a>>,
    extents: &Extents,
) -> Result<Units<'a>, DebugError> {
    let listed = list(dwarf)?;
    let signatures = signatures(&listed);
    let tables = FileTables::default();
    let read: Vec<_> = listed
        .into_par_iter()
        .map(|unit| read_unit(dwarf, extents, &signatures, &tables, unit))
        .collect::<Result<_, DebugError>>()?;
    let mut units = Units {
        raw: RawUnits { units: Vec::new() },
        sources: Vec::new(),
        signatures,
        warnings: Vec::new(),
    };
    for unit in read {
        match unit {
            Ok((raw, source)) => {
                units.raw.units.push(raw);
                units.sources.push(source);
            }
            Err(warning) => units.warnings.push(warning),
        }
    }
    share_languages(&mut units.raw);
    Ok(units)
}

/// Gives partial units the language of a unit that imports them: `dwz` makes them without.
fn share_languages(raw: &mut RawUnits<'_>) {
    let speaks = |unit: &RawUnit<'_>| unit.unit.language != Language::Other(0);
    let mut open: Vec<usize> =
        (0..raw.units.len()).filter(|&unit| speaks(&raw.units[unit])).collect();
    while let Some(unit) = open.pop() {
        for at in mem::take(&mut raw.units[unit].imports) {
            let imported = raw.unit_of(at);
            raw.units[unit].imports.push(at);
            if let Some(imported) = imported.filter(|&index| !speaks(&raw.units[index])) {
                raw.units[imported].unit.language = raw.units[unit].unit.language;
                open.push(imported);
            }
        }
    }
}

fn list<'a>(dwarf: &Dwarf<Input<'a>>) -> Result<Vec<Listed<'a>>, DebugError> {
    let mut listed = Vec::new();
    let mut add = |section, header: gimli::Result<UnitHeader<Input<'a>>>, start: Offset| {
        let header = header.map_err(|source| DebugError::Units { section, source })?;
        if header.length_including_self() > u32::MAX as usize {
            return Err(DebugError::TooMany { what: "bytes in a unit" });
        }
        let base = start + header.offset().0 as u64;
        listed.push(Listed { header, base });
        Ok(())
    };
    for header in dwarf.units() {
        add(".debug_info", header, 0)?;
    }
    let behind = dwarf.debug_info_length();
    for header in dwarf.type_units() {
        add(".debug_types", header, behind)?;
    }
    if u32::try_from(listed.len()).is_err() {
        return Err(DebugError::TooMany { what: "units" });
    }
    Ok(listed)
}

/// The length of `.debug_info`, where offsets into `.debug_types` begin.
trait InfoLength {
    fn debug_info_length(&self) -> Offset;
}

impl InfoLength for Dwarf<Input<'_>> {
    fn debug_info_length(&self) -> Offset {
        use gimli::Section;
        self.debug_info.reader().len() as Offset
    }
}

fn signatures(listed: &[Listed<'_>]) -> HashMap<u64, Offset> {
    let signature = |unit: &Listed<'_>| match unit.header.type_() {
        UnitType::Type { type_signature, type_offset } => {
            Some((type_signature.0, unit.base.saturating_add(type_offset.0 as u64)))
        }
        _ => None,
    };
    listed.iter().filter_map(signature).collect()
}

fn read_unit<'a>(
    dwarf: &Dwarf<Input<'a>>,
    extents: &Extents,
    signatures: &HashMap<u64, Offset>,
    tables: &FileTables,
    listed: Listed<'a>,
) -> Result<Result<(RawUnit<'a>, LineSource<'a>), Warning>, DebugError> {
    let Listed { header, base } = listed;
    let extent = base..base + header.length_including_self() as u64;
    let source = match dwarf.unit(header) {
        Ok(source) => source,
        Err(error) => {
            let what = format!("the unit at {base:#x} cannot be read: {error}");
            return Ok(Err(Warning { unit: String::new(), what }));
        }
    };
    let unit = describe(dwarf, &source)?;
    let mut raw = RawUnit {
        files: tables.of(dwarf, &source, &unit),
        unit,
        extent,
        auxiliary: matches!(header.type_(), UnitType::Type { .. } | UnitType::Partial),
        scopes: vec![RawScope { parent: ROOT, kind: ScopeKind::Root }],
        types: Vec::new(),
        functions: Vec::new(),
        variables: Vec::new(),
        imports: Vec::new(),
        damage: Vec::new(),
    };
    scan::scan(Context { dwarf, unit: &source, base, signatures, extents }, &mut raw);
    Ok(Ok((raw, source)))
}

fn describe<'a>(
    dwarf: &Dwarf<Input<'a>>,
    source: &gimli::Unit<Input<'a>>,
) -> Result<Unit, DebugError> {
    let mut producer = String::new();
    let mut language = Language::Other(0);
    let mut dwo = None;
    let mut entries = source.entries();
    let root = entries.next_dfs().ok().flatten();
    for attribute in root.into_iter().flat_map(|root| root.attrs()) {
        let string = || dwarf.attr_string(source, attribute.value()).map(|s| text(s.slice()));
        match (attribute.name(), attribute.value()) {
            (dw::DW_AT_producer, _) => producer = string().unwrap_or_default(),
            (dw::DW_AT_language, AttributeValue::Language(number)) => language = known(number),
            (dw::DW_AT_dwo_name | dw::DW_AT_GNU_dwo_name, _) => dwo = string().ok(),
            _ => {}
        }
    }
    let comp_dir = lines::comp_dir(dwarf, source);
    let name = source.name.map(|name| text(name.slice())).unwrap_or_default();
    if source.dwo_id.is_some() || dwo.is_some() {
        let dwo = dwo.unwrap_or_else(|| "a .dwo file".to_owned());
        return Err(DebugError::Split { dwo });
    }
    let is_gimple = producer.starts_with("GNU GIMPLE");
    Ok(Unit {
        name: paths::unit_name(&comp_dir, &name),
        language,
        is_gcc: producer.starts_with("GNU ") && !producer.starts_with("GNU AS"),
        is_clang: producer.contains("clang"),
        lto: is_gimple || producer.split(' ').any(|option| option.starts_with("-flto")),
        comp_dir,
        producer,
    })
}

fn known(number: gimli::DwLang) -> Language {
    match number {
        dw::DW_LANG_C | dw::DW_LANG_C89 | dw::DW_LANG_C99 | dw::DW_LANG_C11 | dw::DW_LANG_C17 => {
            Language::C
        }
        dw::DW_LANG_C_plus_plus
        | dw::DW_LANG_C_plus_plus_03
        | dw::DW_LANG_C_plus_plus_11
        | dw::DW_LANG_C_plus_plus_14
        | dw::DW_LANG_C_plus_plus_17
        | dw::DW_LANG_C_plus_plus_20 => Language::Cpp,
        dw::DW_LANG_Rust => Language::Rust,
        dw::DW_LANG_Mips_Assembler => Language::Assembler,
        other => Language::Other(other.0),
    }
}
