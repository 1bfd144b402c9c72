//! `cairn verify`: checks a piece offline.

use std::io::Read;

use ledger::{PIECE_BYTES_MAX, Piece, PieceError, PieceSummary};

use crate::cli::VerifyArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::{count, shares};

/// Reads a piece, checks every signature, proof and root in it, and prints the verdict.
pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let bytes = read(args)?;
    let summary = Piece::from_json(&bytes).and_then(|piece| piece.verify()).map_err(|error| failure(&error))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary).expect("a summary has only string keys"));
    } else {
        print!("{}", text(&summary));
    }
    Ok(())
}

fn read(args: &VerifyArgs) -> Outcome<Vec<u8>> {
    let limit = PIECE_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let result = if args.piece.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(&args.piece).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    result.map(|_| bytes).map_err(|error| {
        Failure::new(Code::BadInput, format!("cannot read `{}`: {error}", args.piece.display()))
            .hint("`cairn piece --json > piece.json` writes a piece")
    })
}

fn failure(error: &PieceError) -> Failure {
    match error {
        PieceError::Json { .. } | PieceError::TooLarge { .. } | PieceError::Version { .. } => {
            Failure::new(Code::BadInput, error).hint("`cairn piece --json > piece.json` writes a piece")
        }
        _ => Failure::new(Code::NotVerified, format!("not verified: {error}")).hint(
            "the piece was changed after it was written, or never belonged to this run; ask its owner for a new one",
        ),
    }
}

fn text(summary: &PieceSummary) -> String {
    let part = summary.shares as f64 * 100.0 / summary.supply.max(1) as f64;
    format!(
        "verified: every signature, the Merkle proof and the ledger root hold\n\n  \
         owner      {}\n  run        {} ({})\n  shares     {} of {} ({part:.2} %)\n  \
         work       {} receipts, {} tokens trained\n  as of      block {}, {} rounds, ledger root {}\n  \
         ordered by {}\n",
        summary.peer,
        summary.name,
        summary.run.0.short(),
        shares(summary.shares),
        shares(summary.supply),
        summary.receipts,
        count(summary.tokens as f64),
        summary.height,
        summary.rounds,
        summary.ledger_root.short(),
        summary.validator.short(),
    )
}
