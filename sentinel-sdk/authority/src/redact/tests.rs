//! What is taken out of a payload, and what is left as it is. No value here is a secret of anybody; they are put together so that no scanner
//! takes them for one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sentinel_proto::Payload;

use super::{payload, text};

/// As many letters and digits as a test needs, mixed.
fn chance(length: usize) -> String {
    "a1B2c3D4e5F6g7H8i9J0".chars().cycle().take(length).collect()
}

/// A made-up secret of each known format, with its kind.
fn planted() -> Vec<(String, &'static str)> {
    let of = |prefix: &str, length| format!("{prefix}{}", chance(length));
    let capitals = "ABCDEFGH23456777";
    vec![
        (of(concat!("sk", "-"), 48), "openai-key"),
        (of(concat!("sk", "-proj-"), 60), "openai-key"),
        (of(concat!("sk", "-ant-api03-"), 60), "anthropic-key"),
        (of(concat!("gh", "p_"), 36), "github-token"),
        (of(concat!("gh", "o_"), 36), "github-token"),
        (of(concat!("gh", "u_"), 36), "github-token"),
        (of(concat!("gh", "s_"), 36), "github-token"),
        (of(concat!("gh", "r_"), 36), "github-token"),
        (of(concat!("github", "_pat_"), 60), "github-token"),
        (of(concat!("gl", "pat-"), 20), "gitlab-token"),
        (format!("{}{capitals}", concat!("AK", "IA")), "aws-key-id"),
        (format!("{}{capitals}", concat!("AS", "IA")), "aws-key-id"),
        (of(concat!("AI", "za"), 35), "google-key"),
        (format!("{}-12345678901-12345678901-{}", concat!("xo", "xb"), chance(24)), "slack-token"),
        (
            format!("{}/T01234567/B01234567/{}", concat!("hooks.slack", ".com/services"), chance(24)),
            "slack-webhook",
        ),
        (of(concat!("sk", "_live_"), 24), "stripe-key"),
        (of(concat!("rk", "_live_"), 24), "stripe-key"),
        (of(concat!("h", "f_"), 34), "huggingface-token"),
        (of(concat!("np", "m_"), 36), "npm-token"),
        (of(concat!("py", "pi-AgEI"), 80), "pypi-token"),
        (format!("{}{}.{}", concat!("S", "G."), chance(22), chance(43)), "sendgrid-key"),
        (format!("1234567890:AA{}", chance(33)), "telegram-token"),
        (format!("{}hbGciOiJub25l.{}.{}", concat!("ey", "J"), chance(40), chance(40)), "jwt"),
    ]
}

/// What resembles the formats and is left alone.
const HARMLESS: [&str; 42] = [
    "a plain sentence - with dashes, dots. And: colons = signs",
    "task-force-one-and-a-half-of-the-2024-estimators",
    "sk-learn-release-highlights-for-the-year-2024",
    "sk-toggleable__content-and-its-label-arrow",
    "ghp_short",
    "github_pat_",
    "glpat-x",
    "AKIA",
    concat!("MAK", "IA1234567890ABCDEFG"),
    "AKIAlowercaselowercase",
    "AIzashort",
    "xoxb-none-of-them",
    "xoxo-hugs-and-kisses-from-everybody",
    "https://hooks.slack.com/",
    "sk_live_no",
    "hf_transfer_is_a_library_of_hugging_face",
    "npm_config_registry_is_a_setting_of_npm",
    "pypi-packages-that-have-a-very-long-name-indeed",
    "SG.method.chain.of.calls.that.goes.on.and.on.and.on",
    "eyJhbGciOiJub25lIn0",
    "see eyJ.md and eyJ.rs",
    "at 1736937000:30",
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "the bearer of this letter, bearer certificates",
    "Basic understanding of Basic JavaScript, basic 12345678",
    "https://example.com:8080/path?page=2",
    "http://auth:8080/login",
    "https://user@example.com/",
    "git@github.com:owner/name.git",
    "max_tokens=100, token_count: 5, tokens: 7",
    "use auth::login; Token::default()",
    "secret=, password: str, token: None, auth = true",
    "author: somebody, primary_key=12",
    "\"max_tokens\": 5",
    "--max-tokens 100 --tokenizer fast --no-password now",
    "--password --verbose",
    "C:\\windows\\system32",
    "12:30:59.123 INFO module::path line=3",
    "a===b :: c :=: d",
    "ключ: значение",
    "",
];

