//! What becomes of an upstream's answers.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::svcb::SvcParamKey;
use hickory_proto::rr::{RData, RecordType};
use sentinel_agent::resolver::Event;
use sentinel_tests::dns::{self, DnsServer};
use serde_json::{Value, json};

use crate::scene::{addresses, plain_query, query, receive, receive_framed, send_framed, summary, with};

fn ttls(reply: &Message) -> Vec<u32> {
    reply.answers.iter().map(|record| record.ttl).collect()
}

#[tokio::test]
async fn an_alias_is_followed_and_not_shown() {
    for stepwise in [false, true] {
        let server = DnsServer::start(&json!({
            "www.example": {"cname": "edge.example", "stepwise": stepwise, "ttl": 20},
            "edge.example": {"cname": "host.example", "stepwise": stepwise, "ttl": 40},
            "host.example": {"a": ["192.0.2.7"], "ttl": 60},
        }));
        with(&[&server], async |scene| {
            scene.list("www.example");
            let reply = scene.ask("www.example", RecordType::A).await;
            assert_eq!(dns::addresses(&reply), addresses(&["192.0.2.7"]), "stepwise: {stepwise}");
            assert!(reply.answers.iter().all(|record| record.name.to_ascii() == "www.example."));
            assert_eq!(scene.gate.opened.borrow()[0].1, "www.example");
            // The name that it leads to isn't listed for that.
            let reply = scene.ask("host.example", RecordType::A).await;
            assert_eq!(summary(&reply), (ResponseCode::NXDomain, 0));
        })
        .await;
    }
}

