use super::*;

fn draft(text: &str) -> Result<Draft, DescriptionError> {
    RunDescription::from_toml(text)?.draft(PeerId([7; 32]))
}

#[test]
fn an_empty_description_is_a_run() {
    let Draft { workload, texts, charter } = draft("").unwrap();
    assert!(texts.is_none());
    assert_eq!(charter.name, "austen-1M");
    assert_eq!((charter.start_members, charter.quorum, charter.validators), (PEERS, 2, vec![PeerId([7; 32])]));
    assert_eq!((charter.release, charter.parent), (Release::OpenNow, None));
    assert!((0.9..1.2).contains(&(workload.parameters() as f64 / 1e6)));
}

#[test]
fn every_field_ends_up_in_the_charter() {
    let text = "name = 'mine'\nsize = '80k'\nrounds = 20\nseed = 9\npeers = 6\nstages = 2\ncodec = 'full,int8'\n\
                release = 'open-after=10'\nadmission = 'open'\nround_seconds = 30\nround_seconds_max = 90\nquorum = 5\n\
                shares_per_round = 7\n[recipe]\ninner.adamw.lr = 0.5\n[recipe.schedule]\nwarmup_steps = 3\n";
    let Draft { workload, charter, .. } = draft(text).unwrap();
    let recipe = &workload.recipe;
    assert_eq!((charter.name.as_str(), charter.rounds, recipe.seed), ("mine", 20, 9));
    assert_eq!((charter.start_members, charter.quorum, charter.stages.len()), (6, 5, 2));
    assert_eq!(charter.release, Release::OpenAfter { rounds: 10 });
    assert_eq!((charter.round_us_first, charter.round_us_max), (30_000_000, 90_000_000));
    assert_eq!(charter.shares_per_round, 7_000_000);
    assert_eq!((recipe.inner.adamw.lr, recipe.schedule.warmup_steps), (0.5, 3));
    assert_eq!(recipe.pipeline.unwrap().codec().to_string(), "full,int8");
    let described = RunDescription::from_toml(text).unwrap();
    let again = toml::to_string(&described).unwrap();
    assert_eq!(RunDescription::from_toml(&again).unwrap(), described, "it can be written down");
}

#[test]
fn single_fields_are_set_by_their_paths() {
    let mut description = RunDescription { size: Some("tiny".to_owned()), ..RunDescription::default() };
    let changes = [("inner.adamw.lr", "0.25"), ("inner.clip_norm", "high"), ("seed", "5"), ("name", "two words")];
    for (path, value) in changes {
        description.set(path, value).unwrap();
    }
    let error = description.recipe().unwrap_err();
    assert!(error.to_string().contains("string \"high\""), "what is no TOML is a text: {error}");
    description.set("inner.clip_norm", "2").unwrap();
    let recipe = description.recipe().unwrap();
    assert_eq!((recipe.inner.adamw.lr, recipe.inner.clip_norm, recipe.seed), (0.25, 2.0, 5));
    assert_eq!(recipe.name, "two words");
    assert!(description.set("seed.deep", "1").unwrap_err().to_string().contains("`seed`"));
}

#[test]
fn what_cannot_be_founded_says_why() {
    let cases = [
        ("speed = 3", "speed", "defaults"),
        ("size = 'huge'", "`huge` is no size", "laptop"),
        ("rounds = 2", "compression.keep", "more rounds"),
        ("name = ''", "`name` is 0", "cairn run show"),
        ("stages = 2\ncodec = 'x'", "codec", "full,int8..int4"),
        ("release = 'never'", "no policy", "open-after=20"),
        ("release = 'split'", "at least 2 stages", "--stages 2"),
        ("stages = 2\nrelease = 'split'\ncodec = 'projector:16,int4'", "learned bases", "subspace"),
        ("admission = 'listed'", "everybody who has its ticket", "leave it out"),
        ("peers = 1\nstages = 3", "1 peers cannot hold 3 stages", "peers = 6"),
        ("quorum = 0", "quorum", "smaller"),
        ("peers = 0", "start_members", "smaller"),
        ("shares_per_round = 9000000000000000", "shares_per_round", "smaller"),
        ("round_seconds = 30\nround_seconds_max = 9", "round_us_max", "smaller"),
        ("[recipe]\nmodel.width = 0", "width", "cairn run show"),
        ("[recipe]\ninner.speed = 1", "speed", "cairn run show"),
        ("[data]\nlicence = 'MIT'", "bundled novels", "data.path"),
        ("[data]\npath = '/no such text'", "/no such text", "--data"),
    ];
    for (text, part, hint) in cases {
        let error = draft(text).map(|draft| draft.charter).expect_err(text);
        assert!(error.to_string().contains(part), "{text}: {error}");
        assert!(error.hint().contains(hint), "{text}: {}", error.hint());
    }
}

#[test]
fn data_of_ones_own_is_read_beside_the_file_and_has_a_licence() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..4000).map(|i| format!("word{} and {}. ", i % 977, i * i % 7919)).collect();
    std::fs::write(folder.path().join("mine.txt"), text).unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, "size = 'tiny'\n[data]\npath = 'mine.txt'\nlicence = 'CC0-1.0'\n").unwrap();
    let draft = RunDescription::from_file(&path).unwrap().draft(PeerId([7; 32])).unwrap();
    let manifest = draft.workload.corpus.manifest();
    assert_eq!((manifest.name.as_str(), manifest.licence.as_str()), ("mine.txt", "CC0-1.0"));
    assert_eq!(draft.charter.data.0, manifest.hash());
    assert_eq!(draft.texts.unwrap().manifest(), manifest);
    assert_eq!(draft.charter.name, "mine-tiny");
    let error = RunDescription::from_file(&folder.path().join("other.toml")).unwrap_err();
    assert!(error.to_string().contains("other.toml"), "{error}");
}
