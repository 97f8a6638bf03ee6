//! The host agent (`sentinel-agent`) and the operator's command line (`sentinel`).
//!
//! The agent is one loop, the driver, around the `Authority` and the [`Enforcer`](enforcer::Enforcer); everything else
//! brings it events or carries out its replies. The two binaries are thin.

pub mod cli;
pub mod clock;
pub mod connection;
pub mod daemon;
pub mod denials;
pub mod driver;
pub mod enforcer;
pub mod ids;
pub mod intake;
pub mod peer;
pub mod resolver;
pub mod server;
pub mod session;
pub mod watch;
