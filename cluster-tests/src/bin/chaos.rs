//! `chaos`: real processes under random faults, then a verdict. See `chaos/mod.rs`.

use galvani_cluster_tests::chaos::{Fault, Settings, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(settings) => {
            println!("seed {}", settings.seed);
            let report = run(&settings);
            println!("{report}");
            if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("error  {why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Settings, String> {
    let mut settings = Settings {
        seed: rand::random(),
        nodes: 5,
        clients: 64,
        time: Duration::from_secs(60),
        think: Duration::from_millis(40),
        beat: None,
        faults: Fault::ALL.to_vec(),
        first: Vec::new(),
    };
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            return Err("options of chaos".to_owned());
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} {value}: not a number"));
        match word.as_str() {
            "--seed" => settings.seed = number()?,
            "--minutes" => settings.time = Duration::from_secs(60 * number()?),
            "--seconds" => settings.time = Duration::from_secs(number()?),
            "--think-ms" => settings.think = Duration::from_millis(number()?),
            "--every-ms" => settings.beat = Some(Duration::from_millis(number()?)),
            "--clients" => settings.clients = bounded(&word, number()?, 1, 1_024)?,
            "--nodes" => {
                let nodes = bounded(&word, number()?, 3, 9)?;
                settings.nodes = u8::try_from(nodes).map_err(|error| error.to_string())?;
            }
            "--faults" => settings.faults = faults(&value)?,
            "--first" => settings.first = faults(&value)?,
            _ => return Err(format!("{word} is no option of chaos")),
        }
    }
    Ok(settings)
}

fn faults(words: &str) -> Result<Vec<Fault>, String> {
    words.split(',').map(str::parse).collect()
}

fn bounded(word: &str, value: u64, least: u64, most: u64) -> Result<usize, String> {
    match usize::try_from(value) {
        Ok(fits) if (least..=most).contains(&value) => Ok(fits),
        Ok(_) | Err(_) => Err(format!("{word} {value}: from {least} to {most}")),
    }
}

const USAGE: &str = "  chaos --seconds 60 | --minutes 10   how long things are broken
        --seed S                      which faults, and what clients do
        --nodes 5  --clients 64       how many of each
        --think-ms 40                 average pause of a client between requests
        --every-ms 2000               how far apart faults begin; drawn for each without it
        --faults kill,pause,cut,one-way,slow,lossy,wipe,older,flip,full-disk
        --first full-disk,flip        what breaks first, in this order";
