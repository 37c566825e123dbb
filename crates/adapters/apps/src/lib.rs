//! JS and TS applications with CCF's API.
//!
//! Governance installs an application by writing its endpoints and modules into tables; this
//! adapter serves them. It knows what an application is; how a script runs and what it sees is
//! `coco-script`'s business, who calls is the enclave's.
//!
//! ```text
//!   set_js_app ─▶ endpoints: "GET /log/{id}" ─▶ {js_module, js_function, mode, policies, …}
//!                 modules:   "/src/log.js"   ─▶ text
//!
//!   request ─▶ JsApps::find ─▶ Routes (parsed once per version of the table)
//!           ─▶ JsApps::execute ─▶ Program (compiled once per version) ─▶ ScriptEngine ─▶ response
//! ```
//!
//! Invariants:
//! * What is cached is checked against the very tables that a transaction sees: a request never
//!   runs code of another version of the application.
//! * A transaction's read set holds the endpoint and the module that it ran.
//! * A script's failure is CCF's error reply; its details reach the client only if governance
//!   said so.

mod app;
mod endpoint;
mod options;
mod routes;
mod tables;

pub use app::JsApps;
pub use endpoint::{Endpoint, EndpointError, InterpreterReuse};
pub use options::RuntimeOptions;
