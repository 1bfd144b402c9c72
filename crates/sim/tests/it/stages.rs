//! Networks of runs in stages: the real peers with all their parts, churn, bad links and neighbours that lie.

use sim::{AccessLink, Act, Adversary, Report, Scheduled, SimConfig, Simulation};

use crate::run;

const SECOND: u64 = 1_000_000;

/// The same run with acts at their times.
fn with(config: SimConfig, acts: impl IntoIterator<Item = (u64, Act)>) -> SimConfig {
    let schedule = acts.into_iter().map(|(at_us, act)| Scheduled { at_us, act }).collect();
    SimConfig { schedule, ..config }
}

/// The middle of a round of a run without faults, in microseconds: until then a run with acts is the same.
fn middle_of(config: &SimConfig, round: usize) -> u64 {
    let rounds = run(config.clone()).rounds;
    let opened = round.checked_sub(1).map_or(0, |before| rounds[before].closed.as_micros());
    opened.midpoint(rounds[round].closed.as_micros())
}

/// The part of a round's units, over all stages, that were claimed.
fn claimed(report: &Report, config: &SimConfig, round: usize) -> f64 {
    let round = &report.rounds[round];
    let all = u64::from(round.units) * config.stages as u64;
    (all - round.lost) as f64 / all as f64
}

/// Tokens that passed all stages, per second of virtual time, until the last round closed.
fn tokens_per_second(report: &Report, config: &SimConfig) -> f64 {
    let tokens_per_unit = 1024.0;
    let units: f64 = (0..report.rounds.len())
        .map(|round| f64::from(report.rounds[round].units) * claimed(report, config, round))
        .sum();
    let end = report.rounds.last().unwrap().closed.as_micros();
    units * tokens_per_unit * 1e6 / end as f64
}

#[test]
fn without_faults_every_unit_is_claimed_once_in_every_stage() {
    for (stages, replicas) in [(2, 1), (2, 4), (4, 3), (8, 2)] {
        let config = SimConfig::calm_stages(5, stages, replicas, 6);
        let units = u64::from(config.units_per_round) * config.rounds;
        let report = run(config);
        assert_eq!(report.receipts, units * stages as u64, "{stages} stages of {replicas}");
        assert_eq!((report.units_lost(), report.units_twice()), (0, 0));
        assert_eq!(report.pipeline.timeouts + report.pipeline.redone, 0, "{:?}", report.pipeline);
    }
}

/// A run without faults whose stages begin with so many peers each.
fn staffed<const STAGES: usize>(seed: u64, staff: [usize; STAGES], rounds: u64) -> SimConfig {
    let peers = staff.iter().sum();
    SimConfig { peers, staff: staff.into(), ..SimConfig::calm_stages(seed, STAGES, 2, rounds) }
}

#[test]
fn peers_move_to_stages_that_are_waited_for_and_no_unit_is_lost() {
    let (mut faster, mut slower) = (0, 0);
    for (seed, staff) in (1..=6).flat_map(|seed| [[4, 1], [5, 2], [1, 5]].map(|staff| (seed, staff))) {
        let moving = staffed(seed, staff, 12);
        let still = SimConfig { moves: false, ..moving.clone() };
        let (moving, still) = (run(moving), run(still));
        assert!(moving.counts.moves >= 1, "{seed} {staff:?}");
        assert_eq!((moving.units_lost(), moving.units_twice(), still.counts.moves), (0, 0, 0), "{seed} {staff:?}");
        let time = |report: &Report, from: usize| {
            report.rounds.last().unwrap().closed.as_micros() - report.rounds[from].closed.as_micros()
        };
        faster += time(&moving, 5);
        slower += time(&still, 5);
    }
    // A lone peer may be as fast as those together who wait for it, so that a single run may gain little.
    assert!(faster * 100 < slower * 75, "{faster} us against {slower} us");
}

#[test]
fn moves_come_to_rest() {
    for seed in 0..4 {
        let report = run(staffed(seed, [3, 3, 3], 24));
        assert!(report.counts.moves <= 2, "{} moves", report.counts.moves);
        assert_eq!((report.units_lost(), report.units_twice()), (0, 0));
    }
}

#[test]
fn a_stage_that_lost_a_peer_for_good_gets_another() {
    let config = staffed(5, [3, 3], 14);
    let at = middle_of(&config, 1);
    let gone =
        [(at, Act::Kill { host: 4, down_us: 3_600 * SECOND }), (at, Act::Kill { host: 5, down_us: 3_600 * SECOND })];
    let report = run(with(config, gone));
    assert_eq!(report.counts.moves, 1, "from the stage with three to the one with one");
}

#[test]
fn a_run_in_stages_with_faults_is_repeatable() {
    let [one, two, other] = [21, 21, 22].map(|seed| run(SimConfig::stages_from_seed(seed)));
    assert_eq!(one, two);
    assert_ne!(one.trace, other.trace);
}

