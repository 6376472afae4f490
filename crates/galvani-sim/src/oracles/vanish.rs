//! On one replica a version vanishes only if the record just taken in replaced it.
//!
//! Or, for the record's own write, if something live replaces one of its dots; or, in an `lww`
//! bucket, if a later version outranks it. And nothing but the record's own write appears.

use galvani_model::bucket::ConflictPolicy;
use galvani_model::store::Change;
use galvani_model::version::{Object, Version};

/// Checks one change against the object before it; says what is wrong.
pub(crate) fn check(before: &Object, change: &Change, policy: ConflictPolicy) -> Option<String> {
    let head = &change.record.head;
    let own = head.write_id();
    let after = change.object.versions();
    for old in before.versions() {
        if after.iter().any(|new| new.write == old.write) {
            continue;
        }
        let replaced = old.is_replaced_by(&head.past);
        let alias = old.write == own && after.iter().any(|new| new.past.contains(head.dot));
        let outranked = policy == ConflictPolicy::Lww && after.iter().any(|new| new.hlc >= old.hlc);
        if !(replaced || alias || outranked) {
            let dots = &old.dots;
            return Some(format!("{} vanished with {dots:?} for no reason", head.key));
        }
    }
    let known = |new: &Version| before.versions().iter().any(|old| old.write == new.write);
    let strange = after.iter().find(|new| new.write != own && !known(new));
    strange.map(|new| format!("{}: {:?} appeared out of nothing", head.key, new.dots))
}
