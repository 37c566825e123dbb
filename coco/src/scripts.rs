//! Scripts are compiled before they are sent: a service finds their faults when a vote is used up, or
//! a proposal is open.

use std::path::Path;

use anyhow::{Error, Result, anyhow};
use coco_script::{ScriptError, Thrown};

/// Whether a file's text is a ballot.
pub(crate) fn check_ballot(file: &Path, text: &str) -> Result<()> {
    coco_script::check_ballot(text).map_err(|error| match error {
        ScriptError::NoSuchFunction { .. } => {
            anyhow!("{} does not export a function named vote", file.display())
        }
        error => in_file(&file.display().to_string(), error),
    })
}

/// Whether an application's modules, name and text, compile.
pub(crate) fn check_modules(modules: &[(&str, &str)]) -> Result<()> {
    coco_script::check_sources(modules).map_err(|error| {
        let module = match &error {
            ScriptError::Thrown(Thrown { position: Some(position), .. }) => position.file.clone(),
            _ => return error.into(),
        };
        in_file(module.trim_start_matches('/'), error)
    })
}

/// What is wrong, and where, if that is known.
fn in_file(file: &str, error: ScriptError) -> Error {
    match error {
        ScriptError::Thrown(Thrown { position: Some(position), message, .. }) => {
            anyhow!("{file}, line {}: {message}", position.line)
        }
        error => anyhow!("{file}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_a_place() {
        let ballot = |text| check_ballot(Path::new("my/ballot.js"), text);
        ballot("export function vote(proposal, proposerId) { return true; }").unwrap();
        for (text, fault) in [
            ("\nexport function vote( {", "my/ballot.js, line 2: SyntaxError: "),
            ("export function votes() {}", "my/ballot.js does not export a function named vote"),
        ] {
            let error = ballot(text).unwrap_err().to_string();
            assert!(error.starts_with(fault), "{error}");
        }
        check_modules(&[("lib/a.js", "import '../b.js';"), ("b.js", "")]).unwrap();
        let error = check_modules(&[("lib/a.js", "let x;\n\nlet let;")]).unwrap_err().to_string();
        assert!(error.starts_with("lib/a.js, line 3: SyntaxError: "), "{error}");
        let error = check_modules(&[("a.js", "import './gone.js';")]).unwrap_err().to_string();
        assert!(error.contains("gone.js"), "{error}");
    }
}
