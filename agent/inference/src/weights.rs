//! Weights: tensors of `model.safetensors`, each taken once by the name and shape that the network wants.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::LoadError;

/// What has not been taken yet.
pub(crate) struct Weights<'a> {
    left: BTreeMap<String, TensorView<'a>>,
}

impl<'a> Weights<'a> {
    /// Reads the header; the tensors' bytes stay where they are.
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, LoadError> {
        let header_len = file.first_chunk().map(|length| u64::from_le_bytes(*length));
        if header_len.is_none_or(|length| length > HEADER_MAX) {
            return Err(LoadError::Weights(format!("header wanted at most {HEADER_MAX} bytes, got {header_len:?}")));
        }
        let tensors = SafeTensors::deserialize(file).map_err(|e| LoadError::Weights(e.to_string()))?;
        Ok(Self { left: tensors.tensors().into_iter().collect() })
    }

    /// A matrix, in bfloat16 where it is stored so, else in float32.
    pub(crate) fn matrix(&mut self, name: &str, outs: usize, ins: usize) -> Result<Tensor, LoadError> {
        let view = self.take(name, &[outs, ins])?;
        let tensor = match view.dtype() {
            Dtype::BF16 => Tensor::from_vec(pairs(view.data(), bf16::from_le_bytes), (outs, ins), &Device::Cpu),
            _ => Tensor::from_vec(floats(name, &view)?, (outs, ins), &Device::Cpu),
        };
        Ok(tensor?)
    }

    /// A vector in float32.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Tensor, LoadError> {
        let view = self.take(name, &[len])?;
        Ok(Tensor::from_vec(floats(name, &view)?, len, &Device::Cpu)?)
    }

    /// Refuses a file with more tensors than were taken.
    pub(crate) fn finish(self) -> Result<(), LoadError> {
        match self.left.into_keys().next() {
            Some(name) => Err(LoadError::TensorUnknown { name: name.chars().take(128).collect() }),
            None => Ok(()),
        }
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<TensorView<'a>, LoadError> {
        let view = self.left.remove(name).ok_or_else(|| LoadError::TensorMissing { name: name.into() })?;
        if view.shape() != shape {
            let (wanted, got) = (shape.to_vec(), view.shape().iter().copied().take(8).collect());
            return Err(LoadError::TensorShape { name: name.into(), wanted, got });
        }
        Ok(view)
    }
}

fn floats(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, LoadError> {
    let data = view.data();
    match view.dtype() {
        Dtype::BF16 => Ok(pairs(data, |bytes| bf16::from_le_bytes(bytes).to_f32())),
        Dtype::F16 => Ok(pairs(data, |bytes| f16::from_le_bytes(bytes).to_f32())),
        Dtype::F32 => Ok(data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
        other => Err(LoadError::TensorType { name: name.into(), got: format!("{other:?}") }),
    }
}

fn pairs<T>(data: &[u8], read: impl Fn([u8; 2]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
}

/// Bytes of a header that describes every tensor of the largest network `config.json` may name.
const HEADER_MAX: u64 = 4 << 20;
