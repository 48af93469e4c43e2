//! The operations on low-bit formats by name, and the devices that have them.

use evenkeel::DeviceKind;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Elements and scales from values.
    Quantize,
    /// Values from elements and scales.
    Dequantize,
    /// SwiGLU and GELU, and their gradients.
    Activation,
    /// The same, their results quantised as they are computed.
    QuantizedActivation,
}

/// The operations that have kernels; the others are proved on the CPU alone.
const KERNELS: &[Operation] = &[
    Operation::Quantize,
    Operation::Dequantize,
    Operation::Activation,
    Operation::QuantizedActivation,
];

impl Operation {
    /// Whether devices of this kind have it.
    #[must_use]
    pub fn is_on(self, kind: DeviceKind) -> bool {
        kind == DeviceKind::Cpu || KERNELS.contains(&self)
    }
}
