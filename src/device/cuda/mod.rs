//! GPUs, through the CUDA driver.

pub(crate) mod driver;
mod kernel;
mod stream;
#[cfg(feature = "matmul")]
mod tensor_map;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use cudarc::driver::{CudaContext, result, sys};

#[cfg(feature = "matmul")]
pub(super) use self::tensor_map::encode_tensor_map;
pub(crate) use self::{
    driver::check,
    kernel::CudaKernel,
    stream::{CudaMemory, CudaWork},
};
use super::{DeviceId, DeviceKind, launch::Limits, modules};
use crate::{Error, Result};

/// The oldest compute capability that the kernels run on.
const OLDEST: (u32, u32) = (8, 0);

/// A CUDA context with what is known of its GPU and the modules loaded into it.
///
/// There is one for each context of the driver, however many [`super::Device`]s and streams use it,
/// so that a module is loaded once. It is kept until the program ends: a captured graph replays
/// kernels of its modules long after the last stream of this crate is gone.
pub(crate) struct Context {
    /// Keeps the driver's context alive, and binds it to threads.
    cudarc: Arc<CudaContext>,
    name: String,
    capability: (u32, u32),
    limits: Limits,
    multiprocessors: u32,
    modules: Mutex<HashMap<&'static str, kernel::LoadedModule>>,
}

/// Every context that was used.
static CONTEXTS: Mutex<Vec<Arc<Context>>> = Mutex::new(Vec::new());

impl Context {
    /// The primary context of a GPU.
    pub(crate) fn open(ordinal: usize) -> Result<Arc<Context>> {
        require()?;
        let count = check("cuDeviceGetCount", result::device::get_count())?;
        if i32::try_from(ordinal).is_ok_and(|ordinal| ordinal < count) {
            let context = check("cuDevicePrimaryCtxRetain", CudaContext::new(ordinal))?;
            return Context::of(&context);
        }
        Err(Error::argument(
            "Device::cuda",
            "ordinal",
            format!("less than {count}, the GPUs that the driver shows"),
            ordinal.to_string(),
        ))
    }

    /// What this crate keeps for a context of cudarc's, which may be someone else's.
    pub(crate) fn of(cudarc: &Arc<CudaContext>) -> Result<Arc<Context>> {
        require()?;
        let id = id_of(cudarc);
        let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = contexts.iter().find(|context| context.id() == id) {
            return Ok(context.clone());
        }
        let context = Arc::new(Context::new(cudarc.clone())?);
        contexts.push(context.clone());
        Ok(context)
    }

    fn new(cudarc: Arc<CudaContext>) -> Result<Context> {
        use sys::CUdevice_attribute as Attribute;
        let attribute = |which| -> Result<u32> {
            let value = check("cuDeviceGetAttribute", cudarc.attribute(which))?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let name = check("cuDeviceGetName", cudarc.name())?;
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if capability < OLDEST {
            return Err(Error::unsupported(
                "Device::cuda",
                format!(
                    "{name} (compute capability {}.{})",
                    capability.0, capability.1
                ),
                format!(
                    "the kernels need {}.{} or newer (A100 and later); use Device::cpu() here",
                    OLDEST.0, OLDEST.1
                ),
            ));
        }
        let limits = Limits {
            shared_bytes: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            // 8 is portable; 16 by permission, which every kernel is given when it is loaded. (CUDA
            // programming guide, thread block clusters.)
            cluster: if capability.0 >= 9 { 16 } else { 1 },
        };
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        Ok(Context {
            cudarc,
            name,
            capability,
            limits,
            multiprocessors,
            modules: Mutex::new(HashMap::new()),
        })
    }

    pub(crate) fn id(&self) -> DeviceId {
        id_of(&self.cudarc)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn capability(&self) -> (u32, u32) {
        self.capability
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn cudarc(&self) -> &Arc<CudaContext> {
        &self.cudarc
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({:?}, {})", self.id(), self.name)
    }
}

/// What tells a context from others, by the driver's handle: two objects of cudarc may stand for
/// one context.
pub(crate) fn id_of(context: &CudaContext) -> DeviceId {
    DeviceId {
        kind: DeviceKind::Cuda,
        ordinal: u32::try_from(context.ordinal()).unwrap_or(u32::MAX),
        context: context.cu_ctx() as u64,
    }
}

/// That there are a driver and kernels.
fn require() -> Result<()> {
    driver::require()?;
    match modules::NOT_BUILT {
        None => Ok(()),
        Some(reason) => Err(Error::NotBuilt {
            reason: reason.into(),
        }),
    }
}
