//! `coco status`: a service and its nodes on one screen. It only reads, and asks every node itself.

mod latency;
mod probe;
mod report;
mod screen;

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::advice::explain;
use crate::node::time;
use crate::output::{Output, line_is_read};
use crate::service::ServiceArgs;
use report::Observer;

#[derive(Args, Debug)]
#[command(after_help = "\
Every trusted node is asked at the address that it publishes, all at the same time, and believed for
the service's certificate only. One that does not answer in time is shown as such. Nothing is
written: commit latency is what the primary has counted, from the proposal of a batch until it is
committed; with --watch, of the batches since the last refresh.

Examples:
  coco status
  coco status --watch
  coco status --url https://node:8000 --service-cert service_cert.pem --json")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Refresh until control-C; with --json, a line each time
    #[arg(long)]
    watch: bool,
    /// Pause between two refreshes, such as 500ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = pause, requires = "watch")]
    interval: Duration,
    /// How long a node may take for an answer, such as 500ms
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    timeout: Duration,
}

pub(crate) fn run(arguments: &StatusArgs, output: Output) -> Result<()> {
    let urls = arguments.service.urls()?;
    let mut observer = Observer::new(urls, arguments.service.certificate()?, arguments.timeout);
    if arguments.watch {
        return watch(&mut observer, arguments.interval, output);
    }
    let report = observer.look()?;
    output.print(&report, || screen::text(&report))?;
    Ok(())
}

/// Without a pause nothing else would be done.
fn pause(text: &str) -> Result<Duration, String> {
    let pause = time(text)?;
    if pause.is_zero() {
        return Err("a pause must not be zero".to_owned());
    }
    Ok(pause)
}

/// Until nobody reads it any more. A service that does not answer may do so later: that is shown, and
/// no end.
fn watch(observer: &mut Observer, interval: Duration, output: Output) -> Result<()> {
    let in_place = !output.is_json() && io::stdout().is_terminal();
    loop {
        let looked = observer.look();
        let text = match (&looked, output.is_json()) {
            (Ok(report), true) => serde_json::to_string(report)?,
            (Err(error), true) => json!({ "error": format!("{error:#}") }).to_string(),
            (Ok(report), false) => screen::text(report),
            (Err(error), false) => explain(error),
        };
        let text = match (in_place, output.is_json()) {
            (true, _) => screen::over_the_last(&text),
            (false, true) => text,
            (false, false) => text + "\n",
        };
        if !line_is_read(&text)? {
            return Ok(());
        }
        std::thread::sleep(interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_pause() {
        assert_eq!(pause("1ms"), Ok(Duration::from_millis(1)));
        for wrong in ["0ms", "0s", "", "soon"] {
            assert!(pause(wrong).is_err(), "{wrong}");
        }
    }
}
