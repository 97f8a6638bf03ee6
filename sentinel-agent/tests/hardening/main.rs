//! What each step of the hardening holds, tried from inside.
//!
//! Every row of [`rows`] runs three times: outside, where the thing can be done (else the row would prove nothing);
//! confined, where it can't; and confined without the one step that the row is about, where it can again. So a step
//! that does nothing fails here, and one that another covers too is told apart.
//!
//! A process that confines itself must have a single thread, which a test harness hasn't: each run is this program
//! again, as `hold` and then as `probe`.

mod probes;
mod scene;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use probes::{COULD, COULD_NOT};
use scene::Scene;
use sentinel_agent::session::hardening::{STEPS, Step, VERIFICATION};

/// One thing that a session can't do.
struct Row {
    name: &'static str,
    probe: &'static str,
    argument: String,
    /// The step that holds it.
    step: &'static str,
    /// Whether it can be done without that step; false where another step holds it as well.
    alone: bool,
    /// What the attempt comes to: [`COULD_NOT`], or [`KILLED`].
    refused: u8,
}

/// The exit status of a process that a seccomp filter has killed.
const KILLED: u8 = 128 + 31;

fn row(name: &'static str, probe: &'static str, argument: impl Into<String>, step: &'static str) -> Row {
    Row { name, probe, argument: argument.into(), step, alone: true, refused: COULD_NOT }
}

impl Row {
    /// Held by more than the one step.
    fn doubly(self) -> Self {
        Self { alone: false, ..self }
    }

    fn by_killing(self) -> Self {
        Self { refused: KILLED, ..self }
    }
}

fn rows(scene: &Scene) -> Vec<Row> {
    let call = |number: i64, rest: &str| format!("{number}{rest}");
    let victim = scene.victim();
    let [low, high] = scene.inherited();
    vec![
        row("it_leads_a_session_of_its_own", "leads-no-session", "", "own-session"),
        row("a_socket_as_standard_input_is_replaced", "socket-as-input", "", "standard-streams"),
        row("an_inherited_descriptor_is_closed", "descriptor", high, "descriptors"),
        row("an_inherited_descriptor_below_the_launchers_own_is_closed", "descriptor", low, "descriptors"),
        row("a_delegated_cgroup_can_not_be_joined", "write", scene.cgroup_procs(), "cgroup-folders"),
        row("a_bpffs_is_covered", "list", scene.bpffs(), "kernel-folders"),
        row("kernel_settings_are_read_only", "writable-mount", "/proc/sys", "kernel-settings"),
        row("a_socket_in_run_is_not_there", "connect", scene.run_socket(), "run-folder"),
        row("run_itself_is_empty", "list", scene.run_folder(), "run-folder"),
        row("the_agents_state_is_hidden", "list", scene.state(), "agent-folders"),
        row("a_socket_elsewhere_refuses", "connect", scene.docker_socket(), "unix-sockets"),
        row("the_old_run_is_not_the_working_folder", "relative", "postbox", "working-folder"),
        row("it_is_not_root", "root", "", "user"),
        row("it_is_in_no_group_of_the_launchers", "other-group", "", "user"),
        row("no_capability_is_permitted", "capability", "CapPrm", "capabilities").doubly(),
        row("no_capability_is_in_bounds", "capability", "CapBnd", "capability-bounds"),
        row("an_exec_gives_no_rights", "regain-capability", "", "no-new-privileges").doubly(),
        row("it_dies_with_its_launcher", "outlives-launcher", "", "dies-with-launcher"),
        row(
            "an_abstract_socket_outside_is_out_of_reach",
            "connect-abstract",
            scene.abstract_name(),
            "landlock",
        ),
        row("a_process_outside_gets_no_signal", "signal", victim.clone(), "landlock"),
        row("the_memory_of_a_process_outside_is_closed", "write", format!("/proc/{victim}/mem"), "landlock"),
        row("the_root_of_a_process_outside_is_closed", "list", format!("/proc/{victim}/root/"), "landlock"),
        row("a_process_outside_can_not_be_traced", "ptrace", victim.clone(), "seccomp-calls").doubly(),
        row("a_descriptor_can_not_be_stolen", "steal-descriptor", victim, "seccomp-calls").doubly(),
        row("x32_calls_end_the_process", "x32", "", "seccomp-abi").by_killing(),
        row("i386_calls_end_the_process", "i386", "", "seccomp-calls").by_killing().doubly(),
        row("bpf_is_refused", "call", call(libc::SYS_bpf, ",9999"), "seccomp-calls"),
        row("io_uring_is_refused", "call", call(libc::SYS_io_uring_setup, ",1"), "seccomp-calls"),
        row("unshare_of_nothing_is_refused", "call", call(libc::SYS_unshare, ",0"), "seccomp-calls"),
        row(
            "a_user_namespace_is_refused",
            "call",
            format!("{},{}", libc::SYS_clone, libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_FS),
            "seccomp-calls",
        ),
        row("a_key_is_refused", "add-key", "", "seccomp-calls"),
        row("userfaultfd_is_refused", "call", call(libc::SYS_userfaultfd, ",1"), "seccomp-calls"),
        row(
            "typing_into_a_terminal_is_refused",
            "call",
            format!("{},0,{}", libc::SYS_ioctl, libc::TIOCSTI),
            "seccomp-calls",
        ),
        row("a_new_mount_is_refused", "call", call(libc::SYS_fsopen, ",0"), "seccomp-calls").doubly(),
        row("clone3_is_not_there", "clone3", "", "seccomp-clone3"),
        row("packet_sockets_are_refused", "socket", "17,3,768", "seccomp-sockets").doubly(),
        row("kernel_crypto_sockets_are_refused", "socket", "38,5,0", "seccomp-sockets"),
        row("the_kernels_audit_is_refused", "socket", "16,3,9", "seccomp-sockets"),
        row("the_list_of_sockets_is_refused", "socket", "16,3,4", "seccomp-sockets"),
        row("virtual_machine_sockets_are_refused", "socket", "40,1,0", "seccomp-sockets"),
    ]
}

