//! Shape and strides from outside: rank, sizes, overflow, extent, overlap.

use crate::error::{Error, Result};

/// Largest rank of a tensor.
pub const MAX_RANK: usize = 8;

/// A checked shape with strides in elements.
///
/// Construction guarantees that the element count, every offset and the byte extent fit in
/// `isize`, so later index arithmetic cannot overflow.
///
/// ```
/// use dgm_core::tensor::Layout;
/// let l = Layout::new("x", &[2, 3], None, 4)?;
/// assert_eq!((l.len(), l.strides()), (6, &[3, 1][..]));
/// assert!(Layout::new("x", &[-1], None, 4).is_err());
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    rank: usize,
    shape: [usize; MAX_RANK],
    strides: [isize; MAX_RANK],
    element: usize,
    len: usize,
    /// Elements between the first logical element and the lowest address used.
    below: usize,
    /// Elements between the lowest and the highest address used.
    extent: usize,
}

/// The addresses a tensor uses: first byte and one past the last; empty for no elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// The span of `bytes` bytes from `address`; `None` when it leaves the address space.
    pub fn new(address: usize, bytes: usize) -> Option<Self> {
        Some(Span { start: address, end: address.checked_add(bytes)? })
    }

    /// Whether the two share a byte. An empty span shares none.
    pub fn overlaps(self, other: Span) -> bool {
        self.start.max(other.start) < self.end.min(other.end)
    }
}

