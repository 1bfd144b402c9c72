//! Key pairs, peer ids and domain-separated signatures.
//!
//! Source: ed25519 of RFC 8032; section 2 of the verification design (receipts are signed per domain).
//! Deviations: the message that is signed is a BLAKE3 hash of the canonical bytes under the domain's context, and
//! verification is strict (no small-order keys, no second signature for one message and key).
//! It makes no entropy and stores no secret.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::encoding::{Wire, encode};
use crate::hash::{Hash, ParseHexError, parse_hex};

/// A peer's name: its ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PeerId(pub [u8; 32]);

impl PeerId {
    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for PeerId {
    type Err = ParseHexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text).map(Self)
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <String as Deserialize>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A 64-byte ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", hex::encode(&self.0[..4]))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as Deserialize>::deserialize(deserializer)?;
        parse_hex(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What a signature is for. A signature made for one domain never verifies in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A run's charter, signed by its founder.
    Charter,
    /// A receipt, signed by the peer that did the unit.
    Receipt,
    /// A transaction, signed by its author.
    Transaction,
    /// A block header, signed by a validator.
    Block,
    /// An operator's certificate for a peer, signed by the operator.
    Operator,
}

impl Domain {
    fn context(self) -> &'static str {
        match self {
            Self::Charter => "cairn v1 signature charter",
            Self::Receipt => "cairn v1 signature receipt",
            Self::Transaction => "cairn v1 signature transaction",
            Self::Block => "cairn v1 signature block",
            Self::Operator => "cairn v1 signature operator",
        }
    }
}

/// A type that is signed: it names its domain.
pub trait Signable: Wire {
    /// What a signature over this type is for.
    const DOMAIN: Domain;

    /// The hash that is signed, and by which the value is named: of the canonical bytes, under the domain's context.
    fn digest(&self) -> Hash {
        Hash::derive(Self::DOMAIN.context(), &[&encode(self)])
    }

    /// Checks the signatures that the value itself carries: none unless the type says otherwise.
    ///
    /// # Errors
    /// [`SignatureError`] for the first that does not verify.
    fn check_nested(&self) -> Result<(), SignatureError> {
        Ok(())
    }
}

/// A peer's key pair.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.id())
    }
}

impl Identity {
    /// Makes the key pair of a 32-byte secret; entropy is the caller's affair.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(&secret) }
    }

    /// The secret, to be stored with care.
    pub fn secret(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The public name.
    pub fn id(&self) -> PeerId {
        PeerId(self.key.verifying_key().to_bytes())
    }

    /// Signs a value in its domain.
    pub fn sign<T: Signable>(&self, body: T) -> Signed<T> {
        let signature = Signature(self.key.sign(&body.digest().0).to_bytes());
        Signed { signer: self.id(), signature, body }
    }
}

/// A signature does not belong to the value and the signer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signature of `{signer:?}` over this {name} does not verify")]
pub struct SignatureError {
    /// Who is said to have signed.
    pub signer: PeerId,
    /// The type of the signed value.
    pub name: &'static str,
}

/// A value with its signer's signature, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Signed<T> {
    /// Who signed.
    pub signer: PeerId,
    /// The signature over the body's digest.
    pub signature: Signature,
    /// The value.
    pub body: T,
}

impl<T: Signable> Signed<T> {
    /// Checks the signature, and those that the value carries.
    ///
    /// # Errors
    /// [`SignatureError`] when the key is not a point of the curve or the signature does not verify (strictly).
    pub fn verify(self) -> Result<Verified<T>, SignatureError> {
        match self.check() {
            Ok(()) => Ok(Verified(self)),
            Err(error) => Err(error),
        }
    }

    /// Checks the signature of a borrowed value, and those that the value carries.
    ///
    /// # Errors
    /// As [`Signed::verify`].
    pub fn check(&self) -> Result<(), SignatureError> {
        let error = SignatureError { signer: self.signer, name: T::NAME };
        let key = VerifyingKey::from_bytes(&self.signer.0).map_err(|_| error.clone())?;
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature.0);
        key.verify_strict(&self.body.digest().0, &signature).map_err(|_| error)?;
        self.body.check_nested()
    }
}

impl<T: Signable> Wire for Signed<T> {
    const NAME: &'static str = T::NAME;
    const BYTES_MAX: usize = T::BYTES_MAX + 96;

    fn validate(&self) -> Result<(), &'static str> {
        self.body.validate()
    }
}

/// A signed value whose signature was checked, and those inside it (a transaction's receipts).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(Signed<T>);

impl<T> Verified<T> {
    /// Gives the signed value back.
    pub fn into_signed(self) -> Signed<T> {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = Signed<T>;
    fn deref(&self) -> &Signed<T> {
        &self.0
    }
}
