//! Clusters whose peers hold a stage each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use learn::Recipe;
use learn::boundary::{Precision, Space};
use learn::data::Corpus;
use learn::pipeline::{self, MicroBatch, Neighbours, StageShape, StageState, StageWorker, Turn, step};
use learn::sparseloco::{self, SparsePayload};
use ledger::Ledger;
use node::home::Home;
use node::offline::Saved;
use node::replay::{RecordedRound, ReplayError};
use node::store::{Store, StoreError};
use node::view::Phase;
use node::{Cluster, ClusterConfig, LinkSpec, Outcome, Workload};
use swarm::pipeline::UnitDone;
use tensor::Profile;
use wire::{Action, Block, Commitment, Hash, PeerId, UnitId};

use crate::common::{config, finish, text_path, wait};

fn workload(stages: usize, space: Space, precision: Precision, profile: Profile) -> Arc<Workload> {
    let mut recipe = Recipe::tiny().in_stages(stages, space, precision);
    (recipe.rounds, recipe.units_per_round) = (8, 8);
    recipe.compression.keep = 2048;
    recipe.profile = profile;
    Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap())
}

fn staged(home: &Path, peers: usize, workload: Arc<Workload>) -> ClusterConfig {
    ClusterConfig { workload, ..config(home, peers) }
}

/// Passes a unit through all stages, as the run did; returns what each stage did with it.
fn replay(workers: &mut [StageWorker], batch: &MicroBatch, precisions: &[Precision]) -> Vec<UnitDone> {
    let hash = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or_else(Hash::default, |bytes| Hash::of(bytes));
    let last = workers.len() - 1;
    let mut inputs: Vec<Option<Vec<u8>>> = vec![None];
    for (worker, precision) in workers[..last].iter_mut().zip(precisions) {
        let input = inputs.last().unwrap().clone();
        inputs.push(Some(worker.forward(batch, input.as_deref(), *precision).unwrap()));
    }
    let Turn { loss, gradient } =
        workers[last].turn(batch, inputs[last].as_deref(), precisions[last - 1], true).unwrap();
    let mut done = vec![UnitDone {
        index: 0,
        unit: UnitId(Hash(batch.unit)),
        input: hash(&inputs[last]),
        output: Hash::default(),
        gradient_in: Hash::default(),
        gradient_out: hash(&gradient),
        loss_micronats: (loss * 1e6).round() as u64,
    }];
    let mut gradient = gradient;
    for place in (0..last).rev() {
        let from = gradient.take().unwrap();
        let input = inputs[place].clone();
        // The first stage gives nothing back.
        let precision = place.checked_sub(1).map_or(Precision::F32, |before| precisions[before]);
        let to = workers[place].backward(batch, input.as_deref(), &from, precision, true).unwrap();
        done.push(UnitDone {
            input: hash(&input),
            output: hash(&inputs[place + 1]),
            gradient_in: Hash::of(&from),
            gradient_out: hash(&to),
            loss_micronats: 0,
            ..done[0]
        });
        gradient = to;
    }
    done.reverse();
    done
}

/// The commitments of a run, in the ledger's order, each with its round and signer.
fn commitments(blocks: &[Block]) -> Vec<(PeerId, &Commitment)> {
    let transactions = blocks.iter().flat_map(|block| &block.transactions);
    let committed = transactions.filter_map(|transaction| match &transaction.body.action {
        Action::Commit(commitment) => Some((transaction.signer, commitment)),
        _ => None,
    });
    committed.collect()
}

