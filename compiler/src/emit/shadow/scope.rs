//! Which objects the source of a function can name.
//!
//! C knows no name that is not declared (C17 6.2.1, 6.5.1): static variables are of one unit, those that are local to
//! a function of that function and where it was inlined, and of external ones gcc describes exactly those that a
//! unit's code uses. Where nothing is known, everything can be named.
//!
//! Takes a function that is carried and an object of NEW.

use super::{Carrying, Shadow};
use crate::debug::{Language, UnitId, Variable};
use crate::image::{Function, Image, ObjectId};
use crate::matching::names::{is_compilers_table, stem};

impl Shadow<'_> {
    /// Whether a function's source can name an object.
    pub(super) fn sees(&self, ctx: &Carrying<'_>, id: ObjectId) -> bool {
        let image = self.new_image();
        let object = image.object(id);
        let Some(unit) = image.declared(ctx.function).map(|f| f.unit) else { return true };
        match image.variable(object) {
            Some(variable) if object.local => {
                // Units that were compiled together are one.
                is_lto(image, unit)
                    || is_lto(image, variable.unit)
                    || variable.unit == unit && self.is_in_scope(ctx, variable)
            }
            None if object.names.iter().any(|name| is_compilers_table(name)) => true,
            _ => {
                let named = |name: &String| image.debug.names(unit, plain(name));
                !names_all(image, unit) || object.names.iter().any(named)
            }
        }
    }

    /// Whether code of a function may be in the scope of a variable of its unit.
    pub(super) fn is_in_scope(&self, ctx: &Carrying<'_>, variable: &Variable) -> bool {
        let image = self.new_image();
        let Some(of) = variable.scope.first().filter(|_| variable.is_local) else { return true };
        let Some(declared) = image.declared(ctx.function) else { return true };
        let unit = image.debug.unit(declared.unit);
        // A function in another one's scope sees what that one sees.
        if unit.is_none_or(|unit| unit.language != Language::C) || !declared.scope.is_empty() {
            return true;
        }
        // What all callers pass on compilers may put into their callee: gcc into a clone of it, others into itself.
        let names = &ctx.function.names;
        let is_gcc = unit.is_some_and(|unit| unit.is_gcc);
        names.iter().any(|name| name == of || stem(name) != name)
            || ctx.function.local && !is_gcc
            || has_inlined(image, ctx.function, of)
    }
}

/// Whether a body has that of another function in it, or may have.
fn has_inlined(image: &Image, function: &Function, of: &str) -> bool {
    let Ok(locals) = image.locals(function) else { return true };
    locals.damage.is_some()
        || locals.inlined.iter().flat_map(|i| &i.scope).any(|scope| scope.function == of)
}

fn is_lto(image: &Image, unit: UnitId) -> bool {
    image.debug.unit(unit).is_none_or(|unit| unit.lto)
}

/// Whether a unit describes every external variable that its code uses: gcc does for C, unless it was asked for
/// less than `-g` gives.
fn names_all(image: &Image, unit: UnitId) -> bool {
    image.debug.unit(unit).is_some_and(|unit| {
        let less = unit.producer.split_whitespace().any(|word| matches!(word, "-g0" | "-g1"));
        unit.is_gcc && unit.language == Language::C && !unit.lto && !less
    })
}

/// A symbol's name without its version, and without the number of a static local.
fn plain(name: &str) -> &str {
    stem(name.split('@').next().unwrap_or(name))
}
