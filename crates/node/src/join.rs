//! Joining a run from another machine: where a ticket leads.
//!
//! Message sequence: connect to the ticket's validator, at all of its addresses and through all relays at once, with the protocol name [`ALPN`] → one stream: a
//! [`RunQuestion`], and a [`RunAnswer`] with the charter and the recipe → everything is checked against the ticket's run id → the machine
//! takes part as any other peer does: blocks, state and payloads come by the ordinary way.
//!
//! Safety: the run's id is a hash over the charter, which names the recipe, the text and the first states by their hashes, so whoever
//! answers can withhold the run and cannot forge it.
//!
//! What it does not do: bring the text that the run is trained on. The bundled novels are in every program; for others the joining
//! machine needs the same files, which is checked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iroh::RelayUrl;
use iroh::endpoint::Connection;
use learn::Recipe;
use ledger::{Account, Standing};
use wire::{
    Charter, Identity, PeerId, RunAnswer, RunFiles, RunId, RunQuestion, SignatureError, Signed, StageTerms, Ticket,
    Verified,
};

use crate::frames::{FrameError, read_frame, write_frame};
use crate::transport::{Dialer, Services, Transport, TransportConfig, TransportError};

/// What machines that want to join ask for when they connect.
pub const ALPN: &[u8] = b"cairn-run/1";
/// How long a validator has to answer.
pub const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Questions that one connection may ask.
const QUESTIONS_MAX: usize = 4;

/// Tells machines that want to join what run this is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RunOffer {
    run: RunId,
    files: Arc<Mutex<RunFiles>>,
}

impl RunOffer {
    /// Offers a run.
    pub fn new(charter: Signed<Charter>, recipe: &Recipe) -> Self {
        let (run, members) = (charter.body.run_id(), vec![0; charter.body.stages.len()]);
        let files = RunFiles { charter, recipe: recipe.to_bytes(), members };
        Self { run, files: Arc::new(Mutex::new(files)) }
    }

    /// Notes how many members each stage has.
    pub(crate) fn note_members(&self, accounts: &[Account]) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.members.fill(0);
        for account in
            accounts.iter().filter(|account| matches!(account.standing, Standing::Joining | Standing::Member))
        {
            if let Some(members) = files.members.get_mut(usize::from(account.stage)) {
                *members += 1;
            }
        }
    }

    fn answer(&self, question: RunQuestion) -> RunAnswer {
        match question.run == self.run {
            true => RunAnswer::Files(Box::new(self.files.lock().unwrap_or_else(PoisonError::into_inner).clone())),
            false => RunAnswer::UnknownRun,
        }
    }

    /// Answers a few questions, each within [`ANSWER_MAX`].
    pub(crate) async fn serve(self, connection: Connection) {
        for _ in 0..QUESTIONS_MAX {
            let exchange = async {
                let (mut answers, mut questions) = connection.accept_bi().await.ok()?;
                let question = read_frame::<RunQuestion>(&mut questions).await.ok()?;
                write_frame(&mut answers, &self.answer(question)).await.ok()
            };
            if tokio::time::timeout(ANSWER_MAX, exchange).await.ok().flatten().is_none() {
                return;
            }
        }
    }
}

/// A run that a ticket led to.
#[derive(Debug)]
pub struct Invitation {
    /// The run's terms.
    pub charter: Verified<Charter>,
    /// Its recipe.
    pub recipe: Recipe,
    /// The peer that orders its blocks, and the address at which it answered, if that was not through a relay.
    pub validator: (PeerId, Option<SocketAddr>),
    /// The run's relays, as the ticket has them.
    pub relays: Vec<RelayUrl>,
    /// Members of each stage, as that peer says.
    pub members: Vec<u32>,
}

impl Invitation {
    /// The stage that needs another member most: the one with the fewest and, of several, that with the most work.
    pub fn neediest_stage(&self) -> u16 {
        let stages = (0..).zip(&self.charter.body.stages).zip(&self.members);
        let need = |((_, terms), members): &((u16, &StageTerms), &u32)| (**members, u32::MAX - terms.weight);
        stages.min_by_key(need).map_or(0, |((stage, _), _)| stage)
    }
}

/// A ticket leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No socket.
    #[error(transparent)]
    Network(#[from] TransportError),
    /// Nobody answers.
    #[error("no answer from {}: {reason}", ways.join(", "))]
    Unreachable {
        /// Where nobody answers: addresses and relays.
        ways: Vec<String>,
        /// What was heard instead.
        reason: String,
    },
    /// A relay's address cannot be read.
    #[error("`{relay}` is no address of a relay")]
    Relay {
        /// The text.
        relay: String,
    },
    /// The peer takes part in another run.
    #[error("the peer that the ticket names takes part in another run now")]
    UnknownRun,
    /// The answer belongs to another run.
    #[error("the answer is about the run {got}, the ticket about {expected}")]
    OtherRun {
        /// The ticket's.
        expected: String,
        /// The answer's.
        got: String,
    },
    /// The charter's signature does not verify.
    #[error("the charter is not signed by its founder: {0}")]
    Signature(#[from] SignatureError),
    /// The ticket's validator is none of the run's.
    #[error("the charter names other validators than the ticket")]
    OtherValidator,
    /// The recipe is not the charter's.
    #[error("the recipe is not the one that the charter names: {reason}")]
    OtherRecipe {
        /// Why.
        reason: String,
    },
}

impl JoinError {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Network(_) => "check that this machine may open UDP sockets",
            Self::Unreachable { .. } => {
                "ask whether the run is up, whether its machine lets UDP in at that port, and for a new ticket"
            }
            Self::UnknownRun => "ask for a new ticket",
            Self::Relay { .. } => "a relay's address is what `cairn relay` prints, e.g. `http://192.0.2.7:3340`",
            Self::OtherRun { .. } | Self::Signature(_) | Self::OtherValidator | Self::OtherRecipe { .. } => {
                "do not trust who answers there; ask for a new ticket over another way"
            }
        }
    }
}

