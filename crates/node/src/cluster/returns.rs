//! Who has to know that a peer's process died, that it has another one, or that the peer moved to another stage.
//!
//! A new process listens where the one before did, unless somebody took that address meanwhile. Behind a link only the network has to
//! know: the front stays. One machine knows at once that a process of its own ended, and says so; behind a link, where a peer is to find out
//! as it would on another machine, nobody says anything.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use wire::PeerId;

use crate::inference::InferenceClient;
use crate::links::ShapedNetwork;
use crate::member::Member;

/// The peers, and whoever calls them.
#[derive(Clone, Debug)]
pub(super) struct Returns {
    pub(super) members: Arc<Vec<Member>>,
    pub(super) network: Option<Arc<ShapedNetwork>>,
    pub(super) client: Option<Arc<InferenceClient>>,
}

impl Returns {
    /// Watches the processes of all peers until none gets another.
    pub(super) async fn run(self) {
        let mut watching = JoinSet::new();
        for place in 0..self.members.len() {
            watching.spawn(self.clone().watch(place));
            watching.spawn(self.clone().watch_stage(place));
        }
        while watching.join_next().await.is_some() {}
    }

    async fn watch(self, place: usize) {
        let member = &self.members[place];
        let (id, mut status) = (member.id(), member.status());
        let mut address = member.address();
        loop {
            if status.wait_for(|status| status.lives.is_away).await.is_err() {
                return;
            }
            self.tell_end(id).await;
            let back = status.wait_for(|status| !status.lives.is_away).await;
            // Whoever has no process now gets none.
            let Some(back) = back.ok().and_then(|status| status.lives.process.map(|_| status.address)) else { return };
            self.come_back(id, std::mem::replace(&mut address, back), back).await;
            // Last, so that whoever it calls knows where it is.
            member.introduce(Vec::new()).await;
        }
    }

    /// Tells the consumer of the model which stage the peer serves.
    async fn watch_stage(self, place: usize) {
        let (Some(client), member) = (&self.client, &self.members[place]) else { return };
        let mut status = member.status();
        let mut stage = status.borrow().stage;
        while let Ok(moved) = status.wait_for(|status| status.stage != stage).await.map(|status| status.stage) {
            stage = moved;
            client.note_stage(member.id(), stage);
        }
    }

    async fn tell_end(&self, peer: PeerId) {
        if let Some(client) = &self.client {
            client.note_end(peer);
        }
        if self.network.is_none() {
            for member in self.members.iter().filter(|member| member.id() != peer) {
                member.note_end(peer).await;
            }
        }
    }

    /// A peer that listened at `before` listens at `now`.
    async fn come_back(&self, peer: PeerId, before: SocketAddr, now: SocketAddr) {
        let front = self.network.as_ref().and_then(|network| Some((network, network.spec(peer)?)));
        let found = match front {
            Some((network, spec)) => network.add(peer, now, spec),
            None => Ok(now),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "a peer that came back has no front");
                return;
            }
        };
        if now != before && self.network.is_none() {
            for member in self.members.iter().filter(|member| member.id() != peer) {
                member.introduce(vec![(peer, found)]).await;
            }
        }
        if let Some(client) = &self.client {
            client.note_return(peer, found);
        }
    }
}
