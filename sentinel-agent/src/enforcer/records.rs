//! Denials in words: what the kernel side reports, as a person reads it, with the policy text that would allow it.
//!
//! Invariant: what a process chose (its name, a path) stands here in printable characters only.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sentinel_ebpf_common::BASELINE;
use sentinel_ebpf_common::record::{
    OPERATION_BIND, OPERATION_BPF, OPERATION_CONNECT, OPERATION_EGRESS, OPERATION_EXEC,
    OPERATION_EXEC_REFUSED, OPERATION_FORK, OPERATION_INBOUND, OPERATION_MAP, OPERATION_MODULE,
    OPERATION_MOUNT, OPERATION_NAMESPACE, OPERATION_PERF, OPERATION_PRIVILEGE, OPERATION_RECEIVE,
    OPERATION_SEND, OPERATION_SENDMSG, OPERATION_SIGNAL, OPERATION_SOCKET, OPERATION_TRACE, OPERATION_UNIX,
    OPERATION_URING, OPERATION_WRITE,
};
use sentinel_ebpf_common::verdict::Verdict;
use sentinel_engine::{Attempt, Policy};
use sentinel_proto::{HostName, is_visible};

use super::suggestion::{self, Entry, Executable};
use super::{KernelRecord, Writer, images};

/// The record in the bytes of the ring buffer; none for bytes of another size.
pub(super) fn decode(bytes: &[u8]) -> Option<KernelRecord> {
    if bytes.len() != size_of::<KernelRecord>() {
        return None;
    }
    // SAFETY: the size is right, and any bytes are a `Record` (it is `Pod`).
    Some(unsafe { bytes.as_ptr().cast::<KernelRecord>().read_unaligned() })
}

/// What a denial is seen against.
#[derive(Clone, Debug)]
pub struct Circumstances<'a> {
    /// The session's policy.
    pub policy: &'a Policy,
    /// The actions that were in flight for whoever met it, the likeliest first.
    pub in_flight: Vec<&'a str>,
    /// The session's user; none where it can't be looked up.
    pub user: Option<&'a Writer>,
    /// Folders that a relative path may have begun in.
    pub folders: Vec<PathBuf>,
    /// The names that the session was told the address for, those that hold first.
    pub hosts: Vec<HostName>,
}

/// Whether a record's path depends on the folder of whoever gave it.
#[must_use]
pub fn is_relative(record: &KernelRecord) -> bool {
    matches!(record.operation, OPERATION_EXEC | OPERATION_EXEC_REFUSED)
        && !matches!(record.path.first(), Some(0 | b'/') | None)
}

/// What was tried, why it was refused, and what in the policy would allow it.
#[must_use]
pub fn describe(record: &KernelRecord, around: &Circumstances<'_>) -> Attempt {
    let verdict = Verdict::from_number(record.verdict);
    let (operation, target, entry) = match record.operation {
        OPERATION_CONNECT => ("connect", host_target(record, around), host_entry(record, around)),
        OPERATION_SENDMSG => ("sendmsg", host_target(record, around), host_entry(record, around)),
        OPERATION_SOCKET => {
            let KernelRecord { family, port: kind, protocol, .. } = record;
            ("socket", format!("family {family} type {kind} protocol {protocol}"), None)
        }
        OPERATION_EXEC | OPERATION_EXEC_REFUSED => ("exec", exec_target(record), exec_entry(record, around)),
        OPERATION_EGRESS => ("egress", asked_target(record), asked_entry(record, around)),
        OPERATION_BIND => ("bind", network_target(record), listen_entry(record)),
        OPERATION_INBOUND => ("inbound", packet_target(record), listen_entry(record)),
        OPERATION_FORK => ("fork", "a child whose mark could not be stored".to_owned(), None),
        operation => match surface(operation, record) {
            Some((operation, target)) => (operation, target, None),
            None => ("unknown", format!("operation {operation}"), None),
        },
    };
    let can_be_listed = [Verdict::NoRule, Verdict::DoorClosed, Verdict::ServerName];
    let entry = entry.filter(|_| verdict.is_some_and(|verdict| can_be_listed.contains(&verdict)));
    Attempt {
        operation: operation.to_owned(),
        target,
        verdict: verdict
            .map_or_else(|| format!("verdict {}", record.verdict), |known| known.as_str().to_owned()),
        fate: fate(record).to_owned(),
        process: process(record),
        pid: record.tgid,
        would_allow: entry.and_then(|entry| would_allow(record, around, &entry)),
    }
}

