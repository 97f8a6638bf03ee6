//! `cargo xtask bench-python`: what a guarded call from Python costs, embedded and through the host agent, against the packages that
//! AgentSentinel's users have today.
//!
//! Each repetition runs the same worker with each of them, one after the other, on one CPU, with a ledger on the disk and the same policy; a ratio
//! is the median over the repetitions. To be run as root: a session is started for the calls through the agent.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::command::{output_of, run};
use crate::{build_ebpf, python};

const REPETITIONS: usize = 5;
const OTHERS: [&str; 2] = ["0.1.0", "0.4.0"];
/// What the worker configures, for the agent.
const POLICY: &str = "budgets: {session: 1000000, run: 1000000, actions: {act: 1000000}}
denied_actions: [forbidden]
allowed_actions: [act]
";

/// What the worker prints.
#[derive(Clone, Copy, Debug)]
struct Figures {
    import_ms: f64,
    call_us: f64,
    awaited_us: f64,
    a_second: f64,
}

/// How a figure is read, told and compared.
struct Row {
    name: &'static str,
    of: fn(&Figures) -> f64,
    /// For embedded calls, and for those through the agent.
    targets: [&'static str; 2],
}

const ROWS: [Row; 4] = [
    Row { name: "a call, µs", of: |figures| figures.call_us, targets: ["≤ 0.1", "≤ 0.33"] },
    Row { name: "an awaited call, µs", of: |figures| figures.awaited_us, targets: ["", ""] },
    Row { name: "calls of 8 threads, 1/s", of: |figures| figures.a_second, targets: ["≥ 5", ""] },
    Row { name: "import, ms", of: |figures| figures.import_ms, targets: ["≤ 1", "≤ 1"] },
];

pub(crate) fn bench_python(root: &Path) -> anyhow::Result<()> {
    build_ebpf::build_ebpf(root)?;
    let agent = ["build", "--release", "--locked", "--package", "sentinel-agent", "--bins"];
    run(root, "cargo", &agent)?;
    let bench = Bench::set_up(root)?;
    let mut names: Vec<String> = OTHERS.iter().map(|version| format!("AgentSentinel {version}")).collect();
    names.extend(["embedded", "through the agent", "the same, on all CPUs"].map(str::to_owned));
    let mut measured: Vec<Vec<Figures>> = vec![Vec::new(); names.len()];
    for repetition in 1..=REPETITIONS {
        println!("repetition {repetition} of {REPETITIONS}");
        let others = bench.others.iter().map(|site| bench.alone(site));
        let own = [Bench::alone, Bench::through_agent, Bench::through_agent_on_all_cpus];
        let all = others.chain(own.iter().map(|measure| measure(&bench, &bench.own)));
        for (figures, of) in all.zip(&mut measured) {
            of.push(figures?);
        }
    }
    println!("\nmedians of {REPETITIONS} repetitions; where nothing else is said, all processes on one CPU");
    for row in &ROWS {
        println!("\n{:<28} {:>10} {:>10} {:>10}", row.name, "", "to 0.1.0", "to 0.4.0");
        for (index, (name, figures)) in names.iter().zip(&measured).enumerate() {
            let values: Vec<f64> = figures.iter().map(row.of).collect();
            print!("  {name:<26} {:>10.1}", median(&values));
            if index >= OTHERS.len() {
                for others in measured.iter().take(OTHERS.len()) {
                    let ratios: Vec<f64> =
                        values.iter().zip(others).map(|(own, other)| own / (row.of)(other)).collect();
                    print!(" {:>10.2}", median(&ratios));
                }
                print!("   {}", row.targets.get(index - OTHERS.len()).copied().unwrap_or_default());
            }
            println!();
        }
    }
    Ok(())
}

/// Where everything is.
struct Bench {
    folder: PathBuf,
    sentinel: PathBuf,
    worker: PathBuf,
    own: PathBuf,
    others: Vec<PathBuf>,
}

impl Bench {
    fn set_up(root: &Path) -> anyhow::Result<Self> {
        let folder = root.join("target/bench-python");
        let own = folder.join("own");
        python::install_wheel(root, &own)?;
        let mut others = Vec::new();
        for version in OTHERS {
            let site = folder.join(version);
            python::install(&site, &[&format!("agentsentinel-sdk=={version}")])?;
            others.push(site);
        }
        let worker = folder.join("worker.py");
        std::fs::write(&worker, include_str!("worker.py"))?;
        std::fs::write(folder.join("policy.yaml"), POLICY)?;
        Ok(Self { sentinel: root.join("target/release/sentinel"), folder, worker, own, others })
    }

    /// By itself.
    fn alone(&self, site: &Path) -> anyhow::Result<Figures> {
        let home = Home::new(&self.folder)?;
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0", python::INTERPRETER]).arg(&self.worker).arg(site);
        command.current_dir(&home.0).env("AGENT_SENTINEL_HOME", home.0.join("home"));
        figures(command)
    }

    /// In a session of an agent of its own.
    fn through_agent(&self, site: &Path) -> anyhow::Result<Figures> {
        let home = Home::new(&self.folder)?;
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0"]).arg(&self.sentinel);
        figures(self.in_session(command, site, &home))
    }

    fn through_agent_on_all_cpus(&self, site: &Path) -> anyhow::Result<Figures> {
        let home = Home::new(&self.folder)?;
        figures(self.in_session(Command::new(&self.sentinel), site, &home))
    }

    fn in_session(&self, mut sentinel: Command, site: &Path, home: &Home) -> Command {
        sentinel.arg("run").arg("--policy").arg(self.folder.join("policy.yaml"));
        sentinel.arg("--state").arg(home.0.join("state")).args(["--", python::INTERPRETER]);
        sentinel.arg(&self.worker).arg(site).current_dir("/");
        sentinel
    }
}

fn figures(worker: Command) -> anyhow::Result<Figures> {
    let printed = output_of(worker, "a worker")?;
    let numbers: Vec<f64> = printed.split_whitespace().map_while(|word| word.parse().ok()).collect();
    ensure!(numbers.len() == 4, "a worker printed `{printed}`");
    let [import_ms, call_us, awaited_us, a_second] =
        numbers.try_into().ok().context("a worker prints four numbers")?;
    Ok(Figures { import_ms, call_us, awaited_us, a_second })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A folder for ledgers, which goes with it.
struct Home(PathBuf);

impl Home {
    fn new(parent: &Path) -> anyhow::Result<Self> {
        let folder = parent.join("home");
        python::remove(&folder)?;
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
