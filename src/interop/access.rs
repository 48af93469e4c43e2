//! How a view's memory is ordered with work on other streams.

use crate::device::Stream;

/// Who orders the work on a view that is read.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Host slices and raw pointers: the caller, or the borrow checker.
    Unmanaged,
    /// A buffer of this crate: its own stream.
    Buffer(&'a Stream),
}

/// Who orders the work on a view that is written.
pub(crate) enum SourceMut<'a> {
    /// Host slices and raw pointers: the caller, or the borrow checker.
    Unmanaged,
    /// A buffer of this crate: its own stream.
    Buffer(&'a Stream),
}

impl SourceMut<'_> {
    pub(crate) fn reborrow(&mut self) -> SourceMut<'_> {
        match self {
            SourceMut::Unmanaged => SourceMut::Unmanaged,
            SourceMut::Buffer(stream) => SourceMut::Buffer(stream),
        }
    }

    pub(crate) fn shared(&self) -> Source<'_> {
        match self {
            SourceMut::Unmanaged => Source::Unmanaged,
            SourceMut::Buffer(stream) => Source::Buffer(stream),
        }
    }
}
