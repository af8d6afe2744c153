//! Tables of labels (computed `goto`) of replaced functions.
//!
//! A label belongs to a body: NEW's body jumps to NEW's labels, which it reads from NEW's table, in
//! the shadow image. OLD's table stays as it is. A label of OLD that was put away elsewhere (in a
//! variable, in code that an interpreter threads through memory) would lead NEW's body back into
//! OLD's: where OLD's code may do that, the update is refused.

use super::{DataPlan, Decision};
use crate::change::{Closure, Pair, pointers};
use crate::code::{Field, decode, for_each_reference};
use crate::image::{Function, FunctionId, Image, Meaning, Object, ObjectId, Storage, Thing};
use crate::machine::provenance::{Provenance, Uses};
use crate::matching::names::readable;
use crate::refusal::Refusal;
use iced_x86::FlowControl;

impl DataPlan {
    /// Moves the tables of labels of replaced functions; whether there were any that had not moved.
    pub fn label_tables(&mut self, pair: Pair<'_>, closure: &Closure) -> bool {
        let mut news = false;
        for (i, object) in pair.old.objects.iter().enumerate() {
            let id = ObjectId(i);
            let Some(new) = pair.matching.new_object(id) else { continue };
            let plain = object.size > 0 && object.storage != Storage::ThreadLocal;
            if !plain || self.moved.contains_key(&id) {
                continue;
            }
            let Some((owner, labels)) = labels(pair.old, object, closure) else { continue };
            let name = pair.old.function(owner).name();
            // A variable, not a table: what it holds now is the state of the program.
            if object.storage == Storage::Writable && (labels < 2 || object.size != labels * 8) {
                self.refusals.push(refusal(name, &format!("the variable {}", object.name())));
            }
            self.forget(pair, id, new);
            let why = format!("refers to {}, a table that holds labels of {name}", object.name());
            self.note(pair, id, new, Decision::Move(why));
            news = true;
        }
        news
    }

    /// What was decided about an object before.
    fn forget(&mut self, pair: Pair<'_>, old: ObjectId, new: ObjectId) {
        if self.updates.remove(&(old, new)) {
            let object = pair.old.object(old);
            self.changes.retain(|c| c.name != object.name() || c.old_size != object.size);
        }
    }

    /// Refuses where OLD's code may have put a label of a replaced function away.
    pub fn kept_labels(&mut self, pair: Pair<'_>, closure: &Closure) {
        for id in closure.replaced.keys() {
            let function = pair.old.function(*id);
            if !jumps_to_labels(pair.old, function) {
                continue;
            }
            let own =
                |at: u64| at != function.address && function.parts().any(|part| part.contains(&at));
            let tables: Vec<&Object> = self
                .moved
                .keys()
                .map(|o| pair.old.object(*o))
                .filter(|o| labels(pair.old, o, closure).is_some())
                .collect();
            let table = |at: u64| tables.iter().any(|t| t.range().contains(&at));
            let mut provenance = None;
            let mut kept = false;
            for part in function.parts() {
                for_each_reference(pair.old, part, |r| {
                    let branch = matches!(r.field, Field::Branch8 | Field::Branch32);
                    if branch || kept || !own(r.target) && !table(r.target) {
                        return;
                    }
                    let provenance =
                        provenance.get_or_insert_with(|| Provenance::new(pair.old, function));
                    let uses = provenance
                        .as_ref()
                        .and_then(|p| p.find(r.at).map(|index| &p.origins[index].uses));
                    // What is read at a fixed place goes into a register that is not followed.
                    kept = uses.is_none_or(|uses: &Uses| uses.escapes || uses.content_escapes);
                });
            }
            if kept {
                self.refusals.push(refusal(function.name(), "memory or another function"));
            }
        }
    }
}

/// Whether a function has a jump whose target is a value.
fn jumps_to_labels(image: &Image, function: &Function) -> bool {
    let steps = decode(image, function).steps;
    steps.iter().any(|s| s.instruction.flow_control() == FlowControl::IndirectBranch)
}

/// Whose labels an object holds, and how many pointers, when it holds labels of a replaced function.
fn labels(image: &Image, object: &Object, closure: &Closure) -> Option<(FunctionId, u64)> {
    let all = pointers(image, &object.range());
    let owner = all.iter().find_map(|(_, pointer)| {
        let Meaning::Address(to) = pointer.meaning else { return None };
        match image.resolve(to) {
            Thing::Code { function, offset } if offset > 0 => {
                closure.replaced.contains_key(&function).then_some(function)
            }
            _ => None,
        }
    })?;
    Some((owner, all.len() as u64))
}

fn refusal(function: &str, place: &str) -> Refusal {
    Refusal {
        code: "labels",
        subject: function.to_owned(),
        text: format!(
            "{} changed, and {place} may hold addresses of labels in it (computed goto), which lead \
             into OLD's body",
            readable(function)
        ),
        way_out:
            "keep this function as it is, keep indices instead of label addresses, or restart \
                  for this update"
                .to_owned(),
    }
}
