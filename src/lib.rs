//! CUDA kernels that keep language-model training on an even keel.
