//! How the peers of a machine are started: where each listens, which stages it can take part in, and who runs it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use iroh::RelayUrl;
use learn::data::Texts;
use swarm::CheckedBlocks;
use swarm::pipeline::PipelineConfig;
use wire::{Identity, OperatorCertificate, PeerId, Signed, Ticket};

use super::ClusterConfig;
use crate::child::{ChildConfig, ChildHandle, ChildProgram};
use crate::home::{Home, RunHome};
use crate::join;
use crate::limits::{Limits, Rates};
use crate::member::{Failure, FailureKind, Member};
use crate::memory::MemberMemory;
use crate::peer::{self, NodeConfig};
use crate::transport::TransportConfig;
use crate::workload::{Cores, stage_of};

/// What the peers of a machine share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The cores that peers of this process, and whatever else computes in it, may use.
    pub(super) cores: Cores,
    /// How much may go to other machines and come from them.
    rates: Rates,
    /// What each process may take, when every peer has one: this one, too, measures models and answers questions.
    part: Limits,
    /// The peers of this machine, and who uses their model: traffic between them is not limited.
    own: Vec<PeerId>,
    checked: CheckedBlocks,
}

impl Shared {
    pub(super) fn new(config: &ClusterConfig, identities: &[Identity], consumer: PeerId) -> Self {
        let own: Vec<PeerId> = identities.iter().map(Identity::id).chain([consumer]).collect();
        let processes = if config.processes.is_some() { config.peers + 1 } else { 1 };
        let part = config.limits.part(processes);
        let rates = Rates::new(part.up_bits_per_s, part.down_bits_per_s, &own);
        Self { cores: config.cores.limited(part.cpu), rates, part, own, checked: CheckedBlocks::default() }
    }
}

/// Starts all peers of a machine, and waits until each listens.
pub(super) async fn start_members(
    home: &Home,
    run: &RunHome,
    config: &ClusterConfig,
    identities: &[Identity],
    shared: &Shared,
) -> Result<Vec<Member>, Failure> {
    let mut ids: Vec<PeerId> = identities.iter().map(Identity::id).collect();
    ids.extend(config.joins.as_ref().map(|joined| joined.validator.0));
    let mut members: Vec<Member> = Vec::new();
    for (number, identity) in (1..).zip(identities) {
        let started = match &config.processes {
            None => start_task(run, config, (number, identity), &ids, shared).await,
            Some(program) => start_process((home, run), config, number, &ids, (program, shared)).await,
        };
        match started {
            Ok(member) => members.push(member),
            Err(failure) => {
                for member in &members {
                    member.shutdown().await;
                }
                return Err(failure);
            }
        }
    }
    Ok(members)
}

/// By which an operator says that it runs a peer.
fn certificate(run: &RunHome, config: &ClusterConfig, peer: PeerId) -> Option<Signed<OperatorCertificate>> {
    let operator = config.joins.as_ref()?.operator.as_ref()?;
    Some(operator.sign(OperatorCertificate { run: run.charter().body.run_id(), peer }))
}

/// The stage in which a peer begins.
fn first_stage(config: &ClusterConfig, number: usize) -> u16 {
    config.joins.as_ref().map_or_else(|| stage_of(number, config.workload.stages_len()), |joined| joined.stage)
}

/// What another machine needs to take part.
pub(super) fn ticket(run: &RunHome, config: &ClusterConfig, first: &Member) -> Ticket {
    let (validator, addresses) = match &config.joins {
        Some(joined) => (joined.validator.0, joined.validator.1.into_iter().collect()),
        None => (first.id(), join::reachable(first.address())),
    };
    let relays = relays(config).iter().map(|relay| relay.as_str().trim_end_matches('/').to_owned()).collect();
    Ticket { run: run.charter().body.run_id(), validator, addresses, relays }
}

/// The relays through which the peers of this machine are reached.
fn relays(config: &ClusterConfig) -> &[RelayUrl] {
    config.joins.as_ref().map_or(&config.relays, |joined| &joined.relays)
}

