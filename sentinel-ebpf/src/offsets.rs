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
}
