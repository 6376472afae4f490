//! Memory of the nodes while a run goes on, so that a rise shows and not only where it ends.
//!
//! It asks every node for its status every few seconds and keeps the largest figure; a node that is down
//! or stopped says nothing, and is not waited for longer than a call takes. It judges nothing.
//! Next to read: `report.rs`.

use galvani_client::Client;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How often it asks.
const EVERY: Duration = Duration::from_secs(3);
/// Into how many spans a run is divided.
const SPANS: usize = 10;

/// One figure: when, and the bytes of the node that had most.
type Sample = (Duration, u64);

/// Asks on and on until it is dropped.
pub struct Watch {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to ask.
    pub fn start(on: &Handle, client: Client) -> Watch {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let kept = samples.clone();
        let task = on.spawn(async move {
            let began = Instant::now();
            loop {
                let reports = client.status().await.into_iter();
                let known = reports.filter_map(|report| report.status.ok());
                if let Some(most) = known.map(|status| status.memory_bytes).max() {
                    kept.lock().expect("no holder panics").push((began.elapsed(), most));
                }
                // wait: until the next figure is due
                tokio::time::sleep(EVERY).await;
            }
        });
        Watch { samples, task }
    }

    /// The most of each tenth of the time so far, in bytes; 0 where nobody answered.
    pub fn by_tenths(&self) -> Vec<u64> {
        tenths(&self.samples.lock().expect("no holder panics"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tenths(samples: &[Sample]) -> Vec<u64> {
    let Some(whole) = samples.last().map(|(at, _)| at.as_secs_f64()) else { return Vec::new() };
    let mut most = vec![0; SPANS];
    for (at, bytes) in samples {
        let share = at.as_secs_f64() / whole.max(f64::MIN_POSITIVE);
        let span = &mut most[((share * SPANS as f64) as usize).min(SPANS - 1)];
        *span = (*span).max(*bytes);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::tenths;
    use std::time::Duration;

    #[test]
    fn each_tenth_has_its_most() {
        let at = |(second, bytes): (u64, u64)| (Duration::from_secs(second), bytes);
        let samples: Vec<_> = (0..=20).map(|second| at((second, 100 - second))).collect();
        let [first, .., last] = tenths(&samples)[..] else { panic!("ten of them") };
        assert_eq!((first, last), (100, 82));
        assert_eq!(tenths(&samples).len(), 10);
        assert_eq!(tenths(&[at((0, 7))]), [7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(tenths(&[]).is_empty());
    }
}
