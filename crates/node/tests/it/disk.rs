//! A full disk: a small file system made for the test. Without the right to mount one, the tests say so and pass.

use std::path::Path;
use std::process::Command;

use node::blobs::{BlobError, Blobs};
use node::store::{StoreError, file};
use node::{Cluster, FailureKind, Outcome};
use wire::Hash;

use crate::common::{check_complete, config, finish, wait};

/// A small mounted file system, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        match status {
            Ok(output) if output.status.success() => Some(Self(directory)),
            _ => {
                eprintln!("SKIPPED: cannot mount a small tmpfs here, so a full disk is not tested");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_file_that_does_not_fit_leaves_the_old_one() {
    let Some(disk) = SmallDisk::mount(2) else { return };
    let path = disk.path().join("state.bin");
    file::write_sealed(&path, &[1; 100_000]).unwrap();
    let error = file::write_sealed(&path, &[2; 4_000_000]).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(error.hint().contains("free some space"));
    assert_eq!(file::read_sealed(&path).unwrap(), vec![1; 100_000]);
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_does_not_fit_is_not_there_and_the_others_are() {
    let Some(disk) = SmallDisk::mount(2) else { return };
    let blobs = Blobs::open(disk.path()).await.unwrap();
    let kept = blobs.put(vec![1; 10_000]).await.unwrap();
    let error = blobs.put(vec![2; 3_000_000]).await.unwrap_err();
    assert!(matches!(error, BlobError::Store(StoreError::DiskFull { .. })), "{error}");
    assert_eq!(blobs.get(kept).unwrap(), vec![1; 10_000]);
    assert_eq!(blobs.size(Hash::of(&vec![2; 3_000_000])), None);
    blobs.close().await;
    drop(blobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_on_a_full_disk_stops_with_a_hint_and_goes_on_once_there_is_space() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let home = disk.path().join("home");
    let cluster = Cluster::start(config(&home, 2)).await.unwrap();
    let before = wait(&cluster, "a round", |status| status.totals.rounds >= 1).await;
    let filler = disk.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    // Fails when the disk is full, which is what it is for.
    let copied = std::io::copy(&mut std::io::repeat(0), &mut file);
    assert!(copied.is_err());
    match cluster.outcome().await {
        Outcome::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Storage, "{failure:?}");
            assert!(failure.message.contains("full") && failure.hint.contains("space"), "{failure:?}");
        }
        Outcome::Finished(_) => panic!("the disk had space for everything"),
    }
    cluster.shutdown().await;

    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let cluster = Cluster::start(config(&home, 2)).await.unwrap();
    assert!(cluster.is_resumed());
    let after = cluster.members()[0].status().borrow().clone();
    assert!(after.totals.rounds >= before.totals.rounds && after.totals.receipts >= before.totals.receipts);
    let summary = finish(&cluster).await;
    check_complete(&cluster, &summary).await;
    cluster.shutdown().await;
}
