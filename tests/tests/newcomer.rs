//! A newcomer's way to a policy: begin with almost none, run, and add what `sentinel run` prints, until the program works. The
//! programs are Python's as people have them: a virtual environment with numpy, requests and a subprocess.

use std::path::{Path, PathBuf};
use std::process::Command;

use sentinel_tests::{Finished, PAGE, Server, program};

/// More than it takes, and as many as anybody has patience for.
const MOST_ROUNDS: usize = 8;
const INTERPRETER: &str = "/usr/bin/python3";
/// Whom a session's user owns its environment as.
const NOBODY: &str = "nobody";

/// A folder with an environment, the program and a policy, which any user can read.
struct Scene {
    folder: PathBuf,
    options: Vec<&'static str>,
}

impl Scene {
    /// As Debian's interpreter makes it by itself: links to the system's own.
    fn with_linked_interpreter() -> Self {
        Self::new("linked", &[], &[])
    }

    /// As uv and pyenv do for a user: an interpreter that is the user's, as all else there.
    fn with_own_interpreter() -> Self {
        let scene = Self::new("own", &["--copies"], &["--user", NOBODY]);
        run("chown", &["--recursive".as_ref(), NOBODY.as_ref(), scene.folder.join("venv").as_os_str()]);
        scene
    }

