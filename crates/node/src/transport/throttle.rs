//! Blobs at a limited rate: asked before each of their parts is sent.

use iroh_blobs::provider::events::{EventMask, EventSender, ProviderMessage, ThrottleMode};

use crate::limits::Rate;

/// Parts of blobs of one connection that ask at a time.
const ASKING_MAX: usize = 32;

/// What a provider of blobs reports to so that all that it sends keeps to a rate. It ends with the connection that it is given to.
pub(super) fn paced(rate: Option<&Rate>) -> EventSender {
    let Some(rate) = rate.cloned() else { return EventSender::DEFAULT };
    let mask = EventMask { throttle: ThrottleMode::Intercept, ..EventMask::DEFAULT };
    let (sender, mut reports) = EventSender::channel(ASKING_MAX, mask);
    tokio::spawn(async move {
        while let Some(report) = reports.recv().await {
            if let ProviderMessage::Throttle(asked) = report {
                rate.take(usize::try_from(asked.inner.size).unwrap_or(usize::MAX)).await;
                // Whoever asked may have lost its connection.
                let _ = asked.tx.send(Ok(())).await;
            }
        }
    });
    sender
}