#[test]
fn a_slow_link_queues_and_a_mended_one_does_not() {
    let config = SimConfig::calm_stages(6, 3, 1, 8);
    let calm = run(config.clone());
    let at_us = middle_of(&config, 2);
    let fast =
        AccessLink { up_bytes_per_s: 20_000_000, down_bytes_per_s: 60_000_000, delay_us: 0, jitter_us: 5_000, loss: 0 };
    // One unit passes up and down host 1 as 100 kB each: at 50 kB/s the link is far slower than the trainers.
    let slow = AccessLink { up_bytes_per_s: 50_000, ..fast };
    let down = AccessLink { down_bytes_per_s: 50_000, ..fast };
    for link in [slow, down] {
        let acts = [(at_us, Act::Link { host: 1, link }), (at_us + 60 * SECOND, Act::Link { host: 1, link: fast })];
        let report = run(with(config.clone(), acts));
        let took_us =
            |report: &Report, round: usize| report.rounds[round].closed.since(report.rounds[round - 1].closed);
        assert!(took_us(&report, 3) > 3 * took_us(&calm, 3), "{:?} after {:?}", report.rounds, calm.rounds);
        assert!(took_us(&report, 7) < 2 * took_us(&calm, 7), "{:?} after {:?}", report.rounds, calm.rounds);
        assert_eq!(report.units_lost(), 0);
    }
}

#[test]
fn lost_packets_delay_and_lose_nothing() {
    let config = SimConfig::calm_stages(7, 3, 2, 4);
    let calm = run(config.clone());
    let link = AccessLink {
        up_bytes_per_s: 1_000_000,
        down_bytes_per_s: 4_000_000,
        delay_us: 20_000,
        jitter_us: 10_000,
        loss: 30_000,
    };
    let lossless = AccessLink { loss: 0, ..link };
    let all = |link| SimConfig { links: (0..6).map(|host| (host, link)).collect(), ..config.clone() };
    let [lossy, clean] = [link, lossless].map(|link| run(all(link)));
    assert!(lossy.end > clean.end && clean.end > calm.end, "{} {} {}", lossy.end, clean.end, calm.end);
    assert_eq!((lossy.units_lost(), lossy.units_twice()), (0, 0));
}

#[test]
fn a_killed_replica_costs_no_unit() {
    let config = SimConfig::calm_stages(8, 3, 3, 4);
    let at_us = middle_of(&config, 1);
    for host in 1..9 {
        let report = run(with(config.clone(), [(at_us, Act::Kill { host, down_us: 5 * SECOND })]));
        assert_eq!(report.counts.crashes, 1);
        assert_eq!(report.units_lost(), 0, "host {host}: {:?}", report.rounds);
    }
}

#[test]
fn the_last_replica_of_a_stage_comes_back() {
    let config = SimConfig::calm_stages(9, 3, 2, 4);
    let at_us = middle_of(&config, 1);
    for stage in 0..3 {
        let report = run(with(config.clone(), [(at_us, Act::KillStage { stage, down_us: 10 * SECOND })]));
        assert_eq!(report.counts.crashes, 2);
        assert_eq!(report.units_lost(), 0, "stage {stage}: {:?}", report.rounds);
    }
}

#[test]
fn suspended_peers_partitions_and_leavers_cost_little() {
    let config = SimConfig::calm_stages(10, 3, 3, 5);
    let at_us = middle_of(&config, 1);
    let cases = [
        vec![(at_us, Act::Suspend { host: 4, us: 5 * SECOND })],
        vec![(at_us, Act::Suspend { host: 4, us: 180 * SECOND })],
        vec![(at_us, Act::Split { island: vec![3, 4, 5], us: 20 * SECOND })],
        vec![(at_us, Act::Leave { host: 5 }), (at_us + 30 * SECOND, Act::Kill { host: 5, down_us: SECOND })],
    ];
    for acts in cases {
        let what = format!("{acts:?}");
        let report = run(with(config.clone(), acts));
        println!("{what}: {} lost, {} twice, end {}", report.units_lost(), report.units_twice(), report.end);
        assert_eq!(report.units_lost(), 0, "{what}: {:?}", report.rounds);
    }
}

/// Restarts all peers in the middle of a round after `down_us`; most of the round's units must be claimed all the same.
fn restart_all_in_an_open_round(down_us: u64) {
    let config = SimConfig::calm_stages(11, 3, 3, 4);
    let at_us = middle_of(&config, 1);
    let report = run(with(config.clone(), [(at_us, Act::KillAll { down_us })]));
    let part = claimed(&report, &config, 1);
    println!("all away for {} s: {:.0} % of the round's units claimed", down_us / SECOND, 100.0 * part);
    assert!(part >= 0.9, "away for {} s: {part}, {:?}", down_us / SECOND, report.rounds);
}

