//! Random well-formed values of every type.

use proptest::prelude::*;
use wire::merkle::Proof;
use wire::{
    Action, Attestation, Block, BlockHeader, Charter, Commitment, Hash, InferenceAnswer, InferenceCall,
    InferenceRefusal, LinkWish, LinkWishes, Message, NumericProfile, OperatorCertificate, PayloadMade, PeerAddress,
    PeerId, Receipt, RefusalReason, Release, RoundTime, RunId, SequenceFeed, Signature, Signed, StageCall,
    StageRefusal, StageReply, StageSealed, StageTerms, Transaction, UnitId,
};

pub(crate) fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(PeerId)
}

fn run() -> impl Strategy<Value = RunId> {
    hash().prop_map(RunId)
}

/// A signature that need not verify: encodings do not care.
fn signed<T: std::fmt::Debug + Clone>(body: impl Strategy<Value = T>) -> impl Strategy<Value = Signed<T>> {
    let signature = (any::<[u8; 32]>(), any::<[u8; 32]>());
    (peer(), signature, body).prop_map(|(signer, (low, high), body)| {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&low);
        bytes[32..].copy_from_slice(&high);
        Signed { signer, signature: Signature(bytes), body }
    })
}

pub(crate) fn charter() -> impl Strategy<Value = Charter> {
    let texts = ("[a-zA-Zäß ]{1,16}", prop::collection::btree_set(peer(), 1..8));
    let hashes = (hash(), hash(), hash());
    let stage = (hash(), any::<u64>(), 1u32.., 0u8..4);
    let stage = stage.prop_map(|(genesis_state, state_bytes, weight, coarser_max)| StageTerms {
        genesis_state,
        state_bytes,
        weight,
        coarser_max,
    });
    let stages = prop::collection::vec(stage, 1..=4).prop_map(|mut stages| {
        stages.last_mut().expect("at least one").coarser_max = 0;
        stages
    });
    let profile = prop_oneof![Just(NumericProfile::F32Fma), Just(NumericProfile::F32Muladd)];
    let work = (1u64..1 << 20, 1u32..1 << 16, 1u64..1 << 18, 1u32..=16_384);
    let limits = (1u32.., (1u64..1 << 40, 0u64..1 << 40), 0u64..1 << 40);
    let release = (0..3u8, any::<u64>(), prop::option::of(run()));
    let terms = (texts, hashes, stages, profile, work, limits, release);
    terms.prop_map(|(texts, hashes, stages, profile, work, limits, (policy, after, parent))| {
        let (name, validators) = texts;
        let (recipe, data, tokenizer) = hashes;
        let (rounds, units_per_round, unit_tokens, start_members) = work;
        let (quorum, (round_us_first, longer_us), shares_per_round) = limits;
        let release = match policy {
            0 => Release::OpenNow,
            2 if stages.len() > 1 => Release::Split,
            _ => Release::OpenAfter { rounds: after % rounds + 1 },
        };
        Charter {
            name,
            validators: validators.into_iter().collect(),
            recipe,
            data,
            tokenizer,
            stages,
            profile,
            rounds,
            units_per_round,
            unit_tokens,
            start_members,
            quorum,
            round_us_first,
            round_us_max: round_us_first + longer_us,
            shares_per_round,
            release,
            parent,
        }
    })
}

pub(crate) fn receipt() -> impl Strategy<Value = Receipt> {
    let names = (run(), hash(), hash(), hash(), hash(), hash());
    (names, any::<(u64, u32, u16, u64, u64, u64)>()).prop_map(|(names, numbers)| {
        let (run, unit, state_in, data_root, trace_root, output_root) = names;
        let (round, index, stage, tokens, loss_micronats, counter) = numbers;
        let unit = UnitId(unit);
        Receipt {
            run,
            round,
            index,
            stage,
            unit,
            state_in,
            data_root,
            trace_root,
            output_root,
            tokens,
            loss_micronats,
            counter,
        }
    })
}

