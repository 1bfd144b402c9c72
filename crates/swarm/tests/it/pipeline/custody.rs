//! What happens to units whose replica dies, disappears or forgets: done again where needed, counted once where possible.

use super::world::{Event, Setup, World};

fn done_by(world: &World, place: usize) -> u32 {
    world.replicas[place].sums.iter().sum()
}

/// A world in which every unit is done, with two replicas of each stage.
fn done(stages: usize) -> World {
    let mut world = World::new(Setup::even(stages, 2, 16));
    world.run_until("all done", 60_000_000, World::is_complete);
    assert_eq!(world.excess(), 0);
    world
}

#[test]
fn units_of_a_dead_replica_are_done_anew_and_only_there() {
    for stage in [1, 2] {
        let mut world = done(3);
        let victim = world.place(stage, 0);
        let lost = done_by(&world, victim);
        assert!(lost > 0);
        world.kill(victim);
        assert!(!world.is_complete());
        world.run_until("done anew", 30_000_000, World::is_complete);
        assert_eq!(world.excess(), 0, "the stages after answer from their replies");
        assert_eq!(world.counts().redone, u64::from(lost));
        world.heal();
        world.run_for(200_000);
        world.close_round();
    }
}

#[test]
fn a_connection_that_breaks_for_a_moment_costs_questions_only() {
    let mut world = done(2);
    let (caller, replica) = (world.place(0, 0), world.place(1, 0));
    let before = world.counts();
    world.cut(caller, replica);
    world.after(100_000, Event::Mend(caller, replica));
    world.run_for(5_000_000);
    let after = world.counts();
    assert!(after.questions > before.questions);
    assert_eq!((after.calls, after.redone), (before.calls, 0));
    assert_eq!(world.excess(), 0);
}

#[test]
fn a_replica_that_dies_during_the_callers_backward_pass_takes_nothing_away() {
    for at_us in (20_000..300_000).step_by(5_000) {
        let mut setup = Setup::even(3, 1, 8);
        setup.config.redo_us = 0;
        let mut world = World::new(setup);
        let last = world.place(2, 0);
        world.after(at_us, Event::Kill(last));
        world.after(at_us + 200_000, Event::Boot(last));
        world.run_until("all done", 60_000_000, World::is_complete);
        assert_eq!(world.excess(), 0, "killed after {at_us}");
    }
}

#[test]
fn a_replica_that_starts_again_says_that_it_forgot() {
    let mut world = done(3);
    let place = world.place(1, 0);
    let lost = done_by(&world, place);
    world.kill(place);
    world.boot(place);
    world.run_until("done anew", 30_000_000, World::is_complete);
    assert_eq!((world.excess(), world.counts().redone), (0, u64::from(lost)));
}

#[test]
fn a_dead_middle_stage_does_not_make_the_last_count_twice() {
    // It dies while units are under way everywhere: who takes them over finds what was done below by asking.
    for at_us in (50_000..400_000).step_by(25_000) {
        let mut world = World::new(Setup::even(3, 2, 16));
        let victim = world.place(1, 0);
        world.after(at_us, Event::Kill(victim));
        world.run_until("all done", 60_000_000, World::is_complete);
        let last: u32 = (0..16).map(|index| world.sums(2, index)).sum();
        assert_eq!(last, 16, "killed after {at_us}");
    }
}

#[test]
fn units_of_a_dead_first_stage_are_taken_over_and_counted_once() {
    for at_us in (50_000..400_000).step_by(25_000) {
        let mut world = World::new(Setup::even(3, 3, 18));
        let victim = world.place(0, 1);
        world.after(at_us, Event::Kill(victim));
        world.run_until("all done", 60_000_000, World::is_complete);
        assert_eq!(world.excess(), 0, "killed after {at_us}");
        assert!(world.counts().taken_over > 0);
        let heir = world.place(0, 2);
        assert_eq!(done_by(&world, heir), 12, "the next in the order of ids");
        world.heal();
        world.run_for(200_000);
    }
}

#[test]
fn a_first_stage_that_starts_again_in_time_counts_once() {
    for at_us in (50_000..400_000).step_by(25_000) {
        let mut world = World::new(Setup::even(3, 2, 16));
        let victim = world.place(0, 1);
        world.after(at_us, Event::Kill(victim));
        world.after(at_us + 300_000, Event::Boot(victim));
        world.run_until("all done", 60_000_000, World::is_complete);
        assert_eq!((world.excess(), world.counts().taken_over), (0, 0), "killed after {at_us}");
    }
}

