//! Machines that die and come back, links that break, replicas that are slow or freeze: drawn from a seed.

use super::world::{Event, Random, Setup, World};

/// How long things go wrong.
const FAULTS_US: u64 = 3_000_000;

/// A world and its faults, drawn from a seed.
fn storm(seed: u64) -> World {
    let mut random = Random::new(seed ^ 0x5707);
    let stages = [1, 2, 4][random.between(0, 2) as usize];
    let mut setup = Setup::even(stages, 1, random.between(4, 16) as u32);
    setup.seed = seed;
    setup.delay_us = (1_000, random.between(2_000, 60_000));
    for passes in &mut setup.pass_us {
        let replicas = random.between(1, 3);
        *passes = (0..replicas).map(|_| random.between(3_000, 30_000)).collect();
    }
    if random.chance(30) {
        setup.config.calls_queued_max = 2;
        setup.config.held_bytes_max = 64 * 60;
    }
    let mut world = World::new(setup);
    plan_faults(&mut world, &mut random);
    world
}

fn plan_faults(world: &mut World, random: &mut Random) {
    let machines = world.replicas.len();
    for _ in 0..random.between(0, 12) {
        let at = random.between(0, FAULTS_US);
        let (one, other) = (random.next() as usize % machines, random.next() as usize % machines);
        let lasts = if random.chance(50) { random.between(1_000, 200_000) } else { random.between(200_000, 2_500_000) };
        match random.between(0, 9) {
            0..=3 => {
                world.after(at, Event::Kill(one));
                world.after(at + lasts, Event::Boot(one));
            }
            4..=5 if one != other => {
                world.after(at, Event::Cut(one, other));
                world.after(at + lasts, Event::Mend(one, other));
            }
            6 => {
                for other in (0..machines).filter(|other| *other != one) {
                    world.after(at, Event::Cut(one, other));
                    world.after(at + lasts, Event::Mend(one, other));
                }
            }
            7 => world.after(at, Event::Freeze(one, lasts)),
            8 => {
                let pass_us = world.replicas[one].pass_us;
                world.after(at, Event::Slow(one, pass_us * 10));
                world.after(at + lasts, Event::Slow(one, pass_us));
            }
            _ => {}
        }
    }
    if random.chance(30) {
        commit_early(world, random);
    }
}

/// Some commit while others work; one replica of every stage does not.
fn commit_early(world: &mut World, random: &mut Random) {
    for stage in 0..world.stages() {
        for replica in 1..world.setup.pass_us[stage].len() {
            if random.chance(40) {
                let (at, place) = (random.between(0, FAULTS_US), world.place(stage, replica));
                world.after(at, Event::Seal(place));
            }
        }
    }
}

/// Faults first, then they end: everything is done, once, with the right bits, and nobody blames anybody.
fn weather(seed: u64) -> (u32, u64) {
    let mut world = storm(seed);
    let mut excess = 0;
    let mut all = 0;
    for round in 0..3 {
        if round == 1 {
            // Faults that go on over the change of rounds.
            let mut random = Random::new(seed ^ 0x0da7);
            plan_faults(&mut world, &mut random);
        }
        world.run_for(FAULTS_US);
        world.heal();
        world.run_until("every unit is done in every stage", 300_000_000, World::is_complete);
        excess += world.excess();
        all += u64::from(world.setup.units) * world.stages() as u64;
        world.close_round();
        assert_eq!(world.faults, [], "honest replicas blame each other; seed {seed}");
    }
    assert_eq!(world.counts().lost, 0, "units are lost; seed {seed}");
    (excess, all)
}

#[test]
fn every_unit_is_done_whatever_breaks() {
    let (mut excess, mut all) = (0, 0);
    for seed in 0..400 {
        let (twice, units) = weather(seed);
        excess += u64::from(twice);
        all += units;
    }
    println!("{all} units of stages under faults, {excess} of them added up once too often");
    assert!(excess * 20 < all, "{excess} of {all} added up once too often");
}

#[test]
fn without_faults_every_unit_is_added_up_once() {
    for stages in [1, 2, 4] {
        for replicas in [1, 2, 3] {
            let mut world = World::new(Setup { seed: replicas as u64, ..Setup::even(stages, replicas, 24) });
            for _ in 0..3 {
                world.run_until("every unit is done", 60_000_000, World::is_complete);
                assert_eq!(world.excess(), 0);
                world.close_round();
            }
            let counts = world.counts();
            let again = (counts.timeouts, counts.redone, counts.duplicates, counts.taken_over, counts.lost);
            assert_eq!(again, (0, 0, 0, 0, 0));
            assert_eq!(world.faults, []);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..10 {
        let trace = || {
            let mut world = storm(seed);
            world.run_for(2 * FAULTS_US);
            (world.trace, world.handled)
        };
        assert_eq!(trace(), trace());
    }
}
