//! Bytes out of JS buffers.

use rquickjs::{ArrayBuffer, Ctx, Value, qjs};

/// A copy of the bytes of an `ArrayBuffer`; `None` for anything else and for a detached buffer.
pub fn array_buffer_bytes(value: &Value<'_>) -> Option<Vec<u8>> {
    #[expect(unsafe_code, reason = "a pure test of the value's class")]
    // SAFETY: the function reads the tag and class of a live value and changes nothing.
    let is_buffer = unsafe { qjs::JS_IsArrayBuffer(value.as_raw()) };
    if !is_buffer {
        return None;
    }
    let Some(buffer) = ArrayBuffer::from_value(value.clone()) else {
        forget_exception(value.ctx());
        return None;
    };
    #[expect(unsafe_code, reason = "rquickjs cannot prove that no JavaScript runs meanwhile")]
    // SAFETY: the slice is copied at once, before control can return to JavaScript, which alone
    // could write to, detach or resize the buffer: no other thread can reach a locked runtime.
    let bytes = unsafe { buffer.as_bytes() }.map(<[u8]>::to_vec);
    bytes
}

/// A copy of the bytes that a typed array or `DataView` shows, or of an `ArrayBuffer`; `None` for
/// anything else.
pub fn view_bytes(value: &Value<'_>) -> Option<Vec<u8>> {
    #[expect(unsafe_code, reason = "pure tests of the value's class")]
    // SAFETY: both functions read the tag and class of a live value and change nothing.
    let is_view = unsafe {
        qjs::JS_GetTypedArrayType(value.as_raw()) >= 0 || qjs::JS_IsDataView(value.as_raw())
    };
    if !is_view {
        return array_buffer_bytes(value);
    }
    // The properties may have been overridden by the script, which then gets what it asked for:
    // they only select within the copy.
    let view = value.as_object()?;
    let window = || -> rquickjs::Result<(Value<'_>, f64, f64)> {
        Ok((view.get("buffer")?, view.get("byteOffset")?, view.get("byteLength")?))
    };
    let Ok((buffer, offset, len)) = window() else {
        forget_exception(value.ctx());
        return None;
    };
    let bytes = array_buffer_bytes(&buffer)?;
    let (start, end) = (to_index(offset)?, to_index(offset + len)?);
    bytes.get(start..end).map(<[u8]>::to_vec)
}

/// A non-negative whole number that JavaScript can represent exactly.
fn to_index(number: f64) -> Option<usize> {
    const LARGEST_EXACT: f64 = 9_007_199_254_740_991.0;
    let exact = (0.0..=LARGEST_EXACT).contains(&number) && number.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    exact.then_some(number as usize)
}

/// A failed look at a value leaves an exception behind, which is nobody's.
fn forget_exception(ctx: &Ctx<'_>) {
    drop(ctx.catch());
}

#[cfg(test)]
mod tests {
    use rquickjs::{Context, Runtime};

    use super::*;

    fn both(script: &str) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let runtime = Runtime::new().unwrap();
        Context::full(&runtime).unwrap().with(|ctx| {
            let value: Value<'_> = ctx.eval(script).unwrap();
            let both = (array_buffer_bytes(&value), view_bytes(&value));
            assert!(!ctx.has_exception(), "{script}");
            both
        })
    }

    #[test]
    fn buffers_are_copied() {
        let bytes = Some(vec![7, 8, 9]);
        assert_eq!(both("new Uint8Array([7, 8, 9]).buffer"), (bytes.clone(), bytes));
        assert_eq!(both("new ArrayBuffer(0)"), (Some(vec![]), Some(vec![])));
    }

    #[test]
    fn views_show_their_window() {
        for (script, expected) in [
            ("new Uint8Array([1, 2, 3, 4]).subarray(1, 3)", vec![2, 3]),
            ("new Uint16Array([258])", vec![2, 1]),
            ("new DataView(new Uint8Array([5, 6, 7]).buffer, 2)", vec![7]),
            ("new Uint8Array(0)", vec![]),
        ] {
            assert_eq!(both(script), (None, Some(expected)), "{script}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for script in [
            "({})",
            "'text'",
            "7",
            "null",
            "undefined",
            "[1, 2]",
            "({buffer: 1, byteLength: 1})",
            "const gone = new ArrayBuffer(8); gone.transfer(); gone",
            "const view = new Uint8Array(8); view.buffer.transfer(); view",
            "const lies = new Uint8Array(4); Object.defineProperty(lies, 'byteLength', {value: 1e9}); lies",
            "const odd = new Uint8Array(4); Object.defineProperty(odd, 'byteOffset', {get() { throw 1 }}); odd",
        ] {
            let (buffer, view) = both(script);
            assert_eq!(buffer, None, "{script}");
            // A view on a detached buffer shows nothing.
            assert!(view.is_none_or(|bytes| bytes.is_empty()), "{script}");
        }
    }
}
