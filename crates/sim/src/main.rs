//! `coco-sim`: plays runs, and finds mutants.

use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;
use coco_sim::{Mutant, Report, play};

/// Plays whole networks under a seed, and says what must not have happened.
#[derive(Parser)]
#[command(name = "coco-sim")]
struct Arguments {
    /// Plays one seed.
    #[arg(long, conflicts_with = "seeds", value_parser = clap::value_parser!(u64).range(..u64::MAX))]
    seed: Option<u64>,
    /// Plays a range of seeds, FROM..TO.
    #[arg(long, value_parser = parse_range, default_value = "0..1000")]
    seeds: (u64, u64),
    /// Breaks the nodes in this way; `all` tries every one until it is caught.
    #[arg(long)]
    mutant: Option<String>,
    /// Goes on after a violation.
    #[arg(long)]
    keep_going: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("a range is written FROM..TO")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
    let (from, to) = (number(from)?, number(to)?);
    // Nothing would be played, and nothing found.
    if from < to { Ok((from, to)) } else { Err("a range ends after it begins".to_owned()) }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    // A panic is a violation of the run, and reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    let (from, to) = arguments.seed.map_or(arguments.seeds, |seed| (seed, seed + 1));
    if arguments.mutant.as_deref() == Some("all") {
        return Ok(find_mutants(from, to));
    }
    let mutant: Option<Mutant> =
        arguments.mutant.as_deref().map(str::parse).transpose().map_err(anyhow::Error::msg)?;
    let mut sum = Report::default();
    let mut violations = 0_u64;
    for seed in from..to {
        let report = play(seed, mutant);
        if let Some(violation) = &report.violation {
            violations += 1;
            let with = mutant.map(|mutant| format!(" --mutant {mutant}")).unwrap_or_default();
            eprintln!("seed {seed} failed: {violation}; replay with: coco-sim --seed {seed}{with}");
        }
        sum += report;
        if violations > 0 && !arguments.keep_going {
            break;
        }
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&sum)?),
        false => println!("{sum}\nviolations         {violations}"),
    }
    Ok(if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn find_mutants(from: u64, to: u64) -> ExitCode {
    let mut escaped = false;
    for mutant in Mutant::ALL {
        let caught = (from..to)
            .find_map(|seed| play(seed, Some(mutant)).violation.map(|violation| (seed, violation)));
        match caught {
            Some((seed, violation)) => {
                println!("{mutant:<17} caught after {:>4} runs: {violation}", seed - from + 1);
            }
            None => {
                let Range { start, end } = mutant.caught_within();
                escaped |= from <= start && end <= to;
                println!("{mutant:<17} not caught in {} runs", to - from);
            }
        }
    }
    if escaped { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_that_would_play_nothing_are_refused() {
        let parsed = |words: &[&str]| Arguments::try_parse_from([&["coco-sim"], words].concat());
        assert_eq!(parsed(&["--seeds", "3..5"]).map(|it| it.seeds).ok(), Some((3, 5)));
        assert_eq!(parsed(&["--seed", "7"]).map(|it| it.seed).ok(), Some(Some(7)));
        for range in ["5..5", "5..3", "5", "..5", "a..5"] {
            assert!(parsed(&["--seeds", range]).is_err(), "{range}");
        }
        assert!(parsed(&["--seed", &u64::MAX.to_string()]).is_err());
    }
}
