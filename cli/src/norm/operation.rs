//! The row operations by name, and the devices that have them.

use evenkeel::DeviceKind;

/// A row operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `RmsNorm` and `LayerNorm`, with a residual or without.
    Norm,
    /// The same over attention heads, with a rotary embedding.
    HeadNorm,
    /// Times the silu of a gate.
    GatedNorm,
    /// Scale-Distribution Decoupling.
    Sdd,
    /// Softmax, log-softmax and `StableMax`.
    Softmax,
    /// Dynamic tanh.
    Dyt,
    /// The power iteration of sigmaReparam.
    SpectralNorm,
    /// The variability of an embedding table.
    Tev,
}

/// The operations that have kernels; the others are proved on the CPU alone.
const KERNELS: &[Operation] = &[
    Operation::Norm,
    Operation::HeadNorm,
    Operation::GatedNorm,
    Operation::Sdd,
    Operation::Softmax,
    Operation::Dyt,
    Operation::SpectralNorm,
    Operation::Tev,
];

impl Operation {
    /// Whether devices of this kind have it.
    #[must_use]
    pub fn is_on(self, kind: DeviceKind) -> bool {
        kind == DeviceKind::Cpu || KERNELS.contains(&self)
    }
}
