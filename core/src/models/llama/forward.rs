//! Tokens to logits.

use ndarray::{ArrayView2, ArrayViewMut3, Axis, s};

use super::{Block, Llama, LlamaConfig};
use crate::attention::cache::{Sizes, check_room, write};
use crate::attention::{AttentionOptions, KvCache, KvCacheMut, Pages, attention, attention_paged};
use crate::error::{Error, Result, check_shape};
use crate::linalg::{Activation, Residual, linear, linear_rows};
use crate::models::views::{view2, view2_mut, view4, view4_mut};
use crate::nn;
use crate::tensor::{Floats, FloatsMut};

impl Llama {
    /// Floats of workspace that [`Llama::forward`] needs for so many new tokens of each batch entry: the
    /// activations of one block.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the size leaves the address space.
    pub fn workspace_len(&self, batch: usize, tokens: usize) -> Result<usize> {
        let rows = batch.checked_mul(tokens);
        rows.and_then(|rows| Widths::new(&self.config)?.row()?.checked_mul(rows))
            .filter(|&n| n <= isize::MAX as usize / size_of::<f32>())
            .ok_or_else(|| Error::Overflow { arg: "tokens", got: format!("{batch} times {tokens}") })
    }

    /// Appends new tokens to a cache and gives the logits of what follows them.
    ///
    /// | argument | shape |
    /// |---|---|
    /// | `tokens` | `[B, N]`, each below `vocab`: they stand behind those that the cache holds |
    /// | `cache` | pages `[P, depth * kv_heads, T, head_dim]` of keys and values, any type; block `i` has heads `i * kv_heads` on. Its lengths grow by `N` |
    /// | `workspace` | at least [`Llama::workspace_len`] floats, contents irrelevant before and after |
    /// | `logits` | `[B, M, vocab]`, those of the last `M` new tokens, `0 <= M <= N` |
    ///
    /// A sequence gives the same bits whole, in chunks or token by token, in any batch, for any page size.
    /// [`cache_truncate`](crate::attention::cache_truncate) takes tokens back.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Range`] naming the argument (`lengths` where the cache is full), and those of
    /// [`cache_append`](crate::attention::cache_append); nothing is written then.
    ///
    /// ```
    /// use dgm_core::{attention::KvCacheMut, models::Llama};
    /// use ndarray::{Array3, Array4, array};
    /// let model = Llama::load("../tests/golden/tiny_llama".as_ref())?;
    /// let c = model.config();
    /// let mut k = Array4::<f32>::zeros((1, c.cache_heads(), 32, c.head_dim));
    /// let (mut v, mut lengths) = (k.clone(), [0]);
    /// let mut cache = KvCacheMut {
    ///     k: k.view_mut().into(),
    ///     v: v.view_mut().into(),
    ///     k_scale: None,
    ///     v_scale: None,
    ///     block_table: None,
    ///     lengths: &mut lengths,
    /// };
    /// let mut workspace = vec![0.0; model.workspace_len(1, 3)?];
    /// let mut logits = Array3::zeros((1, 1, c.vocab));
    /// model.forward(array![[5, 2, 7]].view(), &mut cache, &mut workspace, logits.view_mut())?; // a prompt
    /// model.forward(array![[1]].view(), &mut cache, &mut workspace, logits.view_mut())?; // one more token
    /// assert_eq!(lengths, [4]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn forward(
        &self,
        tokens: ArrayView2<'_, i64>,
        cache: &mut KvCacheMut<'_>,
        workspace: &mut [f32],
        logits: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        let c = &self.config;
        let (batch, new) = tokens.dim();
        let sizes = cache.check()?;
        let of_cache = [sizes.kv_heads, sizes.dim, sizes.value_dim];
        if of_cache != [c.cache_heads(), c.head_dim, c.head_dim] {
            let expected = format!("[P, {}, T, {}], keys and values", c.cache_heads(), c.head_dim);
            return Err(Error::shape("k", &cache.k.shape(), expected));
        }
        check_shape("tokens", &[batch, new], &[sizes.batch, new])?;
        let last = logits.dim().1;
        if last > new {
            let expected = format!("[{batch}, at most {new}, {}]", c.vocab);
            return Err(Error::shape("logits", logits.shape(), expected));
        }
        check_shape("logits", logits.shape(), &[batch, last, c.vocab])?;
        crate::linalg::check_strides("logits", logits.shape(), logits.strides(), true)?;
        for ((b, i), &token) in tokens.indexed_iter() {
            if usize::try_from(token).map_or(true, |t| t >= c.vocab) {
                let got = format!("{token} at [{b}, {i}]");
                return Err(Error::range("tokens", got, format!("0 to {}", c.vocab - 1)));
            }
        }
        let after: Vec<usize> = cache.lengths.iter().map(|n| n.saturating_add(new)).collect();
        check_room(&sizes, cache, &after)?;
        let needed = self.workspace_len(batch, new)?;
        if workspace.len() < needed {
            return Err(Error::shape("workspace", &[workspace.len()], format!("at least [{needed}]")));
        }
        if batch > 0 && new > 0 {
            // All was checked above, so a layer can only fail through a bug of this function.
            self.run(tokens, cache, (&sizes, &after), workspace, logits)
                .map_err(|e| Error::Internal(format!("forward pass: {e}")))?;
            cache.lengths.copy_from_slice(&after);
        }
        Ok(())
    }

    fn run(
        &self,
        tokens: ArrayView2<'_, i64>,
        cache: &mut KvCacheMut<'_>,
        (sizes, after): (&Sizes, &[usize]),
        workspace: &mut [f32],
        logits: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        let c = &self.config;
        let (batch, new) = tokens.dim();
        let (rows, d) = (batch * new, c.hidden);
        let Space { x, normed, cos, sin, wide } = Widths::new(c)
            .ok_or_else(|| Error::Internal("sizes that were counted before".into()))?
            .split(workspace, rows);

        for (row, &token) in x.chunks_exact_mut(d).zip(tokens.iter()) {
            match &self.embeddings {
                Some(table) => nn::embedding(table.rows(0, c.vocab, d)?, &[token], view2_mut(row, 1, d)?)?,
                // The token was checked.
                None => self.head.row(token as usize, row),
            }
        }
        let half = c.head_dim / 2;
        let tables = cos.chunks_exact_mut(new * half).zip(sin.chunks_exact_mut(new * half));
        for ((cos, sin), &first) in tables.zip(&*cache.lengths) {
            nn::fill_tables(first, &self.frequencies, view2_mut(cos, new, half)?, view2_mut(sin, new, half)?);
        }
        let (cos, sin) = (view2(cos, rows, half)?, view2(sin, rows, half)?);
        let tables = nn::Rope { cos, sin, interleaved: false };

        for (i, block) in self.blocks.iter().enumerate() {
            rms_norm(x, &block.norm1, c.norm_eps, normed)?;
            let place = Place { head: i * c.kv_heads, sizes, after };
            let mixed = self.attend(block, normed, batch, &tables, cache, place, wide)?;
            linear_rows(mixed, rows, &block.out, Residual::Out, x);

            rms_norm(x, &block.norm2, c.norm_eps, normed)?;
            let hidden = &mut wide[..rows * c.mlp_hidden];
            linear_rows(normed, rows, &block.gate_up, Activation::Silu, hidden);
            linear_rows(hidden, rows, &block.down, Residual::Out, x);
        }
        self.logits(x, normed, (batch, new), logits)
    }

    /// Attention of one block for `normed` `[rows, d]`: heads side by side, `[rows, heads * head_dim]` in `wide`.
    #[allow(clippy::too_many_arguments)]
    fn attend<'w>(
        &self,
        block: &Block,
        normed: &[f32],
        batch: usize,
        tables: &nn::Rope,
        cache: &mut KvCacheMut<'_>,
        Place { head, sizes, after }: Place,
        wide: &'w mut [f32],
    ) -> Result<&'w [f32]> {
        let c = &self.config;
        let (heads, turned_heads, all, dim) =
            (c.heads, c.heads + c.kv_heads, c.heads + 2 * c.kv_heads, c.head_dim);
        let rows = tables.cos.nrows();
        let new = rows / batch;
        let (qkv, turned) = wide.split_at_mut(rows * all * dim);
        let turned = &mut turned[..rows * turned_heads * dim];
        linear_rows(normed, rows, &block.qkv, Activation::None, qkv);
        // Rows of the tables are those of the tokens, so that all of them are one sequence from 0.
        let from = view4(qkv, [1, rows, all, dim])?.permuted_axes([0, 2, 1, 3]);
        let to = view4_mut(turned, [1, rows, turned_heads, dim])?.permuted_axes([0, 2, 1, 3]);
        nn::rope(from.slice_move(s![.., ..turned_heads, .., ..]), &[0], tables, to)?;

        let turned = view4(turned, [batch, new, turned_heads, dim])?.permuted_axes([0, 2, 1, 3]);
        let k = Floats::from(turned.slice(s![.., heads.., .., ..]));
        let v = view4(qkv, [batch, new, all, dim])?.permuted_axes([0, 2, 1, 3]);
        let v = Floats::from(v.slice_move(s![.., turned_heads.., .., ..]));
        write(cache, sizes, head, (&k, &v), after, None);

        let mixed = &mut qkv[..rows * heads * dim];
        let out = view4_mut(mixed, [batch, new, heads, dim])?.permuted_axes([0, 2, 1, 3]);
        let q = Floats::from(turned.slice_move(s![.., ..heads, .., ..]));
        against(q, cache.heads(head..head + c.kv_heads, after), out.into())?;
        Ok(mixed)
    }

    /// The output layer for the last tokens of `x` `[batch * new, d]`.
    fn logits(
        &self,
        x: &[f32],
        normed: &mut [f32],
        (batch, new): (usize, usize),
        mut logits: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        let (d, (_, last, vocab)) = (self.config.hidden, logits.dim());
        let rows = batch * last;
        let normed = &mut normed[..rows * d];
        for (to, x) in normed.chunks_exact_mut(last.max(1) * d).zip(x.chunks_exact(new * d)) {
            rms_norm(&x[(new - last) * d..], &self.norm, self.config.norm_eps, to)?;
        }
        // One pass over the weights where the rows lie as one matrix.
        if last == 1 {
            return linear(
                view2(normed, rows, d)?,
                &self.head,
                Activation::None,
                logits.index_axis_mut(Axis(1), 0),
            );
        }
        if let Ok(out) = logits.view_mut().into_shape_with_order((rows, vocab)) {
            return linear(view2(normed, rows, d)?, &self.head, Activation::None, out);
        }
        for (x, out) in normed.chunks_exact(last * d).zip(logits.outer_iter_mut()) {
            linear(view2(x, last, d)?, &self.head, Activation::None, out)?;
        }
        Ok(())
    }
}

