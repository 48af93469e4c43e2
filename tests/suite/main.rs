//! The one test binary: every test program embeds the kernels, so there is one.
//!
//! Tests that concern a device are functions of a [`Device`], named in [`on_every_device!`], which
//! makes one test of them for each device. EVENKEEL_TEST_DEVICE (`cpu`, `emulated`, `cuda`) leaves
//! only that device's tests, and makes it an error that the device is not there.

#[cfg(feature = "loss")]
mod capture;
mod device;
#[cfg(all(feature = "loss", target_os = "linux"))]
mod driver;
#[cfg(all(feature = "emulator", feature = "loss"))]
mod emulated;
mod golden;
#[cfg(feature = "loss")]
mod loss;
#[cfg(feature = "matmul")]
mod matmul;
#[cfg(all(
    feature = "emulator",
    feature = "loss",
    feature = "norm",
    feature = "quant"
))]
mod mutate;
#[cfg(feature = "norm")]
mod norm;
#[cfg(any(feature = "loss", feature = "norm", feature = "quant"))]
mod properties;
#[cfg(feature = "quant")]
mod quant;
mod support;
