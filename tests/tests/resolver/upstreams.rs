//! Whom the resolver asks, and what becomes of a question that nobody answers.

use std::net::Ipv4Addr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sentinel_agent::resolver::{Event, Upstream, UpstreamError};
use sentinel_policy::configuration::{Resolver as Settings, Upstream as Server};
use sentinel_tests::dns::{self, DnsServer, TLS_NAME};
use serde_json::{Value, json};

use crate::scene::{File, addresses, query, receive, settings, summary, with, with_settings, with_upstream};

fn zone() -> Value {
    json!({"api.example": {"a": ["192.0.2.1"]}})
}

fn is_upstream_failure(events: &[Event], part: &str) -> bool {
    matches!(events, [Event::UpstreamFailed(cause)] if cause.contains(part))
}

#[tokio::test]
async fn a_silent_server_costs_its_question_a_failure_that_is_told_and_delays_no_other() {
    let server =
        DnsServer::start(&json!({"silent.example": {"silent": true}, "api.example": {"a": ["192.0.2.1"]}}));
    with(&[&server], async |scene| {
        scene.list("silent.example");
        scene.list("api.example");
        let first = scene.application(1).await;
        first.send(&query("silent.example", RecordType::A)).await.unwrap();
        // Both on one socket: what comes first was answered first.
        let reply = scene.ask_from(&first, "api.example", RecordType::A).await;
        assert_eq!(dns::addresses(&reply), addresses(&["192.0.2.1"]));
        assert_eq!(summary(&receive(&first).await), (ResponseCode::ServFail, 0));
        assert!(is_upstream_failure(&scene.events(), "timed out"), "{:?}", scene.events());
    })
    .await;
}

#[tokio::test]
async fn where_a_server_is_dead_or_out_of_order_the_next_one_is_asked() {
    let good = DnsServer::start(&zone());
    let out_of_order = DnsServer::start(&json!({"api.example": {"code": "servfail"}}));
    let refusing = DnsServer::start(&json!({"api.example": {"code": "refused"}}));
    with(&[&out_of_order, &refusing, &good], async |scene| {
        scene.list("api.example");
        let reply = scene.ask("api.example", RecordType::A).await;
        assert_eq!(dns::addresses(&reply), addresses(&["192.0.2.1"]));
        // Who answered goes first now.
        scene.list("absent.example");
        let reply = scene.ask("absent.example", RecordType::A).await;
        assert_eq!(summary(&reply), (ResponseCode::NXDomain, 0));
        assert_eq!(scene.events(), []);
    })
    .await;
    assert_eq!(out_of_order.questions(), ["udp A api.example"]);
    assert_eq!(good.questions(), ["udp A api.example", "udp A absent.example"]);
}

#[tokio::test]
async fn what_the_first_server_says_is_not_asked_of_the_next() {
    let (first, second) = (DnsServer::start(&json!({})), DnsServer::start(&zone()));
    with(&[&first, &second], async |scene| {
        scene.list("api.example");
        let reply = scene.ask("api.example", RecordType::A).await;
        assert_eq!(summary(&reply), (ResponseCode::NXDomain, 0));
    })
    .await;
    assert!(second.questions().is_empty());
}

#[tokio::test]
async fn without_a_server_every_question_fails_out_loud() {
    with_settings(&settings(Vec::new()), async |scene| {
        scene.list("api.example");
        assert_eq!(summary(&scene.ask("api.example", RecordType::A).await), (ResponseCode::ServFail, 0));
        assert!(is_upstream_failure(&scene.events(), "names no DNS server"));
        assert_eq!(summary(&scene.ask("other.example", RecordType::A).await).0, ResponseCode::NXDomain);
    })
    .await;
}

