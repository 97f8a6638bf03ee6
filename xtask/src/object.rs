//! What is in an eBPF object: its programs, how long each is, and its maps.

use std::fmt::Write as _;

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

const INSTRUCTION_BYTES: u64 = 8;

/// The object in words: a line for each program and map.
///
/// # Errors
/// It is no ELF.
pub(crate) fn describe(bytes: &[u8]) -> anyhow::Result<String> {
    let object = object::File::parse(bytes).context("the object is no ELF")?;
    let mut programs = Vec::new();
    let mut maps = Vec::new();
    for symbol in object.symbols() {
        let (Ok(name), Some(index)) = (symbol.name(), symbol.section_index()) else { continue };
        let Ok(section) =
            object.section_by_index(index).and_then(|section| section.name().map(str::to_owned))
        else {
            continue;
        };
        match symbol.kind() {
            SymbolKind::Text if symbol.is_global() && section != ".text" => {
                programs.push(format!(
                    "  program {name:<16} {:>5} instructions  {section}",
                    symbol.size() / INSTRUCTION_BYTES
                ));
            }
            SymbolKind::Data if section == "maps" || section == ".maps" => maps.push(name.to_owned()),
            _ => {}
        }
    }
    programs.sort();
    maps.sort();
    let shared: u64 = object.section_by_name(".text").map_or(0, |section| section.size() / INSTRUCTION_BYTES);
    let mut text = String::new();
    writeln!(text, "  {} bytes, {} programs, {} maps", bytes.len(), programs.len(), maps.len())?;
    for program in programs {
        writeln!(text, "{program}")?;
    }
    writeln!(text, "  shared by programs {shared:>10} instructions")?;
    writeln!(text, "  maps    {}", maps.join(" "))?;
    Ok(text)
}
