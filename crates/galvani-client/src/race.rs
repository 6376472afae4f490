//! The first of several futures to finish.
//!
//! For the handful of requests one call has under way; each poll asks all of them, so it is not for
//! large sets. Dropping the returned future leaves the others as they were.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Waits for any of `futures`, takes it out and returns it with its output. The order of the others
/// may change. Never finishes while there are none.
pub(crate) async fn first<F: Future + Unpin>(futures: &mut Vec<F>) -> (F, F::Output) {
    poll_fn(|cx| {
        for index in 0..futures.len() {
            if let Poll::Ready(output) = Pin::new(&mut futures[index]).poll(cx) {
                return Poll::Ready((futures.swap_remove(index), output));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::first;
    use std::future::{Ready, ready};

    #[tokio::test]
    async fn each_future_is_returned_once() {
        let mut futures: Vec<Ready<u8>> = (0..3).map(ready).collect();
        let mut seen = Vec::new();
        while !futures.is_empty() {
            seen.push(first(&mut futures).await.1);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }
}
