//! Raw pointers and streams: cust, cubecl, a C++ program, anything that can give a `CUstream` and a
//! `CUdeviceptr`.
//!
//! [`Stream::from_raw`] takes a stream's handle,
//! [`TensorRef::from_raw`](crate::TensorRef::from_raw) and
//! [`TensorMut::from_raw`](crate::TensorMut::from_raw) take addresses. All are `unsafe`: the caller
//! keeps the memory and the stream alive and orders the work.
//!
//! ```no_run
//! use evenkeel::{DType, Device, Stream, TensorMut};
//!
//! // From cust: `stream.as_inner()` and `device_buffer.as_device_ptr().as_raw()`.
//! # let (handle, address) = (std::ptr::null_mut(), 0x7f00_0000_0000);
//! let device = Device::cuda(0)?;
//! // SAFETY: the stream is of the device's primary context and outlives `stream` and its clones.
//! let stream = unsafe { Stream::from_raw(&device, handle)? };
//! let (shape, row_stride) = (&[2, 1000], Some(1024));
//! // SAFETY: the memory holds 2 x 1024 bf16; nothing else uses it until the stream has done its work.
//! let logits =
//!     unsafe { TensorMut::from_raw(device.id(), DType::Bf16, address, shape, row_stride)? };
//! # let _ = (stream, logits);
//! # Ok::<(), evenkeel::Error>(())
//! ```
//!
//! cust needs no feature of its own here: its primary context (`cust::quick_init`) is the one that
//! [`Device::cuda`] uses, and its handles are the driver's.

use std::ffi::c_void;

use cudarc::driver::sys;

use crate::{
    Error, Result,
    device::{Device, Stream, cuda::check},
};

impl Stream {
    /// Work on a stream of someone else's, by the driver's handle (`CUstream`, `cudaStream_t`).
    ///
    /// A null handle is the default stream.
    ///
    /// # Safety
    /// `stream` must be a stream in the device's context, and must outlive this object, its clones
    /// and its buffers.
    ///
    /// # Errors
    /// [`Error::Argument`] when the device is not a CUDA device, or the stream is of another
    /// context or the per-thread default stream; [`Error::Unsupported`] while the stream is
    /// captured into a graph.
    pub unsafe fn from_raw(device: &Device, stream: *mut c_void) -> Result<Stream> {
        const OP: &str = "Stream::from_raw";
        let Some(context) = device.as_cuda() else {
            return Err(Error::argument(
                OP,
                "device",
                "a CUDA device",
                device.to_string(),
            ));
        };
        let handle: sys::CUstream = stream.cast();
        check("cuCtxSetCurrent", context.cudarc().bind_to_thread())?;
        let mut owner: sys::CUcontext = std::ptr::null_mut();
        // SAFETY: the caller vouches for the stream; the result is written to a local variable.
        let asked = unsafe { sys::cuStreamGetCtx(handle, &mut owner) };
        check("cuStreamGetCtx", asked.result())?;
        if owner != context.cudarc().cu_ctx() {
            return Err(Error::argument(
                OP,
                "stream",
                format!("a stream of {:?}", device.id()),
                format!("a stream of context {:#x}", owner as u64),
            ));
        }
        // SAFETY: the stream belongs to this context; that it outlives the wrapper is the caller's
        // promise.
        let wrapped = unsafe { context.cudarc().wrap_borrowed_stream(handle) };
        Stream::cuda(device.clone(), wrapped)
    }
}
