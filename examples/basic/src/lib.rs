//! The smallest useful application: a value of any bytes under each key, written and read by
//! participants. It is also the application that the native benchmark runs.
//!
//! ```text
//!   PUT  /app/records/{key}    body: the value          204
//!   POST /app/records/{key}    the same                 204
//!   GET  /app/records/{key}                             200 with the value, or 404 KeyNotFound
//! ```
//!
//! The map is private: keys and values are encrypted on the ledger. Try it:
//!
//! ```sh
//! cargo run --release -p coco-basic -- dev
//! ```

use coco_native::{
    Application, Bytes, Call, Endpoint, Endpoints, ErrorCode, ErrorResponse, PlainText, Raw, Text,
    TypedMap,
};

/// The values by key. A name that starts with `public:` would make them plaintext on the ledger.
static RECORDS: TypedMap<Text, Raw> = TypedMap::new("records");

/// The application: three endpoints, which participants call with their TLS client certificate.
pub fn app() -> impl Endpoints {
    Application::new("basic", "Records", "A value of any bytes under each key.")
        .put("/records/{key}", Endpoint::new(write).summary("Write a record"))
        .post("/records/{key}", Endpoint::new(write).summary("Write a record"))
        .get("/records/{key}", Endpoint::new(read).read_only().summary("Read a record"))
}

/// What a handler does to `call.tx` takes effect as a whole if the reply is a success, and not at
/// all otherwise.
fn write(call: &mut Call<'_>, value: Bytes) -> Result<(), ErrorResponse> {
    let key = call.param("key");
    Ok(RECORDS.put(call.tx, key, &value)?)
}

fn read(call: &mut Call<'_>, _: ()) -> Result<PlainText, ErrorResponse> {
    let key = call.param("key");
    let value = RECORDS.get(call.tx, key)?.ok_or_else(|| {
        ErrorResponse::not_found(ErrorCode::KeyNotFound, format!("No such record: {key}."))
    })?;
    Ok(PlainText(value))
}

#[cfg(test)]
mod tests {
    use coco_native::trial::{Trial, participant};
    use coco_native::{Caller, Method};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn records_are_written_and_read_by_participants() {
        let (basic, ada) = (Trial::new(app()), participant("ada"));
        for (method, value) in [(Method::PUT, "first"), (Method::POST, "second")] {
            let written = basic.call(method, "/records/a%2Fb", &ada, value);
            assert_eq!((written.status().as_u16(), written.body().len()), (204, 0));
            let read = basic.call(Method::GET, "/records/a%2Fb", &ada, "");
            assert_eq!((read.status().as_u16(), &read.body()[..]), (200, value.as_bytes()));
        }
        let nobody = basic.call(Method::PUT, "/records/a", &Caller::Unauthenticated, "value");
        assert_eq!(nobody.status(), 401);
    }

    #[test]
    fn any_bytes_are_a_value_and_nothing_is_one_too() {
        let (basic, ada) = (Trial::new(app()), participant("ada"));
        for value in [vec![], vec![0xff; 100], vec![0; 100_000]] {
            assert_eq!(basic.call(Method::PUT, "/records/k", &ada, value.clone()).status(), 204);
            assert_eq!(basic.call(Method::GET, "/records/k", &ada, "").body(), &value);
        }
    }

    #[test]
    fn an_absent_record_is_not_found() {
        let response = Trial::new(app()).call(Method::GET, "/records/x", &participant("ada"), "");
        let body: Value = serde_json::from_slice(response.body()).expect("a JSON refusal");
        assert_eq!(response.status(), 404);
        let expected = json!({"error": {"code": "KeyNotFound", "message": "No such record: x."}});
        assert_eq!(body, expected);
    }
}
