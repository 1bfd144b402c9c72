//! The file that holds a peer's key. It is never part of a run's data, so that removing a run keeps the identity.

use std::path::Path;

use wire::Identity;

use crate::store::{StoreError, file};

/// Reads the key file, or makes a new key when there is none. The file is readable by its owner only.
///
/// # Errors
/// [`StoreError::Corrupt`] when the file is no key, others when it cannot be read or written.
pub fn load_or_create(path: &Path) -> Result<Identity, StoreError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).ok_or_else(|| StoreError::corrupt(path, "it does not hold 64 hexadecimal digits")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(path),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(StoreError::corrupt(path, "it does not hold 64 hexadecimal digits"))
        }
        Err(error) => Err(StoreError::io(path, error)),
    }
}

fn create(path: &Path) -> Result<Identity, StoreError> {
    if let Some(parent) = path.parent() {
        file::make_directory(parent)?;
    }
    let secret = iroh::SecretKey::generate().to_bytes();
    file::write_secretly(path, format!("{}\n", hex::encode(secret)).as_bytes())?;
    Ok(Identity::from_secret(secret))
}

fn parse(text: &str) -> Option<Identity> {
    let mut secret = [0; 32];
    hex::decode_to_slice(text.trim(), &mut secret).ok()?;
    Some(Identity::from_secret(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys/identity.key");
        let made = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().id(), made.id());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let endpoint = iroh::SecretKey::from_bytes(&made.secret()).public();
        assert_eq!(*endpoint.as_bytes(), made.id().0, "a peer's id is its endpoint's id");
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.key");
        for bad in [&b"not a key"[..], b"\xff\xfe", b"", b"abcd"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(load_or_create(&path), Err(StoreError::Corrupt { .. })));
            assert_eq!(std::fs::read(&path).unwrap(), bad);
        }
    }
}
