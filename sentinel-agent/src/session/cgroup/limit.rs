//! The most tasks of a session, so that none can take all pids of the host.

use std::fs;
use std::path::Path;

use super::{CgroupError, system};

/// The most processes and threads of one session, where the `pids` controller is there to count them.
const MOST_TASKS: u32 = 4_096;

/// Limits the tasks of `session` where cgroup2 has the `pids` controller; a host that keeps it elsewhere has no limit.
pub(super) fn limit_tasks(parent: &Path, session: &Path) -> Result<(), CgroupError> {
    // The agent's own two folders: `sentinel`, and the instance's below it.
    for folder in
        [parent.parent().filter(|folder| folder.ends_with("sentinel")), Some(parent)].into_iter().flatten()
    {
        let controllers = folder.join("cgroup.controllers");
        let there = fs::read_to_string(&controllers).map_err(system("read", &controllers))?;
        if !there.split_whitespace().any(|controller| controller == "pids") {
            tracing::debug!(cgroup = %folder.display(), "no pids controller in cgroup2: tasks are not limited");
            return Ok(());
        }
        let control = folder.join("cgroup.subtree_control");
        fs::write(&control, "+pids").map_err(system("count tasks by", &control))?;
    }
    let file = session.join("pids.max");
    fs::write(&file, MOST_TASKS.to_string()).map_err(system("limit tasks by", &file))
}
