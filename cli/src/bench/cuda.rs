//! On a GPU: CUDA events around each call, inputs restored and the L2 cache flushed before it, and the
//! ceilings of the same number of bytes in the same run.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use evenkeel::interop::cudarc::driver::{CudaStream, DriverError, result, sys};
use evenkeel::{Buffer, DType, Device, Error, Event, Result, Stream};

use super::record::{Ceilings, Times};
use crate::memory::upload;
use crate::random::Random;

const PTX: &str = concat!(include_str!("bandwidth.ptx"), "\0");

/// Written before each repetition: more than twice the L2 cache of any GPU there is (126 MB).
const FLUSH_BYTES: usize = 320 << 20;

/// Random values that are drawn once and laid end to end; prime, so that rows differ.
const POOL: usize = (1 << 22) + 15;

/// A GPU to measure on.
pub struct Gpu {
    stream: Stream,
    raw: Arc<CudaStream>,
    read: sys::CUfunction,
    copy: sys::CUfunction,
    flush: Buffer,
    sink: Buffer,
    repetitions: usize,
}

fn driver(call: &'static str, error: DriverError) -> Error {
    Error::Cuda {
        call,
        code: error.0 as u32,
        name: format!("{:?}", error.0),
    }
}

impl Gpu {
    /// A stream of the device, and the kernels of the ceilings.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(device: &Device, repetitions: usize) -> Result<Self> {
        let stream = device.stream()?;
        let Some(raw) = stream.cudarc().cloned() else {
            return Err(Error::Unsupported {
                op: "bench",
                what: format!("CUDA events on {device}"),
                remedy: "measure on a CUDA device".into(),
            });
        };
        raw.context()
            .bind_to_thread()
            .map_err(|error| driver("cuCtxSetCurrent", error))?;
        // SAFETY: the image is PTX text that ends with a zero byte; the context is current.
        let module = unsafe { result::module::load_data(PTX.as_ptr().cast::<c_void>()) }
            .map_err(|error| driver("cuModuleLoadData", error))?;
        let function = |name: &str| {
            let name = CString::new(name).unwrap_or_default();
            // SAFETY: the module was loaded above and is never unloaded: it lives with the program.
            unsafe { result::module::get_function(module, name) }
                .map_err(|error| driver("cuModuleGetFunction", error))
        };
        Ok(Self {
            read: function("bandwidth_read")?,
            copy: function("bandwidth_copy")?,
            flush: stream.zeros(DType::U8, &[FLUSH_BYTES])?,
            sink: stream.zeros(DType::U32, &[1])?,
            stream,
            raw,
            repetitions,
        })
    }

    /// Empties the L2 cache of what the work is about to read.
    fn flush(&self) -> Result<()> {
        let at = self.flush.view().address();
        // SAFETY: the buffer has this many bytes and lives as long as `self`; the stream is its own.
        unsafe { result::memset_d8_async(at, 0, FLUSH_BYTES, self.raw.cu_stream()) }
            .map_err(|error| driver("cuMemsetD8Async", error))
    }

    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Copies `bytes` of one buffer to another, each from its offset on, in the stream's turn.
    fn duplicate(
        &self,
        (from, begin): (&Buffer, usize),
        (to, offset): (&mut Buffer, usize),
        bytes: usize,
    ) -> Result<()> {
        let size = |buffer: &Buffer| buffer.elements() * buffer.dtype().size();
        assert!(
            begin + bytes <= size(from) && offset + bytes <= size(to),
            "a copy ends outside of its buffers"
        );
        let (source, target) = (
            from.view().address() + begin as u64,
            to.view_mut().address() + offset as u64,
        );
        // SAFETY: both ranges lie within their buffers, which the benchmark makes on this stream and
        // which outlive its work, since freeing a buffer takes its turn in the stream too.
        unsafe { result::memcpy_dtod_async(target, source, bytes, self.raw.cu_stream()) }
            .map_err(|error| driver("cuMemcpyDtoDAsync", error))
    }

    /// All of one buffer to another of its size.
    ///
    /// # Errors
    /// The driver's.
    pub fn restore(&self, from: &Buffer, to: &mut Buffer) -> Result<()> {
        self.duplicate((from, 0), (to, 0), from.elements() * from.dtype().size())
    }

    /// Microseconds of each repetition of `work`; `before` is not timed.
    ///
    /// # Errors
    /// Those of both, and the driver's.
    pub fn time(
        &self,
        mut before: impl FnMut() -> Result<()>,
        mut work: impl FnMut() -> Result<()>,
    ) -> Result<Vec<f64>> {
        const WARM_UP: usize = 3;
        let mut marks: Vec<(Event, Event)> = Vec::new();
        for repetition in 0..WARM_UP + self.repetitions {
            before()?;
            self.flush()?;
            let start = self.stream.record()?;
            work()?;
            let end = self.stream.record()?;
            if repetition >= WARM_UP {
                marks.push((start, end));
            }
        }
        self.stream.synchronize()?;
        marks
            .iter()
            .map(|(start, end)| end.elapsed_us(start))
            .collect()
    }

    fn bandwidth_kernel(
        &self,
        kernel: sys::CUfunction,
        from: &Buffer,
        to: u64,
        bytes: usize,
    ) -> Result<()> {
        let (mut source, mut vectors, mut other) = (from.view().address(), (bytes / 16) as u64, to);
        let mut params: [*mut c_void; 3] = [
            (&raw mut source).cast(),
            (&raw mut vectors).cast(),
            (&raw mut other).cast(),
        ];
        // Sixteen blocks of 256 threads for each of 132 multiprocessors: full on every GPU here.
        let (grid, block) = ((2112, 1, 1), (256, 1, 1));
        // SAFETY: the kernel takes three 64-bit values, which live to the end of the call; it reads
        // `bytes` of `from` and writes as many at `to`, or one word of the sink.
        unsafe { result::launch_kernel(kernel, grid, block, 0, self.raw.cu_stream(), &mut params) }
            .map_err(|error| driver("cuLaunchKernel", error))
    }

    /// The copy and read rates of this many bytes: the better of the driver's copy and a kernel's.
    ///
    /// # Errors
    /// The driver's; [`Error::OutOfMemory`] among them.
    pub fn ceilings(&self, bytes: usize) -> Result<Ceilings> {
        let bytes = bytes.next_multiple_of(16);
        let from = self.stream.zeros(DType::U8, &[bytes])?;
        let mut to = self.stream.zeros(DType::U8, &[bytes])?;
        let nothing = || Ok(());
        let by_driver = self.time(nothing, || self.restore(&from, &mut to))?;
        let address = to.view_mut().address();
        let by_kernel = self.time(nothing, || {
            self.bandwidth_kernel(self.copy, &from, address, bytes)
        })?;
        let sink = self.sink.view().address();
        let read = self.time(nothing, || {
            self.bandwidth_kernel(self.read, &from, sink, bytes)
        })?;
        let gbs = |us: Vec<f64>, passes: f64| {
            Times::of(us).map(|us| passes * bytes as f64 / us.median / 1e3)
        };
        let copies = [gbs(by_driver, 2.0), gbs(by_kernel, 2.0)];
        Ok(Ceilings {
            copy_gbs: copies.into_iter().flatten().reduce(f64::max),
            read_gbs: gbs(read, 1.0),
            ..Ceilings::default()
        })
    }

    /// Normally distributed values that [`fill`](Self::fill) draws from: `most` at most.
    ///
    /// # Errors
    /// The driver's.
    pub fn pool(&self, dtype: DType, most: usize, deviation: f64) -> Result<Buffer> {
        let mut random = Random::new(3);
        let values: Vec<f64> = (0..POOL.min(most))
            .map(|_| deviation * random.normal())
            .collect();
        upload(&self.stream, dtype, &[values.len()], &values)
    }

    /// A tensor of the pool's values, again and again, the first of them `begin`.
    ///
    /// # Errors
    /// The driver's; [`Error::OutOfMemory`] among them.
    pub fn fill(&self, pool: &Buffer, shape: &[usize], begin: usize) -> Result<Buffer> {
        let size = pool.dtype().size();
        let mut tensor = self.stream.uninitialised(pool.dtype(), shape)?;
        let (whole, piece) = (tensor.elements() * size, pool.elements() * size);
        let (mut from, mut to) = (begin * size % piece.max(1), 0);
        while to < whole {
            let bytes = (piece - from).min(whole - to);
            self.duplicate((pool, from), (&mut tensor, to), bytes)?;
            (from, to) = (0, to + bytes);
        }
        Ok(tensor)
    }
}
