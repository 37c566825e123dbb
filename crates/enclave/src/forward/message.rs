//! What a node asks the primary, and what that answers, byte by byte. Numbers are little-endian.
//!
//! ```text
//! question  kind (1) │ body
//!  1 request   seen (16) │ certificate: length (4), DER │ method: length (1), text
//!              │ target: length (4), text │ headers │ body: the rest
//!  2 message   protocol: length (1), name │ message: the rest
//!
//! answer    kind (1) │ body
//!  1 response  seen (16) │ closes the session: 0 or 1 (1) │ status (2) │ headers │ body: the rest
//!  2 message   the rest
//!  3 refused   why (1) │ text: the rest
//!
//! seen      view (8) │ seqno (8): the newest transaction the session was told of; zeros for none
//! headers   count (2) │ for each: name: length (2), text │ value: length (4), bytes
//! ```
//!
//! A node asks with what its client has proved: the certificate of the TLS session. Everything else
//! that says who the caller is, a token or a signed body, is in the request and is verified by
//! whoever executes it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use coco_adapter::{Request, Response};
use coco_kv::{Seqno, TxId, View};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

/// The longest name of a method.
const MAX_METHOD_BYTES: usize = 32;
/// The longest path with its query.
const MAX_TARGET_BYTES: usize = 64 << 10;
/// The largest certificate of a client, as in its handshake.
const MAX_CERTIFICATE_BYTES: usize = 16 << 10;
/// Most headers of a request or response.
const MAX_HEADERS: usize = 4_096;
/// The longest reason of a refusal; the rest is cut off.
const MAX_REASON_BYTES: usize = 1 << 10;

const REQUEST: u8 = 1;
const MESSAGE: u8 = 2;
const RESPONSE: u8 = 1;
const REFUSED: u8 = 3;

/// What a node asks the primary.
#[derive(Debug)]
pub enum Question {
    /// To execute a client's request.
    Request(Box<ForwardedRequest>),
    /// To have a message answered by a protocol.
    Message {
        /// The protocol's name.
        protocol: String,
        /// What only the protocol understands.
        message: Bytes,
    },
}

/// A client's request and what is known of the client.
#[derive(Debug)]
pub struct ForwardedRequest {
    /// The newest transaction that the client's session was told of.
    pub seen: Option<TxId>,
    /// The certificate whose key the client has proved to hold, DER; empty if it has shown none.
    pub certificate: Bytes,
    /// The request.
    pub request: Request,
}

/// What the primary answers.
#[derive(Debug)]
pub enum Answer {
    /// The response to a request.
    Response(ForwardedResponse),
    /// A protocol's answer to its message.
    Message(Bytes),
    /// Nothing was executed.
    Refused(Refusal),
}

/// The response to a client's request and what it means for the client's session.
#[derive(Debug)]
pub struct ForwardedResponse {
    /// The newest transaction that the session is told of by this response.
    pub seen: Option<TxId>,
    /// The session must not go on.
    pub closes_session: bool,
    /// The response.
    pub response: Response,
}

/// Why nothing was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node that was asked is not the primary.
    NotPrimary,
    /// The question is none, or not one for this node.
    NotServed(String),
    /// The protocol refuses the message.
    ByProtocol(String),
}

/// Bytes that are no question or answer, or a request that cannot be put into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It ends before it is complete.
    #[error("it is cut short")]
    CutShort,
    /// A part is larger than it may be.
    #[error("its {0} is too large")]
    TooLarge(&'static str),
    /// A part is not what it must be.
    #[error("its {0} is malformed")]
    Malformed(&'static str),
}

impl Question {
    /// As bytes.
    ///
    /// # Errors
    /// If a part is larger than another node reads.
    pub fn encode(&self) -> Result<Bytes, MessageError> {
        let mut bytes = BytesMut::new();
        match self {
            Self::Request(asked) => {
                let ForwardedRequest { seen, certificate, request } = &**asked;
                bytes.reserve(1_024 + request.body().len());
                bytes.put_u8(REQUEST);
                put_seen(&mut bytes, *seen);
                put_u32(&mut bytes, certificate, MAX_CERTIFICATE_BYTES, "certificate")?;
                put_u8(&mut bytes, request.method().as_str(), MAX_METHOD_BYTES, "method")?;
                // A client of HTTP/2 names the authority too; the host header says the same.
                let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
                put_u32(&mut bytes, target.as_bytes(), MAX_TARGET_BYTES, "target")?;
                put_headers(&mut bytes, request.headers())?;
                bytes.put_slice(request.body());
            }
            Self::Message { protocol, message } => {
                bytes.reserve(2 + protocol.len() + message.len());
                bytes.put_u8(MESSAGE);
                put_u8(&mut bytes, protocol, usize::from(u8::MAX), "protocol")?;
                bytes.put_slice(message);
            }
        }
        Ok(bytes.freeze())
    }

    /// Reads what [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// If it is something else.
    pub fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            REQUEST => {
                let seen = reader.seen()?;
                let certificate = reader.part(4, MAX_CERTIFICATE_BYTES, "certificate")?;
                let method = reader.part(1, MAX_METHOD_BYTES, "method")?;
                let method = Method::from_bytes(&method);
                let target = reader.part(4, MAX_TARGET_BYTES, "target")?;
                let target = PathAndQuery::from_maybe_shared(target);
                let headers = reader.headers()?;
                let mut request = Request::new(reader.0);
                *request.method_mut() = method.map_err(|_| MessageError::Malformed("method"))?;
                *request.uri_mut() =
                    target.map(Uri::from).map_err(|_| MessageError::Malformed("target"))?;
                *request.headers_mut() = headers;
                Ok(Self::Request(Box::new(ForwardedRequest { seen, certificate, request })))
            }
            MESSAGE => {
                let protocol = reader.part(1, usize::from(u8::MAX), "protocol")?;
                let protocol = String::from_utf8(protocol.into());
                let protocol = protocol.map_err(|_| MessageError::Malformed("protocol"))?;
                Ok(Self::Message { protocol, message: reader.0 })
            }
            _ => Err(MessageError::Malformed("kind")),
        }
    }
}

