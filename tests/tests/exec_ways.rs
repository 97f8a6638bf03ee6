//! Every way to execute a file: none runs what no rule names, and each runs what one names. The file writes with its first system call, so
//! whatever ran even for a moment is seen.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sentinel_tests::{Host, first_syscall_writer, program};

/// Ways that lead to the file itself.
const WAYS: &[&str] = &["plain", "thread", "leaderless", "execveat", "fexecve", "descriptor", "vfork"];

/// How many bytes came of so many execs under a policy that allows these files.
fn written(allowed: &[&Path], way: &str, path: &Path, times: u32, workers: u32) -> usize {
    let list = allowed.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let host = Host::with_policy(format!("enforcement: {{exec: {{allow: [{list}]}}}}\n"));
    written_on(&host, way, path, times, workers)
}

fn written_on(host: &Host, way: &str, path: &Path, times: u32, workers: u32) -> usize {
    let execer = program("execer").display().to_string();
    let (path, times, workers) = (path.display().to_string(), times.to_string(), workers.to_string());
    let finished = host.run(&[&execer, way, &path, &times, &workers]);
    assert_eq!(finished.status, Some(0), "{way}: {}", finished.stderr);
    finished.stdout.len()
}

/// A folder for files that a session may read.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sentinel-ways-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn writer(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::rename(first_syscall_writer(), &path).unwrap();
        path
    }

    fn script(&self, name: &str, interpreter: &Path) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, format!("#!{}\n", interpreter.display())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn a_forbidden_file_writes_nothing_whichever_way_it_is_executed() {
    let files = Files::new("forbidden");
    let (writer, other) = (files.writer("forbidden"), files.writer("other"));
    let host = Host::with_policy(format!("enforcement: {{exec: {{allow: [{}]}}}}\n", other.display()));
    for way in WAYS {
        assert_eq!(written_on(&host, way, &writer, 20, 2), 0, "{way}");
        assert_eq!(written_on(&host, way, &other, 20, 2), 20, "{way}, allowed");
    }
}

#[test]
fn another_name_of_an_allowed_file_is_that_file_and_a_copy_of_it_is_not() {
    let files = Files::new("names");
    let writer = files.writer("writer");
    let (link, copy) = (files.0.join("link"), files.0.join("copy"));
    std::fs::hard_link(&writer, &link).unwrap();
    std::fs::copy(&writer, &copy).unwrap();
    assert_eq!(written(&[&writer], "plain", &link, 4, 1), 4);
    assert_eq!(written(&[&writer], "plain", &copy, 4, 1), 0);
    assert_eq!(written(&[&copy], "plain", &link, 4, 1), 0, "and a forbidden file's other name is forbidden");
}

#[test]
fn a_file_in_memory_is_no_allowed_file_whatever_is_in_it() {
    let files = Files::new("memory");
    let writer = files.writer("writer");
    assert_eq!(written(&[&writer], "memfd", &writer, 4, 1), 0);
    assert_eq!(written(&[&writer], "plain", &writer, 4, 1), 4);
}

#[test]
fn a_script_needs_its_interpreter_and_where_the_kernel_asks_a_rule_of_its_own() {
    let files = Files::new("script");
    let writer = files.writer("interpreter");
    let script = files.script("script", &writer);
    assert_eq!(written(&[&script.with_file_name("interpreter")], "plain", &writer, 4, 1), 4);
    let other = files.writer("other");
    assert_eq!(written(&[&other], "plain", &script, 4, 1), 0, "without its interpreter");
    let host = Host::with_policy(format!("enforcement: {{exec: {{allow: [{}]}}}}\n", writer.display()));
    let alone = if host.operate(&["status", "--json"]).stdout.contains("\"tier\": \"lsm\"") { 0 } else { 4 };
    assert_eq!(written_on(&host, "plain", &script, 4, 1), alone, "with its interpreter alone");
}

/// 5,000 from 8 workers; all of a hundred thousand in [`a_hundred_thousand_forbidden_execs_from_eight_workers_write_nothing`].
#[test]
fn five_thousand_forbidden_execs_from_eight_workers_write_nothing() {
    storm(5_000, 1_000);
}

/// As many as an emulated machine gets through, for the kernels of `tests/kernels.toml`. With `preempt=full` the kernel may leave `task_newtask` out.
#[test]
fn three_thousand_two_hundred_forbidden_execs_write_nothing_and_as_many_allowed_ones_all() {
    storm(3_200, 3_200);
}

#[test]
fn a_hundred_thousand_forbidden_execs_from_eight_workers_write_nothing() {
    storm(100_000, 10_000);
}

fn storm(forbidden: u32, allowed: u32) {
    let files = Files::new(&format!("storm-{forbidden}"));
    let (writer, other) = (files.writer("forbidden"), files.writer("other"));
    let host = Host::with_policy(format!("enforcement: {{exec: {{allow: [{}]}}}}\n", other.display()));
    assert_eq!(written_on(&host, "plain", &writer, forbidden, 8), 0);
    assert_eq!(written_on(&host, "plain", &other, allowed, 8), usize::try_from(allowed).unwrap());
    let examined = host.operate(&["doctor"]);
    assert!(examined.stdout.contains("left out by the kernel 0 times"), "{}", examined.stdout);
}
