//! Bound cgroups: what an agent didn't launch is held like what it did.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use sentinel_tests::dns::DnsServer;
use sentinel_tests::{Host, Server, program, wait_until};
use serde_json::json;

/// Whom the bound processes run as.
const UID: u32 = 54_242;
/// So long the agent may take to see what changed: it looks each second.
const SOON: Duration = Duration::from_secs(6);

/// A cgroup of the test's own, which no agent made.
struct Cgroup {
    path: PathBuf,
    shown: String,
}

impl Cgroup {
    fn new(test: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
        let name = format!("sentinel-bound-{}-{test}", std::process::id());
        let path = Path::new(root.split(' ').nth(4).unwrap()).join(&name);
        std::fs::create_dir(&path).unwrap();
        Self { path, shown: format!("/{name}") }
    }

    fn add(&self, pid: u32) {
        std::fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn binding(&self) -> String {
        format!("bind: [{{cgroup: {}, policy: test, user: '{UID}', session: bound}}]\n", self.shown)
    }

    fn is_populated(&self) -> bool {
        std::fs::read_to_string(self.path.join("cgroup.events")).unwrap().contains("populated 1")
    }

    fn remove(&self) {
        std::fs::write(self.path.join("cgroup.kill"), "1").unwrap();
        wait_until("the cgroup is removed", SOON, || std::fs::remove_dir(&self.path).is_ok());
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.path.exists() {
            self.remove();
        }
    }
}

/// A process that somebody else started, which does what it is told.
struct Stranger {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

const STRANGER: &str = r#"
import os, socket, sys
kept = []
for line in sys.stdin:
    order, _, rest = line.strip().partition(" ")
    try:
        if order == "connect":
            host, _, port = rest.rpartition(":")
            kept.append(socket.create_connection((host, int(port)), 5))
        elif order == "send":
            kept[-1].sendall(b"x")
        elif order == "read":
            kept[-1].recv(1)
        elif order == "child":
            pid = os.fork()
            if pid == 0:
                host, _, port = rest.rpartition(":")
                try:
                    socket.create_connection((host, int(port)), 5)
                    os._exit(0)
                except OSError as error:
                    os._exit(error.errno)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code:
                raise OSError(code, "")
        elif order == "run":
            pid = os.fork()
            if pid == 0:
                os.execv(rest, [rest])
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code < 0:
                print("killed by", -code, flush=True)
                continue
        elif order == "breed":
            # One process after the other, none of them older than an instant.
            os.setsid()
            while True:
                if os.fork():
                    os._exit(0)
        elif order == "become":
            os.execv(rest.split()[0], rest.split())
        print("ok", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"#;

impl Stranger {
    fn start_as(uid: u32) -> Self {
        Self::start_with(Command::new("/usr/bin/python3"), uid)
    }

    fn start_with(mut python: Command, uid: u32) -> Self {
        let mut child = python
            .args(["-c", STRANGER])
            .uid(uid)
            .gid(uid)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut stranger = Self { child, orders, answers: BufReader::new(answers) };
        assert_eq!(stranger.order("run /bin/true"), "ok", "it is up");
        stranger
    }

    fn send(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn order(&mut self, order: &str) -> String {
        self.send(order);
        self.line()
    }

    fn line(&mut self) -> String {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    fn connect(&mut self, server: &Server) -> String {
        self.order(&format!("connect {}", server.address()))
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const REFUSED: &str = "1";

fn host(cgroup: &Cgroup, policy: &str) -> Host {
    Host::builder().policy("test", policy).configuration(cgroup.binding()).start()
}

/// The session's line comes first in the ledger, before anything is held: so this waits for the agent's word that all is.
fn wait_until_bound(host: &Host, times: usize) {
    wait_until("the cgroup is bound", SOON, || host.log().matches("cgroup bound").count() >= times);
}

/// What the agent says when it holds what is there. Its sockets answer before.
const READY: &str = " ready";

fn log_when_ready(host: &Host) -> String {
    wait_until("the agent is ready", SOON, || host.log().contains(READY));
    host.log()
}

fn allow(server: &Server) -> String {
    format!("enforcement: {{network: {{allow: ['{}']}}}}\n", server.address())
}

#[test]
fn what_runs_in_it_already_is_held_with_all_that_it_forks() {
    let (named, other) = (Server::start(), Server::start());
    let cgroup = Cgroup::new("running");
    let (mut inside, mut outside) = (Stranger::start_as(UID), Stranger::start_as(UID));
    cgroup.add(inside.child.id());
    assert_eq!(inside.connect(&other), "ok", "it is held from the agent's start on, and not before");

    let host = host(&cgroup, &allow(&named));
    wait_until_bound(&host, 1);
    assert_eq!(inside.connect(&named), "ok");
    assert_eq!(inside.connect(&other), REFUSED);
    assert_eq!(inside.order(&format!("child {}", other.address())), REFUSED);
    assert_eq!(inside.order("run /bin/true"), "killed by 9");
    assert_eq!(outside.connect(&other), "ok", "who isn't in it is left alone");
    assert_eq!(outside.order("run /bin/true"), "ok");
    let started = host.ledger().into_iter().find(|line| line["kind"] == "session").unwrap();
    assert_eq!(started["payload"]["outputs"]["tier"], "kill-bound", "{started}");
}

#[test]
fn a_connection_that_it_had_before_is_of_no_use_any_more() {
    let server = Server::start();
    let cgroup = Cgroup::new("before");
    let mut inside = Stranger::start_as(UID);
    cgroup.add(inside.child.id());
    assert_eq!(inside.connect(&server), "ok");
    // Even to where a rule lets it go: what was sent by it before nobody has seen.
    let host = host(&cgroup, &allow(&server));
    wait_until_bound(&host, 1);
    let mut answers = Vec::new();
    wait_until("the program is told", SOON, || {
        answers.push(inside.order("send"));
        answers.last().is_some_and(|answer| answer != "ok")
    });
    assert_eq!(inside.connect(&server), "ok", "a new one is let go");
    assert_eq!(inside.order("send"), "ok");
}

#[test]
fn a_connection_from_a_cgroup_below_it_ends_with_its_rule_too() {
    let (kept, taken) = (Server::start(), Server::start());
    let cgroup = Cgroup::new("below");
    let both =
        format!("enforcement: {{network: {{allow: ['{}', '{}']}}}}\n", kept.address(), taken.address());
    let host = host(&cgroup, &both);
    wait_until_bound(&host, 1);
    let below = cgroup.path.join("below");
    std::fs::create_dir(&below).unwrap();
    let (mut stays, mut ends) = (Stranger::start_as(UID), Stranger::start_as(UID));
    for stranger in [&stays, &ends] {
        std::fs::write(below.join("cgroup.procs"), stranger.child.id().to_string()).unwrap();
    }
    assert_eq!((stays.connect(&kept), ends.connect(&taken)), ("ok".to_owned(), "ok".to_owned()));
    ends.send("read");
    host.write_policy("test", &allow(&kept));
    assert_eq!(host.operate(&["reload"]).status, Some(0));
    assert_eq!(ends.line(), libc::ECONNABORTED.to_string(), "it is told, and doesn't wait");
    assert_eq!(stays.order("send"), "ok");
    drop((stays, ends));
    wait_until("the cgroup below is removed", SOON, || std::fs::remove_dir(&below).is_ok());
}

#[test]
fn what_comes_into_it_later_is_held_at_once_and_what_is_taken_out_is_killed() {
    let other = Server::start();
    let cgroup = Cgroup::new("later");
    let host = host(&cgroup, "strict_mode: true\n");
    wait_until_bound(&host, 1);
    let mut late = Stranger::start_as(UID);
    assert_eq!(late.connect(&other), "ok");
    cgroup.add(late.child.id());
    assert_eq!(late.connect(&other), REFUSED);
    // Until it bears the mark, nobody could tell that it was moved.
    std::thread::sleep(Duration::from_secs(2));
    std::fs::write(cgroup.path.parent().unwrap().join("cgroup.procs"), late.child.id().to_string()).unwrap();
    wait_until("it is killed", SOON, || late.has_ended());
    wait_until("it is told", SOON, || {
        host.ledger().iter().any(|line| line["action"] == "kernel.move" && line["verdict"] == "stray")
    });
}

#[test]
fn a_program_in_it_finds_and_reaches_a_listed_host_and_no_other() {
    let server = Server::start();
    let dns = DnsServer::start(
        &json!({"api.example.com": {"a": ["127.0.0.1"]}, "other.example.com": {"a": ["127.0.0.1"]}}),
    );
    let cgroup = Cgroup::new("names");
    let mut inside = Stranger::start_as(UID);
    cgroup.add(inside.child.id());
    let port = server.address().port();
    let policy = format!(
        "enforcement: {{network: {{allow: [{{host: \"api.example.com:{port}\", allow_private: true}}]}}}}\n"
    );
    let configuration = format!("{}resolver: {{upstreams: [\"{}\"]}}\n", cgroup.binding(), dns.address());
    let host = Host::builder().policy("test", policy).configuration(configuration).start();
    wait_until_bound(&host, 1);
    assert_eq!(inside.connect(&server), REFUSED, "nobody has asked for its name yet");
    // It prints what `getaddrinfo` says: that there is no such name.
    assert_eq!(inside.order(&format!("connect other.example.com:{port}")), "-2");
    assert_eq!(inside.order(&format!("connect api.example.com:{port}")), "ok");
    assert_eq!(inside.order("send"), "ok");
    assert!(dns.questions().iter().all(|question| question.ends_with("api.example.com")));
    let refused = |line: &serde_json::Value| line["operation"] == "resolve" && line["session"] == "bound";
    wait_until("the other name is told", SOON, || host.ledger().iter().any(refused));
}

#[test]
fn a_program_in_it_begins_actions_as_one_that_was_launched() {
    let server = Server::start();
    let cgroup = Cgroup::new("actions");
    let probe = program("probe");
    let policy = format!(
        "actions:\n  fetch: {{grants: {{network: ['{}']}}}}\nenforcement: {{exec: {{allow: [{{path: {}, writable: accept}}]}}}}\n",
        server.address(),
        probe.display()
    );
    let host = host(&cgroup, &policy);
    wait_until_bound(&host, 1);
    let connect = format!("connect={}", server.address());
    let mut python = Command::new("/usr/bin/python3");
    python.env("AGENT_SENTINEL_SOCKET", host.runtime().join("agent.sock"));
    let mut stranger = Stranger::start_with(python, UID);
    cgroup.add(stranger.child.id());
    // Whose message it is the mark says, which it gets at the agent's next look.
    std::thread::sleep(Duration::from_secs(2));
    stranger.send(&format!("become {} {connect} begin=fetch {connect} end", probe.display()));
    let lines: Vec<String> = (0..4).map(|_| stranger.line()).collect();
    assert_eq!(
        lines,
        [format!("{connect} EPERM"), "begin=fetch allow".into(), format!("{connect} ok"), "end".into()]
    );
    assert_eq!(host.ledger_of("fetch", "success").len(), 1);
}

#[test]
fn a_process_that_cannot_be_held_is_killed_and_it_is_told_why() {
    let cgroup = Cgroup::new("root");
    let mut root = Stranger::start_as(0);
    cgroup.add(root.child.id());
    let host = host(&cgroup, "strict_mode: true\n");
    // By its first look, which comes before it says that it is ready.
    let log = log_when_ready(&host);
    let (looked, _) = log.split_once(READY).unwrap();
    assert!(
        looked.contains("runs as uid 0, not 54242") && looked.contains("its processes are killed"),
        "{log}"
    );
    assert!(!log.contains("isn't held yet"), "{log}");
    wait_until("it is killed", SOON, || root.has_ended());
}

#[test]
fn an_agent_that_says_it_is_ready_holds_what_is_bound() {
    let (named, other) = (Server::start(), Server::start());
    let cgroup = Cgroup::new("ready");
    let mut inside = Stranger::start_as(UID);
    cgroup.add(inside.child.id());
    let host = host(&cgroup, &allow(&named));
    log_when_ready(&host);
    assert_eq!(inside.connect(&other), REFUSED);
    assert_eq!(inside.connect(&named), "ok");
}

#[test]
fn a_cgroup_that_is_made_anew_is_bound_anew_as_the_same_session() {
    let other = Server::start();
    let cgroup = Cgroup::new("anew");
    let host = host(&cgroup, "strict_mode: true\n");
    wait_until_bound(&host, 1);
    cgroup.remove();
    std::fs::create_dir(&cgroup.path).unwrap();
    wait_until_bound(&host, 2);
    let mut stranger = Stranger::start_as(UID);
    cgroup.add(stranger.child.id());
    assert_eq!(stranger.connect(&other), REFUSED);
    let lines = host.ledger();
    let sessions: Vec<_> = lines
        .iter()
        .filter(|line| line["action"] == "session.started")
        .map(|line| line["session_id"].clone())
        .collect();
    assert_eq!(sessions[0], sessions[1]);
}

#[test]
fn it_stays_held_while_the_agent_is_dead_and_the_next_one_takes_it_over() {
    let other = Server::start();
    let cgroup = Cgroup::new("dead");
    let mut stranger = Stranger::start_as(UID);
    cgroup.add(stranger.child.id());
    let mut host = host(&cgroup, "strict_mode: true\n");
    wait_until_bound(&host, 1);
    host.kill_agent();
    assert_eq!(stranger.connect(&other), REFUSED);
    host.start_agent();
    assert_eq!(stranger.connect(&other), REFUSED);
    wait_until("it is taken over", SOON, || host.log().contains("session adopted"));
    assert!(!stranger.has_ended());
    drop(host);
    wait_until("an agent that stops ends it", SOON, || stranger.has_ended());
    assert!(cgroup.path.exists(), "a cgroup that isn't the agent's is not removed");
}

#[test]
fn a_start_without_the_binding_ends_what_was_bound() {
    let cgroup = Cgroup::new("unbound");
    let mut stranger = Stranger::start_as(UID);
    cgroup.add(stranger.child.id());
    let mut host = host(&cgroup, "strict_mode: true\n");
    wait_until_bound(&host, 1);
    host.kill_agent();
    std::fs::write(host.folder.join("agent.yaml"), "bind: []\n").unwrap();
    host.start_agent();
    wait_until("it is killed", SOON, || stranger.has_ended());
}

#[test]
fn what_forks_without_pause_does_not_outlive_its_binding_either() {
    let cgroup = Cgroup::new("breeds");
    let mut stranger = Stranger::start_as(UID);
    cgroup.add(stranger.child.id());
    let mut host = host(&cgroup, "strict_mode: true\n");
    wait_until_bound(&host, 1);
    stranger.send("breed");
    wait_until("it breeds", SOON, || stranger.has_ended());
    host.kill_agent();
    assert!(cgroup.is_populated());
    std::fs::write(host.folder.join("agent.yaml"), "bind: []\n").unwrap();
    host.start_agent();
    wait_until("all of it is killed", SOON, || host.log().contains("a session of an earlier agent is ended"));
    wait_until("none is left", SOON, || !cgroup.is_populated());
    std::thread::sleep(Duration::from_secs(1));
    assert!(!cgroup.is_populated(), "none was only overlooked");
}

#[test]
fn a_binding_that_names_another_cgroup_by_now_ends_what_is_in_the_old_one_and_holds_the_new() {
    let other = Server::start();
    let (old, new) = (Cgroup::new("old"), Cgroup::new("new"));
    let (mut in_old, mut in_new) = (Stranger::start_as(UID), Stranger::start_as(UID));
    old.add(in_old.child.id());
    new.add(in_new.child.id());
    let mut host = host(&old, "strict_mode: true\n");
    wait_until_bound(&host, 1);
    host.kill_agent();
    std::fs::write(host.folder.join("agent.yaml"), new.binding()).unwrap();
    host.start_agent();
    wait_until_bound(&host, 2);
    assert!(in_old.has_ended());
    assert_eq!(in_new.connect(&other), REFUSED);
}

#[test]
fn a_binding_that_cannot_be_kept_to_keeps_the_agent_from_starting() {
    let host = Host::with_policy("strict_mode: true\n");
    for (text, told) in [
        ("bind: [{unit: a.service, policy: other, user: '7'}]", "no policy is named `other`"),
        ("bind: [{unit: a.service, policy: test, user: root}]", "a bound cgroup can't be root's"),
        ("bind: [{unit: a.service, policy: test, user: no-such-user}]", "no-such-user"),
        ("minimum_tier: lms", "did you mean `lsm`?"),
    ] {
        let file = host.folder.join("other.yaml");
        std::fs::write(&file, text).unwrap();
        let mut agent = host.agent_command();
        let finished = sentinel_tests::Finished::of({
            agent.arg("--config").arg(&file);
            agent
        });
        assert_eq!(finished.status, Some(78), "{text}: {}", finished.stderr);
        assert!(finished.stderr.contains(told), "{text}: {}", finished.stderr);
    }
}
