//! The peers of one machine: founds a run or resumes one, starts its peers, and watches them.
//!
//! Peer 1 has the user's key, founds the run and orders its blocks. A run that is named goes on where it stopped, begins, or is served on when
//! it is complete. Without a name that is the newest run of the data directory, if it has the same recipe, corpus and number of peers;
//! otherwise, or when that is asked for, a new one is founded beside it. The text of a run is kept, so that it goes on without the files that it
//! was read from, and others can have it ([`crate::texts`]).
//!
//! With a link, every peer sits behind one of its own: the cluster runs a [`ShapedNetwork`], tells peers the fronts of the
//! others instead of their addresses, and keeps them from finding other paths. That holds for peers in processes of their
//! own, too: the network is the parent's.
//!
//! A peer in a process of its own that dies is started again ([`crate::child`]), and the others are told when it listens elsewhere then.

mod checks;
mod choosing;
mod machine;
mod returns;
mod starting;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iroh::RelayUrl;
use learn::data::Role;
use ledger::Piece;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use wire::{Charter, Identity, PeerId, Release, RunId, Ticket, Verified};

use crate::Checkpoint;
use crate::child::ChildProgram;
use crate::home::{Home, RunHome};
use crate::inference::{InferenceClient, Replica};
use crate::lan::{self, Announcement};
use crate::limits::{Limits, local_minute};
use crate::links::{LinkSpec, ShapedNetwork};
use crate::member::{Failure, FailureKind, Member};
use crate::observe::{Observer, Outcome, Watched};
use crate::pausing::Pauses;
use crate::peer::NodeError;
use crate::store::StoreError;
use crate::transport::TransportConfig;
use crate::view::{Baseline, NetEvent, NetState};
use crate::workload::{Cores, Workload};
pub(crate) use checks::fitting_release;
use checks::{check_limits, check_release};
use choosing::{choose_run, kept_text};
use machine::{MachineWatch, first_view};
use returns::Returns;
use starting::{Shared, places, start_members, ticket};

/// A round may close without all of its members after this time. Longer than any unit that one sits and watches: a local
/// peer that is gone is started again, and a slow one is waited for.
pub const ROUND_SECONDS_MAX: u64 = 600;
/// The first rounds of a run of several stages have less time: what a replica had added up is lost with it, and the others
/// do not wait long. Later rounds get what those before them took, and more. A part of it suffices for a stage's root when half of the voters are gone ([`ledger::RoundOpen::late_us`]).
pub const STAGED_ROUND_SECONDS: u64 = 40;
/// The least time of a round that other machines may join: one that is gone is waited for no longer, three times.
pub const OPEN_ROUND_SECONDS: u64 = 15;
/// Shares minted per round, in micro-shares: a thousand shares.
pub const SHARES_PER_ROUND: u64 = 1_000_000_000;

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The data directory.
    pub home: PathBuf,
    /// The recipe and the corpus.
    pub workload: Arc<Workload>,
    /// The user's own text, when the corpus is not the bundled one; child processes read it themselves.
    pub data: Option<PathBuf>,
    /// How many peers, at least 1.
    pub peers: usize,
    /// The cores that the peers may use together.
    pub cores: Cores,
    /// How to run each peer in a process of its own; none runs all in this one.
    pub processes: Option<ChildProgram>,
    /// The access link of every peer; none leaves them on loopback as it is. On a link slower than
    /// [`crate::blobs::FETCH_BYTES_PER_SECOND_MIN`], blobs are given up and a run does not get on.
    pub link: Option<LinkSpec>,
    /// What this machine gives.
    pub limits: Limits,
    /// When the weights of a new run may leave their stages, and which run is resumed: one with the same. None takes any that there is, and
    /// founds an open one. Every local peer is an operator of its own.
    pub release: Option<Release>,
    /// The run of the data directory to go on with; its recipe and corpus are the workload's. None chooses by these.
    pub run: Option<RunId>,
    /// Whether to found a new run even if there is one to resume.
    pub fresh: bool,
    /// Where peer 1 listens, when machines elsewhere are to reach it; none for loopback.
    pub listen: Option<SocketAddr>,
    /// Relays through which others reach the peers; those of the ticket in a run of somebody else.
    pub relays: Vec<RelayUrl>,
    /// The run of somebody else to take part in, instead of one of the own: a peer or more that know its validator.
    pub joins: Option<Joined>,
    /// The recorded baseline of the recipe, for people to compare with.
    pub baseline: Option<Baseline>,
}

