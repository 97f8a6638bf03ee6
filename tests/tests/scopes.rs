//! Who shares an action's doors: the process that began it and what it forks from then on; nobody else.

use sentinel_tests::{Host, Server};

fn host(server: &Server) -> Host {
    Host::with_policy(format!("actions:\n  fetch: {{grants: {{network: [\"{}\"]}}}}\n", server.address()))
}

#[test]
fn a_child_and_a_grandchild_of_its_own_session_are_held() {
    let server = Server::start();
    let connect = format!("connect={}", server.address());
    let probe = host(&server).probe(&["fork", &connect, "join", "setsid", &connect, "join"]);
    assert_eq!(probe.lines(), [format!("{connect} EPERM"), format!("{connect} EPERM")], "{}", probe.stderr);
}

#[test]
fn a_child_forked_inside_an_action_shares_its_door() {
    let server = Server::start();
    let connect = format!("connect={}", server.address());
    let probe =
        host(&server).probe(&["begin=fetch", "fork", &connect, "join", "setsid", &connect, "join", "end"]);
    let ok = format!("{connect} ok");
    assert_eq!(probe.lines(), ["begin=fetch allow", &ok, &ok, "end"], "{}", probe.stderr);
}

#[test]
fn a_thread_shares_the_doors_of_its_process() {
    let server = Server::start();
    let connect = format!("connect={}", server.address());
    let probe = host(&server).probe(&["begin=fetch", "thread", &connect, "join", "end"]);
    assert_eq!(probe.lines(), ["begin=fetch allow", &format!("{connect} ok"), "end"], "{}", probe.stderr);
}

#[test]
fn a_sibling_does_not_share_an_actions_door() {
    let server = Server::start();
    let connect = format!("connect={}", server.address());
    let host = host(&server);
    let folder = shared_folder("sibling");
    let (open, tried) =
        (folder.join("open").display().to_string(), folder.join("tried").display().to_string());
    let probe = host.probe(&[
        "spawn",
        &format!("await={open}"),
        &connect,
        &format!("touch={tried}"),
        "done",
        "begin=fetch",
        &format!("touch={open}"),
        &format!("await={tried}"),
        &connect,
        "end",
    ]);
    let lines = probe.lines();
    let of_connect: Vec<&&str> = lines.iter().filter(|line| line.starts_with(&connect)).collect();
    assert_eq!(
        of_connect,
        [&format!("{connect} EPERM"), &format!("{connect} ok")],
        "{lines:?} {}",
        probe.stderr
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_childs_own_action_does_not_open_its_parents_door() {
    let server = Server::start();
    let connect = format!("connect={}", server.address());
    let folder = shared_folder("parent");
    let (open, tried) =
        (folder.join("open").display().to_string(), folder.join("tried").display().to_string());
    let probe = host(&server).probe(&[
        "spawn",
        "begin=fetch",
        &connect,
        &format!("touch={open}"),
        &format!("await={tried}"),
        "end",
        "done",
        &format!("await={open}"),
        &connect,
        &format!("touch={tried}"),
    ]);
    let lines = probe.lines();
    let of_connect: Vec<&&str> = lines.iter().filter(|line| line.starts_with(&connect)).collect();
    assert_eq!(
        of_connect,
        [&format!("{connect} ok"), &format!("{connect} EPERM")],
        "{lines:?} {}",
        probe.stderr
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_process_outside_is_not_held() {
    let server = Server::start();
    let host = host(&server);
    let connect = format!("connect={}", server.address());
    let inside = host.start_probe(&[&connect, "say=tried", "sleep=300"]);
    inside.wait_for_line("tried");
    drop(std::net::TcpStream::connect(server.address()).expect("outside all is as ever"));
    assert!(std::process::Command::new("/bin/true").status().unwrap().success());
    assert!(inside.finish().stdout.contains("EPERM"));
}

/// A folder that any uid can write, for the files by which processes wait for each other.
fn shared_folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("sentinel-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    folder
}