fn commitment() -> impl Strategy<Value = Commitment> {
    let receipts = prop::collection::vec(signed(receipt()), 1..=64).prop_map(|mut receipts| {
        for (receipt, index) in receipts.iter_mut().zip(0..) {
            receipt.body.index = index;
        }
        receipts
    });
    let wish = || prop_oneof![Just(LinkWish::Keep), Just(LinkWish::Coarser), Just(LinkWish::Finer)];
    let wishes = (wish(), wish()).prop_map(|(before, after)| LinkWishes { before, after });
    (any::<u64>(), hash(), 1u64..=4 << 30, hash(), wishes, 0u8..=100, receipts).prop_map(
        |(round, payload, payload_bytes, residual_root, wishes, busy_percent, receipts)| Commitment {
            round,
            payload,
            payload_bytes,
            residual_root,
            wishes,
            busy_percent,
            receipts,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (any::<(u64, u16)>(), prop::option::of(signed(certificate())))
            .prop_map(|((sequence, stage), operator)| { Action::Join { sequence, stage, operator } }),
        any::<u64>().prop_map(|sequence| Action::Leave { sequence }),
        commitment().prop_map(Action::Commit),
        (any::<(u64, u16)>(), hash()).prop_map(|((round, stage), state_root)| Action::Attest(Attestation {
            round,
            stage,
            state_root
        })),
    ]
}

fn certificate() -> impl Strategy<Value = OperatorCertificate> {
    (run(), peer()).prop_map(|(run, peer)| OperatorCertificate { run, peer })
}

pub(crate) fn transaction() -> impl Strategy<Value = Transaction> {
    (run(), action()).prop_map(|(run, action)| Transaction { run, action })
}

pub(crate) fn header() -> impl Strategy<Value = BlockHeader> {
    (run(), any::<(u64, u64)>(), hash(), hash(), hash()).prop_map(
        |(run, (height, time_us), parent, transactions_root, ledger_root)| BlockHeader {
            run,
            height,
            parent,
            time_us,
            transactions_root,
            ledger_root,
        },
    )
}

pub(crate) fn block() -> impl Strategy<Value = Block> {
    let transactions = prop::collection::vec(signed(transaction()), 0..4);
    (signed(header()), transactions)
        .prop_map(|(header, transactions)| Block { header, transactions: transactions.into() })
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<(u16, u64, Option<(u64, u64)>)>(), run()).prop_map(|((version, height, open), run)| {
            let open = open.map(|(round, until_us)| RoundTime { round, until_us });
            Message::Hello { version, run, height, open }
        }),
        signed(transaction()).prop_map(Message::Submit),
        block().prop_map(Message::Block),
        any::<u64>().prop_map(|from_height| Message::BlocksWanted { from_height }),
        prop::collection::vec(block(), 0..3).prop_map(Message::Blocks),
        signed(charter()).prop_map(Message::Charter),
        stage_call().prop_map(Message::StageCall),
        stage_reply().prop_map(Message::StageReply),
        (any::<(u64, u16, u32)>(), refusal_reason()).prop_map(|((round, stage, index), reason)| {
            Message::StageRefusal(StageRefusal { round, stage, index, reason })
        }),
        (any::<u64>(), prop::collection::btree_set(any::<u32>(), 1..=64)).prop_map(|(round, units)| {
            Message::StageSealed(StageSealed { round, units: units.into_iter().collect() })
        }),
        prop::collection::vec((peer(), any::<[u8; 4]>(), 1u16..), 0..5).prop_map(|all| {
            let known = all.into_iter().map(|(peer, ip, port)| PeerAddress {
                peer,
                address: (if ip == [0; 4] { [127, 0, 0, 1] } else { ip }, port).into(),
            });
            Message::Addresses(known.collect())
        }),
        (block(), any::<u32>()).prop_map(|(block, reach)| Message::PassedBlock { block, reach }),
        (any::<u64>(), hash(), any::<u64>()).prop_map(|(round, payload, payload_bytes)| {
            Message::PayloadMade(PayloadMade { round, payload, payload_bytes })
        }),
    ]
}

fn stage_call() -> impl Strategy<Value = StageCall> {
    let numbers = (any::<u64>(), 1u16.., any::<u32>(), any::<bool>());
    let hint = prop::collection::vec(peer(), 0..5);
    let input = prop::collection::vec(any::<u8>(), 0..100);
    (numbers, (hash(), hash()), hint, input).prop_map(|(numbers, (state_root, unit), hint, input)| {
        let (round, stage, index, again) = numbers;
        StageCall { round, stage, index, state_root, unit: UnitId(unit), again, hint, input }
    })
}

fn stage_reply() -> impl Strategy<Value = StageReply> {
    let path = prop::collection::vec(peer(), 1..5);
    let gradient = prop::collection::vec(any::<u8>(), 1..100);
    (any::<(u64, u16, u32)>(), hash(), path, gradient).prop_map(|((round, stage, index), input, path, gradient)| {
        StageReply { round, stage, index, input, path, gradient }
    })
}

fn refusal_reason() -> impl Strategy<Value = RefusalReason> {
    prop::sample::select(vec![
        RefusalReason::Busy,
        RefusalReason::Full,
        RefusalReason::WrongRound,
        RefusalReason::WrongStage,
        RefusalReason::WrongState,
        RefusalReason::BadInput,
        RefusalReason::NoRoute,
        RefusalReason::Unknown,
        RefusalReason::Failed,
    ])
}

pub(crate) fn inference_call() -> impl Strategy<Value = InferenceCall> {
    let feed = (any::<u32>(), prop::collection::vec(any::<u32>(), 1..9));
    let feeds = prop::collection::btree_map(any::<u64>(), feed, 0..5).prop_map(|feeds| {
        let feed = |(sequence, (start, tokens))| SequenceFeed { sequence, start, tokens };
        feeds.into_iter().map(feed).collect()
    });
    let bytes = prop::collection::vec(any::<u8>(), 0..100);
    let ended = prop::collection::vec(any::<u64>(), 0..5);
    ((run(), any::<u16>(), hash()), feeds, bytes, ended)
        .prop_map(|((run, stage, state), feeds, input, ended)| InferenceCall { run, stage, state, feeds, input, ended })
}

pub(crate) fn inference_answer() -> impl Strategy<Value = InferenceAnswer> {
    let refusal = prop::sample::select(vec![
        InferenceRefusal::Busy,
        InferenceRefusal::WrongStage,
        InferenceRefusal::UnknownState,
        InferenceRefusal::UnknownSequence,
        InferenceRefusal::BadInput,
        InferenceRefusal::Failed,
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100).prop_map(InferenceAnswer::Fed),
        refusal.prop_map(InferenceAnswer::Refused),
    ]
}

pub(crate) fn proof() -> impl Strategy<Value = Proof> {
    (any::<(u64, u64)>(), prop::collection::vec(hash(), 0..=64)).prop_filter_map("index", |(numbers, siblings)| {
        let (index, leaves) = (numbers.0.min(numbers.1), numbers.0.max(numbers.1));
        (index < leaves).then_some(Proof { index, leaves, siblings })
    })
}

pub(crate) fn signed_transaction() -> impl Strategy<Value = Signed<Transaction>> {
    signed(transaction())
}
