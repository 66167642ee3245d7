//! Linear layers `y = x w^T + b` in f32: the products of faer, gemm, matrixmultiply and candle.

use candle_core::{Device, Tensor};
use candle_nn::{Linear, Module};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use gemm::Parallelism;

use crate::Peer;

/// Rows of x, and what a row has before and after.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Shape {
    rows: usize,
    inputs: usize,
    outputs: usize,
    threads: usize,
}

/// x `[rows, inputs]`, w `[outputs, inputs]`, b `[outputs]`.
pub struct Layer {
    shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    out: Vec<f32>,
}

impl Layer {
    /// # Safety
    ///
    /// The pointers have as many floats as the shape says.
    pub unsafe fn new(shape: Shape, x: *const f32, w: *const f32, b: *const f32) -> Layer {
        // SAFETY: the caller's promise.
        let copy = |from: *const f32, len| unsafe { std::slice::from_raw_parts(from, len) }.to_vec();
        Layer {
            shape,
            x: copy(x, shape.rows * shape.inputs),
            w: copy(w, shape.outputs * shape.inputs),
            b: copy(b, shape.outputs),
            out: vec![0.0; shape.rows * shape.outputs],
        }
    }

    /// The products are added to the bias.
    fn begin(&mut self) {
        self.out.chunks_exact_mut(self.shape.outputs).for_each(|row| row.copy_from_slice(&self.b));
    }
}

/// What multiplies.
type Multiply = fn(&mut Layer);

fn by_faer(layer: &mut Layer) {
    let Shape { rows, inputs, outputs, threads } = layer.shape;
    let x = MatRef::from_row_major_slice(&layer.x, rows, inputs);
    let w = MatRef::from_row_major_slice(&layer.w, outputs, inputs);
    let out = MatMut::from_row_major_slice_mut(&mut layer.out, rows, outputs);
    let par = if threads == 1 { Par::Seq } else { Par::rayon(threads) };
    matmul(out, Accum::Add, x, w.transpose(), 1.0, par);
}

fn by_gemm(layer: &mut Layer) {
    let Shape { rows, inputs, outputs, threads } = layer.shape;
    let (i, o) = (inputs as isize, outputs as isize);
    let parallelism = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    let (out, x, w) = (layer.out.as_mut_ptr(), layer.x.as_ptr(), layer.w.as_ptr());
    // SAFETY: the matrices have the sizes and strides said, and the output is nobody else's.
    unsafe {
        gemm::gemm(
            rows,
            outputs,
            inputs,
            out,
            1,
            o,
            true,
            x,
            1,
            i,
            w,
            i,
            1,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn by_matrixmultiply(layer: &mut Layer) {
    let Shape { rows, inputs, outputs, .. } = layer.shape;
    let (i, o) = (inputs as isize, outputs as isize);
    let (out, x, w) = (layer.out.as_mut_ptr(), layer.x.as_ptr(), layer.w.as_ptr());
    // SAFETY: as above.
    unsafe { matrixmultiply::sgemm(rows, inputs, outputs, 1.0, x, i, 1, w, 1, i, 1.0, out, o, 1) };
}

/// One of the three libraries that only multiply.
struct Product {
    layer: Layer,
    multiply: Multiply,
}

impl Peer for Product {
    fn run(&mut self) -> Result<(), String> {
        self.layer.begin();
        (self.multiply)(&mut self.layer);
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>, String> {
        Ok(self.layer.out.clone())
    }
}

/// candle's own layer.
struct Candle {
    layer: Linear,
    x: Tensor,
    out: Option<Tensor>,
}

fn text(e: candle_core::Error) -> String {
    e.to_string()
}

impl Candle {
    fn new(layer: Layer) -> Result<Candle, String> {
        let Shape { rows, inputs, outputs, .. } = layer.shape;
        let tensor =
            |data: Vec<f32>, shape: &[usize]| Tensor::from_vec(data, shape, &Device::Cpu).map_err(text);
        let (w, b) = (tensor(layer.w, &[outputs, inputs])?, tensor(layer.b, &[outputs])?);
        Ok(Candle { layer: Linear::new(w, Some(b)), x: tensor(layer.x, &[rows, inputs])?, out: None })
    }
}

impl Peer for Candle {
    fn run(&mut self) -> Result<(), String> {
        self.out = Some(self.layer.forward(&self.x).map_err(text)?);
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>, String> {
        let out = self.out.as_ref().ok_or("it has not run")?;
        out.flatten_all().and_then(|out| out.to_vec1()).map_err(text)
    }
}

pub(crate) fn make(name: &str, layer: Layer) -> Result<Box<dyn Peer>, String> {
    let multiply: Multiply = match name {
        "candle" => return Ok(Box::new(Candle::new(layer)?)),
        "faer" => by_faer,
        "gemm" => by_gemm,
        "matrixmultiply" => by_matrixmultiply,
        _ => return Err(format!("no peer is called {name}")),
    };
    Ok(Box::new(Product { layer, multiply }))
}
