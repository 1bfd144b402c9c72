//! `cairn up`: a swarm on this machine, with its pages.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gateway::{Asked, GatewayState};
use learn::Recipe;
use node::child::ChildProgram;
use node::description::{PEERS, in_stages};
use node::home::{RunHome, newest_run, user_key_path};
use node::identity::load_or_create;
use node::limits::{Limits, When, limit_text};
use node::links::LinkSpecError;
use node::memory::MemberMemory;
use node::view::NetEvent;
use node::{Cluster, ClusterConfig, LinkSpec, Outcome as RunOutcome, RelayUrl, Summary, Workload, runs};
use tokio::sync::watch;
use wire::ticket::RELAYS_MAX;
use wire::{Release, ReleaseError};

use crate::cli::{PageArgs, UpArgs};
use crate::commands::run::find;
use crate::commands::serve::serve_ended;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::{bytes, count, duration, shares};
use crate::running::ServingNote;
use crate::terminal::View;
use crate::{serving, workload};

/// Most peers that one machine starts by itself.
const LOCAL_PEERS_MAX: u32 = 64;

/// How often the terminal is brought up to date.
const LOOK: Duration = Duration::from_millis(250);

/// Trains, shows and serves until the run is complete and Ctrl-C is pressed.
pub(crate) async fn run(args: &UpArgs, home: &Path) -> Outcome {
    let link = args.link.as_deref().map(link).transpose()?;
    let config = config(args, home, link)?;
    let planned = planned_memory(&config)?;
    attend(config, &args.page, args.exit_when_done, "`cairn up` goes on from here", |cluster, url| {
        let mut said = headline(cluster, link, url);
        said.extend(release_text(cluster).map(|policy| format!("  {policy}\n\n")));
        let parts = planned.map(|planned| (bytes(planned.total() as f64), memory_parts(&planned)));
        said.extend(parts.map(|(total, parts)| format!("  a peer takes up to {total} of memory: {parts}\n\n")));
        if args.listen.is_some() || !args.relay.is_empty() {
            said += &format!("  others take part with\n    cairn join {}\n", cluster.ticket());
        }
        said
    })
    .await
}

/// Starts the peers, serves the pages, and shows the run until it ends or Ctrl-C is pressed. `headline` says what was started, and where its
/// pages are; `again` how to go on.
pub(crate) async fn attend(
    config: ClusterConfig,
    page: &PageArgs,
    exit_when_done: bool,
    again: &str,
    headline: impl FnOnce(&Cluster, &str) -> String,
) -> Outcome {
    let server = serving::bind(page).await?;
    let (home, planned) = (config.home.clone(), planned_memory(&config)?);
    let given = limits_text(&config.limits);
    let cluster = Arc::new(Cluster::start(config).await?);
    let url = format!("http://{}/", server.address());
    let note = ServingNote::write(&home, url.trim_end_matches('/'));
    eprintln!("{}", headline(&cluster, &url));
    if let Some(given) = given {
        eprintln!("  {given}\n");
    }
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let serving = serving::start(server, gateway_state(&cluster, &home, end), stopped);
    let outcome = watch_run(&cluster, exit_when_done, planned, ended).await;
    stop.send_replace(true);
    let served = serve_ended(serving.await);
    drop(note);
    match Arc::try_unwrap(cluster) {
        Ok(cluster) => cluster.shutdown().await,
        Err(_) => tracing::warn!("something still uses the peers; what they stored is safe"),
    }
    eprintln!("stopped; {again}");
    outcome.and(served)
}

fn config(args: &UpArgs, home: &Path, link: Option<LinkSpec>) -> Outcome<ClusterConfig> {
    match going_on(args, home)? {
        Some(run) => config_of_run(args, home, link, &run),
        None => config_of_recipe(args, home, link),
    }
}

/// The run that goes on: the one that is named, or the newest if it was founded here and nothing says what else to train.
fn going_on(args: &UpArgs, home: &Path) -> Outcome<Option<RunHome>> {
    if let Some(named) = &args.run {
        return find(home, Some(named)).map(Some);
    }
    let chosen = workload::is_chosen(&args.recipe) || args.stages.is_some() || args.release.is_some();
    if chosen || args.fresh {
        return Ok(None);
    }
    let Some(newest) = newest_run(home)? else { return Ok(None) };
    let key = user_key_path(home);
    let own = key.exists().then(|| load_or_create(&key)).transpose()?.map(|identity| identity.id());
    let charter = &newest.charter().body;
    // Another number of peers than the first round waits for is another run, unless that round is over.
    let fits = args.peers.is_none_or(|peers| peers == charter.start_members);
    Ok(Some(newest).filter(|run| fits && own.is_some_and(|own| run.charter().body.validators.contains(&own))))
}

