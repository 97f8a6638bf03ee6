//! Embedded mode with many processes: one ledger, one budget, no agent.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sentinel_tests::{Finished, Running, program, wait_until};
use serde_json::Value;

/// A folder with a policy and a ledger, which goes with it.
struct Home(PathBuf);

impl Home {
    fn with_policy(yaml: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sentinel-embedded-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("policy.yaml"), yaml).unwrap();
        Self(folder)
    }

    /// The probe, deciding for itself.
    fn probe(&self, steps: &[&str]) -> Command {
        let mut command = Command::new(program("probe"));
        command
            .args(steps)
            .current_dir(&self.0)
            .env("AGENT_SENTINEL_MODE", "embedded")
            .env("AGENT_SENTINEL_POLICY", self.0.join("policy.yaml"))
            .env("AGENT_SENTINEL_HOME", self.0.join("home"));
        command
    }

    fn run(&self, steps: &[&str]) -> Finished {
        Finished::of(self.probe(steps))
    }

    fn file(&self) -> PathBuf {
        self.0.join("home/ledger.jsonl")
    }

    fn lines(&self) -> Vec<Value> {
        let parts = sentinel_ledger::segments(&self.file()).unwrap();
        let text: String = parts.iter().map(|part| std::fs::read_to_string(part).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn outcomes(&self, action: &str) -> Vec<String> {
        let lines = self.lines();
        let of_action = lines.iter().filter(|line| line["action"] == action && line["kind"] == "action");
        of_action.map(|line| line["outcome"].as_str().unwrap().to_owned()).collect()
    }

    fn verify(&self) {
        let parts = sentinel_ledger::segments(&self.file()).unwrap();
        sentinel_ledger::verify_parts(&parts, None).unwrap();
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn eight_processes_run_exactly_the_ten_calls_that_the_budget_pays() {
    let home = Home::with_policy("budgets: {session: 1.0}\n");
    let call = ["begin=call,0.1", "end"].repeat(10);
    let steps: Vec<&str> =
        (0..8).flat_map(|_| ["spawn"].into_iter().chain(call.iter().copied()).chain(["done"])).collect();
    let finished = home.run(&steps);
    assert_eq!(finished.stdout.matches("begin=call,0.1 allow").count(), 10, "{}", finished.stdout);
    assert_eq!(finished.stdout.matches("deny BUDGET_EXCEEDED").count(), 70, "{}", finished.stdout);
    home.verify();
}

/// A file system that can't have a board, so that its processes take turns by a lock of the kernel's.
struct Overlay(PathBuf);

impl Overlay {
    fn in_place_of(folder: &std::path::Path) -> Self {
        let below = folder.with_extension("below");
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| below.join(name));
        for made in [folder, &lower, &upper, &work] {
            std::fs::create_dir_all(made).unwrap();
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(folder);
        assert!(mount.status().unwrap().success());
        Self(folder.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

#[test]
fn where_there_can_be_no_board_eight_processes_run_exactly_the_ten_calls_that_the_budget_pays() {
    let home = Home::with_policy("budgets: {session: 1.0}\n");
    let overlay = Overlay::in_place_of(&home.0.join("home"));
    let call = ["begin=call,0.1", "end"].repeat(10);
    let steps: Vec<&str> =
        (0..8).flat_map(|_| ["spawn"].into_iter().chain(call.iter().copied()).chain(["done"])).collect();
    let finished = home.run(&steps);
    assert_eq!(finished.stdout.matches("begin=call,0.1 allow").count(), 10, "{}", finished.stdout);
    assert_eq!(finished.stdout.matches("deny BUDGET_EXCEEDED").count(), 70, "{}", finished.stdout);
    home.verify();
    drop(overlay);
}

#[test]
fn a_busy_process_writes_the_line_after_a_move_into_a_new_file() {
    let home = Home::with_policy("budgets: {session: 1000}\n");
    let go = home.0.join("go").display().to_string();
    let await_go = format!("await={go}");
    let busy = ["begin=call,0.5", "end"].repeat(300);
    let steps: Vec<&str> =
        busy.iter().copied().chain(["say=up", &await_go, "begin=call,0.5", "end", "totals"]).collect();
    let probe = Running::start(home.probe(&steps));
    probe.wait_for_line("up");
    std::fs::rename(home.file(), home.0.join("home/old.jsonl")).unwrap();
    std::fs::write(&go, "").unwrap();
    let totals = "totals session=150.5 run=150.5";
    assert_eq!(probe.finish().lines().last(), Some(&totals), "and goes on with what was spent");
    assert_eq!(home.outcomes("call"), ["started", "success"]);
}

#[test]
fn a_forked_child_is_a_process_of_its_own() {
    let home = Home::with_policy("budgets: {session: 1.0}\n");
    let finished = home.run(&["begin=call,0.5", "fork", "begin=call,0.25", "end", "join", "end", "totals"]);
    assert_eq!(
        finished.lines(),
        ["begin=call,0.5 allow", "begin=call,0.25 allow", "end", "end", "totals session=0.75 run=0.75"],
        "{}",
        finished.stderr
    );
}

#[test]
fn a_budget_outlives_the_processes_that_spent_it() {
    let home = Home::with_policy("budgets: {session: 1.0}\n");
    assert_eq!(home.run(&["begin=call,0.75", "end"]).lines(), ["begin=call,0.75 allow", "end"]);
    assert_eq!(home.run(&["begin=call,0.5"]).lines(), ["begin=call,0.5 deny BUDGET_EXCEEDED"]);
}

#[test]
fn a_session_that_is_no_name_lets_nothing_start() {
    let home = Home::with_policy("budgets: {session: 1.0}\n");
    let in_session = |name: &str| {
        let mut probe = home.probe(&["begin=call", "end"]);
        probe.env("AGENT_SENTINEL_SESSION", name);
        Finished::of(probe).lines()[0].to_owned()
    };
    assert_eq!(in_session("no name"), "begin=call deny INVALID_REQUEST");
    assert_eq!(in_session("a-name"), "begin=call allow");
}

#[test]
fn a_run_is_shared_by_its_processes_and_ends_with_the_last() {
    let home = Home::with_policy("budgets: {run: 1.0}\n");
    let first = Running::start(home.probe(&["begin=call,0.75", "end", "say=up", "sleep=60000"]));
    first.wait_for_line("up");
    assert_eq!(home.run(&["begin=call,0.5"]).lines(), ["begin=call,0.5 deny BUDGET_EXCEEDED"]);
    drop(first);
    assert_eq!(home.run(&["begin=call,0.5", "end", "totals"]).lines()[2], "totals session=1.25 run=0.5");
}

#[test]
fn what_a_killed_process_had_in_flight_is_charged_and_recorded() {
    let home = Home::with_policy("budgets: {session: 1.0}\n");
    let mut dying = Running::start(home.probe(&["begin=call,0.75", "say=up", "sleep=60000"]));
    dying.wait_for_line("up");
    assert_eq!(
        home.run(&["begin=call,0.5"]).lines(),
        ["begin=call,0.5 deny BUDGET_EXCEEDED"],
        "it is reserved"
    );
    assert_eq!(home.outcomes("call"), ["started", "blocked"], "and lives");
    dying.kill();
    assert_eq!(home.run(&["begin=call,0.25", "end"]).lines(), ["begin=call,0.25 allow", "end"]);
    assert_eq!(home.outcomes("call"), ["started", "blocked", "abandoned", "started", "success"]);
    home.verify();
}

#[test]
fn eight_processes_killed_at_any_moment_leave_a_whole_ledger() {
    let home = Home::with_policy("budgets: {session: 1000}\n");
    for round in 0..10_u64 {
        let mut running: Vec<Running> =
            (0..8).map(|_| Running::start(home.probe(&["storm=/nowhere,call,0.01"]))).collect();
        running[0].wait_for_line("started");
        std::thread::sleep(Duration::from_millis(20 + 11 * round));
        running.iter_mut().for_each(Running::kill);
    }
    assert_eq!(home.run(&["begin=call", "end"]).lines(), ["begin=call allow", "end"]);
    home.verify();
    let outcomes = home.outcomes("call");
    let started = outcomes.iter().filter(|outcome| *outcome == "started").count();
    assert!(started > 100, "{started}");
    assert_eq!(outcomes.len(), 2 * started, "each that started ends once");
}

#[test]
fn a_ledger_that_grows_is_rotated_under_all_of_its_writers() {
    let home = Home::with_policy("strict_mode: true\n");
    let stop = home.0.join("stop");
    let storm = format!("storm={},call,0.01", stop.display());
    let running: Vec<Running> = (0..4).map(|_| Running::start(home.probe(&[&storm]))).collect();
    wait_until("a third part", Duration::from_secs(60), || {
        sentinel_ledger::segments(&home.file()).is_ok_and(|parts| parts.len() > 2)
    });
    std::fs::write(stop, "").unwrap();
    let seen: usize = running.into_iter().map(|probe| probe.finish().stdout.lines().count()).sum();
    home.verify();
    assert_eq!(home.outcomes("call").len(), 2 * seen);
}

#[test]
fn after_a_move_a_new_file_goes_on_with_what_was_spent() {
    let home = Home::with_policy("budgets: {session: 1.0}\n");
    let go = home.0.join("go").display().to_string();
    let probe = Running::start(home.probe(&[
        "begin=call,0.75",
        "end",
        "say=up",
        &format!("await={go}"),
        "begin=call,0.5",
    ]));
    probe.wait_for_line("up");
    std::fs::rename(home.file(), home.0.join("home/old.jsonl")).unwrap();
    std::fs::write(&go, "").unwrap();
    assert_eq!(probe.finish().lines().last(), Some(&"begin=call,0.5 deny BUDGET_EXCEEDED"));
    assert_eq!(home.lines()[0]["action"], "state");
}

#[test]
fn after_its_folder_was_removed_a_process_goes_on_in_a_new_one_that_others_share() {
    let home = Home::with_policy("budgets: {session: 1.0}\n");
    let go = home.0.join("go").display().to_string();
    let probe = Running::start(home.probe(&[
        "begin=call,0.75",
        "end",
        "say=up",
        &format!("await={go}"),
        "begin=call,0.75",
        "end",
        "totals",
    ]));
    probe.wait_for_line("up");
    std::fs::remove_dir_all(home.0.join("home")).unwrap();
    // A process looks after its ledger each second.
    std::thread::sleep(Duration::from_millis(1_100));
    std::fs::write(&go, "").unwrap();
    let finished = probe.finish();
    assert_eq!(finished.lines().last(), Some(&"totals session=0.75 run=0.75"), "{}", finished.stderr);
    assert_eq!(home.run(&["begin=call,0.5"]).lines(), ["begin=call,0.5 deny BUDGET_EXCEEDED"]);
    home.verify();
}

#[test]
fn a_ledger_that_was_changed_or_cut_lets_nothing_start() {
    let home = Home::with_policy("strict_mode: true\n");
    let go = home.0.join("go").display().to_string();
    let probe =
        Running::start(home.probe(&["begin=call", "end", "say=up", &format!("await={go}"), "begin=call"]));
    probe.wait_for_line("up");
    let text = std::fs::read_to_string(home.file()).unwrap();
    std::fs::write(home.file(), text.replace("call", "kall")).unwrap();
    assert_eq!(home.run(&["begin=call"]).lines(), ["begin=call deny LEDGER_UNAVAILABLE"]);
    std::fs::write(home.file(), &text[..text.len() / 2]).unwrap();
    std::fs::write(&go, "").unwrap();
    assert_eq!(probe.finish().lines().last(), Some(&"begin=call deny LEDGER_UNAVAILABLE"));
}

#[test]
fn a_home_that_is_none_and_a_policy_that_is_none_let_nothing_start() {
    let home = Home::with_policy("budget: {session: 1}\n");
    assert_eq!(home.run(&["begin=call"]).lines(), ["begin=call deny INVALID_REQUEST"]);
    let mut command = home.probe(&["begin=call"]);
    command.env("AGENT_SENTINEL_POLICY", "/no/such/file.yaml");
    assert_eq!(Finished::of(command).lines(), ["begin=call deny INVALID_REQUEST"]);
    let mut command = home.probe(&["begin=call"]);
    command.env_remove("AGENT_SENTINEL_POLICY").env("AGENT_SENTINEL_HOME", "/dev/null/home");
    assert_eq!(Finished::of(command).lines(), ["begin=call deny LEDGER_UNAVAILABLE"]);
    let mut command = home.probe(&["begin=call", "end"]);
    command.env_remove("AGENT_SENTINEL_POLICY");
    assert_eq!(Finished::of(command).lines(), ["begin=call allow", "end"], "without any it is only recorded");
}
