//! What one session can't do to the others.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use sentinel_agent::resolver::{Event, Limit};
use sentinel_policy::configuration::{Resolver as Settings, Upstream as Server};
use sentinel_tests::dns::DnsServer;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::scene::{query, receive, receive_framed, send_framed, settings, summary, with, with_settings};

const ANSWERED: (ResponseCode, usize) = (ResponseCode::NoError, 1);
const FAILED: (ResponseCode, usize) = (ResponseCode::ServFail, 0);

fn server() -> DnsServer {
    DnsServer::start(&json!({"api.example": {"a": ["192.0.2.1"], "ttl": 300}}))
}

#[tokio::test]
async fn a_session_that_asks_too_fast_is_told_so_once_and_another_is_answered() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        let (flooding, other) = (scene.application(1).await, scene.application(2).await);
        let mut failed = 0;
        let mut buffer = [0; 512];
        // It doesn't wait for its replies, so that it is fast on any machine.
        for _ in 0..100_000 {
            flooding.send(&query("api.example", RecordType::TXT)).await.unwrap();
            tokio::task::yield_now().await;
            while let Ok(length) = flooding.try_recv(&mut buffer) {
                let reply = Message::from_vec(&buffer[..length]).unwrap();
                failed += usize::from(summary(&reply) == FAILED);
            }
            if failed >= 5 {
                break;
            }
        }
        assert!(failed >= 5);
        assert_eq!(scene.events(), [Event::Limited(Limit::Rate)]);
        assert_eq!(summary(&scene.ask_from(&other, "api.example", RecordType::A).await), ANSWERED);
    })
    .await;
}

#[tokio::test]
async fn names_of_a_sessions_own_choice_are_few_and_those_the_policy_spells_out_are_not_counted() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("*.wild.example");
        scene.list("api.example");
        for index in 0..60 {
            let reply = scene.ask(&format!("n{index}.wild.example"), RecordType::A).await;
            assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        }
        assert_eq!(server.questions().len(), 60);
        assert_eq!(summary(&scene.ask("n60.wild.example", RecordType::A).await), FAILED);
        assert_eq!(summary(&scene.ask("n61.wild.example", RecordType::AAAA).await), FAILED);
        assert_eq!(server.questions().len(), 60);
        assert_eq!(scene.events(), [Event::Limited(Limit::NewNames)]);
        let known = scene.ask("n0.wild.example", RecordType::A).await;
        assert_eq!(known.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(summary(&scene.ask("api.example", RecordType::A).await), ANSWERED);
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_questions_hang_upstream_takes_no_place_of_another() {
    let server =
        DnsServer::start(&json!({"silent.example": {"silent": true}, "api.example": {"a": ["192.0.2.1"]}}));
    let upstream = Server { address: server.address(), tls_name: None };
    // None of them is over before the last one has come.
    let settings = Settings { timeout_seconds: 30, ..settings(vec![upstream]) };
    with_settings(&settings, async |scene| {
        scene.list("silent.example");
        scene.list("api.example");
        let (hanging, other) = (scene.application(1).await, scene.application(2).await);
        for _ in 0..257 {
            hanging.send(&query("silent.example", RecordType::A)).await.unwrap();
            // As an application that is never slower than the resolver.
            tokio::task::yield_now().await;
        }
        // The one that is too many is answered before all those that wait.
        assert_eq!(summary(&receive(&hanging).await), FAILED);
        assert_eq!(scene.events(), [Event::Limited(Limit::InFlight)]);
        assert_eq!(summary(&scene.ask_from(&other, "api.example", RecordType::A).await), ANSWERED);
    })
    .await;
}

#[tokio::test]
async fn a_session_has_so_many_connections_and_another_has_its_own() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        let mut open = Vec::new();
        for _ in 0..32 {
            let mut stream = scene.connect(1).await;
            send_framed(&mut stream, &query("api.example", RecordType::A)).await;
            assert_eq!(summary(&receive_framed(&mut stream).await.unwrap()), ANSWERED);
            open.push(stream);
        }
        let mut one_more = scene.connect(1).await;
        send_framed(&mut one_more, &query("api.example", RecordType::A)).await;
        assert!(receive_framed(&mut one_more).await.is_none());
        let mut other = scene.connect(2).await;
        send_framed(&mut other, &query("api.example", RecordType::A)).await;
        assert_eq!(summary(&receive_framed(&mut other).await.unwrap()), ANSWERED);
        send_framed(&mut open[0], &query("api.example", RecordType::A)).await;
        assert_eq!(summary(&receive_framed(&mut open[0]).await.unwrap()), ANSWERED);
    })
    .await;
}

#[tokio::test]
async fn silent_connections_make_room_for_one_that_asks_and_push_out_none_that_has_asked() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        let mut early = scene.connect(2).await;
        send_framed(&mut early, &query("api.example", RecordType::A)).await;
        assert_eq!(summary(&receive_framed(&mut early).await.unwrap()), ANSWERED);
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(scene.connect(1).await);
            tokio::task::yield_now().await;
        }
        let mut asking = scene.connect(2).await;
        send_framed(&mut asking, &query("api.example", RecordType::A)).await;
        assert_eq!(summary(&receive_framed(&mut asking).await.unwrap()), ANSWERED);
        assert!(receive_framed(&mut silent[0]).await.is_none());
        send_framed(&mut early, &query("api.example", RecordType::A)).await;
        assert_eq!(summary(&receive_framed(&mut early).await.unwrap()), ANSWERED);
        assert_eq!(scene.events(), [Event::Limited(Limit::Total)]);
    })
    .await;
}

#[tokio::test]
async fn a_query_longer_than_any_ends_its_connection() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        let mut stream = scene.connect(1).await;
        stream.write_all(&u16::MAX.to_be_bytes()).await.unwrap();
        assert!(receive_framed(&mut stream).await.is_none());
        let mut stream = scene.connect(1).await;
        send_framed(&mut stream, &query("api.example", RecordType::A)).await;
        assert_eq!(summary(&receive_framed(&mut stream).await.unwrap()), ANSWERED);
    })
    .await;
}
