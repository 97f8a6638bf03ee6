//! Which names tell that what they name is secret.
//!
//! Invariant: case, `_`, `-`, and every other character that is neither a letter nor a digit make no difference.

use super::LABEL;

/// The most letters and digits of a name that are looked at, from its end.
const LOOKED_AT: usize = 40;

/// Endings of names of secrets, by their last letter.
fn endings(last: u8) -> &'static [&'static str] {
    match last {
        b'd' => &["password", "passwd", "pwd"],
        b'e' => &["passphrase", "passcode", "cookie", "signature", "secretkeybase"],
        b'f' => &["csrf"],
        b'h' => &["auth", "passwordhash"],
        b'l' => &["credential"],
        b'm' => &["passwordconfirm"],
        b'n' => &["token", "authorization", "passwordconfirmation"],
        b'r' => &["bearer"],
        b's' => &[
            "passwords",
            "secrets",
            "credentials",
            "creds",
            "cookies",
            "apikeys",
            "accesskeys",
            "secretkeys",
            "privatekeys",
            "accesstokens",
            "refreshtokens",
            "idtokens",
            "authtokens",
            "apitokens",
            "dbpass",
            "userpass",
            "smtppass",
            "rootpass",
            "adminpass",
            "storepass",
            "keypass",
        ],
        b't' => &["secret", "jwt"],
        b'y' => &[
            "apikey",
            "accesskey",
            "secretkey",
            "privatekey",
            "sessionkey",
            "authkey",
            "signingkey",
            "encryptionkey",
            "masterkey",
            "accountkey",
            "servicekey",
            "servicerolekey",
            "sshkey",
        ],
        _ => &[],
    }
}

/// Endings of names that have one of the endings above and are no secrets.
const HARMLESS: [&str; 17] = [
    "pertoken",
    "pagetoken",
    "nexttoken",
    "continuationtoken",
    "eostoken",
    "bostoken",
    "padtoken",
    "unktoken",
    "septoken",
    "clstoken",
    "masktoken",
    "stoptoken",
    "specialtoken",
    "functionsignature",
    "methodsignature",
    "typesignature",
    "callsignature",
];

/// Whether what has this name is secret.
pub(super) fn is_secret(name: &str) -> bool {
    let mut buffer = [0; LOOKED_AT];
    let letters = squashed(name, &mut buffer);
    let letters = letters.strip_suffix(b"value").unwrap_or(letters);
    let ends = |ending: &&str| letters.ends_with(ending.as_bytes());
    let tells = letters.last().is_some_and(|last| endings(*last).iter().any(ends));
    tells && !HARMLESS.iter().any(ends) && !ends_with_label(name)
}

/// Whether the end of the name is what stands for a secret, such as `[redacted:github-token]`.
fn ends_with_label(name: &str) -> bool {
    let label = name.rsplit_once(LABEL).and_then(|(_, kind)| kind.split_once(']'));
    label.is_some_and(|(_, behind)| !behind.contains(|character: char| character.is_ascii_alphanumeric()))
}

/// Whether it is the name of a header whose value is the rest of its line.
pub(super) fn is_header(name: &str) -> bool {
    let mut buffer = [0; LOOKED_AT];
    let name = squashed(name, &mut buffer);
    name.ends_with(b"authorization") || name.ends_with(b"cookie")
}

/// The name's letters and digits in lower case, without digits at its end.
fn squashed<'buffer>(name: &str, buffer: &'buffer mut [u8; LOOKED_AT]) -> &'buffer [u8] {
    let letters = name.bytes().rev().filter(u8::is_ascii_alphanumeric).skip_while(u8::is_ascii_digit);
    let mut unused = LOOKED_AT;
    for (place, letter) in buffer.iter_mut().rev().zip(letters) {
        *place = letter.to_ascii_lowercase();
        unused = unused.saturating_sub(1);
    }
    buffer.get(unused..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in [
            "password",
            "Passwd",
            "PASSPHRASE",
            "pwd",
            "secret",
            "client_secret",
            "clientSecret",
            "api_key",
            "apikey",
            "apiKey",
            "API-KEY",
            "x-api-key",
            "openai_api_key",
            "access_key",
            "AWS_SECRET_ACCESS_KEY",
            "secret_key",
            "private_key",
            "token",
            "access_token",
            "refreshToken",
            "id_token",
            "auth_token",
            "bearer",
            "Authorization",
            "Proxy-Authorization",
            "auth",
            "credential",
            "credentials",
            "cookie",
            "Set-Cookie",
            "session_key",
            "signature",
            "dbPassword",
            "password2",
            "api key",
            "db.password",
            "tokenValue",
            "passwords",
            "access_tokens",
        ] {
            assert!(is_secret(name), "{name}");
        }
    }

    #[test]
    fn names_that_only_resemble_them_are_not() {
        for name in [
            "",
            "max_tokens",
            "token_count",
            "tokens",
            "total_tokens",
            "tokenizer",
            "author",
            "authors",
            "primary_key",
            "cache_key",
            "key",
            "keys",
            "public_key",
            "next_page_token",
            "cost_per_token",
            "function_signature",
            "secretary",
            "compass",
            "cwd",
            "prompt_tokens",
            "value",
            "42",
            "ключ",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn names_are_looked_at_from_their_end_however_long_they_are() {
        assert!(is_secret(&format!("{}_password", "x".repeat(1_000))));
        assert!(!is_secret(&format!("password_{}", "x".repeat(1_000))));
    }
}
