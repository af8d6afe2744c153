//! Variables and tables: what is carried over as it is, updated in place, moved, or refused.
//!
//! Takes both images and the matching; gives one [`Decision`] for each object that is not simply
//! the same, and the structure types whose layout changed. Live values are never touched unless the
//! user says so for that object; constants follow NEW.

mod labels;

use crate::change::Pair;
use crate::debug::{Layout, LayoutComparer, changed_types};
use crate::image::{Object, ObjectId, Storage};
use crate::matching::names::{canonical, readable};
use crate::refusal::Refusal;
use dsu_patch_format::manifest::{DataAction, DataChange, ImageKind};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What the user wants done with one object whose initializer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The running value stays.
    Keep,
    /// NEW's initial value takes its place.
    New,
}

/// What the user decided beforehand.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// By name of the object.
    pub objects: BTreeMap<String, Choice>,
    /// Structure types of which no object with the old layout is alive, says the user.
    pub accepted_types: BTreeSet<String>,
}

/// All decisions about data.
#[derive(Debug, Clone, Default)]
pub struct DataPlan {
    /// For the report, by name.
    pub changes: Vec<DataChange>,
    /// OLD objects whose place NEW code must not use, with the reason for their users.
    pub moved: BTreeMap<ObjectId, String>,
    /// Objects to be overwritten at commit with NEW's content: OLD, NEW.
    pub updates: BTreeSet<(ObjectId, ObjectId)>,
    /// NEW variables without a partner that may be one of OLD's all the same: starting them anew is refused.
    pub doubtful: BTreeMap<ObjectId, Refusal>,
    /// What cannot be done.
    pub refusals: Vec<Refusal>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What happens with one pair of objects.
enum Decision {
    Same,
    Kept(&'static str),
    Update(&'static str),
    Move(String),
    Refuse(Refusal),
}

/// Decides about every object.
#[must_use]
pub fn plan(pair: Pair<'_>, choices: &Choices) -> DataPlan {
    let decisions: Vec<(ObjectId, ObjectId, Decision)> = (0..pair.old.objects.len())
        .into_par_iter()
        .map(ObjectId)
        .filter_map(|a| Some((a, pair.matching.new_object(a)?)))
        .map_init(
            || LayoutComparer::new(&pair.old.debug, &pair.new.debug),
            |comparer, (a, b)| (a, b, decide(pair, choices, comparer, a, b)),
        )
        .collect();
    let mut plan = DataPlan::default();
    for (a, b, decision) in decisions {
        plan.note(pair, a, b, decision);
    }
    plan.pointers_to_moved(pair, choices);
    plan.unknown_choices(pair, choices);
    plan.exported_tables(pair);
    plan.doubtful = doubtful(pair, choices);
    plan
}

/// Variables of NEW without a partner, where OLD has one of the same name that has none either: in another
/// unit, of the same size (a file that was renamed or moved, most likely), or several in the same unit
/// (which compilers tell apart by numbers alone). A value would be lost.
fn doubtful(pair: Pair<'_>, choices: &Choices) -> BTreeMap<ObjectId, Refusal> {
    let has_value = |o: &Object| o.storage != Storage::Constant && o.size > 0;
    let mut gone: BTreeMap<String, Vec<&Object>> = BTreeMap::new();
    for (id, object) in (0..).map(ObjectId).zip(&pair.old.objects) {
        if pair.matching.new_object(id).is_none() && has_value(object) {
            gone.entry(canonical(object.name())).or_default().push(object);
        }
    }
    let mut out = BTreeMap::new();
    for (id, object) in (0..).map(ObjectId).zip(&pair.new.objects) {
        let chosen = object.names.iter().any(|n| choices.objects.get(n) == Some(&Choice::New));
        if pair.matching.old_object(id).is_some() || !has_value(object) || chosen {
            continue;
        }
        let may_be = |old: &&&Object| old.unit == object.unit || old.size == object.size;
        let namesakes = gone.get(&canonical(object.name())).into_iter().flatten();
        if let Some(old) = namesakes.clone().find(may_be) {
            out.insert(id, value_lost(object, old));
        }
    }
    out
}

fn value_lost(object: &Object, old: &Object) -> Refusal {
    let name = readable(object.name());
    Refusal {
        code: "unit",
        subject: object.name().to_owned(),
        text: format!(
            "variable {name} ({}) has no partner in OLD that is sure, but OLD has {} ({}), which has none in \
             NEW: if it is the same one, its value would be lost",
            object.unit,
            readable(old.name()),
            old.unit
        ),
        way_out: format!(
            "compile OLD and NEW with the same names of their source files, and give variables of one file \
             names of their own; or, if NEW's variable is another one, --data '{name}=new'"
        ),
    }
}

/// Structure types whose layout changed and of which heap objects may be alive.
#[must_use]
pub fn changed_layouts(pair: Pair<'_>, choices: &Choices) -> (Vec<Refusal>, Vec<String>) {
    let (mut refusals, mut warnings) = (Vec::new(), Vec::new());
    let changes = changed_types(&pair.old.debug, &pair.new.debug);
    for name in choices.accepted_types.iter().filter(|n| changes.iter().all(|c| c.name != **n)) {
        warnings.push(format!("--accept-layout {name}: no type of that name changed its layout"));
    }
    for change in changes {
        if !change.reached_by_pointer {
            continue;
        }
        let differences: Vec<String> =
            change.differences.iter().take(3).map(ToString::to_string).collect();
        let what = format!(
            "{} {} changed its layout ({} -> {} bytes: {})",
            change.kind.keyword(),
            change.name,
            change.old_size.unwrap_or(0),
            change.new_size.unwrap_or(0),
            differences.join("; ")
        );
        if choices.accepted_types.contains(&change.name) {
            warnings.push(format!("{what}; accepted: no object of it is alive at the update"));
            continue;
        }
        let users = if change.users.is_empty() {
            String::new()
        } else {
            format!("; used by {}", change.users.join(", "))
        };
        refusals.push(Refusal {
            code: "type-layout",
            subject: change.name.clone(),
            text: format!("{what}; objects of it in the heap cannot be carried over yet{users}"),
            way_out: format!(
                "restart for this update; or, if no object of this type lives across the update \
                 (made and freed within one request), --accept-layout '{}'",
                change.name
            ),
        });
    }
    (refusals, warnings)
}

fn decide(
    pair: Pair<'_>,
    choices: &Choices,
    comparer: &mut LayoutComparer<'_>,
    a: ObjectId,
    b: ObjectId,
) -> Decision {
    let (x, y) = (pair.old.object(a), pair.new.object(b));
    if x.copied || y.copied {
        return Decision::Same;
    }
    let choice = x.names.iter().find_map(|n| choices.objects.get(n)).copied();
    if let Some(difference) = layout_difference(pair, comparer, x, y) {
        return match (x.storage, choice) {
            (Storage::Constant, _) => {
                Decision::Move(format!("refers to {}, a table that {difference}", x.name()))
            }
            (Storage::Writable, Some(Choice::New)) => {
                Decision::Move(format!("refers to {}, which {difference}", x.name()))
            }
            _ => Decision::Refuse(layout_refusal(x, &difference)),
        };
    }
    if x.storage == Storage::ThreadLocal {
        return match initial_tls(pair, x, y) {
            true => Decision::Same,
            false => Decision::Kept("its initial value changed; threads keep OLD's"),
        };
    }
    if crate::change::same_content(pair, x.range(), y.range()) {
        return match choice {
            Some(Choice::New) if x.storage == Storage::Writable => {
                Decision::Update("asked for with --data")
            }
            _ => Decision::Same,
        };
    }
    match (x.storage, choice) {
        (Storage::Constant, _) => Decision::Update("a constant table whose content changed"),
        (_, Some(Choice::New)) => Decision::Update("its initializer changed; NEW's was asked for"),
        (_, Some(Choice::Keep)) => Decision::Kept("its initializer changed; kept as asked"),
        (_, None) => Decision::Kept("its initializer changed; the running value stays"),
    }
}

fn initial_tls(pair: Pair<'_>, x: &Object, y: &Object) -> bool {
    let zero_or = |image: &crate::image::Image, o: &Object| {
        image
            .section_at(o.address)
            .filter(|s| s.kind == crate::image::SectionKind::Tls)
            .and_then(|_| image.content(o.address, o.size))
            .map_or_else(|| vec![0; usize::try_from(o.size).unwrap_or(0)], Into::into)
    };
    zero_or(pair.old, x) == zero_or(pair.new, y)
}

/// In words, when two objects of one name are laid out differently.
fn layout_difference(
    pair: Pair<'_>,
    comparer: &mut LayoutComparer<'_>,
    x: &Object,
    y: &Object,
) -> Option<String> {
    let types = |image: &crate::image::Image, o: &Object| image.variable(o).and_then(|v| v.ty);
    let typed = match (types(pair.old, x), types(pair.new, y)) {
        (Some(s), Some(t)) => match comparer.compare(x.name(), s, t) {
            Layout::Same | Layout::SameWithNotes(_) => None,
            Layout::Changed(differences) => {
                let shown: Vec<String> =
                    differences.iter().take(5).map(ToString::to_string).collect();
                Some(format!("changed its layout ({})", shown.join("; ")))
            }
        },
        _ => None,
    };
    if x.size != y.size {
        let why = typed.map_or_else(String::new, |t| format!(": {t}"));
        return Some(format!("changed its size ({} -> {} bytes){why}", x.size, y.size));
    }
    typed
}

fn layout_refusal(x: &Object, difference: &str) -> Refusal {
    let name = x.name().to_owned();
    Refusal {
        code: "variable-layout",
        text: format!(
            "variable {} {difference}; its live value cannot be carried over yet",
            readable(&name)
        ),
        way_out: format!(
            "restart for this update; or, if NEW's initial value may replace the live one, \
             --data '{name}=new'"
        ),
        subject: name,
    }
}

impl DataPlan {
    fn note(&mut self, pair: Pair<'_>, a: ObjectId, b: ObjectId, decision: Decision) {
        let (x, y) = (pair.old.object(a), pair.new.object(b));
        let mut change = |action, why: String| {
            self.changes.push(DataChange {
                name: x.name().to_owned(),
                old_size: x.size,
                new_size: y.size,
                action,
                why,
            });
        };
        match decision {
            Decision::Same => {}
            Decision::Kept(why) => change(DataAction::KeptValue, why.to_owned()),
            Decision::Update(why) => {
                change(DataAction::UpdatedInPlace, why.to_owned());
                self.updates.insert((a, b));
            }
            Decision::Move(why) => {
                let told = why.split(" that ").last().unwrap_or(&why).to_owned();
                change(DataAction::Moved, told);
                self.moved.insert(a, why);
            }
            Decision::Refuse(refusal) => self.refusals.push(refusal),
        }
    }

    /// A live variable that was initialized with the address of an object that moves goes on
    /// pointing to the OLD one, with OLD's size.
    fn pointers_to_moved(&mut self, pair: Pair<'_>, choices: &Choices) {
        use crate::image::{Meaning, Thing};
        if self.moved.is_empty() {
            return;
        }
        for (i, object) in pair.old.objects.iter().enumerate() {
            let id = ObjectId(i);
            let decided = self.moved.contains_key(&id)
                || self.updates.iter().any(|(a, _)| *a == id)
                || object.names.iter().any(|n| choices.objects.contains_key(n));
            if decided || object.storage == Storage::ThreadLocal || object.size == 0 {
                continue;
            }
            let target = crate::change::pointers(pair.old, &object.range()).into_iter().find_map(
                |(_, relocation)| match relocation.meaning {
                    Meaning::Address(to) => match pair.old.resolve(to) {
                        Thing::Object { object, .. } if self.moved.contains_key(&object) => {
                            Some(object)
                        }
                        _ => None,
                    },
                    _ => None,
                },
            );
            let Some(target) = target else { continue };
            let target = pair.old.object(target).name().to_owned();
            match (object.storage, pair.matching.new_object(id)) {
                (Storage::Constant, Some(counterpart)) => {
                    self.note(
                        pair,
                        id,
                        counterpart,
                        Decision::Update("points to a table that moves"),
                    );
                }
                _ => self.refusals.push(Refusal {
                    code: "pointer-to-moved",
                    subject: object.name().to_owned(),
                    text: format!(
                        "variable {} holds the address of {target}, which NEW has elsewhere with \
                         another size",
                        object.name()
                    ),
                    way_out: format!(
                        "--data '{0}=new' to give it NEW's initial value, or --data '{0}=keep' if \
                         it no longer matters",
                        object.name()
                    ),
                }),
            }
        }
    }

    /// Exported tables without a size (assembler sources): only other images may read them, so that
    /// no function of this one shows the change.
    fn exported_tables(&mut self, pair: Pair<'_>) {
        if pair.old.kind != ImageKind::Library {
            return;
        }
        for object in pair.old.objects.iter().filter(|o| o.size == 0 && !o.local) {
            let name = object.name();
            if pair.old.unsized_tables(name).is_empty() || crate::change::same_label(pair, name) {
                continue;
            }
            self.refusals.push(Refusal {
                code: "unsized",
                subject: name.to_owned(),
                text: format!(
                    "{name}, an exported label without a size among constants, stands at other \
                     content in NEW, and other images may read it"
                ),
                way_out: format!(
                    "say what it is in its source: `.type {name}, @object` and \
                     `.size {name}, . - {name}`"
                ),
            });
        }
    }

    fn unknown_choices(&mut self, pair: Pair<'_>, choices: &Choices) {
        for name in choices.objects.keys() {
            let known = pair.old.objects.iter().any(|o| o.names.contains(name));
            if !known {
                self.warnings.push(format!("--data {name}: OLD has no variable of that name"));
            }
        }
    }
}
