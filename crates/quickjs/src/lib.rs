//! The few operations on QuickJS that rquickjs offers only as `unsafe`, made safe.
//!
//! Everything else of the node forbids `unsafe`; this crate is small so that it can be read in one
//! sitting. It is not an engine: limits, modules and the `ccf` global are in `coco-script`.
//!
//! ```text
//!   array_buffer_bytes, view_bytes    a JS buffer ──copy──▶ Vec<u8>
//!   Bytecode::compile ─▶ Bytecode ─▶ Bytecode::load    a module parsed once, instantiated often
//!   call_nested, eval_nested         JavaScript from within a native, on the same stack
//!   Realm ─▶ with ─▶ rewind          globals prepared once, every use begins with them anew
//!   version                          the engine's
//! ```
//!
//! Invariants:
//! * Bytes are copied out before any JavaScript can run again.
//! * What runs within a native has no more stack than the script that called it.
//! * A rewound [`Realm`] is, byte by byte, what it was when it was prepared.
//! * A panic of a native, a loader or an interrupt handler ends as an exception of the script.
//! * A [`Bytecode`] was written by this very process from a module that its compiler accepted:
//!   there is no way to make one from bytes, nor to read one from a disk or a network.
//!
//! ```
//! use coco_quickjs::{Bytecode, array_buffer_bytes};
//! use rquickjs::{Context, Module, Runtime, Value};
//!
//! # fn main() -> rquickjs::Result<()> {
//! let runtime = Runtime::new()?;
//! let bytecode = Context::full(&runtime)?.with(|ctx| {
//!     let module = Module::declare(ctx, "/answer.js", "export const answer = 6 * 7;")?;
//!     Bytecode::compile(&module)
//! })?;
//! Context::full(&runtime)?.with(|ctx| {
//!     let (module, evaluated) = bytecode.load(&ctx)?.eval()?;
//!     evaluated.finish::<()>()?;
//!     assert_eq!(module.get::<_, i32>("answer")?, 42);
//!
//!     let buffer: Value<'_> = ctx.eval("new Uint8Array([1, 2, 3]).buffer")?;
//!     assert_eq!(array_buffer_bytes(&buffer), Some(vec![1, 2, 3]));
//!     Ok(())
//! })
//! # }
//! ```

mod buffer;
mod bytecode;
mod guard;
mod memory;
mod realm;
mod run;
mod version;

pub use buffer::{array_buffer_bytes, view_bytes};
pub use bytecode::Bytecode;
pub use realm::{Realm, keep, kept, native};
pub use run::{call_nested, eval_nested};
pub use version::version;
