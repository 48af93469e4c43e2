//! Modules, kernels and their launch.

use std::{
    collections::HashMap,
    ffi::{CString, c_void},
    mem::MaybeUninit,
    sync::{Arc, PoisonError},
};

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use super::{Context, CudaWork, check};
use crate::{
    Error, Result,
    device::{launch::LaunchConfig, modules},
};

/// A module in a context and the functions that were asked for.
pub(super) struct LoadedModule {
    module: sys::CUmodule,
    functions: HashMap<String, sys::CUfunction>,
}

// SAFETY: the handles belong to the context, not to a thread; every call binds the context first.
unsafe impl Send for LoadedModule {}

/// A function of a loaded module.
#[derive(Clone)]
pub(crate) struct CudaKernel {
    function: sys::CUfunction,
    context: Arc<Context>,
    name: String,
}

// SAFETY: a function's handle belongs to the context, not to a thread; every call binds the context
// first.
unsafe impl Send for CudaKernel {}
// SAFETY: as above; the handle is never changed.
unsafe impl Sync for CudaKernel {}

impl Context {
    /// A kernel of a module, both loaded at their first use: loading inside a stream capture may
    /// fail.
    pub(crate) fn kernel(self: &Arc<Self>, module: &'static str, name: &str) -> Result<CudaKernel> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        check("cuCtxSetCurrent", self.cudarc.bind_to_thread())?;
        if !modules.contains_key(module) {
            let loaded = self.load(module)?;
            modules.insert(module, loaded);
        }
        let Some(loaded) = modules.get_mut(module) else {
            // Inserted above; said as an error rather than a panic.
            return Err(Error::NotBuilt {
                reason: format!("module {module} was not loaded"),
            });
        };
        let function = match loaded.functions.get(name) {
            Some(function) => *function,
            None => {
                let function = self.function(loaded.module, module, name)?;
                loaded.functions.insert(name.into(), function);
                function
            }
        };
        Ok(CudaKernel {
            function,
            context: self.clone(),
            name: name.into(),
        })
    }

    fn load(&self, name: &'static str) -> Result<LoadedModule> {
        let Some(fatbin) = modules::find(name)?.fatbin else {
            return Err(Error::NotBuilt {
                reason: format!(
                    "{name} was not compiled for any of {}",
                    modules::TARGETS.join(", ")
                ),
            });
        };
        // SAFETY: the image is a fatbin from nvcc, aligned to 16 bytes, and lives as long as the
        // program.
        let module = unsafe { result::module::load_data(fatbin.as_ptr().cast()) };
        if let Err(error) = module
            && error.0 == sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
        {
            return Err(Error::unsupported(
                "Stream::kernel",
                format!(
                    "{name} on {}: it was compiled for {}",
                    self.name,
                    modules::TARGETS.join(", ")
                ),
                format!(
                    "build without EVENKEEL_CUDA_ARCHS, or with compute capability {}.{} in it",
                    self.capability.0, self.capability.1
                ),
            ));
        }
        Ok(LoadedModule {
            module: check("cuModuleLoadData", module)?,
            functions: HashMap::new(),
        })
    }