/// A run that is in the data directory, with the recipe and the text that it was founded with.
fn config_of_run(args: &UpArgs, home: &Path, link: Option<LinkSpec>, run: &RunHome) -> Outcome<ClusterConfig> {
    let charter = &run.charter().body;
    let workload = runs::workload(home, run, args.recipe.data.as_deref())?;
    let peers = args.peers.unwrap_or(charter.start_members.min(LOCAL_PEERS_MAX));
    check_peers(peers, &workload.recipe)?;
    let shared = config_of_workload(args, home, link, workload, peers)?;
    Ok(ClusterConfig { run: Some(charter.run_id()), release: Some(charter.release), ..shared })
}

fn config_of_recipe(args: &UpArgs, home: &Path, link: Option<LinkSpec>) -> Outcome<ClusterConfig> {
    let mut recipe = workload::recipe(&args.recipe)?;
    if let Some(stages) = args.stages {
        recipe = in_stages(recipe, usize::from(stages), args.codec.as_deref(), args.recipe.rounds)?;
    }
    let peers = args.peers.unwrap_or(PEERS);
    check_peers(peers, &recipe)?;
    // Fewer peers take several units each, so that the work of a round stays the recipe's; more peers need more units.
    recipe.units_per_round = recipe.units_per_round.max(peers);
    let workload = workload::load(recipe, &args.recipe)?;
    let release = args.release.as_deref().map(release).transpose()?;
    Ok(ClusterConfig { release, ..config_of_workload(args, home, link, workload, peers)? })
}

fn config_of_workload(
    args: &UpArgs,
    home: &Path,
    link: Option<LinkSpec>,
    workload: Workload,
    peers: u32,
) -> Outcome<ClusterConfig> {
    let limits = args.limits.read()?;
    let processes = if args.processes { Some(child_program(limits.memory.is_some())?) } else { None };
    Ok(ClusterConfig {
        baseline: workload::baseline(&workload),
        data: args.recipe.data.clone(),
        processes,
        link,
        limits,
        fresh: args.fresh,
        listen: args.listen,
        relays: relays(&args.relay)?,
        ..ClusterConfig::new(home, Arc::new(workload), peers as usize)
    })
}

fn relays(texts: &[String]) -> Outcome<Vec<RelayUrl>> {
    if texts.len() > RELAYS_MAX {
        return Err(Failure::new(Code::BadInput, format!("a run has at most {RELAYS_MAX} relays")));
    }
    node::join::relays(texts).map_err(|error| Failure::new(Code::BadInput, error.to_string()).hint(error.hint()))
}

fn link(text: &str) -> Outcome<LinkSpec> {
    text.parse().map_err(|error: LinkSpecError| Failure::new(Code::BadInput, &error).hint(error.hint()))
}

/// When the weights may leave their stages.
fn release(text: &str) -> Outcome<Release> {
    text.parse().map_err(|error: ReleaseError| {
        Failure::new(Code::BadInput, error)
            .hint("`--release open-now`, `--release open-after=20` (rounds) or `--release split`")
    })
}

/// One line on the policy of a run whose weights are not open from the beginning.
fn release_text(cluster: &Cluster) -> Option<String> {
    match cluster.release() {
        Release::OpenNow => None,
        Release::OpenAfter { rounds } => {
            Some(format!("the weights open after {rounds} rounds; `cairn export` waits for them"))
        }
        Release::Split => Some(
            "the weights stay split: no peer holds two stages. All peers run on this machine, so it holds every stage:\n  \
             the split protects something only when other people run the other stages"
                .to_owned(),
        ),
    }
}

/// Refuses more stages than there are peers to hold them.
fn check_peers(peers: u32, recipe: &Recipe) -> Outcome {
    let stages = recipe.pipeline.map_or(1, |pipeline| pipeline.stages);
    if peers as usize >= stages {
        return Ok(());
    }
    let said = format!("{peers} peers cannot hold {stages} stages");
    Err(Failure::new(Code::BadInput, said).hint(format!("`--peers {}` gives each stage two", 2 * stages)))
}

