//! Where members stand in the running kernel's structures. Rust eBPF has no CO-RE relocations: the agent reads these from the kernel's BTF
//! and sets them before the load. A member that it doesn't find is an error there; zero here would read a wrong member, never allow one.

/// A number that the agent sets before the load.
macro_rules! set_by_agent {
    ($($(#[$doc:meta])* $static:ident, $read:ident, $type:ty;)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            static $static: $type = 0;

            #[inline(always)]
            pub(crate) fn $read() -> $type {
                // SAFETY: the static is valid for reads. Volatile, because the loader changes what the compiler takes for a constant.
                unsafe { core::ptr::read_volatile(&raw const $static) }
            }
        )*
    };
}

set_by_agent! {
    /// `task_struct.group_leader`
    OFFSET_TASK_GROUP_LEADER, task_group_leader, u32;
    /// `task_struct.start_boottime` (nanoseconds)
    OFFSET_TASK_START_BOOTTIME, task_start_boottime, u32;
    /// `task_struct.mm`
    OFFSET_TASK_MM, task_mm, u32;
    /// `mm_struct.exe_file`
    OFFSET_MM_EXE_FILE, mm_exe_file, u32;
    /// `file.f_inode`
    OFFSET_FILE_INODE, file_inode, u32;
    /// `inode.i_ino`
    OFFSET_INODE_INO, inode_ino, u32;
    /// `inode.i_generation`
    OFFSET_INODE_GENERATION, inode_generation, u32;
    /// `inode.i_sb`
    OFFSET_INODE_SB, inode_sb, u32;
    /// `super_block.s_dev`
    OFFSET_SB_DEV, sb_dev, u32;
    /// `filename`'s place (a `__data_loc`) in the record of `sched:sched_process_exec`
    OFFSET_EXEC_FILENAME, exec_filename, u32;
    /// `pid`'s place in the record of `task:task_newtask`
    OFFSET_NEWTASK_PID, newtask_pid, u32;
    /// `clone_flags`' place in the record of `task:task_newtask`
    OFFSET_NEWTASK_CLONE_FLAGS, newtask_clone_flags, u32;
    /// `pid`'s place in the record of `sched:sched_process_free`
    OFFSET_FREE_PID, free_pid, u32;
    /// `sk_buff.head`
    OFFSET_SKB_HEAD, skb_head, u32;
    /// `sk_buff.end`
    OFFSET_SKB_END, skb_end, u32;
    /// `skb_shared_info.flags`
    OFFSET_SHARED_FLAGS, shared_flags, u32;
    // Tier `lsm` alone.
    /// `linux_binprm.file`
    OFFSET_BPRM_FILE, bprm_file, u32;
    /// `linux_binprm.filename`
    OFFSET_BPRM_FILENAME, bprm_filename, u32;
    /// `linux_binprm.interp`
    OFFSET_BPRM_INTERP, bprm_interp, u32;
    /// `linux_binprm.cred`
    OFFSET_BPRM_CRED, bprm_cred, u32;
    /// `task_struct.tgid`
    OFFSET_TASK_TGID, task_tgid, u32;
    /// `task_struct.cred`
    OFFSET_TASK_CRED, task_cred, u32;
    /// `cred.euid`
    OFFSET_CRED_EUID, cred_euid, u32;
    /// `cred.egid`
    OFFSET_CRED_EGID, cred_egid, u32;
    /// `cred.cap_permitted`
    OFFSET_CRED_PERMITTED, cred_permitted, u32;
    /// `file.f_mode`
    OFFSET_FILE_MODE, file_mode, u32;
    /// `file.f_path`
    OFFSET_FILE_PATH, file_path, u32;
    /// `path.dentry`
    OFFSET_PATH_DENTRY, path_dentry, u32;
    /// `dentry.d_parent`
    OFFSET_DENTRY_PARENT, dentry_parent, u32;
    /// `dentry.d_inode`
    OFFSET_DENTRY_INODE, dentry_inode, u32;
    /// `inode.i_mode`
    OFFSET_INODE_MODE, inode_mode, u32;
    /// `inode.i_uid`
    OFFSET_INODE_UID, inode_uid, u32;
    /// `inode.i_gid`
    OFFSET_INODE_GID, inode_gid, u32;
    /// `super_block.s_magic`
    OFFSET_SB_MAGIC, sb_magic, u32;
    /// `vm_area_struct.vm_file`
    OFFSET_VMA_FILE, vma_file, u32;
    /// `socket.sk`
    OFFSET_SOCKET_SK, socket_sk, u32;
    /// `sock_common.skc_family`
    OFFSET_SOCK_FAMILY, sock_family, u32;
    /// `sock_common.skc_daddr`
    OFFSET_SOCK_V4, sock_v4, u32;
    /// `sock_common.skc_v6_daddr`
    OFFSET_SOCK_V6, sock_v6, u32;
    /// `sock_common.skc_dport`
    OFFSET_SOCK_PORT, sock_port, u32;
    /// `sock.sk_protocol`
    OFFSET_SOCK_PROTOCOL, sock_protocol, u32;
    /// `unix_sock.path`
    OFFSET_UNIX_PATH, unix_path, u32;
    /// `unix_sock.addr`
    OFFSET_UNIX_ADDR, unix_addr, u32;
    /// `unix_address.len`
    OFFSET_ADDRESS_LENGTH, address_length, u32;
    /// `unix_address.name`
    OFFSET_ADDRESS_NAME, address_name, u32;
}
