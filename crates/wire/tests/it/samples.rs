//! One fixed value of every type. Changing one changes the golden bytes.

use wire::merkle::{Proof, Tree, leaf};
use wire::{
    Action, Attestation, Block, BlockHeader, Charter, Commitment, Hash, Identity, InferenceAnswer, InferenceCall,
    InferenceRefusal, LinkWish, LinkWishes, Message, NumericProfile, OperatorCertificate, PROTOCOL_VERSION,
    PayloadMade, PeerAddress, Receipt, RefusalReason, Release, RoundTime, RunAnswer, RunFiles, RunId, SequenceFeed,
    Signed, StageCall, StageRefusal, StageReply, StageSealed, StageTerms, Ticket, Transaction, UnitId,
};

pub(crate) fn founder() -> Identity {
    Identity::from_secret([1; 32])
}

pub(crate) fn worker() -> Identity {
    Identity::from_secret([2; 32])
}

pub(crate) fn validator() -> Identity {
    Identity::from_secret([3; 32])
}

pub(crate) fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

pub(crate) fn charter() -> Charter {
    Charter {
        name: "austen".into(),
        validators: vec![validator().id()],
        recipe: hash(0x11),
        data: hash(0x12),
        tokenizer: hash(0x13),
        stages: vec![
            StageTerms { genesis_state: hash(0x14), state_bytes: 0x0102_0304_0506_0708, weight: 2, coarser_max: 1 },
            StageTerms { genesis_state: hash(0x15), state_bytes: 9, weight: 3, coarser_max: 0 },
        ],
        profile: NumericProfile::F32Fma,
        rounds: 40,
        units_per_round: 8,
        unit_tokens: 7680,
        start_members: 4,
        quorum: 3,
        round_us_first: 40_000_000,
        round_us_max: 60_000_000,
        shares_per_round: 1_000_000,
        release: Release::OpenAfter { rounds: 20 },
        parent: Some(RunId(hash(0x16))),
    }
}

pub(crate) fn run() -> RunId {
    charter().run_id()
}

pub(crate) fn receipt(index: u32) -> Receipt {
    let round = 5;
    Receipt {
        run: run(),
        round,
        index,
        stage: 1,
        unit: UnitId::derive(run(), round, hash(0x21), index),
        state_in: hash(0x22),
        data_root: hash(0x23),
        trace_root: hash(0x24),
        output_root: hash(0x25),
        tokens: 7680,
        loss_micronats: 5_123_456,
        counter: 10 + u64::from(index),
    }
}

pub(crate) fn commitment() -> Commitment {
    Commitment {
        round: 5,
        payload: hash(0x31),
        payload_bytes: 65_536,
        residual_root: hash(0x32),
        wishes: LinkWishes { before: LinkWish::Coarser, after: LinkWish::Finer },
        busy_percent: 87,
        receipts: vec![worker().sign(receipt(5)), worker().sign(receipt(1))],
    }
}

fn address(text: &str) -> std::net::SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn ticket() -> Ticket {
    let addresses = vec![address("192.0.2.7:7071"), address("[2001:db8::1]:7071")];
    Ticket { run: run(), validator: worker().id(), addresses, relays: vec!["http://192.0.2.9:3340".to_owned()] }
}

pub(crate) fn run_answers() -> Vec<RunAnswer> {
    let files = RunFiles { charter: worker().sign(charter()), recipe: b"recipe".to_vec(), members: vec![4, 3] };
    vec![RunAnswer::Files(Box::new(files)), RunAnswer::UnknownRun]
}

pub(crate) fn certificate() -> Signed<OperatorCertificate> {
    Identity::from_secret([4; 32]).sign(OperatorCertificate { run: run(), peer: worker().id() })
}

pub(crate) fn transaction(action: Action) -> Signed<Transaction> {
    worker().sign(Transaction { run: run(), action })
}

pub(crate) fn transactions() -> Vec<Signed<Transaction>> {
    let attestation = Attestation { round: 5, stage: 1, state_root: hash(0x33) };
    let actions = [
        Action::Join { sequence: 0, stage: 1, operator: Some(certificate()) },
        Action::Leave { sequence: 1 },
        Action::Commit(commitment()),
        Action::Attest(attestation),
    ];
    actions.map(transaction).to_vec()
}

pub(crate) fn block() -> Block {
    let transactions = transactions();
    let header = BlockHeader {
        run: run(),
        height: 7,
        parent: hash(0x41),
        time_us: 1_764_000_000_000_000,
        transactions_root: Block::transactions_root(&transactions),
        ledger_root: hash(0x42),
    };
    Block { header: validator().sign(header), transactions: transactions.into() }
}

pub(crate) fn messages() -> Vec<Message> {
    vec![
        Message::Hello {
            version: PROTOCOL_VERSION,
            run: run(),
            height: 7,
            open: Some(RoundTime { round: 5, until_us: 1_764_000_040_000_000 }),
        },
        Message::Submit(transaction(Action::Join { sequence: 0, stage: 1, operator: None })),
        Message::Block(block()),
        Message::BlocksWanted { from_height: 3 },
        Message::Blocks(vec![block()]),
        Message::Charter(founder().sign(charter())),
        Message::StageCall(stage_call()),
        Message::StageReply(stage_reply()),
        Message::StageRefusal(StageRefusal { round: 5, stage: 2, index: 1, reason: RefusalReason::NoRoute }),
        Message::StageSealed(StageSealed { round: 5, units: vec![1, 7] }),
        Message::Addresses(vec![
            PeerAddress { peer: worker().id(), address: address("192.0.2.7:7071") },
            PeerAddress { peer: worker().id(), address: address("[2001:db8::1]:1") },
        ]),
        Message::PayloadMade(PayloadMade { round: 5, payload: Hash([8; 32]), payload_bytes: 1234 }),
        Message::PassedBlock { block: block(), reach: 7 },
    ]
}

pub(crate) fn stage_call() -> StageCall {
    StageCall {
        round: 5,
        stage: 2,
        index: 1,
        state_root: hash(0x22),
        unit: UnitId(hash(0x52)),
        again: true,
        hint: vec![worker().id(), validator().id()],
        input: vec![1, 2, 3],
    }
}

pub(crate) fn stage_reply() -> StageReply {
    StageReply {
        round: 5,
        stage: 2,
        index: 1,
        input: hash(0x51),
        path: vec![founder().id(), worker().id()],
        gradient: vec![4, 5],
    }
}

pub(crate) fn inference_call() -> InferenceCall {
    InferenceCall {
        run: run(),
        stage: 1,
        state: hash(0x22),
        feeds: vec![
            SequenceFeed { sequence: 9, start: 0, tokens: vec![1, 2, 3] },
            SequenceFeed { sequence: 4, start: 17, tokens: vec![0x0102_0304] },
        ],
        input: vec![6, 7],
        ended: vec![8],
    }
}

pub(crate) fn inference_answers() -> Vec<InferenceAnswer> {
    use InferenceRefusal::{BadInput, Busy, Failed, UnknownSequence, UnknownState, WrongStage};
    let refusals = [Busy, WrongStage, UnknownState, UnknownSequence, BadInput, Failed];
    let mut answers = vec![InferenceAnswer::Fed(vec![1, 2, 3])];
    answers.extend(refusals.map(InferenceAnswer::Refused));
    answers
}

pub(crate) fn proof() -> Proof {
    let leaves = (0..5u8).map(|number| leaf(&[number])).collect();
    Tree::new(leaves).proof(2).expect("the third of five leaves")
}
