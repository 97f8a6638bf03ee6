//! The agent's DNS resolver, on real sockets and in front of a real DNS server: what it lets out, and what it lets in.

mod answers;
mod limits;
mod scene;
mod upstreams;

use hickory_proto::op::{OpCode, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use scene::{TICKET, addresses, plain_query, query, receive, receive_framed, send_framed, summary, with};
use sentinel_agent::resolver::{Event, Refusal, Transport};
use sentinel_tests::dns::{self, DnsServer};
use serde_json::json;
use tokio::net::UdpSocket;

const NOTHING: (ResponseCode, usize) = (ResponseCode::NoError, 0);

fn server() -> DnsServer {
    DnsServer::start(
        &json!({"api.example": {"a": ["192.0.2.1", "192.0.2.2"], "aaaa": ["2001:db8::1"], "txt": ["secret"]}}),
    )
}

#[tokio::test]
async fn a_listed_name_is_resolved_and_its_doors_are_open_before_the_reply() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        let reply = scene.ask("api.example", RecordType::A).await;
        assert_eq!(dns::addresses(&reply), addresses(&["192.0.2.1", "192.0.2.2"]));
        let opened = (1, "api.example".to_owned(), addresses(&["192.0.2.1", "192.0.2.2"]));
        assert_eq!(*scene.gate.opened.borrow(), [opened]);
        let reply = scene.ask("api.example", RecordType::AAAA).await;
        assert_eq!(dns::addresses(&reply), addresses(&["2001:db8::1"]));
    })
    .await;
    assert_eq!(server.questions(), ["udp A api.example", "udp AAAA api.example"]);
}

#[tokio::test]
async fn only_addresses_whose_doors_were_opened_are_told() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        scene.gate.keeps.set(Some(1));
        assert_eq!(dns::addresses(&scene.ask("api.example", RecordType::A).await), addresses(&["192.0.2.1"]));
        scene.gate.keeps.set(Some(0));
        assert_eq!(summary(&scene.ask("api.example", RecordType::A).await), (ResponseCode::ServFail, 0));
        for (refusal, code) in [
            (Refusal::Unavailable("the map is full".to_owned()), ResponseCode::ServFail),
            (Refusal::Closed, ResponseCode::Refused),
        ] {
            *scene.gate.open_refusal.borrow_mut() = Some(refusal);
            assert_eq!(summary(&scene.ask("api.example", RecordType::A).await), (code, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn each_refusal_has_its_code_and_no_question_leaves_the_host() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        for (refusal, code) in [
            (Refusal::Unlisted, ResponseCode::NXDomain),
            (Refusal::Closed, ResponseCode::Refused),
            (Refusal::NotInSession, ResponseCode::Refused),
            (Refusal::Limited, ResponseCode::ServFail),
            (Refusal::Unavailable("no kernel".to_owned()), ResponseCode::ServFail),
        ] {
            *scene.gate.refusal.borrow_mut() = Some(refusal);
            for kind in [RecordType::A, RecordType::TXT, RecordType::HTTPS] {
                let reply = scene.ask("api.example", kind).await;
                assert_eq!(summary(&reply), (code, 0));
                assert!(reply.authorities.is_empty() && reply.additionals.is_empty());
            }
        }
        assert!(server.questions().is_empty() && scene.gate.opened.borrow().is_empty());
        *scene.gate.refusal.borrow_mut() = None;
        assert_eq!(summary(&scene.ask("api.example", RecordType::A).await), (ResponseCode::NoError, 2));
        assert_eq!(summary(&scene.ask("other.example", RecordType::A).await), (ResponseCode::NXDomain, 0));
    })
    .await;
    assert_eq!(server.questions(), ["udp A api.example"]);
}

#[tokio::test]
async fn a_kind_that_could_carry_anything_has_an_empty_answer_and_is_not_asked_upstream() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        for kind in [RecordType::TXT, RecordType::PTR, RecordType::ANY, RecordType::CNAME, RecordType::NULL] {
            assert_eq!(summary(&scene.ask("api.example", kind).await), NOTHING, "{kind}");
        }
        assert_eq!(scene.gate.asked.borrow()[0], "Other(16) api.example");
        assert_eq!(summary(&scene.ask("unlisted.example", RecordType::TXT).await).0, ResponseCode::NXDomain);
    })
    .await;
    assert!(server.questions().is_empty());
}

#[tokio::test]
async fn what_is_no_host_name_is_refused_without_a_question_to_anybody() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        // One label that holds a dot: as text it would be the listed name.
        let mut forged = plain_query("x.example", RecordType::A);
        forged.queries[0].set_name(Name::from_labels([b"api.example".as_slice()]).unwrap());
        let socket = scene.application(1).await;
        socket.send(&forged.to_vec().unwrap()).await.unwrap();
        assert_eq!(summary(&receive(&socket).await), (ResponseCode::Refused, 0));
        assert_eq!(summary(&scene.ask("127.1", RecordType::A).await), (ResponseCode::Refused, 0));
        assert!(scene.gate.asked.borrow().is_empty());
        assert!(
            matches!(&*scene.events(), [Event::NoHostName(_), Event::NoHostName(text)] if text == "127.1.")
        );
    })
    .await;
    assert!(server.questions().is_empty());
}

