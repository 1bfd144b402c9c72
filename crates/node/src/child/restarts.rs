//! When a child that died is started again, and when no more.
//!
//! A pause that doubles with every death in a row keeps a child that cannot live from taking the machine; one that lived for
//! [`LIVED_WELL`] has earned the first pause again. What a child says of itself before it ends is believed: a full disk or a damaged
//! store does not get better by trying. Only its limit of memory is, since most of what a peer takes it takes over time.
//!
//! What it does not do: look at a clock, or start anything.

use std::time::Duration;

use crate::member::{Ended, Failure, FailureKind};

/// The pause after a first death.
pub const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A child that lived for so long has the deaths before forgotten.
pub const LIVED_WELL: Duration = Duration::from_secs(180);
/// Deaths in a row after which a child is not started again.
pub const DEATHS_MAX: u32 = 8;
/// How often a child is started again that ended since it took more memory than it may.
pub const OVER_MEMORY_MAX: u32 = 3;

/// What comes after a child's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is started again after a pause.
    Again(Duration),
    /// It is not started again.
    Never(Ended),
}

/// The deaths of one child so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts {
    in_a_row: u32,
    over_memory: u32,
}

impl Restarts {
    /// Decides what follows the end of a child that lived for so long, and that nobody asked to end.
    pub(super) fn after(&mut self, lived: Duration, ended: Ended) -> Next {
        let over_memory = ended.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::OverMemory);
        if !ended.killed && !over_memory {
            return Next::Never(ended);
        }
        self.in_a_row = if lived >= LIVED_WELL { 1 } else { self.in_a_row + 1 };
        self.over_memory += u32::from(over_memory);
        if over_memory && self.over_memory > OVER_MEMORY_MAX {
            return Next::Never(with_word(ended, &format!("; it was started again {OVER_MEMORY_MAX} times for that")));
        }
        if self.in_a_row > DEATHS_MAX {
            let word = format!("; it died {} times in a row and is not started again", self.in_a_row);
            return Next::Never(with_word(ended, &word));
        }
        Next::Again(PAUSE_FIRST.saturating_mul(1 << (self.in_a_row - 1)).min(PAUSE_MAX))
    }
}

/// An end whose reason says what was tried.
fn with_word(ended: Ended, word: &str) -> Ended {
    let failure = ended.failure.map(|failure| Failure { message: failure.message + word, ..failure });
    Ended { failure, ..ended }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEFLY: Duration = Duration::from_secs(5);

    fn ended(kind: FailureKind, killed: bool) -> Ended {
        let failure = Failure { kind, message: "it ended".to_owned(), hint: "look".to_owned() };
        Ended { failure: Some(failure), killed }
    }

    fn killed() -> Ended {
        ended(FailureKind::Unexpected, true)
    }

    fn pause(next: Next) -> u64 {
        match next {
            Next::Again(pause) => pause.as_secs(),
            Next::Never(ended) => panic!("{ended:?}"),
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_end_after_many_deaths_in_a_row() {
        let mut restarts = Restarts::default();
        let pauses: Vec<u64> = (0..DEATHS_MAX).map(|_| pause(restarts.after(BRIEFLY, killed()))).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        let Next::Never(last) = restarts.after(BRIEFLY, killed()) else { panic!("it is started for ever") };
        let said = last.failure.unwrap().message;
        assert!(last.killed && said == "it ended; it died 9 times in a row and is not started again", "{said}");
    }

    #[test]
    fn a_long_life_earns_the_first_pause() {
        let mut restarts = Restarts::default();
        assert_eq!(pause(restarts.after(BRIEFLY, killed())), 1);
        for _ in 0..3 * DEATHS_MAX {
            assert_eq!(pause(restarts.after(BRIEFLY, killed())), 2);
            assert_eq!(pause(restarts.after(LIVED_WELL, killed())), 1);
        }
    }

    #[test]
    fn what_a_child_says_is_believed_except_for_its_memory() {
        let mut restarts = Restarts::default();
        let full = ended(FailureKind::Storage, false);
        assert_eq!(restarts.after(BRIEFLY, full.clone()), Next::Never(full));
        let over = || ended(FailureKind::OverMemory, false);
        for _ in 0..OVER_MEMORY_MAX {
            assert_eq!(pause(restarts.after(LIVED_WELL, over())), 1);
        }
        let Next::Never(last) = restarts.after(LIVED_WELL, over()) else { panic!("it is started for ever") };
        assert_eq!(last.failure.unwrap().message, "it ended; it was started again 3 times for that");
        assert!(!last.killed);
    }
}
