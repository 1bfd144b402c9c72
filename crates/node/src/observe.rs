//! Watches a local cluster for people: the state of the network, the loss curve, samples of text, checkpoints.
//!
//! One task reads the peers' statuses a few times a second. Whenever peer 1 holds a new state it reads that state's blob,
//! hands it to whoever serves it as a [`Checkpoint`] (a model with learned bases between its stages has no such form), and,
//! when the recipe says so, measures it on held-out text and lets it write a sample, one at a time and on a core of its own.
//! What was observed is kept in the run's directory, so that the curve goes on after a restart; training losses of rounds
//! come from the blocks and need no keeping.

mod evaluate;
mod picture;
mod through;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use tokio::time::MissedTickBehavior;
use wire::{Hash, PeerId, RunId};

use crate::Checkpoint;
use crate::home::RunHome;
use crate::inference::InferenceClient;
use crate::member::{Ended, Failure, FailureKind};
use crate::status::{AgreedState, PeerStatus};
use crate::view::{Baseline, MachineView, NetEvent, NetState, Phase, Sample};
use crate::workload::{Cores, Workload, stage_of};
use evaluate::{Evaluated, Evaluation};
pub(crate) use evaluate::{read_checkpoint, read_states};
use picture::Picture;

/// Changes that a listener may fall behind before it misses some.
pub const EVENTS_QUEUED_MAX: usize = 256;
/// Most samples kept; beyond, every second one of the older ones goes.
pub const SAMPLES_MAX: usize = 64;
/// A run gives about this many samples.
const SAMPLES_PER_RUN: u64 = 16;

const LOOK: Duration = Duration::from_millis(200);
const STATE_EVERY: Duration = Duration::from_millis(1000);

/// What is kept of a run between starts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Observed {
    /// Bytes that all peers sent, headers included.
    pub(crate) bytes_sent: u64,
    /// The state of the network, with the curve and the samples.
    pub(crate) state: NetState,
}

/// How a complete run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The run.
    pub run: RunId,
    /// What people call it.
    pub name: String,
    /// Rounds.
    pub rounds: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Trained parameters.
    pub parameters: u64,
    /// Root of the final state.
    pub state_root: Hash,
    /// Final held-out loss, nats per token; none when the peers of a model that is measured through them failed.
    pub heldout_loss: Option<f64>,
    /// The baseline's final held-out loss, when one is recorded.
    pub baseline_heldout_loss: Option<f64>,
    /// How much higher the swarm's loss is than the baseline's, as a fraction.
    pub gap: Option<f64>,
    /// Size of the f32 parameters over the mean payload.
    pub compression: f64,
    /// Payload bytes per trained token.
    pub payload_bytes_per_token: f64,
    /// Bytes sent by all peers, headers included, per trained token.
    pub bytes_per_token: f64,
    /// Seconds from the first round's opening to the last one's end, pauses between starts left out.
    pub seconds: f64,
    /// Shares per peer, in micro-shares, in the order of the peers' numbers.
    pub shares: Vec<(PeerId, u64)>,
    /// All shares, those of other machines' peers included, in micro-shares.
    #[serde(default)]
    pub supply: u64,
}

/// How a cluster ended, or what it came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The run is complete. The peers go on serving.
    Finished(Box<Summary>),
    /// A peer failed, or its state differs from the agreed one.
    Failed(Failure),
}

/// What the observer looks at.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) run: RunHome,
    pub(crate) workload: Arc<Workload>,
    pub(crate) cores: Cores,
    pub(crate) baseline: Option<Baseline>,
    pub(crate) data_label: String,
    /// The link that every peer sits behind, for people.
    pub(crate) link: Option<String>,
    /// What this machine gives.
    pub(crate) machine: watch::Receiver<MachineView>,
    /// Whether the run was founded here, so that every stage has members here.
    pub(crate) founded: bool,
    /// What another machine needs to take part, when it can.
    pub(crate) ticket: Option<String>,
    /// How the model is used, when it is in stages.
    pub(crate) inference: Option<Arc<InferenceClient>>,
    pub(crate) statuses: Vec<watch::Receiver<PeerStatus>>,
    pub(crate) ended: Vec<watch::Receiver<Option<Ended>>>,
}

/// What the observer found so far. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Observer {
    state: Arc<Mutex<NetState>>,
    events: broadcast::Sender<NetEvent>,
    checkpoints: watch::Receiver<Option<Arc<Checkpoint>>>,
    outcome: watch::Receiver<Option<Outcome>>,
    machine: watch::Receiver<MachineView>,
}

