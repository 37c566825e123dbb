//! Which engine this is.

use std::ffi::CStr;

use rquickjs::qjs;

/// The engine's version, like `0.16.2`.
pub fn version() -> &'static str {
    #[expect(unsafe_code, reason = "a constant of the engine")]
    // SAFETY: the function returns a string literal, which ends in NUL and lives for ever.
    let version = unsafe { CStr::from_ptr(qjs::JS_GetVersion()) };
    version.to_str().unwrap_or_default()
}