/// A peer in a process of its own. One that is short of memory does without huge pages, which its allocator rounds up to, and gives what it
/// frees back at once: otherwise that stays for seconds in pages of threads that wait or ended, and came to nearly half of what is in use.
fn child_program(is_limited: bool) -> Outcome<ChildProgram> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(Code::Unexpected, format!("cannot find the own program: {error}")))?;
    let sparing: [(OsString, OsString); 2] =
        [("MIMALLOC_ALLOW_THP".into(), "0".into()), ("MIMALLOC_PURGE_DELAY".into(), "0".into())];
    let environment = if is_limited { sparing.to_vec() } else { Vec::new() };
    Ok(ChildProgram { program, arguments: vec!["peer".into()], environment })
}

fn headline(cluster: &Cluster, link: Option<LinkSpec>, url: &str) -> String {
    let (name, parameters) = (cluster.name(), cluster.parameters());
    let peers = cluster.members().len();
    let complete = cluster.state().run.is_some_and(|run| run.round >= run.rounds);
    let (verb, hint) = match cluster.is_resumed() {
        true if complete => ("complete:", "\n  `cairn up --fresh` trains a new one"),
        true => ("resuming", ""),
        false => ("training", ""),
    };
    let link = link.map_or_else(String::new, |link| format!(", each behind a link of {link}"));
    format!(
        "\n  {verb} `{name}`: {} parameters, {peers} peers on this machine{link}\n  pages and API: {url}{hint}\n",
        count(parameters as f64)
    )
}

/// What the pages show and may ask; `end` is set when somebody asks to end.
fn gateway_state(cluster: &Arc<Cluster>, home: &Path, end: watch::Sender<bool>) -> GatewayState {
    let (observer, runtime) = (cluster.observer().clone(), tokio::runtime::Handle::current());
    // The server must not keep the peers alive once the program stops.
    let weak = Arc::downgrade(cluster);
    GatewayState {
        net: Arc::new({
            let observer = observer.clone();
            move || observer.state()
        }),
        events: observer.events().clone(),
        checkpoints: observer.checkpoints(),
        models: node::Models::new(home),
        models_memory_bytes: serving::models_memory_bytes(),
        runs: serving::runs(home),
        piece: Arc::new(move || {
            let piece = weak.upgrade().and_then(|cluster| runtime.block_on(cluster.piece(1)));
            serving::piece_json(piece)
        }),
        verify: serving::verify(),
        control: Some(Arc::new({
            let pauses = cluster.pauses().clone();
            move |asked| match asked {
                Asked::Pause => pauses.pause(),
                Asked::Resume => pauses.resume(),
                Asked::Stop => {
                    end.send_replace(true);
                    pauses.paused().borrow().clone()
                }
            }
        })),
    }
}

/// Waits for Ctrl-C, or until somebody asks to end.
async fn interruption(mut ended: watch::Receiver<bool>) {
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => {}
        Ok(_) = ended.wait_for(|ended| *ended) => {}
        // Signals cannot be heard here, and nobody serves who could be asked.
        else => std::future::pending().await,
    }
}

/// Shows the run until it ends, and then waits for Ctrl-C.
async fn watch_run(
    cluster: &Cluster,
    exit_when_done: bool,
    planned: Option<MemberMemory>,
    ended: watch::Receiver<bool>,
) -> Outcome {
    let mut view = View::new();
    let mut events = cluster.subscribe();
    let mut look = tokio::time::interval(LOOK);
    let outcome = cluster.outcome();
    let interrupted = interruption(ended);
    tokio::pin!(outcome, interrupted);
    let ended = loop {
        tokio::select! {
            ended = &mut outcome => break ended,
            _ = &mut interrupted => {
                view.finish();
                return Ok(());
            }
            Ok(event) = events.recv() => {
                if let NetEvent::Sample(sample) = event {
                    view.sample(&sample);
                }
            }
            _ = look.tick() => view.show(&cluster.state()),
        }
    };
    view.show(&cluster.state());
    view.finish();
    match ended {
        RunOutcome::Failed(failure) => Err(failure.into()),
        RunOutcome::Finished(summary) => {
            println!("{}", summary_text(&summary));
            if let Some(text) = memory_text(cluster, planned) {
                println!("{text}");
            }
            if exit_when_done {
                return Ok(());
            }
            eprintln!("\n  the model goes on answering; Ctrl-C stops");
            interrupted.await;
            Ok(())
        }
    }
}