impl Observer {
    /// Starts to observe. Ends when `stop` is set; what was observed is saved by then.
    pub(crate) fn start(
        watched: Watched,
        observed: Observed,
        stop: watch::Receiver<bool>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (checkpoint_sender, checkpoints) = watch::channel(None);
        let (outcome_sender, outcome) = watch::channel(None);
        let events = broadcast::Sender::new(EVENTS_QUEUED_MAX);
        let state = Arc::new(Mutex::new(observed.state.clone()));
        let observer = Self { state, events, checkpoints, outcome, machine: watched.machine.clone() };
        let watching = Watching {
            picture: Picture::new(&watched, observed),
            evaluation: Evaluation::new(&watched),
            watched,
            observer: observer.clone(),
            checkpoints: checkpoint_sender,
            outcome: outcome_sender,
            seen_state: None,
            told_state: None,
            measured: BTreeSet::new(),
            taken: None,
        };
        (observer, tokio::spawn(watching.run(stop)))
    }

    /// The whole state of the network as of now.
    pub fn state(&self) -> NetState {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        NetState { machine: Some(self.machine.borrow().clone()), ..state }
    }

    /// The changes of that state.
    pub fn events(&self) -> &broadcast::Sender<NetEvent> {
        &self.events
    }

    /// The newest model that may be served.
    pub fn checkpoints(&self) -> watch::Receiver<Option<Arc<Checkpoint>>> {
        self.checkpoints.clone()
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> watch::Receiver<Option<Outcome>> {
        self.outcome.clone()
    }
}

struct Watching {
    watched: Watched,
    picture: Picture,
    evaluation: Evaluation,
    observer: Observer,
    checkpoints: watch::Sender<Option<Arc<Checkpoint>>>,
    outcome: watch::Sender<Option<Outcome>>,
    seen_state: Option<AgreedState>,
    told_state: Option<Instant>,
    measured: BTreeSet<u64>,
    /// The round of the newest state that was read and is served, if it can be.
    taken: Option<u64>,
}

impl Watching {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut first = self.watched.statuses[0].clone();
        loop {
            tokio::select! {
                _ = look.tick() => {}
                // The sender is gone only when the peer ended; then the ticks are enough.
                Ok(()) = first.changed() => {}
                Some(evaluated) = self.evaluation.done() => self.take_evaluation(evaluated),
                _ = stop.wait_for(|stop| *stop) => break,
            }
            self.look();
        }
        self.evaluation.stop().await;
        self.look();
        self.save();
    }

    fn look(&mut self) {
        let statuses: Vec<PeerStatus> = self.watched.statuses.iter().map(|status| status.borrow().clone()).collect();
        // Whoever was killed drops the sender or leaves a word.
        let gone = |ended: &watch::Receiver<Option<Ended>>| ended.has_changed().is_err() || ended.borrow().is_some();
        let gone: Vec<bool> = self.watched.ended.iter().map(gone).collect();
        for point in self.picture.take_rounds(&statuses[0].rounds) {
            self.tell(NetEvent::Point(point));
        }
        let newest = self.newest_state(&statuses[0]);
        if newest != self.seen_state {
            self.seen_state.clone_from(&newest);
            self.take_state(newest);
        }
        let machine = Some(self.watched.machine.borrow().clone());
        let state = NetState { machine, ..self.picture.draw(&statuses, &gone) };
        let due = self.told_state.is_none_or(|told| told.elapsed() >= STATE_EVERY);
        let phase_changed = {
            let mut shown = self.observer.state.lock().unwrap_or_else(PoisonError::into_inner);
            let paused = |state: &NetState| state.machine.as_ref().and_then(|machine| machine.paused.clone());
            let phase = |state: &NetState| state.run.as_ref().map(|run| run.phase);
            let changed = phase(&shown) != phase(&state) || paused(&shown) != paused(&state);
            shown.clone_from(&state);
            changed
        };
        self.take_outcome(&statuses, &state);
        if due || phase_changed {
            self.told_state = Some(Instant::now());
            let light = NetState { curve: Vec::new(), samples: Vec::new(), baseline: None, ..state };
            self.tell(NetEvent::State(Box::new(light)));
        }
    }

    /// The newest state that can be read: what peer 1 holds or, of several stages, what all of them agreed on.
    fn newest_state(&self, first: &PeerStatus) -> Option<AgreedState> {
        match self.watched.workload.stages_len() {
            1 => first.model.map(|model| AgreedState { round: model.round, roots: vec![model.state_root] }),
            _ => first.agreed.clone(),
        }
    }

