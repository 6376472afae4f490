//! Faults that are set on nodes on purpose, in words and for scripts.
//!
//! `status` and the `dev` commands that set them show them the same way.

use crate::names::Names;
use crate::report::text::Span;
use galvani_client::LinkFaults;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// `n1 (n2 n3: cut)`, or nothing if there are no faults.
pub(crate) fn words(node: &str, names: &Names<'_>, faults: &[LinkFaults]) -> Option<String> {
    let mut alike: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for link in faults {
        alike.entry(one(link)).or_default().push(names.word(link.node));
    }
    let alike = alike.into_iter().map(|(what, mut nodes)| {
        nodes.sort();
        format!("{}: {what}", nodes.join(" "))
    });
    let alike: Vec<String> = alike.collect();
    (!alike.is_empty()).then(|| format!("{node} ({})", alike.join("; ")))
}

/// What is wrong between a node and another one.
fn one(link: &LinkFaults) -> String {
    let mut words = Vec::new();
    match (link.cut_out, link.cut_in) {
        (true, true) => words.push("cut".to_owned()),
        (true, false) => words.push("cut on the way there".to_owned()),
        (false, true) => words.push("cut on the way here".to_owned()),
        (false, false) => {}
    }
    if let Some(ppm) = link.loss_ppm {
        words.push(format!("{} % lost", f64::from(ppm) / 1e4));
    }
    if let Some(delay) = link.delay {
        let span = |micros: u32| Span(Duration::from_micros(micros.into()));
        words.push(match delay.jitter_micros {
            0 => format!("{} late", span(delay.micros)),
            jitter => format!("{} ± {} late", span(delay.micros), span(jitter)),
        });
    }
    words.join(", ")
}

/// The same for scripts.
pub(crate) fn document(names: &Names<'_>, faults: &[LinkFaults]) -> Vec<Value> {
    let millis = |micros: u32| f64::from(micros) / 1e3;
    let one = |link: &LinkFaults| {
        json!({
            "with": names.key(link.node),
            "cut_out": link.cut_out,
            "cut_in": link.cut_in,
            "loss_percent": link.loss_ppm.map_or(0.0, |ppm| f64::from(ppm) / 1e4),
            "delay_ms": link.delay.map_or(0.0, |delay| millis(delay.micros)),
            "jitter_ms": link.delay.map_or(0.0, |delay| millis(delay.jitter_micros)),
        })
    };
    faults.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::one;
    use galvani_client::{LinkDelay, LinkFaults, NodeId};

    #[test]
    fn every_fault_has_its_words() {
        let none = LinkFaults::none(NodeId(1));
        let delay = Some(LinkDelay { micros: 50_000, jitter_micros: 20_000 });
        for (link, words) in [
            (LinkFaults { cut_out: true, cut_in: true, ..none.clone() }, "cut"),
            (LinkFaults { cut_out: true, ..none.clone() }, "cut on the way there"),
            (LinkFaults { cut_in: true, ..none.clone() }, "cut on the way here"),
            (LinkFaults { loss_ppm: Some(5_000), delay, ..none }, "0.5 % lost, 50 ms ± 20 ms late"),
        ] {
            assert_eq!(one(&link), words);
        }
    }
}
