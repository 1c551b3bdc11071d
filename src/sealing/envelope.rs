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

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use aws_lc_rs::aead::{self, AES_256_GCM, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zstd::bulk::{Compressor, Decompressor};

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
/// Single events and states are short: a level below takes half the time and a few bytes more.
const ZSTD_LEVEL_SHORT: i32 = 1;
const SHORT: usize = 4096;

thread_local! {
    // Setting zstd up takes longer than most events need, and a replay opens millions. Either is
    // `None` where there was no memory for it: then nothing is compressed, and nothing that is
    // compressed opens.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::new(ZSTD_LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::new().ok());
}

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
        self.open_in(aad, blob, &mut Vec::new()).map(Cow::into_owned)
    }

    /// As [`open`](Self::open), in memory that the next blob can be opened in as well.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in<'b>(
        &self,
        aad: &Aad,
        blob: &[u8],
        buffer: &'b mut Vec<u8>,
    ) -> Result<Cow<'b, [u8]>, OpenError> {
        let (prefix, ciphertext) = blob.split_first_chunk::<PREFIX_LEN>().ok_or(OpenError)?;
        let [VERSION, flags, nonce @ ..] = *prefix else { return Err(OpenError) };
        if flags & !FLAG_ZSTD != 0 {
            return Err(OpenError);
        }

        buffer.clear();
        buffer.extend_from_slice(ciphertext);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plaintext = self
            .0
            .open_in_place(nonce, bind([VERSION, flags], aad), buffer)
            .map_err(|_| OpenError)?;

        let (length, rest) = plaintext.split_first_chunk::<LENGTH_LEN>().ok_or(OpenError)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| OpenError)?;
        let content = rest.get(..length).ok_or(OpenError)?;
        if flags & FLAG_ZSTD != 0 {
            return decompress(content).map(Cow::Owned);
        }
        Ok(Cow::Borrowed(content))
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
    let frame = COMPRESSOR.with(|kept| {
        let mut kept = kept.try_borrow_mut().ok()?;
        let compressor = kept.as_mut()?;
        let level = if content.len() <= SHORT { ZSTD_LEVEL_SHORT } else { ZSTD_LEVEL };
        compressor.set_compression_level(level).ok()?;
        compressor.compress(content).ok()
    })?;
    let helps = padded_len(LENGTH_LEN + frame.len()) < padded_len(LENGTH_LEN + content.len());
    helps.then_some(frame)
}

/// The content of a frame. It says itself how long it gets, and is refused above [`MAX_CONTENT`].
fn decompress(frame: &[u8]) -> Result<Vec<u8>, OpenError> {
    let content = DECOMPRESSOR.with(|kept| {
        let mut kept = kept.try_borrow_mut().ok()?;
        kept.as_mut()?.decompress(frame, MAX_CONTENT).ok()
    });
    content.ok_or(OpenError)
}