/// Where a block's keys and values go.
struct Place<'a> {
    head: usize,
    sizes: &'a Sizes,
    after: &'a [usize],
}

/// Causal attention to a cache: by tiles where keys lie side by side, as the bits are the same.
fn against<'a>(
    q: Floats<'a, ndarray::Ix4>,
    cache: KvCache<'a>,
    out: FloatsMut<'a, ndarray::Ix4>,
) -> Result<()> {
    let causal = AttentionOptions { causal: true, ..Default::default() };
    let keys = cache.lengths.iter().copied().max().unwrap_or(0);
    macro_rules! whole {
        ($k:expr, $v:expr) => {{
            let (k, v) = ($k.slice_move(s![.., .., ..keys, ..]), $v.slice_move(s![.., .., ..keys, ..]));
            attention(q, k, v, &AttentionOptions { kv_lengths: Some(cache.lengths), ..causal }, out, None)
        }};
    }
    match (cache.block_table.is_some(), cache.k.clone(), cache.v.clone()) {
        (false, Pages::F32(k), Pages::F32(v)) => whole!(k, v),
        (false, Pages::F16(k), Pages::F16(v)) => whole!(k, v),
        (false, Pages::Bf16(k), Pages::Bf16(v)) => whole!(k, v),
        _ => attention_paged(q, &cache, &causal, out, None),
    }
}

fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Result<()> {
    let (rows, d) = (x.len() / weight.len(), weight.len());
    let weight = ndarray::ArrayView1::from(weight);
    nn::rms_norm(view2(x, rows, d)?, Some(weight.into()), eps, view2_mut(out, rows, d)?)
}

/// Floats of workspace of one token, buffer by buffer.
struct Widths {
    hidden: usize,
    half: usize,
    wide: usize,
}

/// The buffers of a call.
struct Space<'a> {
    x: &'a mut [f32],
    normed: &'a mut [f32],
    cos: &'a mut [f32],
    sin: &'a mut [f32],
    wide: &'a mut [f32],
}

impl Widths {
    fn new(c: &LlamaConfig) -> Option<Self> {
        // Shared by attention (q, k, v, and q and k turned) and the MLP's hidden layer, one after another.
        let heads = c.heads.checked_mul(2)?.checked_add(c.kv_heads.checked_mul(3)?)?;
        let wide = heads.checked_mul(c.head_dim)?.max(c.mlp_hidden);
        Some(Widths { hidden: c.hidden, half: c.head_dim / 2, wide })
    }

    fn row(&self) -> Option<usize> {
        self.hidden.checked_mul(2)?.checked_add(2 * self.half)?.checked_add(self.wide)
    }

    fn split<'a>(&self, workspace: &'a mut [f32], rows: usize) -> Space<'a> {
        let mut rest = workspace;
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(n * rows);
            rest = tail;
            head
        };
        Space {
            x: take(self.hidden),
            normed: take(self.hidden),
            cos: take(self.half),
            sin: take(self.half),
            wide: take(self.wide),
        }
    }
}
