//! Who speaks is the kernel's word: never the message's, never the connection's opener's.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sentinel_proto::{FrameReader, app, encode_frame};
use sentinel_tests::{Finished, Host, wait_until};

fn ask(stream: &mut UnixStream, bytes: &[u8]) -> Option<app::Reply> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(bytes).ok()?;
    let mut reader = FrameReader::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(reply) = reader.next_message().expect("the agent speaks the protocol") {
            return Some(reply);
        }
        let read = stream.read(&mut buffer).expect("the agent answers in time");
        if read == 0 {
            return None;
        }
        reader.push(&buffer[..read]);
    }
}

fn hello(version: u32) -> Vec<u8> {
    encode_frame(&app::Request::Hello(app::Hello { version, client: "test".to_owned() })).unwrap()
}

fn refusal(reply: Option<app::Reply>) -> app::Refused {
    match reply {
        Some(app::Reply::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_client_outside_any_session_is_refused() {
    let host = Host::with_policy("strict_mode: true\n");
    let mut stream = UnixStream::connect(host.runtime().join("agent.sock")).unwrap();
    let refused = refusal(ask(&mut stream, &hello(1)));
    assert_eq!(refused.code, app::RefusalCode::Identity, "{}", refused.message);
}

#[test]
fn another_version_is_refused_and_told_which_is_right() {
    let host = Host::with_policy("strict_mode: true\n");
    for socket in ["agent.sock", "admin.sock"] {
        let mut stream = UnixStream::connect(host.runtime().join(socket)).unwrap();
        let refused = refusal(ask(&mut stream, &hello(99)));
        assert_eq!(refused.code, app::RefusalCode::Version, "{}", refused.message);
        assert!(refused.message.contains('1') && refused.message.contains("99"), "{}", refused.message);
    }
}

/// Sends raw bytes from inside a session, then goes on with an honest action: prints what came back.
const HOSTILE: &str = r"
import json, os, socket, struct, sys
def connect():
    s = socket.socket(socket.AF_UNIX); s.settimeout(8); s.connect(os.environ['AGENT_SENTINEL_SOCKET']); return s
def frame(m): b = json.dumps(m).encode(); return struct.pack('<I', len(b)) + b
def receive(s):
    head = b''
    while len(head) < 4:
        part = s.recv(4 - len(head))
        if not part: return None
        head += part
    body, n = b'', struct.unpack('<I', head)[0]
    while len(body) < n: body += s.recv(n - len(body))
    return json.loads(body)
HELLO = {'hello': {'version': 1, 'client': 'hostile'}}
";

fn hostile(host: &Host, script: &str) -> Finished {
    host.run(&["/usr/bin/python3", "-uc", &format!("{HOSTILE}{script}")])
}

#[test]
fn garbage_is_refused_and_disturbs_nobody() {
    let host = Host::with_policy("strict_mode: true\n");
    let finished = hostile(
        &host,
        r"
honest = connect(); honest.sendall(frame(HELLO)); print('welcome' in receive(honest))
for raw in [b'\xff\xff\xff\xff', b'\x00\x00\x00\x00', b'\x05\x00\x00\x00{nope', frame({'unknown': {}}), frame([1]),
            frame({'hello': {'version': 1, 'client': 'x', 'extra': 1}}), b'\x10\x00\x00\x00' + b'\xfe' * 16]:
    s = connect(); s.sendall(raw)
    print(receive(s)['refused']['code'])
s = connect(); s.sendall(frame(HELLO)[:7]); s.close()
honest.sendall(frame({'begin': {'request': 1, 'action': 'still'}})); print(receive(honest)['decision']['decision'])
",
    );
    assert_eq!(
        finished.lines(),
        [&["True"][..], &["malformed"; 7], &["allow"]].concat(),
        "{}",
        finished.stderr
    );
}

#[test]
fn bad_fields_are_refused_with_what_would_be_right() {
    let host = Host::with_policy("strict_mode: true\n");
    let finished = hostile(
        &host,
        r"
for begin in [{'request': 1, 'action': ''}, {'request': 1, 'action': 'a\u001b[2J'}, {'request': 1, 'action': 'a', 'cost_usd': -1},
              {'request': 1, 'action': 'a' * 200}, {'request': 1, 'action': 'a', 'cost_usd': 1e300}, {'action': 'a'}]:
    s = connect(); s.sendall(frame(HELLO)); receive(s)
    s.sendall(frame({'begin': begin})); print(receive(s)['refused']['message'])
",
    );
    assert_eq!(finished.lines().len(), 6, "{}{}", finished.stdout, finished.stderr);
    assert!(!finished.stdout.contains('\u{1b}'));
    assert!(host.ledger().iter().all(|line| line["outcome"] != "started"), "nothing started");
}

#[test]
fn a_session_can_not_speak_to_the_operators_socket() {
    let host = Host::with_policy(format!("enforcement: {{unix: {{allow: [{}]}}}}\n", "/run/x.sock"));
    let admin = host.runtime().join("admin.sock");
    let script = format!(
        "s = socket.socket(socket.AF_UNIX)\ntry: s.connect('{}'); s.sendall(frame(HELLO)); print(receive(s))\nexcept OSError as e: print('no way', e.errno)\n",
        admin.display()
    );
    let finished = hostile(&host, &script);
    assert!(
        finished.stdout.starts_with("no way") || finished.stdout.contains("identity"),
        "{}{}",
        finished.stdout,
        finished.stderr
    );
}

#[test]
fn a_connection_passed_to_another_session_speaks_for_its_sender() {
    // Both run as one uid, and meet over a socket in a folder that both can write.
    let folder = std::env::temp_dir().join(format!("sentinel-passed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let meeting = folder.join("meeting").display().to_string();
    let rich = format!("enforcement: {{unix: {{allow: [{meeting}]}}}}\n");
    let host = Host::builder().policy("test", rich).policy("poor", "allowed_actions: []\n").start();
    let taker = format!(
        r"{HOSTILE}
import array
listener = socket.socket(socket.AF_UNIX); listener.bind('{meeting}'); os.chmod('{meeting}', 0o777); listener.listen(); print('waiting')
peer, _ = listener.accept()
_, ancillary, _, _ = peer.recvmsg(1, socket.CMSG_LEN(4))
s = socket.socket(fileno=array.array('i', ancillary[0][2])[0]); s.settimeout(8)
s.sendall(frame({{'begin': {{'request': 7, 'action': 'as_whom'}}}})); print(json.dumps(receive(s)))
"
    );
    let giver = format!(
        r"{HOSTILE}
import array
s = connect(); s.sendall(frame(HELLO)); receive(s)
peer = socket.socket(socket.AF_UNIX); peer.connect('{meeting}')
peer.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))])
peer.recv(1)
"
    );
    let uid = ["--user", "nobody"];
    let poor = [&["--policy", "poor"][..], &uid].concat();
    let taker = sentinel_tests::Running::start(host.run_command(&poor, &["/usr/bin/python3", "-uc", &taker]));
    taker.wait_for_line("waiting");
    let giver = sentinel_tests::Running::start(host.run_command(&uid, &["/usr/bin/python3", "-uc", &giver]));
    wait_until("the answer", Duration::from_secs(10), || taker.stdout().lines().count() > 1);
    let (taker, giver) = (taker.finish(), giver.finish());
    // Judged by the sender's policy, which allows nothing, or refused for the change of sender; never by the opener's.
    assert!(
        taker.stdout.contains("NOT_IN_ALLOWLIST") || taker.stdout.contains("identity"),
        "{}{}{}",
        taker.stdout,
        taker.stderr,
        giver.stderr
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_inherited_connection_speaks_for_the_child_that_uses_it() {
    let host = Host::with_policy("strict_mode: true\n");
    let finished = hostile(
        &host,
        r"
s = connect(); s.sendall(frame(HELLO)); receive(s)
if os.fork() == 0:
    s.sendall(frame({'begin': {'request': 1, 'action': 'child'}})); print(receive(s)); print(os.getpid()); os._exit(0)
os.wait()
",
    );
    let lines = finished.lines();
    assert_eq!(lines.len(), 2, "{}{}", finished.stdout, finished.stderr);
    let started = host.ledger_of("child", "started");
    if lines[0].contains("allow") {
        assert_eq!(started[0]["pid"].to_string(), lines[1], "the ledger names the sender");
    } else {
        assert!(lines[0].contains("identity") && started.is_empty(), "{}", finished.stdout);
    }
}
