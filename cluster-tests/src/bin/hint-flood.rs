//! `hint-flood`: one node down under full load for a chosen time, with a small bound for hints; what that
//! did to memory, disk and the foreground, and whether all is whole afterwards. See `flood/mod.rs`.
//! A measurement: run it with `--release`.

use galvani_cluster_tests::flood::{Settings, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let settings = match parse(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("error  {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("{settings:?}");
    let report = run(&settings);
    println!("{report}");
    let wrong = report.violations();
    wrong.iter().for_each(|what| println!("VIOLATION {what}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Settings, String> {
    let mut settings = Settings {
        down: Duration::from_secs(600),
        around: Duration::from_secs(20),
        writers: 32,
        value: 1_000,
        cap: 32 << 20,
        sample: Duration::from_secs(1),
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = |least: u64, most: u64| match value.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(format!("{word} {value}: a number from {least} to {most}")),
        };
        match word.as_str() {
            "--seconds" => settings.down = Duration::from_secs(number(1, 86_400)?),
            "--around" => settings.around = Duration::from_secs(number(1, 3_600)?),
            "--writers" => settings.writers = number(1, 1_024)? as usize,
            "--value" => settings.value = number(24, 1 << 20)? as usize,
            "--cap-mib" => settings.cap = number(1, 1 << 20)? << 20,
            _ => return Err(format!("{word} is no option of hint-flood")),
        }
    }
    Ok(settings)
}

const USAGE: &str = "  hint-flood --seconds 600    how long the node is down
             --around 20      seconds of load before and after
             --writers 32     writers at once, w=2
             --value 1000     bytes of each value
             --cap-mib 32     bytes of hints a node may hold";
