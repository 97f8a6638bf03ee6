//! The kernel's own surface, and code. Refused at tier `lsm`; at tier `kill` it is the launcher's to take away.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;

use sentinel_ebpf_common::record::{
    OPERATION_BPF, OPERATION_MAP, OPERATION_MODULE, OPERATION_MOUNT, OPERATION_NAMESPACE, OPERATION_PERF,
    OPERATION_PRIVILEGE, OPERATION_WRITE,
};

use super::Given::{Bytes, Number};
use super::*;

/// `AT_FDCWD`
pub(super) const HERE: Given = Number(-100_i64 as u64);

/// A process in a session that may nothing, and one outside.
pub(super) fn two(host: &mut Host) -> (Puppet, Puppet) {
    let session = host.session(1, &policy(vec![Grant::default()]));
    (host.command(&session), Puppet::start().unwrap())
}

pub(super) fn c_path(path: &Path) -> Vec<u8> {
    [path.as_os_str().as_bytes(), b"\0"].concat()
}

pub(super) fn open(puppet: &Puppet, path: &Path, flags: i32) -> i32 {
    let arguments = [HERE, Bytes, Number(flags.try_into().unwrap()), Number(0o600)];
    let opened = call_with(puppet, libc::SYS_openat, &arguments, &c_path(path));
    if opened > 0 {
        call(puppet, libc::SYS_close, &[Number(opened.try_into().unwrap())]);
        return 0;
    }
    opened
}

#[test]
fn bpf_and_performance_events_are_refused() {
    const PROG_GET_NEXT_ID: u64 = 11;
    let mut host = Host::new();
    let (inside, outside) = two(&mut host);
    let bpf = |puppet: &Puppet| {
        call_with(puppet, libc::SYS_bpf, &[Number(PROG_GET_NEXT_ID), Bytes, Number(128)], &[0; 128])
    };
    assert_eq!((bpf(&outside), bpf(&inside)), (0, host.refused(0)));
    host.expect_only(OPERATION_BPF, &inside);
    // A software event: the page faults.
    let mut attributes = [0; 128];
    attributes[0] = 1;
    attributes[4] = 128;
    attributes[8] = 2;
    let perf = |puppet: &Puppet| {
        let arguments = [Bytes, Number(0), Number(u64::MAX), Number(u64::MAX), Number(8)];
        call_with(puppet, libc::SYS_perf_event_open, &arguments, &attributes).min(0)
    };
    assert_eq!((perf(&outside), perf(&inside)), (0, host.refused(0)));
    host.expect_only(OPERATION_PERF, &inside);
}

#[test]
fn loading_into_the_kernel_is_refused() {
    let mut host = Host::new();
    let (inside, outside) = two(&mut host);
    // No module, but as large as the header of one.
    let load =
        |puppet: &Puppet| call_with(puppet, libc::SYS_init_module, &[Bytes, Number(200), Bytes], &[0; 200]);
    let told = load(&outside);
    assert!([-libc::ENOEXEC, -libc::ENOSYS].contains(&told), "{told}");
    assert_eq!(load(&inside), host.refused(told));
    host.expect_only(OPERATION_MODULE, &inside);
}

#[test]
fn loading_a_file_into_the_kernel_is_refused() {
    let mut host = Host::new();
    // No module, but a program is read like one.
    let file = File::open(TRUE).unwrap();
    let (inside, outside) = two(&mut host);
    let load = |puppet: &Puppet| {
        let file = Number(file.as_raw_fd().try_into().unwrap());
        call_with(puppet, libc::SYS_finit_module, &[file, Bytes, Number(0)], b"\0")
    };
    let told = load(&outside);
    assert!([-libc::ENOEXEC, -libc::ENOSYS].contains(&told), "{told}");
    assert_eq!(load(&inside), host.refused(told));
    host.expect_only(OPERATION_MODULE, &inside);
}

/// An empty file system of a test's own, whose mounts go to no other namespace.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn on(path: &'a Path) -> Self {
        let flags = rustix::mount::MountFlags::NOEXEC;
        rustix::mount::mount("none", path, "tmpfs", flags, None).unwrap();
        let mounted = Self(path);
        rustix::mount::mount_change(path, rustix::mount::MountPropagationFlags::PRIVATE).unwrap();
        mounted
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // It may be where a test has moved or removed it.
        let _gone = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn mounts_are_refused() {
    let mut host = Host::new();
    let folder = Folder::new("surface-mounts");
    let (inside, outside) = two(&mut host);
    let _mounted = Mounted::on(folder.path());
    let make_private = |puppet: &Puppet| {
        let arguments = [Number(0), Bytes, Number(0), Number(libc::MS_PRIVATE), Number(0)];
        call_with(puppet, libc::SYS_mount, &arguments, &c_path(folder.path()))
    };
    let unmount =
        |puppet: &Puppet| call_with(puppet, libc::SYS_umount2, &[Bytes, Number(2)], &c_path(folder.path()));
    assert_eq!((make_private(&outside), make_private(&inside)), (0, host.refused(0)));
    assert_eq!(unmount(&inside), host.refused(0));
    if host.is_lsm() {
        assert_eq!(unmount(&outside), 0);
    }
    host.expect_only(OPERATION_MOUNT, &inside);
}

