//! `tls_names: enforce` from end to end: a real agent, a TLS client as programs have it, and a TLS server that answers to every name.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use sentinel_tests::dns::DnsServer;
use sentinel_tests::{Finished, Host};
use serde_json::json;

/// Says `hello` to whoever comes by TLS, whomever it asks for. Ends with the test.
fn tls_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["any.example.com".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let configuration = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let configuration = Arc::new(configuration);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let connection = rustls::ServerConnection::new(Arc::clone(&configuration)).unwrap();
            std::thread::spawn(move || {
                let mut stream = rustls::StreamOwned::new(connection, stream);
                let _client_is_gone = stream.write_all(b"hello").and_then(|()| stream.read(&mut [0; 1]));
            });
        }
    });
    address
}

/// Asks one address for several servers, by TLS and in plain text.
const CLIENT: &str = "
import errno, socket, ssl, sys
host, port = 'api.example.com', int(sys.argv[1])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for name in ('api.example.com', 'other.example.com', 'API.example.com', None):
    try:
        with socket.create_connection((host, port), 20) as tcp:
            if name is None:
                tcp.sendall(b'GET / HTTP/1.0\\r\\nHost: api.example.com\\r\\n\\r\\n')
                print('plain', tcp.recv(5).decode())
            else:
                with context.wrap_socket(tcp, server_hostname=name) as tls:
                    print(name, tls.recv(5).decode())
    except OSError as error:
        print(name or 'plain', errno.errorcode.get(error.errno, error))
";

fn run(policy: &str, server: SocketAddr) -> (Host, Finished) {
    let dns = DnsServer::start(&json!({"api.example.com": {"a": ["127.0.0.1"]}}));
    let configuration = format!("resolver: {{upstreams: [\"{}\"], timeout_seconds: 1}}\n", dns.address());
    let host = Host::builder().policy("test", policy).configuration(configuration).start();
    let finished = host.run(&["/usr/bin/python3", "-c", CLIENT, &server.port().to_string()]);
    (host, finished)
}

fn listing(name: &str, server: SocketAddr) -> String {
    let port = server.port();
    format!("enforcement: {{network: {{allow: [{{host: \"{name}:{port}\", allow_private: true}}]}}}}\n")
}

#[test]
fn a_listed_host_is_spoken_with_and_another_at_its_address_is_not_and_why_tells_which() {
    let server = tls_server();
    let (host, finished) =
        run(&format!("tls_names: enforce\n{}", listing("api.example.com", server)), server);
    assert_eq!(
        finished.lines(),
        [
            "api.example.com hello",
            "other.example.com ECONNABORTED",
            "API.example.com hello",
            "plain ECONNABORTED"
        ],
        "{}",
        finished.stderr
    );
    let suggested = format!("other.example.com:{}", server.port());
    assert!(finished.stderr.contains(&suggested), "what would allow it: {}", finished.stderr);
    let ledger = host.ledger();
    let told = |verdict: &str| ledger.iter().find(|line| line["verdict"] == verdict).cloned();
    let refused = told("server_name").expect("it is recorded");
    assert_eq!(refused["operation"], "egress");
    assert!(told("not_tls").is_some(), "{ledger:?}");
    let id = refused["id"].as_str().unwrap();
    let path = host.ledger_path().display().to_string();
    let why = Finished::of(host.sentinel(&["why", id, "--ledger", &path]));
    assert!(
        why.stdout.contains("(asks for other.example.com)") && why.stdout.contains("ClientHello"),
        "{}{}",
        why.stdout,
        why.stderr
    );
}

#[test]
fn without_it_every_host_at_the_address_is_spoken_with() {
    let server = tls_server();
    let (_host, finished) = run(&listing("api.example.com", server), server);
    assert_eq!(
        finished.lines()[..3],
        ["api.example.com hello", "other.example.com hello", "API.example.com hello"],
        "{}",
        finished.stderr
    );
}