/// Reads the addresses of relays.
///
/// # Errors
/// [`JoinError::Relay`].
pub fn relays<'a>(texts: impl IntoIterator<Item = &'a String>) -> Result<Vec<RelayUrl>, JoinError> {
    let read = |text: &String| {
        let url = text.parse().ok().filter(|url: &RelayUrl| matches!(url.scheme(), "http" | "https"));
        url.ok_or_else(|| JoinError::Relay { relay: text.clone() })
    };
    texts.into_iter().map(read).collect()
}

/// An address of a peer on this machine, as its neighbours here dial it: one that listens everywhere is reached on loopback.
pub(crate) fn on_this_machine(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// Asks the peer that a ticket names about the run, and checks the answer.
///
/// # Errors
/// [`JoinError`].
pub async fn ask(ticket: &Ticket) -> Result<Invitation, JoinError> {
    let identity = Identity::from_secret(iroh::SecretKey::generate().to_bytes());
    let relays = relays(&ticket.relays)?;
    let config =
        TransportConfig { bind: bind_for(&ticket.addresses), relays: relays.clone(), ..TransportConfig::default() };
    let transport = Transport::bind(&config, &identity, Services::default()).await?;
    let asked = tokio::time::timeout(ANSWER_MAX, ask_over(transport.dialer(), ticket)).await;
    transport.shutdown().await;
    match asked.unwrap_or_else(|_| Err(FrameError::TimeOut.to_string())) {
        Ok((answer, address)) => check(ticket, answer, (address, relays)),
        Err(reason) => {
            let addresses = ticket.addresses.iter().map(SocketAddr::to_string);
            Err(JoinError::Unreachable { ways: addresses.chain(ticket.relays.iter().cloned()).collect(), reason })
        }
    }
}

/// Where to listen so that the addresses can be reached: on loopback for peers there, and otherwise everywhere.
pub fn bind_for(addresses: &[SocketAddr]) -> SocketAddr {
    match addresses.first() {
        Some(first) if first.ip().is_loopback() && first.is_ipv4() => SocketAddr::from(([127, 0, 0, 1], 0)),
        Some(first) if first.is_ipv6() => SocketAddr::from(([0_u16; 8], 0)),
        _ => SocketAddr::from(([0, 0, 0, 0], 0)),
    }
}

/// Where others can reach a socket that listens at `bound`. One that listens everywhere is reached at the address that this machine has in
/// its network, and on loopback.
pub fn reachable(bound: SocketAddr) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    // A connected UDP socket sends nothing; it only learns which of the own addresses it would send from.
    let own = |own: &str, far: &str| {
        let socket = std::net::UdpSocket::bind(own).ok()?;
        socket.connect(far).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let ours = [own("0.0.0.0:0", "192.0.2.1:9"), own("[::]:0", "[2001:db8::1]:9").filter(|_| bound.is_ipv6())];
    let loopback = std::net::IpAddr::from([127, 0, 0, 1]);
    let all = ours.into_iter().flatten().filter(|ip| !ip.is_loopback()).chain([loopback]);
    all.map(|ip| SocketAddr::new(ip, bound.port())).collect()
}

/// What the validator says, and where it was reached, if that was not through a relay.
async fn ask_over(dialer: &Dialer, ticket: &Ticket) -> Result<(RunAnswer, Option<SocketAddr>), String> {
    let connection =
        dialer.dial_at(ticket.validator, ALPN, &ticket.addresses).await.map_err(|error| error.to_string())?;
    let (mut questions, mut answers) = connection.open_bi().await.map_err(|error| error.to_string())?;
    let exchange = async {
        write_frame(&mut questions, &RunQuestion { run: ticket.run }).await?;
        read_frame::<RunAnswer>(&mut answers).await
    };
    let answer = exchange.await.map_err(|error: FrameError| error.to_string())?;
    Ok((answer, dialer.path_to(ticket.validator).and_then(|path| path.direct)))
}

fn check(
    ticket: &Ticket,
    answer: RunAnswer,
    (address, relays): (Option<SocketAddr>, Vec<RelayUrl>),
) -> Result<Invitation, JoinError> {
    let RunAnswer::Files(files) = answer else { return Err(JoinError::UnknownRun) };
    let run = files.charter.body.run_id();
    if run != ticket.run {
        return Err(JoinError::OtherRun { expected: ticket.run.0.short(), got: run.0.short() });
    }
    let charter = files.charter.verify()?;
    if !charter.body.validators.contains(&ticket.validator) {
        return Err(JoinError::OtherValidator);
    }
    let other = |reason: String| JoinError::OtherRecipe { reason };
    let recipe = Recipe::from_bytes(&files.recipe).map_err(|error| other(error.to_string()))?;
    if recipe.hash() != charter.body.recipe.0 {
        return Err(other("its hash is another".to_owned()));
    }
    let validator = (ticket.validator, address);
    Ok(Invitation { charter, recipe, validator, relays, members: files.members })
}
