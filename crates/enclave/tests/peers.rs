//! What a node makes of a peer that is not what it should be: another node's identity in the hand of
//! the test.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test"
)]

mod linked;
mod served;
mod simulated;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coco_adapter::{AuthnPolicy, Call, EndpointProperties, Endpoints, Registry, Request};
use coco_consensus::wire::{Content, Frame, Message as LogMessage};
use coco_enclave::channels::wire::Message;
use coco_enclave::forward::message::{Answer, ForwardedRequest, Question, Refusal};
use coco_enclave::node::NodeState;
use coco_governance::tables::{NODES, NodeStatus};
use coco_kv::{MapName, Tx};
use http::{HeaderValue, Method, StatusCode};
use linked::{Network, govern, open, read, until, write};
use serde_json::json;
use simulated::in_virtual_time;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

fn app() -> Arc<dyn Endpoints> {
    let mut app = Registry::new("test", "Test", "");
    let properties =
        EndpointProperties { authn_policies: vec![AuthnPolicy::NoAuth], ..Default::default() };
    let put = |call: &mut Call<'_>| {
        let key = call.param("key").to_owned();
        call.tx.put(&MapName::new("records"), key, "1");
        call.reply(&"written")
    };
    app.add(Method::PUT, "/records/{key}", properties, json!({}), put).unwrap();
    Arc::new(app)
}

async fn three() -> Network {
    let network = Network::running(app).with(3).await;
    open(network.node(0)).await;
    network.agree().await;
    network
}

/// A request to write under this key, whose reply waits for commitment.
fn write_of(key: &str) -> Bytes {
    let mut request = Request::default();
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = format!("/app/records/{key}").parse().unwrap();
    request.headers_mut().insert("x-coco-wait", HeaderValue::from_static("committed"));
    let asked = ForwardedRequest { seen: None, certificate: Bytes::new(), request };
    Question::Request(Box::new(asked)).encode().unwrap()
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &Message) {
    stream.write_all(&message.encode()).await.unwrap();
    stream.flush().await.unwrap();
}

