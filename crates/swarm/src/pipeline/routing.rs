//! Which replica of the next stage the next call goes to.
//!
//! Source: stochastic wiring of SWARM parallelism (Ryabinin et al., 2023), section 3 of the training design. Every replica
//! has a virtual time; a call goes to the one with the smallest, which is then charged the time that the call will take at
//! its measured speed. Since a queue at a replica shows in its reply times, replicas that are busy all the time get calls in
//! proportion to their speeds. Deviations: ties go to the smaller id instead of a random one, and a replica that comes
//! back starts at the present virtual time, so that it is not flooded to catch up.

use std::collections::BTreeMap;

use wire::PeerId;

use crate::Time;

/// Millionths of a token per second in one token per microsecond.
const MICROTOKENS_PER_SECOND: u128 = 1_000_000_000_000;
/// How often the time until a replica that failed is called again doubles at most.
const DOUBLINGS_MAX: u32 = 6;

/// What is known of one replica.
#[derive(Debug, Default)]
struct Route {
    /// Virtual time, in microseconds.
    virtual_us: u64,
    /// Millionths of a token per second, averaged; `None` before the first reply.
    speed: Option<u64>,
    /// How long a reply takes, averaged; 0 before the first.
    reply_us: u64,
    /// The fastest reply of this round.
    least_us: Option<u64>,
    /// Until when it is not called.
    excluded_until: Option<Time>,
    /// Times in a row that it was called and refused, or did not answer.
    failures: u32,
    /// Whether it did not answer last: one call tries whether it does again.
    suspect: bool,
    /// Whether it takes no more units in this round.
    closed: bool,
}

/// The replicas of the next stage.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    routes: BTreeMap<PeerId, Route>,
    /// The virtual time of the last call.
    present_us: u64,
}

/// The average of a value and a new sample, which weighs a quarter.
fn average(old: u64, sample: u64) -> u64 {
    let sum = u128::from(old) * 3 + u128::from(sample);
    u64::try_from(sum / 4).expect("an average is no more than its largest part")
}

impl Routes {
    /// Begins a round with these replicas. What is known of those that were there before is kept.
    pub(crate) fn open(&mut self, replicas: &[PeerId]) {
        self.change(replicas);
        for route in self.routes.values_mut() {
            route.least_us = None;
            route.begin_anew();
        }
    }

    /// Goes on with these replicas.
    pub(crate) fn change(&mut self, replicas: &[PeerId]) {
        self.routes.retain(|peer, _| replicas.contains(peer));
        let present_us = self.present_us;
        for peer in replicas {
            self.routes.entry(*peer).or_insert_with(|| Route { virtual_us: present_us, ..Route::default() });
        }
    }

    /// Chooses among the usable replicas the one for a call of so many tokens, and charges it; `closed` when those are good for it too that
    /// take no further units.
    pub(crate) fn pick(
        &mut self,
        tokens: u64,
        usable: impl Fn(PeerId) -> bool,
        closed: bool,
        now: Time,
    ) -> Option<PeerId> {
        let typical = self.mean_speed();
        let present_us = self.present_us;
        for route in self.routes.values_mut() {
            if route.excluded_until.take_if(|until| *until <= now).is_some() {
                route.virtual_us = route.virtual_us.max(present_us);
            }
        }
        let free = self.routes.iter_mut().filter(|(peer, route)| route.is_free(closed) && usable(**peer));
        let (peer, route) = free.min_by_key(|(peer, route)| (route.virtual_us, **peer))?;
        self.present_us = self.present_us.max(route.virtual_us);
        route.charge(tokens, typical);
        Some(*peer)
    }

    /// Whether a usable replica takes further units, now or when it is no longer excluded.
    pub(crate) fn any_open(&self, usable: impl Fn(PeerId) -> bool) -> bool {
        self.routes.iter().any(|(peer, route)| !route.closed && usable(*peer))
    }

    /// When the next of the excluded replicas may be called again; `closed` as for [`Routes::pick`].
    pub(crate) fn next_free(&self, usable: impl Fn(PeerId) -> bool, closed: bool) -> Option<Time> {
        let excluded = self.routes.iter().filter(|(peer, route)| (closed || !route.closed) && usable(**peer));
        excluded.filter_map(|(_, route)| route.excluded_until).min()
    }

    /// How long a reply of a replica takes, 0 when that is not known.
    pub(crate) fn reply_us(&self, peer: PeerId) -> u64 {
        self.routes.get(&peer).map_or(0, |route| route.reply_us)
    }

