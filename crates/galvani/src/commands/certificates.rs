//! What `status` says of certificates: those that end soon, and how to renew them.
//!
//! A node tells nothing of its certificate: it is what it showed when this command's link to it was made.

use crate::report::text::count;
use galvani_client::NodeReport;
use std::time::{SystemTime, UNIX_EPOCH};

/// A line on nodes whose certificates end soon; nothing if there are none.
pub(super) fn words(reports: &[NodeReport]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let ends = |report: &NodeReport| {
        let left = report.certificate_expires_s?.saturating_sub(now) / DAY_SECS;
        (left < SOON_DAYS).then(|| format!("{} ends in {}", report.name, count(left, "day")))
    };
    let soon: Vec<String> = reports.iter().filter_map(ends).collect();
    match soon.as_slice() {
        [] => String::new(),
        soon => {
            let soon = soon.join("   ");
            format!("certificates {soon}   renew: galvani help cluster renew\n")
        }
    }
}

/// As nodes warn in their logs: `galvani-node/src/renewal.rs`.
const SOON_DAYS: u64 = 30;
const DAY_SECS: u64 = 86_400;
