//! The workspace of a call: the activations of one block for one image.

/// Floats of workspace, buffer by buffer.
pub(in crate::models) struct Sizes {
    hidden: usize,
    tokens: usize,
    tables: usize,
    wide: usize,
}

/// The buffers of a call.
pub(in crate::models) struct Space<'a> {
    /// `[d]`: all that the blocks see of times and pooled text.
    pub cond: &'a mut [f32],
    /// `[12 d]`: those of both streams of a block.
    pub modulations: &'a mut [f32],
    /// `[tokens, d]`: the residual streams, image before text.
    pub now: &'a mut [f32],
    /// As `now`.
    pub normed: &'a mut [f32],
    /// What is wide: queries, keys and values, hidden layers, and what a network has before and after its
    /// blocks, one after another.
    pub wide: &'a mut [f32],
}

impl Sizes {
    /// For so many tokens of width `hidden`, rotary tables of `columns`, and `wide` floats at least that live one
    /// at a time.
    pub fn new(hidden: usize, tokens: usize, columns: usize, wide: Option<usize>) -> Option<Self> {
        let tables = tokens.checked_mul(columns)?;
        let tokens = tokens.checked_mul(hidden)?;
        let embeddings = super::FREQUENCIES.checked_add(hidden)?;
        Some(Sizes { hidden, tokens, tables, wide: wide?.max(embeddings).max(tokens.checked_mul(3)?) })
    }

    pub fn total(&self) -> Option<usize> {
        let rows = self.tokens.checked_add(self.tables)?.checked_mul(2)?;
        let all = self.hidden.checked_mul(13)?.checked_add(rows)?.checked_add(self.wide)?;
        (all <= isize::MAX as usize / size_of::<f32>()).then_some(all)
    }

    /// The buffers, and the rotary tables `[tokens, columns]` of cosines and sines.
    pub fn split<'a>(&self, workspace: &'a mut [f32]) -> (Space<'a>, [&'a mut [f32]; 2]) {
        let mut rest = workspace;
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(n);
            rest = tail;
            head
        };
        let tables = [take(self.tables), take(self.tables)];
        let space = Space {
            cond: take(self.hidden),
            modulations: take(12 * self.hidden),
            now: take(self.tokens),
            normed: take(self.tokens),
            wide: take(self.wide),
        };
        (space, tables)
    }
}
