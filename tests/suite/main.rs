//! The one test binary: every test program embeds the kernels, so there is one.

mod device;
