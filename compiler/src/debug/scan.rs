//! One unit's entries, walked once: types, functions and variables as [`RawUnit`].
//!
//! Takes: a unit. Decides: which entries matter; calls, labels, inlined bodies and template
//! parameters do not, but for the static variables in them. Gives: the raw lists, by rising offset.
//! An entry that cannot be decoded ends the walk, because the length of entries is not told
//! (DWARF 5, section 7.5.2); what was read stays, with a note of the damage.

use gimli::{DwTag, constants as dw};

use super::attributes::{Attributes, Context, MemberLocation};
use super::raw::{
    ChildKind, Placement, ROOT, RawChild, RawDeclaration, RawFunction, RawParameter, RawScope,
    RawType, RawUnit, RawVariable, ScopeId, ScopeKind,
};

/// What children of an entry belong to.
#[derive(Debug, Clone, Copy)]
enum Parent {
    /// The unit or a namespace.
    Outside,
    /// A function of this index, or a block in it.
    Function(u32),
    /// A body inlined into a function: all but static places is told by its origin.
    Inlined,
    /// A type of this index.
    Type(u32),
    /// A variant part, or a variant with its discriminant, of the type of this index.
    Variant(u32, Option<u64>),
    /// Something of no use.
    Ignored,
}

/// An entry whose children are being read.
#[derive(Debug, Clone, Copy)]
struct Open {
    depth: isize,
    parent: Parent,
    scope: ScopeId,
    blocks: u32,
}

/// Reads all entries of a unit into `out`.
pub(super) fn scan<'a>(context: Context<'_, 'a>, out: &mut RawUnit<'a>) {
    let mut walk = Walk { context, out, open: Vec::new() };
    if let Err(error) = walk.run() {
        let note = format!("entries after the first {} cannot be read: {error}", walk.entries());
        walk.out.damage.push(note);
    }
}

struct Walk<'w, 'c, 'a> {
    context: Context<'c, 'a>,
    out: &'w mut RawUnit<'a>,
    open: Vec<Open>,
}

impl<'a> Walk<'_, '_, 'a> {
    fn entries(&self) -> usize {
        self.out.types.len() + self.out.functions.len() + self.out.variables.len()
    }

    fn run(&mut self) -> gimli::Result<()> {
        let unit = self.context.unit;
        let mut entries = unit.entries_raw(None)?;
        while !entries.is_empty() {
            let depth = entries.next_depth();
            let offset = self.context.base.saturating_add(entries.next_offset().0 as u64);
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            while self.open.last().is_some_and(|open| open.depth >= depth) {
                self.open.pop();
            }
            let tag = abbreviation.tag();
            let mut attributes = Attributes::default();
            if self.is_of_use(tag) {
                for &specification in abbreviation.attributes() {
                    let attribute = entries.read_attribute_inline(specification)?;
                    self.context.add(&mut attributes, &attribute);
                }
            } else {
                entries.skip_attributes(abbreviation.attributes())?;
            }
            let (parent, scope) = self.enter(offset, tag, &attributes);
            if abbreviation.has_children() {
                self.open.push(Open { depth, parent, scope, blocks: 0 });
            }
        }
        Ok(())
    }

    fn outer(&self) -> (Parent, ScopeId) {
        self.open.last().map_or((Parent::Outside, ROOT), |open| (open.parent, open.scope))
    }

    fn is_of_use(&self, tag: DwTag) -> bool {
        let skipped = matches!(
            tag,
            dw::DW_TAG_compile_unit
                | dw::DW_TAG_partial_unit
                | dw::DW_TAG_type_unit
                | dw::DW_TAG_inlined_subroutine
                | dw::DW_TAG_lexical_block
                | dw::DW_TAG_try_block
                | dw::DW_TAG_catch_block
                | dw::DW_TAG_call_site
                | dw::DW_TAG_call_site_parameter
                | dw::DW_TAG_GNU_call_site
                | dw::DW_TAG_GNU_call_site_parameter
                | dw::DW_TAG_label
        );
        let inlined_parameter =
            tag == dw::DW_TAG_formal_parameter && matches!(self.outer().0, Parent::Inlined);
        !skipped && !inlined_parameter
    }

