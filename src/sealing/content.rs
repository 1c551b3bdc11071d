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
}

/// The same, in the memory it was opened in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventParts<'a> {
    pub payload: &'a str,
    pub metadata: &'a str,
    pub blob: &'a [u8],
}

impl<'a> EventParts<'a> {
    /// The three parts of what [`EventContent::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`OpenError`] where lengths do not add up or a text is not UTF-8.
    pub fn of(bytes: &'a [u8]) -> Result<Self, OpenError> {
        let (payload, rest) = split(bytes)?;
        let (metadata, rest) = split(rest)?;
        let (blob, rest) = split(rest)?;
        if !rest.is_empty() {
            return Err(OpenError);
        }
        Ok(Self { payload: text(payload)?, metadata: text(metadata)?, blob })
    }
}

fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), OpenError> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(OpenError)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| OpenError)?;
    rest.split_at_checked(length).ok_or(OpenError)
}

fn text(bytes: &[u8]) -> Result<&str, OpenError> {
    std::str::from_utf8(bytes).map_err(|_| OpenError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lent(content: &EventContent) -> EventParts<'_> {
        let EventContent { payload, metadata, blob } = content;
        EventParts { payload, metadata, blob }
    }

    proptest! {
        #[test]
        fn parts_come_back(payload: String, metadata: String, blob: Vec<u8>) {
            let content = EventContent { payload, metadata, blob };
            let bytes = content.to_bytes();
            prop_assert_eq!(EventParts::of(&bytes), Ok(lent(&content)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(EventParts { payload, metadata, blob }) = EventParts::of(&bytes) {
                let content = EventContent {
                    payload: payload.to_owned(),
                    metadata: metadata.to_owned(),
                    blob: blob.to_vec(),
                };
                prop_assert_eq!(content.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = EventContent::default().to_bytes();
        bytes.push(0);
        assert_eq!(EventParts::of(&bytes), Err(OpenError));
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(EventParts::of(&[0xff; 16]), Err(OpenError));
    }
}
