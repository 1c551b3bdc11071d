//! The plaintext of a sealed event.
//!
//! Payload, personal metadata and packed part go into one blob: one nonce, one tag and one padding
//! for all three, and nothing tells how the length divides.

use super::envelope::OpenError;
use super::fields::Fields;

/// What is sealed of one event.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EventContent {
    /// The payload: JSON text.
    pub payload: String,
    /// The personal part of the metadata: JSON text.
    pub metadata: String,
    /// The packed binary part; empty for most events.
    pub blob: Vec<u8>,
}

impl EventContent {
    /// Payload, metadata and packed part, each after its length (4 bytes, big-endian).
    pub fn to_bytes(&self) -> Vec<u8> {
        Fields::default().text(&self.payload).text(&self.metadata).bytes(&self.blob).into_bytes()
    }

    /// The three parts back.
    ///
    /// # Errors
    /// [`OpenError`] where lengths do not add up or a text is not UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OpenError> {
        let (payload, rest) = split(bytes)?;
        let (metadata, rest) = split(rest)?;
        let (blob, rest) = split(rest)?;
        if !rest.is_empty() {
            return Err(OpenError);
        }
        Ok(Self { payload: text(payload)?, metadata: text(metadata)?, blob: blob.to_vec() })
    }
}

fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), OpenError> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(OpenError)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| OpenError)?;
    rest.split_at_checked(length).ok_or(OpenError)
}

fn text(bytes: &[u8]) -> Result<String, OpenError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| OpenError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_come_back(payload: String, metadata: String, blob: Vec<u8>) {
            let content = EventContent { payload, metadata, blob };
            prop_assert_eq!(EventContent::from_bytes(&content.to_bytes()), Ok(content));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(content) = EventContent::from_bytes(&bytes) {
                prop_assert_eq!(content.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = EventContent::default().to_bytes();
        bytes.push(0);
        assert_eq!(EventContent::from_bytes(&bytes), Err(OpenError));
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(EventContent::from_bytes(&[0xff; 16]), Err(OpenError));
    }
}
