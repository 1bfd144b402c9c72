use super::*;

fn sampler(sampling: Sampling) -> Sampler {
    Sampler::new(sampling).unwrap()
}

/// How often each token is drawn.
fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
    let mut sampler = sampler(sampling);
    let mut counts = vec![0; logits.len()];
    for _ in 0..draws {
        counts[sampler.sample(logits, &[]) as usize] += 1;
    }
    counts
}

/// Logits of the probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln() + 3.0).collect()
}

#[test]
fn zero_temperature_takes_the_likeliest_and_of_ties_the_lowest() {
    let mut greedy = sampler(Sampling::greedy());
    assert_eq!(greedy.sample(&[0.0, 3.0, -1.0, 3.0], &[]), 1);
    assert_eq!(greedy.sample(&[f32::NAN, -5.0, f32::NEG_INFINITY], &[]), 1);
    assert_eq!(greedy.sample(&[f32::NAN, f32::NAN], &[]), 0);
    assert_eq!(greedy.sample(&[2.0], &[]), 0);
}

#[test]
fn the_likeliest_is_the_same_with_and_without_a_list_of_candidates() {
    // The penalty of a token that is nowhere changes nothing but the way.
    let listed = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
    let mut stream = tensor::random::Stream::new([5; 32], "logits");
    for size in [1, 63, 64, 65, 300] {
        for _ in 0..50 {
            let draw = |stream: &mut tensor::random::Stream| match stream.below(8) {
                0 => f32::NAN,
                1 => f32::NEG_INFINITY,
                2 => -0.0,
                3 => 0.0,
                _ => stream.below(4) as f32 - 3.0,
            };
            let logits: Vec<f32> = (0..size).map(|_| draw(&mut stream)).collect();
            let quick = sampler(Sampling::greedy()).sample(&logits, &[]);
            assert_eq!(quick, sampler(listed).sample(&logits, &[]), "{logits:?}");
        }
    }
}

#[test]
fn draws_follow_the_probabilities_and_the_seed_decides_them() {
    let logits = logits(&[0.5, 0.3, 0.15, 0.05]);
    let got = counts(Sampling::default(), &logits, 20_000);
    for (count, expected) in got.iter().zip([10_000, 6_000, 3_000, 1_000]) {
        assert!(count.abs_diff(expected) < 300, "{got:?}");
    }
    let draw = |seed| {
        let mut sampler = sampler(Sampling { seed, ..Sampling::default() });
        (0..50).map(|_| sampler.sample(&logits, &[])).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn temperature_sharpens_and_flattens() {
    let logits = logits(&[0.6, 0.3, 0.1]);
    let at = |temperature| counts(Sampling { temperature, ..Sampling::default() }, &logits, 5_000)[0];
    let (cold, usual, hot) = (at(0.3), at(1.0), at(10.0));
    assert!(cold > 4_400 && usual.abs_diff(3_000) < 200 && hot < 2_000, "{cold} {usual} {hot}");
    assert_eq!(at(1e-6), 5_000);
}

#[test]
fn top_k_keeps_the_lowest_ids_of_a_tie() {
    let got = counts(Sampling { top_k: 2, ..Sampling::default() }, &[1.0, 2.0, 1.0, 1.0], 500);
    assert!(got[0] > 0 && got[1] > 0, "{got:?}");
    assert_eq!(got[2..], [0, 0]);
    let one = counts(Sampling { top_k: 1, ..Sampling::default() }, &[1.0, 2.0, 1.5], 100);
    assert_eq!(one, [0, 100, 0]);
    let many = counts(Sampling { top_k: 99, ..Sampling::default() }, &[1.0, 1.0], 100);
    assert!(many[0] > 0 && many[1] > 0);
}

#[test]
fn top_p_keeps_the_token_that_reaches_the_sum() {
    let logits = logits(&[0.2, 0.5, 0.2, 0.1]);
    let kept = |top_p| {
        let got = counts(Sampling { top_p, ..Sampling::default() }, &logits, 2_000);
        got.iter().map(|&count| count > 0).collect::<Vec<_>>()
    };
    assert_eq!(kept(0.4), [false, true, false, false]);
    assert_eq!(kept(0.6), [true, true, false, false]);
    assert_eq!(kept(0.85), [true, true, true, false]);
    assert_eq!(kept(1.0), [true; 4]);
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    let logits = logits(&[0.1, 0.6, 0.29, 0.01]);
    let got = counts(Sampling { min_p: 0.3, ..Sampling::default() }, &logits, 2_000);
    assert_eq!(got.iter().map(|&count| count > 0).collect::<Vec<_>>(), [false, true, true, false]);
    let all = counts(Sampling { min_p: 1.0, ..Sampling::default() }, &logits, 100);
    assert_eq!(all[1], 100);
}

#[test]
fn the_repetition_penalty_counts_a_token_once() {
    let mut penalised = sampler(Sampling { repetition_penalty: 2.0, ..Sampling::greedy() });
    assert_eq!(penalised.sample(&[3.0, 2.0], &[0, 0, 0]), 1);
    assert_eq!(penalised.sample(&[5.0, 2.0], &[0, 0, 0]), 0, "penalised more than once");
    assert_eq!(penalised.sample(&[-1.0, -1.5], &[0, 7]), 1, "a negative logit must fall");
}

#[test]
fn infinite_and_undefined_logits_are_never_a_panic() {
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
    let settings = [
        Sampling::default(),
        Sampling { top_k: 2, top_p: 0.5, min_p: 0.2, repetition_penalty: 1.3, ..Sampling::default() },
    ];
    for sampling in settings {
        assert_eq!(sampler(sampling).sample(&odd, &[3]), 1);
        assert!(sampler(sampling).sample(&[f32::NAN; 3], &[]) < 3);
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let base = Sampling::default();
    let cases = [
        ("temperature", Sampling { temperature: -1.0, ..base }),
        ("temperature", Sampling { temperature: f32::NAN, ..base }),
        ("top_p", Sampling { top_p: 0.0, ..base }),
        ("min_p", Sampling { min_p: 1.5, ..base }),
        ("repetition_penalty", Sampling { repetition_penalty: 0.0, ..base }),
    ];
    for (field, sampling) in cases {
        assert_eq!(Sampler::new(sampling).unwrap_err().field, field);
    }
}
