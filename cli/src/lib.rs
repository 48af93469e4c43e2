//! The cases, tolerances and property suite shared by `verify`, the tests and the benchmarks.
