//! Checks that every dependency, of the workspace, of the eBPF object and of the fuzz targets, may be shipped under MIT.
//!
//! Invariant: a dependency whose licence can't be read is a failure, never a pass.

use std::path::Path;

use anyhow::{Context as _, bail};
use spdx::{Expression, ParseMode};

use crate::command::output;

/// Licences that put no terms on what links to them beyond keeping their notice.
const ACCEPTED: &[&str] = &[
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    // Of data: the public certificate authorities that `webpki-roots` holds.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Checks the dependencies of every lock file.
///
/// # Errors
/// Names every dependency whose licence is missing, unreadable or not accepted.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut refused = Vec::new();
    let mut checked = 0_usize;
    for manifest in ["Cargo.toml", "sentinel-ebpf/Cargo.toml", "tests/fuzz/Cargo.toml"] {
        let manifest = root.join(manifest);
        let metadata = output(
            root,
            "cargo",
            &[
                "metadata",
                "--format-version=1",
                "--locked",
                "--manifest-path",
                &manifest.display().to_string(),
            ],
        )?;
        let metadata: serde_json::Value =
            serde_json::from_str(&metadata).context("cargo metadata is no JSON")?;
        let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
        for package in packages.iter().filter(|package| !package["source"].is_null()) {
            checked += 1;
            let name = format!(
                "{} {}",
                package["name"].as_str().unwrap_or("?"),
                package["version"].as_str().unwrap_or("?")
            );
            if let Err(problem) = accept(package["license"].as_str()) {
                refused.push(format!("  {name}: {problem}"));
            }
        }
    }
    if !refused.is_empty() {
        refused.sort();
        refused.dedup();
        bail!("dependencies that can't be shipped under MIT:\n{}", refused.join("\n"));
    }
    println!("licences: {checked} dependencies, all accepted");
    Ok(())
}

fn accept(licence: Option<&str>) -> Result<(), String> {
    let licence = licence.ok_or("it names no licence")?;
    let expression =
        Expression::parse_mode(licence, ParseMode::LAX).map_err(|error| format!("`{licence}`: {error}"))?;
    let accepted = expression
        .evaluate(|requirement| requirement.license.id().is_some_and(|id| ACCEPTED.contains(&id.name)));
    if accepted { Ok(()) } else { Err(format!("`{licence}` is not accepted")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_with_an_accepted_alternative_passes() {
        assert!(accept(Some("MIT/Apache-2.0")).is_ok());
        assert!(accept(Some("LGPL-2.1-only OR MIT")).is_ok());
        assert!(accept(Some("Apache-2.0 WITH LLVM-exception")).is_ok());
    }

    #[test]
    fn a_copyleft_a_missing_or_an_unreadable_licence_fails() {
        assert!(accept(Some("LGPL-2.1-only")).is_err());
        assert!(accept(Some("MIT AND GPL-3.0-only")).is_err());
        assert!(accept(None).is_err());
        assert!(accept(Some("see LICENSE")).is_err());
    }
}