impl Layout {
    /// Checks a shape and element strides. Without strides the tensor is row-major contiguous.
    ///
    /// `element` is the size of one element in bytes. Zero dimensions, zero strides (broadcast)
    /// and negative strides describe readable memory and are accepted here; see
    /// [`Layout::check_output`].
    ///
    /// # Errors
    /// [`Error::Shape`] for a rank above [`MAX_RANK`] or a negative dimension,
    /// [`Error::Stride`] for a wrong number of strides, [`Error::Overflow`] when the extent
    /// does not fit in the address space.
    pub fn new(arg: &'static str, shape: &[i64], strides: Option<&[i64]>, element: usize) -> Result<Self> {
        let rank = shape.len();
        let bad_shape = |expected: String| Error::Shape { arg, got: format!("{shape:?}"), expected };
        if rank > MAX_RANK {
            return Err(bad_shape(format!("at most {MAX_RANK} dimensions")));
        }
        if shape.iter().any(|&d| d < 0) {
            return Err(bad_shape("no negative dimension".into()));
        }
        let overflow = || Error::Overflow {
            arg,
            got: format!("shape {shape:?}, strides {strides:?}, {element} bytes an element"),
        };
        let mut layout = Layout {
            rank,
            shape: [1; MAX_RANK],
            strides: [0; MAX_RANK],
            element,
            len: 1,
            below: 0,
            extent: 0,
        };
        // The product of the dimensions that are not zero must be addressable too: a view with
        // an empty dimension may later be sliced or reshaped.
        let mut product = 1usize;
        for (slot, &d) in layout.shape.iter_mut().zip(shape) {
            *slot = usize::try_from(d).map_err(|_| overflow())?;
            product = product.checked_mul((*slot).max(1)).ok_or_else(overflow)?;
        }
        if product.checked_mul(element).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(overflow());
        }
        let dims = &layout.shape[..rank];
        layout.len = if dims.contains(&0) { 0 } else { product };
        match strides {
            Some(given) if given.len() != rank => {
                return Err(Error::Stride {
                    arg,
                    got: format!("{given:?}"),
                    expected: format!("{rank} strides, one for each dimension"),
                });
            }
            Some(given) => {
                for (slot, &s) in layout.strides.iter_mut().zip(given) {
                    *slot = isize::try_from(s).map_err(|_| overflow())?;
                }
            }
            None => {
                let mut step = 1usize;
                for (slot, &d) in layout.strides[..rank].iter_mut().zip(dims).rev() {
                    *slot = step as isize; // at most `product`, which fits
                    step *= d.max(1);
                }
            }
        }
        layout.measure().ok_or_else(overflow)?;
        Ok(layout)
    }

    /// Fills in `below` and `extent`.
    fn measure(&mut self) -> Option<()> {
        if self.len == 0 {
            // Strides of an empty tensor mean nothing; normalised so that no view trips on them.
            self.strides = [0; MAX_RANK];
            return Some(());
        }
        let (mut below, mut above) = (0usize, 0usize);
        for (&d, s) in self.shape[..self.rank].iter().zip(&mut self.strides) {
            if d == 1 {
                *s = 0; // never stepped over, whatever it says
            }
            let reach = (d - 1).checked_mul(s.unsigned_abs())?;
            let side = if *s < 0 { &mut below } else { &mut above };
            *side = side.checked_add(reach)?;
        }
        self.extent = below.checked_add(above)?;
        self.below = below;
        let bytes = self.extent.checked_add(1)?.checked_mul(self.element)?;
        (bytes <= isize::MAX as usize).then_some(())
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank]
    }

    /// The strides in elements; 0 for a dimension of one element.
    pub fn strides(&self) -> &[isize] {
        &self.strides[..self.rank]
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements from the lowest address used up to the first logical element: positive only
    /// where a stride is negative.
    pub fn below(&self) -> usize {
        self.below
    }

    /// Whether the elements lie one after another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1usize;
        for (&d, &s) in self.shape().iter().zip(self.strides()).rev() {
            if d > 1 && s != step as isize {
                return false;
            }
            step *= d.max(1);
        }
        true
    }

    /// The bytes used when the first logical element lies at `address`.
    ///
    /// # Errors
    /// [`Error::Overflow`] when they leave the address space.
    pub fn span(&self, arg: &'static str, address: usize) -> Result<Span> {
        if self.len == 0 {
            return Ok(Span { start: address, end: address });
        }
        address
            .checked_sub(self.below * self.element)
            .and_then(|start| Span::new(start, (self.extent + 1) * self.element))
            .ok_or_else(|| Error::Overflow {
                arg,
                got: format!(
                    "shape {:?}, strides {:?} at address {address:#x}",
                    self.shape(),
                    self.strides()
                ),
            })
    }

    /// Whether the two describe the same elements in the same order, given the same start.
    pub fn same_view(&self, other: &Layout) -> bool {
        self.element == other.element && self.shape() == other.shape() && self.strides() == other.strides()
    }

    /// Checks that every element has its own address and no stride is negative, as an output
    /// needs.
    ///
    /// Overlap is judged conservatively: each stride must step over all that the smaller
    /// strides reach.
    ///
    /// # Errors
    /// [`Error::Stride`] otherwise.
    pub fn check_output(&self, arg: &'static str) -> Result<()> {
        let bad = |expected: &str| Error::Stride {
            arg,
            got: format!("{:?} for shape {:?}", self.strides(), self.shape()),
            expected: expected.into(),
        };
        if self.len <= 1 {
            return Ok(());
        }
        if self.strides().iter().any(|&s| s < 0) {
            return Err(bad("no negative stride in an output"));
        }
        let mut order: [usize; MAX_RANK] = std::array::from_fn(|i| i);
        let order = &mut order[..self.rank];
        order.sort_unstable_by_key(|&i| self.strides[i]);
        let mut reach = 0usize;
        for &i in order.iter().filter(|&&i| self.shape[i] > 1) {
            let stride = self.strides[i].unsigned_abs();
            if stride <= reach {
                return Err(bad("strides that give every element of an output its own address"));
            }
            reach += (self.shape[i] - 1) * stride;
        }
        Ok(())
    }

    /// Checks the rank.
    ///
    /// # Errors
    /// [`Error::Shape`] when it differs.
    pub fn check_rank(&self, arg: &'static str, rank: usize, names: &str) -> Result<()> {
        if self.rank == rank {
            Ok(())
        } else {
            Err(Error::shape(arg, self.shape(), format!("{rank} dimensions {names}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(shape: &[i64], strides: &[i64]) -> Result<Layout> {
        Layout::new("x", shape, Some(strides), 4)
    }

    /// Every element offset, by loops a student could read.
    fn offsets(shape: &[i64], strides: &[i64]) -> Vec<i64> {
        let mut all = vec![0];
        for (&d, &s) in shape.iter().zip(strides) {
            all = all.iter().flat_map(|&o| (0..d).map(move |i| o + i * s)).collect();
        }
        all
    }

    #[test]
    fn contiguous_strides_are_row_major() {
        let l = Layout::new("x", &[2, 3, 4], None, 4).unwrap();
        assert_eq!(l.strides(), [12, 4, 1]);
        assert!(l.is_contiguous());
        assert_eq!(Layout::new("x", &[], None, 4).unwrap().len(), 1);
        assert_eq!(Layout::new("x", &[2, 0, 4], None, 4).unwrap().len(), 0);
        assert!(!layout(&[2, 3], &[1, 2]).unwrap().is_contiguous());
    }

    #[test]
    fn span_covers_exactly_what_is_used() {
        for shape in [[2, 3], [1, 5], [4, 1], [3, 3]] {
            for s0 in -4..=4 {
                for s1 in -4..=4 {
                    let l = layout(&shape, &[s0, s1]).unwrap();
                    let o = offsets(&shape, &[s0, s1]);
                    let (low, high) = (*o.iter().min().unwrap(), *o.iter().max().unwrap());
                    let span = l.span("x", 1000).unwrap();
                    assert_eq!(span.start as i64, 1000 + 4 * low);
                    assert_eq!(span.end as i64, 1000 + 4 * high + 4);
                    assert_eq!(l.below() as i64, -low);
                }
            }
        }
    }

    #[test]
    fn accepted_outputs_never_overlap() {
        let mut accepted = 0;
        for shape in [[2, 3, 2], [1, 3, 2], [2, 1, 4]] {
            for code in 0..512 {
                let strides = [code % 8, code / 8 % 8, code / 64];
                let mut o = offsets(&shape, &strides);
                o.sort_unstable();
                let distinct = o.windows(2).all(|w| w[0] != w[1]);
                if layout(&shape, &strides).unwrap().check_output("x").is_ok() {
                    assert!(distinct, "{shape:?} {strides:?}");
                    accepted += 1;
                }
            }
        }
        assert!(accepted > 100);
        assert_eq!(layout(&[2, 2], &[-2, 1]).unwrap().check_output("x").unwrap_err().code(), -201);
        assert_eq!(layout(&[2, 2], &[0, 1]).unwrap().check_output("x").unwrap_err().code(), -201);
        assert!(layout(&[0, 2], &[0, 1]).unwrap().check_output("x").is_ok());
        assert!(layout(&[1, 2], &[-7, 1]).unwrap().check_output("x").is_ok());
    }

    #[test]
    fn sizes_that_leave_the_address_space_are_errors() {
        let big = i64::MAX / 4;
        for (shape, strides) in [
            (vec![big, 2], None),
            (vec![big, big], None),
            (vec![i64::MAX, 0], None),
            (vec![2], Some(vec![i64::MAX])),
            (vec![2], Some(vec![i64::MIN])),
            (vec![3, 3], Some(vec![big, big])),
            (vec![big, 3], Some(vec![0, 0])),
        ] {
            let e = Layout::new("x", &shape, strides.as_deref(), 4).unwrap_err();
            assert_eq!(e.code(), -501, "{shape:?} {strides:?}: {e}");
        }
        let l = Layout::new("x", &[16], None, 4).unwrap();
        assert_eq!(l.span("x", usize::MAX - 8).unwrap_err().code(), -501);
        assert_eq!(layout(&[2], &[-1000]).unwrap().span("x", 8).unwrap_err().code(), -501);
    }

    #[test]
    fn ranks_and_counts_are_checked() {
        assert_eq!(Layout::new("x", &[1; 9], None, 4).unwrap_err().code(), -200);
        assert_eq!(layout(&[2, -1], &[1, 1]).unwrap_err().code(), -200);
        assert_eq!(layout(&[2], &[1, 1]).unwrap_err().code(), -201);
        let e = Layout::new("q", &[2, 3], None, 4).unwrap().check_rank("q", 4, "[B, H, L, D]").unwrap_err();
        assert_eq!(e.to_string(), "q has shape [2, 3], expected 4 dimensions [B, H, L, D]");
    }

    #[test]
    fn spans_overlap_only_on_shared_bytes() {
        let s = |a, n| Span::new(a, n).unwrap();
        assert!(s(0, 8).overlaps(s(7, 1)));
        assert!(!s(0, 8).overlaps(s(8, 8)));
        assert!(!s(0, 8).overlaps(s(4, 0)));
        assert!(Span::new(usize::MAX, 2).is_none());
    }

    #[test]
    fn same_view_ignores_strides_of_single_elements() {
        let a = layout(&[1, 4], &[99, 1]).unwrap();
        assert!(a.same_view(&layout(&[1, 4], &[4, 1]).unwrap()));
        assert!(!a.same_view(&layout(&[1, 4], &[4, 2]).unwrap()));
    }
}
