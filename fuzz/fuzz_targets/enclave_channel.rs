//! What a channel to another node brings, and what is in the questions and answers that nodes
//! forward: what is accepted is what would be sent.
#![no_main]

use bytes::Bytes;
use coco_adapter::{Request, Response};
use coco_enclave::channels::wire::Message;
use coco_enclave::forward::message::{
    Answer, ForwardedRequest, ForwardedResponse, Question, Refusal,
};
use coco_kv::{Seqno, TxId};
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fn seeds() -> Vec<Bytes> {
    let mut request = Request::new("body".into());
    *request.uri_mut() = "/app/records/1?a=b".parse().unwrap();
    request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer a.b.c"));
    let seen = Some(TxId::new(2, 9));
    let certificate = Bytes::from_static(b"certificate");
    let mut response = Response::new("body".into());
    response.headers_mut().insert("retry-after", HeaderValue::from_static("3"));
    let forwarded = ForwardedResponse { seen, closes_session: true, response };
    let questions = [
        Question::Request(Box::new(ForwardedRequest { seen, certificate, request })),
        Question::Message { protocol: "ethereum".into(), message: "{}".into() },
    ];
    let answers = [
        Answer::Response(forwarded),
        Answer::Message("{}".into()),
        Answer::Refused(Refusal::NotPrimary),
        Answer::Refused(Refusal::NotServed("why".into())),
        Answer::Refused(Refusal::ByProtocol("why".into())),
    ];
    let questions = questions.map(|question| question.encode().unwrap());
    let answers = answers.map(|answer| answer.encode().unwrap());
    let mut messages = vec![
        Message::Log("frame".into()),
        Message::LedgerPlease {
            number: 1,
            after: Seqno(2),
            to: Seqno(9),
            committed: TxId::new(2, 9),
        },
        Message::Ledger { number: 1, entries: "entries".into() },
        Message::Ping,
        Message::Busy { number: 1 },
        Message::Cancel { number: 1 },
    ];
    let ask = |question: &Bytes| Message::Question { number: 1, question: question.clone() };
    let answer = |answer: &Bytes| Message::Answer { number: 1, answer: answer.clone() };
    messages.extend(questions.iter().map(ask));
    messages.extend(answers.iter().map(answer));
    let messages = messages.iter().map(Message::encode);
    messages.chain(questions.clone()).chain(answers.clone()).collect()
}

/// What is read is written as it is read: headers may move among those of other names, once.
fn check_exchanged(bytes: Bytes) {
    if let Ok(question) = Question::decode(bytes.clone()) {
        let once = question.encode().unwrap();
        let again = Question::decode(once.clone()).unwrap().encode().unwrap();
        assert_eq!(once, again);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        let once = answer.encode().unwrap();
        let again = Answer::decode(once.clone()).unwrap().encode().unwrap();
        assert_eq!(once, again);
    }
}

fuzz_target!(init: coco_fuzz::seed("enclave_channel", seeds()), |bytes: &[u8]| {
    check_exchanged(Bytes::copy_from_slice(bytes));
    coco_fuzz::in_virtual_time(async {
        let mut stream = bytes;
        while let Ok(message) = Message::read(&mut stream).await {
            let encoded = message.encode();
            assert_eq!(Message::read(&mut &encoded[..]).await.unwrap(), message);
            if let Message::Question { question: body, .. } | Message::Answer { answer: body, .. } =
                message
            {
                check_exchanged(body);
            }
        }
    });
});
