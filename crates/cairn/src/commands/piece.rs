//! `cairn piece`: my shares and receipts.

use std::path::Path;

use ledger::{Piece, PieceSummary};
use node::home::Home;
use node::offline::Saved;

use crate::cli::PieceArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::figures::{count, shares};
use crate::running::Running;

/// Receipts listed for people; the JSON holds all.
const RECEIPTS_LISTED: usize = 8;

/// Prints a piece, from the running cairn when there is one, else from the data directory.
pub(crate) fn run(args: &PieceArgs, home: &Path) -> Outcome {
    let piece = match (Running::find(home), &args.peer) {
        (Some(running), None) => {
            Piece::from_json(&running.piece()?).map_err(|error| Failure::new(Code::Unexpected, error))?
        }
        (Some(_), Some(_)) => {
            return Err(Failure::new(
                Code::InUse,
                "another peer's piece is read from the data directory, which is in use",
            )
            .hint("stop the running cairn first, or leave `--peer` out"));
        }
        (None, _) => saved(args, home)?,
    };
    if args.json {
        println!("{}", piece.to_json());
        return Ok(());
    }
    let summary = piece.verify().map_err(|error| {
        Failure::new(Code::CorruptData, format!("the own piece does not verify: {error}"))
            .hint("the data directory was changed by something else than cairn")
    })?;
    print!("{}", text(&piece, &summary));
    Ok(())
}

fn saved(args: &PieceArgs, home: &Path) -> Outcome<Piece> {
    let none =
        |what: String| Failure::new(Code::BadInput, what).hint("`cairn up` starts a run; every unit of work earns");
    if !home.exists() {
        return Err(none(format!("nothing in `{}` yet", home.display())));
    }
    let home = Home::open(home)?;
    let saved = Saved::newest(&home)?.ok_or_else(|| none("no run was ever started here".to_owned()))?;
    let peers = saved.local_peers(&home)?;
    let wanted = args.peer.as_deref().unwrap_or("1");
    let by_number = wanted.parse::<usize>().ok().and_then(|number| peers.get(number.wrapping_sub(1)));
    let by_id = || peers.iter().find(|peer| wanted.len() >= 4 && peer.to_string().starts_with(wanted));
    let peer = by_number.or_else(by_id).ok_or_else(|| {
        Failure::new(Code::BadInput, format!("no peer `{wanted}` on this machine"))
            .hint(format!("give a number from 1 to {}, or the beginning of an id", peers.len()))
    })?;
    saved.piece(*peer)?.ok_or_else(|| none(format!("peer `{}` has no account in this run yet", peer.short())))
}

fn text(piece: &Piece, summary: &PieceSummary) -> String {
    let part = summary.shares as f64 * 100.0 / summary.supply.max(1) as f64;
    let mut text = format!(
        "  you      {}\n  run      {} ({})\n  shares   {} of {} ({part:.2} %)\n  work     {} receipts, {} tokens trained\n",
        summary.peer,
        summary.name,
        summary.run.0.short(),
        shares(summary.shares),
        shares(summary.supply),
        summary.receipts,
        count(summary.tokens as f64),
    );
    if !piece.receipts.is_empty() {
        text += "\n  newest receipts\n  round  unit  tokens   loss    output\n";
    }
    for receipt in piece.receipts.iter().rev().take(RECEIPTS_LISTED) {
        let body = &receipt.body;
        text += &format!(
            "  {:>5}  {:>4}  {:>6}   {:.3}   {}\n",
            body.round,
            body.index,
            count(body.tokens as f64),
            body.loss_micronats as f64 / 1e6,
            body.output_root.short(),
        );
    }
    text + "\n  `cairn piece --json > piece.json` writes the proof, `cairn verify piece.json` checks it anywhere\n"
}