/// The next answer, or that there is none; what else comes is not of interest.
async fn next_answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u64, Option<Answer>)> {
    loop {
        match Message::read(stream).await {
            Ok(Message::Answer { number, answer }) => {
                return Some((number, Some(Answer::decode(answer).unwrap())));
            }
            Ok(Message::Busy { number }) => return Some((number, None)),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

async fn has_ended(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    while let Ok(message) = Message::read(stream).await {
        assert!(matches!(message, Message::Ping | Message::Log(_)), "{message:?}");
    }
    stream.read(&mut [0]).await.unwrap_or(0) == 0
}

#[test]
fn a_backup_passes_on_nothing_that_was_passed_on_to_it() {
    in_virtual_time(async {
        let network = three().await;
        let mut channel = network.channel(1, 2).await.unwrap();
        let question = write_of("a");
        send(&mut channel, &Message::Question { number: 7, question }).await;
        let (number, answer) = next_answer(&mut channel).await.unwrap();
        let Some(Answer::Response(forwarded)) = answer else { panic!("{answer:?}") };
        let status = forwarded.response.status();
        assert_eq!((number, status), (7, StatusCode::SERVICE_UNAVAILABLE));
        let body = String::from_utf8(forwarded.response.body().to_vec()).unwrap();
        assert!(body.contains("RequestAlreadyForwarded"), "{body}");
        assert_eq!(read(network.node(0), "a"), None);

        // Nor does a protocol answer there.
        let question = Question::Message { protocol: "x".into(), message: Bytes::new() };
        let question = question.encode().unwrap();
        send(&mut channel, &Message::Question { number: 8, question }).await;
        let (_, answer) = next_answer(&mut channel).await.unwrap();
        assert!(matches!(answer, Some(Answer::Refused(Refusal::NotPrimary))), "{answer:?}");
    });
}

#[test]
fn a_question_that_is_none_is_refused_and_a_message_that_is_none_ends_the_channel() {
    in_virtual_time(async {
        let network = three().await;
        let mut channel = network.channel(1, 0).await.unwrap();
        for question in [&b""[..], b"\x01", b"\x09 what?"] {
            let question = Bytes::from_static(question);
            send(&mut channel, &Message::Question { number: 1, question }).await;
            let (_, answer) = next_answer(&mut channel).await.unwrap();
            let Some(Answer::Refused(Refusal::NotServed(why))) = answer else { panic!() };
            assert!(why.contains("cannot be read"), "{why}");
        }
        let unknown = Question::Message { protocol: "chess".into(), message: Bytes::new() };
        let question = unknown.encode().unwrap();
        send(&mut channel, &Message::Question { number: 2, question }).await;
        let (_, answer) = next_answer(&mut channel).await.unwrap();
        let expected = Refusal::NotServed("there is no protocol chess".into());
        assert!(matches!(answer, Some(Answer::Refused(refusal)) if refusal == expected));
        // Answers to what was never asked.
        send(&mut channel, &Message::Answer { number: 5, answer: Bytes::new() }).await;
        send(&mut channel, &Message::Busy { number: 5 }).await;
        send(&mut channel, &Message::Cancel { number: 5 }).await;
        send(&mut channel, &Message::Question { number: 3, question: write_of("a") }).await;
        assert_eq!(next_answer(&mut channel).await.unwrap().0, 3);

        channel.write_all(&[1, 0, 0, 0, 99]).await.unwrap();
        channel.flush().await.unwrap();
        assert!(has_ended(&mut channel).await);
        write(network.node(0), "b", "1").await;
    });
}

#[test]
fn what_nobody_waits_for_any_more_is_let_go() {
    in_virtual_time(async {
        let network = three().await;
        for member in &network.members {
            member.disk.crash_after(1);
        }
        let mut channel = network.channel(1, 0).await.unwrap();
        send(&mut channel, &Message::Question { number: 1, question: write_of("a") }).await;
        until(|| read(network.node(0), "a").is_some()).await;
        send(&mut channel, &Message::Cancel { number: 1 }).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        send(&mut channel, &Message::Question { number: 1, question: write_of("b") }).await;
        until(|| read(network.node(0), "b").is_some()).await;
        // One that is still being answered is not asked again.
        send(&mut channel, &Message::Question { number: 1, question: write_of("c") }).await;
        assert!(has_ended(&mut channel).await);
        assert_eq!(read(network.node(0), "c"), None);
    });
}

#[test]
fn a_flood_of_questions_is_answered_or_turned_away_and_the_log_goes_on() {
    in_virtual_time(async {
        const QUESTIONS: u64 = 6_000;
        let network = three().await;
        let view = network.node(0).view();
        let (mut reader, mut writer) = tokio::io::split(network.channel(1, 0).await.unwrap());
        let flood = tokio::spawn(async move {
            for number in 0..QUESTIONS {
                let question = write_of(&(number % 10).to_string());
                send(&mut writer, &Message::Question { number, question }).await;
            }
            writer
        });
        // It is long before anybody reads the answers.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let written = write(network.node(0), "meanwhile", "1").await;
        assert_eq!(written.view, view);
        let (mut answered, mut busy) = (BTreeSet::new(), BTreeSet::new());
        while answered.len() + busy.len() < QUESTIONS as usize {
            match next_answer(&mut reader).await {
                Some((number, Some(answer))) => {
                    let Answer::Response(forwarded) = answer else { panic!("{answer:?}") };
                    assert_eq!(forwarded.response.status(), StatusCode::OK);
                    assert!(answered.insert(number));
                }
                Some((number, None)) => assert!(busy.insert(number)),
                None => break,
            }
        }
        drop(flood.await.unwrap());
        assert!(answered.is_disjoint(&busy));
        assert!(!answered.is_empty());
        let written = write(network.node(0), "afterwards", "1").await;
        assert_eq!(written.view, view, "it is still the primary");
    });
}

async fn set_status(network: &Network, number: usize, status: NodeStatus) {
    let id = network.node(number).id();
    govern(network, |tx: &mut Tx| {
        let mut info = NODES.get(tx, &id).unwrap().unwrap();
        info.status = status;
        NODES.put(tx, &id, &info);
    })
    .await;
}

#[test]
fn a_retired_node_is_not_let_in_again() {
    in_virtual_time(async {
        let network = three().await;
        let mut channel = network.channel(2, 0).await.unwrap();
        send(&mut channel, &Message::Question { number: 1, question: write_of("a") }).await;
        assert!(next_answer(&mut channel).await.unwrap().1.is_some());
        set_status(&network, 2, NodeStatus::Retired).await;
        let (first, leaving) = (network.node(0), network.node(2).id());
        let is_over = || {
            let mut tx = first.pipeline().store().begin();
            NODES.get(&mut tx, &leaving).unwrap().unwrap().retired_committed
        };
        until(is_over).await;
        // The channel that it has ends with the next message, and there is no other.
        let question = write_of("b");
        let _ = channel.write_all(&Message::Question { number: 2, question }.encode()).await;
        let _ = channel.flush().await;
        assert!(next_answer(&mut channel).await.is_none());
        let mut again = network.channel(2, 0).await.unwrap();
        assert!(has_ended(&mut again).await);
        assert_eq!(read(first, "b"), None);
        write(first, "c", "1").await;
    });
}

/// The next frame of the log that brings a batch, from a channel.
async fn next_batch(channel: &mut (impl AsyncRead + Unpin)) -> Frame {
    loop {
        let Message::Log(frame) = Message::read(channel).await.unwrap() else { continue };
        let frame = Frame::decode(frame).unwrap();
        let LogMessage::Append { entries, .. } = &frame.message else { continue };
        if entries.iter().any(|entry| matches!(entry.content, Content::Batch(_))) {
            return frame;
        }
    }
}

#[test]
fn a_batch_that_is_not_what_was_signed_stops_the_node_that_it_is_sent_to_and_no_other() {
    in_virtual_time(async {
        let network = three().await;
        // What the primary has for node 1 comes here, and what node 1 hears comes from here.
        let mut from_primary = network.channel(1, 0).await.unwrap();
        let mut to_victim = network.channel(0, 1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let written = write(network.node(0), "a", "1").await;
        let mut frame = next_batch(&mut from_primary).await;
        let LogMessage::Append { entries, .. } = &mut frame.message else { panic!() };
        for entry in entries {
            if let Content::Batch(batch) = &mut entry.content {
                let mut bytes = batch.entries.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                batch.entries = bytes.into();
            }
        }
        let victim = network.node(1);
        assert!(victim.pipeline().store().head().seqno < written.seqno);
        send(&mut to_victim, &Message::Log(frame.encode())).await;
        until(|| victim.state() == NodeState::Failed).await;
        assert_eq!(read(victim, "a"), None);
        assert!(victim.pipeline().last_committed().seqno < written.seqno);
        let later = write(network.node(0), "b", "1").await;
        assert_eq!(later.view, written.view);
        until(|| network.node(2).pipeline().last_committed().seqno >= later.seqno).await;
        assert_eq!(read(network.node(2), "b").as_deref(), Some("1"));
    });
}