fn redacted(json: &str) -> Option<String> {
    let read: Payload = serde_json::from_str(json).unwrap();
    payload(&read).map(|payload| payload.as_json().to_owned())
}

#[test]
fn every_known_format_is_replaced_wherever_it_stands() {
    for (secret, kind) in planted() {
        let label = format!("[redacted:{kind}]");
        assert_eq!(text(&secret).as_deref(), Some(label.as_str()), "{secret}");
        for (before, after) in [
            ("see ", " there"),
            ("x=", "&y=1"),
            ("(", ")"),
            ("\u{e9}", "\u{e9}"),
            ("a\\n", "\\nb"),
            ("%3D", "%26"),
        ] {
            let around = text(&format!("{before}{secret}{after}")).unwrap();
            assert!(!around.contains(&secret) && around.starts_with(before), "{around}");
            assert!(around.contains(after) || kind == "slack-webhook", "{around}");
        }
        assert_eq!(redacted(&format!("[1, [\"{secret}\"],{{}}]")), Some(format!("[1, [\"{label}\"],{{}}]")));
        assert_eq!(redacted(&format!("{{\"{secret}\":1e999}}")), Some(format!("{{\"{label}\":1e999}}")));
    }
}

#[test]
fn what_only_resembles_them_stays() {
    for harmless in HARMLESS {
        assert_eq!(text(harmless), None, "{harmless}");
        let json = serde_json::to_string(harmless).unwrap();
        assert_eq!(redacted(&format!("{{{json}:[{json}]}}")), None, "{harmless}");
    }
}

