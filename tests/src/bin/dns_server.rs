//! A DNS server of a test: `dns_server ZONE.json [ADDRESS:PORT [ROOT.pem]]`. The zone file maps names to entries, as `sentinel_tests::dns` has
//! them. It writes where it listens, and then each question, one a line; it ends when its standard input does. With a third argument it
//! speaks TLS only, and writes there the root to trust.

use std::io::Read as _;

use sentinel_tests::dns::DnsServer;

#[expect(clippy::print_stdout, reason = "it is started for its log")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [zone, rest @ ..] = arguments.as_slice() else {
        panic!("dns_server ZONE.json [ADDRESS:PORT [ROOT.pem]]")
    };
    let zone = std::fs::read(zone).expect("the zone file is there");
    let zone = serde_json::from_slice(&zone).expect("a zone");
    let mut builder = DnsServer::builder().printing();
    if let Some(address) = rest.first() {
        builder = builder.at(address.parse().expect("an address and a port"));
    }
    if let Some(file) = rest.get(1) {
        let (over_tls, root) = builder.over_tls();
        std::fs::write(file, root).expect("the root can be written");
        builder = over_tls;
    }
    let server = builder.start(zone);
    println!("listening on {}", server.address());
    drop(std::io::stdin().read_to_end(&mut Vec::new()));
}