    /// Takes in an entry; says what its children belong to.
    fn enter(&mut self, offset: u64, tag: DwTag, entry: &Attributes<'a>) -> (Parent, ScopeId) {
        let (parent, scope) = self.outer();
        if matches!(parent, Parent::Ignored) {
            return (Parent::Ignored, scope);
        }
        match tag {
            dw::DW_TAG_compile_unit | dw::DW_TAG_partial_unit | dw::DW_TAG_type_unit => {
                (Parent::Outside, ROOT)
            }
            dw::DW_TAG_namespace | dw::DW_TAG_module => {
                (Parent::Outside, self.add_scope(scope, ScopeKind::Namespace(entry.name)))
            }
            dw::DW_TAG_subprogram => self.function(declared(offset, scope, entry), entry),
            dw::DW_TAG_inlined_subroutine => (Parent::Inlined, scope),
            dw::DW_TAG_lexical_block | dw::DW_TAG_try_block | dw::DW_TAG_catch_block => {
                (parent, self.block(scope))
            }
            dw::DW_TAG_formal_parameter => self.parameter(parent, scope, entry),
            dw::DW_TAG_GNU_formal_parameter_pack => (parent, scope),
            dw::DW_TAG_unspecified_parameters => self.ellipsis(parent, scope),
            dw::DW_TAG_variable | dw::DW_TAG_constant => {
                self.variable(parent, declared(offset, scope, entry), entry)
            }
            dw::DW_TAG_variant_part => match parent {
                Parent::Type(ty) => (Parent::Variant(ty, None), scope),
                _ => (Parent::Ignored, scope),
            },
            dw::DW_TAG_variant => match parent {
                Parent::Variant(ty, _) => (Parent::Variant(ty, entry.discriminant), scope),
                _ => (Parent::Ignored, scope),
            },
            dw::DW_TAG_member if entry.external || entry.declaration => {
                // A static member, as DWARF 4 and older tell it (DWARF 5, section 5.7.7).
                self.variable(parent, declared(offset, scope, entry), entry)
            }
            dw::DW_TAG_member | dw::DW_TAG_inheritance | dw::DW_TAG_enumerator => {
                self.child(parent, tag, entry);
                (Parent::Ignored, scope)
            }
            dw::DW_TAG_imported_unit => {
                self.out.imports.extend(entry.import);
                (Parent::Ignored, scope)
            }
            dw::DW_TAG_subrange_type | dw::DW_TAG_generic_subrange
                if matches!(parent, Parent::Type(_)) =>
            {
                self.child(parent, tag, entry);
                (Parent::Ignored, scope)
            }
            _ if is_type(tag) => self.ty(tag, declared(offset, scope, entry), entry),
            _ => (Parent::Ignored, scope),
        }
    }

    fn add_scope(&mut self, parent: ScopeId, kind: ScopeKind<'a>) -> ScopeId {
        let id = index(self.out.scopes.len());
        self.out.scopes.push(RawScope { parent, kind });
        id
    }

    fn block(&mut self, scope: ScopeId) -> ScopeId {
        let number = self.open.last_mut().map_or(0, |open| {
            open.blocks += 1;
            open.blocks
        });
        self.add_scope(scope, ScopeKind::Block(number))
    }

    fn function(
        &mut self,
        declared: RawDeclaration<'a>,
        entry: &Attributes<'a>,
    ) -> (Parent, ScopeId) {
        let (low_pc, ranges) = self.context.code(entry);
        let id = index(self.out.functions.len());
        let scope = self.add_scope(declared.scope, ScopeKind::Function(id));
        self.out.functions.push(RawFunction {
            declared,
            ranges,
            low_pc,
            noreturn: entry.noreturn,
            prototyped: entry.prototyped,
            variadic: false,
            parameters: Vec::new(),
            mentions: declared.ty.into_iter().collect(),
        });
        (Parent::Function(id), scope)
    }

    fn parameter(
        &mut self,
        parent: Parent,
        scope: ScopeId,
        entry: &Attributes<'a>,
    ) -> (Parent, ScopeId) {
        match parent {
            Parent::Function(id) => {
                // Parameters in a block are those of a body inlined there.
                let is_own = matches!(
                    self.out.scopes[scope as usize].kind,
                    ScopeKind::Function(function) if function == id
                );
                let function = &mut self.out.functions[id as usize];
                // gcc's "in charge" flag of constructors and destructors is never passed.
                if is_own && entry.name != Some(b"__in_chrg") {
                    let has_origin = entry.origin.is_some();
                    function.parameters.push(RawParameter { ty: entry.ty, has_origin });
                }
                function.mentions.extend(entry.ty);
            }
            Parent::Type(id) => self.out.types[id as usize].children.push(RawChild {
                kind: ChildKind::Parameter,
                name: None,
                ty: entry.ty,
            }),
            _ => {}
        }
        (Parent::Ignored, scope)
    }

    fn ellipsis(&mut self, parent: Parent, scope: ScopeId) -> (Parent, ScopeId) {
        match parent {
            Parent::Function(id) => self.out.functions[id as usize].variadic = true,
            Parent::Type(id) => self.out.types[id as usize].children.push(RawChild {
                kind: ChildKind::Ellipsis,
                name: None,
                ty: None,
            }),
            _ => {}
        }
        (Parent::Ignored, scope)
    }

