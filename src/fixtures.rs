//! What the tests of all operations share.

use crate::{Buffer, DType, Device, DeviceId, Error, Result, Stream, TensorMut, TensorRef};

pub(crate) fn cpu() -> Stream {
    Device::cpu().stream().unwrap()
}

/// The argument for which a call was refused.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T>) -> &'static str {
    match result {
        Err(Error::Argument { argument, .. }) => argument,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("accepted"),
    }
}

/// A view of a buffer to be written, beside others of it.
pub(crate) fn again<'a>(buffer: &Buffer) -> TensorMut<'a> {
    let view = buffer.view();
    let (dtype, address, shape) = (buffer.dtype(), view.address(), buffer.shape());
    // SAFETY: the tests keep their buffers while they use such views, and the calls refuse those of
    // them that overlap.
    unsafe { TensorMut::from_raw(DeviceId::CPU, dtype, address, shape, None) }.unwrap()
}

/// A view of another device's memory, which nothing reads.
pub(crate) fn elsewhere<'a>(dtype: DType, shape: &[usize]) -> TensorRef<'a> {
    let device = DeviceId::stand_in_for_tests();
    // SAFETY: the calls here refuse the view for its device and never look at its memory.
    unsafe { TensorRef::from_raw(device, dtype, 256, shape, None) }.unwrap()
}
