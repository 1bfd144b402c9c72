//! `cairn join`: one peer of this machine in a run that was founded elsewhere.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use learn::data::Corpus;
use node::cluster::Joined;
use node::home::Home;
use node::identity::load_or_create;
use node::join::{Invitation, JoinError};
use node::texts::{self, Progress};
use node::workload::Workload;
use node::{Cluster, ClusterConfig, RelayUrl};
use wire::{Charter, PeerId, Ticket, TicketError};

use crate::cli::JoinArgs;
use crate::commands::up::attend;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::count;
use crate::terminal::FetchBar;

/// Takes part until the run is complete or Ctrl-C is pressed.
pub(crate) async fn run(args: &JoinArgs, home: &Path) -> Outcome {
    let ticket = match &args.ticket {
        Some(text) => parse(text)?,
        None => nearby().await?,
    };
    eprintln!("\n  asking for the run {}", ticket.run.0.short());
    let invitation = node::join::ask(&ticket).await.map_err(|error| failure(&error))?;
    let stage = args.stage.unwrap_or_else(|| invitation.neediest_stage());
    let Invitation { charter, recipe, validator, relays, .. } = invitation;
    if charter.body.stage(stage).is_none() {
        let stages = charter.body.stages.len();
        return Err(Failure::new(
            Code::BadInput,
            format!("the model of this run has {stages} stages, and no stage {stage}"),
        )
        .hint("leave `--stage` out: the stage with the fewest peers is taken"));
    }
    let corpus = match &args.data {
        Some(path) => Corpus::from_path(path)?,
        None => fetched(home, &charter.body, validator, &relays).await?,
    };
    let workload = Workload::new(recipe, corpus)?;
    if !workload.matches(&charter.body) {
        return Err(Failure::new(Code::BadInput, "the run is trained on another text than the one here")
            .hint("leave `--data` out to fetch it; what is given there has to be the same to the byte"));
    }
    let limits = args.limits.read()?;
    let operator = args.operator.as_deref().map(load_or_create).transpose()?;
    let joined = Joined { charter, validator, relays, stage, operator };
    let config = ClusterConfig {
        data: args.data.clone(),
        listen: args.listen,
        limits,
        joins: Some(joined),
        ..ClusterConfig::new(home, Arc::new(workload), 1)
    };
    attend(config, &args.page, args.exit_when_done, "`cairn join` with the same ticket goes on from here", headline)
        .await
}

/// The text of the run, from the data directory or else from its validator; a terminal shows how far it is.
async fn fetched(
    home: &Path,
    charter: &Charter,
    validator: (PeerId, Option<SocketAddr>),
    relays: &[RelayUrl],
) -> Outcome<Corpus> {
    // One fetch at a time.
    let lock = Home::open(home)?;
    let bar = FetchBar::new("text");
    let tell = |progress: Progress| bar.show(progress.done, progress.all);
    let corpus = texts::fetch(lock.path(), charter, validator, relays, tell).await;
    bar.end(corpus.is_ok());
    Ok(corpus?)
}

/// Reads a ticket.
pub(crate) fn parse(text: &str) -> Outcome<Ticket> {
    text.parse().map_err(|error: TicketError| {
        let hint = match error {
            TicketError::Version { .. } => "both sides need the same version of cairn",
            _ => "copy the whole line that `cairn up --listen` or `--relay` printed",
        };
        Failure::new(Code::BadInput, &error).hint(hint)
    })
}

/// The only run that the local network offers.
async fn nearby() -> Outcome<Ticket> {
    eprintln!("\n  looking for runs in the local network");
    let found = node::lan::search(node::lan::SEARCH).await;
    let found = found.map_err(|error| Failure::new(Code::Network, error).hint("ask for a ticket"))?;
    match &found[..] {
        [] => Err(Failure::new(Code::Network, "no machine in the local network lets others join a run").hint(
            "`cairn up --listen 0.0.0.0:7071` on the other machine does; with its ticket it works from anywhere",
        )),
        [only] => {
            eprintln!(
                "  found `{}`, run {}, ordered by {}",
                only.name,
                only.ticket.run.0.short(),
                only.ticket.validator.short()
            );
            Ok(only.ticket.clone())
        }
        several => {
            let list: Vec<String> =
                several.iter().map(|run| format!("    {}\n      cairn join {}", run.name, run.ticket)).collect();
            eprintln!("{}", list.join("\n"));
            Err(Failure::new(Code::BadInput, format!("{} runs can be joined here", several.len()))
                .hint("choose one of the lines above"))
        }
    }
}

fn headline(cluster: &Cluster, url: &str) -> String {
    let ticket = cluster.ticket();
    let (address, relay) = (ticket.addresses.first(), ticket.relays.first());
    let at = match (address, relay) {
        (Some(address), _) => format!(" at {address}"),
        (None, Some(relay)) => format!(" behind {relay}"),
        (None, None) => String::new(),
    };
    let verb = if cluster.is_resumed() { "taking part again in" } else { "taking part in" };
    format!(
        "\n  {verb} `{}`: {} parameters, ordered by {}{at}\n  this machine is {}\n  pages and API: {url}\n",
        cluster.name(),
        count(cluster.parameters() as f64),
        ticket.validator.short(),
        cluster.members()[0].id().short(),
    )
}

/// Why a ticket leads nowhere.
pub(crate) fn failure(error: &JoinError) -> Failure {
    let code = match error {
        JoinError::Network(_) | JoinError::Unreachable { .. } => Code::Network,
        _ => Code::BadInput,
    };
    Failure::new(code, error.to_string()).hint(error.hint())
}
