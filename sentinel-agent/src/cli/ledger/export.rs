//! `sentinel ledger export`: the lines that match, for other programs.
//!
//! Invariant: no file that is there already is written to.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sentinel_authority::intervention;

use super::filter::{Filter, Seen};
use super::query::{concluded, verbatim};
use super::{LedgerCommandError, csv};
use crate::cli::terminal::visible;

/// What `sentinel ledger export` is called with.
#[derive(Debug, clap::Args)]
pub struct ExportArguments {
    /// The ledger; without it the shared agent's, else the private one that was written last
    pub(super) file: Option<PathBuf>,
    /// JSON Lines as they are written there, CSV for a spreadsheet, or what was blocked, asked for or warned about with the keys of the seed's
    /// `interventions.jsonl`
    #[arg(long)]
    format: Format,
    #[command(flatten)]
    filter: Filter,
    /// Where to; a file that is there already is left as it is. Without it, to the standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What lines become.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Jsonl,
    Csv,
    Interventions,
}

pub(super) fn export(path: &Path, arguments: &ExportArguments) -> Result<ExitCode, LedgerCommandError> {
    let seen = match &arguments.output {
        None => {
            let stdout = io::stdout().lock();
            let on_terminal = stdout.is_terminal();
            write(path, arguments, BufWriter::new(stdout), on_terminal)?
        }
        Some(output) => {
            // Whoever may not read the ledger may not read what is taken out of it.
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(output);
            let file = made.map_err(|source| match source.kind() {
                ErrorKind::AlreadyExists => LedgerCommandError::Exists(output.clone()),
                _ => LedgerCommandError::Unmakable { path: output.clone(), source },
            })?;
            write(path, arguments, BufWriter::new(file), false)?
        }
    };
    Ok(concluded(path, seen))
}

fn write(
    path: &Path,
    arguments: &ExportArguments,
    mut out: impl Write,
    on_terminal: bool,
) -> Result<Seen, LedgerCommandError> {
    let seen = match arguments.format {
        Format::Jsonl => arguments.filter.each(path, |line| verbatim(&mut out, line, on_terminal))?,
        Format::Csv => {
            out.write_all(csv::header().as_bytes())?;
            arguments.filter.each(path, |line| {
                let row = csv::of_line(line.text)?;
                if on_terminal {
                    writeln!(out, "{}", visible(row.trim_end()))
                } else {
                    out.write_all(row.as_bytes())
                }
            })?
        }
        Format::Interventions => {
            let mut told: u64 = 0;
            let seen = arguments.filter.each(path, |line| {
                let Some(intervention) = intervention(line.text).map_err(io::Error::other)? else {
                    return Ok(());
                };
                told = told.saturating_add(1);
                let text = serde_json::to_string(&intervention)?;
                if on_terminal { writeln!(out, "{}", visible(&text)) } else { writeln!(out, "{text}") }
            })?;
            Seen { matching: told, ..seen }
        }
    };
    out.flush()?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::super::parts::tests::Folder;
    use super::*;

    const OLD: &str = "{\"id\":\"a\",\"action\":\"=1+1\",\"outcome\":\"success\",\"seq\":1}\n";
    const NEW: &str = "{\"id\":\"b\",\"action\":\"x\",\"outcome\":\"blocked\",\"seq\":2}\n";

    fn exported(folder: &Folder, format: Format) -> Result<String, LedgerCommandError> {
        let output = folder.ledger().with_extension("out");
        let arguments =
            ExportArguments { file: None, format, filter: Filter::default(), output: Some(output.clone()) };
        export(&folder.ledger(), &arguments)?;
        Ok(std::fs::read_to_string(output).unwrap())
    }

    #[test]
    fn an_export_has_all_lines_of_all_parts() {
        let folder = Folder::new("export-jsonl").with(Some(1), OLD).with(None, NEW);
        assert_eq!(exported(&folder, Format::Jsonl).unwrap(), format!("{OLD}{NEW}"));
        let folder = Folder::new("export-csv").with(Some(1), OLD).with(None, NEW);
        let rows = "a,,'=1+1,,,success,,,,,,,,,1,\r\nb,,x,,,blocked,,,,,,,,,2,\r\n";
        assert_eq!(exported(&folder, Format::Csv).unwrap(), format!("{}{rows}", csv::header()));
    }

    #[test]
    fn a_file_that_is_there_already_is_refused_and_stays() {
        let folder = Folder::new("export-exists").with(None, NEW);
        exported(&folder, Format::Csv).unwrap();
        let before = std::fs::read(folder.ledger().with_extension("out")).unwrap();
        let error = exported(&folder, Format::Jsonl).unwrap_err();
        assert_eq!(error.exit_status(), 73, "{error}");
        assert_eq!(std::fs::read(folder.ledger().with_extension("out")).unwrap(), before);
    }
}
