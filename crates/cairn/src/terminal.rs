//! The live view of `up`: a few calm lines that are redrawn in place, or plain lines when nobody watches a terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use node::view::{NetState, PauseView, PeerActivity, PeerView, Phase, RunView, Sample};

use crate::figures::{bytes, count, duration};

/// Redraws per second.
const FRAMES_PER_SECOND: u8 = 4;
/// Characters of the sample shown.
const SAMPLE_CHARACTERS: usize = 96;

/// Where progress goes.
pub(crate) enum View {
    /// Redrawn in place.
    Live(Live),
    /// A line per completed round, and whenever a peer's process dies or is back or a peer changes its stage, for logs and pipes.
    Plain {
        /// Rounds printed so far.
        rounds: Option<u64>,
        /// What was last said of peers whose processes died, by name.
        lives: BTreeMap<String, String>,
        /// The stage of each peer, by name.
        stages: BTreeMap<String, u16>,
        /// Why it paused, as it was said last.
        paused: Option<PauseView>,
    },
}

/// The lines of a live view.
pub(crate) struct Live {
    bars: MultiProgress,
    progress: ProgressBar,
    figures: ProgressBar,
    peers: ProgressBar,
    sample: ProgressBar,
}

impl View {
    /// A live view on a terminal, plain lines elsewhere.
    pub(crate) fn new() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Live(Live::new())
        } else {
            Self::Plain { rounds: None, lives: BTreeMap::new(), stages: BTreeMap::new(), paused: None }
        }
    }

    /// Shows where the run stands.
    pub(crate) fn show(&mut self, state: &NetState) {
        let Some(run) = &state.run else { return };
        match self {
            Self::Live(live) => live.show(state, run),
            Self::Plain { rounds, lives, stages, paused } => {
                if let Some(line) = note_pause(paused, pause(state)) {
                    eprintln!("{line}");
                }
                for line in state.peers.iter().filter_map(|peer| note_stage(stages, peer)) {
                    eprintln!("{line}");
                }
                for (peer, said) in state.peers.iter().filter_map(|peer| Some((peer, life_text(peer)?))) {
                    let line = format!("{} {said}", peer.name);
                    if lives.insert(peer.name.clone(), said.clone()) != Some(said) {
                        eprintln!("{line}");
                    }
                }
                if *rounds != Some(run.round) {
                    *rounds = Some(run.round);
                    eprintln!("{}", plain_line(run));
                }
            }
        }
    }

    /// Shows what the model writes.
    pub(crate) fn sample(&mut self, sample: &Sample) {
        if let Self::Live(live) = self {
            live.sample.set_message(excerpt(sample));
        }
    }

    /// Ends the live view and leaves its last state on the screen.
    pub(crate) fn finish(&mut self) {
        if let Self::Live(live) = self {
            for line in [&live.progress, &live.figures, &live.peers, &live.sample] {
                line.abandon();
            }
            live.bars.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}

/// How far something is that is fetched before anything else can begin: a bar on a terminal, a line at its begin and its end elsewhere.
pub(crate) struct FetchBar {
    bar: ProgressBar,
    what: &'static str,
    told: std::cell::Cell<Option<u64>>,
}

impl FetchBar {
    /// Shows nothing until there is something to show.
    pub(crate) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SECOND));
        let style = ProgressStyle::with_template("  {bar:36.cyan/dim} {msg}").expect("a valid template");
        bar.set_style(style.progress_chars("━╸─"));
        Self { bar, what, told: std::cell::Cell::new(None) }
    }

    /// So many bytes of all are here.
    pub(crate) fn show(&self, done: u64, all: u64) {
        if self.told.replace(Some(all)).is_none() && self.bar.is_hidden() {
            eprintln!("fetching the {}: {} of {} are here", self.what, bytes(done as f64), bytes(all as f64));
        }
        self.bar.set_length(all.max(1));
        self.bar.set_position(done);
        self.bar.set_message(format!("{} · {} of {}", self.what, bytes(done as f64), bytes(all as f64)));
    }

    /// It is over, well or not.
    pub(crate) fn end(&self, is_here: bool) {
        if let Some(all) = self.told.get().filter(|_| is_here && self.bar.is_hidden()) {
            eprintln!("the {} is here: {}", self.what, bytes(all as f64));
        }
        self.bar.finish_and_clear();
    }
}

