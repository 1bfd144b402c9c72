//! `cairn relay`: a public place where peers meet that cannot reach each other.

use std::num::NonZeroU32;
use std::time::Duration;

use node::relay::{Relay, RelayFigures};

use crate::cli::RelayArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::bytes;

/// How often it says what it did, when that changed.
const LOOK: Duration = Duration::from_secs(30);

/// Passes packets on until Ctrl-C is pressed.
pub(crate) async fn run(args: &RelayArgs) -> Outcome {
    // Bits on the line, bytes in the library.
    let per_client = NonZeroU32::new(u32::try_from(args.per_client / 8).unwrap_or(u32::MAX));
    let per_client = per_client.ok_or_else(|| {
        Failure::new(Code::BadInput, "a client of a relay needs at least 8 bit/s")
            .hint("`--per-client 100M` is ordinary")
    })?;
    let relay = Relay::start(args.listen, per_client).await.map_err(|error| {
        Failure::new(Code::Network, error.to_string()).hint("choose another port with `--listen 0.0.0.0:PORT`")
    })?;
    let urls = relay.urls();
    let port = relay.address().port();
    eprintln!("\n  a relay for peers that cannot reach each other, on TCP and UDP port {port}");
    eprintln!("  it sees who talks to whom, and how much; what they say is encrypted from end to end\n");
    eprintln!("  who starts a run names it, at the address that others see of this machine:");
    eprintln!("    cairn up --relay {}\n", urls.first().map_or("http://ADDRESS:PORT", String::as_str));
    let mut look = tokio::time::interval(LOOK);
    let mut said = RelayFigures::default();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            // An error means that signals cannot be heard here: then only a signal that ends the process stops it.
            _ = &mut interrupted => break,
            _ = look.tick() => {
                let now = relay.figures();
                if now != said {
                    let RelayFigures { clients, bytes_sent, .. } = now;
                    eprintln!("  {clients} connected, {} passed on", bytes(bytes_sent as f64));
                    said = now;
                }
            }
        }
    }
    relay.shutdown().await;
    eprintln!("stopped");
    Ok(())
}
