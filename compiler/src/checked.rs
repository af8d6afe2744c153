//! No site and no passage without the checker's consent: what it objects to is taken out and becomes blind.
//!
//! Takes what is proven of each function's frames; gives the plan with its sites planted. The bundle is
//! encoded and read back for the check, as the process's side will read it.

use crate::BuildError;
use crate::check::{Checker, Impassable, Objection};
use crate::emit::{Emitted, Inputs, carried};
use crate::frames::{Blind, Carried, Obstacle, Proven};
use dsu_patch_format::{Bundle, Manifest};
use std::collections::BTreeMap;

/// Sites that are taken out make room for others, or for their own second choice; after so many rounds there is nothing
/// left to try.
const ROUNDS: usize = 6;

/// Plants all sites that the checker accepts.
///
/// # Errors
/// [`BuildError::Encode`] when the plan does not pass its own reader.
pub fn plant(
    inputs: Inputs<'_>,
    proven: &mut [Carried],
    bare: &Emitted,
) -> Result<Emitted, BuildError> {
    for _ in 0..ROUNDS {
        let mut emitted = bare.clone();
        carried::write(inputs, proven, &mut emitted);
        let (objections, impassable) = objections(inputs, &emitted)?;
        if objections.is_empty() && impassable.is_empty() {
            return Ok(emitted);
        }
        take_out(proven, &objections);
        for one in proven.iter_mut() {
            let entry = inputs.pair.old.function(one.function).address;
            let own = |i: &Impassable| emitted.replaced[i.function as usize].old.0 == entry;
            one.flow.take_if(|_| impassable.iter().any(own));
        }
    }
    for one in proven.iter_mut() {
        one.proven.clear();
        one.flow = None;
    }
    let mut emitted = bare.clone();
    carried::write(inputs, proven, &mut emitted);
    Ok(emitted)
}

type Objections = (Vec<Objection>, Vec<Impassable>);

fn objections(inputs: Inputs<'_>, emitted: &Emitted) -> Result<Objections, BuildError> {
    if emitted.plan.sites.is_empty() && emitted.plan.passages.is_empty() {
        return Ok(Objections::default());
    }
    let pair = inputs.pair;
    let manifest = Manifest {
        tool: String::new(),
        options: Vec::new(),
        old: crate::build_info(pair.old),
        new: crate::build_info(pair.new),
        replaced: emitted.replaced.clone(),
        added: emitted.added.clone(),
        line_only: Vec::new(),
        data: Vec::new(),
        blind_points: Vec::new(),
        warnings: Vec::new(),
    };
    let bundle = Bundle { manifest, plan: emitted.plan.clone(), frames: emitted.frames.clone() };
    let read = dsu_patch_format::decode(&dsu_patch_format::encode(&bundle)?)?;
    let checker = Checker::new(pair.old, pair.new, &read);
    Ok((checker.sites(&read), checker.passages(&read)))
}

fn take_out(proven: &mut [Carried], objections: &[Objection]) {
    let mut by_site: BTreeMap<_, Vec<Obstacle>> = BTreeMap::new();
    for objection in objections {
        let text = format!(
            "the checker does not accept it: {} (must hold: {})",
            objection.subject, objection.rule
        );
        by_site.entry(objection.at).or_default().push(Obstacle::new(text));
    }
    for one in proven {
        let (out, left): (Vec<_>, Vec<_>) =
            one.proven.drain(..).partition(|p| by_site.contains_key(&p.at));
        one.proven = left;
        for out in out {
            let is_same = |second: &Proven| (second.at, second.kind) == (out.at, out.kind);
            if let Some(second) = one.seconds.iter().position(is_same) {
                one.proven.push(one.seconds.swap_remove(second));
                continue;
            }
            let mut obstacles = by_site.get(&out.at).cloned().unwrap_or_default();
            let uncopied = one.uncopied.as_deref().filter(|_| out.leaves_behind);
            obstacles.extend(uncopied.map(Obstacle::uncopied));
            one.blind.push(Blind { at: out.at, kind: out.kind, obstacles });
        }
    }
}
