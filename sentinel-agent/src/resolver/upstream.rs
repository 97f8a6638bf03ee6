//! The DNS servers that admitted questions are forwarded to.
//!
//! Invariant: an answer is what one server said of exactly the name and kind that were asked for, over an alias chain that ends; a server
//! that is asked over TLS is asked over nothing else.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, HTTPS, SVCB};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sentinel_policy::configuration::{Resolver as Settings, Upstream as Server};

use super::bindings::stripped;
use super::host_servers::{HostServers, Version};
use super::{Answer, Kind, LONGEST_SECONDS, Question, SHORTEST_SECONDS};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The longest chain of aliases that is followed.
const MOST_ALIASES: usize = 8;
/// The most addresses of an answer. Each is a door.
const MOST_ADDRESSES: usize = 64;
const MOST_BINDINGS: usize = 16;
/// How many answers are remembered of each server.
const REMEMBERED_ANSWERS: u64 = 2048;
/// How long it is remembered that a name isn't there.
const LONGEST_ABSENCE: Duration = Duration::from_secs(60);
/// For how long the server that answered goes before one that didn't.
const PREFERENCE: Duration = Duration::from_secs(30);
/// Questions on one connection to a server at a time.
const MOST_ON_A_CONNECTION: usize = 4096;
/// How much of a cause is told.
const LONGEST_CAUSE: usize = 200;

/// Why the upstream side can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The file of certificate authorities can't be used.
    #[error("cannot use the certificate authorities of `{file}`: {cause}; give a PEM file with at least one")]
    Roots {
        /// The file.
        file: String,
        /// What is wrong.
        cause: String,
    },
    /// TLS can't be set up at all.
    #[error("cannot set up TLS for DNS servers: {0}")]
    Tls(#[from] rustls::Error),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Addresses, within their limits.
    Addresses(Vec<Answer>),
    /// Service bindings, stripped.
    Bindings(Vec<(SVCB, u32)>),
    /// The name is there, and nothing of this kind.
    Nothing,
    /// The name isn't there.
    NoName,
}

/// Whom to ask. Connections come with the first question.
#[derive(Debug)]
pub struct Upstream {
    named: Named,
    timeout: Duration,
    tls: rustls::ClientConfig,
    current: RefCell<Option<Rc<Servers>>>,
}

#[derive(Debug)]
enum Named {
    /// By the configuration.
    Configured(Vec<Server>),
    /// By the host.
    Host(HostServers),
}

/// The servers of one version of the list, each with an answer cache of its own.
#[derive(Debug)]
struct Servers {
    version: Option<Version>,
    resolvers: Vec<(Server, TokioResolver)>,
    /// Which of them goes first, and until when.
    preferred: Cell<Option<(usize, Instant)>>,
}

/// Why there is no answer.
enum Failure {
    /// Another server may have one.
    Server(String),
    /// What this one said is what there is.
    Answer(String),
}

impl Upstream {
    /// As the agent's configuration has it; without servers there, those of the host's `/etc/resolv.conf`, also as it changes.
    ///
    /// # Errors
    /// The configured file of certificate authorities can't be used.
    pub fn new(settings: &Settings) -> Result<Self, UpstreamError> {
        Self::with_host_file(settings, Path::new(RESOLV_CONF))
    }

    /// The same with another file in place of `/etc/resolv.conf`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_host_file(settings: &Settings, file: &Path) -> Result<Self, UpstreamError> {
        let named = match &settings.upstreams {
            Some(servers) => Named::Configured(servers.clone()),
            None => Named::Host(HostServers::new(file.to_owned())),
        };
        let roots = match &settings.roots {
            Some(file) => roots_of(file)?,
            None => rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let timeout = Duration::from_secs(settings.timeout_seconds);
        Ok(Self { named, timeout, tls, current: RefCell::new(None) })
    }

    /// What the servers say: the first, and the next where one is silent or out of order.
    ///
    /// # Errors
    /// None answered, none is known, or the answer makes no sense: which of these, as text.
    pub(super) async fn look_up(&self, question: &Question) -> Result<Found, String> {
        let servers = self.servers()?;
        let count = servers.resolvers.len();
        let first = match servers.preferred.get() {
            Some((first, until)) if Instant::now() < until => first,
            Some(_) | None => 0,
        };
        let mut last = String::new();
        for index in (first..count).chain(0..first) {
            let Some((server, resolver)) = servers.resolvers.get(index) else { continue };
            let looked_up = tokio::time::timeout(self.timeout, look_up(resolver, question)).await;
            match looked_up.unwrap_or_else(|_late| Err(Failure::Server("request timed out".to_owned()))) {
                Ok(found) => {
                    if index != first {
                        servers
                            .preferred
                            .set(Instant::now().checked_add(PREFERENCE).map(|until| (index, until)));
                    }
                    return Ok(found);
                }
                Err(Failure::Answer(cause)) => return Err(visible(&cause)),
                Err(Failure::Server(cause)) => last = format!("{}: {cause}", shown(server)),
            }
        }
        Err(visible(&format!("none of {count} DNS servers answered; the last: {last}")))
    }

