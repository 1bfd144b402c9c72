//! The parent's end of a child, over all the processes that it has.
//!
//! A child that dies gets a new process with the same key, directory, stage and address, after the pauses of [`super::restarts`]; what
//! it had stored is there, and the others tell it what it missed. It is not started again when that was asked for, when it had halted,
//! or when it said why it ended. A new process waits to be introduced, as the first one did: whoever holds the handle sees it in the
//! status, and tells others first when it listens elsewhere.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ledger::Piece;
use tokio::sync::{mpsc, oneshot, watch};
use wire::PeerId;

use super::life::Life;
use super::restarts::{Next, Restarts};
use super::{ChildConfig, Order};
use crate::member::{Ended, Failure, FailureKind};
use crate::status::PeerStatus;
use crate::transport::Traffic;
use crate::view::PeerActivity;

const ASKED_QUEUED_MAX: usize = 16;
/// How long a child may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);

/// How to run a child.
#[derive(Clone, Debug)]
pub struct ChildProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables of its environment, besides those of this process.
    pub environment: Vec<(OsString, OsString)>,
}

/// What the handle asks of the keeper.
#[derive(Debug)]
enum Asked {
    Introduce(Vec<(PeerId, SocketAddr)>),
    Ended(PeerId),
    Pause(bool),
    Piece(PeerId, oneshot::Sender<Option<Piece>>),
    Stop,
}

/// A peer in a process of its own. Dropping it ends the process.
#[derive(Debug)]
pub struct ChildHandle {
    id: PeerId,
    asked: mpsc::Sender<Asked>,
    status: watch::Receiver<PeerStatus>,
    ended: watch::Receiver<Option<Ended>>,
    kill: mpsc::Sender<()>,
}

impl ChildHandle {
    /// Starts a process, and waits until its peer listens.
    ///
    /// # Errors
    /// What the child says, or that it cannot be started.
    pub async fn start(program: &ChildProgram, config: &ChildConfig) -> Result<Self, Failure> {
        let started = Instant::now();
        let life = Life::start(program, config).await.map_err(|ended| ended.failure.unwrap_or_else(nothing_said))?;
        let first = life.status().borrow().clone();
        let config = ChildConfig { bind: first.address, ..config.clone() };
        let id = first.id;
        let (status_sender, status) = watch::channel(first);
        let (ended_sender, ended) = watch::channel(None);
        let (asked, asked_receiver) = mpsc::channel(ASKED_QUEUED_MAX);
        let (kill, kill_receiver) = mpsc::channel(1);
        let keeper = Keeper {
            program: program.clone(),
            config,
            restarts: Restarts::default(),
            lives: 0,
            known: BTreeMap::new(),
            paused: false,
            before: Before::default(),
            status: status_sender,
            asked: asked_receiver,
            kill: kill_receiver,
        };
        tokio::spawn(keeper.run(life, started, ended_sender));
        Ok(Self { id, asked, status, ended, kill })
    }

    /// The peer's id.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Where it listens, or did last. It may change when the child is started again.
    pub fn address(&self) -> SocketAddr {
        self.status.borrow().address
    }

    /// Its newest status, and a way to wait for the next.
    pub fn status(&self) -> watch::Receiver<PeerStatus> {
        self.status.clone()
    }