    fn variable(
        &mut self,
        parent: Parent,
        declared: RawDeclaration<'a>,
        entry: &Attributes<'a>,
    ) -> (Parent, ScopeId) {
        let places = entry.location.map(|location| self.context.places(location));
        let places = places.unwrap_or_default();
        if let Parent::Function(id) = parent {
            self.out.functions[id as usize].mentions.extend(declared.ty);
        }
        let is_local = matches!(parent, Parent::Function(_) | Parent::Inlined);
        // A local without a static place is of use only if a concrete instance may refer to it.
        if !places.is_empty() || declared.origin.is_none() {
            self.out.variables.push(RawVariable { declared, places, is_local });
        }
        (Parent::Ignored, declared.scope)
    }

    fn child(&mut self, parent: Parent, tag: DwTag, entry: &Attributes<'a>) {
        let (ty, discriminant) = match parent {
            Parent::Type(ty) => (ty, None),
            Parent::Variant(ty, discriminant) => (ty, Some(discriminant)),
            _ => return,
        };
        let kind = match tag {
            dw::DW_TAG_enumerator => ChildKind::Enumerator(entry.const_value.unwrap_or(0)),
            dw::DW_TAG_inheritance => ChildKind::Base(match entry.member_location {
                MemberLocation::Absent => Some(0),
                MemberLocation::Bytes(bytes) if !entry.is_virtual => Some(bytes),
                _ => None,
            }),
            dw::DW_TAG_member => {
                let placement = placement(entry);
                discriminant.map_or(ChildKind::Field(placement), |discriminant| {
                    ChildKind::Variant(placement, discriminant)
                })
            }
            _ => ChildKind::Dimension(entry.dimension()),
        };
        let child = RawChild { kind, name: entry.name, ty: entry.ty };
        self.out.types[ty as usize].children.push(child);
    }

    fn ty(
        &mut self,
        tag: DwTag,
        declared: RawDeclaration<'a>,
        entry: &Attributes<'a>,
    ) -> (Parent, ScopeId) {
        let id = index(self.out.types.len());
        // gcc does not mark all stubs of types in type units as declarations.
        let declaration = declared.declaration || entry.definition.is_some();
        self.out.types.push(RawType {
            declared: RawDeclaration { declaration, ..declared },
            tag,
            definition: entry.definition.flatten(),
            size: entry.byte_size,
            encoding: entry.encoding,
            vector: entry.vector,
            by_reference: entry.by_reference,
            children: Vec::new(),
        });
        (Parent::Type(id), self.add_scope(declared.scope, ScopeKind::Type(id)))
    }
}

fn declared<'a>(offset: u64, scope: ScopeId, entry: &Attributes<'a>) -> RawDeclaration<'a> {
    RawDeclaration {
        offset,
        scope,
        name: entry.name,
        linkage_name: entry.linkage_name,
        ty: entry.ty,
        origin: entry.origin,
        file: entry.file,
        line: entry.line,
        external: entry.external,
        declaration: entry.declaration,
    }
}

fn placement(entry: &Attributes<'_>) -> Placement {
    let bytes = match entry.member_location {
        MemberLocation::Bytes(bytes) => bytes,
        MemberLocation::Absent | MemberLocation::Computed => 0,
    };
    let bits = bytes.saturating_mul(8).saturating_add(entry.data_bit_offset.unwrap_or(0));
    let from_top = entry.bit_offset.map(|offset| (offset, entry.byte_size));
    Placement { bits, bit_size: entry.bit_size, from_top }
}

fn is_type(tag: DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_base_type
            | dw::DW_TAG_pointer_type
            | dw::DW_TAG_reference_type
            | dw::DW_TAG_rvalue_reference_type
            | dw::DW_TAG_ptr_to_member_type
            | dw::DW_TAG_array_type
            | dw::DW_TAG_structure_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_interface_type
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_subroutine_type
            | dw::DW_TAG_typedef
            | dw::DW_TAG_template_alias
            | dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_atomic_type
            | dw::DW_TAG_packed_type
            | dw::DW_TAG_shared_type
            | dw::DW_TAG_immutable_type
            | dw::DW_TAG_unspecified_type
            | dw::DW_TAG_string_type
            | dw::DW_TAG_set_type
            | dw::DW_TAG_file_type
            | dw::DW_TAG_subrange_type
            | dw::DW_TAG_coarray_type
            | dw::DW_TAG_dynamic_type
            | dw::DW_TAG_thrown_type
    )
}

/// A position in one of a unit's lists. A unit of 32-bit DWARF has less than 2^32 bytes, and the
/// list of units refuses larger ones.
#[expect(clippy::cast_possible_truncation, reason = "a unit has less than 2^32 entries")]
fn index(length: usize) -> u32 {
    length as u32
}
