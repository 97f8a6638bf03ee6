//! What a peer sends on either socket: any bytes, in any pieces.
//!
//! Invariant: no bytes panic the reader; where they are cut changes nothing; what decodes encodes, and decodes to the same again.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use sentinel_proto::{FrameReader, admin, app, encode_frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    read::<app::Request>(bytes);
    read::<app::Reply>(bytes);
    read::<admin::Request>(bytes);
    read::<admin::Reply>(bytes);
});

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Some((cut, stream)) = bytes.split_first() {
        let whole = messages::<T>(stream, usize::MAX);
        assert_eq!(whole, messages(stream, usize::from(*cut).max(1)), "it matters where the bytes are cut");
    }
    // A length that fits is hard to come by: the same bytes as one frame's body.
    let length = u32::try_from(bytes.len()).expect("the fuzzer's bytes are few");
    let frame = [&length.to_le_bytes(), bytes].concat();
    for message in messages::<T>(&frame, usize::MAX) {
        let encoded = encode_frame(&message).expect("what was decoded can be encoded");
        let again = messages::<T>(&encoded, usize::MAX);
        assert_eq!(again.len(), 1, "{message:?} encodes to what doesn't decode");
        assert_eq!(again[0], message, "it decodes to something else");
        assert_eq!(encode_frame(&again[0]).ok(), Some(encoded), "a message has two forms");
    }
}

/// The messages up to the first error.
fn messages<T: DeserializeOwned>(stream: &[u8], cut: usize) -> Vec<T> {
    let (mut reader, mut messages) = (FrameReader::new(), Vec::new());
    for piece in stream.chunks(cut) {
        reader.push(piece);
        loop {
            match reader.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
    }
    messages
}
