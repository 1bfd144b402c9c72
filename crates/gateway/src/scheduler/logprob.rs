//! Log-probabilities of tokens, for clients that ask for them.

use model::Tokenizer;

/// A token with its log-probability before temperature and truncation, and the most probable ones beside it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logprob {
    pub(crate) bytes: Vec<u8>,
    pub(crate) logprob: f64,
    /// Most probable first; of equal ones the lower id.
    pub(crate) top: Vec<(Vec<u8>, f64)>,
}

impl Logprob {
    /// Of `token` among `logits`, with the `top` most probable tokens.
    pub(crate) fn new(logits: &[f32], token: u32, top: usize, tokenizer: &Tokenizer) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
        let of = |id: u32| f64::from(logits[id as usize] - largest) - sum.ln();
        let bytes = |id: u32| match tokenizer.bytes_of(id) {
            [] => tokenizer.added_text(id).unwrap_or_default().as_bytes().to_vec(),
            bytes => bytes.to_vec(),
        };
        let mut order: Vec<u32> = (0..).take(logits.len()).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        let top = order.into_iter().take(top).map(|id| (bytes(id), of(id))).collect();
        Self { bytes: bytes(token), logprob: of(token), top }
    }
}

#[cfg(test)]
mod tests {
    use model::END;

    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_the_most_probable_come_first() {
        let tokenizer = Tokenizer::train(["stone"], model::tokenizer::VOCAB_MIN).unwrap();
        let logits: Vec<f32> = (0..257).map(|id| (id % 7) as f32).collect();
        let all = Logprob::new(&logits, 5, 257, &tokenizer);
        let sum: f64 = all.top.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        assert!(all.top.is_sorted_by(|(_, a), (_, b)| a >= b));
        assert_eq!(all.top[0].0, tokenizer.bytes_of(6));
        assert_eq!(all.bytes, tokenizer.bytes_of(5));
        assert!((all.top[0].1 - all.logprob - 1.0).abs() < 1e-9);
        assert_eq!(Logprob::new(&logits, 0, 0, &tokenizer).bytes, END.as_bytes());
    }
}
