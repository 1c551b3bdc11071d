//! 32 secret bytes.

use std::fmt;
use std::hint::black_box;

use aws_lc_rs::{digest, hkdf, rand};

use super::KeyError;

/// Names the use of HKDF; changing it changes every derived key.
const HKDF_SALT: &[u8] = b"tidemark key derivation v1";

/// 32 secret bytes. They do not print, are not copied by accident and are overwritten when dropped;
/// what the compiler or the cipher library copied elsewhere is beyond reach.
pub struct Secret([u8; 32]);

impl Secret {
    /// Fresh bytes from the operating system.
    ///
    /// # Errors
    /// [`KeyError::Cipher`] where it has none to give.
    pub fn random() -> Result<Self, KeyError> {
        let mut secret = Self([0; 32]);
        rand::fill(&mut secret.0).map_err(|_| KeyError::Cipher)?;
        Ok(secret)
    }

    /// Takes 32 bytes over; what they lay in is overwritten.
    pub(super) fn take(mut bytes: Vec<u8>) -> Option<Self> {
        let mut secret = Self([0; 32]);
        let fits = bytes.len() == secret.0.len();
        if fits {
            secret.0.copy_from_slice(&bytes);
        }
        bytes.fill(0);
        black_box(&mut bytes);
        fits.then_some(secret)
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key of its own for each label: HKDF-SHA-256 with the label as `info`.
    ///
    /// # Errors
    /// [`KeyError::Cipher`] where the library fails.
    pub fn derive(&self, label: &str) -> Result<Self, KeyError> {
        let mut derived = Self([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, HKDF_SALT)
            .extract(&self.0)
            .expand(&[label.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut derived.0))
            .map_err(|_| KeyError::Cipher)?;
        Ok(derived)
    }

    /// SHA-256 over `prefix` and the bytes, without a copy of them in between.
    pub(super) fn sha256_after(&self, prefix: &[&[u8]]) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in prefix {
            context.update(part);
        }
        context.update(&self.0);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}

impl From<[u8; 32]> for Secret {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without a use after it, the write could be optimised away.
        black_box(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with another implementation of RFC 5869.
    #[test]
    fn derivation_never_changes() {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        let derived = Secret::from(bytes).derive("seal").unwrap();
        assert_eq!(
            hex::encode(derived.expose()),
            "f92dc6bc2444c5fc6271736f5aebafe6a02384989ea089d6a6c22c62f8ddcfa4"
        );
    }

    #[test]
    fn labels_give_different_keys() {
        let root = Secret::random().unwrap();
        let derive = |label| *root.derive(label).unwrap().expose();
        assert_ne!(derive("a"), derive("b"));
        assert_eq!(derive("a"), derive("a"));
    }

    #[test]
    fn does_not_print() {
        assert_eq!(format!("{:?}", Secret::from([0x41; 32])), "Secret(..)");
    }
}