/// Who met it. Of a packet only the session is known: it leaves when the network lets it, whoever runs then.
fn process(record: &KernelRecord) -> String {
    match record.operation {
        OPERATION_EGRESS | OPERATION_INBOUND => "(a packet)".to_owned(),
        _ => printable(&String::from_utf8_lossy(until_nul(&record.comm))),
    }
}

/// What was tried where no rule decides, or none that can be suggested.
fn surface(operation: u32, record: &KernelRecord) -> Option<(&'static str, String)> {
    let KernelRecord { port: number, protocol: detail, .. } = record;
    let file = || format!("inode {} on device {}", record.ino, device(record.dev));
    Some(match operation {
        OPERATION_UNIX => ("unix", unix_target(record)),
        OPERATION_TRACE => ("trace", format!("process {number}")),
        OPERATION_SIGNAL => ("signal", format!("signal {detail} to process {number}")),
        OPERATION_RECEIVE => ("receive", "a socket from outside".to_owned()),
        OPERATION_WRITE => ("write", file()),
        OPERATION_MAP => ("map", format!("{} as code", file())),
        OPERATION_BPF => ("bpf", format!("command {number}")),
        OPERATION_PERF => ("perf", "a performance event".to_owned()),
        OPERATION_MODULE => ("load", format!("code or data of kind {number} into the kernel")),
        OPERATION_MOUNT => ("mount", "a change of what is mounted".to_owned()),
        OPERATION_NAMESPACE => {
            ("namespace", format!("other namespaces or another cgroup (clone flags {number:#x})"))
        }
        OPERATION_PRIVILEGE => ("privilege", "a program that gives more rights".to_owned()),
        OPERATION_URING => ("io_uring", "a ring that works outside of its process".to_owned()),
        OPERATION_SEND => ("send", network_target(record)),
        _ => return None,
    })
}

fn unix_target(record: &KernelRecord) -> String {
    let name = printable(&String::from_utf8_lossy(until_nul(&record.path)));
    match (name.is_empty(), record.port) {
        (true, _) => "a socket without a name".to_owned(),
        (false, 0) => name,
        (false, _) => format!("@{name}"),
    }
}

fn fate(record: &KernelRecord) -> &'static str {
    match record.operation {
        _ if record.audited != 0 => "recorded",
        OPERATION_EXEC | OPERATION_FORK => "killed",
        _ => "refused",
    }
}

fn would_allow(record: &KernelRecord, around: &Circumstances<'_>, entry: &Entry) -> Option<String> {
    if record.verdict == Verdict::ServerName as u32 {
        // The bits are those of another host at the same address.
        return Some(suggestion::allow(entry, &around.in_flight, &[]));
    }
    if record.rule_bits & BASELINE != 0 {
        // It is in the baseline, which is shut.
        return Some(suggestion::keep_when_exhausted());
    }
    let opened_by = suggestion::actions_that_open(around.policy, record.rule_bits);
    if record.operation == OPERATION_EGRESS && !opened_by.is_empty() {
        // A rule names it, and its socket was let out once: what is over is the action. Between actions nothing leaves, whatever a policy says.
        let is_kept = |name: &&&str| !suggestion::is_kept_alive(around.policy, name);
        return opened_by.iter().find(is_kept).map(|action| suggestion::keep_alive(action));
    }
    Some(suggestion::allow(entry, &around.in_flight, &opened_by))
}

