//! Reading safetensors files one tensor at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use ndarray::{ArrayView1, ArrayView2, Ix2};
use safetensors::tensor::{Dtype, Metadata};

use super::views::internal;
use crate::error::{Error, Result};
use crate::linalg::PackedLinear;
use crate::tensor::Floats;

/// The format's own limit on the header.
const MAX_HEADER: u64 = 100_000_000;

/// A safetensors file whose header has been read and checked.
///
/// Tensors are read when asked for, so that loading never holds the whole file beside the
/// packed weights. Nothing stays mapped: a file truncated later cannot raise a signal.
pub(crate) struct WeightFile<R> {
    source: R,
    name: String,
    data_start: u64,
    header: Metadata,
}

impl WeightFile<BufReader<File>> {
    /// Opens a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| {
            let index = format!("{name}.index.json");
            if Path::new(&index).exists() {
                let message = format!("weights in shards, listed in {index}; expected them in this one file");
                return Error::Format { what: name.clone(), message };
            }
            Error::Io { path: name.clone(), message: e.to_string() }
        })?;
        WeightFile::new(BufReader::new(file), name)
    }
}

impl<'a> WeightFile<Cursor<&'a [u8]>> {
    /// Reads from memory.
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        WeightFile::new(Cursor::new(bytes), "weights".to_string())
    }
}

impl<R: Read + Seek> WeightFile<R> {
    fn new(mut source: R, name: String) -> Result<Self> {
        let io = |e: std::io::Error| Error::Io { path: name.clone(), message: e.to_string() };
        let format = |message: String| Error::Format { what: name.clone(), message };
        let length = source.seek(SeekFrom::End(0)).map_err(io)?;
        source.rewind().map_err(io)?;
        if length < 8 {
            return Err(format(format!("{length} bytes, expected a safetensors file of at least 8")));
        }
        let mut prefix = [0u8; 8];
        source.read_exact(&mut prefix).map_err(io)?;
        let header_len = u64::from_le_bytes(prefix);
        if header_len > MAX_HEADER.min(length - 8) {
            return Err(format(format!(
                "header of {header_len} bytes, expected at most {} (file of {length} bytes)",
                MAX_HEADER.min(length - 8)
            )));
        }
        let mut bytes = vec![0; header_len as usize];
        source.read_exact(&mut bytes).map_err(io)?;
        // Deserialising checks that the tensors are contiguous and as long as their shapes say.
        let header: Metadata =
            serde_json::from_slice(&bytes).map_err(|e| format(format!("safetensors header: {e}")))?;
        let data_start = 8 + header_len;
        let data_end = header.tensors().values().map(|t| t.data_offsets.1 as u64).max().unwrap_or(0);
        if data_start.checked_add(data_end) != Some(length) {
            return Err(format(format!(
                "tensors end at byte {} of a file of {length} bytes: truncated or padded",
                data_start.saturating_add(data_end)
            )));
        }
        Ok(WeightFile { source, name, data_start, header })
    }

    /// The `__metadata__` strings, sorted by key.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        self.header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// An error about this file.
    pub(crate) fn error(&self, message: impl ToString) -> Error {
        Error::Format { what: self.name.clone(), message: message.to_string() }
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, tensor: &str) -> Result<Vec<usize>> {
        self.header
            .info(tensor)
            .map(|t| t.shape.clone())
            .ok_or_else(|| self.error(format!("tensor {tensor} is missing")))
    }

