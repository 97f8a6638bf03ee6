//! The examples in `PROTOCOL.md` are what is really said, and what it lists is all there is.

use std::collections::BTreeSet;

use sentinel_proto::app::{MAX_TAGS, Reply, Request};
use sentinel_proto::{
    ActionName, Decision, FrameReader, MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, Money, Tag,
    encode_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const DOCUMENT: &str = include_str!("../PROTOCOL.md");

/// The lines of the code block in this language.
fn block(language: &str) -> Vec<&'static str> {
    let (_, block) = DOCUMENT.split_once(&format!("```{language}\n")).unwrap();
    block.split("```").next().unwrap().lines().collect()
}

fn read<T: Serialize + DeserializeOwned>(json: &str) -> T {
    let message = serde_json::from_str(json).unwrap_or_else(|error| panic!("`{json}`: {error}"));
    assert_eq!(serde_json::to_string(&message).unwrap(), json, "it is written as it is read");
    message
}

fn requests() -> Vec<Request> {
    block("messages").iter().filter_map(|line| line.strip_prefix("→ ")).map(read).collect()
}

fn replies() -> Vec<Reply> {
    block("messages").iter().filter_map(|line| line.strip_prefix("← ")).map(read).collect()
}

#[test]
fn the_conversation_is_one_of_this_protocol() {
    assert_eq!(requests().len() + replies().len(), block("messages").len());
    for reply in replies() {
        if let Reply::Decision(answer) = reply {
            assert_eq!(answer.decision == Decision::Allow, answer.action_id.is_some());
            assert_eq!(answer.decision == Decision::Allow, answer.denial.is_none());
        }
    }
}

#[test]
fn the_first_frame_is_as_it_is_spelled() {
    let bytes: Vec<u8> = block("hex")
        .iter()
        .flat_map(|line| line.split("  ").next().unwrap().split(' '))
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let mut reader = FrameReader::new();
    reader.push(&bytes);
    let hello: Request = reader.next_message().unwrap().unwrap();
    assert!(reader.is_empty());
    assert_eq!(encode_frame(&hello).unwrap(), bytes);
    assert_eq!(Some(&hello), requests().first());
}

#[test]
fn each_kind_of_message_and_each_code_has_its_row() {
    let rows: BTreeSet<&str> =
        DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.starts_with("admin-") {
            continue;
        }
        let message: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let (kind, keys) = message.as_object().unwrap().iter().next().unwrap();
        let code = keys.pointer("/denial/reason/code").or_else(|| keys.get("code"));
        for word in [Some(kind.as_str()), code.and_then(|code| code.as_str())].into_iter().flatten() {
            assert!(rows.contains(word), "`{word}` of `{name}` has no row");
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} words were looked for");
}

#[test]
fn the_characters_that_names_can_not_have_are_spelled() {
    let (_, ranges) = DOCUMENT.split_once("Not allowed are control characters").unwrap();
    let number = |text: &str| u32::from_str_radix(text, 16).unwrap();
    let ranges: Vec<(u32, u32)> = ranges
        .split("\n\n")
        .next()
        .unwrap()
        .split(['(', ')', ',', '\n', ' '])
        .filter_map(|range| range.trim_end_matches('.').strip_prefix("U+"))
        .map(|range| match range.split_once("–U+") {
            Some((first, last)) => (number(first), number(last)),
            None => (number(range), number(range)),
        })
        .collect();
    assert_eq!(ranges.len(), 14);
    for character in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
        let spelled = ranges.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(character)));
        assert_eq!(Tag::new(character.to_string()).is_err(), spelled, "{character:?}");
    }
}

#[test]
fn the_limits_are_those_that_hold() {
    let thousands = |number: u64| {
        let digits = number.to_string();
        let parts: Vec<&str> =
            digits.as_bytes().rchunks(3).rev().map(|part| std::str::from_utf8(part).unwrap()).collect();
        parts.join(",")
    };
    for limit in [
        format!("At most {} bytes", thousands(MAX_FRAME_BYTES.try_into().unwrap())),
        format!(
            "at most {} bytes and {MAX_PAYLOAD_DEPTH} levels",
            thousands(MAX_PAYLOAD_BYTES.try_into().unwrap())
        ),
        format!("an `action` has 1 to {} characters", ActionName::MAX),
        format!("a tag has 1 to {}, and there are at most {MAX_TAGS}", Tag::MAX),
        format!("from 0 to {}", thousands(Money::MAX.nanos() / 1_000_000_000)),
    ] {
        assert!(DOCUMENT.contains(&limit), "`{limit}` isn't said");
    }
}
