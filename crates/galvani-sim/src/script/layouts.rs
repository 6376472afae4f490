//! Layouts in scenarios: `layout` shows the one there is; `join`, `leave` and `replace` ask for another.
//!
//! With `spares=1` a cluster has a node more, which is no member at first. A command returns when the
//! change has begun; `wait` lets it go on. Next to read: `world.layout`, `../layouts.rs`.

use super::words::{self, Words};
use super::{Script, TIMEOUT_MS, say};
use crate::history::Purpose;
use crate::packet::LaneAt;
use crate::profile::Changes;
use crate::world::member;
use galvani_model::ids::NodeId;
use galvani_model::placement::Change;
use galvani_model::placement::Pace;
use galvani_wire::Message;
use galvani_wire::layout::{ChangeLayout, Wish};
use std::sync::Arc;

/// The spare nodes that `cluster` asks for. Nobody but the script changes the layout.
pub(super) fn changes(words: &Words<'_>) -> Result<Option<Changes>, String> {
    let spares: Option<usize> = words.optional("spares")?;
    match spares {
        Some(spares) if !(1..=2).contains(&spares) => Err("spares is 1 or 2".into()),
        spares => {
            let changes = |spares| Changes { spares, count: 0, pace: 1_000_000, borders: false };
            Ok(spares.map(changes))
        }
    }
}

impl Script {
    pub(super) fn layout(&mut self, words: &Words<'_>) -> Result<String, String> {
        let via = words.maybe("via").map_or(Ok(0), words::node_of)?;
        let world = self.world()?;
        let node = |at| {
            let node = words.node(at)?;
            let id = world.nodes.get(node).map(|known| known.id);
            Ok::<_, String>((node, id.ok_or(format!("there is no node n{node}"))?))
        };
        let new = |at| Ok::<_, String>(member(&world.profile, node(at)?.0));
        let change = match words.plain(0).ok() {
            None => return Ok(self.shown_layout()),
            Some("join") => Change::Add(new(1)?),
            Some("leave") => Change::Remove(node(1)?.1),
            Some("replace") => Change::Replace { old: node(1)?.1, new: new(2)? },
            Some(verb) => return Err(format!("layout has no {verb}: join, leave, replace")),
        };
        let state = world.nodes.get(via).map(|known| known.layout.clone());
        let state = state.ok_or(format!("there is no node n{via}"))?;
        let next = state.current().changed(&[change]).map_err(|error| error.to_string())?;
        let wish =
            Wish::Begin { next: Arc::new(next), after: state.epoch(), pace: Pace::default() };
        let message =
            Message::ChangeLayout(Box::new(ChangeLayout { wish, timeout_ms: TIMEOUT_MS }));
        let to = LaneAt { node: via, lane: 0 };
        let call = world.call(None, Purpose::Other, to, message, TIMEOUT_MS);
        match self.heard_message(call)? {
            Some(Message::LayoutChanged(_)) => Ok("begun".into()),
            Some(other) => Ok(say::answer(&other)),
            None => Ok("no answer".into()),
        }
    }

    /// The last state that any node has adopted.
    fn shown_layout(&self) -> String {
        let Some(world) = &self.world else { return String::new() };
        let number =
            |id: NodeId| world.by_id.get(&id).map_or("?".into(), |node| format!("n{node}"));
        let members = world.layout.members().map(|member| number(member.id()));
        let phase = world.layout.transition().map(|change| format!(", {:?}", change.phase));
        let phase = phase.unwrap_or_default().to_lowercase();
        format!("{}{phase}", members.collect::<Vec<_>>().join(" "))
    }
}