    /// Whether the file has a tensor.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.header.info(tensor).is_some()
    }

    /// Reads a tensor of f32, f16 or bf16 and a known shape, in row-major order, and widens it.
    pub(crate) fn widened(&mut self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(match self.numbers(tensor, shape)? {
            Numbers::F32(x) => x,
            Numbers::F16(x) => self.filled(x.into_iter().map(f16::to_f32))?,
            Numbers::Bf16(x) => self.filled(x.into_iter().map(bf16::to_f32))?,
        })
    }

    /// The numbers in memory that was asked for first: a file may be larger than what there is.
    fn filled<T>(&self, numbers: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
        let mut filled = self.reserved(numbers.len())?;
        filled.extend(numbers);
        Ok(filled)
    }

    fn reserved<T>(&self, count: usize) -> Result<Vec<T>> {
        let mut room = Vec::new();
        room.try_reserve_exact(count).map_err(|e| self.error(format!("a tensor of {count} numbers: {e}")))?;
        Ok(room)
    }

    /// Reads a tensor of f32, f16 or bf16 and a known shape, in row-major order.
    pub(crate) fn numbers(&mut self, tensor: &str, shape: &[usize]) -> Result<Numbers> {
        let mut numbers = self.room(&[tensor])?;
        self.read(tensor, shape, &mut numbers)?;
        Ok(numbers)
    }

    /// Reads matrices of `columns` columns below one another: names and rows. All f32, f16 or bf16.
    pub(crate) fn stacked(&mut self, tensors: &[(&str, usize)], columns: usize) -> Result<Numbers> {
        let names: Vec<&str> = tensors.iter().map(|t| t.0).collect();
        let mut numbers = self.room(&names)?;
        for &(tensor, rows) in tensors {
            self.read(tensor, &[rows, columns], &mut numbers)?;
        }
        Ok(numbers)
    }

    /// Room for the numbers of some tensors of one type: f32, f16 or bf16.
    fn room(&self, tensors: &[&str]) -> Result<Numbers> {
        let dtype = self.dtype(tensors[0])?;
        let mut bytes = 0;
        for tensor in tensors {
            let found = self.dtype(tensor)?;
            if found != dtype {
                let message =
                    format!("tensor {tensor} has dtype {found:?}, expected {dtype:?} as {}", tensors[0]);
                return Err(self.error(message));
            }
            // No more than the file has.
            bytes += self.header.info(tensor).map_or(0, |t| t.data_offsets.1 - t.data_offsets.0);
        }
        match dtype {
            Dtype::F32 => Ok(Numbers::F32(self.reserved(bytes / size_of::<f32>())?)),
            Dtype::F16 => Ok(Numbers::F16(self.reserved(bytes / size_of::<f16>())?)),
            Dtype::BF16 => Ok(Numbers::Bf16(self.reserved(bytes / size_of::<bf16>())?)),
            _ => {
                let message = format!("tensor {} has dtype {dtype:?}, expected F32, F16 or BF16", tensors[0]);
                Err(self.error(message))
            }
        }
    }

    fn dtype(&self, tensor: &str) -> Result<Dtype> {
        let info = self.header.info(tensor);
        info.map(|t| t.dtype).ok_or_else(|| self.error(format!("tensor {tensor} is missing")))
    }

    /// Reads a tensor of the type of `to` behind what is there.
    fn read(&mut self, tensor: &str, shape: &[usize], to: &mut Numbers) -> Result<()> {
        let info =
            self.header.info(tensor).ok_or_else(|| self.error(format!("tensor {tensor} is missing")))?;
        if info.shape != shape {
            return Err(self.error(format!("tensor {tensor} has shape {:?}, expected {shape:?}", info.shape)));
        }
        let (start, end) = info.data_offsets;
        let io = |e: std::io::Error| Error::Io { path: self.name.clone(), message: e.to_string() };
        self.source.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(io)?;
        // A piece at a time: never the tensor twice.
        let mut piece = vec![0u8; PIECE.min(end - start)];
        let mut left = end - start;
        while left > 0 {
            let piece = &mut piece[..PIECE.min(left)];
            self.source.read_exact(piece).map_err(io)?;
            to.extend(piece);
            left -= piece.len();
        }
        Ok(())
    }
}

/// Bytes read at once: whole numbers of any type.
const PIECE: usize = 1 << 16;

/// Numbers as the file stores them.
pub(crate) enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Numbers {
    fn extend(&mut self, bytes: &[u8]) {
        match self {
            Numbers::F32(x) => x.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Numbers::F16(x) => x.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b))),
            Numbers::Bf16(x) => x.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b))),
        }
    }

    /// Bytes they occupy.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Numbers::F32(x) => size_of_val(&x[..]),
            Numbers::F16(x) => size_of_val(&x[..]),
            Numbers::Bf16(x) => size_of_val(&x[..]),
        }
    }

    /// Some rows of a matrix of `columns` columns.
    pub(crate) fn rows(&self, first: usize, rows: usize, columns: usize) -> Result<Floats<'_, Ix2>> {
        let (range, shape) = (first * columns..(first + rows) * columns, (rows, columns));
        Ok(match self {
            Numbers::F32(x) => ArrayView2::from_shape(shape, &x[range]).map_err(internal)?.into(),
            Numbers::F16(x) => ArrayView2::from_shape(shape, &x[range]).map_err(internal)?.into(),
            Numbers::Bf16(x) => ArrayView2::from_shape(shape, &x[range]).map_err(internal)?.into(),
        })
    }
}

/// The layers of these names, one below another, as one.
pub(crate) fn pack<R: Read + Seek>(
    file: &mut WeightFile<R>,
    parts: &[(String, usize)],
    inputs: usize,
    bias: bool,
) -> Result<PackedLinear> {
    let names: Vec<_> = parts.iter().map(|(name, rows)| (format!("{name}.weight"), *rows)).collect();
    let names: Vec<_> = names.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    let weight = file.stacked(&names, inputs)?;
    let mut biases = Vec::new();
    if bias {
        for (name, rows) in parts {
            biases.extend(file.widened(&format!("{name}.bias"), &[*rows])?);
        }
    }
    let rows = parts.iter().map(|p| p.1).sum();
    let bias = bias.then(|| ArrayView1::from(&biases[..]).into());
    PackedLinear::pack(weight.rows(0, rows, inputs)?, bias)
}
