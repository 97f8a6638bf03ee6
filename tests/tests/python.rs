//! The Python package under `sentinel run`: the document's programs do what it says, children count, and no way around the decorator opens a door.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sentinel_tests::{Finished, Host, INTERPRETER, Python, Running, Server, make_writable, wait_until};

fn tests_of_the_package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sentinel-sdk/python/tests")
}

/// What the interpreter is when it is started by a program: its path in the policy must be that of the file.
fn interpreter() -> String {
    std::fs::canonicalize(INTERPRETER).unwrap().display().to_string()
}

#[test]
fn every_block_of_agentsentinels_document_does_what_it_says() {
    // The platform is a server in the program itself; the shell's block starts other programs.
    let host = Host::with_policy(
        "enforcement:\n  network: {allow: [\"127.0.0.1:*\"], listen: [\"127.0.0.1:*\"]}\n  exec: {allow: [/bin/sh, /usr/bin/mv, /usr/bin/gzip, /usr/bin/date]}\n",
    );
    let python = Python::on(&host);
    for file in [
        "run_document_block.py",
        "_document.py",
        "_document_blocks.py",
        "_document_checks.py",
        "_platform.py",
    ] {
        python.copy(&tests_of_the_package().join(file));
    }
    std::fs::create_dir(python.folder.join("data")).unwrap();
    let document = "data/seed-document.txt";
    std::fs::copy(tests_of_the_package().join(document), python.folder.join(document)).unwrap();
    let runner = python.folder.join("run_document_block.py").display().to_string();

    let mut count = Command::new(INTERPRETER);
    count.arg(&runner).env("PYTHONPATH", &python.folder);
    let count: u32 = Finished::of(count).stdout.trim().parse().unwrap();
    assert!(count > 20, "only {count} blocks are found");
    let mut failed = Vec::new();
    for number in 1..=count {
        let block = python.run(&[&runner, &number.to_string()]);
        if block.status != Some(0) {
            failed.push(format!("{}{}", block.stdout, block.stderr));
        }
    }
    assert!(failed.is_empty(), "{} of {count} fail\n{}", failed.len(), failed.join("\n"));
    // They were decided by the agent: its ledger has them.
    assert_eq!(host.ledger_of("search_tool", "success").len(), 2);
    assert_eq!(host.ledger_of("might_fail", "error").len(), 1);
}

#[test]
fn children_of_every_kind_share_the_sessions_budget_and_the_parent_goes_on() {
    let host = Host::with_policy(format!(
        "budgets: {{session: 1.0}}\nenforcement: {{exec: {{allow: [{}]}}}}\n",
        interpreter()
    ));
    let python = Python::on(&host);
    python.copy(&tests_of_the_package().join("_processes.py"));
    let script = python.folder.join("_processes.py").display().to_string();
    for method in ["os.fork", "fork", "spawn", "forkserver"] {
        let finished = python.run(&[&script, method]);
        assert_eq!(finished.stdout, "10 10 refused\n", "{method}: {}", finished.stderr);
        assert_eq!(finished.status, Some(0), "{method}: {}", finished.stderr);
    }
    assert_eq!(host.ledger_of("paid", "success").len(), 4 * 10);
    assert_eq!(host.ledger_of("paid", "blocked").len(), 4 * 11);
}

#[test]
fn what_a_program_writes_for_itself_where_it_can_not_write_goes_with_it() {
    let host = Host::with_policy("strict_mode: true\n");
    let python = Python::on(&host);
    let temporary = python.work_folder();
    let script = "from agent_sentinel import Ledger, guarded_action\n\
                  guarded_action(name='act')(lambda: print(Ledger.path().is_file()))()\n";
    let mut command = python.command(&["-c", script]);
    // The package's folder, which is root's.
    command.current_dir(&python.folder).env("TMPDIR", &temporary);
    let finished = Finished::of(command);
    assert_eq!(finished.stdout, "True\n", "{}", finished.stderr);
    assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0, "it is removed at the end");
    assert_eq!(host.ledger_of("act", "success").len(), 1, "and the agent's stays");
}

