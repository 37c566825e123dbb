//! Reading an application from a folder into the bundle that `set_js_app` takes.
//!
//! ```text
//! app.json + src/**/*.js          a plain application
//! bundle.json                     what `ccf-build-bundle` writes
//! dist/ with either of them       a project built with @microsoft/ccf-app
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::advice::Advise;
use crate::scripts::check_modules;

/// Deepest folder below `src/` that is looked into.
const MAX_DEPTH: usize = 32;

/// An application: its endpoints and its modules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) metadata: serde_json::Value,
    pub(crate) modules: Vec<Module>,
}

/// One source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Module {
    /// Path below `src/`.
    pub(crate) name: String,
    /// The source.
    pub(crate) module: String,
}

impl Bundle {
    /// Reads a folder.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        for folder in [folder.join("dist"), folder.to_owned()] {
            if folder.join("bundle.json").is_file() {
                return Self::built(&folder.join("bundle.json"));
            }
            if folder.join("app.json").is_file() && folder.join("src").is_dir() {
                return Self::plain(&folder);
            }
        }
        Err(anyhow!("{} holds no application", folder.display())).advise(|| {
            let build = folder.join("package.json").is_file();
            match build {
                true => format!("build it first: `cd {} && npm run build`", folder.display()),
                false => "an application is app.json with src/*.js, or a bundle.json".to_owned(),
            }
        })
    }

    /// From `app.json` and sources by name.
    pub(crate) fn from_sources<'a>(
        app_json: &str,
        sources: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self> {
        let metadata = serde_json::from_str(app_json).context("app.json is not JSON")?;
        let modules = sources
            .into_iter()
            .map(|(name, module)| Module { name: name.to_owned(), module: module.to_owned() })
            .collect();
        Self { metadata, modules }.checked()
    }

    fn built(file: &Path) -> Result<Self> {
        let bundle: Self = serde_json::from_str(&read(file)?)
            .with_context(|| format!("{} is not an application bundle", file.display()))?;
        bundle.checked().with_context(|| format!("{} is not usable", file.display()))
    }

    fn plain(folder: &Path) -> Result<Self> {
        let app_json = read(&folder.join("app.json"))?;
        let mut files = Vec::new();
        find_modules(&folder.join("src"), String::new(), 0, &mut files)?;
        files.sort();
        let mut sources = Vec::new();
        for (name, path) in &files {
            sources.push((name.as_str(), read(path)?));
        }
        let sources = sources.iter().map(|(name, source)| (*name, source.as_str()));
        Self::from_sources(&app_json, sources)
            .with_context(|| format!("{} is not usable", folder.display()))
    }

    /// Every endpoint's module is in the bundle, and all modules compile; the service checks the rest.
    fn checked(self) -> Result<Self> {
        let endpoints = self.metadata.get("endpoints").and_then(|value| value.as_object());
        let Some(endpoints) = endpoints else { bail!("there is no object \"endpoints\"") };
        for (path, verbs) in endpoints {
            for (verb, properties) in verbs.as_object().into_iter().flatten() {
                let Some(module) = properties.get("js_module").and_then(|name| name.as_str())
                else {
                    bail!("{} {path} names no js_module", verb.to_uppercase());
                };
                let plain = module.strip_prefix('/').unwrap_or(module);
                let same = |it: &Module| it.name.strip_prefix('/').unwrap_or(&it.name) == plain;
                if !self.modules.iter().any(same) {
                    let verb = verb.to_uppercase();
                    bail!("{verb} {path} names the module {module:?}, which is not in src/");
                }
            }
        }
        let modules = self.modules.iter().map(|it| (it.name.as_str(), it.module.as_str()));
        check_modules(&modules.collect::<Vec<_>>())?;
        Ok(self)
    }

    /// Each endpoint as `VERB /path`.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let endpoints = self.metadata.get("endpoints").and_then(|value| value.as_object());
        let mut lines: Vec<String> = endpoints
            .into_iter()
            .flatten()
            .flat_map(|(path, verbs)| {
                let verbs = verbs.as_object().into_iter().flatten();
                verbs.map(move |(verb, _)| format!("{} {path}", verb.to_uppercase()))
            })
            .collect();
        lines.sort();
        lines
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn find_modules(
    folder: &Path,
    prefix: String,
    depth: usize,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<()> {
    if depth > MAX_DEPTH {
        bail!("{} lies too deep", folder.display());
    }
    let listed =
        fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in listed {
        let path = entry.with_context(|| format!("{} cannot be read", folder.display()))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            bail!("{} is not named in UTF-8", path.display());
        };
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            find_modules(&path, format!("{name}/"), depth.saturating_add(1), files)?;
        } else if name.ends_with(".js") || name.ends_with(".mjs") {
            files.push((name, path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::advice::explain;

    const APP_JSON: &str =
        r#"{"endpoints":{"/a":{"get":{"js_module":"lib/a.js","js_function":"f"}}}}"#;

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_plain_folder_is_bundled() {
        let app = folder(&[
            ("app.json", APP_JSON),
            ("src/z.js", "z"),
            ("src/lib/a.js", "export function f() {}"),
            ("src/readme.md", "not a module"),
        ]);
        let bundle = Bundle::load(app.path()).unwrap();
        let names: Vec<&str> = bundle.modules.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["lib/a.js", "z.js"]);
        assert_eq!(bundle.endpoints(), ["GET /a"]);
    }

    #[test]
    fn a_built_project_is_found_in_dist() {
        let text =
            format!(r#"{{"metadata":{APP_JSON},"modules":[{{"name":"/lib/a.js","module":"x"}}]}}"#);
        let app = folder(&[("dist/bundle.json", &text), ("app.json", "{}"), ("src/a.ts", "")]);
        let bundle = Bundle::load(app.path()).unwrap();
        assert_eq!(bundle, Bundle::load(&app.path().join("dist")).unwrap());
        assert_eq!(bundle.modules.len(), 1);
    }

    #[test]
    fn faults_say_what_to_do() {
        let table: [(&[(&str, &str)], &str); 6] = [
            (&[], "an application is app.json"),
            (&[("package.json", "{}")], "npm run build"),
            (&[("app.json", "{"), ("src/a.js", "")], "app.json is not JSON"),
            (&[("app.json", APP_JSON), ("src/a.js", "")], r#"names the module "lib/a.js""#),
            (
                &[("app.json", APP_JSON), ("src/lib/a.js", "export function f( {}")],
                "is not usable: lib/a.js, line 1: SyntaxError",
            ),
            (&[("bundle.json", r#"{"metadata":{}}"#)], "not an application bundle"),
        ];
        for (files, expected) in table {
            let app = folder(files);
            let text = explain(&Bundle::load(app.path()).unwrap_err());
            assert!(text.contains(expected), "{text}");
        }
    }
}
