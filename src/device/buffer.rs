//! Memory that belongs to a stream.

use std::{fmt, ops::Range};

#[cfg(feature = "emulator")]
use super::emulated::EmulatedMemory;
use super::{Stream, cpu::HostMemory, cuda::CudaMemory, stream::Inner};
use crate::{
    DType, Element, Error, Result, TensorMut, TensorRef,
    interop::access::{Source, SourceMut},
    tensor::{Layout, check_length, check_range},
};

/// Contiguous memory of a shape and type, owned.
///
/// A buffer belongs to the stream that made it. Used on another stream of the same device, it is
/// ordered with both: the other stream waits for what the buffer's own stream had queued, and the
/// buffer's own stream for the use. It is freed in its turn, when the work that uses it is done.
///
/// ```
/// use evenkeel::Device;
/// let stream = Device::cpu().stream()?;
/// let mut buffer = stream.upload(&[2, 2], &[1_u32, 2, 3, 4])?;
/// buffer.write(&[5_u32, 6, 7, 8])?;
/// assert_eq!(buffer.view().shape(), [2, 2]);
/// assert_eq!(buffer.read::<u32>()?, [5, 6, 7, 8]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
pub struct Buffer {
    memory: Memory,
    layout: Layout,
    stream: Stream,
}

/// What a new buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    Zeros,
    Uninitialised,
}

enum Memory {
    /// Nothing is allocated for zero bytes.
    Empty,
    Cpu(HostMemory),
    Cuda(CudaMemory),
    #[cfg(feature = "emulator")]
    Emulated(EmulatedMemory),
}

impl Buffer {
    pub(super) fn new(
        stream: &Stream,
        op: &'static str,
        dtype: DType,
        shape: &[usize],
        contents: Contents,
    ) -> Result<Buffer> {
        // Checked at a stand-in address first: the size must be known to be sound before it is
        // allocated.
        let device = stream.id();
        let stand_in = Layout::new(op, device, dtype, dtype.size() as u64, shape, None, None)?;
        let bytes = stand_in.bytes();
        let (memory, address) = if bytes == 0 {
            (Memory::Empty, 0)
        } else {
            match &*stream.inner {
                Inner::Cpu(_) => {
                    let memory = HostMemory::new(bytes)?;
                    let address = memory.address();
                    (Memory::Cpu(memory), address)
                }
                Inner::Cuda(_) => {
                    let zeros = contents == Contents::Zeros;
                    let memory = CudaMemory::new(&stream.inner, bytes, zeros)?;
                    let address = memory.address();
                    (Memory::Cuda(memory), address)
                }
                #[cfg(feature = "emulator")]
                Inner::Emulated(stream) => {
                    let zeros = contents == Contents::Zeros;
                    let memory = EmulatedMemory::new(stream, bytes, dtype.size(), zeros)?;
                    let address = memory.address();
                    (Memory::Emulated(memory), address)
                }
            }
        };
        let layout = Layout::new(op, device, dtype, address, shape, None, None)?;
        Ok(Buffer {
            memory,
            layout,
            stream: stream.clone(),
        })
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.layout.dtype()
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.layout.elements()
    }

    /// The stream that the buffer belongs to.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The whole buffer, for reading.
    pub fn view(&self) -> TensorRef<'_> {
        TensorRef::new(self.layout, Source::Buffer(&self.stream))
    }

    /// The whole buffer, for writing.
    pub fn view_mut(&mut self) -> TensorMut<'_> {
        TensorMut::new(self.layout, SourceMut::Buffer(&self.stream))
    }

    /// Waits for the buffer's stream and copies the elements to the host.
    ///
    /// # Errors
    /// - [`Error::Argument`] when `T` is not the buffer's type.
    /// - [`Error::Findings`] on the emulator, when something of it was never written.
    /// - What went wrong with earlier work on the stream, as [`Error::Cuda`].
    pub fn read<T: Element>(&self) -> Result<Vec<T>> {
        self.read_elements("Buffer::read", 0..self.elements())
    }

    /// As [`read`](Buffer::read), for a range of the elements in memory order.
    ///
    /// # Errors
    /// As [`read`](Buffer::read), and [`Error::Argument`] when the range is not within the buffer.
    pub fn read_range<T: Element>(&self, range: Range<usize>) -> Result<Vec<T>> {
        const OP: &str = "Buffer::read_range";
        check_range(OP, &range, self.elements())?;
        self.read_elements(OP, range)
    }

    fn read_elements<T: Element>(&self, op: &'static str, range: Range<usize>) -> Result<Vec<T>> {
        self.check_dtype(op, T::DTYPE)?;
        let mut data = vec![T::zeroed(); range.len()];
        if data.is_empty() {
            return Ok(data);
        }
        let offset = range.start * size_of::<T>();
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut data);
        match &self.memory {
            Memory::Empty => {}
            Memory::Cpu(memory) => {
                bytes.copy_from_slice(&memory.bytes()[offset..offset + bytes.len()]);
            }
            Memory::Cuda(memory) => memory.read(offset, bytes)?,
            #[cfg(feature = "emulator")]
            Memory::Emulated(memory) => memory.read(op, offset, bytes)?,
        }
        Ok(data)
    }

    /// Copies `data` over the whole buffer, in the stream's turn. The data may be dropped when the
    /// call returns.
    ///
    /// # Errors
    /// [`Error::Argument`] when type or number of the elements are not the buffer's.
    pub fn write<T: Element>(&mut self, data: &[T]) -> Result<()> {
        const OP: &str = "Buffer::write";
        self.check_dtype(OP, T::DTYPE)?;
        check_length(OP, self.layout.shape(), data.len())?;
        self.write_bytes(0, bytemuck::cast_slice(data))
    }

    /// As [`write`](Buffer::write), over as many elements as `data` has, from element `start` on in
    /// memory order.
    ///
    /// # Errors
    /// [`Error::Argument`] when the type is not the buffer's, or the data reaches beyond its end.
    pub fn write_range<T: Element>(&mut self, start: usize, data: &[T]) -> Result<()> {
        const OP: &str = "Buffer::write_range";
        self.check_dtype(OP, T::DTYPE)?;
        check_range(
            OP,
            &(start..start.saturating_add(data.len())),
            self.elements(),
        )?;
        if data.is_empty() {
            return Ok(());
        }
        self.write_bytes(start * size_of::<T>(), bytemuck::cast_slice(data))
    }

    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        match &mut self.memory {
            Memory::Empty => Ok(()),
            Memory::Cpu(memory) => {
                memory.bytes_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
            Memory::Cuda(memory) => memory.write(offset, bytes),
            #[cfg(feature = "emulator")]
            Memory::Emulated(memory) => memory.write(offset, bytes),
        }
    }

    fn check_dtype(&self, op: &'static str, dtype: DType) -> Result<()> {
        if dtype == self.dtype() {
            return Ok(());
        }
        Err(Error::argument(
            op,
            "T",
            format!("the buffer's type {}", self.dtype()),
            dtype.to_string(),
        ))
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Buffer({} {:?} on {})",
            self.dtype(),
            self.shape(),
            self.stream.device()
        )
    }
}
