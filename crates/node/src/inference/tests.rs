use std::sync::Arc;

use learn::Recipe;
use learn::boundary::{HIDDEN_MAX, Precision, Rounding, Space, encode};
use learn::data::Corpus;
use learn::pipeline::{StageState, read_logits};
use model::Decoder;
use wire::{Hash, InferenceAnswer, InferenceCall, InferenceRefusal, PeerId, RunId, SequenceFeed};

use super::server::InferenceServer;
use crate::blobs::Blobs;
use crate::state::ModelState;
use crate::workload::{Cores, Workload};

const RUN: RunId = RunId(Hash([7; 32]));
const CONSUMER: PeerId = PeerId([1; 32]);

struct Stages {
    servers: Vec<InferenceServer>,
    roots: Vec<Hash>,
    workload: Arc<Workload>,
    _home: tempfile::TempDir,
}

/// A server for every stage of a model before its first round.
async fn stages(space: Space) -> Stages {
    let text = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/austen/northanger-abbey.txt");
    let recipe = Recipe::tiny().in_stages(2, space, Precision::Int8);
    let workload = Arc::new(Workload::new(recipe, Corpus::from_path(&text).unwrap()).unwrap());
    let home = tempfile::tempdir().unwrap();
    let (mut servers, mut roots) = (Vec::new(), Vec::new());
    for stage in 0..2 {
        let blobs = Blobs::open(&home.path().join(stage.to_string())).await.unwrap();
        let bytes = ModelState::genesis(workload.parts(), stage).to_bytes(workload.parts(), stage);
        roots.push(blobs.put(bytes).await.unwrap());
        servers.push(InferenceServer::new(RUN, stage, workload.clone(), blobs, Cores::new(1)).unwrap());
    }
    Stages { servers, roots, workload, _home: home }
}

impl Stages {
    fn call(&self, stage: u16, feeds: &[(u64, u32, &[u32])], input: Vec<u8>) -> InferenceCall {
        let feed =
            |&(sequence, start, tokens): &(u64, u32, &[u32])| SequenceFeed { sequence, start, tokens: tokens.to_vec() };
        let state = self.roots[usize::from(stage)];
        InferenceCall { run: RUN, stage, state, feeds: feeds.iter().map(feed).collect(), input, ended: Vec::new() }
    }

    fn ask(&self, stage: u16, feeds: &[(u64, u32, &[u32])], input: Vec<u8>) -> Result<Vec<u8>, InferenceRefusal> {
        self.answer(&self.call(stage, feeds, input))
    }

    fn answer(&self, call: &InferenceCall) -> Result<Vec<u8>, InferenceRefusal> {
        match self.servers[usize::from(call.stage)].answer(CONSUMER, call) {
            InferenceAnswer::Fed(output) => Ok(output),
            InferenceAnswer::Refused(refusal) => Err(refusal),
        }
    }

