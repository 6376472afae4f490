//! What a feed says while nothing comes of it: to whom that is due, and when it is over.
//!
//! A target that is away and owners that do not answer are waited for, in silence for a second; then there is
//! a remark on stderr, once, and another when it goes on. Next to read: `feed.rs`, `outlet.rs`.

use crate::connect::App;
use crate::report::text::count;
use galvani_client::Checkpoint;
use std::time::{Duration, Instant};

/// Awaits `work`. If that takes longer than a second, says what `why` says then; nothing if it does not know.
pub(super) async fn patiently<T>(
    app: &App,
    why: impl Fn() -> Option<String>,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    let mut told = false;
    loop {
        tokio::select! {
            done = &mut work => {
                if told {
                    app.out.note("it goes on");
                }
                return done;
            }
            () = tokio::time::sleep(SILENCE), if !told => {
                if let Some(why) = why() {
                    app.out.note(&why);
                    told = true;
                }
            }
        }
    }
}

/// What keeps a feed from going on, as its checkpoints say.
#[derive(Default)]
pub(super) struct Hindrance {
    since: Option<Instant>,
    told: Option<String>,
}

impl Hindrance {
    /// A remark, when there is something new to say.
    pub(super) fn of(&mut self, checkpoint: &Checkpoint, now: Instant) -> Option<String> {
        let Some(words) = words(checkpoint) else {
            self.since = None;
            return self.told.take().map(|_| "every owner answers again".to_owned());
        };
        let since = *self.since.get_or_insert(now);
        // Shards that nobody serves have been looked after for a second before they are told.
        let is_due = !checkpoint.unserved.is_empty() || now.duration_since(since) >= SILENCE;
        if !is_due || self.told.as_ref() == Some(&words) {
            return None;
        }
        self.told = Some(words.clone());
        Some(words)
    }
}

fn words(checkpoint: &Checkpoint) -> Option<String> {
    let Checkpoint { unserved, unheard, .. } = checkpoint;
    match (unserved.len(), unheard.as_slice()) {
        (0, []) => None,
        (0, names) => {
            let names = names.join(", ");
            Some(format!("no answer from {names}: what it takes their word for is shown later"))
        }
        (shards, _) => {
            Some(format!("no owner can be reached of {}", count(shards as u64, "shard")))
        }
    }
}

/// How long nothing is said.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::{Hindrance, words};

    #[test]
    fn who_does_not_answer_is_named_after_a_second_once_and_when_it_is_over() {
        let well = galvani_client::Checkpoint::default();
        let mut ill = well.clone();
        ill.unheard = vec!["n3".to_owned()];
        let began = std::time::Instant::now();
        let at = |ms: u64| began + std::time::Duration::from_millis(ms);
        let mut hindrance = Hindrance::default();
        assert_eq!(hindrance.of(&well, at(0)), None);
        assert_eq!(hindrance.of(&ill, at(500)), None, "it may only have begun");
        assert_eq!(hindrance.of(&ill, at(1_500)), words(&ill));
        assert_eq!(hindrance.of(&ill, at(2_500)), None, "once");
        assert!(words(&ill).expect("it says why").contains("n3"));
        assert!(hindrance.of(&well, at(3_500)).is_some());
        assert_eq!(hindrance.of(&well, at(4_500)), None);
    }
}
