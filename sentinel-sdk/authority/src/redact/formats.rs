//! Formats of secrets that are known by how they begin.
//!
//! Invariant: what follows a prefix is looked at once for each format, however many prefixes it holds in its turn; so the time is linear.

use super::Secret;

/// As many letters and digits in a row as no word has.
const NO_WORD: usize = 16;

/// A prefix, and what has to follow it.
struct Format {
    prefix: &'static str,
    kind: &'static str,
    /// The bytes that the rest is made of.
    alphabet: fn(u8) -> bool,
    /// The fewest of them.
    least: usize,
    /// What the rest looks like. If something doesn't, no part of it does.
    looks: fn(&[u8]) -> bool,
    /// Whether it may follow a letter or a digit: what no word contains.
    glued: bool,
    /// Where the prefix has its rare byte, by which it is found.
    rare_at: usize,
    /// The byte before that.
    before: u8,
}

const fn format(prefix: &'static str, kind: &'static str, alphabet: fn(u8) -> bool, least: usize) -> Format {
    let (rare_at, before) = rare(prefix.as_bytes());
    Format { prefix, kind, alphabet, least, looks: like_anything, glued: false, rare_at, before }
}

/// Where a prefix has its rare byte, and the byte before that: the first that is neither a letter nor a digit, else the third.
const fn rare(prefix: &[u8]) -> (usize, u8) {
    let (mut at, mut before, mut rest) = (0_usize, 0, prefix);
    while let [first, behind @ ..] = rest {
        if !first.is_ascii_alphanumeric() {
            return (at, before);
        }
        (at, before, rest) = (at.saturating_add(1), *first, behind);
    }
    match prefix {
        [_, before, _, ..] => (2, *before),
        _ => (0, 0),
    }
}

impl Format {
    const fn glued(self) -> Self {
        Self { glued: true, ..self }
    }

    const fn looking(self, looks: fn(&[u8]) -> bool) -> Self {
        Self { looks, ..self }
    }
}

/// Formats by their rare byte. Of two that both match, the earlier one counts.
const DASHED: [Format; 24] = [
    format("sk-ant-", "anthropic-key", dashed, 16).glued(),
    format("sk-proj-", "openai-key", dashed, 16).glued(),
    format("sk-svcacct-", "openai-key", dashed, 16).glued(),
    format("sk-", "openai-key", dashed, 20).looking(like_chance),
    format("glpat-", "gitlab-token", dotted, 16).glued(),
    format("gldt-", "gitlab-token", dotted, 16).glued(),
    format("glrt-", "gitlab-token", dotted, 16).glued(),
    format("glptt-", "gitlab-token", dotted, 16).glued(),
    format("glcbt-", "gitlab-token", dotted, 16).glued(),
    format("glsoat-", "gitlab-token", dotted, 16).glued(),
    format("xoxa-", "slack-token", dashed, 10).looking(with_digit).glued(),
    format("xoxb-", "slack-token", dashed, 10).looking(with_digit).glued(),
    format("xoxc-", "slack-token", dashed, 10).looking(with_digit).glued(),
    format("xoxd-", "slack-token", quoted, 10).looking(with_digit).glued(),
    format("xoxe-", "slack-token", dashed, 10).looking(with_digit).glued(),
    format("xoxp-", "slack-token", dashed, 10).looking(with_digit).glued(),
    format("xoxr-", "slack-token", dashed, 10).looking(with_digit).glued(),
    format("xoxs-", "slack-token", dashed, 10).looking(with_digit).glued(),
    format("xapp-", "slack-token", dashed, 20).looking(like_chance),
    format("pypi-", "pypi-token", dashed, 32).looking(like_chance),
    format("GOCSPX-", "google-key", dashed, 20).glued(),
    format("xai-", "xai-key", alphanumeric, 40),
    format("AGE-SECRET-KEY-1", "age-key", alphanumeric, 20).glued(),
    format("sq0csp-", "square-secret", dashed, 20).glued(),
];
const SCORED: [Format; 16] = [
    format("ghp_", "github-token", scored, 20).glued(),
    format("gho_", "github-token", scored, 20).glued(),
    format("ghu_", "github-token", scored, 20).glued(),
    format("ghs_", "github-token", dotted, 20).glued(),
    format("ghr_", "github-token", scored, 20).glued(),
    format("github_pat_", "github-token", scored, 20).glued(),
    format("sk_live_", "stripe-key", scored, 10).glued(),
    format("rk_live_", "stripe-key", scored, 10).glued(),
    format("sk_test_", "stripe-key", scored, 20).looking(like_chance).glued(),
    format("rk_test_", "stripe-key", scored, 20).looking(like_chance).glued(),
    format("whsec_", "stripe-key", quoted, 20).looking(like_chance),
    format("hf_", "huggingface-token", alphanumeric, 30),
    format("npm_", "npm-token", alphanumeric, 30),
    format("gsk_", "groq-key", alphanumeric, 40),
    format("dckr_pat_", "docker-token", dashed, 20).glued(),
    format("shpat_", "shopify-token", alphanumeric, 32).glued(),
];
const DOTTED: [Format; 8] = [
    format("SG.", "sendgrid-key", dotted, 32).looking(like_chance),
    format("ya29.", "google-token", dashed, 20),
    format("hvs.", "vault-token", dashed, 24).looking(like_chance),
    format("hooks.slack.com/services/", "slack-webhook", quoted, 10).glued(),
    format("hooks.slack.com/workflows/", "slack-webhook", quoted, 10).glued(),
    format("hooks.slack.com/triggers/", "slack-webhook", quoted, 10).glued(),
    format("discord.com/api/webhooks/", "discord-webhook", quoted, 20).glued(),
    format("discordapp.com/api/webhooks/", "discord-webhook", quoted, 20).glued(),
];
const WITH_I: [Format; 2] =
    [format("AKIA", "aws-key-id", capital, 16), format("ASIA", "aws-key-id", capital, 16)];
