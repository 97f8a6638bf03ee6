//! What a host enforces, row by row, as `sentinel doctor` shows it.

use serde::{Deserialize, Serialize};

/// What happens to something forbidden on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// It is refused, and nothing of it happens.
    DeniedBeforeExecution,
    /// Whoever does it is killed before an instruction of the new image runs; what it replaced is gone.
    KilledBeforeFirstInstruction,
    /// It happens, and is found out within seconds.
    Detected,
    /// It happens.
    NotCovered,
}

impl Hold {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeniedBeforeExecution => "denied before execution",
            Self::KilledBeforeFirstInstruction => "killed before its first instruction",
            Self::Detected => "detected",
            Self::NotCovered => "not covered",
        }
    }
}

/// How it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// It was tried, and came out so; what is allowed was tried beside it, and was let pass.
    Tried,
    /// It was tried, and came out otherwise: as told.
    Failed(String),
    /// It can't be tried without doing harm, or there is nothing to try; this is why.
    Stated(String),
}

/// One thing that a program may try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What.
    pub what: String,
    /// What happens to it.
    pub hold: Hold,
    /// How that is known.
    pub proof: Proof,
}

/// A program of the kernel side, and what it cost so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// How often it was left out because another ran on the same CPU. Above 0, something forbidden may have passed.
    pub missed: u64,
    /// How often it ran; 0 unless the kernel counts (`kernel.bpf_stats_enabled`).
    pub runs: u64,
    /// How long all its runs took, in nanoseconds.
    pub nanoseconds: u64,
}

/// What a host enforces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// `lsm`, `kill` or `none`.
    pub tier: String,
    /// The kernel's release.
    pub kernel: String,
    /// What was tried, and what is known.
    pub rows: Vec<Row>,
    /// The programs of the kernel side.
    pub programs: Vec<Program>,
    /// Reports of refusals that were lost, since the agent's start. What they were about was refused.
    pub lost_reports: u64,
}

impl Examination {
    /// What this host doesn't do that it has to; none: it does all.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let row = self.rows.iter().find_map(|row| match &row.proof {
            Proof::Failed(cause) => Some(format!("{}: {cause}", row.what)),
            Proof::Tried | Proof::Stated(_) => None,
        });
        row.or_else(|| {
            let missed = self.programs.iter().find(|program| program.missed > 0)?;
            Some(format!("the kernel left `{}` out {} times", missed.name, missed.missed))
        })
    }
}