    /// Finds a function and gives it all the shared memory and the cluster sizes that the GPU has.
    fn function(
        &self,
        module: sys::CUmodule,
        module_name: &str,
        name: &str,
    ) -> Result<sys::CUfunction> {
        use sys::CUfunction_attribute_enum as Attribute;
        let c_name = CString::new(name).map_err(|_| {
            Error::argument(
                "Stream::kernel",
                "name",
                "without a zero byte",
                format!("{name:?}"),
            )
        })?;
        // SAFETY: the module is loaded and its context is bound.
        let function = unsafe { result::module::get_function(module, c_name) };
        if let Err(error) = function
            && error.0 == sys::CUresult::CUDA_ERROR_NOT_FOUND
        {
            return Err(Error::NotBuilt {
                reason: format!("module {module_name} has no kernel {name}"),
            });
        }
        let function = check("cuModuleGetFunction", function)?;
        let most = i32::try_from(self.limits.shared_bytes).unwrap_or(i32::MAX);
        // SAFETY: the function is of a loaded module and its context is bound. No kernel here has
        // static shared memory, so all of the GPU's limit is dynamic.
        check("cuFuncSetAttribute", unsafe {
            result::function::set_function_attribute(
                function,
                Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                most,
            )
        })?;
        if self.limits.cluster > 1 {
            // SAFETY: as above.
            check("cuFuncSetAttribute", unsafe {
                result::function::set_function_attribute(
                    function,
                    Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED,
                    1,
                )
            })?;
        }
        Ok(function)
    }
}

impl CudaKernel {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The clusters of this launch that the GPU holds at once; blocks, where there are no clusters.
    pub(crate) fn max_active_clusters(&self, config: &LaunchConfig) -> Result<u32> {
        check("cuCtxSetCurrent", self.context.cudarc.bind_to_thread())?;
        if config.cluster <= 1 {
            // SAFETY: the function is of a loaded module and its context is bound.
            let blocks = unsafe {
                result::occupancy::max_active_block_per_multiprocessor(
                    self.function,
                    i32::try_from(config.block).unwrap_or(i32::MAX),
                    config.shared_bytes as usize,
                )
            };
            let blocks = check("cuOccupancyMaxActiveBlocksPerMultiprocessor", blocks)?;
            return Ok(u32::try_from(blocks).unwrap_or(0) * self.context.multiprocessors);
        }
        let mut clusters = 0;
        with_config(config, std::ptr::null_mut(), |raw| {
            // SAFETY: as above; `raw` and the attribute that it points to live through the call.
            let result =
                unsafe { sys::cuOccupancyMaxActiveClusters(&mut clusters, self.function, raw) };
            match result {
                // A GPU, or a part of one, with too few multiprocessors together: it holds none.
                sys::CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE
                | sys::CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => Ok(()),
                other => check("cuOccupancyMaxActiveClusters", other.result()),
            }
        })?;
        Ok(u32::try_from(clusters).unwrap_or(0))
    }

    /// Queues the kernel. The context must be bound.
    ///
    /// # Safety
    /// `params` must be the kernel's parameter, and the memory that it points to must be what the
    /// kernel takes it for.
    pub(super) unsafe fn launch<P: Pod>(
        &self,
        stream: &CudaWork,
        config: &LaunchConfig,
        params: &P,
    ) -> Result<()> {
        let mut arguments = [std::ptr::from_ref(params).cast_mut().cast::<c_void>()];
        with_config(config, stream.handle(), |raw| {
            // SAFETY: the driver copies the parameter before it returns and does not write to it;
            // the rest is the caller's promise.
            let result = unsafe {
                sys::cuLaunchKernelEx(
                    raw,
                    self.function,
                    arguments.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            };
            check("cuLaunchKernelEx", result.result())
        })
    }
}

/// Calls `act` with the driver's form of a launch configuration.
fn with_config<T>(
    config: &LaunchConfig,
    stream: sys::CUstream,
    act: impl FnOnce(*const sys::CUlaunchConfig) -> T,
) -> T {
    // SAFETY: the attribute is plain C data whose fields may all be zero (the id 0 is "ignore").
    let mut attribute: sys::CUlaunchAttribute = unsafe { MaybeUninit::zeroed().assume_init() };
    attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim.x = config.cluster;
    attribute.value.clusterDim.y = 1;
    attribute.value.clusterDim.z = 1;
    let raw = sys::CUlaunchConfig {
        gridDimX: config.grid,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: config.block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: config.shared_bytes,
        hStream: stream,
        attrs: &mut attribute,
        numAttrs: u32::from(config.cluster > 1),
    };
    act(&raw)
}
