//! Requests of an interface with a protocol of its own: from which web pages they may come, who
//! sends them, and whether they begin a WebSocket. What they mean is the protocol's.

use std::sync::Arc;

use bytes::Bytes;
use coco_adapter::{
    AuthnPolicy, Caller, Client, Conversation, ErrorCode, ErrorResponse, Limits, Protocol, Request,
    Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::frontend::Frontend;
use super::{Dispatcher, Shared};
use crate::host::BoxFuture;
use crate::interface::{InterfaceError, Origins, ProtocolInterface};
use crate::session::{Dispatch, Messages, Reply, Session, Upgrade};

/// How long a browser may remember the answer to a preflight, in seconds.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Asked by browsers for pages that reach from the internet into the local network.
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// Passes the requests of one interface to its protocol.
#[derive(Clone)]
pub struct ProtocolDispatcher {
    shared: Arc<Shared>,
    protocol: Arc<dyn Protocol>,
    origins: Origins,
}

impl Dispatcher {
    /// A dispatcher for an interface that names a protocol.
    pub fn protocol(
        &self,
        interface: &ProtocolInterface,
    ) -> Result<ProtocolDispatcher, InterfaceError> {
        let node = &self.shared.node;
        let protocol = node.protocol(&interface.name).ok_or_else(|| {
            let known = node.protocol_names();
            InterfaceError::UnknownProtocol { name: interface.name.clone(), known }
        })?;
        Ok(ProtocolDispatcher {
            shared: Arc::clone(&self.shared),
            protocol: Arc::clone(protocol),
            origins: interface.origins.clone(),
        })
    }
}

impl Dispatch for ProtocolDispatcher {
    fn dispatch(&self, session: &Arc<Session>, request: Request) -> Reply {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let allowed = origin.as_ref().map(|origin| self.allows(origin));
        if is_preflight(&request) {
            return Reply::Now(self.preflight(request.headers(), origin.as_ref()));
        }
        if let Err(refusal) = self.admit(session, &request) {
            return Reply::Now(self.sharing(refusal.to_response(), origin.as_ref()));
        }
        if asks_for_websocket(&request) {
            // No browser checks these for the page, as it does the replies to other requests.
            if allowed == Some(false) {
                let message = "Web pages of this origin may not connect.";
                let status = StatusCode::FORBIDDEN;
                let refusal = ErrorResponse::new(status, ErrorCode::AuthorizationFailed, message);
                return Reply::Now(refusal.to_response());
            }
            return self.upgrade(session, request);
        }
        let reply = self.protocol.handle(&self.client(session, &request), request);
        let shared = match allowed {
            Some(true) => self.sharing_headers(origin.as_ref()),
            Some(false) | None => HeaderMap::new(),
        };
        Reply::Later(Box::pin(async move {
            let mut response = reply.await;
            response.headers_mut().extend(shared);
            response
        }))
    }
}

impl ProtocolDispatcher {
    fn admit(&self, session: &Session, request: &Request) -> Result<(), ErrorResponse> {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        if !session.interface.accepts(request.uri().path()) {
            let message = "The interface does not serve this path.";
            return Err(ErrorResponse::new(unavailable, ErrorCode::ResourceNotFound, message));
        }
        self.shared.check_open(Frontend::App).map_err(|_| {
            let message = "The service is not open yet.";
            ErrorResponse::new(unavailable, ErrorCode::FrontendNotOpen, message)
        })
    }

    /// Who sends a request: whoever the tables say that the certificate is, or nobody.
    fn client(&self, session: &Session, request: &Request) -> Client {
        let caller = match &session.peer {
            None => Arc::new(Caller::NoAuth),
            Some(_) => self.known_caller(session, request),
        };
        Client { caller, limits: limits(session) }
    }

    fn known_caller(&self, session: &Session, request: &Request) -> Arc<Caller> {
        let policies = [AuthnPolicy::UserCert, AuthnPolicy::MemberCert];
        let mut tx = self.shared.node.pipeline().store().begin();
        let mut credentials = self.shared.credentials(session, request);
        let remembered = &mut session.memory.lock().remembered;
        let authenticator = &self.shared.authenticator;
        let found = authenticator.authenticate(&policies, &mut credentials, remembered, &mut tx);
        found.unwrap_or_else(|_| Arc::new(Caller::NoAuth))
    }

    /// Begins a WebSocket (RFC 6455 section 4.2).
    fn upgrade(&self, session: &Arc<Session>, mut request: Request) -> Reply {
        let accept = match accept_key(&request) {
            Ok(accept) => accept,
            Err(response) => return Reply::Now(*response),
        };
        let Some(conversation) = self.protocol.converse(&self.client(session, &request)) else {
            let message = "The protocol of this interface has no WebSocket.";
            let code = ErrorCode::ResourceNotFound;
            return Reply::Now(ErrorResponse::not_found(code, message).to_response());
        };
        let connection = hyper::upgrade::on(&mut request);
        let mut response = Response::default();
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        let messages = Arc::new(Talk { dispatcher: self.clone(), conversation, request });
        Reply::Upgrade(response, Upgrade { connection, messages })
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.origins.contain(origin))
    }

    /// What lets a browser show a reply to a page (the Fetch standard's CORS protocol).
    fn sharing_headers(&self, origin: Option<&HeaderValue>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return headers };
        let (name, any) = (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        match self.origins {
            Origins::All => headers.insert(name, any),
            Origins::Listed(_) => headers.insert(name, origin.clone()),
        };
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        headers
    }

    fn sharing(&self, mut response: Response, origin: Option<&HeaderValue>) -> Response {
        response.headers_mut().extend(self.sharing_headers(origin));
        response
    }

    fn preflight(&self, asked: &HeaderMap, origin: Option<&HeaderValue>) -> Response {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        let mut granted = self.sharing_headers(origin);
        if !granted.is_empty() {
            let methods = HeaderValue::from_static("GET, POST, OPTIONS");
            granted.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            if let Some(headers) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                granted.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
            }
            if asked.contains_key(&REQUEST_PRIVATE_NETWORK) {
                granted.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
            }
            granted.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
        }
        response.headers_mut().extend(granted);
        response
    }
}

