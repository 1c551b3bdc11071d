//! Keyed hashes and ids.
//!
//! A plain digest of personal content can be guessed back; these cannot without the key, and with a
//! person's key they die with it.

use aws_lc_rs::hmac;
use siphasher::sip::SipHasher24;
use uuid::Uuid;

use super::{KeyError, Secret};
use crate::sealing::Fields;

/// HMAC-SHA-256 of something personal: what the database keeps instead of it.
pub type Pseudonym = [u8; 32];

/// An HMAC-SHA-256 key. Kept as its bytes: the library's prepared form takes over a kilobyte, which
/// would be most of a key cache, and saves less than half a microsecond a hash. Who makes hundreds of
/// hashes for one request prepares the key for it.
#[derive(Debug)]
pub(super) struct HashKey(Secret);

impl HashKey {
    pub(super) fn derive(root: &Secret, label: &str) -> Result<Self, KeyError> {
        root.derive(label).map(Self)
    }

    pub(super) fn hash(&self, input: impl AsRef<[u8]>) -> Pseudonym {
        self.prepared().hash(input)
    }

    /// For many hashes in a row.
    fn prepared(&self) -> Prepared {
        Prepared(hmac::Key::new(hmac::HMAC_SHA256, self.0.expose()))
    }
}

/// A key in the library's prepared form, for as long as one request takes.
struct Prepared(hmac::Key);

impl Prepared {
    fn hash(&self, input: impl AsRef<[u8]>) -> Pseudonym {
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.0, input.as_ref()).as_ref());
        hash
    }
}

/// Hashes under keys derived from a person's identity key.
#[derive(Debug)]
pub struct IdentityHashes {
    receipts: HashKey,
    aliases: HashKey,
    content: HashKey,
    digest: HashKey,
}

impl IdentityHashes {
    pub(super) fn derive(root: &Secret) -> Result<Self, KeyError> {
        Ok(Self {
            receipts: HashKey::derive(root, "receipts")?,
            aliases: HashKey::derive(root, "aliases")?,
            content: HashKey::derive(root, "content")?,
            digest: HashKey::derive(root, "digest")?,
        })
    }

    /// The key of a receipt. With `content`, the same request id with other content is another
    /// request (a pushed item that was rebased); without, it is the same one.
    pub fn receipt_hash(&self, scope: &str, request_id: &str, content: Option<&[u8]>) -> Pseudonym {
        let fields = Fields::labelled(scope).text(request_id);
        self.receipts.hash(match content {
            Some(content) => fields.bytes(content),
            None => fields,
        })
    }

    /// Stands for a client's own id of an entity. `scope` is the entity's type.
    pub fn alias_hash(&self, scope: &str, client_id: &str) -> Pseudonym {
        self.aliases.hash(Fields::labelled(scope).text(client_id))
    }

    /// Tells whether two requests of one person carried the same content.
    pub fn content_hash(&self, scope: &str, content: &[u8]) -> Pseudonym {
        self.content.hash(Fields::labelled(scope).bytes(content))
    }

    /// The hash of an entity's canonical synced fields, as clients compute it too:
    /// HMAC-SHA-256 over exactly these bytes.
    pub fn row_digest(&self, canonical: &[u8]) -> Pseudonym {
        self.digest.hash(canonical)
    }

    /// The key of [`row_digest`](Self::row_digest), which the person's own clients are given.
    pub fn digest_key(&self) -> &Secret {
        &self.digest.0
    }
}

/// Ids and hashes under keys derived from a person's health key.
#[derive(Debug)]
pub struct HealthHashes {
    sample_ids: HashKey,
    tombstones: HashKey,
    fold: Secret,
}

impl HealthHashes {
    pub(super) fn derive(root: &Secret) -> Result<Self, KeyError> {
        Ok(Self {
            sample_ids: HashKey::derive(root, "sample ids")?,
            tombstones: HashKey::derive(root, "tombstones")?,
            fold: root.derive("folds")?,
        })
    }

    /// The ids of one request's samples.
    pub fn sample_ids(&self) -> SampleIds {
        SampleIds(self.sample_ids.prepared())
    }

    /// The hashes of one request's tombstones.
    pub fn tombstones(&self) -> TombstoneHashes {
        TombstoneHashes(self.tombstones.prepared())
    }

