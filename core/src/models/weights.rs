//! Reading safetensors files one tensor at a time.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use ndarray::{ArrayView1, ArrayView2, Ix2};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::shards::Index;
use super::views::internal;
use crate::error::{Error, Result};
use crate::linalg::PackedLinear;
use crate::tensor::Floats;

/// The format's own limit on the header.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// The tensors of a safetensors file, or of all shards of an index, whose headers have been read and checked.
///
/// Tensors are read when asked for, so that loading never holds a whole file beside the
/// packed weights. Nothing stays mapped: a file truncated later cannot raise a signal.
pub(crate) struct Weights<R> {
    /// The file, or the index.
    name: String,
    files: Vec<WeightFile<R>>,
    tensors: HashMap<String, Place>,
}

/// A safetensors file.
struct WeightFile<R> {
    source: R,
    name: String,
    data_start: u64,
    metadata: HashMap<String, String>,
}

/// Where a tensor is.
struct Place {
    /// Which of the files.
    file: usize,
    info: TensorInfo,
}

impl Weights<BufReader<File>> {
    /// Opens a file or, where there is none but an index of shards in its place, those.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Weights::new(name.clone(), [(name, BufReader::new(file))]),
            Err(e) => {
                let index = path.with_added_extension("index.json");
                if e.kind() == ErrorKind::NotFound && index.exists() {
                    return Index::read(&index)?.open(&index);
                }
                Err(Error::Io { path: name, message: e.to_string() })
            }
        }
    }
}

impl<'a> Weights<Cursor<&'a [u8]>> {
    /// Reads from memory.
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        Weights::new("weights".to_string(), [("weights".to_string(), Cursor::new(bytes))])
    }
}

impl<R: Read + Seek> WeightFile<R> {
    /// The file and its header.
    fn new(mut source: R, name: String) -> Result<(Self, Metadata)> {
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
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok((WeightFile { source, name, data_start, metadata }, header))
    }
}

impl<R: Read + Seek> Weights<R> {
    /// The tensors of some files, each with its name.
    pub(super) fn new(name: String, sources: impl IntoIterator<Item = (String, R)>) -> Result<Self> {
        let mut all = Weights { name, files: Vec::new(), tensors: HashMap::new() };
        for (name, source) in sources {
            let (file, header) = WeightFile::new(source, name)?;
            all.files.push(file);
            // In order, so that the same fault is named in every run.
            let tensors: BTreeMap<_, _> = header.tensors().into_iter().collect();
            for (tensor, info) in tensors {
                let place = Place { file: all.files.len() - 1, info: info.clone() };
                if let Some(other) = all.tensors.insert(tensor.clone(), place) {
                    let [a, b] = [other.file, all.files.len() - 1].map(|i| &all.files[i].name);
                    return Err(all.error(format!("tensor {tensor} is in {a} and in {b}, expected in one")));
                }
            }
        }
        Ok(all)
    }

    /// The names of the tensors, and of the file that each is in.
    pub(super) fn places(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tensors.iter().map(|(tensor, place)| (tensor.as_str(), self.files[place.file].name.as_str()))
    }

    /// The `__metadata__` strings, sorted by key.
    pub(crate) fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::<String, String>::new();
        let sorted = |file: &WeightFile<R>| file.metadata.clone().into_iter().collect::<BTreeMap<_, _>>();
        for (key, value) in self.files.iter().flat_map(sorted) {
            match all.get(&key) {
                Some(other) if *other != value => {
                    let message =
                        format!("metadata {key} is {other:?} and {value:?}, expected one in all shards");
                    return Err(self.error(message));
                }
                _ => drop(all.insert(key, value)),
            }
        }
        Ok(all)
    }

    /// An error about these weights.
    pub(crate) fn error(&self, message: impl ToString) -> Error {
        Error::Format { what: self.name.clone(), message: message.to_string() }
    }

    /// An error about a tensor, in the name of its file.
    fn wrong(&self, place: &Place, message: String) -> Error {
        Error::Format { what: self.files[place.file].name.clone(), message }
    }

    fn place(&self, tensor: &str) -> Result<&Place> {
        self.tensors.get(tensor).ok_or_else(|| self.error(format!("tensor {tensor} is missing")))
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, tensor: &str) -> Result<Vec<usize>> {
        Ok(self.place(tensor)?.info.shape.clone())
    }

    /// Whether there is a tensor.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
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
        let first = self.place(tensors[0])?;
        let dtype = first.info.dtype;
        let mut bytes = 0;
        for tensor in tensors {
            let place = self.place(tensor)?;
            let found = place.info.dtype;
            if found != dtype {
                let message =
                    format!("tensor {tensor} has dtype {found:?}, expected {dtype:?} as {}", tensors[0]);
                return Err(self.wrong(place, message));
            }
            // No more than the file has.
            bytes += place.info.data_offsets.1 - place.info.data_offsets.0;
        }
        match dtype {
            Dtype::F32 => Ok(Numbers::F32(self.reserved(bytes / size_of::<f32>())?)),
            Dtype::F16 => Ok(Numbers::F16(self.reserved(bytes / size_of::<f16>())?)),
            Dtype::BF16 => Ok(Numbers::Bf16(self.reserved(bytes / size_of::<bf16>())?)),
            _ => {
                let message = format!("tensor {} has dtype {dtype:?}, expected F32, F16 or BF16", tensors[0]);
                Err(self.wrong(first, message))
            }
        }
    }

    /// Reads a tensor of the type of `to` behind what is there.
    fn read(&mut self, tensor: &str, shape: &[usize], to: &mut Numbers) -> Result<()> {
        let place = self.place(tensor)?;
        if place.info.shape != shape {
            let message = format!("tensor {tensor} has shape {:?}, expected {shape:?}", place.info.shape);
            return Err(self.wrong(place, message));
        }
        let (file, (start, end)) = (place.file, place.info.data_offsets);
        let WeightFile { source, name, data_start, .. } = &mut self.files[file];
        let io = |e: std::io::Error| Error::Io { path: name.clone(), message: e.to_string() };
        source.seek(SeekFrom::Start(*data_start + start as u64)).map_err(io)?;
        // A piece at a time: never the tensor twice.
        let mut piece = vec![0u8; PIECE.min(end - start)];
        let mut left = end - start;
        while left > 0 {
            let piece = &mut piece[..PIECE.min(left)];
            source.read_exact(piece).map_err(io)?;
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
    file: &mut Weights<R>,
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