const WITH_Z: [Format; 1] = [format("AIza", "google-key", dashed, 30)];

fn formats(rare: u8) -> &'static [Format] {
    match rare {
        b'-' => &DASHED,
        b'_' => &SCORED,
        b'.' => &DOTTED,
        b'I' => &WITH_I,
        b'z' => &WITH_Z,
        _ => &[],
    }
}

/// The search for formats in one text.
#[derive(Default)]
pub(super) struct Formats {
    /// Prefixes, and up to where no secret of theirs begins: what followed one didn't match, so no part of it does.
    fruitless: Vec<(&'static str, usize)>,
}

impl Formats {
    /// The secret whose prefix has its rare byte here.
    pub(super) fn around(&mut self, text: &[u8], rare_at: usize) -> Option<Secret> {
        let before = *text.get(rare_at.checked_sub(1)?).filter(|byte| byte.is_ascii_alphanumeric())?;
        let formats = formats(*text.get(rare_at)?).iter();
        formats
            .filter(|format| format.before == before)
            .find_map(|format| self.matched(format, text, rare_at))
    }

    fn matched(&mut self, format: &Format, text: &[u8], rare_at: usize) -> Option<Secret> {
        let start = rare_at.checked_sub(format.rare_at)?;
        let rest = text.get(start..)?.strip_prefix(format.prefix.as_bytes())?;
        let is_fruitless = |(prefix, end): &(&str, usize)| *prefix == format.prefix && start < *end;
        if self.fruitless.iter().any(is_fruitless) || !format.glued && !begins_word(text.get(..start)?) {
            return None;
        }
        let mut secret = rest.get(..run(rest, format.alphabet))?;
        let begin = start.saturating_add(format.prefix.len());
        if secret.len() < format.least || !(format.looks)(secret) {
            self.fruitless.retain(|(prefix, _)| *prefix != format.prefix);
            self.fruitless.push((format.prefix, begin.saturating_add(secret.len())));
            return None;
        }
        // A full stop ends a sentence, not a secret.
        while let Some(shorter) = secret.strip_suffix(b".") {
            secret = shorter;
        }
        Some(Secret { start, end: begin.saturating_add(secret.len()), kind: format.kind })
    }
}

/// How many bytes a text begins with that are of an alphabet.
pub(super) fn run(text: &[u8], alphabet: fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !alphabet(*byte)).unwrap_or(text.len())
}

/// Whether what follows these bytes is the beginning of a word, also where they end with a character that is escaped for JSON or a URL.
pub(super) fn begins_word(before: &[u8]) -> bool {
    match before {
        [.., b'\\', b'n' | b'r' | b't' | b'b' | b'f'] => true,
        [.., b'%', a, b] if [a, b].into_iter().all(u8::is_ascii_hexdigit) => true,
        [.., b'\\', b'u', a, b, c, d] if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) => true,
        [.., last] => !last.is_ascii_alphanumeric(),
        [] => true,
    }
}

fn capital(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn scored(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

pub(super) fn dashed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

pub(super) fn dotted(byte: u8) -> bool {
    dashed(byte) || byte == b'.'
}

/// What stands in paths and in Base64.
fn quoted(byte: u8) -> bool {
    dashed(byte) || matches!(byte, b'/' | b'+' | b'=' | b'%')
}

fn like_anything(_rest: &[u8]) -> bool {
    true
}

fn with_digit(rest: &[u8]) -> bool {
    rest.iter().any(u8::is_ascii_digit)
}

/// Made by chance, not by somebody who likes dashes: a digit, and a stretch that is longer than a word.
fn like_chance(rest: &[u8]) -> bool {
    with_digit(rest)
        && rest.split(|byte| !byte.is_ascii_alphanumeric()).any(|stretch| stretch.len() >= NO_WORD)
}
