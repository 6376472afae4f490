//! The same load on Galvani: `galvani bench` makes it, and its JSON is read.
//!
//! Processor time is what the nodes themselves say of their processes. Writes are made after the
//! last one of their key, w=2 of three; reads are r=2.

use crate::error::PeerError;
use crate::load::Common;
use crate::result::Run;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// Arguments of `galvani`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The binary.
    #[arg(long, default_value = "target/release/galvani")]
    bin: PathBuf,
    /// The name in the table.
    #[arg(long, default_value = "galvani")]
    name: String,
    /// The context of the cluster.
    #[arg(long)]
    context: String,
    #[command(flatten)]
    common: Common,
}

/// Runs the bench and appends what it showed.
pub(crate) fn run(args: &Args) -> Result<(), PeerError> {
    let Common { op, concurrency, keys, value, seconds, warmup, .. } = args.common.clone();
    let mut bench = Command::new(&args.bin);
    bench.args(["bench", op.name(), "-o", "json", "-w", "2", "-r", "2"]);
    bench.args(["--ctx", &args.context, "-c", &concurrency.to_string()]);
    bench.args(["--keys", &keys.to_string(), "--value", &value.to_string()]);
    bench.args(["--duration", &format!("{seconds}s"), "--warmup", &format!("{warmup}s")]);
    let output = bench.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let whole = || serde_json::from_str(&text).ok();
    let Some(document) = whole().or(found) else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(PeerError::Refused(format!("galvani bench: {}\n{said}", output.status)));
    };
    let run = of_document(args, &document)?;
    run.append(&args.common.out)?;
    println!("{} {} {:.0}/s", run.peer, run.op, run.ops_per_second);
    Ok(())
}

fn of_document(args: &Args, document: &Value) -> Result<Run, PeerError> {
    let op = args.common.op.name();
    let lacks = |what: &str| PeerError::Malformed {
        protocol: "the JSON of galvani bench",
        what: format!("no {what} in {document}"),
    };
    let number = |value: &Value, what: &str| {
        value.get(what).and_then(Value::as_f64).ok_or_else(|| lacks(what))
    };
    let latencies = document.get(op).ok_or_else(|| lacks(op))?;
    let cpu = document.get("cpu_seconds_per_1000_ops").and_then(Value::as_f64);
    Ok(Run {
        peer: args.name.clone(),
        op: op.to_owned(),
        concurrency: args.common.concurrency,
        value_bytes: args.common.value,
        ops_per_second: number(document, "ops_per_second")?,
        p50_us: number(latencies, "p50_us")? as u64,
        p99_us: number(latencies, "p99_us")? as u64,
        server_cpu_us: cpu.map(|seconds| seconds * 1e3),
        failed: number(document, "failed")? as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::{Args, of_document};
    use crate::load::{Common, Op};
    use serde_json::json;

    #[test]
    fn the_figures_of_the_bench_are_taken_over() {
        let common = Common {
            op: Op::Put,
            concurrency: 64,
            keys: 10,
            value: 1_024,
            seconds: 1,
            warmup: 0,
            out: "x".into(),
        };
        let (bin, name, context) = ("g".into(), "galvani".to_owned(), "peers".to_owned());
        let args = Args { bin, name, context, common };
        let document = json!({
            "ops_per_second": 1234.5, "failed": 1, "cpu_seconds_per_1000_ops": 0.05,
            "put": { "p50_us": 900, "p99_us": 4000 }, "get": null,
        });
        let run = of_document(&args, &document).expect("all is there");
        assert_eq!((run.ops_per_second, run.p50_us, run.p99_us), (1234.5, 900, 4000));
        assert_eq!((run.server_cpu_us, run.failed), (Some(50.0), 1));
        assert!(of_document(&args, &json!({ "put": null })).is_err());
    }
}
