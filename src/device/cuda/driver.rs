//! Whether there is a driver, and what its errors mean.

use std::{ffi::c_int, sync::OnceLock};

use cudarc::driver::{DriverError, result, sys};

use crate::{Error, Result, device::modules};

/// The driver's library, where cudarc looks for it too.
const LIBRARIES: &[&str] = if cfg!(windows) {
    &["nvcuda.dll"]
} else {
    &["libcuda.so", "libcuda.so.1"]
};

/// The newest of the functions that this crate calls, directly or through cudarc. cudarc looks a
/// function up when it is first called and panics if it is not there; a driver that has these has
/// the older ones.
const FUNCTIONS: &[&str] = &[
    "cuInit",
    "cuGetErrorName",
    "cuMemAllocAsync",
    "cuStreamIsCapturing",
    "cuLaunchKernelEx",
    "cuOccupancyMaxActiveClusters",
    "cuTensorMapEncodeTiled",
    "cuEventElapsedTime_v2",
];

/// The first driver branch of a CUDA major version, for messages. (NVIDIA, CUDA toolkit release
/// notes, table of minimum driver versions under minor-version compatibility.)
fn driver_branch(cuda_major: u32) -> &'static str {
    match cuda_major {
        ..=11 => "450",
        12 => "525",
        13 => "580",
        _ => "a newer one",
    }
}

/// That a driver is installed, initialises, and is new enough for the kernels; found out once per
/// process.
pub(super) fn require() -> Result<()> {
    static ANSWER: OnceLock<Result<()>> = OnceLock::new();
    ANSWER.get_or_init(probe).clone()
}

fn probe() -> Result<()> {
    let mut tried = Vec::new();
    let mut library = None;
    for &name in LIBRARIES {
        // SAFETY: loading the driver's library runs its initialisers, as every CUDA program does.
        match unsafe { libloading::Library::new(name) } {
            Ok(found) => {
                library = Some(found);
                break;
            }
            Err(_) => tried.push(name),
        }
    }
    let Some(library) = library else {
        return Err(Error::NoDriver {
            tried: format!("{} could not be loaded", tried.join(" and ")),
        });
    };
    let version = version(&library)?;
    // A build without kernels can still say which driver is here; that nothing was built is found
    // out next.
    let (major, minor) = modules::CUDA_RELEASE;
    if version / 1000 < major {
        return Err(Error::unsupported(
            "Device::cuda",
            format!(
                "a driver for CUDA {}.{} (the kernels were compiled with CUDA {major}.{minor})",
                version / 1000,
                version % 1000 / 10
            ),
            format!("install driver {} or newer", driver_branch(major)),
        ));
    }
    for name in FUNCTIONS {
        // SAFETY: the symbol is only asked for, never called through this type.
        if unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err() {
            return Err(Error::unsupported(
                "Device::cuda",
                format!(
                    "a driver for CUDA {}.{}, which has no {name}",
                    version / 1000,
                    version % 1000 / 10
                ),
                format!("install driver {} or newer", driver_branch(13)),
            ));
        }
    }
    result::init().map_err(|error| Error::NoDriver {
        tried: format!(
            "the driver for CUDA {}.{} is installed, but cuInit fails with {}",
            version / 1000,
            version % 1000 / 10,
            name(error)
        ),
    })
}

/// The CUDA version that the driver speaks, as 1000 * major + 10 * minor.
fn version(library: &libloading::Library) -> Result<u32> {
    type DriverGetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;
    // SAFETY: this is the function's C signature; it may be called before cuInit and writes one
    // int.
    let (code, version) = unsafe {
        let function = library
            .get::<DriverGetVersion>(b"cuDriverGetVersion")
            .map_err(|_| Error::NoDriver {
                tried: "the library that was found has no cuDriverGetVersion".into(),
            })?;
        let mut version: c_int = 0;
        (function(&mut version), version)
    };
    match u32::try_from(version) {
        Ok(version) if code == 0 => Ok(version),
        _ => Err(Error::NoDriver {
            tried: format!("the library that was found gives no version (error {code})"),
        }),
    }
}

/// The driver's name for an error.
fn name(error: DriverError) -> String {
    match error.error_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    }
}

/// A driver call's result in this crate's words.
pub(crate) fn check<T>(
    call: &'static str,
    result: std::result::Result<T, DriverError>,
) -> Result<T> {
    result.map_err(|error| Error::Cuda {
        call,
        code: error.0 as u32,
        name: name(error),
    })
}

/// As [`check`], for a call that takes `bytes` of memory.
pub(super) fn check_allocation<T>(
    call: &'static str,
    bytes: usize,
    result: std::result::Result<T, DriverError>,
) -> Result<T> {
    match result {
        Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(Error::OutOfMemory {
            bytes: bytes as u64,
        }),
        result => check(call, result),
    }
}