    /// The bits of the logits after all stages.
    fn logits(&self, feeds: &[(u64, u32, &[u32])]) -> Vec<u32> {
        let hidden = self.ask(0, feeds, Vec::new()).unwrap();
        let logits = self.ask(1, feeds, hidden).unwrap();
        bits(&read_logits(&logits, feeds.len(), self.workload.recipe.model.vocab).unwrap())
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[tokio::test]
async fn sequences_that_come_together_have_the_bits_of_the_whole_model() {
    let stages = stages(Space::Full).await;
    let recipe = &stages.workload.recipe;
    let parts = stages.workload.parts();
    let params: Vec<f32> =
        (0..2).flat_map(|stage| ModelState::genesis(parts, stage).into_parameters(parts, stage)).collect();
    let mut whole = Decoder::new(recipe.model, &params).unwrap();
    let ctx = recipe.context(1);
    let (first, second): (Vec<u32>, Vec<u32>) = ((1..20).collect(), (30..37).collect());
    let expected = |whole: &mut Decoder, tokens: &[u32]| {
        let mut cache = whole.cache();
        bits(whole.feed(&ctx, &mut cache, tokens).unwrap())
    };
    let both = [expected(&mut whole, &first[..12]), expected(&mut whole, &second)].concat();
    assert_eq!(stages.logits(&[(1, 0, &first[..12]), (2, 0, &second)]), both);
    let more = expected(&mut whole, &first);
    assert_eq!(stages.logits(&[(1, 12, &first[12..])]), more, "it goes on");
    assert_eq!(stages.logits(&[(1, 12, &first[12..])]), more, "fed again from where it was");
    assert_eq!(stages.logits(&[(9, 0, &first)]), more, "another sequence from the beginning");
}

#[tokio::test]
async fn learned_bases_are_part_of_the_model() {
    let stages = stages(Space::Projector { rank: 8, rate: 0.01 }).await;
    let tokens: Vec<u32> = (1..10).collect();
    let once = stages.logits(&[(1, 0, &tokens)]);
    stages.logits(&[(2, 0, &tokens[..4])]);
    assert_eq!(stages.logits(&[(2, 4, &tokens[4..])]), once, "prefill and decoding have the same bits");
    let columns = stages.ask(0, &[(3, 0, &tokens)], Vec::new()).unwrap().len();
    assert_eq!(columns, learn::boundary::encoded_bytes(Precision::F32, tokens.len(), 8), "coordinates travel");
}

#[tokio::test]
async fn what_cannot_be_fed_is_refused_and_changes_nothing() {
    let stages = stages(Space::Full).await;
    let model = stages.workload.recipe.model;
    let tokens: &[u32] = &[1, 2, 3];
    let before = stages.logits(&[(1, 0, tokens)]);
    let refused = |call: InferenceCall, refusal| assert_eq!(stages.answer(&call), Err(refusal), "{call:?}");
    let call = |feeds: &[(u64, u32, &[u32])], input| stages.call(0, feeds, input);

    refused(
        InferenceCall { run: RunId(Hash([8; 32])), ..call(&[(1, 3, tokens)], vec![]) },
        InferenceRefusal::WrongStage,
    );
    let other = InferenceCall { stage: 1, ..call(&[(1, 3, tokens)], vec![]) };
    let answered = stages.servers[0].answer(CONSUMER, &other);
    assert_eq!(answered, InferenceAnswer::Refused(InferenceRefusal::WrongStage));
    refused(InferenceCall { state: Hash([3; 32]), ..call(&[(1, 3, tokens)], vec![]) }, InferenceRefusal::UnknownState);
    refused(
        InferenceCall { state: stages.roots[1], ..call(&[(1, 3, tokens)], vec![]) },
        InferenceRefusal::UnknownState,
    );
    refused(call(&[(1, 4, tokens)], vec![]), InferenceRefusal::UnknownSequence);
    refused(call(&[(2, 1, tokens)], vec![]), InferenceRefusal::UnknownSequence);
    refused(call(&[(1, 3, &[model.vocab as u32])], vec![]), InferenceRefusal::BadInput);
    refused(call(&[(1, 3, tokens)], vec![1]), InferenceRefusal::BadInput);
    refused(call(&[(1, 3, &vec![1; model.context])], vec![]), InferenceRefusal::BadInput);
    let values = |columns: usize, value: f32| {
        encode(Precision::F32, &vec![value; 3 * columns], columns, Rounding::Nearest, HIDDEN_MAX).unwrap()
    };
    refused(stages.call(1, &[(1, 3, tokens)], values(model.width + 1, 0.5)), InferenceRefusal::BadInput);
    refused(stages.call(1, &[(1, 3, &tokens[..2])], values(model.width, 0.5)), InferenceRefusal::BadInput);
    let mut wrong = values(model.width, 0.5);
    let end = wrong.len();
    wrong[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    refused(stages.call(1, &[(1, 3, tokens)], wrong), InferenceRefusal::BadInput);

    assert_eq!(stages.logits(&[(1, 0, tokens)]), before);
    assert_eq!(stages.logits(&[(1, 2, &tokens[2..])]), before);
}

#[tokio::test]
async fn another_consumer_has_other_sequences_and_ended_ones_are_forgotten() {
    let stages = stages(Space::Full).await;
    let tokens: &[u32] = &[1, 2, 3];
    stages.logits(&[(1, 0, tokens)]);
    let more = stages.call(0, &[(1, 3, tokens)], vec![]);
    let answered = stages.servers[0].answer(PeerId([2; 32]), &more);
    assert_eq!(answered, InferenceAnswer::Refused(InferenceRefusal::UnknownSequence));
    assert!(stages.answer(&more).is_ok());
    let end = InferenceCall { ended: vec![1], ..stages.call(0, &[], vec![]) };
    assert_eq!(stages.answer(&end), Ok(Vec::new()));
    assert_eq!(stages.answer(&more), Err(InferenceRefusal::UnknownSequence));
}

#[tokio::test]
async fn states_beyond_the_limit_make_room() {
    let stages = stages(Space::Full).await;
    let parts = stages.workload.parts();
    let ModelState::Stage(genesis) = ModelState::genesis(parts, 0) else { panic!("a stage") };
    let home = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(home.path()).await.unwrap();
    let mut roots = Vec::new();
    for round in 1..=super::MODELS_MAX as u64 + 1 {
        let state = ModelState::Stage(StageState { round, ..genesis.clone() });
        roots.push(blobs.put(state.to_bytes(parts, 0)).await.unwrap());
    }
    let server = InferenceServer::new(RUN, 0, stages.workload.clone(), blobs, Cores::new(1)).unwrap();
    let feed = |state: Hash, start: u32| {
        let call = InferenceCall { state, ..stages.call(0, &[(1, start, &[1, 2])], vec![]) };
        matches!(server.answer(CONSUMER, &call), InferenceAnswer::Fed(_))
    };
    assert!(roots.iter().all(|root| feed(*root, 0)));
    assert!(feed(roots[1], 2), "the newest are kept with their sequences");
    assert!(!feed(roots[0], 2), "the oldest has forgotten its own");
    assert!(feed(roots[0], 0), "and is made ready again");
}
