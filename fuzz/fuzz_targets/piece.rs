//! Any bytes are a piece that verifies or does not, or give an error.
#![no_main]

use ledger::Piece;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(piece) = Piece::from_json(bytes) {
        let verified = piece.verify();
        let again = Piece::from_json(piece.to_json().as_bytes());
        assert_eq!(again.map(|piece| piece.verify()), Ok(verified));
    }
});
