//! One endpoint: a handler, and what is declared about it.

use std::sync::Arc;

use coco_adapter::{
    AuthnPolicy, Call, EndpointProperties, ErrorResponse, ForwardingRequired, Handler, Mode,
    RedirectionStrategy, remove_framing,
};
use serde_json::{Value as JsonValue, json};

use crate::{Input, Reply};

/// A handler with its declarations. Unless said otherwise it may write, and participants may call
/// it who show their TLS client certificate.
#[must_use = "an endpoint does nothing until it is added to an application"]
pub struct Endpoint {
    pub(crate) properties: EndpointProperties,
    pub(crate) handler: Handler,
    operation: JsonValue,
}

impl Endpoint {
    /// An endpoint that runs `handler` with the call and what the request's body holds.
    ///
    /// The handler runs inside a transaction and again after a conflict, so it must have no other
    /// effect than on the call. Its writes are applied if the reply's status is 2xx.
    pub fn new<I: Input, R: Reply>(
        handler: impl Fn(&mut Call<'_>, I) -> Result<R, ErrorResponse> + Send + Sync + 'static,
    ) -> Self {
        let properties = EndpointProperties {
            authn_policies: vec![AuthnPolicy::UserCert],
            ..EndpointProperties::default()
        };
        let run = move |call: &mut Call<'_>| {
            let input = I::from_call(call)?;
            let mut response = handler(call, input)?.into_response()?;
            remove_framing(response.headers_mut());
            Ok(response)
        };
        Self { properties, handler: Arc::new(run), operation: operation::<I, R>() }
    }

    /// It only reads, and may be answered by any node.
    pub fn read_only(mut self) -> Self {
        self.properties.mode = Mode::ReadOnly;
        self.properties.forwarding_required = ForwardingRequired::Sometimes;
        self.properties.redirection_strategy = RedirectionStrategy::None;
        self
    }

    /// It only reads, and is given the past state that the request asks for, in `call.historical`;
    /// `Tx::on` of that state reads it through typed maps.
    pub fn historical(self) -> Self {
        let mut endpoint = self.read_only();
        endpoint.properties.mode = Mode::Historical;
        endpoint
    }

    /// Who may call: the first policy that passes says who it is.
    pub fn authenticate(mut self, policies: impl IntoIterator<Item = AuthnPolicy>) -> Self {
        self.properties.authn_policies = policies.into_iter().collect();
        self
    }

    /// Everybody may call, and nobody is asked who it is.
    pub fn open(self) -> Self {
        self.authenticate([])
    }

    /// When a backup passes a request on to the primary.
    pub fn forwarding(mut self, forwarding: ForwardingRequired) -> Self {
        self.properties.forwarding_required = forwarding;
        self
    }

    /// Where a client is sent on an interface that redirects.
    pub fn redirection(mut self, redirection: RedirectionStrategy) -> Self {
        self.properties.redirection_strategy = redirection;
        self
    }

    /// Every reply waits until the transaction is committed.
    pub fn waits_for_commit(mut self) -> Self {
        self.properties.waits_for_commit = true;
        self
    }

    /// The handler may compute for long: it runs where it holds up nobody else.
    pub fn long_running(mut self) -> Self {
        self.properties.long_running = true;
        self
    }

    /// One line for the API's document.
    pub fn summary(self, summary: &str) -> Self {
        self.documented("summary", json!(summary))
    }

    /// More lines for the API's document, in Markdown.
    pub fn description(self, description: &str) -> Self {
        self.documented("description", json!(description))
    }

    /// A query parameter for the API's document; the handler finds it by `call.query(name)`.
    pub fn query_parameter(mut self, name: &str, description: &str) -> Self {
        let parameter = json!({
            "name": name, "in": "query", "description": description, "schema": {"type": "string"},
        });
        if let Some(operation) = self.operation.as_object_mut() {
            let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
            parameters.as_array_mut().into_iter().for_each(|all| all.push(parameter.clone()));
        }
        self
    }

    /// Its OpenAPI Operation Object.
    pub(crate) fn openapi(&self) -> JsonValue {
        let mut operation = self.operation.clone();
        if let Some(operation) = operation.as_object_mut() {
            let policies = json!(self.properties.authn_policies);
            operation.insert("x-coco-authn-policies".into(), policies);
        }
        operation
    }

    fn documented(mut self, field: &str, value: JsonValue) -> Self {
        if let Some(operation) = self.operation.as_object_mut() {
            operation.insert(field.to_owned(), value);
        }
        self
    }
}

fn operation<I: Input, R: Reply>() -> JsonValue {
    let (status, reply) = R::response();
    let mut responses = json!({"default": refusal()});
    let mut operation = json!({});
    if let (Some(responses), Some(operation)) =
        (responses.as_object_mut(), operation.as_object_mut())
    {
        let status = status.map_or("2XX".to_owned(), |status| status.as_str().to_owned());
        responses.insert(status, reply);
        operation.extend(I::request_body().map(|body| ("requestBody".to_owned(), body)));
        operation.insert("responses".to_owned(), json!(responses));
    }
    operation
}

fn refusal() -> JsonValue {
    json!({
        "description": "Refused",
        "content": {"application/json": {"schema": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "details": {"type": "array", "items": {"type": "object"}},
                },
            }},
        }}},
    })
}