    /// There is a new state.
    fn take_state(&mut self, state: Option<AgreedState>) {
        let Some(state) = state else { return };
        let model = state.model();
        let recipe = &self.watched.workload.recipe;
        let due = model.round.is_multiple_of(recipe.evaluation.every_rounds) || model.round == recipe.rounds;
        let sample_every = (recipe.rounds / SAMPLES_PER_RUN).max(1);
        let sample = model.round.is_multiple_of(sample_every) || model.round == recipe.rounds;
        let new = model.round > 0 && !self.measured.contains(&model.round);
        let newest = self.taken.is_none();
        self.evaluation.want(state, newest, due && new, sample && new && !self.picture.has_sample(model.round));
    }

    fn take_evaluation(&mut self, evaluated: Evaluated) {
        let tokens = self.picture.tokens_at(evaluated.round);
        if let Some(loss) = evaluated.heldout_loss {
            self.measured.insert(evaluated.round);
            let point = self.picture.take_heldout(tokens, loss);
            self.tell(NetEvent::Point(point));
        }
        if let Some((prompt, text)) = evaluated.sample {
            let sample = Sample { round: evaluated.round, tokens, prompt, text };
            self.picture.take_sample(sample.clone());
            self.tell(NetEvent::Sample(sample));
        }
        if let Some(checkpoint) = evaluated.checkpoint {
            self.checkpoints.send_replace(Some(checkpoint));
        }
        self.taken = Some(evaluated.round);
        self.save();
    }

    fn take_outcome(&mut self, statuses: &[PeerStatus], state: &NetState) {
        if self.outcome.borrow().is_some() {
            return;
        }
        let ended = self.unbearable_end();
        let halted = statuses.iter().find_map(|status| status.halted.clone());
        if let Some(failure) = ended.or(halted) {
            self.outcome.send_replace(Some(Outcome::Failed(failure)));
            return;
        }
        // The run is over for people once its last model was measured and answers.
        let finished =
            state.run.as_ref().is_some_and(|run| run.phase == Phase::Finished && self.taken == Some(run.rounds));
        let Some(summary) = finished.then(|| self.picture.summary(statuses)).flatten() else { return };
        if let Err(error) = self.watched.run.write_summary(&summary) {
            tracing::warn!(%error, "the summary cannot be kept");
        }
        self.save();
        self.outcome.send_replace(Some(Outcome::Finished(Box::new(summary))));
    }

    /// The failure of a peer without which the run cannot go on: a stage bears the loss of killed replicas until the last one, and nobody
    /// that of peer 1, which orders the blocks.
    fn unbearable_end(&self) -> Option<Failure> {
        let (stages, all) = (self.watched.workload.stages_len(), &self.watched.ended);
        let failure = (1..).zip(all).find_map(|(number, ended)| {
            let ended = ended.borrow().clone()?;
            ended.failure.filter(|_| stages == 1 || !ended.killed || number == 1)
        });
        if failure.is_some() || stages == 1 || !self.watched.founded {
            return failure;
        }
        // Whoever was killed leaves a word, or nothing at all.
        let killed = |ended: &watch::Receiver<Option<Ended>>| {
            let silent = ended.has_changed().is_err();
            ended.borrow().as_ref().map_or(silent, |ended| ended.killed)
        };
        let statuses = &self.watched.statuses;
        let of = |stage: u16| statuses.iter().zip(all).filter(move |(status, _)| status.borrow().stage == stage);
        let deserted = (0..stages).find(|stage| of(*stage).all(|(_, ended)| killed(ended)))?;
        Some(Failure {
            kind: FailureKind::Unexpected,
            message: format!("all peers of stage {deserted} were killed"),
            hint: "start it again: it goes on from the last finished round".to_owned(),
        })
    }

    fn tell(&self, event: NetEvent) {
        // Nobody listens, often.
        let _ = self.observer.events.send(event);
    }

    fn save(&self) {
        let state = self.observer.state();
        if let Err(error) = self.watched.run.write_observed(&self.picture.keep(state)) {
            tracing::warn!(%error, "what was observed cannot be kept");
        }
    }
}

/// Where the local peers keep their blobs: those that began in a stage first, then those that may have moved there.
pub(crate) fn blob_paths(run: &RunHome, stage: u16, stages: u16, peers: usize) -> Vec<PathBuf> {
    let (first, others): (Vec<usize>, Vec<usize>) = (1..=peers).partition(|number| stage_of(*number, stages) == stage);
    first.into_iter().chain(others).map(|number| run.peer_path(number).join("blobs")).collect()
}
