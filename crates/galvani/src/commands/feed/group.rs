//! `feed --group`: one member of a consumer group, for as long as it runs.
//!
//! Each event goes to the outlet and is acknowledged when that has taken it; what the outlet refuses is
//! given back with the reason, and comes again, here or to another member, or becomes a dead letter. The
//! group keeps the position. Next to read: `galvani-client/src/group/`.

use super::outlet::Outlet;
use super::patience::patiently;
use super::{Tally, asked, start};
use crate::args::feed::Feed;
use crate::commands::Done;
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::report::client::{self, Retype};
use galvani_client::ErrorKind;
use std::pin::Pin;

/// Works as a member until it is told to end, or has had enough.
pub(super) async fn run(
    app: &App,
    session: &Session,
    args: &Feed,
    name: &str,
    mut outlet: Outlet,
    mut stop: Pin<&mut impl Future<Output = ()>>,
    retype: &Retype,
) -> Done {
    let failed = |error: galvani_client::Error| client::report(&error, retype);
    if args.from.is_some() {
        // Not to know of it is no failure: the remark is missing then.
        let known = session.client.groups().await.unwrap_or_default();
        if known.iter().any(|known| known == name) {
            app.out.note(&format!("group {name} goes on where it is; --from is for a new one"));
        }
    }
    let asked = asked(session.client.feed(), args);
    let builder =
        session.client.group(name).following(asked).from(start(args.from.unwrap_or_default()).0);
    let why = || Some("the group cannot be joined yet: too few owners answer".to_owned());
    let mut member = patiently(app, why, builder.join()).await.map_err(failed)?;
    let mut tally = Tally::default();
    let ended = loop {
        let delivery = tokio::select! {
            delivery = member.next() => delivery,
            () = &mut stop => break Ok(()),
        };
        match delivery {
            Some(Ok(delivery)) => {
                let events = std::slice::from_ref(&delivery.event);
                let taken = tokio::select! {
                    taken = outlet.take(app, events) => taken,
                    // It comes again, to whoever is there.
                    () = &mut stop => break Ok(()),
                };
                match taken {
                    Ok(()) => {
                        tally.note(&delivery.event);
                        delivery.ack();
                    }
                    Err(report) if args.to.is_none() && args.command.is_empty() => {
                        break Err(report);
                    }
                    Err(report) => delivery.nak_because(report.what(), None),
                }
            }
            // One shard stands still until somebody decides; the others go on.
            Some(Err(error)) if matches!(error.kind(), ErrorKind::GroupHalted { .. }) => {
                app.out.note(&error.to_string());
            }
            Some(Err(error)) => break Err(failed(error)),
            None => break Ok(()),
        }
        if args.limit.is_some_and(|limit| tally.events >= limit) {
            break Ok(());
        }
    };
    let left = member.leave().await.map_err(failed);
    ended?;
    left?;
    tally.tell(app);
    Ok(Exit::Done)
}
