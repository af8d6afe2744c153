//! Variables and tables: by name; statics by unit and scope; what only the compiler named is left
//! to the comparison of whoever refers to it.

use super::{Matching, names};
use crate::debug::Part;
use crate::image::{Image, Object, ObjectId, Storage};
use std::collections::BTreeMap;

/// Unit, scope, name, part.
type Key = (String, Vec<String>, String, Option<Part>);

/// Adds every pair of objects to `matching`.
pub(super) fn pair(old: &Image, new: &Image, out: &mut Matching) {
    by_key(old, new, out, |_, o| is_global(o).then(|| key("", &[], o.name())));
    by_key(old, new, out, |image, o| {
        let (scope, name, part) = debug_scope(image, o)?;
        Some((o.unit.clone(), scope, name, part))
    });
    by_key(old, new, out, |_, o| {
        (o.local && !names::is_numbered(o.name())).then(|| key(&o.unit, &[], o.name()))
    });
    // A numbered static without debug information: only when its unit has one of that name.
    by_key(old, new, out, |_, o| {
        let variable = o.local && o.debug.is_none() && o.storage != Storage::Constant;
        variable.then(|| key(&o.unit, &[], &names::canonical(o.name())))
    });
    // A static that became global, or the reverse, in the same unit.
    by_key(old, new, out, |image, o| {
        file_scope(image, o).then(|| key(&o.unit, &[], &names::canonical(o.name())))
    });
}

/// Whether its name alone says which one it is.
fn is_global(object: &Object) -> bool {
    !object.local && !names::is_privatized(object.name())
}

fn key(unit: &str, scope: &[String], name: &str) -> Key {
    (unit.to_owned(), scope.to_vec(), name.to_owned(), None)
}

/// Whether the debug information declares it, as a whole, outside of every function: a static local of another
/// function is another variable, whatever its name, and so is another part.
fn file_scope(image: &Image, object: &Object) -> bool {
    image.variable(object).is_some_and(|v| !v.is_local && v.part.is_none())
}

/// Where the debug information declares a static, its name in the source, and which part of it this is.
fn debug_scope(image: &Image, object: &Object) -> Option<(Vec<String>, String, Option<Part>)> {
    let variable = image.variable(object)?;
    let scope = variable.scope.iter().map(|s| names::canonical(s)).collect();
    Some((scope, names::canonical(variable.link_name()), variable.part))
}

/// Pairs what shares a key, when exactly one object on each side has it.
fn by_key(
    old: &Image,
    new: &Image,
    out: &mut Matching,
    key: impl Fn(&Image, &Object) -> Option<Key>,
) {
    let mut groups: BTreeMap<Key, (Vec<ObjectId>, Vec<ObjectId>)> = BTreeMap::new();
    for (i, object) in old.objects.iter().enumerate().filter(|(_, o)| has_identity(o)) {
        if out.new_object(ObjectId(i)).is_none()
            && let Some(key) = key(old, object)
        {
            groups.entry(key).or_default().0.push(ObjectId(i));
        }
    }
    for (i, object) in new.objects.iter().enumerate().filter(|(_, o)| has_identity(o)) {
        if out.old_object(ObjectId(i)).is_none()
            && let Some(key) = key(new, object)
        {
            groups.entry(key).or_default().1.push(ObjectId(i));
        }
    }
    for (olds, news) in groups.into_values() {
        if let ([a], [b]) = (olds.as_slice(), news.as_slice())
            && same_storage(old.object(*a), new.object(*b))
        {
            out.add_object(*a, *b);
        }
    }
}

/// Whether an object is more than its content.
fn has_identity(object: &Object) -> bool {
    object.size > 0 && !names::is_compilers_table(object.name())
}

/// A variable that became a constant, or thread-local, is another variable.
fn same_storage(a: &Object, b: &Object) -> bool {
    a.storage == b.storage
}
