//! Streams, and memory that belongs to them.

use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use cudarc::driver::{CudaEvent, CudaStream, SyncOnDrop, result, sys};

use super::{Context, CudaKernel, check, driver::check_allocation};
use crate::{
    Error, Result, Status, TensorMut, TensorRef,
    device::{launch::LaunchConfig, stream::Inner},
    interop::access::{Source, SourceMut},
};

/// The handle that means a different queue on each thread.
const PER_THREAD_STREAM: usize = 2;

/// A stream of the driver, its status word, and what waits to be freed.
pub(crate) struct CudaWork {
    context: Arc<Context>,
    stream: Arc<CudaStream>,
    /// Four bytes on the device.
    status: sys::CUdeviceptr,
    /// Memory that was given up while the stream was captured: freeing it then would become part of
    /// the graph.
    given_up: Mutex<Vec<sys::CUdeviceptr>>,
    /// Held while work is queued, so that no launch falls between reading and clearing the status
    /// word.
    queueing: Mutex<()>,
}

/// Memory on the device, freed in its stream's turn.
pub(crate) struct CudaMemory {
    address: sys::CUdeviceptr,
    bytes: usize,
    work: Arc<Inner>,
}

impl CudaWork {
    /// Takes on a stream, one of ours or someone else's.
    pub(crate) fn new(context: Arc<Context>, stream: Arc<CudaStream>) -> Result<CudaWork> {
        if stream.cu_stream() as usize == PER_THREAD_STREAM {
            return Err(Error::argument(
                "Stream::from_cudarc",
                "stream",
                "a stream that is the same on every thread",
                "the per-thread default stream",
            ));
        }
        let mut work = CudaWork {
            context,
            stream,
            status: 0,
            given_up: Mutex::new(Vec::new()),
            queueing: Mutex::new(()),
        };
        work.refuse_capture(
            "Device::stream",
            "create the stream before the capture begins",
        )?;
        work.status = work.allocate(size_of::<u32>())?;
        work.fill_zero(work.status, size_of::<u32>())?;
        Ok(work)
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) fn cudarc(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    pub(crate) fn handle(&self) -> sys::CUstream {
        self.stream.cu_stream()
    }

    pub(crate) fn status_address(&self) -> u64 {
        self.status
    }

    fn bind(&self) -> Result<()> {
        check("cuCtxSetCurrent", self.stream.context().bind_to_thread())
    }

    /// Whether work on the stream is recorded into a graph rather than done.
    fn is_capturing(&self) -> Result<bool> {
        let status = check("cuStreamIsCapturing", self.stream.capture_status())?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// A copy to or from the host would be replayed with a pointer that is long dead, and memory
    /// allocated in a graph belongs to the graph: both are refused while the stream is captured.
    fn refuse_capture(&self, op: &'static str, remedy: &str) -> Result<()> {
        if self.is_capturing()? {
            return Err(Error::unsupported(
                op,
                "a stream that is being captured into a graph",
                remedy,
            ));
        }
        Ok(())
    }

    fn allocate(&self, bytes: usize) -> Result<sys::CUdeviceptr> {
        self.bind()?;
        self.free_given_up();
        if self.stream.context().has_async_alloc() {
            // SAFETY: the stream is alive and its context is bound; the memory's contents are taken
            // for arbitrary.
            let address = unsafe { result::malloc_async(self.handle(), bytes) };
            check_allocation("cuMemAllocAsync", bytes, address)
        } else {
            // SAFETY: as above.
            let address = unsafe { result::malloc_sync(bytes) };
            check_allocation("cuMemAlloc", bytes, address)
        }
    }

    fn fill_zero(&self, address: sys::CUdeviceptr, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the memory was allocated with that many bytes and is alive in the stream's order.
        check("cuMemsetD8Async", unsafe {
            result::memset_d8_async(address, 0, bytes, self.handle())
        })
    }

    /// Gives memory back when the work queued so far is done.
    fn free(&self, address: sys::CUdeviceptr) {
        let capturing = self.bind().and_then(|()| self.is_capturing());
        match capturing {
            Ok(false) => self.free_now(address),
            // Unknown counts as captured: a leak until the stream is next used outside, never a
            // broken graph.
            Ok(true) | Err(_) => self.given_up().push(address),
        }
    }

    /// The context must be bound and the stream not captured.
    fn free_now(&self, address: sys::CUdeviceptr) {
        let context = self.stream.context();
        if context.has_async_alloc() {
            // SAFETY: allocated by `allocate` and given up by its owner; every use of it was
            // ordered with this stream when it was queued.
            context.record_err(unsafe { result::free_async(address, self.handle()) });
        } else {
            context.record_err(self.stream.synchronize());
            // SAFETY: as above, and the stream has come to its end.
            context.record_err(unsafe { result::free_sync(address) });
        }
    }

    /// The context must be bound and the stream not captured.
    fn free_given_up(&self) {
        let addresses = std::mem::take(&mut *self.given_up());
        for address in addresses {
            self.free_now(address);
        }
    }

    fn given_up(&self) -> std::sync::MutexGuard<'_, Vec<sys::CUdeviceptr>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, ()> {
        self.queueing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        self.refuse_capture("Stream::synchronize", "end the capture first")?;
        check("cuStreamSynchronize", self.stream.synchronize())?;
        self.free_given_up();
        Ok(())
    }

    pub(crate) fn take_status(&self) -> Result<Status> {
        self.refuse_capture("Stream::check", "end the capture first")?;
        self.bind()?;
        let mut bits = [0_u32];
        {
            let _queue = self.queue();
            // SAFETY: the status word is alive; the host's copy lives until the synchronisation
            // below.
            check("cuMemcpyDtoHAsync", unsafe {
                result::memcpy_dtoh_async(&mut bits, self.status, self.handle())
            })?;
            self.fill_zero(self.status, size_of::<u32>())?;
        }
        check("cuStreamSynchronize", self.stream.synchronize())?;
        Ok(Status::from_bits(bits[0]))
    }

    /// An event that marks the present end of the stream and can be timed.
    pub(crate) fn record(&self) -> Result<CudaEvent> {
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        check("cuEventRecord", self.stream.record_event(flags))
    }

    pub(crate) fn wait(&self, event: &CudaEvent) -> Result<()> {
        check("cuStreamWaitEvent", self.stream.wait(event))
    }

    /// Queues a launch in the order that its views' owners ask for.
    ///
    /// # Safety
    /// `params` must be the kernel's parameter, and address no memory but that of the views.
    pub(crate) unsafe fn launch<P: Pod>(
        &self,
        kernel: &CudaKernel,
        config: &LaunchConfig,
        params: &P,
        reads: &[TensorRef<'_>],
        writes: &mut [TensorMut<'_>],
    ) -> Result<()> {
        self.bind()?;
        let homes = self.other_homes(reads, writes)?;
        let _queue = self.queue();
        for home in &homes {
            check("cuStreamWaitEvent", self.stream.join(home))?;
        }
        // Guards cannot return errors; cudarc keeps them for the next check.
        let guard_errors = || {
            check(
                "a guard of a cudarc slice",
                self.stream.context().check_err(),
            )
        };
        let guards = self.guards(reads, writes);
        let launched = guard_errors().and_then(|()| {
            // SAFETY: passed on to the caller; the context is bound.
            unsafe { kernel.launch(self, config, params) }
        });
        // Each guard records an event behind the launch as it is dropped.
        drop(guards);
        for home in &homes {
            if let Err(error) = check("cuStreamWaitEvent", home.join(&self.stream)) {
                // The buffer's own stream cannot be told: the work must be over before the buffer
                // may be freed.
                check("cuStreamSynchronize", self.stream.synchronize())?;
                return Err(error);
            }
        }
        launched?;
        guard_errors()
    }

    /// The streams, other than this one, that own buffers among the views.
    fn other_homes(
        &self,
        reads: &[TensorRef<'_>],
        writes: &[TensorMut<'_>],
    ) -> Result<Vec<Arc<CudaStream>>> {
        let read = reads.iter().map(|view| view.source());
        let written = writes.iter().map(|view| view.as_ref().source());
        let mut homes: Vec<Arc<CudaStream>> = Vec::new();
        for source in read.chain(written) {
            let Source::Buffer(stream) = source else {
                continue;
            };
            let Inner::Cuda(home) = &*stream.inner else {
                continue;
            };
            let known = homes.iter().any(|other| other.cu_stream() == home.handle());
            if home.handle() == self.handle() || known {
                continue;
            }
            if home.is_capturing()? != self.is_capturing()? {
                return Err(Error::unsupported(
                    "launch",
                    "a captured stream together with a buffer of another stream",
                    "create the buffers of a captured operation on the captured stream",
                ));
            }
            homes.push(home.stream.clone());
        }
        Ok(homes)
    }

    /// What cudarc wants held while slices of its are used: waits for earlier uses now, and records
    /// this one later.
    fn guards<'v>(
        &'v self,
        reads: &'v [TensorRef<'_>],
        writes: &'v mut [TensorMut<'_>],
    ) -> Vec<SyncOnDrop<'v>> {
        let mut guards = Vec::new();
        for view in reads {
            if let Source::Cudarc(slice) = view.source() {
                guards.push(slice.acquire(&self.stream));
            }
        }
        for view in writes {
            if let SourceMut::Cudarc(slice) = view.source_mut() {
                guards.push(slice.acquire_mut(&self.stream));
            }
        }
        guards
    }
}

impl Drop for CudaWork {
    fn drop(&mut self) {
        if self.status != 0 {
            self.free(self.status);
        }
        // A stream that is still captured keeps its memory: nothing can be freed in its order any
        // more.
        if matches!(self.is_capturing(), Ok(false)) {
            self.free_given_up();
        }
    }
}

impl CudaMemory {
    /// `work` must be a CUDA stream's, and `bytes` not zero.
    pub(crate) fn new(work: &Arc<Inner>, bytes: usize, zeros: bool) -> Result<CudaMemory> {
        let stream = cuda(work)?;
        stream.refuse_capture("Buffer", "create buffers before the capture begins")?;
        let memory = CudaMemory {
            address: stream.allocate(bytes)?,
            bytes,
            work: work.clone(),
        };
        if zeros {
            stream.fill_zero(memory.address, bytes)?;
        }
        Ok(memory)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The address of a part, and as much of its length as there is memory.
    fn part(&self, offset: usize, length: usize) -> (sys::CUdeviceptr, usize) {
        let offset = offset.min(self.bytes);
        (
            self.address + offset as u64,
            length.min(self.bytes - offset),
        )
    }

    /// Waits for the stream and copies memory from `offset` on to the host.
    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) -> Result<()> {
        let stream = cuda(&self.work)?;
        stream.refuse_capture("Buffer::read", "end the capture first")?;
        stream.bind()?;
        let (address, length) = self.part(offset, data.len());
        // SAFETY: the memory is alive and has that many bytes; `data` is borrowed until the
        // synchronisation below.
        check("cuMemcpyDtoHAsync", unsafe {
            result::memcpy_dtoh_async(&mut data[..length], address, stream.handle())
        })?;
        check("cuStreamSynchronize", stream.stream.synchronize())
    }