#[test]
fn an_error_that_the_kernel_caused_in_a_body_tells_what_was_refused_and_what_would_allow_it() {
    let host = Host::with_policy("strict_mode: true\n");
    let python = Python::on(&host);
    let script = "import socket\n\
                  from agent_sentinel import guarded_action\n\
                  @guarded_action(name='fetch')\n\
                  def fetch():\n    \
                      socket.create_connection(('127.0.0.1', 9), 1)\n\
                  try:\n    \
                      fetch()\n\
                  except PermissionError as error:\n    \
                      [denial] = error.kernel_denials\n    \
                      print(denial.attempt, denial.would_allow is not None, len(error.__notes__))\n";
    let finished = python.run(&["-c", script]);
    assert_eq!(finished.stdout, "connect to 127.0.0.1:9/tcp True 1\n", "{}", finished.stderr);
    let line = host.ledger_of("fetch", "error").remove(0);
    assert_eq!(line["payload"]["outputs"]["error"], "PermissionError: [Errno 1] Operation not permitted");
    assert_eq!(line["payload"]["outputs"]["kernel_denials"][0]["attempt"], "connect to 127.0.0.1:9/tcp");
}

/// A program that has the tools of `tests/python/tools.py`, with this server.
fn with_tools(python: &Python<'_>, server: &Server, script: &str) -> Command {
    python.copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("python/tools.py"));
    let mut command = python.command(&["-uc", script]);
    command.env("SERVER", server.address().to_string());
    command
}