#[cfg(test)]
mod tests {
    use aggregates::StreamId;
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(&[byte; 32]).unwrap()
    }

    fn aad(sequence: i64) -> Aad {
        Aad::state(&StreamId::new("session", "s1"), sequence)
    }

    fn text(length: usize) -> Vec<u8> {
        b"The quick brown fox. ".iter().copied().cycle().take(length).collect()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        rand::fill(&mut bytes).unwrap();
        bytes
    }

    /// A blob made outside this program. Changing the format makes every stored event unreadable.
    #[test]
    fn format_never_changes() {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        let blob = hex::decode(
            "0100000102030405060708090a0b4702d61cbec7ba39b770ea8bf71e0122f6b963708e37c8f049e52794",
        )
        .unwrap();
        let opened = SealingKey::new(&bytes).unwrap().open(&aad(4), &blob);
        assert_eq!(opened, Ok(br#"{"x":1}"#.to_vec()));
    }

    #[test]
    fn lengths_are_padded() {
        let overhead = PREFIX_LEN + AES_256_GCM.tag_len();
        for length in [0, 1, 7, 100, 512, 513, 4_096, 100_000] {
            let blob = key(1).seal(&aad(1), &noise(length)).unwrap();
            assert_eq!(blob.len(), overhead + padded_len(LENGTH_LEN + length), "of {length}");
            assert_eq!(padded_len(blob.len() - overhead), blob.len() - overhead);
        }
        let one = key(1).seal(&aad(1), &noise(1_000)).unwrap();
        let two = key(1).seal(&aad(1), &noise(1_010)).unwrap();
        assert_eq!(one.len(), two.len());
    }

    #[test]
    fn compresses_above_512_bytes_where_it_helps() {
        let flags = |content: &[u8]| key(1).seal(&aad(1), content).unwrap()[1];
        assert_eq!(flags(&text(512)), 0);
        assert_eq!(flags(&text(513)), FLAG_ZSTD);
        assert_eq!(flags(&noise(5_000)), 0);
    }

    #[test]
    fn decompression_is_bounded() {
        let key = key(1);
        let frame = zstd::bulk::compress(&vec![0; MAX_CONTENT + 1], 1).unwrap();
        assert!(frame.len() < 20_000);
        let bomb = key.seal_as(FLAG_ZSTD, &aad(1), &frame).unwrap();
        assert_eq!(key.open(&aad(1), &bomb), Err(OpenError));

        // A frame need not say how long it gets.
        let silent = zstd::stream::encode_all(&*vec![0; MAX_CONTENT + 1], 1).unwrap();
        let bomb = key.seal_as(FLAG_ZSTD, &aad(1), &silent).unwrap();
        assert_eq!(key.open(&aad(1), &bomb), Err(OpenError));

        let largest = vec![0; MAX_CONTENT];
        let sealed = key.seal(&aad(1), &largest).unwrap();
        assert!(key.open(&aad(1), &sealed) == Ok(largest));
        let too_long = SealError::TooLong { length: MAX_CONTENT + 1 };
        assert_eq!(key.seal(&aad(1), &vec![0; MAX_CONTENT + 1]), Err(too_long));
    }

    #[test]
    fn a_broken_frame_does_not_open() {
        let key = key(1);
        for content in [&b"not a frame"[..], &[0x28, 0xb5, 0x2f, 0xfd]] {
            let blob = key.seal_as(FLAG_ZSTD, &aad(1), content).unwrap();
            assert_eq!(key.open(&aad(1), &blob), Err(OpenError));
        }
    }

    #[test]
    fn a_broken_frame_leaves_nothing_behind() {
        let (key, content) = (key(1), text(5_000));
        let mut frame = compress(&content).unwrap();
        frame.truncate(frame.len() / 2);
        let broken = key.seal_as(FLAG_ZSTD, &aad(1), &frame).unwrap();
        let whole = key.seal(&aad(1), &content).unwrap();
        assert_eq!(key.open(&aad(1), &broken), Err(OpenError));
        assert_eq!(key.open(&aad(1), &whole), Ok(content));
    }

    #[test]
    fn the_same_content_seals_differently_each_time() {
        let seal = || key(1).seal(&aad(1), b"same").unwrap();
        assert_ne!(seal(), seal());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn opens_with_the_same_key_and_place_only(
            content in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..2_000),
                (0_usize..5_000).prop_map(text),
            ],
            sequence: i64,
        ) {
            let blob = key(1).seal(&aad(sequence), &content).unwrap();
            prop_assert_eq!(key(1).open(&aad(sequence), &blob), Ok(content));
            prop_assert_eq!(key(2).open(&aad(sequence), &blob), Err(OpenError));
            prop_assert_eq!(key(1).open(&aad(sequence.wrapping_add(1)), &blob), Err(OpenError));
        }

        #[test]
        fn any_flipped_bit_is_noticed(
            length in 0_usize..1_500,
            at: prop::sample::Index,
            bit in 0_u8..8,
        ) {
            let mut blob = key(1).seal(&aad(1), &text(length)).unwrap();
            let at = at.index(blob.len());
            blob[at] ^= 1 << bit;
            prop_assert_eq!(key(1).open(&aad(1), &blob), Err(OpenError));
        }

        #[test]
        fn a_shortened_blob_is_noticed(length in 0_usize..600, at: prop::sample::Index) {
            let blob = key(1).seal(&aad(1), &text(length)).unwrap();
            let end = at.index(blob.len());
            prop_assert_eq!(key(1).open(&aad(1), &blob[..end]), Err(OpenError));
        }

        #[test]
        fn arbitrary_bytes_never_panic(blob: Vec<u8>, flags in 0_u8..3) {
            prop_assert_eq!(key(1).open(&aad(1), &blob), Err(OpenError));
            let headed = [&[VERSION, flags][..], &blob].concat();
            prop_assert_eq!(key(1).open(&aad(1), &headed), Err(OpenError));
        }

        /// As if the one who holds the key had sealed nonsense: frames and lengths are not trusted.
        #[test]
        fn arbitrary_sealed_frames_never_panic(
            head in prop_oneof![Just(vec![]), Just(vec![0x28, 0xb5, 0x2f, 0xfd])],
            rest: Vec<u8>,
        ) {
            let blob = key(1).seal_as(FLAG_ZSTD, &aad(1), &[head, rest].concat()).unwrap();
            let _ = key(1).open(&aad(1), &blob);
        }
    }
}
