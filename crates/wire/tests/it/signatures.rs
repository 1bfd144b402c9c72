//! Signatures hold for one signer, one value and one purpose.

use borsh::{BorshDeserialize, BorshSerialize};
use wire::{Action, Domain, Identity, PeerId, Signable, Signature, Signed, Wire};

use crate::samples;

#[test]
fn a_signature_verifies_only_as_it_was_made() {
    let signed = samples::worker().sign(samples::receipt(1));
    assert!(signed.clone().verify().is_ok());
    let mut other_body = signed.clone();
    other_body.body.tokens += 1;
    let mut other_signer = signed.clone();
    other_signer.signer = samples::validator().id();
    for place in [0, 31, 32, 63] {
        let mut flipped = signed.clone();
        flipped.signature.0[place] ^= 1;
        assert!(flipped.verify().is_err(), "byte {place} of the signature counts");
    }
    for forged in [other_body, other_signer] {
        let error = forged.clone().verify().unwrap_err();
        assert_eq!((error.signer, error.name), (forged.signer, "receipt"));
    }
}

#[test]
fn keys_that_are_no_points_and_weak_keys_never_verify() {
    let genuine = samples::worker().sign(samples::receipt(1));
    let mut weak = [0; 32];
    weak[0] = 1;
    for key in [[0xff; 32], [0; 32], weak, [2; 32]] {
        for signature in [genuine.signature, Signature([0; 64])] {
            let signed = Signed { signer: PeerId(key), signature, body: samples::receipt(1) };
            assert!(signed.verify().is_err(), "key {key:?}");
        }
    }
}

/// The same fields under several purposes.
macro_rules! same_fields {
    ($($name:ident: $domain:ident),*) => {$(
        #[derive(Clone, BorshSerialize, BorshDeserialize)]
        struct $name(u64);
        impl Wire for $name {
            const NAME: &'static str = "number";
            const BYTES_MAX: usize = 8;
        }
        impl Signable for $name {
            const DOMAIN: Domain = Domain::$domain;
        }
    )*};
}
same_fields!(AsCharter: Charter, AsReceipt: Receipt, AsTransaction: Transaction, AsBlock: Block, AsOperator: Operator);

/// Whether the signature of `one` verifies over `two`.
fn passes<T: Signable, U: Signable>(identity: &Identity, one: T, two: U) -> bool {
    let Signed { signer, signature, .. } = identity.sign(one);
    Signed { signer, signature, body: two }.verify().is_ok()
}

#[test]
fn a_signature_for_one_purpose_is_none_for_another() {
    let key = samples::worker();
    assert!(passes(&key, AsReceipt(7), AsReceipt(7)));
    assert!(!passes(&key, AsReceipt(7), AsReceipt(8)));
    assert!(!passes(&key, AsReceipt(7), AsCharter(7)));
    assert!(!passes(&key, AsReceipt(7), AsTransaction(7)));
    assert!(!passes(&key, AsReceipt(7), AsBlock(7)));
    assert!(!passes(&key, AsTransaction(7), AsBlock(7)));
    assert!(!passes(&key, AsTransaction(7), AsCharter(7)));
    assert!(!passes(&key, AsCharter(7), AsBlock(7)));
    assert!(!passes(&key, AsOperator(7), AsTransaction(7)));
    assert!(!passes(&key, AsReceipt(7), AsOperator(7)));
}

#[test]
fn a_verified_transaction_has_verified_receipts() {
    let mut commitment = samples::commitment();
    commitment.receipts[1].signature.0[5] ^= 1;
    let error = samples::transaction(Action::Commit(commitment)).verify().unwrap_err();
    assert_eq!(error.name, "receipt");
    let genuine = samples::transaction(Action::Commit(samples::commitment()));
    assert_eq!(genuine.clone().verify().map(|verified| verified.into_signed()), Ok(genuine));
}

#[test]
fn a_verified_join_has_a_verified_operator() {
    let join = |operator| samples::transaction(Action::Join { sequence: 0, stage: 1, operator: Some(operator) });
    assert!(join(samples::certificate()).verify().is_ok());
    let mut forged = samples::certificate();
    forged.signer = samples::validator().id();
    assert_eq!(join(forged).verify().unwrap_err().name, "operator certificate");
}

#[test]
fn every_signature_of_a_block_is_checked() {
    let block = samples::block();
    assert_eq!(block.clone().verify().map(|verified| verified.into_block()), Ok(block.clone()));
    let mut header = block.clone();
    header.header.body.height += 1;
    assert_eq!(header.verify().unwrap_err().name, "block header");
    for place in 0..block.transactions.len() {
        let mut forged = block.clone();
        forged.transactions[place].signature.0[0] ^= 1;
        assert_eq!(forged.verify().unwrap_err().name, "transaction");
    }
    let mut receipt = block;
    let Action::Commit(commitment) = &mut receipt.transactions[2].body.action else {
        unreachable!("the third transaction commits")
    };
    commitment.receipts[0].body.tokens += 1;
    receipt.transactions[2] = samples::worker().sign(receipt.transactions[2].body.clone());
    assert_eq!(receipt.verify().unwrap_err().name, "receipt");
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", samples::worker());
    assert_eq!(shown, format!("Identity({})", samples::worker().id().short()));
}