/// Where a peer listens: peer 1 where it was told to, the others beside it, and one of a run elsewhere where it can reach that.
fn transport(config: &ClusterConfig, number: usize) -> TransportConfig {
    let beside = |listen: SocketAddr| if number == 1 { listen } else { SocketAddr::new(listen.ip(), 0) };
    let told = config.listen.map(beside);
    let reaches = || config.joins.as_ref().map(|joined| join::bind_for(joined.validator.1.as_slice()));
    let relayed = || (!relays(config).is_empty()).then(|| join::bind_for(&[]));
    let bind = told.or_else(reaches).or_else(relayed).unwrap_or(TransportConfig::default().bind);
    TransportConfig { bind, relays: relays(config).to_vec(), ..TransportConfig::default() }
}

async fn start_task(
    run: &RunHome,
    config: &ClusterConfig,
    (number, identity): (usize, &Identity),
    ids: &[PeerId],
    shared: &Shared,
) -> Result<Member, Failure> {
    let node = NodeConfig {
        directory: run.peer_path(number),
        identity: identity.clone(),
        charter: run.charter().clone(),
        workload: config.workload.clone(),
        stage: first_stage(config, number),
        operator: certificate(run, config, identity.id()),
        places: places(config, number)?,
        alone: false,
        cores: shared.cores.clone(),
        transport: TransportConfig {
            fixed_paths: config.link.is_some(),
            rates: shared.rates.clone(),
            ..transport(config, number)
        },
        peers: ids.to_vec(),
        texts: config.data.clone().filter(|path| Texts::are_kept_in(path)),
        checked: shared.checked.clone(),
    };
    peer::start(node).await.map(Member::Task).map_err(|error| Failure::from(&error))
}

/// The stages in which a peer can take part within the memory that it may take, with the settings of its pipeline in each: its own, and
/// others to which it may move.
pub(super) fn places(config: &ClusterConfig, number: usize) -> Result<BTreeMap<u16, PipelineConfig>, Failure> {
    let (stages, own) = (config.workload.stages_len(), first_stage(config, number));
    let mut places = BTreeMap::from([(own, pipeline(config, own)?)]);
    // Where the weights are split a peer stays with its stage.
    if !config.release.unwrap_or_default().is_split() {
        let others = (0..stages).filter(|stage| *stage != own);
        places.extend(others.filter_map(|stage| Some((stage, pipeline(config, stage).ok()?))));
    }
    Ok(places)
}

/// The settings of the pipeline of a peer in a stage.
fn pipeline(config: &ClusterConfig, stage: u16) -> Result<PipelineConfig, Failure> {
    let workload = &config.workload;
    let replicas = (1..=config.peers).filter(|other| stage_of(*other, workload.stages_len()) == stage).count();
    let bad_input =
        |message: String, hint: &str| Failure { kind: FailureKind::BadInput, message, hint: hint.to_owned() };
    let memory = MemberMemory::of(workload, stage, replicas);
    let memory = memory.map_err(|error| bad_input(error.to_string(), "choose another recipe"))?;
    let Some(memory) = memory else { return Ok(workload.pipeline()) };
    memory
        .pipeline(workload, stage, config.limits.memory)
        .map_err(|error| bad_input(error.to_string(), "take more stages, or allow a peer more memory"))
}

async fn start_process(
    (home, run): (&Home, &RunHome),
    config: &ClusterConfig,
    number: usize,
    ids: &[PeerId],
    (program, shared): (&ChildProgram, &Shared),
) -> Result<Member, Failure> {
    let held = places(config, number)?.into_iter().map(|(stage, pipeline)| (stage, pipeline.held_bytes_max));
    let child = ChildConfig {
        directory: run.peer_path(number),
        key: home.key_path(number),
        charter: run.charter().clone().into_signed(),
        recipe: String::from_utf8(config.workload.recipe.to_bytes()).expect("a recipe is JSON"),
        data: config.data.clone(),
        stage: first_stage(config, number),
        operator: certificate(run, config, ids[number - 1]),
        cores: (config.cores.count() / config.peers).max(1),
        bind: transport(config, number).bind,
        relays: relays(config).to_vec(),
        fixed_paths: config.link.is_some(),
        held_bytes_max: held.collect(),
        memory: config.limits.memory,
        cpu: shared.part.cpu,
        up_bits_per_s: shared.part.up_bits_per_s,
        down_bits_per_s: shared.part.down_bits_per_s,
        own: shared.own.clone(),
        peers: ids.to_vec(),
    };
    ChildHandle::start(program, &child).await.map(Member::Process)
}