/// What a program prints, one word for each try, that has its tools under a policy with doors for `fetch`, `paid` and `leak`. `leak` is denied, and
/// `paid` costs more than half of the budget. How many connections the server saw.
fn tried(script: &str, also: impl FnOnce(&Python<'_>)) -> (Vec<String>, u64) {
    let server = Server::start();
    let doors = format!("{{grants: {{network: [\"{}\"]}}}}", server.address());
    let host = Host::with_policy(format!(
        "budgets: {{session: 1.0}}\ndenied_actions: [leak]\nactions: {{fetch: {doors}, paid: {doors}, leak: {doors}}}\nenforcement: {{exec: {{allow: [{}]}}}}\n",
        interpreter()
    ));
    let python = Python::on(&host);
    also(&python);
    let finished = Finished::of(with_tools(&python, &server, script));
    assert_eq!(finished.status, Some(0), "{}{}", finished.stdout, finished.stderr);
    (finished.stdout.lines().map(str::to_owned).collect(), server.accepted())
}

/// The same where nothing else has to be there.
fn printed(script: &str) -> (Vec<String>, u64) {
    tried(script, |_| {})
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What the kernel says to a connect through a door that is shut.
const SHUT: &str = "refused 1";

#[test]
fn the_wrapped_function_finds_its_door_shut() {
    let (told, accepted) = printed(
        "from tools import fetch\nprint(fetch.__wrapped__())\nprint(fetch())\nprint(fetch.__wrapped__())",
    );
    assert_eq!((told, accepted), (words(&[SHUT, "connected", SHUT]), 1));
}

#[test]
fn the_undecorated_function_of_another_module_finds_its_door_shut() {
    let (told, accepted) = printed("from tools import connect, fetch\nprint(connect())\nprint(fetch())");
    assert_eq!((told, accepted), (words(&[SHUT, "connected"]), 1));
}

#[test]
fn a_reset_of_the_programs_policy_opens_nothing() {
    let script = "from agent_sentinel import PolicyEngine\nfrom tools import *\nPolicyEngine.configure(denied_actions=['fetch'])\nprint(told(fetch))\nPolicyEngine.reset()\nprint(told(leak), connect())\nprint(fetch())";
    let (told, accepted) = printed(script);
    let expected = ["DENIED_ACTION", &format!("DENIED_ACTION {SHUT}"), "connected"];
    assert_eq!((told, accepted), (words(&expected), 1));
}

#[test]
fn a_looser_configuration_of_the_program_opens_nothing() {
    let script = "from agent_sentinel import CostTracker, PolicyEngine\nfrom tools import *\nPolicyEngine.configure(session_budget=1000.0, denied_actions=[])\nprint(told(leak), connect())\nprint(paid())\nprint(told(paid), connect())\nCostTracker.reset_run()\nCostTracker.reset_all()\nprint(told(paid), connect())";
    let (told, accepted) = printed(script);
    let over = format!("BUDGET_EXCEEDED {SHUT}");
    assert_eq!((told, accepted), (words(&[&format!("DENIED_ACTION {SHUT}"), "connected", &over, &over]), 1));
}

#[test]
fn a_stricter_configuration_of_the_program_narrows() {
    let script = "from agent_sentinel import PolicyEngine\nfrom tools import *\nPolicyEngine.configure(session_budget=0.5)\nprint(told(paid), connect())\nprint(fetch())";
    let (told, accepted) = printed(script);
    assert_eq!((told, accepted), (words(&[&format!("BUDGET_EXCEEDED {SHUT}"), "connected"]), 1));
}

#[test]
fn a_package_that_is_changed_in_memory_opens_nothing() {
    let script = "import agent_sentinel.guard as guard\nfrom tools import *\nprint(fetch())\nclass Forged:\n  enter = leave = succeed = end = lambda *_: None\nguard._Action.begin = lambda *_: Forged()\nprint(fetch(), leak())";
    let (told, accepted) = printed(script);
    assert_eq!((told, accepted), (words(&["connected", &format!("{SHUT} {SHUT}")]), 1));
}

#[test]
fn a_program_that_forgets_its_agent_decides_for_itself_and_opens_nothing() {
    let script = "import os\nagent = os.environ.pop('AGENT_SENTINEL_SOCKET')\nfrom agent_sentinel._runtime import runtime\nfrom tools import *\nprint(fetch(), leak())\nos.environ['AGENT_SENTINEL_SOCKET'] = agent\nruntime.__init__()\nprint(fetch(), told(leak))";
    let (told, accepted) = printed(script);
    assert_eq!((told, accepted), (words(&[&format!("{SHUT} {SHUT}"), "connected DENIED_ACTION"]), 1));
}

#[test]
fn an_edited_copy_of_the_policy_opens_nothing() {
    let script = r#"
import os
from agent_sentinel import PolicyEngine
from tools import *
open("callguard.yaml", "w").write("denied_actions: []\nenforcement: {network: {allow: ['0.0.0.0/0:*']}}\n")
PolicyEngine.load_from_yaml("callguard.yaml")
print(told(leak), connect())
try:
    open(os.path.join(os.path.dirname(os.environ["PYTHONPATH"]), "policies", "test.yaml"), "a").write("\n")
    print("written")
except OSError:
    print("the operator's is not there")
print(told(leak), connect())
print(fetch())
"#;
    let (told, accepted) = printed(script);
    let shut = format!("DENIED_ACTION {SHUT}");
    let expected = words(&[&shut, "the operator's is not there", &shut, "connected"]);
    assert_eq!((told, accepted), (expected, 1));
}

#[test]
fn edited_files_of_the_package_open_nothing() {
    let script = r#"
import os, subprocess, sys
from tools import *
print(fetch())
package = os.path.join(os.environ["PYTHONPATH"], "agent_sentinel")
with open(os.path.join(package, "guard.py"), "w") as file:
    file.write("def guarded_action(**_):\n    return lambda function: function\n")
for action in ("fetch", "leak"):
    subprocess.run([sys.executable, "-c", f"from tools import *; print({action}())"])
print(told(leak), connect())
print(fetch())
"#;
    let (told, accepted) = tried(script, |python| {
        make_writable(&python.folder.join("agent_sentinel"));
        make_writable(&python.folder.join("agent_sentinel/guard.py"));
    });
    let expected = words(&["connected", SHUT, SHUT, &format!("DENIED_ACTION {SHUT}"), "connected"]);
    assert_eq!((told, accepted), (expected, 2));
}

#[test]
fn a_forged_ledger_of_the_program_gives_no_budget_back() {
    let script = r#"
from agent_sentinel import CostTracker, Ledger
from tools import *
print(paid())
print(told(paid), connect())
text = Ledger.path().read_text()
Ledger.path().write_text(text.replace('"cost_usd":0.6', '"cost_usd":0.0'))
print(told(paid), connect(), CostTracker.get_session_total())
print(fetch())
"#;
    let (told, accepted) = printed(script);
    let over = format!("BUDGET_EXCEEDED {SHUT}");
    assert_eq!((told, accepted), (words(&["connected", &over, &format!("{over} 0.6"), "connected"]), 2));
}

#[test]
fn a_ledger_of_the_program_that_is_gone_opens_nothing() {
    let script = r#"
import shutil
from agent_sentinel import CostTracker, Ledger
from tools import *
print(fetch(), paid())
shutil.rmtree(Ledger.path().parent)
print(told(paid) != "connected", connect(), CostTracker.get_session_total())
"#;
    let (told, accepted) = printed(script);
    assert_eq!((told, accepted), (words(&["connected connected", &format!("True {SHUT} 0.6")]), 2));
}

#[test]
fn a_second_process_does_not_go_through_the_firsts_door() {
    // One child from before the first action, one from within it.
    let script = r#"
import os
from agent_sentinel import guarded_action
from tools import *
go, told = os.pipe(), os.pipe()
if os.fork() == 0:
    os.read(go[0], 1)
    os.write(told[1], connect().encode())
    os._exit(0)

@guarded_action(name="fetch")
def fetch():
    os.write(go[1], b"!")
    print("before it:", os.read(told[0], 100).decode())
    child = os.fork()
    if child == 0:
        print("within it:", connect())
        os._exit(0)
    os.waitpid(child, 0)
    return connect()

print("itself:", fetch())
"#;
    let (told, accepted) = printed(script);
    let expected = words(&[&format!("before it: {SHUT}"), "within it: connected", "itself: connected"]);
    assert_eq!((told, accepted), (expected, 2));
}

#[test]
fn a_door_is_shut_when_the_guarded_call_returns_whatever_kind_of_function_it_is() {
    let script = r#"
import asyncio
from agent_sentinel import guarded_action
from tools import connect

@guarded_action(name="fetch")
async def later(): return connect()

@guarded_action(name="fetch")
def items(): yield connect()

@guarded_action(name="fetch")
async def later_items(): yield connect()

@guarded_action(name="fetch")
def fails(): raise ValueError(connect())

async def main():
    print(await later(), connect())
    print(*[item async for item in later_items()], connect())
    walk = later_items()
    print(await walk.__anext__(), end=" ")
    await walk.aclose()
    print(connect())
    task = asyncio.ensure_future(waits())
    await inside.wait()
    task.cancel()
    try: await task
    except asyncio.CancelledError: print("cancelled", connect())

inside = asyncio.Event()

@guarded_action(name="fetch")
async def waits():
    inside.set()
    await asyncio.sleep(600)

asyncio.run(main())
print(*items(), connect())
try: fails()
except ValueError as error: print(error, connect())
"#;
    let (told, accepted) = printed(script);
    let once = format!("connected {SHUT}");
    let cancelled = format!("cancelled {SHUT}");
    assert_eq!((told, accepted), (words(&[&once, &once, &once, &cancelled, &once, &once]), 5));
}

#[test]
fn an_agent_that_dies_is_told_and_nothing_runs_any_more() {
    let mut host = Host::with_policy("strict_mode: true\n");
    let script = r#"
import sys
from agent_sentinel import guarded_action
from tools import told
act = guarded_action(name="act")(lambda: "ran")
print(told(act), flush=True)
sys.stdin.read()
try: print(act())
except Exception as error: print(type(error).__name__, error)
"#;
    let server = Server::start();
    let running = Running::start(with_tools(&Python::on(&host), &server, script));
    running.wait_for_line("ran");
    host.kill_agent();
    let finished = running.finish();
    let last = finished.lines().last().copied().unwrap_or_default().to_owned();
    assert!(last.starts_with("PolicyViolationError action `act` denied"), "{last} {}", finished.stderr);
    assert!(
        last.contains("sentinel status") && !finished.stderr.contains("panicked"),
        "{last} {}",
        finished.stderr
    );
}

#[test]
fn a_program_outside_of_every_session_is_told_so_and_runs_nothing() {
    let host = Host::with_policy("strict_mode: true\n");
    let script = "from agent_sentinel import guarded_action\ntry: guarded_action(name='act')(lambda: print('ran'))()\nexcept Exception as error: print(type(error).__name__, error)";
    let mut command = Command::new(INTERPRETER);
    command
        .args(["-c", script])
        .env("PYTHONPATH", Python::site())
        .env("AGENT_SENTINEL_SOCKET", host.runtime().join("agent.sock"))
        .env("AGENT_SENTINEL_HOME", host.folder.join("own"));
    let told = Finished::of(command);
    assert!(
        told.stdout.starts_with("PolicyViolationError action `act` denied"),
        "{}{}",
        told.stdout,
        told.stderr
    );
    assert!(told.stdout.contains("session") && told.stdout.contains("`sentinel run`"), "{}", told.stdout);
}

/// A program with a handler that says yes to everything.
fn approving(host: &Host, server: &Server, script: &str) -> Running {
    let beginning = "from agent_sentinel import HumanApprovalHandler, PolicyEngine, guarded_action\nfrom tools import *\nHumanApprovalHandler.set_approval_handler(yes)\n";
    Running::start(with_tools(&Python::on(host), server, &format!("{beginning}{script}")))
}

#[test]
fn the_programs_own_handler_does_not_speak_for_the_operator() {
    let server = Server::start();
    let host = Host::with_policy(format!(
        "approvals: {{actions: [pay], timeout_seconds: 60}}\nactions: {{pay: {{grants: {{network: [\"{}\"]}}}}}}\n",
        server.address()
    ));
    let script = "pay = guarded_action(name='pay', requires_human_approval=True)(connect)\nprint(told(guarded_action(name='pay', wait_for_approval=0)(connect)), connect(), asked)\nprint('waits', flush=True)\nprint(pay(), asked)";
    let running = approving(&host, &server, script);
    running.wait_for_line("waits");
    let pending =
        || host.ledger().into_iter().filter(|line| line["outcome"] == "pending").collect::<Vec<_>>();
    wait_until("a wish of the operator's", Duration::from_secs(20), || !pending().is_empty());
    let approval = pending()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(host.operate(&["approvals", "approve", &approval]).status, Some(0));
    let finished = running.finish();
    assert_eq!(
        finished.lines(),
        [format!("APPROVAL_NEEDED {SHUT} []"), "waits".to_owned(), "connected ['pay']".to_owned()],
        "{}",
        finished.stderr
    );
    assert_eq!(server.accepted(), 1);
}

#[test]
fn the_programs_own_policy_asks_the_programs_own_handler_under_a_host_too() {
    let server = Server::start();
    let host = Host::with_policy("budgets: {session: 1.0}\n");
    let script = "PolicyEngine.configure(require_approval=True, approval_actions=['pay'])\npay = guarded_action(name='pay')(lambda: 'ran')\nprint(pay(), asked)\nHumanApprovalHandler.set_approval_handler(None)\nprint(told(pay))";
    let finished = approving(&host, &server, script).finish();
    assert_eq!(finished.lines(), ["ran ['pay']", "NO_APPROVER"], "{}", finished.stderr);
    assert_eq!(host.ledger_of("pay", "success").len(), 1);
}
