//! Which replica gets how much, and how many units are under way.

use super::world::{Event, Setup, World, id};

/// One fast replica of stage 0 in front of replicas of stage 1 with these pass times.
fn fan(pass_us: &[u64], delay_us: (u64, u64), units: u32) -> World {
    let mut setup = Setup::even(2, 1, units);
    setup.pass_us = vec![vec![100], pass_us.to_vec()];
    setup.delay_us = delay_us;
    setup.config.units_max = units;
    setup.config.window_max = 32;
    setup.config.held_bytes_max = 1 << 20;
    World::new(setup)
}

/// Calls that each replica of stage 1 got.
fn shares(world: &World) -> Vec<u64> {
    let replicas = 0..world.setup.pass_us[1].len();
    replicas.map(|replica| world.calls_to.get(&id(1, replica)).copied().unwrap_or_default()).collect()
}

#[test]
fn replicas_get_work_in_proportion_to_their_speeds() {
    for delay_us in [(1_000, 1_000), (5_000, 30_000), (50_000, 60_000)] {
        let mut world = fan(&[40_000, 20_000, 10_000], delay_us, 700);
        world.run_until("all done", 600_000_000, World::is_complete);
        let shares = shares(&world);
        let total: u64 = shares.iter().sum();
        for (share, weight) in shares.iter().zip([1, 2, 4]) {
            let fair = total * weight / 7;
            assert!(share.abs_diff(fair) * 100 <= fair * 15, "{shares:?} with a delay of {delay_us:?}");
        }
    }
}

#[test]
fn all_replicas_are_busy() {
    let mut world = fan(&[40_000, 20_000, 10_000], (1_000, 2_000), 700);
    let start = world.now;
    world.run_until("all done", 600_000_000, World::is_complete);
    // A turn is three passes: 120, 60 and 30 ms, together one every 17.1 ms.
    let ideal_us = 700 * 120_000 / 7;
    let took_us = world.now.since(start);
    assert!(took_us * 100 < ideal_us * 115, "{took_us} instead of {ideal_us}");
}

#[test]
fn a_replica_that_slows_down_gets_less() {
    let mut world = fan(&[10_000, 10_000], (1_000, 2_000), 600);
    let slowed = world.place(1, 0);
    world.after(2_000_000, Event::Slow(slowed, 80_000));
    world.run_for(4_000_000);
    let before = shares(&world);
    world.run_until("all done", 600_000_000, World::is_complete);
    let after: Vec<u64> = shares(&world).iter().zip(&before).map(|(all, before)| all - before).collect();
    assert!(after[0] * 5 < after[1], "{after:?} calls after {before:?}");
}

#[test]
fn the_window_grows_with_the_delay() {
    let mut windows = Vec::new();
    for delay_us in [1_000, 50_000, 150_000] {
        let mut setup = Setup::even(2, 1, 200);
        // The first stage is the slower one: 30 ms a unit.
        setup.pass_us = vec![vec![10_000], vec![5_000]];
        setup.delay_us = (delay_us, delay_us);
        (setup.config.units_max, setup.config.window_max) = (200, 64);
        setup.config.held_bytes_max = 1 << 20;
        let mut world = World::new(setup);
        world.run_until("all done", 600_000_000, World::is_complete);
        world.close_round();
        let (start, before) = (world.now, world.replicas[0].added);
        world.run_until("all done", 600_000_000, World::is_complete);
        let ideal_us = (world.replicas[0].added - before) * 30_000;
        let took_us = world.now.since(start);
        assert!(took_us * 100 < ideal_us * 115, "{took_us} instead of {ideal_us} with a delay of {delay_us}");
        windows.push(world.replicas[0].pipeline.as_ref().unwrap().window());
    }
    // Calls of 17, 115 and 315 ms: 1, 4 and 11 in the time of one unit; twice that in the first round, in which replicas
    // are asked first, and twice that again for what queues.
    assert!(windows[0] < windows[1] && windows[1] < windows[2], "{windows:?}");
    assert!(windows[0] <= 8 && windows[2] >= 11 && windows[2] <= 46, "{windows:?}");
}

#[test]
fn a_slow_stage_is_not_buried_under_calls() {
    let mut world = fan(&[50_000], (1_000, 1_000), 100);
    let place = world.place(0, 0);
    while !world.is_complete() {
        world.step();
        assert!(world.replicas[place].pipeline.as_ref().unwrap().window() <= 6);
    }
}

#[test]
fn a_frozen_replica_costs_time_but_no_unit() {
    let mut world = fan(&[10_000, 10_000], (1_000, 2_000), 200);
    let frozen = world.place(1, 0);
    world.after(1_000_000, Event::Freeze(frozen, 600_000_000));
    world.run_until("all called back", 30_000_000, |world| world.replicas[0].sums.iter().all(|count| *count == 1));
    let counts = world.counts();
    assert!(counts.timeouts >= 1 && counts.lost == 0, "{counts:?}");
}
