//! No warning either, with the strictest lints.
#![deny(warnings, unused, unused_qualifications)]

use sentinel_sdk::guarded_action;

#[guarded_action]
fn plain() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

#[guarded_action()]
fn empty_parentheses() -> std::io::Result<u8> {
    Ok(1)
}

#[guarded_action(name = "everything", cost_usd = 1, tags = ["a", "b"], skip(secret), inputs = true, outputs = true,)]
pub(crate) async fn everything<T: Clone>(secret: &T, mut count: u8) -> Result<T, Box<dyn std::error::Error>> {
    count += 1;
    if count == 0 {
        return Err("wrapped".into());
    }
    std::future::ready(()).await;
    Ok(secret.clone())
}

/// Documented, and with attributes of its own.
#[inline]
#[guarded_action(cost_usd = 0.000_001)]
unsafe fn attributes() -> Result<Self_, sentinel_sdk::Error> {
    Ok(Self_)
}

type Short<T> = Result<T, sentinel_sdk::Error>;
struct Self_;

impl Self_ {
    #[guarded_action]
    fn alias(&self) -> Short<&Self> {
        Ok(self)
    }

    #[guarded_action]
    async fn hidden(self: Box<Self>) -> Short<impl Send + use<>> {
        Ok(1_u8)
    }

    #[guarded_action]
    fn const_generic<const N: usize>(self: &std::sync::Arc<Self>, bytes: [u8; N]) -> Short<u8> where [u8; N]: Sized {
        Ok(bytes[0])
    }
}

fn main() {
    let _ = (plain, empty_parentheses, everything::<u8>, attributes, Self_::alias, Self_::hidden);
    let _ = Self_::const_generic::<2>;
}
