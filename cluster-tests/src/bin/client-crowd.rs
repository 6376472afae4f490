//! `client-crowd`: thousands of clients with large values before one node, and links that never read; its
//! memory, and whether an honest client is served. See `crowd.rs`. A measurement: run it with `--release`.

use galvani_cluster_tests::crowd::{Settings, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(settings) => {
            println!("{settings:?}\n{}", run(&settings));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error  {why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Settings, String> {
    let time = Duration::from_secs(60);
    let mut settings =
        Settings { tasks: 10_000, deaf_links: 2_000, asks: 64, value: 1 << 20, time };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = |least: u64, most: u64| match value.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(format!("{word} {value}: a number from {least} to {most}")),
        };
        match word.as_str() {
            "--tasks" => settings.tasks = number(0, 100_000)? as usize,
            "--deaf-links" => settings.deaf_links = number(0, 3_000)? as usize,
            "--asks" => settings.asks = number(1, 1_000)? as usize,
            "--value" => settings.value = number(1, 16 << 20)? as usize,
            "--seconds" => settings.time = Duration::from_secs(number(1, 3_600)?),
            _ => return Err(format!("{word} is no option of client-crowd")),
        }
    }
    Ok(settings)
}

const USAGE: &str = "  client-crowd --tasks 10000    client tasks over 8 handles, one request each
               --deaf-links 2000   links that ask and never read
               --asks 64           requests on each of these
               --value 1048576     bytes of a value
               --seconds 60";