#[test]
fn what_is_in_blocks_is_not_done_anew() {
    let mut world = done(2);
    for replica in 0..2 {
        let place = world.place(1, replica);
        world.after(0, Event::Seal(place));
    }
    world.run_for(100_000);
    let before = world.counts();
    let place = world.place(1, 0);
    world.kill(place);
    world.run_for(5_000_000);
    assert_eq!(world.counts().calls, before.calls);
    assert!(world.is_complete());
}

#[test]
fn whoever_looked_after_units_below_is_replaced_without_counting() {
    // The middle commits and dies, and so does the last, which has not committed.
    let mut world = done(3);
    let (middle, last) = (world.place(1, 0), world.place(2, 0));
    world.after(0, Event::Seal(middle));
    world.run_for(100_000);
    world.kill(middle);
    world.kill(last);
    assert!(!world.is_complete());
    world.run_until("done anew", 60_000_000, World::is_complete);
    for index in 0..16 {
        assert_eq!(world.sums(1, index), 1, "the other replica of the middle worked for its neighbours only");
        assert_eq!(world.sums(2, index), 1);
    }
}

#[test]
fn units_of_a_first_stage_that_committed_and_died_are_looked_after() {
    let mut world = done(2);
    let (first, last) = (world.place(0, 0), world.place(1, 0));
    world.after(0, Event::Seal(first));
    world.run_for(100_000);
    world.kill(first);
    world.kill(last);
    assert!(!world.is_complete());
    world.run_until("done anew", 60_000_000, World::is_complete);
    assert_eq!(world.excess(), 0);
}

#[test]
fn the_hint_saves_asking_everybody() {
    let mut world =
        World::new(Setup { pass_us: vec![vec![10_000], vec![10_000; 2], vec![10_000; 3]], ..done(3).setup });
    world.run_until("all done", 60_000_000, World::is_complete);
    let (victim, before) = (world.place(1, 0), world.counts().questions);
    let lost = u64::from(done_by(&world, victim));
    let asked_before = world.counts().refused;
    world.kill(victim);
    world.run_until("done anew", 60_000_000, World::is_complete);
    let after = world.counts();
    assert!(after.questions - before <= lost, "one question for each unit");
    assert_eq!(after.refused, asked_before, "and it goes to the right replica");
}

#[test]
fn calls_of_a_caller_that_is_gone_are_given_up() {
    let mut excess = 0;
    for at_us in (50_000..400_000).step_by(25_000) {
        let mut setup = Setup::even(2, 2, 16);
        // The last stage is slow: calls wait there.
        setup.pass_us[1] = vec![30_000; 2];
        let mut world = World::new(setup);
        let (caller, replica) = (world.place(0, 0), world.place(1, 0));
        world.after(at_us, Event::Cut(caller, replica));
        world.run_until("all done", 60_000_000, World::is_complete);
        assert!(world.excess() <= 2, "{} units twice, cut after {at_us}", world.excess());
        excess += world.excess();
    }
    assert!(excess <= 14, "{excess} units twice");
}

#[test]
fn calls_that_wait_are_handed_back_when_there_is_no_way_on() {
    let mut world = World::new(Setup::even(3, 2, 16));
    let (blind, one, other) = (world.place(1, 0), world.place(2, 0), world.place(2, 1));
    let queued = |world: &World| world.replicas[blind].pipeline.as_ref().unwrap().queued();
    world.run_until("calls wait", 1_000_000, |world| queued(world) > 0);
    world.cut(blind, one);
    world.cut(blind, other);
    assert_eq!(queued(&world), 0);
    world.run_until("all done", 60_000_000, World::is_complete);
    assert_eq!(world.counts().timeouts, 0);
}

#[test]
fn a_member_that_commits_leaves_the_rest_to_the_next() {
    let mut world = World::new(Setup::even(2, 2, 16));
    let early = world.place(0, 0);
    world.after(200_000, Event::Seal(early));
    world.run_until("all done", 60_000_000, World::is_complete);
    assert!(done_by(&world, early) < 8);
    assert_eq!(world.excess(), 0);
    assert!(world.counts().taken_over > 0);
}

#[test]
fn a_caller_without_a_way_on_hands_the_unit_back() {
    // Replica 0 of the middle cannot reach the last stage; replica 1 can.
    let mut world = World::new(Setup::even(3, 2, 12));
    let (blind, one, other) = (world.place(1, 0), world.place(2, 0), world.place(2, 1));
    world.cut(blind, one);
    world.cut(blind, other);
    world.run_until("all done", 60_000_000, World::is_complete);
    assert_eq!((done_by(&world, blind), world.excess()), (0, 0));
    assert_eq!(world.counts().timeouts, 0, "it refuses instead of keeping its callers waiting");
}
