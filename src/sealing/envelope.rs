//! One sealed blob.
//!
//! ```text
//! byte  0       version, 1
//! byte  1       flags: bit 0 = the content is a zstd frame
//! bytes 2..14   nonce, random
//! bytes 14..    AES-256-GCM ciphertext of the padded plaintext, then the 16-byte tag
//!
//! padded plaintext = content length (4 bytes, big-endian) ‖ content ‖ zeros
//! associated data  = bytes 0..2 ‖ what the caller binds the blob to
//! ```
//!
//! The padded plaintext has a Padmé length. Content above 512 bytes is compressed first if that
//! makes the blob smaller; the true length lies inside the ciphertext.
//!
//! Nonces are random: with 96 bits a key may seal 2³² blobs before the chance of a repetition
//! passes 2⁻³², and a person's key seals some millions in a lifetime.

use std::fmt;
use std::io::Read;

use aws_lc_rs::aead::{self, AES_256_GCM, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;

use super::aad::Aad;
use super::padme::padded_len;

/// Longest content that is sealed, and the most that one blob may decompress to, in bytes.
pub const MAX_CONTENT: usize = 64 * 1024 * 1024;

const VERSION: u8 = 1;
const FLAG_ZSTD: u8 = 1;
const HEADER_LEN: usize = 2;
const PREFIX_LEN: usize = HEADER_LEN + NONCE_LEN;
const LENGTH_LEN: usize = 4;
const COMPRESS_ABOVE: usize = 512;
/// Level 3 is zstd's own default: higher ones cost several times the time for a few per cent.
const ZSTD_LEVEL: i32 = 3;

/// The blob does not open: wrong key, wrong place, damaged or not a blob at all. Deliberately one
/// error, which tells whoever probes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed content does not open")]
pub struct OpenError;

/// Why content could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("content of {length} bytes is too long to seal")]
    TooLong { length: usize },
    #[error("the cipher or the random source of the operating system failed")]
    Cipher,
}

/// A key that seals and opens.
pub struct SealingKey(LessSafeKey);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

impl SealingKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// [`SealError::Cipher`] where the library cannot set the cipher up.
    pub fn new(bytes: &[u8; 32]) -> Result<Self, SealError> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| SealError::Cipher)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals `content` so that it opens only with this key and the same associated data.
    ///
    /// # Errors
    /// [`SealError::TooLong`] above [`MAX_CONTENT`].
    pub fn seal(&self, aad: &Aad, content: &[u8]) -> Result<Vec<u8>, SealError> {
        if content.len() > MAX_CONTENT {
            return Err(SealError::TooLong { length: content.len() });
        }
        match compress(content) {
            Some(frame) => self.seal_as(FLAG_ZSTD, aad, &frame),
            None => self.seal_as(0, aad, content),
        }
    }

    fn seal_as(&self, flags: u8, aad: &Aad, content: &[u8]) -> Result<Vec<u8>, SealError> {
        let too_long = |_| SealError::TooLong { length: content.len() };
        let length = u32::try_from(content.len()).map_err(too_long)?;
        let padded = padded_len(LENGTH_LEN + content.len());

        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealError::Cipher)?;

        let header = [VERSION, flags];
        let mut blob = Vec::with_capacity(PREFIX_LEN + padded + AES_256_GCM.tag_len());
        blob.extend_from_slice(&header);
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(&length.to_be_bytes());
        blob.extend_from_slice(content);
        blob.resize(PREFIX_LEN + padded, 0);

        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, bind(header, aad), &mut blob[PREFIX_LEN..])
            .map_err(|_| SealError::Cipher)?;
        blob.extend_from_slice(tag.as_ref());
        Ok(blob)
    }

    /// The content of a blob.
    ///
    /// # Errors
    /// [`OpenError`] unless key, associated data and every bit are those of the sealing.
    pub fn open(&self, aad: &Aad, blob: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (prefix, ciphertext) = blob.split_first_chunk::<PREFIX_LEN>().ok_or(OpenError)?;
        let [VERSION, flags, nonce @ ..] = *prefix else { return Err(OpenError) };
        if flags & !FLAG_ZSTD != 0 {
            return Err(OpenError);
        }

        let mut padded = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plaintext = self
            .0
            .open_in_place(nonce, bind([VERSION, flags], aad), &mut padded)
            .map_err(|_| OpenError)?;

        let (length, rest) = plaintext.split_first_chunk::<LENGTH_LEN>().ok_or(OpenError)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| OpenError)?;
        if length > rest.len() {
            return Err(OpenError);
        }
        if flags & FLAG_ZSTD != 0 {
            return decompress(&rest[..length]);
        }
        // The content is moved to the front of the buffer it was opened in: no second copy.
        padded.copy_within(LENGTH_LEN..LENGTH_LEN + length, 0);
        padded.truncate(length);
        Ok(padded)
    }
}

/// The header is authenticated with the rest, so that a flipped flag does not open.
fn bind(header: [u8; HEADER_LEN], aad: &Aad) -> aead::Aad<Vec<u8>> {
    aead::Aad::from([&header, aad.as_bytes()].concat())
}

/// The content as a zstd frame, where that gives a shorter blob.
fn compress(content: &[u8]) -> Option<Vec<u8>> {
    if content.len() <= COMPRESS_ABOVE {
        return None;
    }
    let frame = zstd::bulk::compress(content, ZSTD_LEVEL).ok()?;
    let helps = padded_len(LENGTH_LEN + frame.len()) < padded_len(LENGTH_LEN + content.len());
    helps.then_some(frame)
}

fn decompress(frame: &[u8]) -> Result<Vec<u8>, OpenError> {
    let limit = u64::try_from(MAX_CONTENT).map_err(|_| OpenError)?;
    let decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(|_| OpenError)?;
    let mut content = Vec::new();
    decoder.take(limit + 1).read_to_end(&mut content).map_err(|_| OpenError)?;
    if content.len() > MAX_CONTENT {
        return Err(OpenError);
    }
    Ok(content)
}
