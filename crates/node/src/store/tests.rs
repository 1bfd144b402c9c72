use super::*;
use crate::store::file::write_sealed;
use wire::{Attestation, BlockHeader, Commitment, Identity, LinkWishes, UnitId};

fn run() -> RunId {
    RunId(Hash::of(b"run"))
}

fn identity(byte: u8) -> Identity {
    Identity::from_secret([byte; 32])
}

fn open(directory: &Path) -> Result<Store, StoreError> {
    Store::open(directory, run(), identity(1).id())
}

fn receipt(counter: u64) -> Receipt {
    let hash = Hash::of(&counter.to_le_bytes());
    Receipt {
        run: run(),
        round: counter,
        index: 0,
        stage: 0,
        unit: UnitId(hash),
        state_in: hash,
        data_root: hash,
        trace_root: hash,
        output_root: hash,
        tokens: 1,
        loss_micronats: 1,
        counter,
    }
}

fn commit(who: &Identity, counter: u64) -> Signed<Transaction> {
    let hash = Hash::of(b"payload");
    let receipts = vec![who.sign(receipt(counter))];
    let commitment = Commitment {
        round: counter,
        payload: hash,
        payload_bytes: 1,
        residual_root: hash,
        wishes: LinkWishes::default(),
        busy_percent: 0,
        receipts,
    };
    who.sign(Transaction { run: run(), action: Action::Commit(commitment) })
}

fn attest(who: &Identity, round: u64) -> Signed<Transaction> {
    let action = Action::Attest(Attestation { round, stage: 0, state_root: Hash::of(b"state") });
    who.sign(Transaction { run: run(), action })
}

fn block(height: u64, transactions: Vec<Signed<Transaction>>) -> Block {
    let root = Block::transactions_root(&transactions);
    let header = BlockHeader {
        run: run(),
        height,
        parent: Hash::of(b"parent"),
        time_us: height,
        transactions_root: root,
        ledger_root: root,
    };
    Block { header: identity(1).sign(header), transactions: transactions.into() }
}

fn fault(number: u64) -> FaultView {
    FaultView { peer: identity(2).id(), round: number, what: format!("fault {number}") }
}

#[test]
fn everything_comes_back_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let residual;
    {
        let store = open(directory.path()).unwrap();
        store.put_block(&block(0, vec![])).unwrap();
        store.put_block(&block(1, vec![commit(&identity(2), 7)])).unwrap();
        store.put_outgoing(&attest(&identity(1), 3)).unwrap();
        store.put_fault(&fault(1)).unwrap();
        residual = store.write_residual("0", b"residual").unwrap();
        let point = Point { round: 2, state_root: Hash::of(b"s"), residual: Some(residual.clone()) };
        store.put_model(&point, None).unwrap();
    }
    let store = open(directory.path()).unwrap();
    assert_eq!(store.blocks().unwrap().len(), 2);
    assert_eq!(store.outbox().unwrap(), [attest(&identity(1), 3)]);
    assert_eq!(store.receipts().unwrap(), [], "another peer's receipts are not ours");
    assert_eq!(store.faults().unwrap(), [fault(1)]);
    assert_eq!(store.point().unwrap().unwrap().round, 2);
    assert_eq!(store.pending().unwrap(), None);
    assert_eq!(store.read_residual(&residual).unwrap(), b"residual");
}

#[test]
fn a_stage_that_was_left_leaves_nothing_but_the_record() {
    let directory = tempfile::tempdir().unwrap();
    {
        let store = open(directory.path()).unwrap();
        assert_eq!((store.stage_or(2).unwrap(), store.stage_or(1).unwrap()), (2, 2), "the first counts");
        store.put_block(&block(0, vec![commit(&identity(1), 0)])).unwrap();
        let residual = store.write_residual("0", b"residual").unwrap();
        store.put_model(&Point { round: 2, state_root: Hash::of(b"s"), residual: Some(residual) }, None).unwrap();
        store.set_stage(3).unwrap();
    }
    let store = open(directory.path()).unwrap();
    store.sweep_residuals().unwrap();
    assert_eq!((store.stage_or(2).unwrap(), store.point().unwrap(), store.pending().unwrap()), (3, None, None));
    assert_eq!((store.blocks().unwrap().len(), store.receipts().unwrap().len()), (1, 1));
    let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with("residual-")));
}

