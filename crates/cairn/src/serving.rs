//! Connects the pages and the API to what they show.

use std::path::Path;
use std::sync::Arc;

use gateway::{GatewayState, NoPiece, NoRuns, Options, Refused, Server, Verify};
use ledger::{Piece, PieceError};
use node::view::RunLine;
use serde_json::Value;

use crate::cli::PageArgs;
use crate::exit::Outcome;

/// Takes the port, so that a busy one is told before anything starts.
///
/// # Errors
/// The port is taken or not allowed.
pub(crate) async fn bind(args: &PageArgs) -> Outcome<Server> {
    let mut options = Options::default();
    options.address.set_port(args.port);
    Ok(Server::bind(options).await?)
}

/// A piece as the API answers it.
pub(crate) fn piece_json(piece: Option<Piece>) -> Result<Value, NoPiece> {
    let piece = piece.ok_or_else(|| NoPiece { reason: "no receipt of yours is in a block yet".to_owned() })?;
    serde_json::to_value(&piece).map_err(|error| NoPiece { reason: error.to_string() })
}

/// Lists the runs of a data directory.
pub(crate) fn runs(home: &Path) -> Arc<dyn Fn() -> Result<Vec<RunLine>, NoRuns> + Send + Sync> {
    let home = home.to_owned();
    Arc::new(move || node::runs::list(&home).map_err(|error| NoRuns { reason: error.to_string(), hint: error.hint() }))
}

/// Checks a posted piece.
pub(crate) fn verify() -> Verify {
    Arc::new(|bytes| {
        let refused = |error: PieceError| match error {
            PieceError::Json { .. } | PieceError::TooLarge { .. } | PieceError::Version { .. } => {
                Refused::Malformed { reason: error.to_string() }
            }
            _ => Refused::Invalid { reason: error.to_string() },
        };
        let summary = Piece::from_json(bytes).and_then(|piece| piece.verify()).map_err(refused)?;
        serde_json::to_value(&summary).map_err(|error| Refused::Malformed { reason: error.to_string() })
    })
}

/// Memory that imported models may take: most of what is free now, so that the rest of the machine goes on. Where the system does not
/// say, one model of ordinary size.
pub(crate) fn models_memory_bytes() -> u64 {
    const UNKNOWN: u64 = 4 << 30;
    node::probe::hardware().memory_free_bytes.map_or(UNKNOWN, |free| free / 4 * 3)
}

/// Serves in the background until `stop` is set.
pub(crate) fn start(
    server: Server,
    state: GatewayState,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> tokio::task::JoinHandle<Result<(), gateway::ServeError>> {
    tokio::spawn(server.serve(state, async move {
        // An error means that the sender is gone, which ends serving as well.
        let _ = stop.wait_for(|stop| *stop).await;
    }))
}
