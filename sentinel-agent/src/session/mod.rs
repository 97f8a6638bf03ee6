//! Sessions: the cgroup that holds one, and the launch of its command.

pub mod cgroup;
