//! Operators: who answers for a peer.
//!
//! Purpose: some rules are about whoever runs machines, not about single peers: under [`Release::Split`](crate::Release) no
//! operator may have members in two stages. An operator is a key that signs for each of its peers in a run; a peer without such
//! a certificate is its own operator.
//!
//! What it does not do: it does not tie a key to a person. Whoever makes several keys is several operators.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::charter::RunId;
use crate::encoding::Wire;
use crate::identity::{Domain, PeerId, Signable};

/// An operator's statement that it runs a peer, signed by the operator's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct OperatorCertificate {
    /// The run.
    pub run: RunId,
    /// The peer.
    pub peer: PeerId,
}

impl Wire for OperatorCertificate {
    const NAME: &'static str = "operator certificate";
    const BYTES_MAX: usize = 64;
}

impl Signable for OperatorCertificate {
    const DOMAIN: Domain = Domain::Operator;
}
