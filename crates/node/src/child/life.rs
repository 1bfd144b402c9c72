//! One process of a child: from its start to its end.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use ledger::Piece;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::{ChildConfig, ChildProgram, Order, Report};
use crate::member::{Ended, Failure, FailureKind};
use crate::status::{PeerStatus, RoundReport};

const ORDERS_QUEUED_MAX: usize = 16;

type Pieces = Arc<Mutex<VecDeque<oneshot::Sender<Option<Piece>>>>>;

/// A process whose peer listens. Dropping it closes the child's input, which ends the child.
#[derive(Debug)]
pub(super) struct Life {
    process: Option<u32>,
    orders: mpsc::Sender<Order>,
    pieces: Pieces,
    status: watch::Receiver<PeerStatus>,
    ended: watch::Receiver<Option<Ended>>,
    kill: mpsc::Sender<()>,
}

impl Life {
    /// Starts a process, and waits until its peer listens. Dropping the future kills it.
    ///
    /// # Errors
    /// What the child says, or that it cannot be started or ended without a word.
    pub(super) async fn start(program: &ChildProgram, config: &ChildConfig) -> Result<Self, Ended> {
        let mut process = Command::new(&program.program)
            .args(&program.arguments)
            .envs(program.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| silent(format!("cannot start `{}`: {error}", program.program.display())))?;
        let id = process.id();
        let mut input = process.stdin.take().expect("standard input is piped");
        let output = process.stdout.take().expect("standard output is piped");
        write_line(&mut input, config)
            .await
            .map_err(|error| silent(format!("a child took no configuration: {error}")))?;
        let mut reader = Reader { lines: BufReader::new(output).lines(), rounds: Arc::default() };
        let first = reader.first_status().await?;
        let (status_sender, status) = watch::channel(first);
        let (ended_sender, ended) = watch::channel(None);
        let (orders, orders_receiver) = mpsc::channel(ORDERS_QUEUED_MAX);
        let (kill, kill_receiver) = mpsc::channel(1);
        let pieces = Pieces::default();
        tokio::spawn(forward(input, orders_receiver));
        let reading = tokio::spawn(reader.run(status_sender, pieces.clone()));
        tokio::spawn(supervise(process, reading, kill_receiver, ended_sender));
        Ok(Self { process: id, orders, pieces, status, ended, kill })
    }

    /// The process' number, as the system has it.
    pub(super) fn process(&self) -> Option<u32> {
        self.process
    }

    /// Its newest status, and a way to wait for the next.
    pub(super) fn status(&self) -> watch::Receiver<PeerStatus> {
        self.status.clone()
    }

    /// Why it ended, once it has.
    pub(super) fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.clone()
    }

    /// Tells it something. A child that ended takes no orders.
    pub(super) async fn order(&self, order: Order) {
        if self.orders.send(order).await.is_err() {
            tracing::trace!("an order to a child that ended");
        }
    }

    /// Asks it for a piece; nothing is answered when it ends before.
    pub(super) async fn piece(&self, peer: wire::PeerId, answer: oneshot::Sender<Option<Piece>>) {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer);
        self.order(Order::Piece(peer)).await;
    }

    /// Kills the process.
    pub(super) fn kill(&self) {
        // A full or closed channel means that it is being killed already.
        let _ = self.kill.try_send(());
    }
}

struct Reader {
    lines: Lines<BufReader<ChildStdout>>,
    rounds: Arc<Vec<RoundReport>>,
}

impl Reader {
    /// The next report; other lines are skipped.
    async fn next(&mut self) -> Option<Report> {
        loop {
            let line = self.lines.next_line().await.ok().flatten()?;
            match serde_json::from_str(&line) {
                Ok(report) => return Some(report),
                Err(error) => tracing::trace!(%error, "a child wrote a line that is no report"),
            }
        }
    }

    async fn first_status(&mut self) -> Result<PeerStatus, Ended> {
        loop {
            match self.next().await {
                Some(Report::Status(status)) => return Ok(self.complete(*status)),
                Some(Report::Round(round)) => Arc::make_mut(&mut self.rounds).push(round),
                Some(Report::Failed(failure)) => return Err(Ended { failure: Some(failure), killed: false }),
                Some(Report::Piece(..)) => {}
                None => return Err(silent("a child ended before it listened".to_owned())),
            }
        }
    }

    /// Reads reports until the child ends; gives the failure that it reported.
    async fn run(mut self, sender: watch::Sender<PeerStatus>, pieces: Pieces) -> Option<Failure> {
        let mut failed = None;
        while let Some(report) = self.next().await {
            match report {
                Report::Status(status) => {
                    sender.send_replace(self.complete(*status));
                }
                Report::Round(round) => Arc::make_mut(&mut self.rounds).push(round),
                Report::Piece(_, piece) => {
                    let answer = pieces.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    if let Some(answer) = answer {
                        // Whoever asked may have given up.
                        let _ = answer.send(piece.map(|piece| *piece));
                    }
                }
                Report::Failed(failure) => failed = Some(failure),
            }
        }
        pieces.lock().unwrap_or_else(PoisonError::into_inner).clear();
        failed
    }

    fn complete(&self, mut status: PeerStatus) -> PeerStatus {
        status.rounds = self.rounds.clone();
        status
    }
}

async fn write_line(input: &mut ChildStdin, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value).expect("plain data is JSON");
    line.push(b'\n');
    input.write_all(&line).await?;
    input.flush().await
}

/// Writes orders until the handle is dropped or the child ends; then closes the child's input, which ends it.
async fn forward(mut input: ChildStdin, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        if let Err(error) = write_line(&mut input, &order).await {
            tracing::debug!(%error, "a child takes no orders");
            return;
        }
    }
}

async fn supervise(
    mut process: Child,
    reading: tokio::task::JoinHandle<Option<Failure>>,
    mut kill: mpsc::Receiver<()>,
    ended: watch::Sender<Option<Ended>>,
) {
    let status = tokio::select! {
        status = process.wait() => status,
        Some(()) = kill.recv() => {
            // Fails only when it has ended by itself.
            let _ = process.start_kill();
            process.wait().await
        }
    };
    let reported = reading.await.ok().flatten();
    let crashed = match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(unexpected(format!("a child process ended with {status}"))),
        Err(error) => Some(unexpected(format!("a child process is lost: {error}"))),
    };
    let killed = reported.is_none() && crashed.is_some();
    ended.send_replace(Some(Ended { failure: reported.or(crashed), killed }));
}

/// The end of a child that said nothing.
fn silent(message: String) -> Ended {
    Ended { failure: Some(unexpected(message)), killed: true }
}

fn unexpected(message: String) -> Failure {
    let hint = "start again: it goes on from the last committed round".to_owned();
    Failure { kind: FailureKind::Unexpected, message, hint }
}
