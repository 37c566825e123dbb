//! Log output: text with CCF's tags, or a JSON object a line.

use std::fmt;
use std::fs::File;
use std::sync::Mutex;

use clap::ValueEnum;
use coco_enclave::config::LogFormat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is logged, in CCF's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Everything
    Trace,
    /// What helps to find faults
    Debug,
    /// What an operator may want to know
    Info,
    /// What went wrong
    #[value(alias = "warn")]
    Fail,
    /// What ends the node
    #[value(alias = "error")]
    Fatal,
}

impl LogLevel {
    /// As the command line has it.
    pub(crate) fn as_argument(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Fail => "fail",
            Self::Fatal => "fatal",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Fail => LevelFilter::WARN,
            Self::Fatal => LevelFilter::ERROR,
        }
    }
}

/// Logs of this process go to stdout.
pub(crate) fn log_to_stdout(level: LogLevel, format: LogFormat) {
    install(level, format, std::io::stdout);
}

/// Logs of this process go to a file, as text.
pub(crate) fn log_to_file(level: LogLevel, file: File) {
    install(level, LogFormat::Text, Mutex::new(file));
}

fn install<W>(level: LogLevel, format: LogFormat, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.event_format(CcfText).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Whatever else is compiled in speaks up only when something is wrong with it.
    let ours = level.filter();
    let wanted = Targets::new().with_target("coco", ours).with_default(ours.min(LevelFilter::WARN));
    // A second call, in tests, keeps the first subscriber.
    let _already_installed =
        tracing_subscriber::registry().with(lines.with_filter(wanted)).try_init();
}

/// `2026-05-04T03:02:01.000001Z [info ] target | message key=value`
struct CcfText;

impl<S, N> FormatEvent<S, N> for CcfText
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: format::Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut line)?;
        let metadata = event.metadata();
        write!(line, " {} {} | ", tag(*metadata.level()), metadata.target())?;
        context.field_format().format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

fn tag(level: Level) -> &'static str {
    match level {
        Level::TRACE => "[trace]",
        Level::DEBUG => "[debug]",
        Level::INFO => "[info ]",
        Level::WARN => "[fail ]",
        Level::ERROR => "[fatal]",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn levels_are_read_as_they_are_written() {
        for level in LogLevel::value_variants() {
            assert_eq!(LogLevel::from_str(level.as_argument(), false), Ok(*level));
        }
    }

    #[test]
    fn text_carries_ccfs_tags() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LogLevel::Fail.filter())
            .with_ansi(false)
            .event_format(CcfText)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not logged");
            tracing::warn!(area = "ledger", "Slow");
            tracing::error!("Hangup: ");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("[fail ] coco::node::log::tests | Slow area=\"ledger\""));
        assert!(lines[1].ends_with("[fatal] coco::node::log::tests | Hangup: "));
    }
}