impl ClusterConfig {
    /// Peers in this process that use all cores, on loopback as it is, and resume a run of this recipe if there is one.
    pub fn new(home: &Path, workload: Arc<Workload>, peers: usize) -> Self {
        Self {
            home: home.to_owned(),
            workload,
            data: None,
            peers,
            cores: Cores::all(),
            processes: None,
            link: None,
            limits: Limits::default(),
            release: None,
            run: None,
            fresh: false,
            listen: None,
            relays: Vec::new(),
            joins: None,
            baseline: None,
        }
    }
}

impl ClusterConfig {
    /// Whether other machines can take part.
    pub fn is_open(&self) -> bool {
        self.listen.is_some() || !self.relays.is_empty()
    }
}

/// A run that was founded elsewhere.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its terms.
    pub charter: Verified<Charter>,
    /// Who orders its blocks, and where that peer was reached without a relay, if it was.
    pub validator: (PeerId, Option<SocketAddr>),
    /// The run's relays.
    pub relays: Vec<RelayUrl>,
    /// The stage in which the peers of this machine begin.
    pub stage: u16,
    /// The key of who runs this machine, when that is not its own.
    pub operator: Option<Identity>,
}

/// The running peers of a machine.
#[derive(Debug)]
pub struct Cluster {
    home: Home,
    run: RunHome,
    resumed: bool,
    ticket: Ticket,
    /// Whether it was founded elsewhere.
    joined: bool,
    /// Tells the local network of the run.
    _announcement: Option<Announcement>,
    members: Arc<Vec<Member>>,
    network: Option<Arc<ShapedNetwork>>,
    /// Tells the others when a peer listens elsewhere, and looks at the machine; ends with the cluster.
    returns: JoinSet<()>,
    pauses: Pauses,
    observer: Observer,
    observing: tokio::task::JoinHandle<()>,
    /// How a model in stages is used.
    client: Option<Arc<InferenceClient>>,
    stop: watch::Sender<bool>,
}

