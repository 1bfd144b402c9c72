//! Draws the state of the network from the peers' statuses, and keeps the curve and the samples.

use std::sync::Arc;
use std::time::Instant;

use learn::boundary::{Precision, encoded_bytes};
use ledger::{Account, Standing};
use wire::{Hash, PeerId};

use super::{Observed, SAMPLES_MAX, Summary, Watched};
use crate::status::{PeerStatus, RoundReport};
use crate::time::Spent;
use crate::view::{
    BoundaryView, CurvePoint, FaultView, LedgerView, NetState, PathView, PeerActivity, PeerView, Phase, PipelineView,
    RunView, Sample, TimeSplit,
};
use crate::workload::Workload;

/// Rounds over which the speed is taken.
const SPEED_ROUNDS: usize = 8;
/// Most faults shown.
const FAULTS_MAX: usize = 100;
/// Peers of other machines that are shown.
const ELSEWHERE_MAX: usize = 200;

/// What was drawn so far.
#[derive(Debug)]
pub(super) struct Picture {
    /// The parts that never change.
    run: RunView,
    /// Number of stages: the ledger counts a token in each of them.
    stages: u64,
    validators: Vec<PeerId>,
    /// What stays the same, and the curve and the samples.
    kept: NetState,
    rounds: Vec<RoundReport>,
    bytes_sent_before: u64,
    bytes_sent: u64,
    rounds_before: Option<usize>,
    started: Option<Instant>,
    finished_seconds: Option<f64>,
    workload: Arc<Workload>,
}