    fn servers(&self) -> Result<Rc<Servers>, String> {
        let version = match &self.named {
            Named::Configured(_) => None,
            Named::Host(host) => Some(host.version().map_err(|cause| unreadable(host.file(), &cause))?),
        };
        if let Some(current) = self.current.borrow().as_ref()
            && current.version == version
        {
            return Ok(Rc::clone(current));
        }
        let configured = match &self.named {
            Named::Configured(servers) if servers.is_empty() => {
                return Err("the agent's configuration names no DNS server: `upstreams` is empty".to_owned());
            }
            Named::Configured(servers) => servers.clone(),
            Named::Host(host) => {
                let servers = host.read().map_err(|cause| unreadable(host.file(), &cause))?;
                if servers.is_empty() {
                    return Err(format!("`{}` names no DNS server", host.file().display()));
                }
                servers.into_iter().map(|address| Server { address, tls_name: None }).collect()
            }
        };
        let resolvers =
            configured.into_iter().map(|server| self.resolver(&server).map(|made| (server, made)));
        let resolvers = resolvers.collect::<Result<_, _>>();
        let resolvers = resolvers.map_err(|cause| visible(&cause.to_string()))?;
        let servers = Rc::new(Servers { version, resolvers, preferred: Cell::new(None) });
        *self.current.borrow_mut() = Some(Rc::clone(&servers));
        Ok(servers)
    }

