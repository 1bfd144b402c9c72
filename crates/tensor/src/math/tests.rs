use super::*;

/// The distance of `got` from the exact value in units in the last place of f32.
fn ulp(got: f32, exact: f64) -> f64 {
    if exact.abs() > f64::from(f32::MAX) {
        return if got.is_infinite() { 0.0 } else { (f64::from(got) - exact).abs() / 2f64.powi(104) };
    }
    // The exponent of an f32 with this value, at least that of the smallest normal number.
    let exponent = (((exact.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(-126) - 23;
    let unit = f64::from_bits(((exponent + 1023) as u64) << 52);
    (f64::from(got) - exact).abs() / unit
}

fn worst(function: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, inputs: impl Iterator<Item = f32>) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for x in inputs {
        let error = ulp(function(x), exact(f64::from(x)));
        if error.is_nan() || error > worst.0 {
            worst = (error, x);
        }
    }
    worst
}

/// Every `step`-th bit pattern from `low` to `high` (both of one sign).
fn patterns(low: f32, high: f32, step: usize) -> impl Iterator<Item = f32> {
    let (a, b) = (low.to_bits(), high.to_bits());
    (a.min(b)..=a.max(b)).step_by(step).map(f32::from_bits)
}

fn both_signs(high: f32, step: usize) -> impl Iterator<Item = f32> {
    patterns(0.0, high, step).chain(patterns(-0.0, -high, step))
}

#[test]
fn exp_is_within_its_bound() {
    // Dense over all arguments whose result is not plainly 1, 0 or infinity.
    let halves = [(1e-8, 104.0), (-1e-8, -104.0)];
    let cases = Profile::ALL.into_iter().flat_map(|profile| halves.map(|half| (profile, half)));
    let errors: Vec<_> = std::thread::scope(|scope| {
        let search = |(profile, (low, high))| worst(|x| exp(profile, x), f64::exp, patterns(low, high, 31));
        let running: Vec<_> = cases.map(|case| scope.spawn(move || (case, search(case)))).collect();
        running.into_iter().map(|half| half.join().expect("no panic")).collect()
    });
    for (case, (error, at)) in errors {
        assert!(error <= EXP_MAX_ULP, "{case:?}: {error} ulp at {at}");
    }
    for profile in Profile::ALL {
        let exp = |x| exp(profile, x);
        assert_eq!([exp(1e-8), exp(-1e-8), exp(104.0), exp(-104.0)], [1.0, 1.0, f32::INFINITY, 0.0]);
        assert_eq!(exp(0.0).to_bits(), 1f32.to_bits());
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-103.0) > 0.0, "subnormal results are kept");
    }
}

#[test]
fn sigmoid_is_within_its_bound() {
    let exact = |x: f64| 1.0 / (1.0 + (-x).exp());
    for profile in Profile::ALL {
        let sigmoid = |x| sigmoid(profile, x);
        let (error, at) = worst(sigmoid, exact, both_signs(87.0, 101));
        assert!(error <= SIGMOID_MAX_ULP, "{profile}: {error} ulp at {at}");
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert!(sigmoid(f32::NAN).is_nan());
    }
}

#[test]
fn rounded_functions_are_within_their_bound() {
    let cases: [(&str, (f64, f32)); 5] = [
        ("ln", worst(ln, f64::ln, patterns(f32::from_bits(1), f32::MAX, 499))),
        ("sin", worst(sin, f64::sin, both_signs(1e6, 997))),
        ("cos", worst(cos, f64::cos, both_signs(1e6, 991))),
        ("tanh", worst(tanh, f64::tanh, both_signs(100.0, 977))),
        (
            "powf",
            worst(|x| powf(x, -0.37), |x| x.powf(f64::from(-0.37f32)), patterns(f32::from_bits(1), f32::MAX, 983)),
        ),
    ];
    for (name, (error, at)) in cases {
        assert!(error <= ROUNDED_MAX_ULP, "{name}: {error} ulp at {at}");
    }
}

#[test]
fn rsqrt_is_within_its_bound_for_every_mantissa() {
    // Multiplying by 4 halves the exact result and every step of ours, so two binades stand for all.
    let (error, at) = worst(rsqrt, |x| 1.0 / x.sqrt(), patterns(1.0, 4.0, 1));
    assert!(error <= RSQRT_MAX_ULP, "{error} ulp at {at}");
    let (error, at) = worst(rsqrt, |x| 1.0 / x.sqrt(), patterns(f32::from_bits(1), f32::MAX, 1009));
    assert!(error <= RSQRT_MAX_ULP, "{error} ulp at {at}");
}

#[test]
fn special_values() {
    assert_eq!(ln(0.0), f32::NEG_INFINITY);
    assert!(ln(-1.0).is_nan());
    assert_eq!(ln(f32::INFINITY), f32::INFINITY);
    assert_eq!(tanh(f32::INFINITY), 1.0);
    assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
    assert!(sin(f32::INFINITY).is_nan());
    assert_eq!(powf(0.0, 2.0), 0.0);
    assert_eq!(powf(0.0, -2.0), f32::INFINITY);
    assert_eq!(powf(7.5, 0.0), 1.0);
    assert!(powf(-1.0, 0.5).is_nan());
    assert_eq!(rsqrt(4.0), 0.5);
    assert_eq!(sqrt(2.0).to_bits(), 0x3fb5_04f3);
}

#[test]
fn golden_bits() {
    let golden: [(f32, u32); 6] = [
        (exp(Profile::F32Fma, 1.0), 0x402d_f854),
        (exp(Profile::F32Fma, -100.0), 0x0000_001b),
        (ln(10.0), 0x4013_5d8e),
        (sin(1.0), 0x3f57_6aa4),
        (cos(1.0), 0x3f0a_5140),
        (tanh(0.5), 0x3eec_9a9f),
    ];
    for (value, bits) in golden {
        assert_eq!(value.to_bits(), bits, "{value} has bits {:#010x}", value.to_bits());
    }
}
