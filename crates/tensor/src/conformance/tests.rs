use super::*;
use crate::fault::with_fault;
use crate::{Isa, Profile};

/// The kernels whose hash is not the golden one.
fn wrong(ctx: &Context) -> Vec<&'static str> {
    let golden = golden(ctx.profile());
    kernels().iter().filter(|kernel| golden.get(kernel.name()) != Some(&kernel.hash(ctx))).map(Kernel::name).collect()
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_golden_hashes() {
    for (isa, profile) in Isa::available().into_iter().flat_map(|isa| Profile::ALL.map(|profile| (isa, profile))) {
        for threads in [1, 2] {
            let wrong = wrong(&Context::new(threads).with_isa(isa).with_profile(profile));
            assert!(wrong.is_empty(), "{profile} on {} with {threads} threads: {wrong:?}", isa.name());
        }
    }
}

#[test]
fn a_fault_of_one_unit_in_a_kernel_is_found_and_blamed_on_that_kernel() {
    for isa in [Isa::detect(), Isa::Scalar] {
        let ctx = Context::single().with_isa(isa);
        for kernel in kernels() {
            let wrong = with_fault(kernel.name(), || wrong(&ctx));
            assert_eq!(culprits(&wrong), [kernel.name()], "{}: wrong are {wrong:?}", isa.name());
        }
    }
}

#[test]
fn golden_hashes_name_every_kernel_once_and_nothing_else() {
    let names: Vec<&str> = kernels().iter().map(Kernel::name).collect();
    for (number, line) in GOLDEN.lines().enumerate() {
        let parts: Vec<&str> = line.split(' ').collect();
        let profile = Profile::ALL[number / names.len()];
        assert_eq!(parts[..2], [profile.name(), names[number % names.len()]], "line {}", number + 1);
    }
    for profile in Profile::ALL {
        assert_eq!(golden(profile).len(), names.len());
    }
}

/// Profiles are different numbers wherever a kernel has a fold step, and the same where it has none.
#[test]
fn profiles_differ_in_the_kernels_with_fold_steps_only() {
    let [fused, separate] = Profile::ALL.map(golden);
    let same: Vec<&str> = kernels().iter().map(Kernel::name).filter(|name| fused[name] == separate[name]).collect();
    assert_eq!(same, SAME_IN_BOTH);
}

#[test]
fn kernels_are_built_on_kernels() {
    let names: Vec<&str> = kernels().iter().map(Kernel::name).collect();
    for kernel in kernels() {
        for below in kernel.built_on() {
            assert!(names.contains(below), "{} is built on {below}", kernel.name());
        }
    }
}

#[test]
fn a_training_run_is_blamed_only_when_every_kernel_is_right() {
    assert_eq!(culprits(&["training"]), ["training"]);
    assert_eq!(culprits(&["training", "head_loss", "matmul_strided", "matmul_nt"]), ["matmul_strided"]);
}

/// Kernels without a fold step in f32.
const SAME_IN_BOTH: [&str; 21] = [
    "exp_f64",
    "ln",
    "sin",
    "cos",
    "tanh",
    "powf",
    "sqrt",
    "rsqrt",
    "random_bits",
    "random_normal",
    "row_sum",
    "row_max",
    "is_finite",
    "quantise_rows",
    "rope_table",
    "embedding_gather",
    "embedding_scatter_add",
    "bias_forward",
    "bias_backward",
    "add_assign",
    "scale",
];