#[tokio::test]
async fn aliases_that_go_round_or_are_too_many_are_an_error_and_told() {
    let chain = |length: usize, stepwise: bool| {
        let mut zone: Value = json!({});
        for step in 0..length {
            zone[format!("n{step}.example")] =
                json!({"cname": format!("n{}.example", step + 1), "stepwise": stepwise});
        }
        zone[format!("n{length}.example")] = json!({"a": ["192.0.2.1"]});
        zone
    };
    let round = |stepwise: bool| {
        json!({
            "n0.example": {"cname": "n1.example", "stepwise": stepwise},
            "n1.example": {"cname": "n0.example", "stepwise": stepwise},
        })
    };
    for (zone, is_followed) in [
        (chain(7, false), true),
        (chain(7, true), true),
        (chain(9, false), false),
        (chain(9, true), false),
        (round(false), false),
        (round(true), false),
    ] {
        let server = DnsServer::start(&zone);
        with(&[&server], async |scene| {
            scene.list("n0.example");
            let reply = scene.ask("n0.example", RecordType::A).await;
            if is_followed {
                assert_eq!(dns::addresses(&reply), addresses(&["192.0.2.1"]), "{zone}");
            } else {
                assert_eq!(summary(&reply), (ResponseCode::ServFail, 0), "{zone}");
                assert!(
                    matches!(&*scene.events(), [Event::UpstreamFailed(cause)] if cause.contains("aliases")),
                    "{zone}"
                );
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_absence_is_passed_on_as_what_it_is() {
    let server = DnsServer::start(&json!({
        "v4.example": {"a": ["192.0.2.1"]},
        "with-soa.example": {"a": ["192.0.2.1"], "soa": true},
        "alias.example": {"cname": "v4.example"},
        "step.example": {"cname": "v4.example", "stepwise": true},
    }));
    with(&[&server], async |scene| {
        for name in ["v4.example", "with-soa.example", "alias.example", "step.example"] {
            scene.list(name);
            assert_eq!(
                summary(&scene.ask(name, RecordType::AAAA).await),
                (ResponseCode::NoError, 0),
                "{name}"
            );
            for _ in 0..2 {
                assert_eq!(
                    summary(&scene.ask(name, RecordType::A).await),
                    (ResponseCode::NoError, 1),
                    "{name}"
                );
            }
        }
        scene.list("absent.example");
        let reply = scene.ask("absent.example", RecordType::A).await;
        assert_eq!(summary(&reply), (ResponseCode::NXDomain, 0));
        assert_eq!(scene.events(), []);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_upstream_cuts_is_fetched_over_tcp() {
    let server = DnsServer::start(&json!({"cut.example": {"a": ["192.0.2.1"], "truncated": true}}));
    with(&[&server], async |scene| {
        scene.list("cut.example");
        let reply = scene.ask("cut.example", RecordType::A).await;
        assert_eq!(dns::addresses(&reply), addresses(&["192.0.2.1"]));
    })
    .await;
    assert_eq!(server.questions(), ["udp A cut.example", "tcp A cut.example"]);
}

#[tokio::test]
async fn of_a_thousand_addresses_the_first_64_are_opened_and_told() {
    let server = DnsServer::start(&json!({"many.example": {"a": ["192.0.2.1"], "more": 999}}));
    with(&[&server], async |scene| {
        scene.list("many.example");
        // 64 addresses don't fit a datagram of 512 bytes, and do fit one of 1,232.
        let socket = scene.application(1).await;
        socket.send(&plain_query("many.example", RecordType::A).to_vec().unwrap()).await.unwrap();
        let cut = receive(&socket).await;
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        assert_eq!(scene.ask("many.example", RecordType::A).await.answers.len(), 64);
        let mut stream = scene.connect(1).await;
        send_framed(&mut stream, &plain_query("many.example", RecordType::A).to_vec().unwrap()).await;
        let whole = receive_framed(&mut stream).await.unwrap();
        assert!(!whole.metadata.truncation && whole.answers.len() == 64);
        assert_eq!(dns::addresses(&whole)[0], addresses(&["192.0.2.1"])[0]);
        assert!(scene.gate.opened.borrow().iter().all(|(_, _, addresses)| addresses.len() == 64));
    })
    .await;
}

#[tokio::test]
async fn an_answer_holds_neither_shorter_than_a_connection_takes_nor_longer_than_a_door_should() {
    let server = DnsServer::start(&json!({
        "short.example": {"a": ["192.0.2.1"], "ttl": 0},
        "usual.example": {"a": ["192.0.2.1"], "ttl": 60},
        "long.example": {"a": ["192.0.2.1"], "ttl": 86400},
    }));
    with(&[&server], async |scene| {
        for (name, seconds) in [("short.example", 5), ("usual.example", 60), ("long.example", 300)] {
            scene.list(name);
            assert_eq!(ttls(&scene.ask(name, RecordType::A).await), [seconds], "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_remembered_and_one_that_changes_is_asked_for_again() {
    let server = DnsServer::start(&json!({
        "still.example": {"a": ["192.0.2.1"], "ttl": 300},
        "moving.example": {"a": ["192.0.2.1", "192.0.2.2"], "rotates": true, "ttl": 0},
    }));
    with(&[&server], async |scene| {
        scene.list("still.example");
        scene.list("moving.example");
        for _ in 0..3 {
            scene.ask("still.example", RecordType::A).await;
        }
        assert_eq!(server.questions().len(), 1);
        // What is remembered is opened again: the doors may have been shut meanwhile.
        assert_eq!(scene.gate.opened.borrow().len(), 3);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.extend(dns::addresses(&scene.ask("moving.example", RecordType::A).await));
        }
        assert_eq!(seen, addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.1"]));
    })
    .await;
}

#[tokio::test]
async fn forged_answers_in_front_of_the_true_one_are_passed_over() {
    let forged = |forged: Value| json!({"a": ["192.0.2.1"], "forged": forged});
    let server = DnsServer::start(&json!({
        "id.example": forged(json!(["id"])),
        "source.example": forged(json!(["source"])),
        "question.example": forged(json!(["question"])),
        "all.example": forged(json!(["bytes", "id", "source", "question", "id"])),
    }));
    with(&[&server], async |scene| {
        for name in ["id.example", "source.example", "question.example", "all.example"] {
            scene.list(name);
            let reply = scene.ask(name, RecordType::A).await;
            assert_eq!(dns::addresses(&reply), addresses(&["192.0.2.1"]), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn service_bindings_say_how_to_speak_and_not_where_to() {
    let server = DnsServer::start(&json!({
        "api.example": {"https": [
            {"priority": 1, "alpn": ["h2"], "ipv4hint": ["198.51.100.1"], "ech": [1, 2, 3]},
            {"priority": 2, "target": "api.example", "alpn": ["h3"]},
            {"priority": 3, "target": "elsewhere.example", "alpn": ["h2"]},
            {"priority": 0, "target": "elsewhere.example"},
        ]},
        "aliased.example": {"https": [{"priority": 0, "target": "elsewhere.example"}]},
    }));
    with(&[&server], async |scene| {
        scene.list("api.example");
        scene.list("aliased.example");
        let reply = scene.ask("api.example", RecordType::HTTPS).await;
        let bindings: Vec<_> = reply
            .answers
            .iter()
            .map(|record| match &record.data {
                RData::HTTPS(https) => &https.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(bindings.iter().map(|binding| binding.svc_priority).collect::<Vec<_>>(), [1, 2]);
        assert!(bindings.iter().all(|binding| binding.target_name.is_root()));
        let keys: Vec<_> =
            bindings.iter().flat_map(|binding| binding.svc_params.iter().map(|(key, _)| *key)).collect();
        assert_eq!(keys, [SvcParamKey::Alpn, SvcParamKey::Alpn]);
        assert!(scene.gate.opened.borrow().is_empty());
        let reply = scene.ask("aliased.example", RecordType::HTTPS).await;
        assert_eq!(summary(&reply), (ResponseCode::NoError, 0));
    })
    .await;
    assert_eq!(server.questions(), ["udp HTTPS api.example", "udp HTTPS aliased.example"]);
}

#[tokio::test]
async fn questions_on_one_connection_are_answered_as_their_answers_come() {
    let server = DnsServer::start(&json!({
        "slow.example": {"a": ["192.0.2.1"], "delay_ms": 500},
        "fast.example": {"a": ["192.0.2.2"]},
    }));
    with(&[&server], async |scene| {
        scene.list("slow.example");
        scene.list("fast.example");
        let mut stream = scene.connect(1).await;
        for name in ["slow.example", "fast.example", "slow.example"] {
            send_framed(&mut stream, &query(name, RecordType::A)).await;
        }
        // Whoever has asked may stop writing and gets its answers still.
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        let first = receive_framed(&mut stream).await.unwrap();
        assert_eq!(dns::addresses(&first), addresses(&["192.0.2.2"]));
        for _ in 0..2 {
            let later = receive_framed(&mut stream).await.unwrap();
            assert_eq!(dns::addresses(&later), addresses(&["192.0.2.1"]));
        }
        assert!(receive_framed(&mut stream).await.is_none());
    })
    .await;
}