/// The address that a record is about.
#[must_use]
pub fn address(record: &KernelRecord) -> IpAddr {
    Ipv6Addr::from(record.address).to_canonical()
}

/// As [`network_target`], for a packet that may not have been read so far.
fn packet_target(record: &KernelRecord) -> String {
    if record.protocol == 0 {
        return "a packet with IP options or extension headers, or of a protocol that no rule names"
            .to_owned();
    }
    network_target(record)
}

/// As [`packet_target`], with the server that it asks for, if that was read.
fn asked_target(record: &KernelRecord) -> String {
    let target = packet_target(record);
    let name = printable(&String::from_utf8_lossy(until_nul(&record.path)));
    if name.is_empty() { target } else { format!("{target} (asks for {name})") }
}

fn network_target(record: &KernelRecord) -> String {
    let protocol = match record.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => format!("protocol {other}"),
    };
    match u16::try_from(record.port) {
        Ok(port) => format!("{}/{protocol}", SocketAddr::new(address(record), port)),
        Err(_too_large) => format!("{} port {}/{protocol}", address(record), record.port),
    }
}

/// As [`network_target`], with the hosts that the address was told for.
fn host_target(record: &KernelRecord, around: &Circumstances<'_>) -> String {
    let target = network_target(record);
    match around.hosts.as_slice() {
        [] => target,
        [host] => format!("{target} ({host})"),
        hosts => {
            let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
            format!("{target} (one address of {})", hosts.join(" and "))
        }
    }
}

/// The host, where the session had asked for it by name; else the address.
fn host_entry(record: &KernelRecord, around: &Circumstances<'_>) -> Option<Entry> {
    let endpoint = endpoint(record)?;
    let Some(host) = around.hosts.first() else { return Some(Entry::Network(endpoint)) };
    let suffix = if record.protocol == 17 { "/udp" } else { "" };
    Some(Entry::Network(format!("{host}:{}{suffix}", record.port)))
}

/// The server that a packet asks for, if that is why it was refused; else where it goes.
fn asked_entry(record: &KernelRecord, around: &Circumstances<'_>) -> Option<Entry> {
    if record.verdict != Verdict::ServerName as u32 {
        return host_entry(record, around);
    }
    let name = HostName::parse(std::str::from_utf8(until_nul(&record.path)).ok()?).ok()?;
    Some(Entry::Network(format!("{name}:{}", record.port)))
}

fn listen_entry(record: &KernelRecord) -> Option<Entry> {
    endpoint(record).map(Entry::Listen)
}

fn endpoint(record: &KernelRecord) -> Option<String> {
    let suffix = match record.protocol {
        6 => "",
        17 => "/udp",
        _ => return None,
    };
    // No policy can name port 0.
    let port = u16::try_from(record.port).ok().filter(|port| *port != 0)?;
    Some(format!("{}{suffix}", SocketAddr::new(address(record), port)))
}

/// The path as it was given to execve; without one, what the kernel opened.
fn exec_target(record: &KernelRecord) -> String {
    let path = printable(&String::from_utf8_lossy(until_nul(&record.path)));
    if path.is_empty() { format!("inode {} on device {}", record.ino, device(record.dev)) } else { path }
}

fn device(dev: u32) -> String {
    format!("{}:{}", dev >> 20, dev & 0x000f_ffff)
}

