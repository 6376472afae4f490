//! Help pages and shell completions.
//!
//! The pages say what no single command's help can: what quorums promise, what exit codes mean,
//! how to read an error block.

use crate::args::Cli;
use crate::args::cluster::{Completions, Help};
use crate::commands::Done;
use crate::exit::{ALL, Exit};
use crate::output::Output;
use crate::report::Report;
use clap::{Command, CommandFactory};

/// Prints a page, or a command's help.
pub(crate) fn run(args: &Help, out: Output) -> Done {
    let topic: Vec<&str> = args.topic.iter().map(String::as_str).collect();
    let page = match topic.as_slice() {
        ["quorums"] => QUORUMS.to_owned(),
        ["exit-codes"] => exit_codes(),
        ["errors"] => ERRORS.to_owned(),
        words => command_help(words)?,
    };
    out.line(page.trim_end())?;
    Ok(Exit::Done)
}

/// Prints completions for a shell.
pub(crate) fn completions(args: &Completions) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "galvani", &mut script);
    crate::output::written(std::io::Write::write_all(&mut std::io::stdout(), &script))?;
    Ok(Exit::Done)
}

fn command_help(words: &[&str]) -> Result<String, Report> {
    let mut command: Command = Cli::command();
    command.build();
    for word in words {
        command = match command.find_subcommand(word) {
            Some(found) => found.clone(),
            None => {
                let what = format!("no help on {:?}", words.join(" "));
                return Err(Report::new(Exit::Usage, what)
                    .why("pages are quorums, exit-codes and errors")
                    .next("see", "galvani --help"));
            }
        };
    }
    Ok(command.render_long_help().to_string())
}

fn exit_codes() -> String {
    let mut page = String::from("Exit codes\n\n");
    for exit in ALL {
        page.push_str(&format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
    }
    page.push_str(EXIT_CODES_TAIL);
    page
}

const EXIT_CODES_TAIL: &str = "  130  Ctrl-C

A failed write is 5 if it was never stored and never will be, and 6 if it may be: some replicas
have it, or nobody knows. Repeating it is safe, because put and update read first; a blind write, or
one under an old context, would stand beside the first. Commands on many keys end with the code
that matters most. With -o json the same number stands in the error's field \"exit\".
";

const QUORUMS: &str = "Quorums

  n  copies of each key; fixed for a bucket, narrowed by -n on a request
  r  replicas that must answer a read       w  replicas that must store a write
  pr, pw  of those, how many must be owners of the key, not stand-ins
  dw      of w, how many must have it on disk (fsync) before they answer
  --strict  owners only; a write is refused before it starts if too few are up

Numbers 1 to 7, or words: one, majority (also quorum), all. Without an option the bucket's own r
and w hold; a new cluster's are majorities.

If r + w > n, counted on the same owners, every read asks at least one replica that has the last
acked write. n=3 with r=2 w=2 does that and works with one node away. The often quoted n=5 w=3 r=2
does NOT: 3 + 2 is not more than 5.

A stand-in's ack is outside the read set: while owners are away, reading your own writes is certain
only with pw + r > n, or with --strict.

Concurrent writes are kept as siblings until a write that saw them replaces them. `galvani put`
reads first and replaces what it sees; --blind does not; --context replaces what that read saw.

  galvani quorum explain -n 5 -r 2 -w 3     what a choice promises, survives and may miss
";

const ERRORS: &str = "Errors

Every error has three parts: what failed, why (each replica by name), and what to type next.

  error  put greeting: w=3 not reached, 2 of 3 acked in 2.0 s
         n1 stored 0.6 ms   n2 stored 0.9 ms   n3 no answer
         THE WRITE IS STORED on n1, n2 and reaches the others by itself. Repeating it is safe.
    try  galvani put greeting hi -w 2      or see who is down:  galvani status

A failed write says what became of it:
  NOTHING WAS WRITTEN      it was never stored and never will be          exit 5
  THE WRITE IS STORED ..   some replicas have it, and it may spread       exit 6
  THE WRITE MAY BE STORED  nobody said so, and it may spread              exit 6

With -o json the error is a document on stdout too, wrong usage included: schema galvani.error/1
with fields exit, error, why, next, kind, applied (no, maybe), acks, answers, request_id.

see also: galvani help exit-codes, galvani help quorums
";

#[cfg(test)]
mod tests {
    use super::{command_help, exit_codes};

    #[test]
    fn every_exit_code_is_on_its_page() {
        let page = exit_codes();
        for line in ["    3  key not found (r replicas agreed)", "    8  no server reachable"] {
            assert!(page.contains(line), "{page}");
        }
    }

    #[test]
    fn help_starts_with_three_examples() {
        for command in [
            "put", "get", "del", "update", "ls", "import", "export", "bench", "dev", "wait",
            "tour", "repair",
        ] {
            let help = command_help(&[command]).expect(command);
            let examples = help.lines().take_while(|line| line.starts_with("  ")).count();
            assert!(examples >= 3, "{command}: {help}");
        }
        assert!(command_help(&["dev", "kill"]).expect("nested").contains("SIGKILL"));
        assert_eq!(command_help(&["nothing"]).expect_err("unknown").exit.code(), 2);
    }
}
