//! Reading safetensors files one tensor at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata};

use crate::error::{Error, Result};

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
        let file = File::open(path).map_err(|e| Error::Io { path: name.clone(), message: e.to_string() })?;
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

    /// Reads an f32 tensor of a known shape, in row-major order.
    pub(crate) fn f32(&mut self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let info =
            self.header.info(tensor).ok_or_else(|| self.error(format!("tensor {tensor} is missing")))?;
        if info.dtype != Dtype::F32 {
            return Err(self.error(format!("tensor {tensor} has dtype {:?}, expected F32", info.dtype)));
        }
        if info.shape != shape {
            return Err(self.error(format!("tensor {tensor} has shape {:?}, expected {shape:?}", info.shape)));
        }
        let (start, end) = info.data_offsets;
        let io = |e: std::io::Error| Error::Io { path: self.name.clone(), message: e.to_string() };
        self.source.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(io)?;
        let mut bytes = vec![0u8; end - start];
        self.source.read_exact(&mut bytes).map_err(io)?;
        let (words, _) = bytes.as_chunks::<4>();
        Ok(words.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
}