    /// Why it ended, once it has and is not started again.
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.clone()
    }

    /// Tells it where others listen, besides those that it was told of before. A process takes part from then on.
    pub async fn introduce(&self, peers: Vec<(PeerId, SocketAddr)>) {
        // A child that ended needs no addresses.
        let _ = self.asked.send(Asked::Introduce(peers)).await;
    }

    /// Pauses it, or lets it go on; the next process, too.
    pub async fn set_paused(&self, paused: bool) {
        // A child that ended does nothing anyway.
        let _ = self.asked.send(Asked::Pause(paused)).await;
    }

    /// Tells it that the process of another peer ended.
    pub async fn note_end(&self, peer: PeerId) {
        // A child that ended has no connections.
        let _ = self.asked.send(Asked::Ended(peer)).await;
    }

    /// The piece of a peer, as of this peer's ledger. None while it has no process.
    pub async fn piece(&self, peer: PeerId) -> Option<Piece> {
        let (answer, receiver) = oneshot::channel();
        self.asked.send(Asked::Piece(peer, answer)).await.ok()?;
        receiver.await.ok().flatten()
    }

    /// Stops it as if it paused. Returns when the process has ended; one that takes too long is killed.
    pub async fn shutdown(&self) {
        // A child that ended takes no orders.
        let _ = self.asked.send(Asked::Stop).await;
        let mut ended = self.ended.clone();
        if tokio::time::timeout(STOP_MAX, ended.wait_for(Option::is_some)).await.is_err() {
            tracing::warn!(peer = ?self.id, "a child process did not stop in time and is killed");
            self.kill();
            let _ = ended.wait_for(Option::is_some).await;
        }
    }

    /// Kills the process, which is not started again.
    pub fn kill(&self) {
        // A full or closed channel means that it is being killed already.
        let _ = self.kill.try_send(());
    }
}

/// What the processes before took: a status counts for the child, not for its process.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    traffic: Traffic,
    outside: Traffic,
    memory_peak_bytes: Option<u64>,
}

/// Owns a child: its process, or the pause until the next.
struct Keeper {
    program: ChildProgram,
    config: ChildConfig,
    restarts: Restarts,
    lives: u64,
    /// Where others listen, for the next process.
    known: BTreeMap<PeerId, SocketAddr>,
    /// Whether it pauses, and the next process, too.
    paused: bool,
    before: Before,
    status: watch::Sender<PeerStatus>,
    asked: mpsc::Receiver<Asked>,
    kill: mpsc::Receiver<()>,
}

impl Keeper {
    async fn run(mut self, life: Life, started: Instant, ended: watch::Sender<Option<Ended>>) {
        let (mut life, mut started) = (life, started);
        let end = loop {
            let (end, wanted) = self.live(life).await;
            if wanted {
                break end;
            }
            match self.bring_back(started.elapsed(), end).await {
                Ok(next) => (life, started) = next,
                Err(end) => break end,
            }
        };
        let lost = end.failure.as_ref().map(|failure| failure.message.clone());
        self.status.send_modify(|status| {
            (status.lives.process, status.lives.is_away) = (None, false);
            status.lives.lost = lost;
        });
        ended.send_replace(Some(end));
    }

    /// Serves a process until it ends. Also says whether somebody wanted it to.
    async fn live(&mut self, life: Life) -> (Ended, bool) {
        let (mut status, mut ended, process) = (life.status(), life.ended(), life.process());
        if self.paused {
            life.order(Order::Pause(true)).await;
        }
        let mut life = Some(life);
        let (mut wanted, mut is_heard) = (false, true);
        status.mark_changed();
        let end = loop {
            tokio::select! {
                asked = self.asked.recv(), if life.is_some() => match (asked, &life) {
                    (Some(Asked::Introduce(peers)), Some(life)) => {
                        self.known.extend(peers);
                        let known = self.known.iter().map(|(peer, address)| (*peer, *address)).collect();
                        life.order(Order::Introduce(known)).await;
                    }
                    (Some(Asked::Pause(paused)), Some(life)) => {
                        self.paused = paused;
                        life.order(Order::Pause(paused)).await;
                    }
                    (Some(Asked::Ended(peer)), Some(life)) => life.order(Order::Ended(peer)).await,
                    (Some(Asked::Piece(peer, answer)), Some(life)) => life.piece(peer, answer).await,
                    (Some(Asked::Stop), Some(life)) => {
                        wanted = true;
                        life.order(Order::Stop).await;
                    }
                    // Nobody holds the child any more.
                    _ => (wanted, life) = (true, None),
                },
                Some(()) = self.kill.recv() => {
                    wanted = true;
                    life.iter().for_each(Life::kill);
                }
                heard = status.changed(), if is_heard => {
                    is_heard = heard.is_ok();
                    self.publish(&status.borrow_and_update(), process);
                }
                end = end_of(&mut ended) => break end,
            }
        };
        self.publish(&status.borrow(), process);
        let last = self.status.borrow();
        self.before =
            Before { traffic: last.traffic, outside: last.outside, memory_peak_bytes: last.memory_peak_bytes };
        // What a peer said when it halted, it would say again.
        let halted = last.halted.clone().map(|failure| Ended { failure: Some(failure), killed: false });
        (halted.unwrap_or(end), wanted)
    }