    fn resolver(&self, server: &Server) -> Result<TokioResolver, NetError> {
        let mut connections = match &server.tls_name {
            Some(name) => vec![ConnectionConfig::tls(name.as_str().into())],
            None => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
        };
        for connection in &mut connections {
            connection.port = server.address.port();
        }
        let name_server = NameServerConfig::new(server.address.ip(), true, connections);
        let config = ResolverConfig::from_name_servers(vec![name_server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        set_options(builder.options_mut(), self.timeout);
        builder.with_tls_config(self.tls.clone()).build()
    }
}

fn set_options(options: &mut ResolverOpts, timeout: Duration) {
    options.ndots = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = timeout;
    // Datagrams are sent again within the timeout; beyond it, the next server is due.
    options.attempts = 0;
    options.cache_size = REMEMBERED_ANSWERS;
    options.positive_max_ttl = Some(Duration::from_secs(u64::from(LONGEST_SECONDS)));
    options.negative_max_ttl = Some(LONGEST_ABSENCE);
    options.num_concurrent_reqs = 1;
    options.max_active_requests = MOST_ON_A_CONNECTION;
    // The chain is checked here.
    options.preserve_intermediates = true;
}

fn roots_of(file: &Path) -> Result<rustls::RootCertStore, UpstreamError> {
    let wrong = |cause: String| UpstreamError::Roots { file: file.display().to_string(), cause };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|cause| wrong(cause.to_string()))? {
        let certificate = certificate.map_err(|cause| wrong(cause.to_string()))?;
        roots.add(certificate).map_err(|cause| wrong(cause.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it holds no certificate".to_owned())) } else { Ok(roots) }
}

fn shown(server: &Server) -> String {
    match &server.tls_name {
        None => server.address.to_string(),
        // What hickory says of a certificate that nobody vouches for is that there is no connection.
        Some(name) => {
            format!("tls://{}#{name} (reachable, and its certificate vouched for?)", server.address)
        }
    }
}

fn unreadable(file: &Path, cause: &std::io::Error) -> String {
    format!("cannot read `{}`: {cause}", file.display())
}

/// A cause holds what servers sent.
fn visible(cause: &str) -> String {
    cause.escape_debug().take(LONGEST_CAUSE).collect()
}

async fn look_up(resolver: &TokioResolver, question: &Question) -> Result<Found, Failure> {
    let labels = question.name.labels().map(str::as_bytes);
    let mut name = Name::from_labels(labels).map_err(|cause| Failure::Answer(cause.to_string()))?;
    name.set_fqdn(true);
    let kind = match question.kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Https => RecordType::HTTPS,
        Kind::Svcb => RecordType::SVCB,
        Kind::Other(_) => return Ok(Found::Nothing),
    };
    match resolver.lookup(name.clone(), kind).await {
        Ok(lookup) => found(&name, question.kind, lookup.answers()),
        Err(NetError::Dns(DnsError::NoRecordsFound(absent))) => absence(resolver, &name, &absent).await,
        Err(error) => Err(Failure::Server(error.to_string())),
    }
}

fn found(name: &Name, kind: Kind, answers: &[Record]) -> Result<Found, Failure> {
    let records = belonging(name, kind, answers)?;
    let within = |record: &Record| record.ttl.clamp(SHORTEST_SECONDS, LONGEST_SECONDS);
    if let Kind::Https | Kind::Svcb = kind {
        let bindings = records.iter().filter_map(|record| {
            let binding = match &record.data {
                RData::HTTPS(HTTPS(binding)) if kind == Kind::Https => binding,
                RData::SVCB(binding) if kind == Kind::Svcb => binding,
                _ => return None,
            };
            stripped(binding, name).map(|binding| (binding, within(record)))
        });
        return Ok(Found::Bindings(bindings.take(MOST_BINDINGS).collect()));
    }
    let addresses = records.iter().filter_map(|record| {
        let address = match &record.data {
            RData::A(A(v4)) if kind == Kind::A => (*v4).into(),
            RData::AAAA(AAAA(v6)) if kind == Kind::Aaaa => (*v6).into(),
            _ => return None,
        };
        Some(Answer { address, seconds: within(record) })
    });
    let addresses: Vec<Answer> = addresses.take(MOST_ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(Failure::Answer("the answer holds no address of the name that was asked for".to_owned()));
    }
    Ok(Found::Addresses(addresses))
}

/// The records of the kind at the end of the name's aliases.
fn belonging<'a>(name: &Name, kind: Kind, answers: &'a [Record]) -> Result<Vec<&'a Record>, Failure> {
    let end = end_of_chain(name, answers)?;
    let of_kind = |record: &&Record| match &record.data {
        RData::A(_) => kind == Kind::A,
        RData::AAAA(_) => kind == Kind::Aaaa,
        RData::HTTPS(_) => kind == Kind::Https,
        RData::SVCB(_) => kind == Kind::Svcb,
        _ => false,
    };
    let (at_end, elsewhere): (Vec<_>, Vec<_>) =
        answers.iter().filter(of_kind).partition(|record| record.name == *end);
    if !at_end.is_empty() {
        return Ok(at_end);
    }
    // Where hickory remembers what an alias leads to, it leaves out the alias. It passes no answer on without a record of the name at which it
    // arrived; so a name that stands alone there is that one.
    let owner = elsewhere.first().map(|record| &record.name);
    let is_one_name = elsewhere.iter().all(|record| Some(&record.name) == owner);
    if is_one_name {
        Ok(elsewhere)
    } else {
        Err(Failure::Answer("the answer is about other names".to_owned()))
    }
}

/// The name at which the aliases of an answer end.
fn end_of_chain<'a>(name: &'a Name, answers: &'a [Record]) -> Result<&'a Name, Failure> {
    let mut end = name;
    for _ in 0..=MOST_ALIASES {
        let alias = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *end => Some(&target.0),
            _ => None,
        });
        match alias {
            Some(target) => end = target,
            None => return Ok(end),
        }
    }
    Err(endless())
}

fn endless() -> Failure {
    Failure::Answer(format!("its aliases go round or are more than {MOST_ALIASES}"))
}

/// Tells an absence from a chain of aliases that hickory gave up: it calls both the same.
async fn absence(resolver: &TokioResolver, name: &Name, absent: &NoRecords) -> Result<Found, Failure> {
    if absent.response_code == ResponseCode::NXDomain {
        return Ok(Found::NoName);
    }
    if absent.soa.is_some() {
        return Ok(Found::Nothing);
    }
    let mut end = name.clone();
    for _ in 0..=MOST_ALIASES {
        match resolver.lookup(end.clone(), RecordType::CNAME).await {
            Ok(lookup) => match end_of_chain(&end, lookup.answers())? {
                same if *same == end => return Ok(Found::Nothing),
                next => end = next.clone(),
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => return Ok(Found::Nothing),
            Err(error) => return Err(Failure::Server(error.to_string())),
        }
    }
    Err(endless())
}
