//! Each `testdata/NAME.yaml` gives exactly `testdata/NAME.expected`.
//!
//! `UPDATE_EXPECTED=1 cargo test -p sentinel-policy` writes the expected files anew; read the difference before you
//! commit it.

use std::fs;
use std::path::{Path, PathBuf};

use sentinel_policy::parse_bytes;

use crate::printer::yaml;

fn policies(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    files.sort();
    assert!(!files.is_empty(), "no policies in {}", folder.display());
    files
}

/// What a person is told of a file, and what the policy is where it is one.
fn report(file: &Path) -> String {
    let bytes = fs::read(file).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let text = String::from_utf8_lossy(&bytes);
    match parse_bytes(&bytes) {
        Ok(parsed) => {
            format!("{}--- valid, and means:\n{}", parsed.warnings.render(name, &text), yaml(&parsed.policy))
        }
        Err(problems) => problems.render(name, &text),
    }
}

#[test]
fn every_policy_of_the_test_data_gives_the_expected_report() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut different = Vec::new();
    for file in policies("testdata") {
        let expected_file = file.with_extension("expected");
        let report = report(&file);
        if update {
            fs::write(&expected_file, &report).unwrap();
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        if report != expected {
            different.push(format!("=== {}\n--- expected\n{expected}\n--- is\n{report}", file.display()));
        }
    }
    assert!(different.is_empty(), "{}\n(UPDATE_EXPECTED=1 writes them anew)", different.join("\n"));
}

#[test]
fn every_example_that_we_ship_is_a_policy() {
    for file in policies("../../sentinel-agent/dist/policies") {
        let bytes = fs::read(&file).unwrap();
        let parsed = parse_bytes(&bytes).unwrap_or_else(|problems| {
            panic!("{}", problems.render(&file.display().to_string(), &String::from_utf8_lossy(&bytes)))
        });
        assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
        let again = sentinel_policy::parse(&yaml(&parsed.policy)).unwrap().policy;
        assert_eq!(yaml(&again), yaml(&parsed.policy));
    }
}
