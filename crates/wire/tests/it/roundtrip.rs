//! Every value is what its encoding decodes to, in bytes and in JSON, and has one encoding.

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::{Wire, decode, encode};

use crate::strategies;

fn bytes<T: Wire + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = encode(value);
    assert_eq!(&decode::<T>(&bytes).expect("what was encoded decodes"), value);
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode::<T>(&longer).is_err(), "trailing bytes are refused");
    assert!(decode::<T>(&bytes[..bytes.len() - 1]).is_err(), "truncated bytes are refused");
}

fn json<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("plain data");
    assert_eq!(&serde_json::from_str::<T>(&text).expect("what was written reads"), value);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn charter(value in strategies::charter()) {
        bytes(&value);
        json(&value);
    }

    #[test]
    fn receipt(value in strategies::receipt()) {
        bytes(&value);
        json(&value);
    }

    #[test]
    fn transaction(value in strategies::transaction()) {
        bytes(&value);
        json(&value);
    }

    #[test]
    fn signed_transaction(value in strategies::signed_transaction()) {
        bytes(&value);
        json(&value);
    }

    #[test]
    fn header(value in strategies::header()) {
        bytes(&value);
        json(&value);
    }

    #[test]
    fn block(value in strategies::block()) {
        bytes(&value);
        json(&value);
    }

    #[test]
    fn message(value in strategies::message()) {
        bytes(&value);
    }

    #[test]
    fn inference_call(value in strategies::inference_call()) {
        bytes(&value);
    }

    #[test]
    fn inference_answer(value in strategies::inference_answer()) {
        bytes(&value);
    }

    #[test]
    fn proof(value in strategies::proof()) {
        bytes(&value);
        json(&value);
    }

    #[test]
    fn hash(value in strategies::hash()) {
        prop_assert_eq!(value.to_string().parse::<wire::Hash>(), Ok(value));
        json(&value);
    }
}
