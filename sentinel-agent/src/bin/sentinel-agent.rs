//! `sentinel-agent`: the host agent.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sentinel_agent::daemon::{self, Dead, Options};
use sentinel_agent::enforcer::Tier;

/// Decides what autonomous agents may do, and has the kernel hold them to it.
///
/// Exit status: 69 if this host can't enforce, 78 if a policy is invalid, 71 for any other failure.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The folder of the policies: NAME.yaml is the policy NAME
    #[arg(long, value_name = "DIR", default_value = "/etc/agent-sentinel/policies")]
    policies: PathBuf,
    /// The folder of the ledger
    #[arg(long, value_name = "DIR", default_value = "/var/lib/agent-sentinel")]
    state: PathBuf,
    /// The folder of the sockets
    #[arg(long, value_name = "DIR", default_value = sentinel_agent::cli::private_agent::RUNTIME)]
    runtime: PathBuf,
    /// The name of this agent among the host's [default: host]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Stops at the end of standard input too
    #[arg(long)]
    until_stdin_closes: bool,
    /// Doesn't start where the host enforces less: `kill`, or `lsm`, which needs `bpf` among the kernel's active security modules
    #[arg(long, value_name = "TIER", default_value = "kill")]
    minimum_tier: Tier,
    /// Leaves sessions running when it is stopped, for the next agent of this instance to take over
    #[arg(long)]
    keep_sessions: bool,
    /// Ends what dead agents left (sessions, pins, cgroups), and exits; with --instance what that one left
    #[arg(long, conflicts_with_all = ["policies", "state", "runtime", "until_stdin_closes", "keep_sessions"])]
    sweep: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors.
            let code = if error.use_stderr() { 64 } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("SENTINEL_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    if arguments.sweep {
        let dead = arguments.instance.as_deref().map_or(Dead::All, Dead::Named);
        return match daemon::sweep(dead) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => tell(&error, ExitCode::from(71)),
        };
    }
    let (policies, warnings) = match daemon::load_folder(&arguments.policies) {
        Ok(loaded) => loaded,
        Err(error) => return tell(&error, ExitCode::from(78)),
    };
    let _closed = std::io::stderr().write_all(warnings.as_bytes());
    let Arguments { state, runtime, instance, until_stdin_closes, minimum_tier, keep_sessions, .. } =
        arguments;
    let options = Options {
        policies,
        policies_folder: Some(arguments.policies),
        state,
        runtime,
        instance: instance.unwrap_or_else(|| "host".to_owned()),
        until_stdin_closes,
        minimum_tier,
        keep_sessions,
    };
    match daemon::run(&options, || {}) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tell(&error, error.exit_code()),
    }
}

fn tell(error: &dyn std::error::Error, code: ExitCode) -> ExitCode {
    let _closed = writeln!(std::io::stderr(), "sentinel-agent: {error}");
    code
}
