//! `ccf.kv`: maps by name, and what can be done with one.

use std::ops::ControlFlow;

use coco_adapter::HistoricalState;
use coco_kv::{MapName, Tx};
use coco_quickjs::{call_nested, keep, kept};
use rquickjs::function::This;
use rquickjs::object::Property;
use rquickjs::proxy::ProxyHandler;
use rquickjs::{Ctx, Exception, Function, Object, Proxy, Result, Value};

use super::basic::{array_buffer, bytes_argument};
use crate::access::Operation;
use crate::call::with_call;
use crate::timed::native;

/// Where a handle keeps its map's name, and the number of its historical state if it has one.
/// Scripts may well forge handles: every operation is checked by the name that it finds.
const MAP: &str = "__map";
const STATE: &str = "__state";
/// What is kept for all: the prototype of handles, and how a proxy finds a map.
const METHODS: &str = "kv.methods";
const GET: &str = "kv.get";

/// The longest name of a map, bytes.
const MAX_NAME_BYTES: usize = 1024;

/// `ccf.kv` of the call's own transaction.
pub(super) fn live<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    maps(ctx, None)
}

/// The maps of a historical state, by its number.
pub(super) fn historical<'js>(ctx: &Ctx<'js>, state: u32) -> Result<Value<'js>> {
    maps(ctx, Some(state))
}

/// Makes what all objects of maps share.
pub(super) fn prepare(ctx: &Ctx<'_>) -> Result<()> {
    keep(ctx, METHODS, methods(ctx)?.into_value())?;
    keep(ctx, GET, native(ctx, "get", get_map)?.into_value())
}

/// An object whose every property is a map.
fn maps<'js>(ctx: &Ctx<'js>, state: Option<u32>) -> Result<Value<'js>> {
    let handler = Object::new(ctx.clone())?;
    handler.set("get", kept::<Value<'js>>(ctx, GET)?)?;
    handler.set(STATE, state)?;
    // Without a prototype: a map may be called "constructor".
    let target = Object::new_proto(ctx.clone(), None)?;
    let proxy = Proxy::new(ctx.clone(), target, ProxyHandler::from_object(handler)?)?;
    Ok(proxy.into_value())
}

/// The trap for reading a property: a handle for the map of that name.
fn get_map<'js>(
    ctx: Ctx<'js>,
    handler: This<Object<'js>>,
    target: Object<'js>,
    key: Value<'js>,
) -> Result<Value<'js>> {
    let known: Value<'js> = target.get(key.clone())?;
    let Some(name) = key.as_string().filter(|_| known.is_undefined()) else { return Ok(known) };
    let name = name.to_string().map_err(|_| {
        Exception::throw_type(&ctx, "The name of a map must be well-formed Unicode")
    })?;
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        let message = format!("The name of a map has 1 to {MAX_NAME_BYTES} bytes");
        return Err(Exception::throw_type(&ctx, &message));
    }
    let methods: Object<'js> = kept(&ctx, METHODS)?;
    let handle = Object::new_proto(ctx.clone(), Some(&methods))?;
    handle.prop(MAP, Property::from(name.as_str()))?;
    if let Some(state) = handler.get::<_, Option<u32>>(STATE)? {
        handle.prop(STATE, Property::from(state))?;
    }
    target.set(name, handle.clone())?;
    Ok(handle.into_value())
}

/// The prototype of handles.
fn methods<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let methods = Object::new(ctx.clone())?;
    macro_rules! method {
        ($name:literal, $function:path) => {
            methods.set($name, native(ctx, $name, $function)?)?;
        };
    }
    method!("has", has);
    method!("get", get);
    method!("getVersionOfPreviousWrite", version_of_previous_write);
    method!("set", set);
    method!("delete", delete);
    method!("clear", clear);
    method!("forEach", for_each);
    let descriptor = Object::new(ctx.clone())?;
    descriptor.set("get", native(ctx, "size", size)?)?;
    descriptor.set("enumerable", true)?;
    descriptor.set("configurable", true)?;
    let object: Object<'js> = ctx.globals().get("Object")?;
    let define_property: Function<'js> = object.get("defineProperty")?;
    define_property.call::<_, ()>((methods.clone(), "size", descriptor))?;
    Ok(methods)
}

/// The map that a handle stands for.
struct Handle {
    map: MapName,
    state: Option<u32>,
}

impl Handle {
    fn of(this: &Object<'_>) -> Result<Self> {
        let map: Value<'_> = this.get(MAP)?;
        let Some(name) = map.as_string() else {
            let message = "This method must be called on a map of ccf.kv";
            return Err(Exception::throw_type(this.ctx(), message));
        };
        Ok(Self { map: MapName::new(&name.to_string()?), state: this.get(STATE)? })
    }

