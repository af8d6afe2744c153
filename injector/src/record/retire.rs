//! Which records of a process are needless, so that their memory can be given back.
//!
//! Nothing in the process refers to a record: it is this tool's own. Takes the records of one image; gives
//! the parts of their spans that hold nothing else. Kept is the last update, the one before, so that the
//! last one can be taken back, and all that these two say they need. Of updates that were taken back the
//! newest of each shadow image is kept: it says where that image is, for the next application of the same
//! bundle. Pure.

use super::{Extent, Found, Record, State};
use std::collections::BTreeSet;

/// How many updates can always be taken back.
const KEPT: usize = 1;

/// Whether a later record says all that this one says of its shadow image: it is the same image, or neither
/// has one and they are of the same bundle.
#[must_use]
pub fn says_the_same(record: &Record, later: &Record) -> bool {
    record.serial < later.serial
        && record.bundle == later.bundle
        && (record.image == later.image || record.image.len == 0 && later.image.len == 0)
}

/// The memory of needless records among those of one image.
#[must_use]
pub fn needless(records: &[&Found]) -> Vec<Extent> {
    let mut applied: Vec<_> = records.iter().filter(|f| f.state == State::Applied).collect();
    applied.sort_by_key(|f| f.record.sequence);
    let newest = applied.iter().rev().take(KEPT + 1);
    let needed: BTreeSet<u32> =
        newest.flat_map(|f| f.record.needs.iter().copied().chain([f.record.sequence])).collect();
    let is_needless = |found: &&&Found| match found.state {
        State::Applied => !needed.contains(&found.record.sequence),
        State::Undone => records.iter().any(|later| {
            matches!(later.state, State::Applied | State::Undone)
                && says_the_same(&found.record, &later.record)
        }),
        State::Prepared | State::Committing | State::Reverting => false,
    };
    records.iter().filter(is_needless).map(|found| found.record.own()).collect()
}

/// Whether everything that this update says it needs is still there: else the process cannot be brought
/// back to it.
#[must_use]
pub fn is_whole(record: &Record, others: &[Record]) -> bool {
    record.needs.iter().all(|needed| others.iter().any(|other| other.sequence == *needed))
}

#[cfg(test)]
mod tests {
    use super::super::test_record;
    use super::*;
    use crate::address::ProcAddr;

    fn found(sequence: u32, serial: u64, image: u64, state: State, needs: &[u32]) -> Found {
        let mut record = test_record(sequence, 0, Vec::new());
        record.serial = serial;
        record.bundle = image.to_string();
        record.image = Extent { start: image, len: 0x1000 };
        record.span_start = 0x100_0000 + serial * 0x1_0000;
        record.span_len = 0x2000;
        record.needs = needs.to_vec();
        Found { at: ProcAddr(0), state, held: false, note: None, record }
    }

    fn gone(records: &[Found]) -> Vec<u64> {
        let all: Vec<_> = records.iter().collect();
        needless(&all).iter().map(|own| (own.start - 0x100_0000) / 0x1_0000).collect()
    }

    #[test]
    fn there_and_back() {
        use State::Applied;
        let mut records = vec![found(1, 1, 7, Applied, &[]), found(2, 2, 8, Applied, &[1])];
        assert_eq!(gone(&records), [0; 0]);
        records.push(found(3, 3, 7, Applied, &[2]));
        assert_eq!(gone(&records), [0; 0], "the second one needs the first");
        records.push(found(4, 4, 8, Applied, &[3]));
        assert_eq!(gone(&records), [1]);
        assert!(is_whole(
            &records[3].record,
            &records.iter().map(|f| f.record.clone()).collect::<Vec<_>>()
        ));
        records.remove(0);
        let rest: Vec<_> = records.iter().map(|f| f.record.clone()).collect();
        assert!(is_whole(&records[1].record, &rest));
        assert!(!is_whole(&records[0].record, &rest));
    }

    #[test]
    fn a_ladder_keeps_all_of_it() {
        let needs = |n: u32| (1..n).collect::<Vec<_>>();
        let records: Vec<_> = (1..20)
            .map(|n| found(n, u64::from(n), u64::from(n), State::Applied, &needs(n)))
            .collect();
        assert_eq!(gone(&records), [0; 0]);
    }

    #[test]
    fn of_what_was_taken_back_the_newest_stays() {
        use State::{Applied, Undone};
        let mut records = vec![
            found(1, 1, 7, Undone, &[]),
            found(1, 2, 7, Undone, &[]),
            found(1, 3, 9, Undone, &[]),
        ];
        assert_eq!(gone(&records), [1]);
        records.push(found(1, 4, 7, Applied, &[]));
        assert_eq!(gone(&records), [1, 2]);
    }
}
