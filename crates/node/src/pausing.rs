//! Why this machine does not work for a while.
//!
//! Three reasons, each of which suffices: a person said so, it is outside of the hours of `--when`, or `--when idle` and other programs keep
//! the machine busy. A person's reason ends with the process; the others come and go by themselves. What follows from a pause is the
//! protocol's ([`swarm::Input::Pause`]): the work under way is given up, the ledger is told that nobody need wait, blocks and blobs are
//! served on, and afterwards the peer catches up and joins again, with its residual.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::limits::When;
use crate::view::{MachineView, PauseView};

/// The pauses of a machine. Cheap to clone; clones are one.
#[derive(Clone, Debug)]
pub struct Pauses {
    reasons: Arc<Mutex<Reasons>>,
    paused: watch::Sender<Option<PauseView>>,
    /// What people are shown.
    view: watch::Sender<MachineView>,
}

#[derive(Clone, Copy, Debug)]
struct Reasons {
    when: When,
    by_person: bool,
    minute: u32,
    busy: bool,
}

impl Reasons {
    /// The reason that people are told: their own first, since only they can end it.
    fn pause(&self) -> Option<PauseView> {
        match self.when {
            _ if self.by_person => Some(PauseView::Person),
            When::Hours(hours) if !hours.contain(self.minute) => Some(PauseView::Hours { until: hours.begin() }),
            When::Idle if self.busy => Some(PauseView::Busy),
            _ => None,
        }
    }
}

impl Pauses {
    /// Those of a machine that works at some times; `minute` is the minute of the local day. `view` is kept up to date.
    pub fn new(when: When, minute: u32, view: watch::Sender<MachineView>) -> Self {
        let reasons = Reasons { when, by_person: false, minute, busy: false };
        view.send_modify(|view| view.paused = reasons.pause());
        Self { paused: watch::Sender::new(reasons.pause()), reasons: Arc::new(Mutex::new(reasons)), view }
    }

    /// Pauses, because a person says so; gives why it pauses now.
    pub fn pause(&self) -> Option<PauseView> {
        self.change(|reasons| reasons.by_person = true)
    }

    /// Ends a person's pause; gives the reason for which it pauses on, when there is another.
    pub fn resume(&self) -> Option<PauseView> {
        self.change(|reasons| reasons.by_person = false)
    }

    /// Notes the minute of the local day, and whether other programs keep the machine busy.
    pub(crate) fn note(&self, minute: u32, busy: bool) {
        self.change(|reasons| (reasons.minute, reasons.busy) = (minute, busy));
    }

    /// Why it pauses, and a way to wait for a change.
    pub fn paused(&self) -> watch::Receiver<Option<PauseView>> {
        self.paused.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Reasons)) -> Option<PauseView> {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut reasons);
        let pause = reasons.pause();
        // Told under the lock, so that the last one told is the last one that is true.
        if *self.paused.borrow() != pause {
            self.view.send_modify(|view| view.paused.clone_from(&pause));
            self.paused.send_replace(pause.clone());
        }
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_reason_suffices_and_a_persons_is_told_first() {
        let view = watch::Sender::default();
        let pauses = Pauses::new("22:00-07:00".parse().unwrap(), 23 * 60, view.clone());
        let mut paused = pauses.paused();
        assert_eq!(*paused.borrow_and_update(), None);
        pauses.note(23 * 60 + 1, true);
        assert!(!paused.has_changed().unwrap(), "who works by hours does not mind a busy machine");
        pauses.note(7 * 60, false);
        let until = Some(PauseView::Hours { until: "22:00".to_owned() });
        assert_eq!(*paused.borrow_and_update(), until);
        assert_eq!(view.borrow().paused, until);
        assert_eq!(pauses.pause(), Some(PauseView::Person));
        assert_eq!(pauses.pause(), Some(PauseView::Person), "again is the same as once");
        assert_eq!(pauses.resume(), until, "it is still day");
        pauses.note(22 * 60, false);
        assert_eq!((pauses.resume(), paused.borrow().clone()), (None, None));
    }

    #[test]
    fn a_busy_machine_pauses_whoever_works_while_it_is_idle() {
        let pauses = Pauses::new(When::Idle, 0, watch::Sender::default());
        pauses.note(0, true);
        assert_eq!(*pauses.paused().borrow(), Some(PauseView::Busy));
        pauses.note(0, false);
        assert_eq!(*pauses.paused().borrow(), None);
        let always = Pauses::new(When::Always, 0, watch::Sender::default());
        always.note(700, true);
        assert_eq!(*always.paused().borrow(), None);
    }
}
