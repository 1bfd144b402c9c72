//! What is well typed but out of range is refused with the name of the field.

use wire::charter::MEMBERS_MAX;
use wire::inference::{ENDED_PER_CALL_MAX, INFERENCE_BYTES_MAX, SEQUENCES_PER_CALL_MAX, TOKENS_PER_CALL_MAX};
use wire::stage::{PATH_PEERS_MAX, STAGE_BYTES_MAX};
use wire::transaction::{PAYLOAD_BYTES_MAX, RECEIPTS_PER_COMMITMENT_MAX, TRANSACTIONS_PER_BLOCK_MAX};
use wire::{
    Action, Charter, DecodeError, InferenceAnswer, InferenceCall, Message, PeerId, Release, STAGES_MAX, SequenceFeed,
    StageCall, StageReply, Transaction, Wire, decode, encode,
};

use crate::samples;

/// The field that decoding complains about.
fn refused<T: Wire + std::fmt::Debug>(value: &T) -> &'static str {
    match decode::<T>(&encode(value)) {
        Err(DecodeError::Invalid { name, field }) => {
            assert_eq!(name, T::NAME);
            field
        }
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[test]
fn a_charter_keeps_its_rules() {
    type Case = (&'static str, fn(&mut Charter));
    let cases: [Case; 23] = [
        ("name must have", |charter| charter.name.clear()),
        ("name must have", |charter| charter.name = "x".repeat(65)),
        ("validators must be 1 to 100", |charter| charter.validators.clear()),
        ("validators must be 1 to 100", |charter| {
            charter.validators = (0..101).map(|number| PeerId([number; 32])).collect();
        }),
        ("sorted and distinct", |charter| charter.validators = vec![PeerId([1; 32]); 2]),
        ("sorted and distinct", |charter| charter.validators = vec![PeerId([2; 32]), PeerId([1; 32])]),
        ("stages must be 1 to 256", |charter| charter.stages.clear()),
        ("stages must be 1 to 256", |charter| charter.stages = vec![charter.stages[0]; STAGES_MAX + 1]),
        ("weight of each stage", |charter| charter.stages[1].weight = 0),
        ("coarser_max of the last", |charter| charter.stages[1].coarser_max = 1),
        ("rounds must", |charter| charter.rounds = 0),
        ("units_per_round must", |charter| charter.units_per_round = 0),
        ("unit_tokens must", |charter| charter.unit_tokens = 0),
        ("start_members must", |charter| charter.start_members = 0),
        ("start_members must", |charter| charter.start_members = MEMBERS_MAX + 1),
        ("quorum must", |charter| charter.quorum = 0),
        ("round_us_first must", |charter| charter.round_us_first = 0),
        ("round_us_max must", |charter| charter.round_us_max = charter.round_us_first - 1),
        ("shares_per_round must be below 2^64", |charter| charter.shares_per_round = u64::MAX),
        ("open_after must name", |charter| charter.release = Release::OpenAfter { rounds: 0 }),
        ("open_after must name", |charter| charter.release = Release::OpenAfter { rounds: charter.rounds + 1 }),
        ("split needs at least 2 stages", |charter| {
            charter.release = Release::Split;
            charter.stages.remove(0);
        }),
        ("unit_tokens must be below 2^64", |charter| charter.unit_tokens = u64::MAX),
    ];
    assert_eq!(samples::charter().validate(), Ok(()));
    assert_eq!(Charter { parent: None, ..samples::charter() }.validate(), Ok(()));
    for (expected, change) in cases {
        let mut charter = samples::charter();
        change(&mut charter);
        let field = refused(&charter);
        assert!(field.contains(expected), "{field} instead of {expected}");
        let signed = samples::founder().sign(charter);
        assert_eq!(refused(&Message::Charter(signed)), field, "also inside a message");
    }
}

#[test]
fn a_commitment_keeps_its_rules() {
    let many = (0..=RECEIPTS_PER_COMMITMENT_MAX as u32).map(|index| samples::worker().sign(samples::receipt(index)));
    let many: Vec<_> = many.collect();
    let with = |change: &dyn Fn(&mut wire::Commitment)| {
        let mut commitment = samples::commitment();
        change(&mut commitment);
        Transaction { run: samples::run(), action: Action::Commit(commitment) }
    };
    let full = with(&|commitment| commitment.receipts = many[1..].to_vec());
    assert_eq!(decode(&encode(&full)), Ok(full), "64 receipts fit");
    for (expected, transaction) in [
        ("1 to 64 receipts", with(&|commitment| commitment.receipts.clear())),
        ("1 to 64 receipts", with(&|commitment| commitment.receipts = many.clone())),
        ("distinct", with(&|commitment| commitment.receipts.push(commitment.receipts[0].clone()))),
        ("distinct", with(&|commitment| commitment.receipts[1] = commitment.receipts[0].clone())),
        ("payload_bytes", with(&|commitment| commitment.payload_bytes = 0)),
        ("payload_bytes", with(&|commitment| commitment.payload_bytes = PAYLOAD_BYTES_MAX + 1)),
    ] {
        let field = refused(&transaction);
        assert!(field.contains(expected), "{field} instead of {expected}");
        let signed = samples::worker().sign(transaction);
        assert_eq!(refused(&Message::Submit(signed.clone())), field);
        let mut block = samples::block();
        block.transactions.push(signed);
        assert_eq!(refused(&block), field);
        assert_eq!(refused(&Message::Blocks(vec![block])), field);
    }
}

#[test]
fn counts_have_limits() {
    let mut block = samples::block();
    block.transactions = vec![
        samples::transaction(Action::Join { sequence: 0, stage: 0, operator: None });
        TRANSACTIONS_PER_BLOCK_MAX + 1
    ]
    .into();
    assert!(refused(&block).contains("at most 4096 transactions"));
    block.transactions.pop();
    assert_eq!(decode(&encode(&block)), Ok(block.clone()));
    block.transactions.clear();
    assert!(refused(&Message::Blocks(vec![block; 65])).contains("at most 64 blocks"));
}

#[test]
fn messages_of_stages_keep_their_rules() {
    let call = |change: fn(&mut StageCall)| {
        let mut call = samples::stage_call();
        change(&mut call);
        Message::StageCall(call)
    };
    let reply = |change: fn(&mut StageReply)| {
        let mut reply = samples::stage_reply();
        change(&mut reply);
        Message::StageReply(reply)
    };
    for (expected, message) in [
        ("stage 0 is not called", call(|call| call.stage = 0)),
        ("at most 256 peers", call(|call| call.hint = vec![PeerId([1; 32]); PATH_PEERS_MAX + 1])),
        ("an input must", call(|call| call.input = vec![0; STAGE_BYTES_MAX + 1])),
        ("a path must", reply(|reply| reply.path.clear())),
        ("a path must", reply(|reply| reply.path = vec![PeerId([1; 32]); PATH_PEERS_MAX + 1])),
        ("a gradient must", reply(|reply| reply.gradient.clear())),
        ("a gradient must", reply(|reply| reply.gradient = vec![0; STAGE_BYTES_MAX + 1])),
    ] {
        let field = refused(&message);
        assert!(field.contains(expected), "{field} instead of {expected}");
    }
    let full = call(|call| call.input = vec![7; STAGE_BYTES_MAX]);
    assert_eq!(decode(&encode(&full)), Ok(full), "16 MiB fit");
    let question = call(|call| call.input.clear());
    assert_eq!(decode(&encode(&question)), Ok(question), "a call without bytes is a question");
}

#[test]
fn calls_for_inference_keep_their_rules() {
    fn feeds(count: usize, tokens: usize) -> Vec<SequenceFeed> {
        let feed = |number| SequenceFeed { sequence: number as u64, start: 0, tokens: vec![7; tokens] };
        (0..count).map(feed).collect()
    }
    let call = |change: fn(&mut InferenceCall)| {
        let mut call = samples::inference_call();
        change(&mut call);
        call
    };
    for (expected, call) in [
        ("at most 64 feeds", call(|call| call.feeds = feeds(SEQUENCES_PER_CALL_MAX + 1, 1))),
        ("a feed must have", call(|call| call.feeds[0].tokens.clear())),
        ("at most 4096 tokens", call(|call| call.feeds = feeds(1, TOKENS_PER_CALL_MAX + 1))),
        ("at most 4096 tokens", call(|call| call.feeds = feeds(2, TOKENS_PER_CALL_MAX / 2 + 1))),
        ("fed once", call(|call| call.feeds[1].sequence = call.feeds[0].sequence)),
        ("an input must", call(|call| call.input = vec![0; INFERENCE_BYTES_MAX + 1])),
        ("at most 256 ended", call(|call| call.ended = vec![1; ENDED_PER_CALL_MAX + 1])),
    ] {
        let field = refused(&call);
        assert!(field.contains(expected), "{field} instead of {expected}");
    }
    let output = refused(&InferenceAnswer::Fed(vec![0; INFERENCE_BYTES_MAX + 1]));
    assert!(output.contains("an output must"), "{output}");
    let full = call(|call| {
        call.feeds = feeds(SEQUENCES_PER_CALL_MAX, TOKENS_PER_CALL_MAX / SEQUENCES_PER_CALL_MAX);
        call.input = vec![7; INFERENCE_BYTES_MAX];
        call.ended = vec![1; ENDED_PER_CALL_MAX];
    });
    assert_eq!(decode(&encode(&full)), Ok(full), "everything at its limit fits");
}

#[test]
fn too_many_bytes_are_refused_before_they_are_read() {
    let bytes = vec![0; Transaction::BYTES_MAX + 1];
    let max = Transaction::BYTES_MAX;
    let error = DecodeError::TooLarge { name: "transaction", bytes: max + 1, max };
    assert_eq!(decode::<Transaction>(&bytes), Err(error));
}

#[test]
fn a_full_transaction_is_within_its_limit() {
    let receipts = (0..64).map(|index| samples::worker().sign(samples::receipt(index))).collect();
    let commitment = wire::Commitment { receipts, ..samples::commitment() };
    let bytes = encode(&samples::transaction(Action::Commit(commitment))).len();
    assert!(bytes <= Transaction::BYTES_MAX, "{bytes}");
}

#[test]
fn messages_to_people_name_what_is_wrong() {
    let error = decode::<Message>(&[9]).unwrap_err().to_string();
    assert!(error.starts_with("malformed message: "), "{error}");
    let error = "12".parse::<wire::Hash>().unwrap_err().to_string();
    assert_eq!(error, "`12` is not 64 hexadecimal digits");
    let error = "é".repeat(64).parse::<wire::Hash>().unwrap_err().to_string();
    assert!(error.ends_with("is not 64 hexadecimal digits"), "{error}");
}

#[test]
fn a_release_opens_when_its_rounds_are_closed_and_a_split_one_never() {
    assert!(Release::OpenNow.is_open(0));
    let after = Release::OpenAfter { rounds: 3 };
    assert_eq!([0, 2, 3, u64::MAX].map(|closed| after.is_open(closed)), [false, false, true, true]);
    assert!(!Release::Split.is_open(u64::MAX));
    assert_eq!(after.validate(3, 1), Ok(()), "the last round counts");
    assert_eq!(Release::Split.validate(1, 2), Ok(()));
}

#[test]
fn a_policy_of_release_comes_back_from_its_text() {
    for policy in [Release::OpenNow, Release::OpenAfter { rounds: 20 }, Release::Split] {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    for bad in ["", "open", "open-after", "open-after=", "open-after=-1", "open-after=many", "Split"] {
        let said = bad.parse::<Release>().expect_err(bad).to_string();
        assert_eq!(said, format!("`{bad}` is no policy of release"));
    }
}