impl Answer {
    /// As bytes.
    ///
    /// # Errors
    /// If a part is larger than another node reads.
    pub fn encode(&self) -> Result<Bytes, MessageError> {
        let mut bytes = BytesMut::new();
        match self {
            Self::Response(ForwardedResponse { seen, closes_session, response }) => {
                bytes.reserve(512 + response.body().len());
                bytes.put_u8(RESPONSE);
                put_seen(&mut bytes, *seen);
                bytes.put_u8(u8::from(*closes_session));
                bytes.put_u16_le(response.status().as_u16());
                put_headers(&mut bytes, response.headers())?;
                bytes.put_slice(response.body());
            }
            Self::Message(message) => {
                bytes.reserve(1 + message.len());
                bytes.put_u8(MESSAGE);
                bytes.put_slice(message);
            }
            Self::Refused(refusal) => {
                let (why, text) = match refusal {
                    Refusal::NotPrimary => (0, ""),
                    Refusal::NotServed(text) => (1, text.as_str()),
                    Refusal::ByProtocol(text) => (2, text.as_str()),
                };
                bytes.put_u8(REFUSED);
                bytes.put_u8(why);
                bytes.put_slice(shortened(text).as_bytes());
            }
        }
        Ok(bytes.freeze())
    }

    /// Reads what [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// If it is something else.
    pub fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            RESPONSE => {
                let seen = reader.seen()?;
                let closes_session = match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(MessageError::Malformed("end of session")),
                };
                let status = StatusCode::from_u16(reader.take(2)?.get_u16_le());
                let headers = reader.headers()?;
                let mut response = Response::new(reader.0);
                *response.status_mut() = status.map_err(|_| MessageError::Malformed("status"))?;
                *response.headers_mut() = headers;
                Ok(Self::Response(ForwardedResponse { seen, closes_session, response }))
            }
            MESSAGE => Ok(Self::Message(reader.0)),
            REFUSED => {
                let why = reader.u8()?;
                if reader.0.len() > MAX_REASON_BYTES {
                    return Err(MessageError::TooLarge("reason"));
                }
                let text = String::from_utf8(reader.0.into());
                let text = text.map_err(|_| MessageError::Malformed("reason"))?;
                match why {
                    0 if text.is_empty() => Ok(Self::Refused(Refusal::NotPrimary)),
                    1 => Ok(Self::Refused(Refusal::NotServed(text))),
                    2 => Ok(Self::Refused(Refusal::ByProtocol(text))),
                    _ => Err(MessageError::Malformed("refusal")),
                }
            }
            _ => Err(MessageError::Malformed("kind")),
        }
    }
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_REASON_BYTES)).unwrap_or_default()
}

fn put_seen(bytes: &mut BytesMut, seen: Option<TxId>) {
    let TxId { view, seqno } = seen.unwrap_or_default();
    bytes.put_u64_le(view.0);
    bytes.put_u64_le(seqno.0);
}

fn put_u8(
    bytes: &mut BytesMut,
    part: &str,
    limit: usize,
    name: &'static str,
) -> Result<(), MessageError> {
    let length = u8::try_from(part.len()).ok().filter(|_| part.len() <= limit);
    bytes.put_u8(length.ok_or(MessageError::TooLarge(name))?);
    bytes.put_slice(part.as_bytes());
    Ok(())
}

