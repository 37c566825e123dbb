//! JavaScript applications.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::codec::json_values;
use super::{Cell, Table, Text, tables};

tables! {
    /// Module path with leading `/` -> source.
    MODULES: Table<String, Text> = "public:ccf.gov.modules";
    /// Module path -> compiled form, an optional cache.
    MODULES_BYTECODE: Table<String, Vec<u8>> = "public:ccf.gov.modules_quickjs_bytecode";
    /// The engine version that compiled the modules.
    MODULES_BYTECODE_VERSION: Cell<Text> = "public:ccf.gov.modules_quickjs_version";
    /// `VERB /path` -> endpoint properties, as the application declared them.
    ENDPOINTS: Table<String, Json> = "public:ccf.gov.endpoints";
    /// Limits for applications.
    JS_RUNTIME_OPTIONS: Cell<JsRuntimeOptions> = "public:ccf.gov.js_runtime_options";
    /// Written when interpreters kept for reuse must be thrown away.
    INTERPRETER_FLUSH: Cell<bool> = "public:ccf.gov.interpreter.flush";
}

/// Limits and reporting of JavaScript applications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsRuntimeOptions {
    /// Heap limit.
    pub max_heap_bytes: u64,
    /// Stack limit.
    pub max_stack_bytes: u64,
    /// Time limit of one execution.
    pub max_execution_time_ms: u64,
    /// Exceptions are logged with message and trace.
    pub log_exception_details: bool,
    /// Exceptions are returned to the caller with message and trace.
    pub return_exception_details: bool,
    /// How many interpreters are kept for reuse.
    pub max_cached_interpreters: u64,
}

impl Default for JsRuntimeOptions {
    fn default() -> Self {
        Self {
            max_heap_bytes: 100 * 1024 * 1024,
            max_stack_bytes: 1024 * 1024,
            max_execution_time_ms: 5000,
            log_exception_details: false,
            return_exception_details: false,
            max_cached_interpreters: 10,
        }
    }
}

json_values!(JsRuntimeOptions);
