//! Asking before moments are thrown away: a shorter lag, and going on to a point.
//!
//! What would go is asked of the replica first, so that the question names it. Without a terminal
//! nothing is asked and nothing is done. Next to read: `galvani-lagged/src/steer.rs`.

use super::shown::{again, lag};
use super::{Asker, unfit};
use crate::exit::Exit;
use crate::report::Report;
use crate::report::text::count;
use galvani_lagged::control::{Answer, Ask};
use galvani_lagged::{Change, Foreseen, Until, Utc};
use std::io::{self, BufRead, IsTerminal, Write};

/// Whether a change is to be made that cannot be taken back. A lag that is not shorter is no question.
pub(super) fn sure(asker: &mut Asker<'_>, change: Change) -> Result<bool, Report> {
    let foreseen = match asker.ask(&Ask::Foresee { change })? {
        Answer::Foreseen(foreseen) => foreseen,
        other => return Err(unfit(&other)),
    };
    if matches!(change, Change::Lag(ms) if ms >= foreseen.lag_ms) {
        return Ok(true);
    }
    let mut losses = losses(&foreseen);
    if let Change::Lag(ms) = change {
        losses.push(format!(
            "from then on it shows moments at least {} back, not {}",
            lag(ms),
            lag(foreseen.lag_ms)
        ));
    }
    if !io::stdin().is_terminal() {
        let verb = typed(change);
        let what = format!("lagged {verb} throws moments away: say --yes");
        let report = losses.into_iter().fold(Report::new(Exit::Usage, what), Report::why);
        let line = again(asker.link.dir(), &format!("{verb} --yes"));
        return Err(report.why("NOTHING WAS CHANGED").next("say", line));
    }
    let mut err = io::stderr().lock();
    let asked = losses.iter().try_for_each(|line| writeln!(err, "{line}"));
    let asked = asked.and_then(|()| write!(err, "go on? [y/N] ")).and_then(|()| err.flush());
    let mut answer = String::new();
    let read = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    let yes = read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes");
    if !yes {
        asker.app.out.say("nothing was changed");
    }
    Ok(yes)
}

/// What becomes unreachable.
fn losses(foreseen: &Foreseen) -> Vec<String> {
    let writes = count(foreseen.records, "write");
    let mut lines = match foreseen.records {
        0 => vec!["nothing that waits is due by it".to_owned()],
        _ => vec![format!("{writes} go to the base, and there is no way back")],
    };
    lines.push(match (foreseen.earliest_ms, foreseen.earliest_then_ms) {
        (Some(now), Some(then)) if then > now => {
            format!("moments from {} to {} cannot be shown any more", Utc(now), Utc(then))
        }
        (Some(now), _) => format!("moments are shown from {} on, as before", Utc(now)),
        (None, _) => "it has not caught up yet, so no moment can be shown".to_owned(),
    });
    lines
}

/// The change as it is typed.
fn typed(change: Change) -> String {
    match change {
        Change::Lag(ms) => format!("set-lag {}", lag(ms).replace(' ', "")),
        Change::Advance(Until::Time(ms)) => format!("advance --to {}", Utc(ms)),
        Change::Advance(Until::Before(dot)) => {
            format!("advance --before {}:{}", dot.origin, dot.counter)
        }
        Change::Advance(Until::BeforeRequest(request)) => {
            format!("advance --before-request {request}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{losses, typed};
    use galvani_lagged::{Change, Foreseen, Until};

    #[test]
    fn what_is_thrown_away_is_named() {
        let foreseen = Foreseen {
            lag_ms: 3_600_000,
            records: 3,
            earliest_ms: Some(0),
            earliest_then_ms: Some(1_500),
        };
        assert_eq!(
            losses(&foreseen),
            [
                "3 writes go to the base, and there is no way back",
                "moments from 1970-01-01T00:00:00.000Z to 1970-01-01T00:00:01.500Z cannot be shown any more"
            ]
        );
        let nothing = Foreseen { records: 0, earliest_then_ms: Some(0), ..foreseen };
        assert!(losses(&nothing)[1].contains("as before"));
        let early = Foreseen { earliest_ms: None, earliest_then_ms: None, ..foreseen };
        assert!(losses(&early)[1].contains("not caught up"));
    }

    #[test]
    fn a_change_is_said_as_it_is_typed() {
        assert_eq!(typed(Change::Lag(5_400_000)), "set-lag 1h30m");
        assert_eq!(typed(Change::Lag(0)), "set-lag 0s");
        let to = Change::Advance(Until::Time(1_500));
        assert_eq!(typed(to), "advance --to 1970-01-01T00:00:01.500Z");
    }
}
