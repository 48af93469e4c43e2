//! Kernels compiled for the host.

use std::ffi::{CStr, c_char, c_void};

/// One row of the table a kernel file exports, as `cuda_emulator.h` declares it.
#[derive(Debug)]
#[repr(C)]
pub struct CudaEmulatorKernel {
    name: *const c_char,
    entry: Option<unsafe extern "C-unwind" fn(*const c_void)>,
    params_bytes: u32,
    max_threads: u32,
    file: *const c_char,
}

/// The function that returns a table and its length.
pub type KernelTable = unsafe extern "C" fn(*mut usize) -> *const CudaEmulatorKernel;

/// A kernel that can be launched.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    name: &'static str,
    file: &'static str,
    entry: unsafe extern "C-unwind" fn(*const c_void),
    params_bytes: u32,
    max_threads: u32,
}

impl Kernel {
    /// The kernels of a table. Rows without a name or an entry are left out.
    ///
    /// # Safety
    /// `table` is a function made by `CUDA_EMULATOR_TABLE` (or does what one does): it returns
    /// rows that live for the rest of the process, with NUL-terminated strings, and each entry was
    /// compiled with the flags of this crate and reads its parameters as `params_bytes` bytes.
    #[must_use]
    pub unsafe fn table(table: KernelTable) -> Vec<Kernel> {
        let mut count = 0;
        // SAFETY: by the contract; `count` is a valid place for the length.
        let rows = unsafe { table(&raw mut count) };
        if rows.is_null() {
            return Vec::new();
        }
        // SAFETY: by the contract the table has `count` rows that live forever.
        let rows = unsafe { std::slice::from_raw_parts(rows, count) };
        // SAFETY: by the contract the strings are NUL-terminated and live forever.
        let text = |p: *const c_char| unsafe { CStr::from_ptr::<'static>(p) }.to_str().ok();
        rows.iter()
            .filter(|row| !row.name.is_null())
            .filter_map(|row| {
                Some(Kernel {
                    name: text(row.name)?,
                    file: if row.file.is_null() {
                        ""
                    } else {
                        text(row.file)?
                    },
                    entry: row.entry?,
                    params_bytes: row.params_bytes,
                    max_threads: row.max_threads,
                })
            })
            .collect()
    }

    /// The exported name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The source file, as the compiler was given it.
    #[must_use]
    pub fn file(&self) -> &'static str {
        self.file
    }

    /// The size of the parameter struct in bytes.
    #[must_use]
    pub fn params_bytes(&self) -> u32 {
        self.params_bytes
    }

    /// The most threads a block of this kernel may have.
    #[must_use]
    pub fn max_threads(&self) -> u32 {
        self.max_threads
    }

    pub(crate) fn entry(&self) -> unsafe extern "C-unwind" fn(*const c_void) {
        self.entry
    }
}
