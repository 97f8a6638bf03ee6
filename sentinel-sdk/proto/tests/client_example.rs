//! `examples/client.py`, the client that `PROTOCOL.md` shows, is one: its own tests, in an interpreter.

use std::path::Path;
use std::process::Command;

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

#[test]
fn the_client_in_python_is_what_the_page_says() {
    let finished = Command::new("python3")
        .current_dir(examples())
        .args(["-B", "-W", "error::ResourceWarning", "-m", "unittest", "test_client"])
        .output()
        .expect("python3 can be started");
    let said = String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.success(), "{}\n{said}", finished.status);
    let ran = said.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(ran.is_some_and(|ran| ran > 0) && !said.contains("skipped="), "{said}");
    assert!(!said.contains("ResourceWarning"), "{said}");
}

#[test]
fn the_client_in_python_is_as_long_as_the_page_says() {
    let lines = std::fs::read_to_string(examples().join("client.py")).unwrap().lines().count();
    assert!(lines <= 150, "{lines}");
    assert!(include_str!("../PROTOCOL.md").contains("is a whole one in 150 lines"));
}
