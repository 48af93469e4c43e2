//! Delayed scaling on a device.

use bytemuck::{Pod, Zeroable};

use crate::device::launch::{Kernel, LaunchConfig};
use crate::reference::quant::delayed::Rule;
use crate::{Result, Stream, TensorMut, TensorRef};

const MODULE: &str = "quant_delayed";

/// Of a block; a warp a tensor.
const THREADS: u32 = 256;

/// `DelayedParams` of kernels/quant/delayed.cu.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct DelayedParams {
    amax: u64,
    history: u64,
    scales: u64,
    cursors: u64,
    largest: u64,
    tensors: u32,
    length: u32,
    most_recent: u32,
    power_of_two: u32,
}

const _: () = assert!(size_of::<DelayedParams>() == 56);

/// The loaded kernel of a state.
#[derive(Debug)]
pub(in crate::quant) struct DelayedKernels(Kernel);

impl DelayedKernels {
    pub(in crate::quant) fn load(stream: &Stream) -> Result<Self> {
        Ok(Self(stream.kernel(MODULE, "quant_delayed_update")?))
    }

    /// `state` is amax, history, scales and cursors.
    pub(in crate::quant) fn update(
        &self,
        stream: &Stream,
        rule: Rule,
        largest: TensorRef<'_>,
        mut state: [TensorMut<'_>; 4],
    ) -> Result<()> {
        let [amax, history, scales, cursors] = [0, 1, 2, 3].map(|at| state[at].address());
        let tensors = largest.elements() as u32;
        let params = DelayedParams {
            amax,
            history,
            scales,
            cursors,
            largest: largest.address(),
            tensors,
            length: rule.length as u32,
            most_recent: u32::from(rule.most_recent),
            power_of_two: u32::from(rule.power_of_two),
        };
        let config = LaunchConfig {
            grid: tensors.div_ceil(THREADS / 32),
            block: THREADS,
            cluster: 1,
            shared_bytes: 0,
        };
        // SAFETY: the parameters are the kernel's, made of these views: one number for each tensor,
        // and `length` of the history. The cursors are below the length, since the state begins
        // with 0, `restore` checks them and the kernel wraps them.
        unsafe { stream.launch(&self.0, config, &params, &[largest], &mut state) }
    }
}
