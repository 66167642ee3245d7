//! Weights in shards: the index that names the file of each tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::weights::{MAX_HEADER, Weights};
use crate::error::{Error, Result};

/// What a `*.safetensors.index.json` says; its `metadata` says nothing that the shards do not.
#[derive(Deserialize)]
pub(super) struct Index {
    weight_map: WeightMap,
}

/// The file of each tensor.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object that names the file of each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<WeightMap, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((tensor, file)) = entries.next_entry::<String, String>()? {
            // A parser that keeps the last of two would hide the first.
            if let Some(other) = map.insert(tensor.clone(), file) {
                return Err(A::Error::custom(format!(
                    "weight_map has tensor {tensor} twice, first in {other}"
                )));
            }
        }
        Ok(WeightMap(map))
    }
}

impl Index {
    /// Reads an index.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let io = |e: std::io::Error| Error::Io { path: name(), message: e.to_string() };
        let mut bytes = Vec::new();
        File::open(path).map_err(io)?.take(MAX_HEADER + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_HEADER {
            let message = format!("larger than {MAX_HEADER} bytes, expected an index of shards");
            return Err(Error::Format { what: name(), message });
        }
        Index::parse(&bytes, &name())
    }

    /// Parses the text of an index; `what` names it in errors.
    fn parse(text: &[u8], what: &str) -> Result<Self> {
        let format = |message: String| Error::Format { what: what.to_string(), message };
        let index: Index = serde_json::from_slice(text).map_err(|e| format(e.to_string()))?;
        match index.weight_map.0.iter().find(|(_, file)| !is_file_name(file)) {
            None => Ok(index),
            Some((tensor, file)) => Err(format(format!(
                "weight_map has tensor {tensor} in {file:?}, expected the name of a file in the same folder"
            ))),
        }
    }

    /// Opens the shards that lie beside the index at `path`, and checks that they are as it says.
    pub(super) fn open(self, path: &Path) -> Result<Weights<BufReader<File>>> {
        let map = &self.weight_map.0;
        let beside = |file: &str| path.with_file_name(file);
        let name = |file: &str| beside(file).display().to_string();
        let mut shards = Vec::new();
        for file in map.values().collect::<BTreeSet<_>>() {
            match File::open(beside(file)) {
                Ok(shard) => shards.push((name(file), BufReader::new(shard))),
                Err(e) => return Err(Error::Io { path: name(file), message: e.to_string() }),
            }
        }
        let weights = Weights::new(path.display().to_string(), shards)?;
        // In order of the names, so that the first wrong one is the same in every run.
        let found: BTreeMap<&str, &str> = weights.places().collect();
        for (tensor, file) in map {
            match found.get(tensor.as_str()) {
                Some(place) if *place == name(file) => {}
                Some(place) => {
                    return Err(weights.error(format!("tensor {tensor} is in {place}, expected in {file}")));
                }
                None => {
                    return Err(weights.error(format!("tensor {tensor} is in no shard, expected in {file}")));
                }
            }
        }
        match found.iter().find(|(tensor, _)| !map.contains_key(**tensor)) {
            None => Ok(weights),
            Some((tensor, place)) => Err(weights.error(format!(
                "tensor {tensor} of {place} is missing in weight_map, expected every tensor"
            ))),
        }
    }
}

/// Whether a path is nothing but a file's name, on any system.
fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let first = parts.next();
    !name.contains(['/', '\\', ':']) && matches!(first, Some(Component::Normal(_))) && parts.next().is_none()
}
