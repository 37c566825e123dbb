//! Installing and removing an application.

use std::collections::BTreeMap;

use coco_kv::{MapName, Tx};
use coco_script::{ScriptEngine, ScriptError};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::endpoint::{Endpoint, EndpointError};
use crate::routes::{are_ambiguous, split_key};
use crate::tables::{BYTECODE, BYTECODE_VERSION, ENDPOINTS, INTERPRETER_FLUSH, MODULES, SINGLE};

/// Why a bundle is not an application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not of the form `{metadata: {endpoints}, modules}`.
    #[error("the bundle is malformed: {0}")]
    Syntax(String),
    /// A module's name is empty, too long, or there twice.
    #[error("module name {0:?} is empty, too long, or used twice")]
    ModuleName(String),
    /// There is more of something than can be handled.
    #[error("the bundle has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// An endpoint's path or verb cannot be used.
    #[error("endpoint {endpoint:?}: {reason}")]
    Path {
        /// Verb and path.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// An endpoint's properties cannot be used.
    #[error("endpoint {endpoint:?}: {error}")]
    Endpoint {
        /// Verb and path.
        endpoint: String,
        /// Why not.
        error: EndpointError,
    },
    /// An endpoint's module is not in the bundle.
    #[error("endpoint {endpoint:?} needs module {module:?}, which is not in the bundle")]
    NoSuchModule {
        /// Verb and path.
        endpoint: String,
        /// The module.
        module: String,
    },
    /// Some path would fit both.
    #[error("endpoints {first:?} and {second:?} could serve the same request")]
    Ambiguous {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
}

#[derive(Deserialize)]
struct Bundle {
    metadata: Metadata,
    modules: Vec<Module>,
}

#[derive(Deserialize)]
struct Metadata {
    endpoints: BTreeMap<String, BTreeMap<String, Json>>,
}

#[derive(Deserialize)]
struct Module {
    name: String,
    module: String,
}

const MAX_MODULES: usize = 10_000;
const MAX_ENDPOINTS: usize = 10_000;
const MAX_NAME_BYTES: usize = 1_024;

/// Replaces the application by a bundle, in the wire form of `set_js_app`. Nothing is written
/// unless the whole bundle is sound. Bytecode is never stored, so `_disable_bytecode_cache` changes
/// nothing; it is part of the action's arguments.
pub fn install_bundle(
    tx: &mut Tx,
    bundle: &Json,
    _disable_bytecode_cache: bool,
) -> Result<(), BundleError> {
    let bundle =
        Bundle::deserialize(bundle).map_err(|error| BundleError::Syntax(error.to_string()))?;
    let modules = modules(bundle.modules)?;
    let endpoints = endpoints(bundle.metadata, &modules)?;
    remove(tx);
    let (modules_map, endpoints_map) = (MapName::new(MODULES), MapName::new(ENDPOINTS));
    for (name, text) in modules {
        tx.put(&modules_map, name.as_bytes(), text.as_bytes());
    }
    for (key, properties) in endpoints {
        tx.put(&endpoints_map, key.as_bytes(), properties.as_bytes());
    }
    Ok(())
}

/// Removes the application.
pub fn remove(tx: &mut Tx) {
    for map in [MODULES, ENDPOINTS, BYTECODE, BYTECODE_VERSION] {
        tx.clear(&MapName::new(map));
    }
    tx.put(&MapName::new(INTERPRETER_FLUSH), SINGLE, b"true".as_slice());
}

/// Whether every module of the application that is installed compiles, with what it imports.
pub fn check_modules(
    engine: &ScriptEngine,
    environment: &dyn coco_adapter::Environment,
    tx: &mut Tx,
) -> Result<(), ScriptError> {
    engine.check_modules(tx, environment, &MapName::new(MODULES))
}

/// Names, with their leading slash, and texts.
fn modules(modules: Vec<Module>) -> Result<BTreeMap<String, String>, BundleError> {
    if modules.len() > MAX_MODULES {
        return Err(BundleError::TooMany { what: "modules", limit: MAX_MODULES });
    }
    let mut by_name = BTreeMap::new();
    for Module { name, module } in modules {
        let full = full_name(&name);
        let usable = !name.is_empty() && name.len() <= MAX_NAME_BYTES;
        if !usable || by_name.insert(full, module).is_some() {
            return Err(BundleError::ModuleName(name));
        }
    }
    Ok(by_name)
}

fn full_name(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/{name}") }
}

/// Keys and properties, as they are stored.
fn endpoints(
    metadata: Metadata,
    modules: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, BundleError> {
    let count: usize = metadata.endpoints.values().map(BTreeMap::len).sum();
    if count > MAX_ENDPOINTS {
        return Err(BundleError::TooMany { what: "endpoints", limit: MAX_ENDPOINTS });
    }
    let mut stored = Vec::new();
    let mut templates = Vec::new();
    for (path, verbs) in metadata.endpoints {
        for (verb, mut properties) in verbs {
            let key = format!("{} {path}", verb.to_uppercase());
            let refused = |reason| BundleError::Path { endpoint: key.clone(), reason };
            if path.len() > MAX_NAME_BYTES {
                return Err(refused(format!("the path has more than {MAX_NAME_BYTES} bytes")));
            }
            let (method, template) = split_key(&key).map_err(refused)?;
            let parsed = Endpoint::from_json(&properties)
                .map_err(|error| BundleError::Endpoint { endpoint: key.clone(), error })?;
            let module = full_name(&parsed.js_module);
            if !modules.contains_key(&module) {
                let module = parsed.js_module;
                return Err(BundleError::NoSuchModule { endpoint: key, module });
            }
            // The text as given is stored, but for the module's full name.
            if let Some(properties) = properties.as_object_mut() {
                properties.insert("js_module".to_owned(), Json::String(module));
            }
            stored.push((key.clone(), properties.to_string()));
            if !template.is_literal() {
                templates.push((method, template, key));
            }
        }
    }
    for (index, (method, template, key)) in templates.iter().enumerate() {
        let rest = templates.iter().skip(index + 1);
        let mut same_verb = rest.filter(|(other, _, _)| other == method);
        if let Some((_, _, other)) = same_verb.find(|(_, other, _)| are_ambiguous(template, other))
        {
            return Err(BundleError::Ambiguous { first: key.clone(), second: other.clone() });
        }
    }
    Ok(stored)
}
