//! The agent's side: `sentinel private-agent`.

use sentinel_policy::configuration::Configuration;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::state::{STATE, first_free, lock_or_busy, make_folder};
use super::{PrivateAgentError, READY, instance, instance_folder, system};
use crate::daemon::{self, LoadedPolicy, Options};

/// What the launcher calls `sentinel private-agent` with. The policy's text comes on standard input, which then stays
/// open as long as the launcher lives.
#[derive(Debug, clap::Args)]
pub struct PrivateAgentArguments {
    /// The policy's name.
    #[arg(long)]
    pub policy_name: String,
    /// The folder below which it makes the one for its sockets.
    #[arg(long)]
    pub runtime: PathBuf,
    /// Where it keeps its ledger.
    #[arg(long, conflicts_with = "session")]
    pub state: Option<PathBuf>,
    /// The named session whose folder it uses.
    #[arg(long)]
    pub session: Option<String>,
}

/// Is the private agent, until its launcher is gone.
#[must_use]
pub fn serve(arguments: &PrivateAgentArguments) -> ExitCode {
    match try_serve(arguments) {
        Ok(code) => code,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "sentinel: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn try_serve(arguments: &PrivateAgentArguments) -> Result<ExitCode, PrivateAgentError> {
    // Away from the terminal: Ctrl-C is for the command, whose end its agent must see, and nothing there stops it.
    rustix::process::setsid().map_err(|errno| system("leave the terminal")(errno.into()))?;
    // The command's own output goes to the same terminal: only what matters is said.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(io::stderr)
        .without_time()
        .with_target(false)
        .init();
    let text = read_policy(&mut io::stdin().lock()).map_err(system("read the policy from its launcher"))?;
    let policy = match LoadedPolicy::parse(&text) {
        Ok((policy, _told_by_the_launcher)) => policy,
        Err(problems) => {
            let _closed =
                write!(io::stderr(), "{}", problems.render("policy", &String::from_utf8_lossy(&text)));
            return Ok(ExitCode::from(78));
        }
    };
    let (state, _lock) = match (&arguments.state, &arguments.session) {
        (Some(folder), _) => lock_or_busy(folder)?,
        (None, Some(name)) => lock_or_busy(&Path::new(STATE).join("named").join(name))?,
        (None, None) => first_free(&Path::new(STATE).join("private"))?,
    };
    let pid = std::process::id();
    make_folder(&arguments.runtime, 0o755)?;
    let runtime = instance_folder(&arguments.runtime, pid);
    make_folder(&runtime, 0o700)?;
    // What the host has to enforce holds for every agent; what is bound is the shared one's.
    let configuration = match daemon::load_configuration(None) {
        Ok((configuration, _warnings)) => Configuration { bind: Vec::new(), ..configuration },
        Err(error) => {
            let _closed = writeln!(io::stderr(), "sentinel: {error}");
            return Ok(ExitCode::from(78));
        }
    };
    let options = Options {
        configuration,
        policies_folder: None,
        policies: [(arguments.policy_name.clone(), policy)].into(),
        state,
        runtime: runtime.clone(),
        instance: instance(pid),
        until_stdin_closes: true,
        keep_sessions: false,
    };
    let result = daemon::run(&options, || {
        // A launcher that doesn't hear it is gone, and standard input says so.
        let _unheard = io::stdout().write_all(READY).and_then(|()| io::stdout().flush());
    });
    // What is in it is the daemon's; what it leaves on a failure tells why.
    let _left = fs::remove_dir(&runtime);
    Ok(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "sentinel: {error}");
            error.exit_code()
        }
    })
}

fn read_policy(input: &mut impl io::Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    // The launcher has cut it already.
    let most = u64::try_from(sentinel_policy::MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = Vec::new();
    input.take(u64::from_le_bytes(length).min(most)).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_comes_whole_from_a_stream_that_stays_open_behind_it() {
        let mut stream = 4_u64.to_le_bytes().to_vec();
        stream.extend(b"texX");
        stream.extend(b"behind");
        assert_eq!(read_policy(&mut stream.as_slice()).unwrap(), b"texX");
        assert!(read_policy(&mut [1_u8].as_slice()).is_err());
    }
}