    /// Does something with the map, if the script may.
    fn with<R>(
        &self,
        ctx: &Ctx<'_>,
        method: &str,
        operation: Operation,
        act: impl FnOnce(&mut Tx, &MapName) -> R,
    ) -> Result<R> {
        let done = with_call(ctx, |tx, call| {
            let allowed = call.context.access(&self.map).allows(operation);
            let past = self.state.is_some();
            if !allowed || (past && operation == Operation::Write) {
                return Err(match past && allowed {
                    true => format!(
                        "Cannot call {method} on table named {}: it is of the past",
                        self.map
                    ),
                    false => call.context.refusal(method, &self.map),
                });
            }
            let Some(state) = self.state else { return Ok(act(tx, &self.map)) };
            match call.states.get(&state) {
                Some(state) => Ok(act(&mut past_tx(state), &self.map)),
                None => Err("The historical state belongs to another request".to_owned()),
            }
        })?;
        done.map_err(|message| Exception::throw_type(ctx, &message))
    }
}

/// A transaction on a historical state, for reading.
fn past_tx(state: &HistoricalState) -> Tx {
    Tx::on(state.state.clone())
}

fn has<'js>(ctx: Ctx<'js>, this: This<Object<'js>>, key: Value<'js>) -> Result<bool> {
    let (handle, key) = (Handle::of(&this)?, bytes_argument(&key, "key")?);
    handle.with(&ctx, "has", Operation::Read, |tx, map| tx.has(map, &key))
}

fn get<'js>(ctx: Ctx<'js>, this: This<Object<'js>>, key: Value<'js>) -> Result<Value<'js>> {
    let (handle, key) = (Handle::of(&this)?, bytes_argument(&key, "key")?);
    match handle.with(&ctx, "get", Operation::Read, |tx, map| tx.get(map, &key))? {
        Some(value) => array_buffer(&ctx, &value),
        None => Ok(Value::new_undefined(ctx)),
    }
}

fn version_of_previous_write<'js>(
    ctx: Ctx<'js>,
    this: This<Object<'js>>,
    key: Value<'js>,
) -> Result<Value<'js>> {
    let (handle, key) = (Handle::of(&this)?, bytes_argument(&key, "key")?);
    let method = "getVersionOfPreviousWrite";
    let look = |tx: &mut Tx, map: &MapName| tx.version_of_previous_write(map, &key);
    match handle.with(&ctx, method, Operation::Read, look)? {
        Some(version) => Ok(Value::new_number(ctx, number(version.0))),
        None => Ok(Value::new_undefined(ctx)),
    }
}

fn set<'js>(
    ctx: Ctx<'js>,
    this: This<Object<'js>>,
    key: Value<'js>,
    value: Value<'js>,
) -> Result<Object<'js>> {
    let handle = Handle::of(&this)?;
    let (key, value) = (bytes_argument(&key, "key")?, bytes_argument(&value, "value")?);
    handle.with(&ctx, "set", Operation::Write, |tx, map| tx.put(map, key, value))?;
    Ok(this.0)
}

fn delete<'js>(ctx: Ctx<'js>, this: This<Object<'js>>, key: Value<'js>) -> Result<bool> {
    let (handle, key) = (Handle::of(&this)?, bytes_argument(&key, "key")?);
    handle.with(&ctx, "delete", Operation::Write, |tx, map| tx.remove(map, key))?;
    Ok(true)
}

fn clear<'js>(ctx: Ctx<'js>, this: This<Object<'js>>) -> Result<()> {
    let handle = Handle::of(&this)?;
    handle.with(&ctx, "clear", Operation::Write, |tx, map| tx.clear(map))
}

fn size<'js>(ctx: Ctx<'js>, this: This<Object<'js>>) -> Result<f64> {
    let handle = Handle::of(&this)?;
    let len = handle.with(&ctx, "size", Operation::Read, |tx, map| tx.len(map))?;
    Ok(number(len as u64))
}

/// Calls back with `(value, key, map)` for each entry that the map has at the moment of the call.
fn for_each<'js>(ctx: Ctx<'js>, this: This<Object<'js>>, callback: Function<'js>) -> Result<()> {
    let handle = Handle::of(&this)?;
    let entries = handle.with(&ctx, "forEach", Operation::Read, |tx, map| {
        let mut entries = Vec::new();
        tx.for_each(map, |key, value| {
            entries.push((key.to_vec(), value.clone()));
            ControlFlow::Continue(())
        });
        entries
    })?;
    let undefined = Value::new_undefined(ctx.clone());
    for (key, value) in entries {
        let (key, value) = (array_buffer(&ctx, &key)?, array_buffer(&ctx, &value)?);
        call_nested(&callback, &undefined, &[value, key, this.as_value().clone()])?;
    }
    Ok(())
}

/// Sequence numbers and sizes as JS numbers: exact up to 2^53, which no ledger reaches.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}