impl Picture {
    pub(super) fn new(watched: &Watched, observed: Observed) -> Self {
        let (charter, recipe) = (&watched.run.charter().body, &watched.workload.recipe);
        let run = RunView {
            id: charter.run_id(),
            name: charter.name.clone(),
            phase: Phase::Starting,
            parameters: watched.workload.parameters(),
            model: model_line(recipe),
            data: watched.data_label.clone(),
            recipe: recipe_line(recipe),
            round: 0,
            rounds: charter.rounds,
            tokens: 0,
            tokens_target: recipe.total_tokens(),
            elapsed_seconds: 0.0,
            eta_seconds: None,
            tokens_per_second: 0.0,
            training_loss: None,
            heldout_loss: None,
            bytes_per_token: 0.0,
            payload_bytes_per_token: 0.0,
            compression: 0.0,
            time: TimeSplit::default(),
            state_root: None,
            release: charter.release,
            ticket: watched.ticket.clone(),
            pipeline: pipeline(&watched.workload, watched.link.as_ref(), &[]),
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let kept = NetState {
            version,
            curve: observed.state.curve,
            baseline: watched.baseline.clone(),
            samples: observed.state.samples,
            ..NetState::default()
        };
        Self {
            run,
            stages: u64::from(watched.workload.stages_len()),
            validators: charter.validators.clone(),
            kept,
            rounds: Vec::new(),
            bytes_sent_before: observed.bytes_sent,
            bytes_sent: 0,
            rounds_before: None,
            started: None,
            finished_seconds: None,
            workload: watched.workload.clone(),
        }
    }

    /// Takes the closed rounds; gives the points that are new.
    pub(super) fn take_rounds(&mut self, rounds: &[RoundReport]) -> Vec<CurvePoint> {
        self.rounds_before.get_or_insert(rounds.len());
        let new = rounds.get(self.rounds.len()..).unwrap_or_default().to_vec();
        self.rounds.extend_from_slice(&new);
        let mut points = Vec::new();
        for round in new {
            let point = self.point_at(round.tokens);
            if point.training_loss.is_none() {
                point.training_loss = round.training_loss;
                points.push(*point);
            }
        }
        points
    }

    /// Notes a held-out loss; gives its point.
    pub(super) fn take_heldout(&mut self, tokens: u64, loss: f64) -> CurvePoint {
        let point = self.point_at(tokens);
        point.heldout_loss = Some(loss);
        *point
    }

    pub(super) fn has_sample(&self, round: u64) -> bool {
        self.kept.samples.iter().any(|sample| sample.round == round)
    }

    /// Adds a sample. Beyond the limit, every second one of all but the last goes.
    pub(super) fn take_sample(&mut self, sample: Sample) {
        if self.kept.samples.len() >= SAMPLES_MAX {
            let mut place = 0;
            self.kept.samples.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
        self.kept.samples.push(sample);
    }

    /// Tokens trained on when so many rounds were done; of more rounds than there are, those of all.
    pub(super) fn tokens_at(&self, rounds: u64) -> u64 {
        let rounds = usize::try_from(rounds).unwrap_or(usize::MAX).min(self.rounds.len());
        rounds.checked_sub(1).map_or(0, |last| self.rounds[last].tokens)
    }

    /// The state to be kept between starts.
    pub(super) fn keep(&self, state: NetState) -> Observed {
        Observed { bytes_sent: self.bytes_sent_before + self.bytes_sent, state }
    }

    /// The state of the network.
    pub(super) fn draw(&mut self, statuses: &[PeerStatus], gone: &[bool]) -> NetState {
        let ledger = statuses.iter().max_by_key(|status| status.height).unwrap_or(&statuses[0]);
        if self.started.is_none() && ledger.open_round.is_some() {
            self.started = Some(Instant::now());
        }
        self.bytes_sent = statuses.iter().map(|status| status.traffic.sent).sum();
        let mut peers: Vec<PeerView> =
            statuses.iter().enumerate().map(|(place, status)| self.peer(place + 1, status, ledger, statuses)).collect();
        for (peer, _) in peers.iter_mut().zip(gone).filter(|(_, gone)| **gone) {
            peer.activity = PeerActivity::Offline;
        }
        let local = |account: &&Account| statuses.iter().any(|status| status.id == account.peer);
        let elsewhere = ledger.accounts.iter().filter(|account| !local(account));
        peers.extend(elsewhere.take(ELSEWHERE_MAX).map(|account| self.peer_elsewhere(account, ledger, statuses)));
        let view = LedgerView {
            height: ledger.height,
            root: ledger.ledger_root,
            supply: ledger.totals.supply,
            receipts: ledger.totals.receipts,
        };
        let run = self.run_view(statuses, gone, ledger);
        NetState { run: Some(run), peers, ledger: Some(view), faults: faults(statuses), ..self.kept.clone() }
    }

    /// What a complete run came to; none until the final state was measured.
    pub(super) fn summary(&self, statuses: &[PeerStatus]) -> Option<Summary> {
        let ledger = &statuses[0];
        let tokens = ledger.totals.tokens / self.stages;
        let heldout_loss =
            self.kept.curve.iter().find(|point| point.tokens == tokens).and_then(|point| point.heldout_loss);
        let baseline = self.kept.baseline.as_ref();
        let baseline_loss = baseline.and_then(|line| line.points.iter().rev().find_map(|point| point.heldout_loss));
        let figures = self.figures(tokens);
        Some(Summary {
            run: self.run.id,
            name: self.run.name.clone(),
            rounds: ledger.totals.rounds,
            tokens,
            parameters: self.run.parameters,
            state_root: self.state_root(ledger)?,
            heldout_loss,
            baseline_heldout_loss: baseline_loss,
            gap: baseline_loss.zip(heldout_loss).map(|(baseline, loss)| loss / baseline - 1.0),
            compression: figures.compression,
            payload_bytes_per_token: figures.payload_bytes_per_token,
            bytes_per_token: figures.bytes_per_token,
            seconds: self.rounds.iter().map(round_seconds).sum(),
            shares: statuses.iter().map(|status| (status.id, shares(ledger, status.id))).collect(),
            supply: ledger.totals.supply,
        })
    }

    /// The point of the curve at so many tokens, added in its place when there is none.
    fn point_at(&mut self, tokens: u64) -> &mut CurvePoint {
        let curve = &mut self.kept.curve;
        let place = curve.partition_point(|point| point.tokens < tokens);
        if curve.get(place).is_none_or(|point| point.tokens != tokens) {
            curve.insert(place, CurvePoint { tokens, training_loss: None, heldout_loss: None });
        }
        &mut curve[place]
    }

    fn run_view(&mut self, statuses: &[PeerStatus], gone: &[bool], ledger: &PeerStatus) -> RunView {
        let totals = &ledger.totals;
        let phase = self.phase(statuses, gone);
        let elapsed = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let elapsed = match phase {
            Phase::Finished => *self.finished_seconds.get_or_insert(elapsed),
            _ => elapsed,
        };
        // The round that was open when the run went on has the time away in it.
        let before = self.rounds_before.filter(|before| *before > 0).map_or(0, |before| before + 1);
        let first = before.max(self.rounds.len().saturating_sub(SPEED_ROUNDS)).min(self.rounds.len());
        let recent = &self.rounds[first..];
        let seconds: f64 = recent.iter().map(round_seconds).sum();
        let first_tokens = recent.first().map_or(0, |first| self.tokens_at(first.round));
        let tokens = recent.last().map_or(0, |last| last.tokens - first_tokens);
        let left = self.run.rounds.saturating_sub(totals.rounds);
        let figures = self.figures(totals.tokens / self.stages);
        let mut spent = Spent::default();
        statuses.iter().for_each(|status| spent.add(status.spent));
        RunView {
            phase,
            round: totals.rounds,
            tokens: totals.tokens / self.stages,
            elapsed_seconds: elapsed,
            eta_seconds: (!recent.is_empty() && phase == Phase::Training)
                .then(|| seconds / recent.len() as f64 * left as f64),
            tokens_per_second: if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 },
            training_loss: self.kept.curve.iter().rev().find_map(|point| point.training_loss),
            heldout_loss: self.kept.curve.iter().rev().find_map(|point| point.heldout_loss),
            bytes_per_token: figures.bytes_per_token,
            payload_bytes_per_token: figures.payload_bytes_per_token,
            compression: figures.compression,
            time: spent.split(),
            state_root: self.state_root(&statuses[0]),
            pipeline: pipeline(&self.workload, self.link(), &ledger.coarser),
            ..self.run.clone()
        }
    }

    fn link(&self) -> Option<&String> {
        self.run.pipeline.as_ref().and_then(|pipeline| pipeline.link.as_ref())
    }

    /// The root of the newest state: of several stages that over all of them.
    fn state_root(&self, status: &PeerStatus) -> Option<Hash> {
        match self.stages {
            1 => status.model.map(|model| model.state_root),
            _ => status.agreed.as_ref().map(|agreed| agreed.model().state_root),
        }
    }

    fn phase(&self, statuses: &[PeerStatus], gone: &[bool]) -> Phase {
        if statuses.iter().any(|status| status.halted.is_some()) {
            return Phase::Halted;
        }
        // A stage bears the loss of a replica, and one that is started again finishes when it is back.
        let is_missed = |status: &PeerStatus, gone: bool| self.stages > 1 && (gone || status.lives.is_away);
        let mut here = statuses.iter().zip(gone).filter(|(status, gone)| !is_missed(status, **gone)).peekable();
        if here.peek().is_some() && here.all(|(status, _)| status.finished) {
            return Phase::Finished;
        }
        match statuses.iter().any(|status| status.open_round.is_some()) {
            true => Phase::Training,
            false => Phase::Starting,
        }
    }

    fn peer(&self, number: usize, status: &PeerStatus, ledger: &PeerStatus, statuses: &[PeerStatus]) -> PeerView {
        let account = ledger.account(status.id);
        let supply = ledger.totals.supply;
        let shares = account.map_or(0, |account| account.shares);
        let against = |other: &PeerStatus| other.faults.iter().filter(|fault| fault.peer == status.id).count() as u64;
        PeerView {
            id: status.id,
            name: format!("peer {number}"),
            activity: if status.halted.is_some() { PeerActivity::Offline } else { status.activity },
            validator: self.validators.contains(&status.id),
            shares,
            share_of_supply: if supply > 0 { shares as f64 / supply as f64 } else { 0.0 },
            receipts: account.map_or(0, |account| account.receipts),
            bytes_sent: status.traffic.sent,
            bytes_received: status.traffic.received,
            tokens_per_second: match status.trained_seconds > 0.0 {
                true => status.trained_tokens as f64 / status.trained_seconds,
                false => 0.0,
            },
            stage: (self.stages > 1).then_some(status.stage),
            memory_peak_bytes: status.memory_peak_bytes,
            restarts: status.lives.restarts,
            lost: status.lives.lost.clone(),
            path: statuses[0]
                .paths
                .get(&status.id)
                .filter(|_| number != 1)
                .map(|path| PathView { relayed: path.is_relayed(), round_trip_ms: path.round_trip_us as f64 / 1e3 }),
            faults: statuses.iter().map(against).max().unwrap_or(0),
        }
    }

    /// A peer of another machine, as far as the ledger knows it.
    fn peer_elsewhere(&self, account: &Account, ledger: &PeerStatus, statuses: &[PeerStatus]) -> PeerView {
        let status = PeerStatus { stage: account.stage, ..PeerStatus::blank(account.peer, statuses[0].address) };
        let activity = match account.standing {
            Standing::Out => PeerActivity::Offline,
            Standing::Joining => PeerActivity::Joining,
            Standing::Member | Standing::Leaving => PeerActivity::Elsewhere,
        };
        PeerView { name: account.peer.short(), activity, ..self.peer(0, &status, ledger, statuses) }
    }

    fn figures(&self, tokens: u64) -> Figures {
        let payload_bytes: u64 = self.rounds.iter().map(|round| round.payload_bytes).sum();
        let payloads: u64 = self.rounds.iter().map(|round| round.payloads).sum();
        let bytes = (self.bytes_sent_before + self.bytes_sent) as f64;
        let per_token = |bytes: f64| if tokens > 0 { bytes / tokens as f64 } else { 0.0 };
        // A payload is about the parameters of one stage.
        let parameter_bytes = 4.0 * self.run.parameters as f64 / self.stages as f64;
        Figures {
            bytes_per_token: per_token(bytes),
            payload_bytes_per_token: per_token(payload_bytes as f64),
            compression: if payload_bytes > 0 { parameter_bytes * payloads as f64 / payload_bytes as f64 } else { 0.0 },
        }
    }
}

struct Figures {
    bytes_per_token: f64,
    payload_bytes_per_token: f64,
    compression: f64,
}

fn shares(ledger: &PeerStatus, peer: PeerId) -> u64 {
    ledger.account(peer).map_or(0, |account| account.shares)
}

fn round_seconds(round: &RoundReport) -> f64 {
    round.closed_us.saturating_sub(round.opened_us) as f64 / 1e6
}

/// The faults that the peers recorded, each once, in the order of their rounds.
fn faults(statuses: &[PeerStatus]) -> Vec<FaultView> {
    let mut all: Vec<FaultView> = Vec::new();
    for fault in statuses.iter().flat_map(|status| &status.faults) {
        if !all.contains(fault) {
            all.push(fault.clone());
        }
    }
    all.sort_by_key(|fault| fault.round);
    all.drain(..all.len().saturating_sub(FAULTS_MAX));
    all
}

fn pipeline(workload: &Workload, link: Option<&String>, coarser: &[u8]) -> Option<PipelineView> {
    let settings = workload.recipe.pipeline?;
    let columns = workload.shape(0)?.columns();
    let layers = (0..workload.stages_len()).filter_map(|stage| {
        let layers = workload.shape(stage)?.stage().layers();
        Some((layers.start as u64, layers.len() as u64))
    });
    // A message's header belongs to its tokens, too.
    let tokens = workload.recipe.batch.sequences * workload.recipe.batch.tokens;
    let boundary = |precision: Precision| BoundaryView {
        precision: precision.name().to_owned(),
        bytes_per_token: encoded_bytes(precision, tokens, columns) as f64 / tokens as f64,
    };
    let precisions = workload.precisions(coarser).into_iter();
    Some(PipelineView {
        layers: layers.collect(),
        codec: settings.codec().to_string(),
        boundaries: precisions.map(boundary).collect(),
        link: link.cloned(),
    })
}

fn model_line(recipe: &learn::Recipe) -> String {
    let model = &recipe.model;
    format!(
        "Llama-style, {} layers of width {}, {} heads ({} for keys and values), feed-forward {}, vocabulary {}",
        model.layers, model.width, model.heads, model.kv_heads, model.ff, model.vocab
    )
}

fn recipe_line(recipe: &learn::Recipe) -> String {
    let inner = if recipe.inner.muon.is_some() { "Muon" } else { "AdamW" };
    let compression = recipe.compression;
    format!(
        "{} rounds of {} units, {inner} × {} inner steps of {} × {} tokens, {} of {} entries sent with 2 bits",
        recipe.rounds,
        recipe.units_per_round,
        recipe.inner_steps,
        recipe.batch.sequences,
        recipe.batch.tokens,
        compression.keep,
        compression.chunk
    )
}
