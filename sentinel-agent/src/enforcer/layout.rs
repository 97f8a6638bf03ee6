//! Which members of the kernel's structures the hooks read, and by which global each is told them.

use aya::EbpfLoader;

use super::EnforcerError;
use super::btf::{Btf, BtfError};

/// A global of the object, and the structure and member whose offset it holds.
const MEMBERS: &[(&str, &str, &str)] = &[
    ("OFFSET_TASK_GROUP_LEADER", "task_struct", "group_leader"),
    ("OFFSET_TASK_START_BOOTTIME", "task_struct", "start_boottime"),
    ("OFFSET_TASK_MM", "task_struct", "mm"),
    ("OFFSET_MM_EXE_FILE", "mm_struct", "exe_file"),
    ("OFFSET_FILE_INODE", "file", "f_inode"),
    ("OFFSET_INODE_INO", "inode", "i_ino"),
    ("OFFSET_INODE_GENERATION", "inode", "i_generation"),
    ("OFFSET_INODE_SB", "inode", "i_sb"),
    ("OFFSET_SB_DEV", "super_block", "s_dev"),
    ("OFFSET_EXEC_FILENAME", "trace_event_raw_sched_process_exec", "__data_loc_filename"),
    ("OFFSET_NEWTASK_PID", "trace_event_raw_task_newtask", "pid"),
    ("OFFSET_NEWTASK_CLONE_FLAGS", "trace_event_raw_task_newtask", "clone_flags"),
    ("OFFSET_FREE_PID", "trace_event_raw_sched_process_template", "pid"),
];

/// What the hooks are told before they are loaded.
#[derive(Debug)]
pub(super) struct Layout {
    offsets: Vec<(&'static str, u32)>,
}

impl Layout {
    /// Of the running kernel.
    pub(super) fn of_kernel() -> Result<Self, EnforcerError> {
        let offsets = Btf::of_kernel().and_then(|btf| {
            MEMBERS
                .iter()
                .map(|(global, structure, member)| Ok((*global, btf.offset(structure, member)?)))
                .collect()
        });
        let offsets = offsets.map_err(|cause: BtfError| EnforcerError::Unavailable {
            what: "cannot learn the kernel's layout".to_owned(),
            cause: cause.to_string(),
            way_out: "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build them".to_owned(),
        })?;
        Ok(Self { offsets })
    }

    /// Tells a loader. A global that the object lacks fails the load.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (global, offset) in &self.offsets {
            loader.override_global(global, offset, true);
        }
    }
}
