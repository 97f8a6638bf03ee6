//! Sessions: the cgroup that holds one, and the launch of its command.

pub mod cgroup;
mod child;
pub mod environment;
pub mod hardening;
pub mod launch;
mod pump;
pub mod user;