#[test]
fn the_value_of_a_telling_key_is_replaced_whatever_it_is() {
    for value in [
        "1",
        "true",
        "1e999",
        r#""""#,
        r#""x\"y""#,
        r#""\ud800""#,
        "[1,{\"a\":\"]\"}]",
        r#"{"a":"}","b":[]}"#,
    ] {
        let json = format!(r#"{{"a" : 1, "dbPassword" : {value} ,"b":"\ud800", "b":1e999}}"#);
        let expected = r#"{"a" : 1, "dbPassword" : "[redacted:key]" ,"b":"\ud800", "b":1e999}"#;
        assert_eq!(redacted(&json).as_deref(), Some(expected), "{value}");
    }
    let escaped = r#"{"pass\u0077ord":"x"}"#;
    assert_eq!(redacted(escaped).as_deref(), Some(r#"{"pass\u0077ord":"[redacted:key]"}"#));
    assert_eq!(
        redacted(r#"{"password":null,"max_tokens":5,"tokens":["a"]}"#),
        None,
        "nothing is there to hide"
    );
}

#[test]
fn what_follows_a_telling_option_in_a_list_is_replaced() {
    let list = r#"["mysql", "--password", "hunter2", "-v"]"#;
    assert_eq!(redacted(list).as_deref(), Some(r#"["mysql", "--password", "[redacted:key]", "-v"]"#));
    assert_eq!(redacted(r#"["--verbose", "hunter2", "--password"]"#), None);
    assert_eq!(redacted(r#"{"a":"--password","b":1}"#), None);
}

#[test]
fn escapes_hide_nothing_and_stay_around_what_is_replaced() {
    let rest = chance(48);
    let json = format!(r#""\ud800 \u0073k-{rest}\n\ud83d\ude00 \/""#);
    assert_eq!(redacted(&json).as_deref(), Some(r#""\ud800 [redacted:openai-key]\n\ud83d\ude00 \/""#));
}

#[test]
fn assignments_in_text_lose_their_values() {
    for (given, expected) in [
        ("password=hunter2 x", "password=[redacted:key] x"),
        ("DB_PASSWORD='hunter2'; x", "DB_PASSWORD='[redacted:key]'; x"),
        ("api_key: abc, x", "api_key: [redacted:key], x"),
        ("the API key: abc", "the API key: [redacted:key]"),
        ("?page=1&token=abc&x=2", "?page=1&token=[redacted:key]&x=2"),
        ("f(token=abc)", "f(token=[redacted:key])"),
        ("pwd=a)b", "pwd=[redacted:key]"),
        ("token = b\"abc\"", "token = b\"[redacted:key]\""),
        (r#"{"password":"a\"b","c":1}"#, r#"{"password":"[redacted:key]","c":1}"#),
        (r#"{"password": {"a":"}","b":["x"]},"c":1}"#, r#"{"password": [redacted:key],"c":1}"#),
        (
            r#"{"x":"{\"password\":\"a\\\"b\",\"c\":1}"}"#,
            r#"{"x":"{\"password\":\"[redacted:key]\",\"c\":1}"}"#,
        ),
        ("config[\"token\"] = 'abc'", "config[\"token\"] = '[redacted:key]'"),
        (":password => 'abc'", ":password => '[redacted:key]'"),
        ("Authorization: Digest a=\"b\", c\nHost: x", "Authorization: [redacted:key]\nHost: x"),
        ("curl -H 'Cookie: a=b; c=d' https://x", "curl -H 'Cookie: [redacted:key]' https://x"),
        ("mysql --password hunter2 -v", "mysql --password [redacted:key] -v"),
        ("password=\"cut off", "password=\"[redacted:key]"),
        ("password=\\back", "password=[redacted:key]"),
    ] {
        assert_eq!(text(given).as_deref(), Some(expected), "{given}");
    }
}

#[test]
fn headers_urls_and_private_keys_lose_their_secrets() {
    let block = |kind: &str| format!("-----{} {kind}-----\nMIIE\n-----{} {kind}-----", "BEGIN", "END");
    let (rsa, pgp) = (block("RSA PRIVATE KEY"), block("PGP PRIVATE KEY BLOCK"));
    for (given, expected) in [
        ("say Bearer abcdef12345", "say Bearer [redacted:bearer]"),
        ("say basic dXNlcjpwYXNz", "say basic [redacted:basic]"),
        ("postgres://me:p:w@host/db?x=1", "postgres://me:[redacted:url-password]@host/db?x=1"),
        ("redis://:pw@host:6379", "redis://:[redacted:url-password]@host:6379"),
        (&format!("a {rsa} b"), "a [redacted:private-key] b"),
        (&format!("KEY=\"{pgp}\""), "KEY=\"[redacted:private-key]\""),
        (&format!("PRIVATE_KEY=\"{rsa}\""), "PRIVATE_KEY=\"[redacted:private-key]\""),
        (rsa.split_at(40).0, "[redacted:private-key]"),
    ] {
        assert_eq!(text(given).as_deref(), Some(expected), "{given}");
        let json = serde_json::to_string(given).unwrap();
        assert_eq!(redacted(&json), Some(serde_json::to_string(expected).unwrap()), "{given}");
    }
}

#[test]
fn a_payload_that_would_become_too_long_is_replaced_whole() {
    let json = format!("{{{}\"pwd\":1}}", "\"pwd\":1,".repeat(8_000));
    assert_eq!(redacted(&json).as_deref(), Some("\"[redacted:whole]\""));
}

/// Hostile and harmless payloads of 64 KiB, or of what comes near it.
fn long_payloads() -> Vec<(&'static str, Payload)> {
    let texts = [
        ("prose", "Nothing is secret here, and so nothing is replaced. "),
        ("code", "let max_tokens = self.limits.get(&name)?;\n    if a - b == c_d { return Err(x); }\n"),
        ("dashes", "-"),
        ("half prefixes", "sk-"),
        ("half prefixes with words", "sk-abc sk_test_"),
        ("half tokens", "eyJ"),
        ("half tokens with dots", "eyJ.-"),
        ("half blocks", "-----BEGIN "),
        ("half urls", "a://b:"),
        ("quotes", "token=\\\""),
        ("colons", "token:"),
        ("headers", "bearer basic "),
        ("escapes", "\n\u{1}"),
    ];
    let texts = texts.map(|(name, part)| {
        let of = |length| Payload::of(&part.chars().cycle().take(length).collect::<String>()).ok();
        (name, [65_000, 50_000, 30_000, 15_000].into_iter().find_map(of).unwrap())
    });
    let keys: String = (0..6_000).map(|_| "\"key\":1,").collect();
    let keys = serde_json::from_str(&format!("{{{keys}\"a\":1}}")).unwrap();
    texts.into_iter().chain([("keys", keys)]).collect()
}

/// The shortest of a few times that a payload takes.
fn time(given: &Payload, rounds: u32) -> Duration {
    let one = || {
        let begun = Instant::now();
        for _ in 0..rounds {
            black_box(payload(black_box(given)));
        }
        begun.elapsed().checked_div(rounds).unwrap()
    };
    (0..5).map(|_| one()).min().unwrap()
}

/// With `--release -- --nocapture`, it tells how long each takes: less than 1 ms, or 1 µs for the small one, unless it is hostile.
#[test]
#[expect(clippy::print_stderr, reason = "it is there to be read")]
fn no_payload_takes_much_longer_than_prose() {
    let small =
        r#"{"url":"https://example.com/a/b?page=2","retries":3,"query":"the best of all","max_tokens":500}"#;
    eprintln!("small: {:?}", time(&serde_json::from_str(small).unwrap(), 1_000));
    let prose = time(&long_payloads().first().unwrap().1, 5);
    for (name, given) in long_payloads() {
        let taken = time(&given, 5);
        eprintln!("{name}: {taken:?}");
        // Quadratic time would be thousands of times as long.
        assert!(taken < prose.saturating_mul(100), "{name}: {taken:?}, and prose {prose:?}");
    }
}

/// JSON without secrets, and with all that readers of values refuse.
fn harmless_json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        "[ -~é]{0,12}".prop_filter("names no secret", |text| super::text(text).is_none()
            && !super::names::is_secret(text)),
        prop::sample::select(&HARMLESS[..]).prop_map(str::to_owned),
    ];
    let string = string.prop_map(|text| serde_json::to_string(&text).unwrap());
    let scalar = prop::sample::select(vec!["null", "true", "-1.5e999", "0", "\"\\ud800\"", "\"\\u00e9\\/\""]);
    let leaf = prop_oneof![string.clone(), scalar.prop_map(str::to_owned)];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let pair = (string.clone(), inner.clone()).prop_map(|(key, value)| format!("{key} :{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(pair, 0..4).prop_map(|items| format!("{{{}}}", items.join(","))),
        ]
    })
}

/// A secret that no JSON escape changes, as it stands in a string.
fn planted_text() -> impl Strategy<Value = (String, String)> {
    let around = prop::sample::select(vec!["", " ", "\\n", "\u{e9} ", "(", "\\u003e", "\\\\n", "a b "]);
    let behind = prop::sample::select(vec!["", " ", "\\n", " \u{e9}", ")", "\\\"", ", a"]);
    (around, prop::sample::select(planted()), behind)
        .prop_map(|(before, (secret, _), behind)| (format!("\"{before}{secret}{behind}\""), secret))
}

proptest! {
    #[test]
    fn json_without_secrets_stays(json in harmless_json()) {
        prop_assert_eq!(redacted(&json), None);
    }

    #[test]
    fn a_planted_secret_never_survives(
        mut json in harmless_json(), (string, secret) in planted_text(), place in any::<prop::sample::Index>(), as_key: bool,
    ) {
        let quotes = strings(&json);
        json = if quotes.is_empty() {
            if as_key { format!("{{{string}:{json}}}") } else { format!("[{json},{string}]") }
        } else {
            let (before, replaced) = json.split_at(*place.get(&quotes));
            let (_, after) = replaced.split_at(first_value(replaced).len());
            format!("{before}{string}{after}")
        };
        let after = redacted(&json).unwrap();
        prop_assert!(!after.contains(&secret), "{json} -> {after}");
        prop_assert!(!after.contains(secret.split_at(secret.len().saturating_sub(12)).1), "{json} -> {after}");
        prop_assert_eq!(redacted(&after), None, "{} -> {}", json, after);
    }

    #[test]
    fn any_json_that_is_a_payload_stays_one(json in "[\\[\\]{}\":, a\\\\uD80pwd:=-]{0,40}") {
        if let Some(redacted) = serde_json::from_str(&json).ok().and_then(|given| payload(&given)) {
            prop_assert!(serde_json::from_str::<Payload>(redacted.as_json()).is_ok());
        }
    }

    #[test]
    fn any_text_is_gone_through(given in "\\PC{0,60}") {
        let _any = text(&given);
    }
}

/// The value that JSON text begins with.
fn first_value(json: &str) -> String {
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<Box<serde_json::value::RawValue>>();
    values.next().unwrap().unwrap().get().to_owned()
}

/// Where the strings of JSON begin.
fn strings(json: &str) -> Vec<usize> {
    let (mut places, mut in_string, mut escaped) = (Vec::new(), false, false);
    for (at, byte) in json.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                if !in_string {
                    places.push(at);
                }
                in_string = !in_string;
            }
            _ => {}
        }
    }
    places
}