    fn new(name: &str, venv: &[&str], options: &[&'static str]) -> Self {
        let folder = std::env::temp_dir().join(format!("sentinel-newcomer-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let scene = Self { folder, options: options.to_vec() };
        let mut make = Command::new(INTERPRETER);
        make.args(["-m", "venv", "--without-pip"]).args(venv).arg(scene.folder.join("venv"));
        let made = Finished::of(make);
        assert_eq!(made.status, Some(0), "{}{}", made.stdout, made.stderr);
        let lib = scene.folder.join("venv/lib");
        let version = std::fs::read_dir(&lib).unwrap().next().unwrap().unwrap().path();
        for variable in ["SENTINEL_PYTHON_SITE", "SENTINEL_PYTHON_PACKAGES"] {
            let from = std::env::var_os(variable)
                .unwrap_or_else(|| panic!("`cargo xtask test` builds what {variable} names"));
            // What root's umask made may be root's alone to read.
            run("cp", &["--recursive".as_ref(), &from_all(&from), version.join("site-packages").as_os_str()]);
        }
        run("chmod", &["--recursive".as_ref(), "a+rX".as_ref(), lib.as_os_str()]);
        let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("newcomer/agent.py");
        std::fs::copy(agent, scene.folder.join("agent.py")).unwrap();
        scene.write_policy("budgets: {session: 1.0}\n");
        scene
    }

    fn write_policy(&self, text: &str) {
        std::fs::write(self.folder.join("policy.yaml"), text).unwrap();
    }

    fn policy(&self) -> String {
        std::fs::read_to_string(self.folder.join("policy.yaml")).unwrap()
    }

    /// `sentinel run` of the program, with an agent of its own.
    fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("sentinel"));
        command.current_dir(&self.folder).args(["run", "--policy", "./policy.yaml", "--state"]);
        command.arg(self.folder.join("state")).args(&self.options).arg("--");
        command.arg(self.folder.join("venv/bin/python3")).arg("agent.py").args(arguments);
        for variable in ["SUDO_UID", "SUDO_GID", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(variable);
        }
        Finished::of(command)
    }

    /// Runs it and adds what is printed, again and again until it works: what it printed then, and all lines that were told.
    fn find_policy(&self, arguments: &[&str]) -> (String, Vec<String>) {
        let mut told = Vec::new();
        for round in 1..=MOST_ROUNDS {
            let finished = self.run(arguments);
            if finished.status == Some(0) {
                assert!(round > 1, "it needs more than that policy, so the test can fail");
                return (finished.stdout, told);
            }
            let before = self.policy();
            let mut policy: Vec<String> = before.lines().map(str::to_owned).collect();
            for lines in suggestions(&finished.stderr) {
                add(&mut policy, &lines);
                told.extend(lines);
            }
            let after = policy.join("\n") + "\n";
            assert_ne!(
                after, before,
                "round {round} told nothing new: {}\n{}",
                finished.stderr, finished.stdout
            );
            self.write_policy(&after);
        }
        panic!("it doesn't work after {MOST_ROUNDS} rounds under\n{}", self.policy());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// All that is in a folder.
fn from_all(folder: &std::ffi::OsStr) -> std::ffi::OsString {
    Path::new(folder).join(".").into_os_string()
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let mut command = Command::new(program);
    command.args(arguments);
    let finished = Finished::of(command);
    assert_eq!(finished.status, Some(0), "{program} {arguments:?}: {}", finished.stderr);
}

/// The policy text of each denial that was printed.
fn suggestions(stderr: &str) -> Vec<Vec<String>> {
    let mut suggestions = Vec::new();
    let mut lines = stderr.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("sentinel:   the policy would allow it with these lines") {
            let text = lines.by_ref().map_while(|line| line.strip_prefix("sentinel:     "));
            suggestions.push(text.map(str::to_owned).collect());
        }
    }
    suggestions
}

/// Adds lines to a policy as people do: a key that is there is not repeated.
fn add(policy: &mut Vec<String>, lines: &[String]) {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (mut begin, mut end) = (0, policy.len());
    for (index, line) in lines.iter().enumerate() {
        let Some(found) = (begin..end).find(|at| policy[*at] == *line) else {
            policy.splice(end..end, lines[index..].iter().cloned());
            return;
        };
        begin = found + 1;
        end = (begin..end).find(|at| indent(&policy[*at]) <= indent(line)).unwrap_or(end);
    }
}

/// The lines without the comments behind them.
fn without_notes(policy: &str) -> Vec<&str> {
    policy.lines().map(|line| line.split("  # ").next().unwrap_or(line)).collect()
}

/// Finds the policy of a scene, whose interpreter a rule names so, and checks that it is right.
fn check(scene: &Scene, interpreter: &str) {
    let server = Server::start();
    let url = format!("http://{}/", server.address());
    let (output, told) = scene.find_policy(&[&url]);
    assert_eq!(
        output,
        format!("product [[19, 22], [43, 50]]\npage {}\nhost Linux\nsnippet 42\n", PAGE.trim())
    );
    let policy = scene.policy();
    assert!(policy.lines().skip(1).all(|line| told.iter().any(|told| told == line)), "{policy}");
    let address = format!("        - \"{}\"", server.address());
    let interpreter = format!("        - {interpreter}");
    assert_eq!(
        without_notes(&policy),
        [
            "budgets: {session: 1.0}",
            "actions:",
            "  fetch_page:",
            "    grants:",
            "      network:",
            &address,
            "  ask_host:",
            "    grants:",
            "      exec:",
            "        - /usr/bin/uname",
            "  run_snippet:",
            "    grants:",
            "      exec:",
            &interpreter,
        ],
        "each door is its action's alone"
    );
    assert!(policy.contains("an interpreter: this allows all that it can be given to run"), "{policy}");

    let fetched = server.accepted();
    let outside = scene.run(&[&url, "outside"]);
    assert!(
        outside.status == Some(1) && outside.stderr.contains("Operation not permitted"),
        "{}",
        outside.stderr
    );
    assert!(outside.stdout.starts_with("product") && !outside.stdout.contains("page"), "{}", outside.stdout);
    assert!(
        outside.stderr.contains("it opens while an action runs here: `fetch_page`"),
        "{}",
        outside.stderr
    );
    assert_eq!(server.accepted(), fetched, "nothing reached the server");
}

#[test]
fn what_denials_tell_becomes_the_policy_of_a_virtual_environment() {
    let scene = Scene::with_linked_interpreter();
    check(&scene, &scene.folder.join("venv/bin/python3").display().to_string());
}

#[test]
fn what_denials_tell_becomes_the_policy_of_an_environment_that_its_own_user_can_change() {
    let scene = Scene::with_own_interpreter();
    let path = scene.folder.join("venv/bin/python3");
    check(&scene, &format!("{{path: {}, writable: accept}}", path.display()));
    assert!(scene.policy().contains("# the program's own user could put another file there"));
}
