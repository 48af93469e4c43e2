//! The emulator: an architecture, its memory, and launches.

use crate::architecture::Architecture;
use crate::exec::Context;
use crate::grid;
use crate::heap::{Heap, Memory, MemoryError};
use crate::kernel::Kernel;
use crate::launch::Launch;
use crate::report::Report;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the clones of an emulator and its buffers share.
#[derive(Debug)]
pub(crate) struct Shared {
    architecture: Architecture,
    heap: Mutex<Heap>,
    /// Clusters' stacks and shadow memory, kept from launch to launch.
    contexts: Mutex<Vec<Context>>,
}

impl Shared {
    pub(crate) fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An emulated GPU. Clones share its memory; launches and host accesses take turns.
#[derive(Clone, Debug)]
pub struct Emulator {
    shared: Arc<Shared>,
}

impl Emulator {
    /// A GPU of this architecture with empty memory.
    #[must_use]
    pub fn new(architecture: Architecture) -> Emulator {
        Emulator {
            shared: Arc::new(Shared {
                architecture,
                heap: Mutex::default(),
                contexts: Mutex::default(),
            }),
        }
    }

    /// The architecture launches are checked against.
    #[must_use]
    pub fn architecture(&self) -> &Architecture {
        &self.shared.architecture
    }

    /// A buffer of `bytes` bytes: sparse, not initialised, aligned to 4096 bytes.
    ///
    /// # Errors
    /// The system has no address space left.
    pub fn alloc(&self, bytes: usize) -> Result<Memory, MemoryError> {
        Memory::new(Arc::clone(&self.shared), bytes)
    }

    /// Runs a kernel to its end. What is wrong with it becomes a finding of the report; nothing a
    /// kernel does to memory it was not given ends the process.
    ///
    /// `params` are the bytes of the kernel's parameter struct, which is checked for its size.
    #[must_use]
    pub fn launch(&self, kernel: &Kernel, launch: &Launch, params: &[u8]) -> Report {
        let mut heap = self.shared.heap();
        let contexts = &self.shared.contexts;
        grid::launch(
            &self.shared.architecture,
            &mut heap,
            contexts,
            kernel,
            launch,
            params,
        )
    }

    /// Clusters of this launch that are resident at once; a launch without clusters counts blocks.
    /// 0 if the launch is not allowed at all. Registers are not known here, so hardware may have
    /// fewer.
    #[must_use]
    pub fn max_active_clusters(&self, kernel: &Kernel, launch: &Launch) -> u32 {
        launch.max_active_clusters(&self.shared.architecture, kernel)
    }
}
