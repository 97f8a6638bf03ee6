//! The client in plain Python that `PROTOCOL.md` shows, in a session of a real agent: doors, denials, a human's word.

use std::path::Path;
use std::time::Duration;

use sentinel_tests::{Host, Running, Server, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

/// What each script begins with.
const PREAMBLE: &str = r"
import os, socket, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import Client, Denied
HOST, PORT = sys.argv[1].split(':')
sentinel = Client()

def connect():
    try:
        socket.create_connection((HOST, int(PORT)), 5).close()
        return 'ok'
    except OSError as error:
        return type(error).__name__

def tried(action, body=connect, **declared):
    try:
        return sentinel.guarded(action, body, **declared)
    except Denied as denied:
        return denied.args[0]
";

/// A session with a script beside a copy of the client, for a session's user can't read the checkout.
fn start(host: &Host, server: &Server, script: &str) -> Running {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sentinel-sdk/proto/examples/client.py");
    std::fs::copy(client, host.folder.join("client.py")).unwrap();
    let path = host.folder.join("script.py");
    std::fs::write(&path, format!("{PREAMBLE}{script}")).unwrap();
    let (path, address) = (path.display().to_string(), server.address().to_string());
    Running::start(host.run_command(&[], &["/usr/bin/python3", "-B", "-u", &path, &address]))
}

fn policy(server: &Server) -> String {
    format!(
        "budgets: {{session: 1.0}}\ndenied_actions: [delete_all]\napprovals: {{actions: [pay], timeout_seconds: 60}}\n\
         actions:\n  fetch: {{grants: {{network: [\"{0}\"]}}}}\n  pay: {{grants: {{network: [\"{0}\"]}}}}\n",
        server.address()
    )
}

#[test]
fn a_door_is_open_inside_its_action_and_nowhere_else() {
    let server = Server::start();
    let host = Host::with_policy(policy(&server));
    let script = "
print(connect())
print(tried('fetch', cost_usd=0.25, tags=['web'], inputs={'args': [], 'kwargs': {}}))
print(connect())
print(sentinel.denials(60_000)[-1]['fate'])
";
    let finished = start(&host, &server, script).finish();
    assert_eq!(
        finished.lines(),
        ["PermissionError", "ok", "PermissionError", "refused"],
        "{}",
        finished.stderr
    );
    assert_eq!(server.accepted(), 1);
    let ended = host.ledger_of("fetch", "success");
    assert_eq!(ended[0]["payload"]["outputs"], "ok");
    assert_eq!(ended[0]["tags"][0], "web");
}

#[test]
fn a_denied_action_does_not_run() {
    let server = Server::start();
    let host = Host::with_policy(policy(&server));
    let script = "
print(tried('delete_all', lambda: print('it ran')))
print(tried('fetch', lambda: print('it ran'), cost_usd=1.01))
print(tried('fetch', cost_usd=1.0))
";
    let finished = start(&host, &server, script).finish();
    assert_eq!(finished.lines(), ["DENIED_ACTION", "BUDGET_EXCEEDED", "ok"], "{}", finished.stderr);
}

#[test]
fn totals_are_what_was_spent_and_a_new_run_begins_at_nothing() {
    let server = Server::start();
    let host = Host::with_policy(policy(&server));
    let script = "
tried('fetch', cost_usd=0.25)
for totals in [sentinel.totals(), sentinel.reset_run()]:
    print(totals['session_usd'], totals['run_usd'], totals['session_limit_usd'], 'run_limit_usd' in totals)
";
    let finished = start(&host, &server, script).finish();
    assert_eq!(finished.lines(), ["0.25 0.25 1.0 False", "0.25 0.0 1.0 False"], "{}", finished.stderr);
}

#[test]
fn what_a_body_raises_is_its_callers_and_the_ledgers() {
    let server = Server::start();
    let host = Host::with_policy(policy(&server));
    let script = "
def fails():
    raise ValueError('no such page')
try:
    tried('fetch', fails)
except ValueError as error:
    print(error)
";
    let finished = start(&host, &server, script).finish();
    assert_eq!(finished.lines(), ["no such page"], "{}", finished.stderr);
    assert_eq!(host.ledger_of("fetch", "error")[0]["payload"]["outputs"], "ValueError: no such page");
}

/// The id of the one approval that waits.
fn waiting(host: &Host) -> String {
    wait_until("a wish", PATIENCE, || !host.ledger_of("pay", "pending").is_empty());
    host.ledger_of("pay", "pending")[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn it_waits_for_a_humans_word() {
    for (word, said, accepted) in [("approve", "ok", 1), ("deny", "APPROVAL_REJECTED", 0)] {
        let server = Server::start();
        let host = Host::with_policy(policy(&server));
        let running = start(&host, &server, "print(tried('pay', cost_usd=0.5))\n");
        let id = waiting(&host);
        assert_eq!(host.operate(&["approvals", word, &id]).status, Some(0));
        let finished = running.finish();
        assert_eq!(finished.lines(), [said], "{}", finished.stderr);
        assert_eq!(server.accepted(), accepted);
    }
}

#[test]
fn a_wish_can_be_withdrawn() {
    let server = Server::start();
    let host = Host::with_policy(policy(&server));
    let script = "
wait = Client.await_approval
def withdraw_and_wait(self, approval, seconds):
    self.cancel_approval(approval)
    wait(self, approval, seconds)
Client.await_approval = withdraw_and_wait
print(tried('pay'))
";
    let finished = start(&host, &server, script).finish();
    assert_eq!(finished.lines(), ["APPROVAL_CANCELLED"], "{}", finished.stderr);
}

#[test]
fn a_forked_child_and_a_thread_act_for_themselves() {
    let server = Server::start();
    let host = Host::with_policy(policy(&server));
    let script = "
import threading
def both():
    thread = threading.Thread(target=lambda: print('thread', tried('fetch')))
    thread.start(); thread.join()
    child = os.fork()
    if child == 0:
        print('child', tried('fetch'))
        os._exit(0)
    os.waitpid(child, 0)
    return connect()
print('parent', tried('fetch', both))
print('after', connect())
";
    let finished = start(&host, &server, script).finish();
    assert_eq!(
        finished.lines(),
        ["thread ok", "child ok", "parent ok", "after PermissionError"],
        "{}",
        finished.stderr
    );
    assert_eq!(host.ledger_of("fetch", "success").len(), 3);
}
