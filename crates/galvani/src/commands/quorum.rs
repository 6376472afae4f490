//! `quorum explain`: what n, r and w promise, by arithmetic; asks no server.
//!
//! The sentences come from `galvani-model/src/quorum_promise.rs`.

use crate::args::line::Line;
use crate::args::see::{Quorum, QuorumExplain};
use crate::commands::Done;
use crate::exit::Exit;
use crate::output::Output;
use crate::report::{Report, json};
use galvani_model::quorum_promise::{Promise, PromiseError};
use galvani_model::request::Quorum as Answers;
use serde_json::{Map, Value};

/// Explains.
pub(crate) fn run(args: Quorum, out: Output) -> Done {
    let Quorum::Explain(args) = args;
    let promise = promise(&args)?;
    if out.is_json() {
        out.json(document(&promise))?;
        return Ok(Exit::Done);
    }
    let Promise { n, r, w, .. } = promise;
    out.line(&format!("n={n} r={r} w={w}"))?;
    for line in promise.lines() {
        out.line(&format!("  {line}"))?;
    }
    if !promise.overlap {
        let r = n + 1 - w;
        out.line(&format!(
            "  overlap needs r + w > n: try  galvani quorum explain -n {n} -r {r} -w {w}"
        ))?;
    }
    Ok(Exit::Done)
}

fn promise(args: &QuorumExplain) -> Result<Promise, Report> {
    let n = args.n;
    let number = |what: &'static str, asked: Answers| {
        asked.resolve(n).ok_or_else(|| {
            let what_asked = format!("-{what} {asked} asks for more copies than exist (n={n})");
            Report::new(Exit::Refused, what_asked)
                .why("such a request is refused before anything is written")
                .next("try", line(args).at_most(&["-r", "-w", "--pw"], n, n).to_string())
        })
    };
    let (r, w) = (number("r", args.r)?, number("w", args.w)?);
    let refused = |error: PromiseError| Report::new(Exit::Refused, error.to_string());
    let promise = Promise::of(n, r, w).map_err(refused)?;
    match args.pw {
        Some(pw) => promise.with_primaries(number("-pw", pw)?).map_err(refused),
        None => Ok(promise),
    }
}

fn line(args: &QuorumExplain) -> Line {
    Line::new("quorum explain")
        .with("-n", args.n)
        .given("-r", (args.r != Answers::Majority).then_some(args.r))
        .given("-w", (args.w != Answers::Majority).then_some(args.w))
        .given("--pw", args.pw)
}

fn document(promise: &Promise) -> Map<String, Value> {
    let mut map = json::object("galvani.quorum_explain/1");
    let numbers = [
        ("n", promise.n),
        ("r", promise.r),
        ("w", promise.w),
        ("pw", promise.pw),
        ("reads_survive", promise.reads_survive),
        ("writes_survive", promise.writes_survive),
        ("disks_survive", promise.disks_survive),
        ("pw_for_read_your_writes", promise.pw_for_read_your_writes),
    ];
    map.extend(numbers.map(|(name, number)| (name.to_owned(), number.into())));
    map.insert("overlap".to_owned(), promise.overlap.into());
    map.insert("read_your_writes".to_owned(), promise.read_your_writes.into());
    map.insert("miss".to_owned(), promise.miss.to_string().into());
    map.insert("miss_share".to_owned(), promise.miss.percent().into());
    map.insert("lines".to_owned(), promise.lines().into());
    map
}

#[cfg(test)]
mod tests {
    use super::{document, promise};
    use crate::args::see::QuorumExplain;
    use galvani_model::request::Quorum as Answers;

    #[test]
    fn five_two_three_is_told_not_to_overlap() {
        let (r, w) = (Answers::Exactly(2), Answers::Exactly(3));
        let promise = promise(&QuorumExplain { n: 5, r, w, pw: None }).expect("possible");
        assert!(promise.lines()[0].contains("do NOT overlap"));
        assert_eq!(document(&promise)["overlap"], false);
        assert_eq!(document(&promise)["miss"], "1/10");
    }

    #[test]
    fn more_copies_than_exist_are_refused() {
        let (r, w) = (Answers::Majority, Answers::Exactly(5));
        let report = promise(&QuorumExplain { n: 3, r, w, pw: None }).expect_err("too many");
        assert_eq!(report.exit.code(), 5);
        assert_eq!(
            report.to_string(),
            "error  -w 5 asks for more copies than exist (n=3)\n       \
             such a request is refused before anything is written\n  \
             try  galvani quorum explain -n 3 -w 3"
        );
    }
}
