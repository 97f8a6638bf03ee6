//! The machine: QEMU with software emulation, so that it runs wherever the tests do.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::kernels::Kernel;

const QEMU: &str = "qemu-system-x86_64";
/// A guest that prints nothing for so long hangs. The slowest test takes a fraction of it, on a busy machine too.
const SILENCE: Duration = Duration::from_secs(240);
/// No run takes longer.
const LIMIT: Duration = Duration::from_secs(3 * 60 * 60);

/// What was seen of a run.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What the guest's processes printed.
    pub(crate) output: String,
    /// What its kernel printed.
    pub(crate) console: String,
    /// How it ended.
    pub(crate) end: End,
}

/// How a machine ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself: switched off, or reset after a panic.
    #[default]
    Off,
    /// It had to be ended; why.
    Ended(String),
    /// QEMU failed, with this status.
    Failed(String),
}

/// Whether machines can be run here.
///
/// # Errors
/// There is no QEMU.
pub(crate) fn check() -> anyhow::Result<()> {
    let told = Command::new(QEMU).arg("--version").stdin(Stdio::null()).output();
    match told {
        Ok(told) if told.status.success() => Ok(()),
        Ok(told) => bail!("`{QEMU} --version` failed: {}", told.status),
        Err(cause) => bail!(
            "no kernel can be booted here: `{QEMU}` can't be started ({cause}); `cargo xtask setup` installs Debian's \
             qemu-system-x86 as root, elsewhere install QEMU for x86-64"
        ),
    }
}

/// Boots it and waits for its end; prints what the guest prints as it comes.
///
/// # Errors
/// QEMU can't be started.
pub(crate) fn run(kernel: &Kernel, image: &Path, initramfs: &Path, console: &Path) -> anyhow::Result<Seen> {
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", "tcg,thread=multi", "-cpu", &kernel.processor, "-smp", "2", "-m", "2048"])
        .args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot", "-no-user-config"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &kernel.command_line()])
        // The kernel's console, then the guest's own output.
        .args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    std::fs::write(console, "").with_context(|| format!("`{}`", console.display()))?;
    let machine = Machine(command.spawn().with_context(|| format!("`{QEMU}` can't be started"))?);
    let (output, end) = watch(machine, &kernel.name)?;
    let console = std::fs::read(console).with_context(|| format!("`{}`", console.display()))?;
    Ok(Seen { output, console: String::from_utf8_lossy(&console).into_owned(), end })
}

/// Ends with us, however we end.
#[derive(Debug)]
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn watch(mut machine: Machine, name: &str) -> anyhow::Result<(String, End)> {
    let stdout = machine.0.stdout.take().context("its output is a pipe")?;
    let (send, lines) = channel();
    let reader = std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            line.clear();
            if send.send(text).is_err() {
                break;
            }
        }
    });
    let start = Instant::now();
    let mut output = String::new();
    let end = loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                println!("{name}| {line}");
                output.push_str(&line);
                output.push('\n');
                if start.elapsed() > LIMIT {
                    break End::Ended(format!("it ran for more than {} minutes", LIMIT.as_secs() / 60));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                break End::Ended(format!("it hangs: nothing was printed for {} s", SILENCE.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = machine.0.wait().context("QEMU's end")?;
                break if status.success() { End::Off } else { End::Failed(status.to_string()) };
            }
        }
    };
    drop(machine);
    drop(reader.join());
    Ok((output, end))
}