#[test]
fn a_block_settles_own_transactions_and_keeps_own_receipts() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let own = commit(&identity(1), 0);
    store.put_outgoing(&own).unwrap();
    store.put_outgoing(&attest(&identity(1), 1)).unwrap();
    store.put_block(&block(0, vec![own.clone(), commit(&identity(2), 0)])).unwrap();
    assert_eq!(store.outbox().unwrap(), [attest(&identity(1), 1)]);
    assert_eq!(store.receipts().unwrap(), [identity(1).sign(receipt(0))]);
    store.put_block(&block(0, vec![own])).unwrap();
    assert_eq!(store.receipts().unwrap().len(), 1, "the same block twice changes nothing");
}

#[test]
fn blocks_after_a_gap_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    for height in [0, 1, 3] {
        store.put_block(&block(height, vec![])).unwrap();
    }
    assert_eq!(store.blocks().unwrap().len(), 2);
}

#[test]
fn faults_and_outbox_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    for round in 0..OUTBOX_MAX + 5 {
        store.put_outgoing(&attest(&identity(1), round)).unwrap();
    }
    let outbox = store.outbox().unwrap();
    assert_eq!(outbox.len() as u64, OUTBOX_MAX);
    assert_eq!(outbox[0], attest(&identity(1), 5), "the oldest went");
    for number in 0..FAULTS_MAX + 3 {
        store.put_fault(&fault(number)).unwrap();
    }
    let faults = store.faults().unwrap();
    assert_eq!((faults.len() as u64, faults[0].round), (FAULTS_MAX, 3));
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(&error, StoreError::InUse { directory: used } if used == directory.path()), "{error}");
    assert!(error.hint().contains("--home"));
    drop(first);
    open(directory.path()).unwrap();
}

#[test]
fn another_run_or_another_peer_is_refused_and_nothing_changes() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().put_block(&block(0, vec![])).unwrap();
    let other_run = Store::open(directory.path(), RunId(Hash::of(b"other")), identity(1).id());
    assert!(matches!(other_run, Err(StoreError::OtherRun { .. })));
    let other_peer = Store::open(directory.path(), run(), identity(2).id());
    assert!(matches!(other_peer, Err(StoreError::OtherPeer { .. })));
    assert_eq!(open(directory.path()).unwrap().blocks().unwrap().len(), 1);
}

#[test]
fn a_foreign_or_cut_database_is_an_error_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE);
    std::fs::write(&path, b"this is no database, but a long enough text to look at").unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    assert!(error.hint().contains("move"), "{}", error.hint());
    std::fs::remove_file(&path).unwrap();
    open(directory.path()).unwrap().put_block(&block(0, vec![])).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = open(directory.path()).map(|_| ()).unwrap_err();
    assert!(error.is_corruption(), "{error}");
}

#[test]
fn a_swapped_or_damaged_residual_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let residual = store.write_residual("4", b"the residual of round 4").unwrap();
    let path = directory.path().join(&residual.name);
    write_sealed(&path, b"another residual").unwrap();
    assert!(matches!(store.read_residual(&residual), Err(StoreError::Corrupt { .. })));
    std::fs::write(&path, b"text").unwrap();
    assert!(matches!(store.read_residual(&residual), Err(StoreError::Corrupt { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.read_residual(&residual), Err(StoreError::Io { .. })));
}

#[test]
fn residuals_that_nothing_names_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let kept = store.write_residual("1", b"kept").unwrap();
    let dropped = store.write_residual("0", b"dropped").unwrap();
    store.put_model(&Point { round: 1, state_root: Hash::of(b"s"), residual: Some(kept.clone()) }, None).unwrap();
    store.sweep_residuals().unwrap();
    assert!(store.read_residual(&kept).is_ok());
    assert!(!directory.path().join(&dropped.name).exists());
}