/// The file that a rule must name: the one at that path, or its interpreter, if that is what the kernel opened.
fn exec_entry(record: &KernelRecord, around: &Circumstances<'_>) -> Option<Entry> {
    let bytes = until_nul(&record.path);
    // Without a NUL it was cut short.
    if bytes.is_empty() || bytes.len() == record.path.len() {
        return None;
    }
    let given = Path::new(OsStr::from_bytes(bytes));
    let named = |path: &Path| images::named(path, record.dev, record.ino, around.user);
    let named = if given.is_absolute() {
        named(given)?
    } else {
        around
            .folders
            .iter()
            .find_map(|folder| named(&folder.join(given.strip_prefix(".").unwrap_or(given))))?
    };
    let shown = |path: PathBuf| {
        let path = path.into_os_string().into_string().ok()?;
        (printable(&path) == path).then_some(path)
    };
    Some(Entry::Exec(Executable {
        path: shown(named.path)?,
        script: named.is_script.then(|| printable(&given.to_string_lossy())),
        is_changeable: named.is_changeable,
    }))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The text with `?` for what could move a cursor, reorder or hide text.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|character| if is_visible(character) { character } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sentinel_ebpf_common::SCOPE_CHAIN;
    use sentinel_ebpf_common::record::PATH_BYTES;
    use sentinel_engine::ActionRule;
    use sentinel_proto::ActionName;

    use super::*;

    fn record(operation: u32, verdict: Verdict) -> KernelRecord {
        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"curl");
        KernelRecord {
            at: 1,
            operation,
            verdict: verdict as u32,
            session: 7,
            audited: 0,
            tgid: 10,
            tid: 11,
            comm,
            address: Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(),
            port: 8080,
            protocol: 6,
            family: 0,
            dev: 0,
            ino: 0,
            rule_bits: 0,
            open_bits: 1,
            scopes: [0; SCOPE_CHAIN],
            cookie: 0,
            source: [0; 16],
            source_port: 0,
            reserved: 0,
            path: [0; PATH_BYTES],
        }
    }

    /// What the policy says, if the text is one.
    fn pasted(text: &str) -> Policy {
        sentinel_policy::parse(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}")).policy
    }

    fn against(policy: &Policy) -> Circumstances<'_> {
        Circumstances { policy, in_flight: Vec::new(), user: None, folders: Vec::new(), hosts: Vec::new() }
    }

    /// Under a policy that says nothing.
    fn described(record: &KernelRecord) -> Attempt {
        describe(record, &against(&Policy::empty()))
    }

    #[test]
    fn a_server_that_is_not_listed_is_told_by_its_name_with_the_line_that_lists_it() {
        let mut record =
            KernelRecord { rule_bits: BASELINE, ..record(OPERATION_EGRESS, Verdict::ServerName) };
        record.path[..9].copy_from_slice(b"B.example");
        let attempt = described(&record);
        assert_eq!(attempt.target, "127.0.0.1:8080/tcp (asks for B.example)");
        assert_eq!((attempt.operation.as_str(), attempt.verdict.as_str()), ("egress", "server_name"));
        let text = attempt.would_allow.unwrap();
        assert_eq!(text, "enforcement:\n  network:\n    allow:\n      - \"b.example:8080\"");
        let hidden = described(&KernelRecord { verdict: Verdict::EncryptedHello as u32, ..record });
        assert_eq!(hidden.would_allow, None, "no line would allow that");
    }

    #[test]
    fn a_connect_without_a_rule_is_told_with_the_text_that_allows_it() {
        let attempt = described(&record(OPERATION_CONNECT, Verdict::NoRule));
        assert_eq!(attempt.target, "127.0.0.1:8080/tcp");
        assert_eq!((attempt.verdict.as_str(), attempt.fate.as_str()), ("no_rule", "refused"));
        assert_eq!((attempt.process.as_str(), attempt.pid), ("curl", 10));
        let text = attempt.would_allow.unwrap();
        assert_eq!(text, "enforcement:\n  network:\n    allow:\n      - \"127.0.0.1:8080\"");
        let rules = super::super::rules::compile(&pasted(&text).grants).unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].endpoint(7, 1).address, record(OPERATION_CONNECT, Verdict::NoRule).address);
    }

    #[test]
    fn a_packet_is_told_without_a_process_and_what_it_lacks_by_what_stopped_it() {
        let attempt = described(&record(OPERATION_EGRESS, Verdict::NoRule));
        assert_eq!((attempt.operation.as_str(), attempt.process.as_str()), ("egress", "(a packet)"));
        assert!(attempt.would_allow.unwrap().ends_with("- \"127.0.0.1:8080\""));
        let unread =
            described(&KernelRecord { protocol: 0, port: 0, ..record(OPERATION_EGRESS, Verdict::Header) });
        assert!(unread.target.contains("IP options") && unread.would_allow.is_none(), "{unread:?}");
        assert_eq!(unread.verdict, "header");
        let policy = pasted("actions: {fetch: {grants: {network: ['127.0.0.1:8080']}}}");
        let over = KernelRecord { rule_bits: 0b10, ..record(OPERATION_EGRESS, Verdict::DoorClosed) };
        let attempt = describe(&over, &against(&policy));
        assert!(attempt.would_allow.unwrap().contains("fetch:\n    grants:\n      keep_alive: true"));
        let kept = pasted("actions: {fetch: {grants: {network: ['127.0.0.1:8080'], keep_alive: true}}}");
        assert_eq!(describe(&over, &against(&kept)).would_allow, None, "nothing opens it between actions");
    }

    #[test]
    fn an_own_address_without_a_rule_is_told_with_the_list_that_it_lacks() {
        for operation in [OPERATION_BIND, OPERATION_INBOUND] {
            let text = described(&record(operation, Verdict::NoRule)).would_allow.unwrap();
            assert_eq!(text, "enforcement:\n  network:\n    listen:\n      - \"127.0.0.1:8080\"");
        }
    }

    #[test]
    fn a_datagram_over_ipv6_is_told_as_a_policy_writes_it() {
        let mut datagram = record(OPERATION_SENDMSG, Verdict::NoRule);
        datagram.address = Ipv6Addr::LOCALHOST.octets();
        datagram.protocol = 17;
        let attempt = described(&datagram);
        assert_eq!(attempt.target, "[::1]:8080/udp");
        let text = attempt.would_allow.unwrap();
        assert_eq!(text, "enforcement:\n  network:\n    allow:\n      - \"[::1]:8080/udp\"");
        assert_eq!(pasted(&text).grants[0].network.len(), 1);
    }

    #[test]
    fn a_closed_door_names_the_actions_that_open_it_and_a_spent_budget_its_switch() {
        let mut policy = Policy::empty();
        let rule = ActionRule { grant: Some(1), ..ActionRule::default() };
        policy.actions.insert(ActionName::new("search_web").unwrap(), rule);
        let mut closed = record(OPERATION_CONNECT, Verdict::DoorClosed);
        closed.rule_bits = 0b10;
        let text = describe(&closed, &against(&policy)).would_allow.unwrap();
        assert!(text.ends_with("here: `search_web`"), "{text}");
        assert_eq!(pasted(&text).grants[0].network.len(), 1);

        closed.rule_bits = 0b11;
        let text = describe(&closed, &against(&policy)).would_allow.unwrap();
        assert!(text.starts_with("enforcement:\n  on_exhausted: keep"), "{text}");
        pasted(&text);
    }

    #[test]
    fn what_no_rule_can_allow_has_no_text() {
        for verdict in [Verdict::NoStorage, Verdict::Surface, Verdict::Failed, Verdict::HeartbeatStale] {
            let attempt = described(&record(OPERATION_CONNECT, verdict));
            assert_eq!(attempt.would_allow, None, "{verdict:?}");
        }
        let mut port_0 = record(OPERATION_CONNECT, Verdict::NoRule);
        port_0.port = 0;
        assert_eq!(described(&port_0).would_allow, None);
        let socket = described(&record(OPERATION_SOCKET, Verdict::Surface));
        assert_eq!((socket.target.as_str(), socket.would_allow), ("family 0 type 8080 protocol 6", None));
    }

    #[test]
    fn an_exec_is_told_with_the_file_that_the_kernel_opened() {
        let first = images::first_image(Path::new("/bin/true")).unwrap();
        let mut exec = record(OPERATION_EXEC, Verdict::NoRule);
        (exec.dev, exec.ino) = (first.dev, first.ino);
        exec.path[..9].copy_from_slice(b"/bin/true");
        let attempt = described(&exec);
        assert_eq!((attempt.target.as_str(), attempt.fate.as_str()), ("/bin/true", "killed"));
        assert_eq!(attempt.would_allow.unwrap(), "enforcement:\n  exec:\n    allow:\n      - /bin/true");

        exec.ino += 1;
        let attempt = described(&exec);
        assert_eq!(attempt.would_allow, None, "the path stands for another file now");
    }

    #[test]
    fn an_exec_in_an_action_is_told_for_that_action_by_its_path_from_where_its_process_works() {
        let policy = Policy::empty();
        let first = images::first_image(Path::new("/usr/bin/true")).unwrap();
        let mut exec = record(OPERATION_EXEC, Verdict::NoRule);
        (exec.dev, exec.ino) = (first.dev, first.ino);
        exec.path[..6].copy_from_slice(b"./true");
        assert!(is_relative(&exec) && !is_relative(&record(OPERATION_EXEC, Verdict::NoRule)));
        let mut around = Circumstances { in_flight: vec!["run"], ..against(&policy) };
        assert_eq!(describe(&exec, &around).would_allow, None, "nobody knows where it works");
        around.folders = vec![PathBuf::from("/"), PathBuf::from("/usr/bin")];
        let text = describe(&exec, &around).would_allow.unwrap();
        assert_eq!(text, "actions:\n  run:\n    grants:\n      exec:\n        - /usr/bin/true");
    }

    #[test]
    fn what_tier_lsm_refuses_is_told_in_words() {
        let mut socket = record(OPERATION_UNIX, Verdict::NoRule);
        socket.path[..4].copy_from_slice(b"/x\n\0");
        socket.port = 0;
        assert_eq!(described(&socket).target, "/x?");
        socket.port = 1;
        assert_eq!(described(&socket).target, "@/x?");
        let mut signal = record(OPERATION_SIGNAL, Verdict::Surface);
        (signal.port, signal.protocol) = (7, 9);
        let attempt = described(&signal);
        assert_eq!(
            (attempt.operation.as_str(), attempt.target.as_str()),
            ("signal", "signal 9 to process 7")
        );
        assert_eq!((attempt.fate.as_str(), attempt.would_allow), ("refused", None));
        for operation in OPERATION_EXEC_REFUSED..=OPERATION_SEND {
            assert_ne!(described(&record(operation, Verdict::Surface)).operation, "unknown", "{operation}");
        }
        let exec = record(OPERATION_EXEC_REFUSED, Verdict::NoRule);
        assert_eq!(described(&exec).fate, "refused");
        assert_eq!(described(&record(OPERATION_SEND + 1, Verdict::Surface)).operation, "unknown");
    }

    #[test]
    fn what_a_process_chose_reaches_no_terminal_raw() {
        let mut named = record(OPERATION_EXEC, Verdict::NoRule);
        named.comm[..5].copy_from_slice(b"\x1b[2Jx");
        named.path[..8].copy_from_slice(b"/a\n\x1b]0;x");
        let attempt = described(&named);
        assert_eq!((attempt.process.as_str(), attempt.target.as_str()), ("?[2Jx", "/a??]0;x"));
    }

    #[test]
    fn audited_is_recorded_and_bytes_of_another_size_are_no_record() {
        let mut audited = record(OPERATION_EXEC, Verdict::NoRule);
        audited.audited = 1;
        assert_eq!(described(&audited).fate, "recorded");
        assert!(decode(&[0; 10]).is_none());
        assert!(decode(&[0; size_of::<KernelRecord>()]).is_some());
    }
}