fn put_u32(
    bytes: &mut BytesMut,
    part: &[u8],
    limit: usize,
    name: &'static str,
) -> Result<(), MessageError> {
    let length = u32::try_from(part.len()).ok().filter(|_| part.len() <= limit);
    bytes.put_u32_le(length.ok_or(MessageError::TooLarge(name))?);
    bytes.put_slice(part);
    Ok(())
}

/// All headers but those that are about one connection only (RFC 9110 section 7.6.1).
fn put_headers(bytes: &mut BytesMut, headers: &HeaderMap) -> Result<(), MessageError> {
    const OF_A_CONNECTION: [HeaderName; 4] = [
        http::header::CONNECTION,
        http::header::TE,
        http::header::TRANSFER_ENCODING,
        http::header::UPGRADE,
    ];
    let passed_on = || headers.iter().filter(|(name, _)| !OF_A_CONNECTION.contains(name));
    let too_many = MessageError::TooLarge("number of headers");
    let count = Some(passed_on().count()).filter(|count| *count <= MAX_HEADERS).ok_or(too_many)?;
    bytes.put_u16_le(u16::try_from(count).map_err(|_| too_many)?);
    for (name, value) in passed_on() {
        let too_large = MessageError::TooLarge("header");
        let name = name.as_str();
        bytes.put_u16_le(u16::try_from(name.len()).map_err(|_| too_large)?);
        bytes.put_slice(name.as_bytes());
        bytes.put_u32_le(u32::try_from(value.len()).map_err(|_| too_large)?);
        bytes.put_slice(value.as_bytes());
    }
    Ok(())
}