    /// A new process, after a pause, and when it was started.
    async fn bring_back(&mut self, mut lived: Duration, mut end: Ended) -> Result<(Life, Instant), Ended> {
        loop {
            let why = end.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
            let pause = match self.restarts.after(lived, end) {
                Next::Again(pause) => pause,
                Next::Never(end) => {
                    tracing::warn!(why, "a peer is not started again");
                    return Err(end);
                }
            };
            tracing::warn!(why, pause_seconds = pause.as_secs(), "a peer is gone and will be started again");
            self.status.send_modify(|status| {
                (status.activity, status.connected) = (PeerActivity::Restarting, 0);
                (status.lives.process, status.lives.is_away) = (None, true);
            });
            let on_purpose = || Ended { failure: None, killed: false };
            tokio::select! {
                () = self.bide() => return Err(on_purpose()),
                () = tokio::time::sleep(pause) => {}
            }
            let started = Instant::now();
            let (program, config) = (self.program.clone(), self.config.clone());
            let next = tokio::select! {
                () = self.bide() => return Err(on_purpose()),
                next = start_anywhere(&program, config) => next,
            };
            match next {
                Ok(life) => {
                    self.lives += 1;
                    self.config.bind = life.status().borrow().address;
                    return Ok((life, started));
                }
                Err(failed) => (lived, end) = (started.elapsed(), failed),
            }
        }
    }

    /// Serves the handle while there is no process; returns when none is wanted any more.
    async fn bide(&mut self) {
        loop {
            tokio::select! {
                asked = self.asked.recv() => match asked {
                    Some(Asked::Introduce(peers)) => self.known.extend(peers),
                    Some(Asked::Pause(paused)) => self.paused = paused,
                    Some(Asked::Ended(_)) => {}
                    Some(Asked::Piece(_, answer)) => drop(answer),
                    Some(Asked::Stop) | None => return,
                },
                _ = self.kill.recv() => return,
            }
        }
    }

    /// Passes a process' status on as the child's.
    fn publish(&self, status: &PeerStatus, process: Option<u32>) {
        let mut status = status.clone();
        status.traffic.add(self.before.traffic);
        status.outside.add(self.before.outside);
        status.memory_peak_bytes = status.memory_peak_bytes.max(self.before.memory_peak_bytes);
        (status.lives.restarts, status.lives.process) = (self.lives, process);
        self.status.send_replace(status);
    }
}

/// Waits for the end of a process.
async fn end_of(ended: &mut watch::Receiver<Option<Ended>>) -> Ended {
    let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
    end.unwrap_or(Ended { failure: None, killed: true })
}

/// Starts a process where the one before listened or, when somebody has the address now, elsewhere.
async fn start_anywhere(program: &ChildProgram, mut config: ChildConfig) -> Result<Life, Ended> {
    let taken = |ended: &Ended| ended.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Network);
    match Life::start(program, &config).await {
        Err(ended) if taken(&ended) => {
            config.bind.set_port(0);
            Life::start(program, &config).await
        }
        other => other,
    }
}

fn nothing_said() -> Failure {
    Failure {
        kind: FailureKind::Unexpected,
        message: "a child ended without a word".to_owned(),
        hint: "start again: it goes on from the last committed round".to_owned(),
    }
}
