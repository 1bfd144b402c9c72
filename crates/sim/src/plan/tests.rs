use super::cost::Shape;
use super::*;

/// Everything reaches the peak, and nothing else takes time.
pub(super) const IDEAL: Calibration = Calibration {
    efficiency: 1.0,
    pass_s: 0.0,
    parameter_s: 0.0,
    link: 1.0,
    error_max: 0.0,
    error_mean: 0.0,
    runs: (0, 0),
};

pub(super) fn input(peers: &str) -> PlanInput {
    PlanInput {
        model: model_shape("layers=8,width=512,vocab=4096").unwrap(),
        groups: PeerGroup::parse_all(peers).unwrap(),
        batch: BatchShape { sequences: 2, tokens: 256 },
        round_tokens: 512 * 32,
        keep: 64,
        tokens: 1_000_000_000,
        stages: None,
        codec: None,
        slots: 4,
        all_peers: true,
        orderer_bits_per_s: f64::INFINITY,
        calibration: IDEAL,
    }
}

fn shape(input: &PlanInput, stages: usize, codec: &str) -> Shape {
    let codec = codec.parse().unwrap();
    Shape { model: input.model, batch: input.batch, keep: input.keep, slots: input.slots, codec, stages }
}

#[test]
fn one_peer_takes_its_flops_over_its_speed() {
    let input = PlanInput { stages: Some(1), ..input("1×(4GB,1TFLOPS)") };
    let plan = Plan::of(&input).unwrap();
    let cost = &shape(&input, 1, "full,f32").costs().unwrap()[0];
    let unit = (cost.forward_flops + cost.backward_flops) / 1e12;
    assert!((plan.round.fill_s / unit - 1.0).abs() < 1e-9, "{:?}", plan.round);
    assert!((plan.round.steady_s / (31.0 * unit) - 1.0).abs() < 1e-9, "{:?}", plan.round);
    assert!((plan.round.exchange_s / (cost.step_flops / 1e12) - 1.0).abs() < 1e-9, "nobody to exchange with");
    let rate = 512.0 * 32.0 / plan.round.total_s();
    assert!((plan.tokens_per_s / rate - 1.0).abs() < 1e-9);
    assert!((plan.seconds / (1e9 / rate) - 1.0).abs() < 1e-9);
    assert_eq!((plan.limit.resource, plan.bytes_per_token, plan.codec.as_str()), (Resource::Compute, 0.0, "full,f32"));
    assert!((plan.limit.gains[0].1 - 1.0).abs() < 1e-9, "twice the speed, twice the tokens: {:?}", plan.limit);
}

#[test]
fn replicas_share_the_units_and_exchange_payloads() {
    let one = Plan::of(&PlanInput { stages: Some(1), ..input("1×(4GB,1TFLOPS,8/8Mbps)") }).unwrap();
    let four = Plan::of(&PlanInput { stages: Some(1), ..input("4×(4GB,1TFLOPS,8/8Mbps)") }).unwrap();
    let unit = one.round.fill_s;
    assert!((four.round.steady_s / (7.0 * unit) - 1.0).abs() < 1e-9, "eight units each: {:?}", four.round);
    // Three others' payloads come, and the own one goes to three: at a megabyte per second.
    let seconds = 3.0 * four.stages[0].payload_bytes / 1e6;
    let exchange = four.round.exchange_s - one.round.exchange_s;
    assert!((exchange / seconds - 1.0).abs() < 1e-9, "{exchange} and {seconds}");
    assert_eq!(four.stages[0].exchange_bytes.0, 3.0 * four.stages[0].payload_bytes);
}

#[test]
fn a_slow_uplink_is_what_bounds_its_stage() {
    let codec = Some("full,f32".parse().unwrap());
    let input = PlanInput { stages: Some(2), codec, ..input("2×(4GB,1TFLOPS,1Gbps/10Mbps,40ms)") };
    let plan = Plan::of(&input).unwrap();
    let message = f64::from(9 + 512 * 512 * 4) * 8.0 / 10e6;
    assert!((plan.round.steady_s / (31.0 * message) - 1.0).abs() < 1e-9, "one message each way: {:?}", plan.round);
    assert_eq!((plan.stages[0].bound, plan.stages[1].bound), (Bound::Uplink, Bound::Uplink));
    assert_eq!(plan.limit.resource, Resource::Uplink);
    let costs = shape(&input, 2, "full,f32").costs().unwrap();
    let flops: f64 = costs.iter().map(|cost| cost.forward_flops + cost.backward_flops).sum();
    let fill = flops / 1e12 + 2.0 * message + 0.04;
    assert!((plan.round.fill_s / fill - 1.0).abs() < 1e-9, "{} and {fill}", plan.round.fill_s);
}

#[test]
fn a_small_window_waits_for_the_way_below() {
    let codec = Some("full,int4".parse().unwrap());
    let slow = PlanInput { stages: Some(2), codec, ..input("2×(4GB,1000TFLOPS,1Gbps,60s)") };
    let plan = Plan::of(&slow).unwrap();
    assert_eq!((plan.stages[0].window, plan.stages[0].bound), (64, Bound::Window));
    let expected = 31.0 * 60.0 / 64.0;
    assert!((plan.round.steady_s / expected - 1.0).abs() < 0.01, "{:?}", plan.round);
    assert_eq!(plan.limit.resource, Resource::Latency);
}