/// A conversation with whoever the session's certificate stands for when a message comes.
struct Talk {
    dispatcher: ProtocolDispatcher,
    conversation: Arc<dyn Conversation>,
    /// The one that began it.
    request: Request,
}

impl Messages for Talk {
    fn receive(&self, session: &Session, message: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let client = self.dispatcher.client(session, &self.request);
        self.conversation.receive(&client, message)
    }

    fn next(&self) -> BoxFuture<'static, Option<Vec<Bytes>>> {
        self.conversation.next()
    }
}

fn limits(session: &Session) -> Limits {
    let interface = &session.interface;
    let protocol = interface.protocol.as_ref();
    Limits {
        max_message_bytes: interface.limits.max_body_bytes,
        max_batch_requests: protocol.map_or(0, |protocol| protocol.max_batch_requests),
        max_reply_bytes: protocol.map_or(0, |protocol| protocol.max_reply_bytes),
    }
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether a comma-separated header holds a word, in any case.
fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

fn asks_for_websocket(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has_word(headers, header::CONNECTION, "upgrade")
        && has_word(headers, header::UPGRADE, "websocket")
}

/// The answer to the client's key; or what is wrong with its handshake.
fn accept_key(request: &Request) -> Result<HeaderValue, Box<Response>> {
    let headers = request.headers();
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        let known = HeaderValue::from_static("13");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, known);
        return Err(Box::new(response));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
    let accept = key.and_then(|key| derive_accept_key(key.as_bytes()).try_into().ok());
    accept.ok_or_else(|| {
        let message = "Header sec-websocket-key is not 16 bytes in base64.";
        let code = ErrorCode::InvalidHeaderValue;
        Box::new(ErrorResponse::bad_request(code, message).to_response())
    })
}