    /// Four bytes that stand for a record id beside a sealed segment: equal ids have equal folds,
    /// and one in 2³² of the others has too. The low half of SipHash-2-4.
    pub fn fold(&self, record_id: &str) -> u32 {
        let mut key = [0; 16];
        key.copy_from_slice(&self.fold.expose()[..16]);
        let hash = SipHasher24::new_with_key(&key).hash(record_id.as_bytes());
        let [a, b, c, d, ..] = hash.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

/// See [`HealthHashes::sample_ids`].
pub struct SampleIds(Prepared);

impl SampleIds {
    /// The id of a sample (UUID version 8): always the same for the same source, record and start
    /// (ms since the Unix epoch), so that it need not be stored.
    pub fn of(&self, source: &str, record: &str, start_ms: i64) -> Uuid {
        let hash =
            self.0.hash(Fields::labelled("sample").text(source).text(record).integer(start_ms));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// See [`HealthHashes::tombstones`].
pub struct TombstoneHashes(Prepared);

impl TombstoneHashes {
    /// Stands for the deletion of a record that is not stored: of the sample with this start (ms
    /// since the Unix epoch), or of the whole record.
    pub fn hash(&self, source: &str, record: &str, start_ms: Option<i64>) -> Pseudonym {
        let label = if start_ms.is_some() { "sample" } else { "record" };
        let fields = Fields::labelled(label).text(source).text(record);
        self.0.hash(match start_ms {
            Some(start_ms) => fields.integer(start_ms),
            None => fields,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::uuid;

    use super::*;

    fn root() -> Secret {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        Secret::from(bytes)
    }

    /// Computed outside this program. Other values would make every retry a new request, every
    /// client id unknown and every sample a duplicate.
    #[test]
    fn values_never_change() {
        let identity = IdentityHashes::derive(&root()).unwrap();
        let hashes = [
            (
                identity.receipt_hash("push", "r1", None),
                "71c1a06d2e574bd0fca04529c1d9a4636305a8fa45eb92695adda4d004f350f5",
            ),
            (
                identity.receipt_hash("push", "r1", Some(b"{}")),
                "71f5bb127e3aee4e96048db22e797c4a528d1ca07d4521d0cf07449c1a71c506",
            ),
            (
                identity.alias_hash("session", "c1"),
                "ef6e5cc99e1bc7b5b49ebf088e670925559bf0b0810e053a09a4bfc2b70ddbc2",
            ),
            (
                identity.content_hash("health", b"{}"),
                "984401e1a72dbf6ac31e0089413cfbf8c1f74cfdc3f241896a6dc3b49ade3851",
            ),
            (
                identity.row_digest(b"{}"),
                "bf70b4ab7f7e733bf014801c76ce47ce4eafd602e14c83930cbd2d30f058b1a8",
            ),
        ];
        for (hash, expected) in hashes {
            assert_eq!(hex::encode(hash), expected);
        }

        let health = HealthHashes::derive(&root()).unwrap();
        let sample = health.sample_ids().of("watch", "r-1", 1_700_000_000_123);
        assert_eq!(sample, uuid!("7de9ca19-b165-8bdb-9872-b5aa81742f7a"));
        assert_eq!(health.fold("r-1"), 0xd9b6_fc72);
        let tombstones = [Some(1_700_000_000_123), None]
            .map(|start| hex::encode(health.tombstones().hash("watch", "r-1", start)));
        assert_eq!(
            tombstones,
            [
                "a72af2cfeb6b533ad1cd6f4d08b5b2c28e293213ddea910f6b099c6960589184",
                "41634b8289096284fe82be885cb0e84185b465add0cd50f347e9bb837b8d2396",
            ]
        );
    }

    #[test]
    fn no_content_is_not_empty_content() {
        let hashes = IdentityHashes::derive(&root()).unwrap();
        let hash = |content| hashes.receipt_hash("push", "r1", content);
        assert_ne!(hash(None), hash(Some(b"")));
    }

    #[test]
    fn clients_can_compute_row_digests() {
        let hashes = IdentityHashes::derive(&root()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, hashes.digest_key().expose());
        assert_eq!(hmac::sign(&key, b"{}").as_ref(), hashes.row_digest(b"{}"));
    }

    #[test]
    fn people_have_different_sample_ids() {
        let ids = [root(), Secret::random().unwrap()]
            .map(|root| HealthHashes::derive(&root).unwrap().sample_ids().of("watch", "r-1", 0));
        assert_ne!(ids[0], ids[1]);
    }

    proptest! {
        #[test]
        fn a_sample_id_is_of_source_record_and_start(
            one in ("[a-c]{0,3}", "[a-c]{0,3}", 0_i64..3),
            two in ("[a-c]{0,3}", "[a-c]{0,3}", 0_i64..3),
        ) {
            let hashes = HealthHashes::derive(&root()).unwrap();
            let id = |(source, record, start): &(String, String, i64)| {
                hashes.sample_ids().of(source, record, *start)
            };
            prop_assert_eq!(id(&one) == id(&two), one == two);
            prop_assert_eq!(id(&one).get_version_num(), 8);
        }
    }
}