#[test]
fn peers_that_share_processors_are_as_fast_as_these() {
    let alone = Plan::of(&PlanInput { stages: Some(4), ..input("8×(4GB,1TFLOPS)") }).unwrap();
    let shared = Plan::of(&PlanInput { stages: Some(4), ..input("8×(4GB,1TFLOPS,2cores)") }).unwrap();
    let costs = shape(&input("1×(4GB,1TFLOPS)"), 4, "full,f32").costs().unwrap();
    let flops: f64 = costs.iter().map(|cost| cost.forward_flops + cost.backward_flops).sum();
    let units = shared.round.fill_s + shared.round.steady_s;
    assert!((units / (32.0 * flops / 2e12) - 1.0).abs() < 1e-9, "{:?}", shared.round);
    assert!(alone.tokens_per_s > 2.0 * shared.tokens_per_s);
}

#[test]
fn faster_links_are_never_slower() {
    let plan = |link: &str, codec: Option<&str>| {
        let codec = codec.map(|codec| codec.parse().unwrap());
        Plan::of(&PlanInput { codec, ..input(&format!("40×(1GB,200GFLOPS,{link})")) }).unwrap().tokens_per_s
    };
    let links = ["1Mbps,200ms", "4Mbps,200ms", "4Mbps,100ms", "16Mbps,100ms", "64Mbps,20ms", "1Gbps,1ms", "1Tbps,0ms"];
    for codec in ["full,f32", "full,int8", "projector:64,int4"] {
        let rates = links.map(|link| plan(link, Some(codec)));
        assert!(rates.is_sorted(), "{codec}: {rates:?}");
    }
    // A more exact codec may cost a little.
    let rates = links.map(|link| plan(link, None));
    assert!(rates.windows(2).all(|pair| pair[1] > (1.0 - search::EXACTNESS) * pair[0]), "{rates:?}");
}

#[test]
fn more_memory_never_asks_for_more_stages() {
    let stages: Vec<usize> = [400, 430, 480, 560, 700, 1000, 2000, 4000]
        .map(|memory| Plan::of(&input(&format!("16×({memory}MB,200GFLOPS,80/20Mbps,50ms)"))).unwrap().stages.len())
        .to_vec();
    assert!(stages.is_sorted_by(|a, b| a >= b), "{stages:?}");
    assert!(stages[0] > stages[7], "{stages:?}");
}

#[test]
fn every_member_fits_its_peer() {
    let input = input("10×(350MB,200GFLOPS,80/20Mbps,50ms)+6×(600MB,400GFLOPS,80/20Mbps,50ms)");
    let plan = Plan::of(&PlanInput { stages: Some(8), ..input.clone() }).unwrap();
    for stage in &plan.stages {
        for (group, count) in input.groups.iter().zip(&stage.replicas) {
            assert!(*count == 0 || stage.memory.total() <= group.peer.memory_bytes, "{stage:?}");
        }
    }
    assert_eq!(plan.peers_used, 16);
    let rates: Vec<f64> = plan.stages.iter().map(|stage| stage.units_per_s).collect();
    assert!(rates.iter().all(|rate| *rate > 0.0));
}

#[test]
fn what_does_not_fit_is_refused_with_the_least_that_would() {
    let refused = |peers: &str, stages| Plan::of(&PlanInput { stages, ..input(peers) }).unwrap_err();
    let PlanError::TooLittleMemory { needed, largest, stages, .. } = refused("16×(150MB,1TFLOPS)", None) else {
        panic!("too little memory")
    };
    assert_eq!((largest, stages), (150_000_000, 8));
    let megabytes = needed.div_ceil(1_000_000);
    assert!(Plan::of(&input(&format!("16×({megabytes}MB,1TFLOPS)"))).is_ok(), "{megabytes} MB are enough");
    assert!(matches!(refused("3×(4GB,1TFLOPS)", Some(8)), PlanError::TooFewPeers { peers: 3, stages: 8, .. }));
    let said = refused("4×(4GB,1TFLOPS)", Some(9)).to_string();
    assert!(said.contains("from 1 to 8"), "{said}");
    let batch = BatchShape { sequences: 1, tokens: 1 << 20 };
    assert!(matches!(Plan::of(&PlanInput { batch, ..input("4×(4GB,1TFLOPS)") }), Err(PlanError::Config(_))));
    let codec = Some("subspace:16,int8".parse().unwrap());
    assert!(matches!(Plan::of(&PlanInput { codec, ..input("4×(4GB,1TFLOPS)") }), Err(PlanError::Range { .. })));
}

#[test]
fn a_model_of_32_billion_is_planned() {
    let mut input = input("260×(24GB,25TFLOPS,80/20Mbps,60ms)+40×(64GB,25TFLOPS,80/20Mbps,60ms)");
    input.model = model_shape("32b").unwrap();
    input.batch = BatchShape { sequences: 1, tokens: 1024 };
    input.round_tokens = 1 << 20;
    let plan = Plan::of(&input).unwrap();
    assert_eq!(plan.stages.len(), 64, "a layer takes all that 24 GB have");
    assert!(plan.stages[0].replicas[0] == 0 && plan.stages[30].replicas[0] > 0, "the tables need more");
    let error = Plan::of(&PlanInput { groups: input.groups[..1].to_vec(), ..input }).unwrap_err();
    assert!(matches!(error, PlanError::TooLittleMemory { ends: true, .. }), "{error}");
}