#[tokio::test]
async fn the_hosts_own_servers_are_those_that_its_file_names_now() {
    // The port can't be chosen, and so the address is this process's own.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 53, high, low);
    let server = DnsServer::builder().at((address, 53).into());
    let server = server.start(serde_json::from_value(zone()).unwrap());
    let file = File::new("resolv.conf", "search example\n");
    let upstream = Upstream::with_host_file(&Settings::default(), &file.0).unwrap();
    with_upstream(upstream, async |scene| {
        scene.list("api.example");
        assert_eq!(summary(&scene.ask("api.example", RecordType::A).await), (ResponseCode::ServFail, 0));
        assert!(is_upstream_failure(&scene.events(), "names no DNS server"));
        std::fs::write(&file.0, format!("nameserver {address}\n")).unwrap();
        let reply = scene.ask("api.example", RecordType::A).await;
        assert_eq!(dns::addresses(&reply), addresses(&["192.0.2.1"]));
        std::fs::remove_file(&file.0).unwrap();
        assert_eq!(summary(&scene.ask("api.example", RecordType::A).await), (ResponseCode::ServFail, 0));
    })
    .await;
    // No search list is applied.
    assert_eq!(server.questions(), ["udp A api.example"]);
}

fn over_tls(server: &DnsServer, name: &str, roots: Option<&File>) -> Settings {
    let server = Server { address: server.address(), tls_name: Some(name.to_owned()) };
    Settings { roots: roots.map(|file| file.0.clone()), ..settings(vec![server]) }
}

fn tls_server() -> (DnsServer, String) {
    let (builder, root) = DnsServer::builder().over_tls();
    (builder.start(serde_json::from_value(zone()).unwrap()), root)
}

#[tokio::test]
async fn a_server_over_tls_is_asked_if_a_root_vouches_for_its_name() {
    let (server, root) = tls_server();
    let roots = File::new("root.pem", &root);
    with_settings(&over_tls(&server, TLS_NAME, Some(&roots)), async |scene| {
        scene.list("api.example");
        for _ in 0..2 {
            let reply = scene.ask("api.example", RecordType::A).await;
            assert_eq!(dns::addresses(&reply), addresses(&["192.0.2.1"]), "{:?}", scene.events());
        }
    })
    .await;
    assert_eq!(server.questions(), ["tls A api.example"]);
}

#[tokio::test]
async fn a_server_over_tls_that_nobody_vouches_for_learns_no_question() {
    let (server, root) = tls_server();
    let (right, other) = (File::new("right.pem", &root), File::new("other.pem", &tls_server().1));
    for settings in [
        over_tls(&server, TLS_NAME, None),
        over_tls(&server, TLS_NAME, Some(&other)),
        over_tls(&server, "another.example", Some(&right)),
    ] {
        with_settings(&settings, async |scene| {
            scene.list("api.example");
            assert_eq!(summary(&scene.ask("api.example", RecordType::A).await), (ResponseCode::ServFail, 0));
            assert!(is_upstream_failure(&scene.events(), "no connections available"), "{:?}", scene.events());
        })
        .await;
    }
    assert!(server.questions().is_empty());
}

#[tokio::test]
async fn a_server_over_tls_is_never_asked_in_the_clear() {
    let server = DnsServer::start(&zone());
    with_settings(&over_tls(&server, TLS_NAME, None), async |scene| {
        scene.list("api.example");
        assert_eq!(summary(&scene.ask("api.example", RecordType::A).await), (ResponseCode::ServFail, 0));
    })
    .await;
    assert!(server.questions().is_empty());
}

#[test]
fn a_file_of_roots_that_cannot_be_used_is_an_error_at_the_start() {
    let empty = File::new("empty.pem", "no certificate\n");
    let broken = File::new("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for file in [&empty.0, &broken.0, &"/nonexistent/roots.pem".into()] {
        let settings = Settings { roots: Some(file.clone()), ..Settings::default() };
        let error = Upstream::new(&settings).unwrap_err();
        assert!(matches!(error, UpstreamError::Roots { .. }), "{error}");
    }
}
