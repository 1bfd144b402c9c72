use super::super::tests::{IDEAL, input};
use super::*;
use crate::plan::{Calibration, Plan, PlanInput};

const CALM: FlowOptions = FlowOptions { seed: 1, rounds: 3, life_s: None, away_s: 600.0 };

/// The simulated tokens per second over the planned ones.
fn ratio(input: &PlanInput) -> f64 {
    let plan = Plan::of(input).unwrap();
    let flow = simulate(input, &CALM).unwrap();
    assert_eq!((flow.rounds, flow.departures, flow.redone, flow.rerouted, flow.left_out), (3, 0, 0, 0, 0));
    let ratio = flow.tokens_per_s / plan.tokens_per_s;
    println!("{} stages, {}: {ratio:.3} {:?} {flow:?}", plan.stages.len(), plan.codec, plan.round);
    ratio
}

#[test]
fn without_churn_the_simulation_agrees_with_the_plan() {
    for (peers, stages) in [
        ("1×(4GB,1TFLOPS)", 1),
        ("4×(4GB,1TFLOPS,80/20Mbps,50ms)", 1),
        ("4×(4GB,1TFLOPS)", 4),
        ("16×(4GB,1TFLOPS)", 4),
        ("16×(4GB,200GFLOPS,80/20Mbps,50ms)", 4),
        ("16×(4GB,1TFLOPS,1Gbps/10Mbps,50ms)", 4),
        ("16×(4GB,200GFLOPS,10Mbps/1Gbps,50ms)", 4),
        ("8×(4GB,1TFLOPS,2cores)", 4),
        ("2×(4GB,1TFLOPS,2cores)", 2),
    ] {
        let one = input(peers);
        let input = PlanInput { stages: Some(stages), codec: Some("full,int8".parse().unwrap()), ..one };
        let ratio = ratio(&PlanInput { round_tokens: 512 * 128, ..input });
        assert!((0.9..1.1).contains(&ratio), "{peers} in {stages} stages: {ratio}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let input = PlanInput { stages: Some(4), ..input("24×(4GB,50GFLOPS,80/20Mbps,50ms)") };
    let options = FlowOptions { life_s: Some(60.0), away_s: 20.0, ..CALM };
    let one = simulate(&input, &options).unwrap();
    assert_eq!(simulate(&input, &options).unwrap(), one);
    assert_ne!(simulate(&input, &FlowOptions { seed: 2, ..options }).unwrap(), one);
}

#[test]
fn a_run_goes_on_while_peers_leave() {
    let calibration = Calibration { parameter_s: 1e-8, ..IDEAL };
    let input = PlanInput { stages: Some(4), calibration, ..input("24×(4GB,50GFLOPS,80/20Mbps,50ms)") };
    let calm = simulate(&input, &CALM).unwrap();
    let mut before = calm.tokens_per_s;
    for life_s in [2000.0, 500.0, 120.0] {
        let options = FlowOptions { rounds: 40, life_s: Some(life_s), away_s: 10.0, ..CALM };
        let churned = simulate(&input, &options).unwrap();
        assert_eq!(churned.rounds, 40, "{churned:?}");
        assert!(churned.departures > 0 && churned.tokens_per_s < 1.02 * before, "{churned:?} after {before}");
        before = churned.tokens_per_s;
    }
    assert!(before < 0.9 * calm.tokens_per_s, "a mean life of two minutes costs something");
}

#[test]
fn what_a_peer_had_is_done_by_others() {
    let input = PlanInput { stages: Some(2), ..input("8×(4GB,20GFLOPS,80/20Mbps,50ms)") };
    let options = FlowOptions { rounds: 30, life_s: Some(30.0), away_s: 30.0, ..CALM };
    let flow = simulate(&input, &options).unwrap();
    assert!(flow.redone > 0 && flow.rerouted > 0 && flow.rounds == 30, "{flow:?}");
    assert!((0.0..1.0).contains(&flow.idle));
}

#[test]
fn a_run_whose_only_peer_leaves_waits_for_it() {
    let input = PlanInput { stages: Some(1), ..input("1×(4GB,100GFLOPS)") };
    let options = FlowOptions { rounds: 20, life_s: Some(5.0), away_s: 2.0, ..CALM };
    let flow = simulate(&input, &options).unwrap();
    assert!(flow.rounds == 20 && flow.departures > 0, "{flow:?}");
}