impl Cluster {
    /// Opens the data directory, starts all peers and introduces them to each other.
    ///
    /// # Errors
    /// [`Failure`] when the directory, a peer's files, or the network cannot be used.
    pub async fn start(mut config: ClusterConfig) -> Result<Self, Failure> {
        let failure = |error: StoreError| Failure::from(&NodeError::from(error));
        // Before anything is founded that could not run.
        check_release(&config)?;
        check_limits(&config)?;
        (1..=config.peers).try_for_each(|number| places(&config, number).map(drop))?;
        let home = Home::open(&config.home).map_err(failure)?;
        let identities = (1..=config.peers.max(1)).map(|number| home.identity(number)).collect::<Result<Vec<_>, _>>();
        let identities = identities.map_err(failure)?;
        let chosen = match &config.joins {
            Some(joined) => home.keep_run(&joined.charter, &config.workload),
            None => choose_run(&home, &config, &identities[0]),
        };
        let (run, resumed) = chosen.map_err(failure)?;
        config.data = kept_text(&config, &run)?;
        let observed = run.observed().map_err(failure)?.unwrap_or_default();
        let consumer = Identity::from_secret(iroh::SecretKey::generate().to_bytes());
        let shared = Shared::new(&config, &identities, consumer.id());
        let members = start_members(&home, &run, &config, &identities, &shared).await?;
        let mut addresses: Vec<_> = members.iter().map(|member| (member.id(), member.address())).collect();
        let network = match config.link {
            Some(link) => Some(Arc::new(shape(&run, &mut addresses, link).map_err(|error| network_failure(&error))?)),
            None => None,
        };
        let stages: Vec<u16> = members.iter().map(|member| member.status().borrow().stage).collect();
        let client = inference(&run, &config, &consumer, (&addresses, &stages), network.as_deref()).await?;
        let ticket = ticket(&run, &config, &members[0]);
        let machine = watch::Sender::new(first_view(&config.limits, &config.home));
        let pauses = Pauses::new(config.limits.when, local_minute(), machine.clone());
        let is_paused = pauses.paused().borrow().is_some();
        let (stop, stopped) = watch::channel(false);
        let watched = Watched {
            run: run.clone(),
            workload: config.workload.clone(),
            cores: shared.cores.clone(),
            baseline: config.baseline.clone(),
            data_label: data_label(&config.workload),
            link: config.link.map(|link| link.to_string()),
            machine: machine.subscribe(),
            founded: config.joins.is_none(),
            ticket: (config.joins.is_some() || config.is_open()).then(|| ticket.to_string()),
            inference: client.clone(),
            statuses: members.iter().map(Member::status).collect(),
            ended: members.iter().map(Member::ended).collect(),
        };
        let (observer, observing) = Observer::start(watched, observed, stopped);
        let elsewhere = config.joins.as_ref().map(|joined| joined.validator);
        addresses.extend(elsewhere.and_then(|(validator, address)| Some((validator, address?))));
        for member in &members {
            if is_paused {
                member.set_paused(true).await;
            }
            member.introduce(addresses.clone()).await;
        }
        let members = Arc::new(members);
        let returns = Returns { members: members.clone(), network: network.clone(), client: client.clone() };
        let mut returns = JoinSet::from_iter([returns.run()]);
        let watching =
            MachineWatch::new(home.path(), members.clone(), config.limits.clone(), pauses.clone(), machine, is_paused);
        returns.spawn(watching.run());
        let joined = config.joins.is_some();
        let _announcement = if config.is_open() && !joined { announcement(&ticket, &run.recipe().name) } else { None };
        Ok(Self {
            home,
            run,
            resumed,
            ticket,
            joined,
            _announcement,
            members,
            network,
            returns,
            pauses,
            observer,
            observing,
            client,
            stop,
        })
    }

    /// The data directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What people call the run.
    pub fn name(&self) -> &str {
        &self.run.charter().body.name
    }

    /// Trained parameters of the whole model.
    pub fn parameters(&self) -> u64 {
        self.run.recipe().layout().len() as u64
    }

    /// The run's directory.
    pub fn run_path(&self) -> &Path {
        self.run.path()
    }

    /// The run.
    pub fn run_id(&self) -> RunId {
        self.run.charter().body.run_id()
    }

    /// When the run's weights may leave their stages.
    pub fn release(&self) -> Release {
        self.run.charter().body.release
    }

    /// What another machine needs to take part: where the run's validator can be reached, as far as this machine knows.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Whether the run was started before, and goes on.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The peers, in the order of their numbers.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The links between the peers, when they are shaped: to count, to change and to cut them.
    pub fn network(&self) -> Option<&ShapedNetwork> {
        self.network.as_deref()
    }

    /// What is observed; cheap to clone and to keep.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// The whole state of the network as of now.
    pub fn state(&self) -> NetState {
        self.observer.state()
    }

    /// The pauses of this machine's peers.
    pub fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    /// The changes of that state.
    pub fn subscribe(&self) -> broadcast::Receiver<NetEvent> {
        self.observer.events().subscribe()
    }

    /// The newest model that may be served.
    pub fn checkpoints(&self) -> watch::Receiver<Option<Arc<Checkpoint>>> {
        self.observer.checkpoints()
    }

    /// The piece of a local peer, counted from 1; none before its first block.
    pub async fn piece(&self, number: usize) -> Option<Piece> {
        let member = self.members.get(number.checked_sub(1)?)?;
        self.piece_of(member.id()).await
    }

    /// The piece of a peer, as of peer 1's ledger.
    pub async fn piece_of(&self, peer: PeerId) -> Option<Piece> {
        self.members[0].piece(peer).await
    }

    /// Waits until the run is complete, or something failed.
    pub async fn outcome(&self) -> Outcome {
        let mut outcome = self.observer.outcome();
        let ended = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        ended.unwrap_or_else(|| {
            Outcome::Failed(Failure {
                kind: FailureKind::Unexpected,
                message: "the observer ended unexpectedly".to_owned(),
                hint: "start again: it goes on from the last committed round".to_owned(),
            })
        })
    }

