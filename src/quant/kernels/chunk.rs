//! Kernels over elements: which of them fits how the tensors lie.

use crate::device::launch::Kernel;
use crate::rows::{RowShape, RowTensor};
use crate::{Result, Stream, TensorRef};

/// Rows of a matrix, as kernels are told of them.
pub(super) fn tensor(view: &TensorRef<'_>) -> RowTensor {
    let shape = RowShape {
        tokens: view.rows(),
        heads: 1,
        columns: view.columns(),
    };
    RowTensor::new(view, shape)
}

/// `Chunk` of kernels/quant/chunk.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    name: &'static str,
    /// Neighbours of a row.
    pub(super) elements: usize,
    spread: bool,
}

impl Chunk {
    #[cfg(test)]
    pub(super) const WIDEST: Self = CHUNKS[0];
}

/// From the best down; the last fits any tensors.
const CHUNKS: [Chunk; 3] = [
    Chunk {
        name: "c8",
        elements: 8,
        spread: false,
    },
    Chunk {
        name: "c4",
        elements: 4,
        spread: false,
    },
    Chunk {
        name: "s4",
        elements: 4,
        spread: true,
    },
];

impl Chunk {
    /// Whether rows of so many columns move in chunks: all tensors' begin and end on the boundary of
    /// one, and those that are read fill no more than 16 bytes with it.
    fn fits(self, columns: usize, read: &[&TensorRef<'_>], written: &[&TensorRef<'_>]) -> bool {
        if self.spread {
            return true;
        }
        let bytes = |view: &TensorRef<'_>| self.elements * view.dtype().size();
        let aligned = |view: &&TensorRef<'_>| {
            let access = bytes(view).min(16);
            let stride = view.row_stride().wrapping_mul(view.dtype().size());
            view.address().is_multiple_of(access as u64)
                && (view.rows() <= 1 || stride.is_multiple_of(access))
        };
        columns.is_multiple_of(self.elements)
            && read.iter().all(|view| bytes(view) <= 16)
            && read.iter().chain(written).all(aligned)
    }
}

/// One kernel for each kind of chunk.
#[derive(Debug)]
pub(super) struct ChunkKernels([Kernel; 3]);

impl ChunkKernels {
    /// Of names that begin with `stem`.
    pub(super) fn load(stream: &Stream, module: &'static str, stem: &str) -> Result<Self> {
        let load = |chunk: Chunk| stream.kernel(module, &format!("{stem}_{}", chunk.name));
        let [wide, narrow, spread] = CHUNKS;
        Ok(Self([load(wide)?, load(narrow)?, load(spread)?]))
    }

    pub(super) fn choose(
        &self,
        columns: usize,
        read: &[&TensorRef<'_>],
        written: &[&TensorRef<'_>],
    ) -> (Chunk, &Kernel) {
        let best = CHUNKS
            .iter()
            .position(|chunk| chunk.fits(columns, read, written))
            .unwrap_or(CHUNKS.len() - 1);
        (CHUNKS[best], &self.0[best])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, DeviceId};

    fn view(dtype: DType, address: u64, shape: [usize; 2], stride: usize) -> TensorRef<'static> {
        // SAFETY: never read.
        unsafe { TensorRef::from_raw(DeviceId::CPU, dtype, address, &shape, Some(stride)) }.unwrap()
    }

    fn chosen(columns: usize, read: &[TensorRef<'_>], written: &[TensorRef<'_>]) -> &'static str {
        let (read, written): (Vec<_>, Vec<_>) = (read.iter().collect(), written.iter().collect());
        let fits = |chunk: &&Chunk| chunk.fits(columns, &read, &written);
        CHUNKS.iter().find(fits).unwrap().name
    }

    #[test]
    fn chunks_are_as_wide_as_the_tensors_allow() {
        let half = |address, columns, stride| view(DType::Bf16, address, [4, columns], stride);
        let float = |address, columns, stride| view(DType::F32, address, [4, columns], stride);
        let plain = half(4096, 64, 64);
        assert_eq!(chosen(64, &[plain], &[plain]), "c8");
        assert_eq!(chosen(64, &[plain], &[float(4096, 64, 64)]), "c8");
        assert_eq!(chosen(64, &[float(4096, 64, 64)], &[plain]), "c4");
        assert_eq!(
            chosen(60, &[half(4096, 60, 64)], &[half(4096, 60, 64)]),
            "c4"
        );
        assert_eq!(chosen(64, &[half(4104, 64, 64)], &[plain]), "c4");
        assert_eq!(chosen(64, &[half(4096, 64, 68)], &[plain]), "c4");
        assert_eq!(chosen(64, &[half(4096, 64, 66)], &[plain]), "s4");
        assert_eq!(chosen(64, &[plain], &[half(4098, 64, 64)]), "s4");
        assert_eq!(
            chosen(62, &[half(4096, 62, 64)], &[half(4096, 62, 64)]),
            "s4"
        );
        assert_eq!(chosen(64, &[float(4100, 64, 64)], &[plain]), "s4");
        // One row has no stride to speak of.
        let row = view(DType::Bf16, 4096, [1, 64], 67);
        assert_eq!(chosen(64, &[row], &[row]), "c8");
    }
}