    /// Copies `data` to `offset` in the stream's turn.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        let stream = cuda(&self.work)?;
        stream.refuse_capture("Buffer::write", "write before the capture begins")?;
        stream.bind()?;
        let (address, length) = self.part(offset, data.len());
        // SAFETY: the memory is alive and has that many bytes. Pageable memory is staged before the
        // call returns (CUDA driver API, "API synchronization behavior"); for pinned memory the
        // copy is waited for below.
        check("cuMemcpyHtoDAsync", unsafe {
            result::memcpy_htod_async(address, &data[..length], stream.handle())
        })?;
        if is_pinned(data) {
            check("cuStreamSynchronize", stream.stream.synchronize())?;
        }
        Ok(())
    }
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        if let Inner::Cuda(stream) = &*self.work {
            stream.free(self.address);
        }
    }
}

fn cuda(work: &Arc<Inner>) -> Result<&CudaWork> {
    match &**work {
        Inner::Cuda(stream) => Ok(stream),
        _ => Err(Error::argument(
            "Buffer",
            "stream",
            "a CUDA stream",
            "another",
        )),
    }
}

/// Whether the driver knows this host memory, so that it may copy from it after a call has
/// returned.
fn is_pinned(data: &[u8]) -> bool {
    let mut kind = 0_u32;
    // SAFETY: the attribute is an unsigned int; any address may be asked about.
    let result = unsafe {
        sys::cuPointerGetAttribute(
            (&raw mut kind).cast(),
            sys::CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
            data.as_ptr() as u64,
        )
    };
    result == sys::CUresult::CUDA_SUCCESS
}