#[test]
fn all_peers_restart_in_an_open_round() {
    restart_all_in_an_open_round(SECOND);
    restart_all_in_an_open_round(20 * SECOND);
}

#[test]
fn all_peers_restart_in_an_open_round_after_being_away_for_longer_than_it() {
    restart_all_in_an_open_round(600 * SECOND);
}

/// Kills a replica every thirty seconds for ten. Gives the report, the part of the units that was claimed, and the part of the calm run's
/// tokens per second.
fn kill_every_thirty_seconds(round_us_max: u64) -> (Report, f64, f64) {
    let mut config = SimConfig::calm_stages(12, 4, 4, 20);
    config.units_per_round = 96;
    config.unit_us = 500_000;
    config.round_us_max = round_us_max;
    let calm = run(config.clone());
    let kill = |number: u64| {
        // Every host but the validator in turn, in steps that visit all stages.
        let host = 1 + usize::try_from(number * 7 % 15).unwrap();
        (number * 30 * SECOND, Act::Kill { host, down_us: 10 * SECOND })
    };
    let report = run(with(config.clone(), (1..40).map(kill)));
    let ratio = tokens_per_second(&report, &config) / tokens_per_second(&calm, &config);
    let all: u64 = report.rounds.iter().map(|round| u64::from(round.units) * 4).sum();
    println!(
        "rounds of at most {} s, {} kills in {}: {ratio:.2} of {:.0} tokens per second, {} of {all} units lost, {} twice, {:?}",
        round_us_max / SECOND,
        report.counts.crashes,
        report.end,
        tokens_per_second(&calm, &config),
        report.units_lost(),
        report.units_twice(),
        report.pipeline,
    );
    assert!(report.counts.crashes >= 6, "{:?}", report.counts);
    let part = (all - report.units_lost()) as f64 / all as f64;
    (report, part, ratio)
}

#[test]
fn a_replica_killed_every_thirty_seconds_costs_time_and_no_unit() {
    let (report, _, ratio) = kill_every_thirty_seconds(240 * SECOND);
    assert_eq!(report.units_lost(), 0, "{:?}", report.rounds);
    assert!(ratio > 0.75, "{ratio}");
}

#[test]
fn a_replica_killed_every_thirty_seconds_costs_few_units_when_rounds_have_little_time() {
    // A calm round takes 40 s, and members commit what they have after 42 s: what is lost shortly before that cannot be done again.
    let (_, part, ratio) = kill_every_thirty_seconds(60 * SECOND);
    assert!(part > 0.98, "{part}");
    assert!(ratio > 0.75, "{ratio}");
}

#[test]
fn neighbours_that_lie_are_found_and_stop_nobody() {
    for adversary in Adversary::NEIGHBOURS {
        for stage in 0..3 {
            let config = SimConfig { adversary_stage: stage, ..SimConfig::calm_stages(13, 3, 2, 4) }.with(adversary);
            let all = u64::from(config.units_per_round) * config.rounds * 3;
            let report = run(config);
            let name = adversary.name();
            let found: Vec<&str> = report.adversary_faults[0].keys().copied().collect();
            println!(
                "{name} in stage {stage}: {found:?}, {} of {all} lost, {} twice",
                report.units_lost(),
                report.units_twice()
            );
            // A member of stage 0 that keeps its connections and does not do its units costs these, in all stages: nobody takes them over.
            let share = if stage == 0 { all / 3 + all / 20 } else { all / 20 };
            assert!(report.units_lost() <= share, "{name} in stage {stage}: {:?}", report.rounds);
        }
    }
}

#[test]
fn a_payload_that_could_not_be_made_is_made_later() {
    // One job in five fails: also the one that makes a commitment, on which all other peers wait.
    let mut config = SimConfig::calm_stages(14, 3, 1, 6);
    config.faults.job_failures = 200_000;
    let report = run(config);
    assert_eq!(report.units_lost(), 0, "{:?}", report.rounds);
}

#[test]
fn random_schedules_break_no_rule() {
    let (mut failures, mut lost, mut units, mut twice, mut crashes) = (Vec::new(), 0, 0, 0, 0);
    for seed in 0..400 {
        let config = SimConfig::stages_from_seed(seed);
        match Simulation::new(config.clone()).run() {
            Ok(report) => {
                lost += report.units_lost();
                twice += report.units_twice();
                crashes += report.counts.crashes;
                units += report.rounds.iter().map(|round| u64::from(round.units) * config.stages as u64).sum::<u64>();
                assert!(!config.is_calm() || report.units_lost() == 0, "seed {seed}");
            }
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    println!("{units} units, {lost} lost, {twice} twice, {crashes} crashes");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(crashes > 100 && units > 10_000, "{crashes} crashes, {units} units");
}