/// Computes the whole run again in one process, from nothing but its blocks: every receipt's hashes, every payload and every root.
/// Returns replicas of all stages with their last weights.
pub(crate) fn recompute(home: &Path, workload: &Workload, receipts_min: u64) -> Vec<StageWorker> {
    let saved = Saved::newest(&Home::open(home).unwrap()).unwrap().unwrap();
    let charter = &saved.run().charter().body;
    let store = Store::open(&saved.run().peer_path(1), charter.run_id(), charter.validators[0]).unwrap();
    let blocks = store.blocks().unwrap();
    let mut ledger = Ledger::new(saved.run().charter());
    let mut closed = Vec::new();
    for block in &blocks {
        closed.extend(ledger.apply(block).unwrap().closed);
    }
    let (recipe, corpus) = (&workload.recipe, &workload.corpus);
    let ctx = recipe.context(1);
    let shapes = StageShape::all(recipe);
    let parts = shapes[0].token_parts();
    let mut states: Vec<StageState> = shapes.iter().map(|shape| StageState::genesis(&ctx, recipe, shape)).collect();
    let mut residuals: std::collections::BTreeMap<PeerId, (u16, Vec<f32>)> = Default::default();
    let mut replayed = 0;
    for (round, set) in (0..charter.rounds).zip(&closed) {
        let precisions = workload.precisions(&set.coarser);
        let roots: Vec<Hash> =
            shapes.iter().zip(&states).map(|(shape, state)| Hash(state.root(recipe, shape))).collect();
        assert_eq!(set.state_in, roots, "the roots before round {round}");
        let worker = |place: usize| {
            StageWorker::new(ctx.clone(), recipe, shapes[place].clone(), parts.clone(), &states[place], 1)
        };
        let mut payloads: Vec<Vec<(u64, SparsePayload)>> = vec![Vec::new(); shapes.len()];
        let all = commitments(&blocks);
        for entry in &set.entries {
            let of_round =
                |(peer, commitment): &&(PeerId, &Commitment)| *peer == entry.peer && commitment.round == round;
            let commitment = all.iter().find(of_round).unwrap().1;
            // A worker of every stage, so that each unit can pass; only the sum of the own stage counts.
            let mut workers: Vec<StageWorker> = (0..shapes.len()).map(worker).collect();
            for receipt in &commitment.receipts {
                let receipt = &receipt.body;
                let batch = MicroBatch::derive(recipe, corpus, receipt.unit.0.0);
                let done = replay(&mut workers, &batch, &precisions)[usize::from(receipt.stage)];
                assert_eq!(receipt.data_root, Hash(batch.data_root));
                assert_eq!(receipt.trace_root, done.trace_root(), "what came into stage {}", receipt.stage);
                assert_eq!(receipt.output_root, done.output_root(), "what stage {} gave", receipt.stage);
                assert_eq!(receipt.loss_micronats, done.loss_micronats);
                replayed += 1;
            }
            let place = usize::from(entry.stage);
            let layout = shapes[place].layout();
            let blank = || (entry.stage, vec![0.0; layout.len()]);
            let (stage, residual) = residuals.entry(entry.peer).or_insert_with(blank);
            // Who moved to another stage began there with nothing.
            if *stage != entry.stage {
                (*stage, *residual) = blank();
            }
            let sum = workers[place].contribution().unwrap();
            sparseloco::fold_residual(residual, &sum.gradient, recipe.compression.beta);
            let payload = sparseloco::encode(layout, recipe.compression, residual).unwrap();
            assert_eq!(Hash::of(&payload), entry.payload, "the payload of stage {place} in round {round}");
            let payload = sparseloco::decode(layout, recipe.compression, &payload).unwrap();
            payloads[place].push((entry.tokens, payload));
        }
        let views: Vec<Vec<(u64, &SparsePayload)>> =
            payloads.iter().map(|stage| stage.iter().map(|(weight, payload)| (*weight, payload)).collect()).collect();
        for (place, state) in states.iter_mut().enumerate() {
            let near = |place: usize| Some((shapes.get(place)?, views[place].as_slice()));
            let neighbours = Neighbours { before: place.checked_sub(1).and_then(near), after: near(place + 1) };
            step(&ctx, recipe, &shapes[place], state, &views[place], neighbours);
        }
    }
    assert!(replayed >= receipts_min, "only {replayed} receipts");
    let worker = |(shape, state): (&StageShape, _)| {
        StageWorker::new(ctx.clone(), recipe, shape.clone(), parts.clone(), state, 1)
    };
    shapes.iter().zip(&states).map(worker).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_stages_over_sockets_do_what_one_process_does_bit_for_bit() {
    let learned = Space::Projector { rank: 8, rate: 0.1 };
    for (space, precision, profile) in
        [(Space::Full, Precision::F32, Profile::F32Fma), (learned, Precision::Int4, Profile::F32Muladd)]
    {
        let directory = tempfile::tempdir().unwrap();
        let workload = workload(4, space, precision, profile);
        let cluster = Cluster::start(staged(directory.path(), 8, workload.clone())).await.unwrap();
        let summary = finish(&cluster).await;
        let state = cluster.state();
        let run = state.run.unwrap();
        assert_eq!((run.phase, run.round, run.tokens), (Phase::Finished, 8, workload.recipe.total_tokens()));
        assert!(run.training_loss.unwrap() < state.curve[0].training_loss.unwrap(), "{:?}", state.curve);
        assert!(state.faults.is_empty(), "{:?}", state.faults);
        assert_eq!(summary.shares.iter().map(|(_, shares)| shares).sum::<u64>(), state.ledger.unwrap().supply);
        for member in cluster.members() {
            let status = member.status().borrow().clone();
            let model = status.model.unwrap();
            let agreed = status.agreed.unwrap();
            assert_eq!((agreed.round, agreed.roots[usize::from(status.stage)]), (8, model.state_root));
        }
        let served = cluster.observer().checkpoints().borrow().clone();
        cluster.shutdown().await;
        let mut stages = recompute(directory.path(), &workload, 8 * 8 * 4);
        let windows = workload.recipe.evaluation.windows;
        let heldout = pipeline::evaluate(&mut stages, &workload.recipe, &workload.corpus, windows).unwrap();
        let saved = Saved::newest(&Home::open(directory.path()).unwrap()).unwrap().unwrap();
        assert_eq!(summary.heldout_loss, Some(heldout));
        assert_eq!(served.unwrap().stages(), Some(4), "it is used through its stages");
        match (space, saved.checkpoint()) {
            (Space::Full, Ok(Some(whole))) => assert_eq!((whole.round, whole.stages()), (8, None)),
            (Space::Projector { .. }, Err(StoreError::NotPlain)) => {}
            (_, other) => panic!("{other:?} without its peers"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_stages_that_was_stopped_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let workload = workload(2, Space::Subspace { rank: 8 }, Precision::Int8, Profile::F32Fma);
    for rounds in [2, 5] {
        let cluster = Cluster::start(staged(directory.path(), 4, workload.clone())).await.unwrap();
        wait(&cluster, "some rounds", |status| status.totals.rounds >= rounds).await;
        cluster.shutdown().await;
    }
    let cluster = Cluster::start(staged(directory.path(), 4, workload.clone())).await.unwrap();
    assert!(cluster.is_resumed());
    let summary = finish(&cluster).await;
    assert_eq!((summary.rounds, summary.tokens), (8, workload.recipe.total_tokens()), "a unit was lost");
    cluster.shutdown().await;
    recompute(directory.path(), &workload, 8 * 8 * 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_with_its_reason_when_a_stage_lost_its_last_replica() {
    let directory = tempfile::tempdir().unwrap();
    let workload = workload(2, Space::Full, Precision::Int8, Profile::F32Fma);
    let cluster = Cluster::start(staged(directory.path(), 4, workload)).await.unwrap();
    wait(&cluster, "two rounds", |status| status.totals.rounds >= 2).await;
    cluster.members()[3].kill();
    cluster.members()[1].kill();
    let outcome = tokio::time::timeout(Duration::from_secs(20), cluster.outcome()).await.expect("nobody says so");
    let named = |failure: &node::Failure| failure.message == "all peers of stage 1 were killed";
    assert!(matches!(&outcome, Outcome::Failed(failure) if named(failure)), "{outcome:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_costs_no_unit_and_no_root() {
    let directory = tempfile::tempdir().unwrap();
    let workload = workload(2, Space::Full, Precision::Int8, Profile::F32Fma);
    let cluster = Cluster::start(staged(directory.path(), 4, workload.clone())).await.unwrap();
    wait(&cluster, "two rounds", |status| status.totals.rounds >= 2).await;
    // Peer 4 is the second replica of the last stage.
    cluster.members()[3].kill();
    let summary = finish(&cluster).await;
    assert_eq!(summary.rounds, 8);
    assert_eq!(summary.tokens, workload.recipe.total_tokens(), "a unit was lost");
    cluster.shutdown().await;
    recompute(directory.path(), &workload, 8 * 8 * 2);
    let saved = Saved::newest(&Home::open(directory.path()).unwrap()).unwrap().unwrap();
    for (asked, round) in [(None, 7), (Some(6), 6), (Some(0), 0)] {
        let recorded = RecordedRound::open(&saved, workload.clone(), asked).unwrap();
        assert_eq!((recorded.round(), recorded.units()), (round, (0..8).collect()));
        let mut receipts = 0;
        let check = |replayed: node::replay::Replayed| {
            receipts += 1;
            assert_eq!(replayed.differences, [], "{replayed:?}");
        };
        recorded.replay(&recorded.units(), check).unwrap();
        assert_eq!(receipts, 8 * 2);
    }
    let gone = RecordedRound::open(&saved, workload, Some(2)).unwrap_err();
    assert!(matches!(gone, ReplayError::NoState { round: 2, held } if held.contains(&0) && held.contains(&7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_moves_to_a_stage_that_is_down_to_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut recipe = workload(2, Space::Full, Precision::Int8, Profile::F32Fma).recipe.clone();
    recipe.rounds = 24;
    let workload = Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap());
    let cluster = Cluster::start(staged(directory.path(), 5, workload.clone())).await.unwrap();
    wait(&cluster, "two rounds", |status| status.totals.rounds >= 2).await;
    // One of the two replicas of the last stage; three are in the first.
    cluster.members()[3].kill();
    let summary = finish(&cluster).await;
    assert_eq!((summary.rounds, summary.tokens), (24, workload.recipe.total_tokens()), "a unit was lost");
    assert!(cluster.state().faults.is_empty(), "{:?}", cluster.state().faults);
    let (stay, others) = (0, [1, 2, 4]);
    let status_of = |cluster: &Cluster, place: usize| cluster.members()[place].status().borrow().clone();
    assert_eq!(status_of(&cluster, stay).stage, 0, "who orders blocks stays");
    assert_eq!(others.map(|place| status_of(&cluster, place).stage).iter().sum::<u16>(), 2, "two peers in each stage");
    for place in [0, 1, 2, 4] {
        let status = status_of(&cluster, place);
        let (model, agreed) = (status.model.unwrap(), status.agreed.unwrap());
        assert_eq!((model.round, model.state_root), (24, agreed.roots[usize::from(status.stage)]));
    }
    cluster.shutdown().await;
    // Where it moved to, it is after a restart, too.
    let cluster = Cluster::start(staged(directory.path(), 5, workload.clone())).await.unwrap();
    assert!(cluster.is_resumed());
    assert_eq!(others.map(|place| status_of(&cluster, place).stage).iter().sum::<u16>(), 2);
    cluster.shutdown().await;
    recompute(directory.path(), &workload, 24 * 8 * 2);
}

/// Rounds that the test of links takes at most.
const LINK_ROUNDS: u64 = 120;

#[tokio::test(flavor = "multi_thread")]
async fn numbers_become_smaller_on_slow_links_and_larger_on_fast_ones() {
    let directory = tempfile::tempdir().unwrap();
    let mut recipe = workload(2, Space::Full, Precision::F32, Profile::F32Fma).recipe.clone();
    recipe.pipeline.as_mut().unwrap().coarsest = Some(Precision::Int8);
    recipe.rounds = LINK_ROUNDS;
    let workload = Arc::new(Workload::new(recipe, Corpus::from_path(&text_path()).unwrap()).unwrap());
    let (fast, slow): (LinkSpec, LinkSpec) = ("1G/1G".parse().unwrap(), "2M/2M".parse().unwrap());
    let config = ClusterConfig { link: Some(fast), ..staged(directory.path(), 4, workload.clone()) };
    let cluster = Cluster::start(config).await.unwrap();
    let set = |link: LinkSpec| {
        let network = cluster.network().unwrap();
        cluster.members().iter().for_each(|member| assert!(network.set(member.id(), link)));
    };
    wait(&cluster, "two rounds", |status| status.totals.rounds >= 2).await;
    assert_eq!(cluster.members()[0].status().borrow().coarser, [0], "the recipe's precision suffices");
    set(slow);
    wait(&cluster, "int8", |status| status.coarser == [2]).await;
    let boundary = cluster.state().run.unwrap().pipeline.unwrap().boundaries[0].clone();
    assert!(["bf16", "int8"].contains(&boundary.precision.as_str()), "{boundary:?}");
    set(fast);
    wait(&cluster, "f32 again", |status| status.coarser == [0]).await;
    let summary = finish(&cluster).await;
    assert_eq!(summary.tokens, workload.recipe.total_tokens(), "a unit was lost");
    assert!(cluster.state().faults.is_empty(), "{:?}", cluster.state().faults);
    cluster.shutdown().await;
    recompute(directory.path(), &workload, LINK_ROUNDS * 8 * 2);
}
