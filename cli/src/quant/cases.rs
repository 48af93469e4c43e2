//! What formats can be asked for.

use evenkeel::quant::{Format, QuantizeOptions, ScaleLayout, ScaleRounding, Scaling};

/// The layouts that a format's scales have.
#[must_use]
pub fn layouts(format: Format) -> Vec<ScaleLayout> {
    ScaleLayout::ALL
        .into_iter()
        .filter(|layout| layout.fits(format))
        // The one scale of a tensor lies where it lies.
        .filter(|&layout| {
            !matches!(format, Format::Fp8Tensor(_)) || layout == ScaleLayout::RowMajor
        })
        .collect()
}

/// Every way to make the scales of a format: current and given, powers of two, MX rounded up.
#[must_use]
pub fn scalings(format: Format) -> Vec<QuantizeOptions> {
    let plain = QuantizeOptions::new(format);
    let mut all = vec![plain];
    if format.has_f32_scales() {
        all.push(plain.power_of_two());
    }
    if format.needs_tensor_amax() {
        all.push(plain.scaling(Scaling::Given));
    }
    if matches!(format, Format::MxFp8(_) | Format::MxFp4) {
        all.push(plain.scale_rounding(ScaleRounding::Ceil));
    }
    all
}
