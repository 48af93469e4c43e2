//! The low-bit formats: their problems and their comparison with the reference, bit for bit.

// One module for each operation.