    /// Notes a reply and how long it took. Returns the fastest reply of the replica in this round.
    pub(crate) fn replied(&mut self, peer: PeerId, tokens: u64, took_us: u64) -> u64 {
        let took_us = took_us.max(1);
        let Some(route) = self.routes.get_mut(&peer) else { return took_us };
        let sample = u128::from(tokens) * MICROTOKENS_PER_SECOND / u128::from(took_us);
        let sample = u64::try_from(sample).unwrap_or(u64::MAX).max(1);
        route.speed = Some(route.speed.map_or(sample, |speed| average(speed, sample)));
        route.reply_us = if route.reply_us == 0 { took_us } else { average(route.reply_us, took_us) };
        let least_us = route.least_us.map_or(took_us, |least_us| least_us.min(took_us));
        (route.least_us, route.failures) = (Some(least_us), 0);
        least_us
    }

    /// Notes that a replica answered, whatever.
    pub(crate) fn answered(&mut self, peer: PeerId) {
        if let Some(route) = self.routes.get_mut(&peer).filter(|route| route.suspect) {
            route.begin_anew();
        }
    }

    /// Whether a replica did not answer last.
    pub(crate) fn is_suspect(&self, peer: PeerId) -> bool {
        self.routes.get(&peer).is_some_and(|route| route.suspect)
    }

    /// Notes until when the call to a replica is waited for: a suspect gets no other before.
    pub(crate) fn called(&mut self, peer: PeerId, until: Time) {
        if let Some(route) = self.routes.get_mut(&peer).filter(|route| route.suspect) {
            route.excluded_until = Some(until);
        }
    }

    /// Notes that a call was not answered in time: it is charged once more, and the replica is not called for `wait_us`,
    /// doubled when it does not answer after that either.
    pub(crate) fn timed_out(&mut self, peer: PeerId, tokens: u64, wait_us: u64, now: Time) {
        let typical = self.mean_speed();
        let Some(route) = self.routes.get_mut(&peer) else { return };
        route.charge(tokens, typical);
        route.suspect = true;
        route.exclude(wait_us, u64::MAX, now);
    }

    /// Notes a refusal: the replica is not called for `retry_us`, doubled up to `max_us` when it refuses again after that.
    pub(crate) fn refused(&mut self, peer: PeerId, retry_us: u64, max_us: u64, now: Time) {
        if let Some(route) = self.routes.get_mut(&peer) {
            route.exclude(retry_us, max_us, now);
        }
    }

    /// Calls a replica no more in this round.
    pub(crate) fn close(&mut self, peer: PeerId) {
        if let Some(route) = self.routes.get_mut(&peer) {
            route.closed = true;
        }
    }

    /// Notes that a replica is back: perhaps another life, to be tried like a new one.
    pub(crate) fn returned(&mut self, peer: PeerId) {
        if let Some(route) = self.routes.get_mut(&peer) {
            route.virtual_us = route.virtual_us.max(self.present_us);
            route.begin_anew();
        }
    }

    /// The mean of the known speeds.
    fn mean_speed(&self) -> Option<u64> {
        let known = || self.routes.values().filter_map(|route| route.speed);
        let sum: u128 = known().map(u128::from).sum();
        let count = known().count() as u128;
        (count > 0).then(|| u64::try_from(sum / count).expect("a mean is no more than the largest"))
    }
}

impl Route {
    /// Forgets what was held against it.
    fn begin_anew(&mut self) {
        (self.excluded_until, self.failures, self.suspect, self.closed) = (None, 0, false, false);
    }

    /// Keeps calls away for a time that doubles with every failure. Those of calls that were under way at the same time
    /// count as one.
    fn exclude(&mut self, wait_us: u64, max_us: u64, now: Time) {
        if self.excluded_until.is_none_or(|until| until <= now) {
            let wait_us = wait_us.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX)).min(max_us);
            self.failures = self.failures.saturating_add(1);
            self.excluded_until = Some(now.after(wait_us));
        }
    }

    fn is_free(&self, closed: bool) -> bool {
        (closed || !self.closed) && self.excluded_until.is_none()
    }

    /// Charges the time that so many tokens take. While no speed is known at all, every call costs the same.
    fn charge(&mut self, tokens: u64, typical: Option<u64>) {
        let cost_us = self.speed.or(typical).map_or(1, |speed| {
            let cost_us = u128::from(tokens) * MICROTOKENS_PER_SECOND / u128::from(speed.max(1));
            u64::try_from(cost_us).unwrap_or(u64::MAX).max(1)
        });
        self.virtual_us = self.virtual_us.saturating_add(cost_us);
    }
}