impl Live {
    fn new() -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SECOND));
        let progress = bars.add(ProgressBar::new(1));
        progress.set_style(
            ProgressStyle::with_template("  {bar:36.cyan/dim} {msg}").expect("a valid template").progress_chars("━╸─"),
        );
        let line = |template: &str| {
            let bar = bars.add(ProgressBar::new(1));
            bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
            bar
        };
        let figures = line("  {msg}");
        let peers = line("  {msg}");
        let sample = line("  {msg:.dim}");
        progress.enable_steady_tick(Duration::from_millis(500));
        Self { bars, progress, figures, peers, sample }
    }

    fn show(&self, state: &NetState, run: &RunView) {
        self.progress.set_length(run.rounds.max(1));
        self.progress.set_position(run.round);
        self.progress.set_message(progress_text(run, pause(state)));
        self.figures.set_message(figures_text(run));
        self.peers.set_message(peers_text(&state.peers));
    }
}

/// Why this machine pauses, if it does.
fn pause(state: &NetState) -> Option<&PauseView> {
    state.machine.as_ref()?.paused.as_ref()
}

/// A pause, as people are told of it.
pub(crate) fn pause_text(pause: &PauseView) -> String {
    match pause {
        PauseView::Person => "paused (by you)".to_owned(),
        PauseView::Hours { until } => format!("paused until {until}"),
        PauseView::Busy => "paused: the machine is busy".to_owned(),
    }
}

/// Remembers a pause; what is said of it when it is another than before.
fn note_pause(said: &mut Option<PauseView>, pause: Option<&PauseView>) -> Option<String> {
    if said.as_ref() == pause {
        return None;
    }
    *said = pause.cloned();
    Some(pause.map_or_else(|| "goes on".to_owned(), pause_text))
}

fn progress_text(run: &RunView, pause: Option<&PauseView>) -> String {
    let left = match (run.phase, run.eta_seconds) {
        (Phase::Starting | Phase::Training, _) if pause.is_some() => pause.map(pause_text).unwrap_or_default(),
        (Phase::Starting, _) => "connecting".to_owned(),
        (Phase::Finished, _) => format!("done in {}", duration(run.elapsed_seconds)),
        (Phase::Halted, _) => "halted".to_owned(),
        (Phase::Training, Some(eta)) => format!("{} left", duration(eta)),
        (Phase::Training, None) => "measuring".to_owned(),
    };
    format!("round {}/{} · {} tokens · {left}", run.round, run.rounds, count(run.tokens as f64))
}

fn figures_text(run: &RunView) -> String {
    let loss = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {value:.3}"));
    let mut parts: Vec<String> =
        [loss("loss", run.training_loss), loss("held-out", run.heldout_loss)].into_iter().flatten().collect();
    if run.tokens_per_second > 0.0 {
        parts.push(format!("{} tokens/s", count(run.tokens_per_second)));
    }
    if run.bytes_per_token > 0.0 {
        parts.push(format!("{} sent per token", bytes(run.bytes_per_token)));
    }
    if run.compression > 0.0 {
        parts.push(format!("payload {:.0}× smaller", run.compression));
    }
    parts.join(" · ")
}

fn peers_text(peers: &[PeerView]) -> String {
    const LISTED_MAX: usize = 8;
    let mut parts: Vec<String> = peers
        .iter()
        .take(LISTED_MAX)
        .map(|peer| {
            let restarts = if peer.restarts > 0 { format!(" ↻{}", peer.restarts) } else { String::new() };
            format!("{} {} {}{restarts}", symbol(peer.activity), peer.name, activity(peer.activity))
        })
        .collect();
    if peers.len() > LISTED_MAX {
        parts.push(format!("and {} more", peers.len() - LISTED_MAX));
    }
    parts.join("   ")
}

fn symbol(activity: PeerActivity) -> char {
    match activity {
        PeerActivity::Offline | PeerActivity::Restarting => '○',
        PeerActivity::Waiting | PeerActivity::Joining | PeerActivity::Paused => '◌',
        _ => '●',
    }
}

/// A peer's activity in a word.
pub(crate) fn activity(activity: PeerActivity) -> &'static str {
    match activity {
        PeerActivity::Offline => "offline",
        PeerActivity::Joining => "joining",
        PeerActivity::Training => "training",
        PeerActivity::Fetching => "fetching",
        PeerActivity::Applying => "applying",
        PeerActivity::Waiting => "waiting",
        PeerActivity::Paused => "paused",
        PeerActivity::Done => "done",
        PeerActivity::Restarting => "restarting",
        PeerActivity::Elsewhere => "elsewhere",
    }
}

