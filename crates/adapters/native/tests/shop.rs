//! A small shop: every kind of input, reply, policy, refusal and map in one application.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;

use coco_native::trial::{Trial, participant, stored};
use coco_native::{
    Application, AuthnPolicy, Bytes, Call, Caller, Endpoint, ErrorCode, ErrorResponse, Json,
    Method, PlainText, Raw, Response, StatusCode, Text, TypedMap, TypedSet, TypedValue,
};
use http::header::{self, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Article {
    name: String,
    stock: u32,
}

static ARTICLES: TypedMap<u32, Json<Article>> = TypedMap::new("articles");
static PICTURES: TypedMap<u32, Raw> = TypedMap::new("public:pictures");
static CUSTOMERS: TypedSet<Text> = TypedSet::new("customers");
static MOTTO: TypedValue<Text> = TypedValue::new("motto");

fn number(call: &Call<'_>) -> Result<u32, ErrorResponse> {
    let number = call.param("number");
    number.parse().map_err(|_| {
        let message = format!("{number:?} is not a number.");
        ErrorResponse::bad_request(ErrorCode::InvalidResourceName, message)
    })
}

fn add(
    call: &mut Call<'_>,
    article: Json<Article>,
) -> Result<(StatusCode, Json<u32>), ErrorResponse> {
    let number = ARTICLES.len(call.tx) as u32;
    ARTICLES.put(call.tx, &number, &article.0)?;
    Ok((StatusCode::CREATED, Json(number)))
}

fn list(call: &mut Call<'_>, _: ()) -> Result<Json<Vec<Article>>, ErrorResponse> {
    let limit = call.query("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let mut articles = Vec::new();
    ARTICLES.for_each(call.tx, |_, article| {
        if articles.len() < limit {
            articles.push(article);
        }
        if articles.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(Json(articles))
}

/// Takes one of the article; the writes of a refused call must not be applied.
fn buy(call: &mut Call<'_>, _: ()) -> Result<Json<Article>, ErrorResponse> {
    let number = number(call)?;
    if let Caller::UserCert { id, .. } = call.caller {
        CUSTOMERS.insert(call.tx, &id.to_string())?;
    }
    let mut article = ARTICLES
        .get(call.tx, &number)?
        .ok_or_else(|| ErrorResponse::not_found(ErrorCode::KeyNotFound, "No such article."))?;
    article.stock = article.stock.checked_sub(1).ok_or_else(|| {
        ErrorResponse::new(StatusCode::CONFLICT, ErrorCode::PreconditionFailed, "Sold out.")
    })?;
    ARTICLES.put(call.tx, &number, &article)?;
    Ok(Json(article))
}

fn draw(call: &mut Call<'_>, picture: Bytes) -> Result<(), ErrorResponse> {
    let number = number(call)?;
    Ok(PICTURES.put(call.tx, &number, &picture)?)
}

fn show(call: &mut Call<'_>, _: ()) -> Result<Bytes, ErrorResponse> {
    let number = number(call)?;
    Ok(PICTURES.get(call.tx, &number)?.unwrap_or_default())
}

fn shop() -> Trial<Application> {
    let of_staff = [AuthnPolicy::MemberCert];
    Trial::new(
        Application::new("shop", "Shop", "Articles and pictures.")
            .post("/articles", Endpoint::new(add).authenticate(of_staff.clone()))
            .get("/articles", Endpoint::new(list).read_only().open())
            .post("/articles/{number}/buy", Endpoint::new(buy))
            .put("/pictures/{number}", Endpoint::new(draw).authenticate(of_staff))
            .get("/pictures/{number}", Endpoint::new(show).read_only().open())
            .put("/motto", Endpoint::new(|call, motto: String| Ok(MOTTO.put(call.tx, &motto)?)))
            .get(
                "/motto",
                Endpoint::new(|call, ()| {
                    let motto = MOTTO.get(call.tx)?.unwrap_or_default();
                    // A read-only endpoint's writes go nowhere.
                    MOTTO.remove(call.tx)?;
                    Ok(PlainText(motto.into()))
                })
                .read_only(),
            )
            .delete(
                "/motto",
                Endpoint::new(|call, ()| {
                    MOTTO.remove(call.tx)?;
                    call.outcome.apply_writes = Some(false);
                    Ok(Response::new("kept".into()))
                }),
            ),
    )
}

fn member() -> Caller {
    let Caller::UserCert { id, cert, data } = participant("staff") else { unreachable!() };
    Caller::MemberCert { id, cert, data }
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_default()
}

#[test]
fn a_day_in_the_shop() {
    let (shop, staff, ada) = (shop(), member(), participant("ada"));
    for (expected, name) in ["book", "pen"].into_iter().enumerate() {
        let article = json!({"name": name, "stock": 1}).to_string();
        let response = shop.call(Method::POST, "/articles", &staff, article);
        assert_eq!((response.status(), body(&response)), (StatusCode::CREATED, json!(expected)));
    }
    let bought = shop.call(Method::POST, "/articles/0/buy", &ada, "");
    assert_eq!(body(&bought), json!({"name": "book", "stock": 0}));
    let first = shop.call(Method::GET, "/articles?limit=1", &Caller::Unauthenticated, "");
    assert_eq!(body(&first), json!([{"name": "book", "stock": 0}]));

    assert_eq!(shop.call(Method::PUT, "/pictures/0", &staff, vec![0xff, 0]).status(), 204);
    let picture = shop.call(Method::GET, "/pictures/0", &Caller::Unauthenticated, "");
    assert_eq!(&picture.body()[..], [0xff, 0]);
    assert_eq!(picture.headers()["content-type"], "application/octet-stream");

    assert_eq!(shop.call(Method::PUT, "/motto", &ada, "Buy!").status(), 204);
    let kept = shop.call(Method::DELETE, "/motto", &ada, "");
    assert_eq!((kept.status(), &kept.body()[..]), (StatusCode::OK, b"kept".as_slice()));
    for _ in 0..2 {
        let motto = shop.call(Method::GET, "/motto", &ada, "");
        assert_eq!(&motto.body()[..], b"Buy!");
        assert_eq!(motto.headers()["content-type"], "text/plain");
    }
    assert_eq!(stored(shop.store(), "motto", &[0; 8]).as_deref(), Some(b"Buy!".as_slice()));
}

#[test]
fn refusals_have_their_codes_and_write_nothing() {
    let (shop, staff, ada) = (shop(), member(), participant("ada"));
    let article = json!({"name": "book", "stock": 0}).to_string();
    assert_eq!(shop.call(Method::POST, "/articles", &staff, article).status(), 201);
    let head = shop.store().head();
    let (post, put) = (Method::POST, Method::PUT);
    for (method, target, caller, input, status, code) in [
        (&post, "/articles", &ada, "{}", 401, "InvalidAuthenticationInfo"),
        (&post, "/articles", &staff, "{}", 400, "InvalidInput"),
        (&post, "/articles", &staff, r#"{"name":"a","stock":-1}"#, 400, "InvalidInput"),
        (&post, "/articles", &staff, "", 400, "InvalidInput"),
        (&post, "/articles/x/buy", &ada, "", 400, "InvalidResourceName"),
        (&post, "/articles/7/buy", &ada, "", 404, "KeyNotFound"),
        (&post, "/articles/0/buy", &ada, "", 409, "PreconditionFailed"),
        (&put, "/articles", &staff, "", 405, "UnsupportedHttpVerb"),
        (&put, "/nowhere", &ada, "", 404, "ResourceNotFound"),
    ] {
        let response = shop.call(method.clone(), target, caller, input);
        assert_eq!(response.status(), status, "{target} {input}");
        assert_eq!(body(&response)["error"]["code"], code, "{target} {input}");
    }
    let not_text = shop.call(put, "/motto", &ada, vec![0xff]);
    assert_eq!(body(&not_text)["error"]["code"], "InvalidInput");
    assert_eq!(shop.store().head(), head, "a refused call has written");
}

#[test]
fn the_framing_of_a_reply_is_the_nodes() {
    let reply = |_: &mut Call<'_>, _: ()| {
        let mut response = Response::new(Bytes::from("longer than five"));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, 5.into());
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::ETAG, HeaderValue::from_static("\"kept\""));
        Ok(response)
    };
    let framed = Application::new("framed", "Framed", "").get("/", Endpoint::new(reply));
    let response = Trial::new(framed).call(Method::GET, "/", &participant("ada"), "");
    let names: Vec<_> = response.headers().keys().map(header::HeaderName::as_str).collect();
    assert_eq!(names, ["etag"]);
}