#[tokio::test]
async fn a_question_in_mixed_case_is_the_same_name_and_comes_back_as_it_was_spelt() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        let reply = scene.ask("aPi.eXAMPLe", RecordType::A).await;
        assert_eq!(reply.queries[0].name().to_ascii(), "aPi.eXAMPLe.");
        assert!(reply.answers.iter().all(|record| record.name.to_ascii() == "aPi.eXAMPLe."));
        assert_eq!(summary(&reply), (ResponseCode::NoError, 2));
    })
    .await;
    assert_eq!(server.questions(), ["udp A api.example"]);
}

#[tokio::test]
async fn bytes_that_mean_nothing_disturb_nobody() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        let socket = scene.application(1).await;
        let response = {
            let mut reply = plain_query("api.example", RecordType::A);
            reply.metadata.message_type = hickory_proto::op::MessageType::Response;
            reply.to_vec().unwrap()
        };
        for silent in [Vec::new(), vec![0; 11], response] {
            socket.send(&silent).await.unwrap();
        }
        let mut status = plain_query("api.example", RecordType::A);
        status.metadata.op_code = OpCode::Status;
        socket.send(&status.to_vec().unwrap()).await.unwrap();
        assert_eq!(receive(&socket).await.metadata.response_code, ResponseCode::NotImp);
        socket.send(&[0; 4000]).await.unwrap();
        assert_eq!(receive(&socket).await.metadata.response_code, ResponseCode::FormErr);
        let reply = scene.ask_from(&socket, "api.example", RecordType::A).await;
        assert_eq!(summary(&reply), (ResponseCode::NoError, 2));
    })
    .await;
}

#[tokio::test]
async fn the_gate_learns_from_where_and_how_a_question_came() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        let socket = scene.application(1).await;
        scene.ask_from(&socket, "api.example", RecordType::A).await;
        let mut stream = scene.connect(1).await;
        send_framed(&mut stream, &query("api.example", RecordType::A)).await;
        assert_eq!(summary(&receive_framed(&mut stream).await.unwrap()), (ResponseCode::NoError, 2));
        let askers = scene.gate.askers.borrow();
        assert_eq!((askers[0].protocol, askers[0].source), (Transport::Udp, socket.local_addr().unwrap()));
        assert_eq!((askers[1].protocol, askers[1].source), (Transport::Tcp, stream.local_addr().unwrap()));
    })
    .await;
}

#[tokio::test]
async fn a_question_to_the_ipv6_loopback_is_answered_from_there() {
    let server = server();
    with(&[&server], async |scene| {
        scene.list("api.example");
        let Ok(socket) = UdpSocket::bind("[::1]:0").await else {
            let refused = UdpSocket::bind("[::1]:0").await.unwrap_err();
            assert!(
                matches!(refused.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)),
                "{refused}"
            );
            return;
        };
        socket.connect(("::1", scene.address().port())).await.unwrap();
        let reply = scene.ask_from(&socket, "api.example", RecordType::A).await;
        assert_eq!(summary(&reply), (ResponseCode::NoError, 2));
    })
    .await;
}

#[tokio::test]
async fn private_addresses_are_dropped_and_told_unless_the_rule_allows_them() {
    let server = DnsServer::start(&json!({
        "rebinding.example": {"a": ["127.0.0.1", "169.254.169.254"], "aaaa": ["::1", "fd00:ec2::254"]},
        "mixed.example": {"a": ["10.0.0.1", "192.0.2.1"]},
        "corp.example": {"a": ["10.0.0.1", "224.0.0.1"]},
    }));
    with(&[&server], async |scene| {
        for name in ["rebinding.example", "mixed.example"] {
            scene.list(name);
        }
        scene.list_with("corp.example", sentinel_agent::resolver::Ticket { allow_private: true, ..TICKET });
        for kind in [RecordType::A, RecordType::AAAA] {
            let reply = scene.ask("rebinding.example", kind).await;
            assert_eq!(summary(&reply), (ResponseCode::ServFail, 0));
        }
        assert!(scene.gate.opened.borrow().is_empty());
        let told =
            [["127.0.0.1", "169.254.169.254"], ["::1", "fd00:ec2::254"]].map(|texts| addresses(&texts));
        assert_eq!(scene.events(), told.map(Event::Rebinding));
        assert_eq!(
            dns::addresses(&scene.ask("mixed.example", RecordType::A).await),
            addresses(&["192.0.2.1"])
        );
        assert_eq!(dns::addresses(&scene.ask("corp.example", RecordType::A).await), addresses(&["10.0.0.1"]));
    })
    .await;
}
