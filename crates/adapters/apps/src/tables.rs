//! The maps that an application lives in, as CCF names them.

use coco_kv::MapName;

/// `VERB /path` to the endpoint's properties, JSON.
pub(crate) const ENDPOINTS: &str = "public:ccf.gov.endpoints";
/// `/path.js` to the module's text.
pub(crate) const MODULES: &str = "public:ccf.gov.modules";
/// One value: [`crate::RuntimeOptions`], JSON.
pub(crate) const RUNTIME_OPTIONS: &str = "public:ccf.gov.js_runtime_options";
/// One value, JSON `true`: interpreters that were kept for reuse are stale.
pub(crate) const INTERPRETER_FLUSH: &str = "public:ccf.gov.interpreter.flush";

/// The key of a map that holds one value.
pub(crate) const SINGLE: [u8; 8] = [0; 8];

/// The names, made once.
pub(crate) struct Tables {
    pub(crate) endpoints: MapName,
    pub(crate) modules: MapName,
    pub(crate) runtime_options: MapName,
    pub(crate) interpreter_flush: MapName,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self {
            endpoints: MapName::new(ENDPOINTS),
            modules: MapName::new(MODULES),
            runtime_options: MapName::new(RUNTIME_OPTIONS),
            interpreter_flush: MapName::new(INTERPRETER_FLUSH),
        }
    }
}