#[test]
fn a_mount_is_not_moved() {
    let mut host = Host::new();
    let folder = Folder::new("surface-move");
    let (inside, outside) = two(&mut host);
    let _around = Mounted::on(folder.path());
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&other).unwrap();
    let _moved = Mounted::on(&one);
    let move_mount = |puppet: &Puppet, from: &Path, to: &Path| {
        let (from, to) = (c_path(from), c_path(to));
        let here = Argument::Number(-100);
        let arguments = [here, Argument::Place(&from), here, Argument::Place(&to), Argument::Number(0)];
        puppet.order(Deed::Call(libc::SYS_move_mount, &arguments)).unwrap()
    };
    assert_eq!(move_mount(&outside, &one, &other), 0);
    assert_eq!(move_mount(&inside, &other, &one), host.refused(0));
    host.expect_only(OPERATION_MOUNT, &inside);
}

#[test]
fn the_root_is_not_exchanged() {
    let mut host = Host::new();
    let folder = Folder::new("surface-root");
    let (inside, outside) = two(&mut host);
    // The kernel asks before it sees that it is no mount, and so can't be one's root: nothing is exchanged.
    let path = c_path(folder.path());
    let pivot = |puppet: &Puppet| call_with(puppet, libc::SYS_pivot_root, &[Bytes, Bytes], &path);
    let told = pivot(&outside);
    assert!([-libc::EINVAL, -libc::EBUSY].contains(&told), "{told}");
    assert_eq!(pivot(&inside), host.refused(told));
    host.expect_only(OPERATION_MOUNT, &inside);
}

#[test]
fn other_namespaces_are_refused_by_unshare_and_clone() {
    let mut host = Host::new();
    let (inside, outside) = two(&mut host);
    let new_user = u64::try_from(libc::CLONE_NEWUSER).unwrap();
    let unshare = |puppet: &Puppet| call(puppet, libc::SYS_unshare, &[Number(new_user)]);
    assert_eq!((unshare(&outside), unshare(&inside.fork().unwrap())), (0, host.refused(0)));
    if host.is_lsm() {
        // Where it went through, there would be two of it.
        let flags = u64::try_from(libc::CLONE_NEWUTS | libc::SIGCHLD).unwrap();
        assert_eq!(call(&inside, libc::SYS_clone, &[Number(flags)]), -EPERM);
        assert!(host.records().iter().all(|record| record.operation == OPERATION_NAMESPACE));
    }
    assert!(inside.fork().is_ok(), "an ordinary child is born");
}

#[test]
fn a_program_that_gives_more_rights_is_refused() {
    let mut host = Host::new();
    let folder = Folder::new("surface-setuid");
    let program = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::copy(TRUE, &path).unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (plain, setuid) = (program("plain", 0o755), program("setuid", 0o4755));
    let mut grant = programs(&[&plain, &setuid]);
    grant.exec.iter_mut().for_each(|rule| rule.writable_accepted = true);
    let session = host.session(1, &policy(vec![grant]));
    let (one, two, outside) = (host.command(&session), host.command(&session), Puppet::start().unwrap());
    assert_eq!(execute(&outside, &setuid), RAN);
    assert!(host.comes_through(&one, &plain));
    assert_eq!(!host.is_lsm(), host.comes_through(&two, &setuid));
    host.expect_only(OPERATION_PRIVILEGE, &two);
}

#[test]
fn cgroups_are_read_and_not_written() {
    let mut host = Host::new();
    let (inside, outside) = two(&mut host);
    let folder = host.places.cgroup.clone();
    let file = folder.join("cgroup.procs");
    assert_eq!((open(&outside, &file, libc::O_WRONLY), open(&inside, &file, libc::O_RDONLY)), (0, 0));
    assert_eq!(open(&inside, &file, libc::O_WRONLY), host.refused(0));
    if host.is_lsm() {
        let made = folder.join("child");
        let arguments = [HERE, Bytes, Number(0o755)];
        assert_eq!(call_with(&inside, libc::SYS_mkdirat, &arguments, &c_path(&made)), -EPERM);
        assert!(!made.exists());
    }
    host.expect_only(OPERATION_WRITE, &inside);
}

#[test]
fn code_is_mapped_from_roots_files_and_from_listed_folders_and_from_no_other() {
    const AT: u64 = 0x2000_0000;
    const FIXED: u64 = 0x12;
    let mut host = Host::new();
    let folder = Folder::new("surface-code");
    let library = |name: &str, user: u32| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![0; 4_096]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&path, Some(user), None).unwrap();
        File::open(&path).unwrap()
    };
    let (roots, users) = (library("roots.so", 0), library("users.so", USER));
    let listed = library("venv/lib/deep/users.so", USER);
    let mut rules = policy(vec![Grant::default()]);
    rules.exec_libraries = vec![folder.path().join("venv")];
    let session = host.session(1, &rules);
    let (inside, outside) = (host.command(&session), Puppet::start().unwrap());
    let mapped = |puppet: &Puppet, file: &File, rights: u64| {
        let file = Number(file.as_raw_fd().try_into().unwrap());
        let arguments = [Number(AT), Number(4_096), Number(rights), Number(FIXED), file, Number(0)];
        call(puppet, libc::SYS_mmap, &arguments).min(0)
    };
    let made_code =
        |puppet: &Puppet| call(puppet, libc::SYS_mprotect, &[Number(AT), Number(4_096), Number(5)]);
    let all = |puppet: &Puppet| [&roots, &users, &listed].map(|file| mapped(puppet, file, 5));
    assert_eq!(all(&outside), [0; 3]);
    assert_eq!(all(&inside), [0, host.refused(0), 0]);
    assert_eq!((mapped(&inside, &users, 1), made_code(&inside)), (0, host.refused(0)));
    assert_eq!((mapped(&inside, &roots, 1), made_code(&inside)), (0, 0));
    host.expect_only(OPERATION_MAP, &inside);
}