    /// Stops all peers, and saves what was observed: as if they paused or, in a run that was founded elsewhere, for good.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if self.observing.await.is_err() {
            tracing::warn!("the observer ended unexpectedly");
        }
        self.returns.abort_all();
        // The validator last, so that nobody waits for it.
        for member in self.members.iter().rev() {
            match self.joined {
                // In a run of others nobody is to wait for a machine that was turned off.
                true => member.leave().await,
                false => member.shutdown().await,
            }
        }
        leave(self.client).await;
    }

    /// Ends all peers at once, with nothing flushed or closed, as a crash does.
    pub async fn kill(mut self) {
        self.observing.abort();
        self.returns.abort_all();
        for member in self.members.iter() {
            member.kill();
        }
        for member in self.members.iter() {
            // A killed task drops its sender, a killed process reports its end.
            let _ = member.ended().wait_for(Option::is_some).await;
        }
        leave(self.client).await;
    }
}

/// Announces the run in the local network; without it, a ticket is needed there, too.
fn announcement(ticket: &Ticket, name: &str) -> Option<Announcement> {
    let announced = lan::announce(ticket, name);
    announced.inspect_err(|error| tracing::debug!(%error, "the run is not announced in the local network")).ok()
}

async fn leave(client: Option<Arc<InferenceClient>>) {
    if let Some(client) = client {
        client.close().await;
    }
}

/// Puts every peer behind a link, and replaces its address by its front.
fn shape(run: &RunHome, addresses: &mut [(PeerId, SocketAddr)], link: LinkSpec) -> std::io::Result<ShapedNetwork> {
    let id = run.charter().body.run_id();
    let (seed, _) = id.0.0.split_first_chunk().expect("a hash is longer than a seed");
    let network = ShapedNetwork::start(u64::from_le_bytes(*seed))?;
    for (peer, address) in addresses {
        *address = network.add(*peer, *address, link)?;
    }
    Ok(network)
}

/// How this process uses a model in stages: as a consumer of its peers.
async fn inference(
    run: &RunHome,
    config: &ClusterConfig,
    consumer: &Identity,
    (addresses, stages): (&[(PeerId, SocketAddr)], &[u16]),
    network: Option<&ShapedNetwork>,
) -> Result<Option<Arc<InferenceClient>>, Failure> {
    // Of a run elsewhere only some stages are known here.
    if config.workload.stages_len() == 1 || config.joins.is_some() {
        return Ok(None);
    }
    let replica = |((peer, address), stage): (&(PeerId, SocketAddr), &u16)| Replica {
        peer: *peer,
        address: *address,
        stage: *stage,
    };
    let replicas: Vec<Replica> = addresses.iter().zip(stages).map(replica).collect();
    let transport = TransportConfig { fixed_paths: config.link.is_some(), ..TransportConfig::default() };
    let id = run.charter().body.run_id();
    let started = InferenceClient::start(&transport, consumer, id, config.workload.clone(), &replicas).await;
    let (client, address) = started.map_err(|error| Failure::from(&NodeError::from(error)))?;
    if let Some(network) = network {
        // The links of the peers count, not its own.
        network.add(consumer.id(), address, LinkSpec::default()).map_err(|error| network_failure(&error))?;
    }
    Ok(Some(client))
}

fn network_failure(error: &std::io::Error) -> Failure {
    Failure {
        kind: FailureKind::Network,
        message: format!("cannot shape the links between the peers: {error}"),
        hint: "check that UDP on the loopback interface is permitted, or start without `--link`".to_owned(),
    }
}

/// One line on the data.
fn data_label(workload: &Workload) -> String {
    let manifest = workload.corpus.manifest();
    let count = |role: Role| manifest.files.iter().filter(|file| file.role == role).count();
    format!(
        "{}: {} to train on ({} tokens), {} held out",
        manifest.name,
        count(Role::Train),
        workload.corpus.train.len(),
        count(Role::Heldout)
    )
}
