//! Texts over the network: a machine that has nothing but a ticket gets the text of somebody else's run, and no other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use iroh::endpoint::presets;
use iroh::{Endpoint, RelayMode, SecretKey};
use learn::Recipe;
use learn::data::{Corpus, Texts};
use node::blobs::ProviderError;
use node::cluster::Joined;
use node::join::ask;
use node::texts::{self, Progress, TextError};
use node::{Cluster, ClusterConfig, Workload, runs};
use wire::{Charter, Hash, Identity, PeerId};

use crate::common::{finish, text_path, wait};

/// A run on a text that is in no program, which others may join.
async fn found(home: &Path, rounds: u64, stages: bool) -> Cluster {
    let texts = Texts::read(&text_path()).unwrap().described(Some("an abbey"), Some("public domain")).unwrap();
    let folder = texts::keep(home, &texts).unwrap();
    let mut recipe = Recipe::tiny();
    if stages {
        recipe = recipe.in_stages(2, learn::boundary::Space::Full, learn::boundary::Precision::Int8);
    }
    recipe.rounds = rounds;
    let workload = Arc::new(Workload::new(recipe, texts.into_corpus().unwrap()).unwrap());
    let config = ClusterConfig {
        data: Some(folder),
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        release: stages.then_some(wire::Release::Split),
        ..ClusterConfig::new(home, workload, 2)
    };
    Cluster::start(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_the_text_gets_it_and_takes_part() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let founder = found(first.path(), 60, false).await;
    let invitation = ask(founder.ticket()).await.unwrap();
    let charter = invitation.charter.body.clone();
    let mut told: Vec<Progress> = Vec::new();
    let tell = |progress| told.push(progress);
    let corpus = texts::fetch(second.path(), &charter, invitation.validator, &[], tell).await.unwrap();
    assert_eq!(corpus.manifest_hash(), charter.data.0);
    assert_eq!(corpus.manifest().licence, "public domain");
    let all = corpus.manifest().text_bytes();
    assert!(told.windows(2).all(|pair| pair[0].done <= pair[1].done), "it only grows");
    assert!(told.iter().all(|progress| progress.all == all) && told.last().unwrap().done == all, "{told:?}");

    let workload = Arc::new(Workload::new(invitation.recipe, corpus).unwrap());
    let joins = Joined {
        charter: invitation.charter,
        validator: invitation.validator,
        relays: Vec::new(),
        stage: 0,
        operator: None,
    };
    let config = ClusterConfig { joins: Some(joins), ..ClusterConfig::new(second.path(), workload, 1) };
    let guest = Cluster::start(config).await.unwrap();
    let id = guest.members()[0].id();
    wait(&guest, "receipts", |status| {
        status.accounts.iter().any(|account| account.peer == id && account.receipts >= 2)
    })
    .await;
    let (summary, own) = tokio::join!(finish(&founder), finish(&guest));
    assert_eq!(own.state_root, summary.state_root);
    let shown = guest.state().run.unwrap();
    assert_eq!((shown.licence.as_deref(), shown.parent), (Some("public domain"), None));
    guest.shutdown().await;
    founder.shutdown().await;

    // It is kept: nobody has to be asked again.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    texts::fetch(second.path(), &charter, (PeerId([1; 32]), Some(nowhere)), &[], |_| panic!("nothing is fetched"))
        .await
        .unwrap();
    let line = &runs::list(second.path()).unwrap()[0];
    assert_eq!((line.data.as_deref(), line.licence.as_deref()), (Some("an abbey"), Some("public domain")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_where_it_stopped_and_does_not_believe_what_is_there() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The weights of this run are given to few; its text is not.
    let founder = found(first.path(), 4000, true).await;
    let invitation = ask(founder.ticket()).await.unwrap();
    let (validator, charter) = (invitation.validator, invitation.charter.body.clone());
    let kept = texts::path_of(first.path(), charter.data);
    let manifest = Texts::open(&kept).unwrap().manifest().clone();
    let largest = manifest.files.iter().max_by_key(|file| file.bytes).unwrap();
    let bytes = std::fs::read(kept.join(&largest.blake3)).unwrap();
    let half = bytes.len() / 2;
    for damage in [false, true] {
        let home = second.path().join(damage.to_string());
        let partial = texts::path_of(&home, charter.data).with_extension("partial");
        std::fs::create_dir_all(&partial).unwrap();
        let mut part = bytes[..half].to_vec();
        part[100] ^= u8::from(damage);
        std::fs::write(partial.join(&largest.blake3).with_extension("part"), part).unwrap();
        let mut told: Vec<u64> = Vec::new();
        let corpus = texts::fetch(&home, &charter, validator, &[], |progress| told.push(progress.done)).await.unwrap();
        assert_eq!(corpus.manifest_hash(), charter.data.0);
        let grew = |floor: usize| told.iter().filter(|done| (**done as usize) < floor).count();
        match damage {
            false => assert!(grew(half - (16 << 10)) == 0, "it went on from {half}: {:?}", &told[..4]),
            true => assert!(grew(half - (16 << 10)) > 0, "it began anew after it saw the damage"),
        }
        assert!(!partial.exists(), "nothing is left beside it");
    }
    founder.shutdown().await;
}

/// Answers every request with what it has for the name in it or, for others, with zeros; states `size` for those.
async fn liar(identity: Identity, known: BTreeMap<Hash, Vec<u8>>, size: u64) -> (Endpoint, SocketAddr) {
    let endpoint = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .secret_key(SecretKey::from_bytes(&identity.secret()))
        .alpns(vec![texts::ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr(SocketAddr::from(([127, 0, 0, 1], 0)))
        .unwrap()
        .bind()
        .await
        .unwrap();
    let address = endpoint.bound_sockets()[0];
    let serving = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = serving.accept().await {
            let Ok(connection) = incoming.await else { continue };
            let known = known.clone();
            tokio::spawn(async move {
                while let Ok((mut answers, mut questions)) = connection.accept_bi().await {
                    let Ok(question) = questions.read_to_end(4096).await else { return };
                    let names = |hash: &Hash| question.windows(32).any(|window| window == hash.0);
                    let answer = known.iter().find(|(hash, _)| names(hash)).map(|(_, bytes)| bytes.clone());
                    let lie = || (size, vec![0; 64 << 10]);
                    let (stated, body) = answer.map_or_else(lie, |bytes| (bytes.len() as u64, bytes));
                    // Whoever found out does not read on.
                    let _ = answers.write_all(&[stated.to_le_bytes().as_slice(), &body].concat()).await;
                    let _ = answers.finish();
                }
            });
        }
    });
    (endpoint, address)
}

fn charter_of(texts: Texts, validator: PeerId) -> Charter {
    Workload::new(Recipe::tiny(), texts.into_corpus().unwrap()).unwrap().charter(validator, 1, 1..=2, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_refused_with_who_sent_them() {
    let identity = Identity::from_secret([5; 32]);
    let texts = Texts::read(&text_path()).unwrap();
    let manifest = texts.manifest().to_bytes();
    let charter = charter_of(texts, identity.id());
    assert!(manifest.len() < 16 << 10, "a small blob is sent as it is");
    let genuine = BTreeMap::from([(charter.data, manifest.clone())]);
    let mut forged = manifest.clone();
    forged[10] ^= 1;
    let wrong_manifest = BTreeMap::from([(charter.data, forged)]);
    for (known, size, what, part) in [
        (wrong_manifest, 64 << 10, "the manifest", "does not match the hash"),
        (genuine.clone(), 64 << 10, "the tokenizer", "does not match the hash"),
        (genuine, 1 << 40, "the tokenizer", "1099511627776 bytes where at most"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let (endpoint, address) = liar(identity.clone(), known, size).await;
        let fetched = texts::fetch(home.path(), &charter, (identity.id(), Some(address)), &[], |_| {}).await;
        let error = fetched.map(|corpus| corpus.manifest_hash()).unwrap_err();
        let said = error.to_string();
        assert!(said.contains(&address.to_string()) && said.contains(what) && said.contains(part), "{said}");
        assert!(error.hint().contains("do not trust who answers"), "{}", error.hint());
        assert!(error.is_remote());
        assert!(!texts::path_of(home.path(), charter.data).exists(), "nothing is kept as if it were whole");
        endpoint.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_another_text_or_none_is_told_apart() {
    let home = tempfile::tempdir().unwrap();
    let founder = found(home.path(), 4000, false).await;
    let other = charter_of(Texts::read(&text_path()).unwrap(), founder.members()[0].id());
    let here = (founder.members()[0].id(), Some(founder.members()[0].address()));
    let elsewhere = tempfile::tempdir().unwrap();
    let error = texts::fetch(elsewhere.path(), &other, here, &[], |_| {}).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, TextError::Provider { error: ProviderError::Missing, .. }), "{error}");
    // A peer that orders no blocks offers none.
    let second = (founder.members()[1].id(), Some(founder.members()[1].address()));
    let error = texts::fetch(elsewhere.path(), &other, second, &[], |_| {}).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, TextError::Provider { error: ProviderError::Unreachable { .. }, .. }), "{error}");
    founder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_without_the_files_that_it_was_founded_with() {
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join("own.txt");
    std::fs::copy(text_path(), &own).unwrap();
    let recipe = Recipe { rounds: 400, ..Recipe::tiny() };
    let workload = Arc::new(Workload::new(recipe, Corpus::from_path(&own).unwrap()).unwrap());
    let config = ClusterConfig { data: Some(own.clone()), ..ClusterConfig::new(home.path(), workload, 2) };
    let cluster = Cluster::start(config).await.unwrap();
    let id = cluster.run_id();
    wait(&cluster, "a round", |status| status.totals.rounds >= 1).await;
    cluster.shutdown().await;
    std::fs::remove_file(&own).unwrap();
    let run = runs::find(home.path(), &id.0.to_string()[..8]).unwrap().unwrap();
    let workload = Arc::new(runs::workload(home.path(), &run, None).unwrap());
    let config = ClusterConfig { run: Some(id), ..ClusterConfig::new(home.path(), workload, 2) };
    let cluster = Cluster::start(config).await.unwrap();
    assert!(cluster.is_resumed() && cluster.run_id() == id);
    wait(&cluster, "another round", |status| status.totals.rounds >= 2).await;
    cluster.shutdown().await;
}
