//! The emulated device: the CUDA kernels, compiled for the host and run under the checking
//! emulator.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use bytemuck::Pod;
use evenkeel_emulator::{Architecture, Emulator, Launch, Memory, MemoryError, Report, SyncSite};

use super::{
    DeviceId, DeviceKind,
    launch::{LaunchConfig, Limits},
    modules,
};
use crate::{Error, Result, Status};

/// The most reports a stream keeps; older ones are dropped.
const MAX_REPORTS: usize = 1024;

/// How an emulated device behaves.
///
/// ```
/// use evenkeel::{Device, EmulatorOptions, emulator::Architecture};
/// let options = EmulatorOptions::new().architecture(Architecture::sm_80()).seed(7);
/// assert_eq!(Device::emulated_with(options)?.compute_capability(), Some((8, 0)));
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct EmulatorOptions {
    architecture: Architecture,
    seed: u64,
    disabled_sites: Vec<SyncSite>,
}

impl Default for EmulatorOptions {
    fn default() -> EmulatorOptions {
        EmulatorOptions {
            architecture: Architecture::sm_90(),
            seed: 0,
            disabled_sites: Vec::new(),
        }
    }
}

impl EmulatorOptions {
    /// An H100, with the schedule of seed 0 and every synchronisation in force.
    pub fn new() -> EmulatorOptions {
        EmulatorOptions::default()
    }

    /// The GPU whose limits hold.
    pub fn architecture(mut self, architecture: Architecture) -> EmulatorOptions {
        self.architecture = architecture;
        self
    }

    /// Where the order of threads and asynchronous copies is drawn from; every launch starts from
    /// it anew.
    pub fn seed(mut self, seed: u64) -> EmulatorOptions {
        self.seed = seed;
        self
    }

    /// Synchronisation calls of the kernels that do nothing, to see that the tests notice.
    pub fn disabled_sites(mut self, sites: Vec<SyncSite>) -> EmulatorOptions {
        self.disabled_sites = sites;
        self
    }
}

/// An emulator with its options.
pub(crate) struct EmulatedDevice {
    emulator: Emulator,
    options: EmulatorOptions,
    number: u32,
}

