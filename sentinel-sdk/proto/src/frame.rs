//! Frames: a message's JSON text behind its length in four bytes, least significant first.
//!
//! Invariant: no more than one frame's worth of bytes is ever kept for a peer, whatever it sends; a length
//! above [`MAX_FRAME_BYTES`] is an error before a byte of the body is stored.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message, in bytes of JSON.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

const LENGTH_BYTES: usize = 4;

/// Room for a message of ordinary length, so that most are written without growing.
const ORDINARY_BYTES: usize = 256;

/// Why bytes are no frame, or a frame no message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is too long; at most {MAX_FRAME_BYTES} are allowed")]
    TooLong(usize),
    /// A frame of no bytes at all.
    #[error("a frame is empty; a message is a JSON object")]
    Empty,
    /// Not a message of this protocol.
    #[error("a frame is no message of this protocol: {0}")]
    NotAMessage(#[source] serde_json::Error),
    /// A message that can't be written as JSON.
    #[error("a message can't be written: {0}")]
    Unwritable(#[source] serde_json::Error),
}

/// The bytes of a message: its length, then its JSON text.
///
/// # Errors
/// [`FrameError::TooLong`] and [`FrameError::Unwritable`].
pub fn encode_frame<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::with_capacity(ORDINARY_BYTES);
    bytes.extend([0; LENGTH_BYTES]);
    serde_json::to_writer(&mut bytes, message).map_err(FrameError::Unwritable)?;
    let length = bytes.len().saturating_sub(LENGTH_BYTES);
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong(length));
    }
    let prefix = u32::try_from(length).map_err(|_too_long| FrameError::TooLong(length))?.to_le_bytes();
    for (byte, value) in bytes.iter_mut().zip(prefix) {
        *byte = value;
    }
    Ok(bytes)
}

/// Cuts a stream of bytes into messages.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
}

impl FrameReader {
    /// A reader at the beginning of a frame.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what came from the peer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether it stands at the beginning of a frame: where the peer may change, or leave.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes are kept.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next whole message, or none until more bytes have come.
    ///
    /// # Errors
    /// After any error the stream has no known frame border any more: close the connection.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length =
            usize::try_from(u32::from_le_bytes(*prefix)).map_err(|_wide| FrameError::TooLong(usize::MAX))?;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        if length == 0 {
            return Err(FrameError::Empty);
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(FrameError::NotAMessage)?;
        self.bytes.drain(..length.saturating_add(LENGTH_BYTES));
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_longer_than_allowed_is_refused_by_its_length_alone() {
        let mut reader = FrameReader::new();
        reader.push(&u32::MAX.to_le_bytes());
        assert!(matches!(reader.next_message::<String>(), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn an_empty_frame_is_refused() {
        let mut reader = FrameReader::new();
        reader.push(&[0; 4]);
        assert!(matches!(reader.next_message::<String>(), Err(FrameError::Empty)));
    }

    #[test]
    fn garbage_in_a_frame_is_refused() {
        let mut reader = FrameReader::new();
        reader.push(&[3, 0, 0, 0, b'{', 0xff, b'}']);
        assert!(matches!(reader.next_message::<String>(), Err(FrameError::NotAMessage(_))));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_the_bytes_are_cut(
            messages in prop::collection::vec(".{0,40}", 1..8),
            cut in 1_usize..20,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|text| encode_frame(text).unwrap()).collect();
            let mut reader = FrameReader::new();
            let mut read = Vec::new();
            for part in bytes.chunks(cut) {
                reader.push(part);
                while let Some(text) = reader.next_message::<String>().unwrap() {
                    read.push(text);
                }
            }
            prop_assert_eq!(read, messages);
            prop_assert!(reader.is_empty());
        }
    }
}
