//! `cairn serve`: the pages and the API without training.

use std::path::Path;
use std::sync::Arc;

use gateway::GatewayState;
use node::Models;
use node::home::Home;
use node::offline::Saved;
use node::store::StoreError;
use node::view::NetState;
use tokio::sync::{broadcast, watch};

use crate::cli::ServeArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::running::ServingNote;
use crate::serving;

/// Serves the newest run and the imported models of the data directory until Ctrl-C.
pub(crate) async fn run(args: &ServeArgs, home_path: &Path) -> Outcome {
    let server = serving::bind(&args.page).await?;
    let home = Home::open(home_path)?;
    let models = Models::new(home_path);
    let saved = Saved::newest(&home)?;
    let imported = models.list()?.len();
    if saved.is_none() && imported == 0 {
        let message = format!("neither a run nor a model in `{}` yet", home_path.display());
        return Err(
            Failure::new(Code::BadInput, message).hint("`cairn up` starts one, `cairn models import PATH` brings one")
        );
    }
    let (mut checkpoint, mut piece) = (None, None);
    let mut net = NetState { version: env!("CARGO_PKG_VERSION").to_owned(), ..NetState::default() };
    if let Some(saved) = saved {
        checkpoint = match saved.checkpoint() {
            // The pages are worth serving all the same.
            Err(error @ (StoreError::NotPlain | StoreError::WeightsClosed { .. })) => {
                eprintln!("the run's model does not answer: {error}\nhint: {}", error.hint());
                None
            }
            read => read?.map(Arc::new),
        };
        net = saved.state()?;
        let owner = saved.local_peers(&home)?.first().copied();
        piece = owner.map(|owner| saved.piece(owner)).transpose()?.flatten();
    }
    let (_checkpoints, newest) = watch::channel(checkpoint.clone());
    let state = GatewayState {
        net: Arc::new(move || net.clone()),
        events: broadcast::Sender::new(1),
        checkpoints: newest,
        models,
        models_memory_bytes: serving::models_memory_bytes(),
        runs: serving::runs(home_path),
        piece: Arc::new(move || serving::piece_json(piece.clone())),
        verify: serving::verify(),
        control: None,
    };
    let url = format!("http://{}/", server.address());
    let _note = ServingNote::write(home_path, url.trim_end_matches('/'));
    match &checkpoint {
        Some(checkpoint) => println!("serving `{}` after round {} at {url}", checkpoint.name, checkpoint.round),
        None => println!("serving at {url}"),
    }
    if imported > 0 {
        println!("imported models that answer there too: {imported}");
    }
    println!("Ctrl-C stops");
    let (stop, stopped) = watch::channel(false);
    let mut serving = serving::start(server, state, stopped);
    tokio::select! {
        ended = &mut serving => return serve_ended(ended),
        _ = tokio::signal::ctrl_c() => {}
    }
    stop.send_replace(true);
    serve_ended(serving.await)
}

/// Says how serving ended.
pub(crate) fn serve_ended(ended: Result<Result<(), gateway::ServeError>, tokio::task::JoinError>) -> Outcome {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(Code::Network, error)),
        Err(error) => Err(Failure::new(Code::Unexpected, error)),
    }
}
