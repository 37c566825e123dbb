//! Errors that say what to do next.

use std::fmt;

/// An error with the next step for whoever reads it.
#[derive(Debug)]
struct Advised {
    error: anyhow::Error,
    advice: String,
}

impl fmt::Display for Advised {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&causes(&self.error))
    }
}

impl std::error::Error for Advised {}

/// What failed, and why. Many errors end with their cause themselves: it is not said again.
fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// An error with the next step.
pub(crate) fn advised(error: impl Into<anyhow::Error>, advice: impl Into<String>) -> anyhow::Error {
    Advised { error: error.into(), advice: advice.into() }.into()
}

/// Adds the next step to a result's error.
pub(crate) trait Advise<T> {
    /// `advice` completes the sentence "What to do: ...".
    fn advise(self, advice: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advise<T> for Result<T, E> {
    fn advise(self, advice: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|error| advised(error, advice()))
    }
}

/// What an explanation begins with.
pub(crate) const ERROR: &str = "error: ";

/// The whole error in lines: what failed and why, then what to do.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut text = format!("{ERROR}{}", causes(error));
    for advised in error.chain().filter_map(|cause| cause.downcast_ref::<Advised>()) {
        text.push_str("\nwhat to do: ");
        text.push_str(&advised.advice);
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_advice_comes_last() {
        let failed: anyhow::Result<()> = Err(anyhow!("connection refused"))
            .context("https://127.0.0.1:8000 cannot be reached")
            .advise(|| "start a service with `coco dev`".to_owned());
        let error = failed.context("the proposal was not sent").unwrap_err();
        assert_eq!(
            explain(&error),
            "error: the proposal was not sent: https://127.0.0.1:8000 cannot be reached: \
             connection refused\nwhat to do: start a service with `coco dev`"
        );
        assert_eq!(explain(&anyhow!("plain")), "error: plain");
        let told = anyhow!("in use").context("port 1: in use").context("the node does not start");
        assert_eq!(explain(&told), "error: the node does not start: port 1: in use");
    }
}