/// What this machine gives, when that is not all.
fn limits_text(limits: &Limits) -> Option<String> {
    let Limits { cpu, memory, up_bits_per_s, down_bits_per_s, when } = limits;
    let rate = |rate: &Option<u64>, way: &str| rate.map(|rate| format!("{}bit/s {way}", limit_text(rate)));
    let parts = [
        cpu.map(|cpu| format!("{cpu} of {} cores", node::probe::cores())),
        memory.map(|memory| format!("{} of memory a peer", bytes(memory as f64))),
        rate(up_bits_per_s, "up"),
        rate(down_bits_per_s, "down"),
        (*when != When::Always)
            .then(|| format!("works {}", if *when == When::Idle { "while idle".to_owned() } else { when.to_string() })),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("this machine gives: {}", parts.join(" · ")))
}

/// What the peer of the largest stage may take; none when every peer holds the whole model.
fn planned_memory(config: &ClusterConfig) -> Outcome<Option<MemberMemory>> {
    let stages = config.workload.stages_len();
    let replicas = config.peers.div_ceil(usize::from(stages));
    let of = |stage| MemberMemory::of(&config.workload, stage, replicas);
    let all = (0..stages).map(of).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| Failure::new(Code::BadInput, error))?;
    Ok(all.into_iter().flatten().max_by_key(MemberMemory::total))
}

fn memory_parts(memory: &MemberMemory) -> String {
    let MemberMemory { stage, serving, window, records, program, .. } = memory;
    let parts = [
        ("weights", stage.weights),
        ("moments", stage.optimiser),
        ("gradients", stage.gradients),
        ("activations", stage.activations + stage.kernels),
        ("token parts", stage.token_parts),
        ("a round's end", stage.exchange),
        ("units under way", *window),
        ("chat", *serving),
        ("blocks", *records),
        ("program and data", *program),
    ];
    let parts =
        parts.iter().filter(|(_, size)| *size > 0).map(|(name, size)| format!("{name} {}", bytes(*size as f64)));
    parts.collect::<Vec<_>>().join(", ")
}

/// What the peers took, when each had a process of its own.
fn memory_text(cluster: &Cluster, planned: Option<MemberMemory>) -> Option<String> {
    let peaks = cluster.members().iter().filter_map(|member| member.status().borrow().memory_peak_bytes);
    let (peak, planned) = (peaks.max()? as f64, planned?.total() as f64);
    let ratio = peak / planned;
    Some(format!("\n  memory of a peer: {} at most, {ratio:.2} times the {} planned", bytes(peak), bytes(planned)))
}

fn summary_text(summary: &Summary) -> String {
    let baseline = match (summary.baseline_heldout_loss, summary.gap) {
        (Some(loss), Some(gap)) => format!(" (centralised baseline {loss:.3}, gap {:+.2} %)", gap * 100.0),
        _ => " (no recorded baseline for this recipe; `cairn train --solo` measures one)".to_owned(),
    };
    let heldout = summary.heldout_loss.map_or_else(|| "not measured".to_owned(), |loss| format!("{loss:.3}"));
    let local: u64 = summary.shares.iter().map(|(_, shares)| shares).sum();
    let supply = summary.supply.max(local);
    let mut owners: Vec<String> = (1..)
        .zip(&summary.shares)
        .map(|(number, (peer, owned))| {
            let part = *owned as f64 * 100.0 / supply.max(1) as f64;
            format!("    peer {number}  {}  {:>12}  {part:5.1} %", peer.short(), shares(*owned))
        })
        .collect();
    let elsewhere = supply - local;
    if elsewhere > 0 {
        let part = elsewhere as f64 * 100.0 / supply as f64;
        owners.push(format!("    others            {:>12}  {part:5.1} %", shares(elsewhere)));
    }
    format!(
        "\n  done: {} rounds, {} tokens in {}\n  held-out loss {heldout}{baseline}\n  payloads {:.0}× smaller than the \
         parameters · {} of payload, {} on the wire per trained token\n  state root {}\n\n  shares\n{}",
        summary.rounds,
        count(summary.tokens as f64),
        duration(summary.seconds),
        summary.compression,
        bytes(summary.payload_bytes_per_token),
        bytes(summary.bytes_per_token),
        summary.state_root.short(),
        owners.join("\n"),
    )
}