impl EmulatedDevice {
    pub(crate) fn new(options: EmulatorOptions) -> EmulatedDevice {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        EmulatedDevice {
            emulator: Emulator::new(options.architecture.clone()),
            options,
            number: COUNT.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(crate) fn id(&self) -> DeviceId {
        DeviceId {
            kind: DeviceKind::Emulated,
            ordinal: self.number,
            context: 0,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("emulated {}", self.options.architecture.name)
    }

    pub(crate) fn capability(&self) -> (u32, u32) {
        self.options.architecture.compute
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        self.emulator.alloc(bytes).map_err(|error| match error {
            MemoryError::OutOfMemory { bytes } => Error::OutOfMemory {
                bytes: bytes as u64,
            },
            other => in_buffer(other),
        })
    }
}

/// A block of the emulator's memory.
pub(crate) struct EmulatedMemory {
    memory: Memory,
    /// Bytes per element, for messages.
    element: usize,
}

impl EmulatedMemory {
    pub(crate) fn new(
        stream: &EmulatedStream,
        bytes: usize,
        element: usize,
        zeros: bool,
    ) -> Result<EmulatedMemory> {
        let memory = stream.device.allocate(bytes)?;
        if zeros {
            memory.fill(0, bytes, 0).map_err(in_buffer)?;
        }
        Ok(EmulatedMemory { memory, element })
    }

    pub(crate) fn address(&self) -> u64 {
        self.memory.addr()
    }

    /// Copies to the host what kernels or the host have written, and reports what nothing wrote.
    pub(crate) fn read(&self, op: &str, offset: usize, data: &mut [u8]) -> Result<()> {
        let missing = self.memory.first_uninitialised(offset, data.len());
        if let Some(missing) = missing.map_err(in_buffer)? {
            let element = missing / self.element;
            return Err(Error::Findings {
                kernel: op.into(),
                findings: vec![format!(
                    "Uninitialised in {op}: element {element} was never written"
                )],
            });
        }
        self.memory.read(offset, data).map_err(in_buffer)
    }

    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        self.memory.write(offset, data).map_err(in_buffer)
    }
}

/// The emulator's stream. Work on it is done when the call returns.
pub(crate) struct EmulatedStream {
    device: Arc<EmulatedDevice>,
    status: Memory,
    reports: Mutex<VecDeque<Report>>,
}

impl EmulatedStream {
    pub(crate) fn new(device: Arc<EmulatedDevice>) -> Result<EmulatedStream> {
        let status = device.allocate(size_of::<u32>())?;
        status.fill(0, size_of::<u32>(), 0).map_err(in_buffer)?;
        Ok(EmulatedStream {
            device,
            status,
            reports: Mutex::new(VecDeque::new()),
        })
    }

    pub(crate) fn status_address(&self) -> u64 {
        self.status.addr()
    }

    pub(crate) fn take_status(&self) -> Result<Status> {
        let mut bits = [0; size_of::<u32>()];
        self.status.read(0, &mut bits).map_err(in_buffer)?;
        self.status.fill(0, bits.len(), 0).map_err(in_buffer)?;
        Ok(Status::from_bits(u32::from_ne_bytes(bits)))
    }

    pub(crate) fn take_reports(&self) -> Vec<Report> {
        self.reports().drain(..).collect()
    }

    fn reports(&self) -> std::sync::MutexGuard<'_, VecDeque<Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kernel(&self, module: &'static str, name: &str) -> Result<EmulatedKernel> {
        let missing = || Error::NotBuilt {
            reason: format!("module {module} has no kernel {name} for the emulator"),
        };
        let table = modules::find(module)?.host.ok_or_else(missing)?;
        // SAFETY: the build script compiled the table with the emulator's flags.
        let kernels = unsafe { evenkeel_emulator::Kernel::table(table) };
        let kernel = kernels.into_iter().find(|kernel| kernel.name() == name);
        Ok(EmulatedKernel {
            kernel: kernel.ok_or_else(missing)?,
            device: self.device.clone(),
        })
    }

    pub(crate) fn launch<P: Pod>(
        &self,
        kernel: &EmulatedKernel,
        config: &LaunchConfig,
        params: &P,
    ) -> Result<()> {
        let params = bytemuck::bytes_of(params);
        if params.len() != kernel.kernel.params_bytes() as usize {
            return Err(Error::argument(
                "launch",
                "params",
                format!(
                    "the {} bytes that {} takes",
                    kernel.kernel.params_bytes(),
                    kernel.name()
                ),
                format!("{} bytes", params.len()),
            ));
        }
        let report = self
            .device
            .emulator
            .launch(&kernel.kernel, &kernel.launch(config), params);
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        let mut reports = self.reports();
        if reports.len() == MAX_REPORTS {
            reports.pop_front();
        }
        reports.push_back(report);
        if findings.is_empty() {
            return Ok(());
        }
        Err(Error::Findings {
            kernel: kernel.name().into(),
            findings,
        })
    }
}

/// The emulator's words for a tile that was checked.
#[cfg(feature = "matmul")]
pub(super) fn encode_tensor_map(
    tile: &super::tensor_map::TensorTile<'_>,
    kind: super::tensor_map::MapType,
) -> Result<[u64; 16]> {
    use evenkeel_emulator::{TensorMap, TensorMapElement, TensorMapSwizzle, TensorTile};

    use super::tensor_map::{MapType, Swizzle};
    let encoded = TensorMap::encode(&TensorTile {
        address: tile.address,
        element: match kind {
            MapType::U8 => TensorMapElement::U8,
            MapType::Bf16 => TensorMapElement::Bf16,
            MapType::F16 => TensorMapElement::F16,
            MapType::F32 => TensorMapElement::F32,
        },
        dims: tile.dims.to_vec(),
        strides: tile.strides.to_vec(),
        tile: tile.tile.to_vec(),
        swizzle: match tile.swizzle {
            Swizzle::None => TensorMapSwizzle::None,
            Swizzle::B32 => TensorMapSwizzle::B32,
            Swizzle::B64 => TensorMapSwizzle::B64,
            Swizzle::B128 => TensorMapSwizzle::B128,
        },
    });
    match encoded {
        Ok(map) => Ok(map.words()),
        // Checked before; said as an error rather than a panic.
        Err(error) => Err(Error::argument(
            "Stream::tensor_map",
            "tile",
            "what the emulator encodes",
            error.to_string(),
        )),
    }
}

/// A kernel compiled for the host.
#[derive(Clone)]
pub(crate) struct EmulatedKernel {
    kernel: evenkeel_emulator::Kernel,
    device: Arc<EmulatedDevice>,
}

impl EmulatedKernel {
    pub(crate) fn name(&self) -> &str {
        self.kernel.name()
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.device.id()
    }

    pub(crate) fn limits(&self) -> Limits {
        let architecture = &self.device.options.architecture;
        Limits {
            shared_bytes: architecture.shared_per_block,
            cluster: architecture.max_cluster_non_portable,
        }
    }

    pub(crate) fn max_active_clusters(&self, config: &LaunchConfig) -> u32 {
        self.device
            .emulator
            .max_active_clusters(&self.kernel, &self.launch(config))
    }

    fn launch(&self, config: &LaunchConfig) -> Launch {
        let options = &self.device.options;
        Launch::default()
            .grid([config.grid, 1, 1])
            .block([config.block, 1, 1])
            .non_portable_cluster(true)
            .cluster([config.cluster, 1, 1])
            .shared_bytes(config.shared_bytes)
            .seed(options.seed)
            .disabled_sites(options.disabled_sites.clone())
    }
}

/// A host access outside of a buffer, which the buffer's own checks rule out.
fn in_buffer(error: MemoryError) -> Error {
    Error::Findings {
        kernel: "the host".into(),
        findings: vec![error.to_string()],
    }
}
