//! What a run may leave behind on the machine: nothing.
//!
//! A snapshot lists what is Sentinel's: cgroups, pins, mounts, BPF programs, processes. Two snapshots that differ are a failure.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::command::output;

/// The kernel frees programs and cgroups a moment after the last reference is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of Sentinel's is on the machine.
#[derive(Debug)]
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks around.
    ///
    /// # Errors
    /// Something can't be listed: an unknown is not a pass.
    pub(crate) fn take(root: &Path) -> anyhow::Result<Self> {
        let mut found = BTreeSet::new();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (Some(place), Some(kind)) = (fields.get(4), line.split(" - ").nth(1)) else { continue };
            if place.contains("sentinel") {
                found.insert(format!("mount {place}"));
            }
            if kind.starts_with("cgroup2 ") || kind.starts_with("bpf ") {
                list_folders(Path::new(place), &mut found);
            }
        }
        for kind in ["prog", "link", "map"] {
            for name in bpf_objects(root, kind)? {
                found.insert(name);
            }
        }
        for entry in std::fs::read_dir("/proc").context("/proc")?.flatten() {
            let Ok(program) = std::fs::read_link(entry.path().join("exe")) else { continue };
            let name =
                program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("sentinel") || name.starts_with("research_agent") {
                found.insert(format!(
                    "process {} ({})",
                    entry.file_name().to_string_lossy(),
                    program.display()
                ));
            }
        }
        Ok(Self(found))
    }

    /// Waits until nothing is there that was not there before.
    ///
    /// # Errors
    /// Names what stays.
    pub(crate) fn compare(&self, root: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::take(root)?;
            let left: Vec<&String> = now.0.difference(&self.0).collect();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let list: Vec<String> = left.iter().map(|thing| format!("  {thing}")).collect();
                bail!("left behind on this machine:\n{}", list.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn list_folders(folder: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.to_string_lossy().contains("sentinel") {
            found.insert(format!("path {}", path.display()));
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list_folders(&path, found);
        }
    }
}

/// Our programs, and whatever holds or belongs to them, as bpftool names them.
fn bpf_objects(root: &Path, kind: &str) -> anyhow::Result<Vec<String>> {
    const PROGRAMS: &[&str] = &[
        "socket_create",
        "connect4",
        "connect6",
        "sendmsg4",
        "sendmsg6",
        "process_exec",
        "task_newtask",
        "process_free",
    ];
    const MAPS: &[&str] = &[
        "SESSIONS",
        "CGROUPS",
        "TASKS",
        "SCOPES",
        "NETWORK",
        "EXEC",
        "HEARTBEAT",
        "SOCKETS",
        "RECORDS",
        "THROTTLE",
        "DROPS",
    ];
    let listing = output(root, bpftool(), &["--json", kind, "show"])?;
    let listing: serde_json::Value = serde_json::from_str(&listing).context("bpftool prints no JSON")?;
    let objects = listing.as_array().with_context(|| format!("bpftool lists no {kind}s: {listing}"))?;
    let ours = objects.iter().filter(|object| {
        let name = object["name"].as_str().unwrap_or_default();
        match kind {
            "prog" => PROGRAMS.contains(&name),
            "map" => MAPS.iter().any(|map| name.starts_with(map)),
            // A link has no name: any new one counts that is of a kind we make.
            _ => matches!(object["type"].as_str(), Some("cgroup" | "perf_event")),
        }
    });
    Ok(ours
        .map(|object| format!("bpf {kind} {} {}", object["id"], object["name"].as_str().unwrap_or_default()))
        .collect())
}

/// Debian keeps it in /usr/sbin, which isn't on every PATH.
fn bpftool() -> &'static str {
    if Path::new("/usr/sbin/bpftool").exists() { "/usr/sbin/bpftool" } else { "bpftool" }
}
