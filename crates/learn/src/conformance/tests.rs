use super::*;

#[test]
fn every_configuration_of_this_machine_conforms() {
    let mut seen = 0;
    let report = run(&Selection::default(), |_| seen += 1);
    let texts: Vec<String> = report.runs.iter().map(Run::to_string).collect();
    assert!(report.conforms, "{}", texts.join("\n"));
    assert_eq!(seen, Profile::ALL.len() * 2 * instruction_sets().len());
    assert!(report.hash.is_some());
}

#[test]
fn recorded_hashes_are_the_committed_ones() {
    let committed = include_str!("../../../tensor/src/conformance/golden.txt");
    assert_eq!(record(), [committed, GOLDEN]);
}

#[test]
fn a_selection_runs_only_what_it_names() {
    let profile = Some(Profile::F32Muladd);
    let selection = Selection { profile, instruction_set: Some("scalar".to_owned()), threads: Some(2) };
    let runs = run(&selection, |_| {}).runs;
    let seen = |run: &Run| (run.profile.clone(), run.instruction_set.clone(), run.threads);
    let expected = ("f32-muladd".to_owned(), "scalar".to_owned(), 2);
    assert_eq!(runs.iter().map(seen).collect::<Vec<_>>(), [expected]);
    let nothing = run(&Selection { instruction_set: Some("abacus".to_owned()), ..Selection::default() }, |_| {});
    assert!(!nothing.conforms, "nothing was shown");
}

#[test]
fn a_difference_is_told_with_the_kernel_at_fault() {
    let run = Run {
        profile: "f32-fma".to_owned(),
        instruction_set: "avx2".to_owned(),
        threads: 2,
        seconds: 1.25,
        hash: "0123456789abcdef0123".to_owned(),
        faulty: vec!["matmul_nt".to_owned()],
        different: ["matmul_nt", "head_loss", "training"].map(str::to_owned).to_vec(),
    };
    let text = "f32-fma     avx2     2 threads     1.2 s  0123456789abcdef  DIFFERS in matmul_nt (and 2 that use it)";
    assert_eq!(run.to_string(), text);
}
