//! The project's tasks. `cargo xtask test` is what CI runs and what a contributor runs.

mod clients;
mod fuzz;
mod links;
mod run;
mod steps;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs every check and test; installs what the tests need into ignored folders.
    Test {
        /// Only these steps, by name.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Names the steps and stops.
        #[arg(long)]
        list: bool,
    },
    /// Runs every fuzz target for a while.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only targets whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test { list: true, .. } => {
            steps::names().for_each(|name| println!("{name}"));
            Ok(())
        }
        Task::Test { only, list: false } => steps::run(&only),
        Task::Fuzz { seconds, only } => fuzz::run(seconds, only.as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