/// What a session still can, though the steps come close to it.
fn open(scene: &Scene) -> Vec<Row> {
    vec![
        row("the_agents_socket_is_reached", "connect", "/run/agent-sentinel/agent.sock", ""),
        row("nothing_but_the_agents_socket_and_what_is_allowed_is_in_run", "only-the-socket-in-run", "", ""),
        row("a_socket_that_the_policy_names_is_reached", "connect", scene.allowed_socket(), ""),
        row("threads_work", "thread", "", ""),
        row("internet_sockets_are_made", "socket", "2,1,0", ""),
        row("unix_sockets_are_made", "socket", "1,1,0", ""),
        row("routes_can_be_asked_for", "socket", "16,3,0", ""),
        row("a_pair_of_unix_sockets_is_made", "socketpair", "1", ""),
        row("its_own_files_are_read", "read", "/proc/self/status", ""),
        row("its_own_memory_is_written", "write", "/proc/self/mem", ""),
        row("kernel_settings_are_read", "read", "/proc/sys/kernel/ostype", ""),
    ]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["probe", name, argument] => return ExitCode::from(probes::probe(name, argument)),
        ["hold", without, name, argument] => {
            return ExitCode::from(scene::hold(&steps(without), name, argument));
        }
        _ => {}
    }
    let options = Arguments::from_args();
    let scene: &'static Scene = Box::leak(Box::new(Scene::new()));
    let mut trials = Vec::new();
    for row in rows(scene) {
        assert!(STEPS.iter().any(|step| step.name == row.step), "no step is called `{}`", row.step);
        trials.push(Trial::test(row.name, move || held(scene, &row)));
    }
    for row in open(scene) {
        trials.push(Trial::test(row.name, move || status(scene, "", &row).is(COULD, "confined")));
    }
    let conclusion = libtest_mimic::run(&options, trials);
    scene.clear();
    conclusion.exit_code()
}

/// All steps but the one; without it, what verifies it is left out too.
fn steps(without: &str) -> Vec<Step> {
    let left_out = |name: &str| !without.is_empty() && (name == without || name == VERIFICATION);
    STEPS.iter().filter(|step| !left_out(step.name)).copied().collect()
}

fn held(scene: &Scene, row: &Row) -> Result<(), Failed> {
    let outside = scene.run(&["probe", row.probe, &row.argument]);
    let confined = status(scene, "", row);
    if outside.is_no_such_family() || outside.is_no_such_abi() {
        // This kernel was built without it: all that can be seen is that a session hasn't got it either.
        return confined.is(row.refused, "confined");
    }
    outside.is(COULD, "outside")?;
    confined.is(row.refused, "confined")?;
    let expected = if row.alone { COULD } else { row.refused };
    status(scene, row.step, row).is(expected, &format!("without `{}`", row.step))
}

fn status(scene: &Scene, without: &str, row: &Row) -> Status {
    scene.run(&["hold", without, row.probe, &row.argument])
}

/// How a probe ended.
#[derive(Debug)]
pub(crate) struct Status {
    code: Option<i32>,
    signal: Option<i32>,
    said: String,
}

impl Status {
    /// An i386 call is a fault there, which ends the process.
    fn is_no_such_abi(&self) -> bool {
        self.signal == Some(libc::SIGSEGV)
    }

    fn is_no_such_family(&self) -> bool {
        self.code == Some(COULD_NOT.into())
            && self.said.starts_with("socket: ")
            && self.said.ends_with(&format!("(os error {})\n", libc::EAFNOSUPPORT))
    }

    fn is(&self, wanted: u8, where_: &str) -> Result<(), Failed> {
        if self.code == Some(wanted.into()) {
            return Ok(());
        }
        let wanted = match wanted {
            COULD => "that it could",
            KILLED => "that it was killed",
            _ => "that it could not",
        };
        Err(format!("{where_}: expected {wanted}, found {:?}: {}", self.code, self.said).into())
    }
}
