//! Which members of the kernel's structures the hooks read, and by which global each is told them.

use aya::EbpfLoader;

use super::btf::{Btf, BtfError};
use super::{EnforcerError, Tier};

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
    ("OFFSET_SKB_HEAD", "sk_buff", "head"),
    ("OFFSET_SKB_END", "sk_buff", "end"),
    ("OFFSET_SHARED_FLAGS", "skb_shared_info", "flags"),
];

/// Those that the hooks of tier `lsm` read besides.
const MEMBERS_LSM: &[(&str, &str, &str)] = &[
    ("OFFSET_BPRM_FILE", "linux_binprm", "file"),
    ("OFFSET_BPRM_FILENAME", "linux_binprm", "filename"),
    ("OFFSET_BPRM_INTERP", "linux_binprm", "interp"),
    ("OFFSET_BPRM_CRED", "linux_binprm", "cred"),
    ("OFFSET_TASK_TGID", "task_struct", "tgid"),
    ("OFFSET_TASK_CRED", "task_struct", "cred"),
    ("OFFSET_CRED_EUID", "cred", "euid"),
    ("OFFSET_CRED_EGID", "cred", "egid"),
    ("OFFSET_CRED_PERMITTED", "cred", "cap_permitted"),
    ("OFFSET_FILE_MODE", "file", "f_mode"),
    ("OFFSET_FILE_PATH", "file", "f_path"),
    ("OFFSET_PATH_DENTRY", "path", "dentry"),
    ("OFFSET_DENTRY_PARENT", "dentry", "d_parent"),
    ("OFFSET_DENTRY_INODE", "dentry", "d_inode"),
    ("OFFSET_INODE_MODE", "inode", "i_mode"),
    ("OFFSET_INODE_UID", "inode", "i_uid"),
    ("OFFSET_INODE_GID", "inode", "i_gid"),
    ("OFFSET_SB_MAGIC", "super_block", "s_magic"),
    ("OFFSET_VMA_FILE", "vm_area_struct", "vm_file"),
    ("OFFSET_SOCKET_SK", "socket", "sk"),
    ("OFFSET_SOCK_FAMILY", "sock_common", "skc_family"),
    ("OFFSET_SOCK_V4", "sock_common", "skc_daddr"),
    ("OFFSET_SOCK_V6", "sock_common", "skc_v6_daddr"),
    ("OFFSET_SOCK_PORT", "sock_common", "skc_dport"),
    ("OFFSET_SOCK_PROTOCOL", "sock", "sk_protocol"),
    ("OFFSET_UNIX_PATH", "unix_sock", "path"),
    ("OFFSET_UNIX_ADDR", "unix_sock", "addr"),
    ("OFFSET_ADDRESS_LENGTH", "unix_address", "len"),
    ("OFFSET_ADDRESS_NAME", "unix_address", "name"),
];

/// What the hooks are told before they are loaded.
#[derive(Debug)]
pub(super) struct Layout {
    offsets: Vec<(&'static str, u32)>,
}

impl Layout {
    /// Of the running kernel, for this tier's hooks.
    pub(super) fn of_kernel(tier: Tier) -> Result<Self, EnforcerError> {
        let of_lsm = if tier == Tier::Lsm { MEMBERS_LSM } else { &[] };
        let offsets = Btf::of_kernel().and_then(|btf| {
            MEMBERS
                .iter()
                .chain(of_lsm)
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