/// What is left to read.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Result<Bytes, MessageError> {
        match length <= self.0.len() {
            true => Ok(self.0.split_to(length)),
            false => Err(MessageError::CutShort),
        }
    }

    fn u8(&mut self) -> Result<u8, MessageError> {
        Ok(self.take(1)?.get_u8())
    }

    /// A part with its length before it, a number of so many bytes.
    fn part(
        &mut self,
        length_bytes: usize,
        limit: usize,
        name: &'static str,
    ) -> Result<Bytes, MessageError> {
        let length = self.take(length_bytes)?.get_uint_le(length_bytes);
        let length = usize::try_from(length).ok().filter(|length| *length <= limit);
        self.take(length.ok_or(MessageError::TooLarge(name))?)
    }

    fn seen(&mut self) -> Result<Option<TxId>, MessageError> {
        let mut seen = self.take(16)?;
        let (view, seqno) = (View(seen.get_u64_le()), Seqno(seen.get_u64_le()));
        let seen = TxId { view, seqno };
        Ok(Some(seen).filter(|seen| *seen != TxId::default()))
    }

    fn headers(&mut self) -> Result<HeaderMap, MessageError> {
        let count = usize::from(self.take(2)?.get_u16_le());
        if count > MAX_HEADERS {
            return Err(MessageError::TooLarge("number of headers"));
        }
        let mut headers = HeaderMap::new();
        for _ in 0..count {
            let name = self.part(2, usize::from(u16::MAX), "header")?;
            let value = self.part(4, usize::MAX, "header")?;
            let malformed = MessageError::Malformed("header");
            let name = HeaderName::from_lowercase(&name).map_err(|_| malformed)?;
            let value = HeaderValue::from_maybe_shared(value).map_err(|_| malformed)?;
            headers.append(name, value);
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "test")]

    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from)
    }

    fn headers() -> impl Strategy<Value = HeaderMap> {
        let value = proptest::collection::vec(0x20..0x7f_u8, 0..20);
        let header = ("[a-z][a-z0-9-]{0,12}", value);
        proptest::collection::vec(header, 0..6).prop_map(|headers| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let name: HeaderName = name.parse().unwrap();
                map.append(name, HeaderValue::from_bytes(&value).unwrap());
            }
            for name in [http::header::CONNECTION, http::header::TE, http::header::UPGRADE] {
                map.remove(name);
            }
            map
        })
    }

    fn seen() -> impl Strategy<Value = Option<TxId>> {
        prop_oneof![Just(None), (1..9_u64, 1..9_u64).prop_map(|(v, s)| Some(TxId::new(v, s)))]
    }

    proptest! {
        #[test]
        fn a_request_arrives_as_it_was(
            seen in seen(),
            certificate in bytes(),
            method in "[A-Z]{1,12}",
            target in "/[a-zA-Z0-9/%:]{0,20}(\\?[a-z=&]{0,9})?",
            headers in headers(),
            body in bytes(),
        ) {
            let mut request = Request::new(body);
            *request.method_mut() = method.parse().unwrap();
            *request.uri_mut() = target.parse().unwrap();
            *request.headers_mut() = headers;
            let asked = ForwardedRequest { seen, certificate: certificate.clone(), request };
            let sent = Question::Request(Box::new(asked));
            let encoded = sent.encode().unwrap();
            let Question::Request(read) = Question::decode(encoded.clone()).unwrap() else { panic!() };
            let Question::Request(sent) = sent else { panic!() };
            prop_assert_eq!(read.seen, seen);
            prop_assert_eq!(&read.certificate, &certificate);
            prop_assert_eq!(read.request.method(), sent.request.method());
            prop_assert_eq!(read.request.uri(), sent.request.uri());
            prop_assert_eq!(read.request.headers(), sent.request.headers());
            prop_assert_eq!(read.request.body(), sent.request.body());
            for cut in 0..encoded.len() - sent.request.body().len() {
                prop_assert!(Question::decode(encoded.slice(..cut)).is_err());
            }
        }

        #[test]
        fn a_response_arrives_as_it_was(
            seen in seen(),
            closes_session in any::<bool>(),
            status in 100..1_000_u16,
            headers in headers(),
            body in bytes(),
        ) {
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            *response.headers_mut() = headers;
            let sent = Answer::Response(ForwardedResponse { seen, closes_session, response });
            let Answer::Response(read) = Answer::decode(sent.encode().unwrap()).unwrap() else {
                panic!()
            };
            let Answer::Response(sent) = sent else { panic!() };
            prop_assert_eq!((read.seen, read.closes_session), (seen, closes_session));
            prop_assert_eq!(read.response.status(), sent.response.status());
            prop_assert_eq!(read.response.headers(), sent.response.headers());
            prop_assert_eq!(read.response.body(), sent.response.body());
        }

        #[test]
        fn messages_and_refusals_arrive_as_they_were(text in "\\PC{0,40}", message in bytes()) {
            let sent = Question::Message { protocol: text.clone(), message: message.clone() };
            let Question::Message { protocol, message: read } =
                Question::decode(sent.encode().unwrap()).unwrap() else { panic!() };
            prop_assert_eq!((protocol, read), (text.clone(), message.clone()));
            let sent = Answer::Message(message.clone());
            let Answer::Message(read) = Answer::decode(sent.encode().unwrap()).unwrap() else {
                panic!()
            };
            prop_assert_eq!(read, message);
            for refusal in [
                Refusal::NotPrimary,
                Refusal::NotServed(text.clone()),
                Refusal::ByProtocol(text.clone()),
            ] {
                let encoded = Answer::Refused(refusal.clone()).encode().unwrap();
                let Answer::Refused(read) = Answer::decode(encoded).unwrap() else { panic!() };
                prop_assert_eq!(read, refusal);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in bytes(), kind in 0..5_u8) {
            let bytes = Bytes::from([&[kind], &bytes[..]].concat());
            let _ = Question::decode(bytes.clone());
            let _ = Answer::decode(bytes);
        }
    }

    #[test]
    fn what_is_about_one_connection_stays_there() {
        let mut request = Request::default();
        for (name, value) in [
            ("connection", "upgrade, x"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer a.b.c"),
        ] {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        let asked = ForwardedRequest { seen: None, certificate: Bytes::new(), request };
        let encoded = Question::Request(Box::new(asked)).encode().unwrap();
        let Question::Request(read) = Question::decode(encoded).unwrap() else { panic!() };
        let names: Vec<_> = read.request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["authorization"]);
    }

    #[test]
    fn what_is_too_large_is_not_sent() {
        let encode = |certificate: usize, method: &str, headers: usize| {
            let mut request = Request::default();
            *request.method_mut() = method.parse().unwrap();
            for number in 0..headers {
                let name: HeaderName = format!("x-{number}").parse().unwrap();
                request.headers_mut().append(name, HeaderValue::from_static("1"));
            }
            let certificate = Bytes::from(vec![1; certificate]);
            let asked = ForwardedRequest { seen: None, certificate, request };
            Question::Request(Box::new(asked)).encode()
        };
        assert!(encode(MAX_CERTIFICATE_BYTES, "GET", MAX_HEADERS).is_ok());
        let refused = |what| Some(MessageError::TooLarge(what));
        assert_eq!(encode(MAX_CERTIFICATE_BYTES + 1, "GET", 0).err(), refused("certificate"));
        assert_eq!(encode(0, &"G".repeat(33), 0).err(), refused("method"));
        assert_eq!(encode(0, "GET", MAX_HEADERS + 1).err(), refused("number of headers"));
        let long = Answer::Refused(Refusal::NotServed("ä".repeat(1_000)));
        let Answer::Refused(Refusal::NotServed(text)) =
            Answer::decode(long.encode().unwrap()).unwrap()
        else {
            panic!()
        };
        assert_eq!(text, "ä".repeat(MAX_REASON_BYTES / 2));
    }
}
