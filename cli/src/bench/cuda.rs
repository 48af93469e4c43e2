//! On a GPU: CUDA events around each call, inputs restored and the L2 cache flushed before it, and the
//! ceilings of the same number of bytes in the same run.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use evenkeel::interop::cudarc::driver::{CudaStream, DriverError, result, sys};
use evenkeel::loss::{Counts, LossInputs, LossOutputs};
use evenkeel::{Buffer, DType, Device, Error, Event, Result, Stream};

use super::record::{Ceilings, Row, ShapeOf, Times};
use super::work::Work;
use crate::loss::Mode;
use crate::memory::upload;
use crate::random::Random;

const PTX: &str = concat!(include_str!("bandwidth.ptx"), "\0");

/// Written before each repetition: more than twice the L2 cache of any GPU there is (126 MB).
const FLUSH_BYTES: usize = 320 << 20;

/// Random logits that are drawn once and laid end to end; prime, so that rows differ.
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

    /// Copies `bytes` from one buffer to another, in the stream's turn.
    fn duplicate(&self, from: &Buffer, to: &mut Buffer, offset: usize, bytes: usize) -> Result<()> {
        let (source, target) = (
            from.view().address(),
            to.view_mut().address() + offset as u64,
        );
        debug_assert!(offset + bytes <= to.elements() * to.dtype().size());
        // SAFETY: both ranges lie within their buffers, which were made on this stream and outlive
        // its work, since freeing a buffer takes its turn in the stream too.
        unsafe { result::memcpy_dtod_async(target, source, bytes, self.raw.cu_stream()) }
            .map_err(|error| driver("cuMemcpyDtoDAsync", error))
    }

    /// Microseconds of each repetition of `work`; `before` is not timed.
    fn time(
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
        let by_driver = self.time(nothing, || self.duplicate(&from, &mut to, 0, bytes))?;
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

    /// Random logits of this shape.
    fn logits(&self, shape: ShapeOf, dtype: DType) -> Result<Buffer> {
        let mut random = Random::new(3);
        let pool: Vec<f64> = (0..POOL.min(shape.tokens * shape.vocab))
            .map(|_| 3.0 * random.normal())
            .collect();
        let pool = upload(&self.stream, dtype, &[pool.len()], &pool)?;
        let mut logits = self
            .stream
            .uninitialised(dtype, &[shape.tokens, shape.vocab])?;
        let (whole, piece) = (
            logits.elements() * dtype.size(),
            pool.elements() * dtype.size(),
        );
        for offset in (0..whole).step_by(piece) {
            self.duplicate(&pool, &mut logits, offset, piece.min(whole - offset))?;
        }
        self.stream.synchronize()?;
        Ok(logits)
    }

    /// One shape in one type: a row for each work.
    ///
    /// # Errors
    /// The library's and the driver's; [`Error::OutOfMemory`] among them.
    pub fn measure(
        &self,
        works: &[Work],
        shape: ShapeOf,
        dtype: DType,
        ceilings: &Ceilings,
    ) -> Result<Vec<Row>> {
        let pristine = self.logits(shape, dtype)?;
        let mut random = Random::new(4);
        let labels: Vec<i64> = (0..shape.tokens)
            .map(|_| random.below(shape.vocab as u64) as i64)
            .collect();
        let targets = self.stream.upload(&[shape.tokens], &labels)?;
        // The gradient apart; in place: the logits, restored each time.
        let mut memory = self
            .stream
            .uninitialised(dtype, &[shape.tokens, shape.vocab])?;
        let mut rows = Vec::new();
        for work in works {
            let us = Times::of(self.repeat(work, &pristine, &targets, &mut memory)?);
            let bytes = work.bytes(shape, dtype);
            let gbs = us.map(|us| bytes as f64 / us.median / 1e3);
            let ceiling = if work.mode == Mode::Forward {
                ceilings.read_gbs
            } else {
                ceilings.copy_gbs
            };
            rows.push(Row {
                op: "loss".into(),
                variant: work.name(),
                shape,
                dtype: dtype.to_string(),
                us,
                bytes,
                gbs,
                of_ceiling: gbs.zip(ceiling).map(|(gbs, ceiling)| gbs / ceiling),
                ..Row::default()
            });
        }
        self.stream.check()?;
        Ok(rows)
    }

    fn repeat(
        &self,
        work: &Work,
        pristine: &Buffer,
        targets: &Buffer,
        memory: &mut Buffer,
    ) -> Result<Vec<f64>> {
        let op = work.op().prepare(&self.stream)?;
        let tokens = targets.elements();
        let mut workspace = self
            .stream
            .uninitialised(DType::U8, &[op.workspace_bytes(tokens)])?;
        let mut loss = self.stream.zeros(DType::F32, &[1])?;
        let mut counts = self.stream.zeros(DType::U32, &[size_of::<Counts>() / 4])?;
        let mut statistics = Vec::new();
        if work.statistics {
            for statistic in evenkeel::loss::Statistic::ALL {
                statistics.push((statistic, self.stream.zeros(statistic.dtype(), &[tokens])?));
            }
        }
        let bytes = pristine.elements() * pristine.dtype().size();
        // Both closures of `time` use the memory, in turn.
        let memory = std::cell::RefCell::new(memory);
        let restore = || {
            if work.mode == Mode::InPlace {
                self.duplicate(pristine, &mut memory.borrow_mut(), 0, bytes)?;
            }
            Ok(())
        };
        self.time(restore, || {
            let mut memory = memory.borrow_mut();
            let inputs = LossInputs::new(targets.view());
            let mut outputs = LossOutputs::new(workspace.view_mut())
                .loss(loss.view_mut())
                .counts(counts.view_mut());
            for (statistic, values) in &mut statistics {
                outputs = outputs.statistic(*statistic, values.view_mut());
            }
            match work.mode {
                Mode::Forward => op.forward_into(pristine.view(), &inputs, &mut outputs),
                Mode::InPlace => {
                    op.forward_backward_in_place_into(memory.view_mut(), &inputs, &mut outputs)
                }
                _ => op.forward_backward_into(
                    pristine.view(),
                    memory.view_mut(),
                    &inputs,
                    &mut outputs,
                ),
            }
        })
    }
}