/// What became of a peer whose process died; none when none did.
fn life_text(peer: &PeerView) -> Option<String> {
    if let Some(lost) = &peer.lost {
        return Some(format!("is lost: {lost}"));
    }
    match (peer.activity, peer.restarts) {
        (PeerActivity::Restarting, _) => Some("is away: its process died, and is started again".to_owned()),
        (_, 0) => None,
        (_, restarts) => Some(format!("is back, restarted {restarts}×")),
    }
}

/// Remembers the stage of a peer; what is said of it when it is another than before.
fn note_stage(stages: &mut BTreeMap<String, u16>, peer: &PeerView) -> Option<String> {
    let stage = peer.stage?;
    let before = stages.insert(peer.name.clone(), stage)?;
    (before != stage).then(|| format!("{} moved from stage {before} to stage {stage}", peer.name))
}

fn excerpt(sample: &Sample) -> String {
    let joined = format!("{}{}", sample.prompt, sample.text);
    let words: Vec<&str> = joined.split_whitespace().collect();
    let text = words.join(" ");
    let mut short: String = text.chars().take(SAMPLE_CHARACTERS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("“{short}”")
}

fn plain_line(run: &RunView) -> String {
    let figures = figures_text(run);
    let separator = if figures.is_empty() { "" } else { " · " };
    format!("{}{separator}{figures}", progress_text(run, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_said_once_with_their_reason() {
        let mut said = None;
        let hours = PauseView::Hours { until: "22:00".into() };
        let lines = [None, Some(&hours), Some(&hours), Some(&PauseView::Person), Some(&PauseView::Busy), None, None];
        let lines: Vec<String> = lines.into_iter().filter_map(|pause| note_pause(&mut said, pause)).collect();
        assert_eq!(lines, ["paused until 22:00", "paused (by you)", "paused: the machine is busy", "goes on"]);
    }

    #[test]
    fn a_sample_is_one_short_line() {
        let sample = Sample { round: 1, tokens: 2, prompt: "She  was\n".into(), text: "not ".repeat(100) };
        let line = excerpt(&sample);
        assert!(line.starts_with("“She was not not"), "{line}");
        assert!(line.ends_with("…”") && !line.contains('\n') && line.chars().count() <= SAMPLE_CHARACTERS + 3);
    }

    #[test]
    fn peers_are_listed_with_what_they_do() {
        let peer = |name: &str, activity| PeerView {
            id: wire::PeerId([0; 32]),
            name: name.into(),
            activity,
            validator: false,
            shares: 0,
            share_of_supply: 0.0,
            receipts: 0,
            bytes_sent: 0,
            bytes_received: 0,
            tokens_per_second: 0.0,
            stage: None,
            memory_peak_bytes: None,
            restarts: 0,
            lost: None,
            path: None,
            faults: 0,
        };
        let text = peers_text(&[peer("1", PeerActivity::Training), peer("2", PeerActivity::Offline)]);
        assert_eq!(text, "● 1 training   ○ 2 offline");
        let back = PeerView { restarts: 2, ..peer("3", PeerActivity::Waiting) };
        let away = PeerView { restarts: 1, ..peer("4", PeerActivity::Restarting) };
        assert_eq!(peers_text(&[back.clone(), away.clone()]), "◌ 3 waiting ↻2   ○ 4 restarting ↻1");
        let lost = PeerView { lost: Some("it died".into()), ..peer("5", PeerActivity::Offline) };
        let said =
            [life_text(&peer("1", PeerActivity::Training)), life_text(&back), life_text(&away), life_text(&lost)];
        let expected = ["is back, restarted 2×", "is away: its process died, and is started again", "is lost: it died"];
        assert_eq!(said[0], None);
        let mut stages = BTreeMap::new();
        let in_stage = |stage| PeerView { stage: Some(stage), ..peer("peer 6", PeerActivity::Training) };
        assert_eq!([1, 1].map(|stage| note_stage(&mut stages, &in_stage(stage))), [None, None]);
        assert_eq!(note_stage(&mut stages, &in_stage(0)).as_deref(), Some("peer 6 moved from stage 1 to stage 0"));
        assert_eq!(said[1..].iter().flatten().collect::<Vec<_>>(), expected);
    }
}
