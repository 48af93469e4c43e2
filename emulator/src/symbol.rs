//! From return addresses to source lines.

use crate::report::Location;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Where the code at an address comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The innermost line outside the wrappers, if there is one.
    pub(crate) caller: Option<Location>,
    /// The innermost line of all.
    pub(crate) innermost: Option<Location>,
}

/// Headers that wrap primitives: the emulator's own, and folders named `ptx` or `platform`.
fn is_wrapper(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    folder.is_some_and(|name| name == "ptx" || name == "platform" || name == "cuda_emulator")
        || path
            .file_name()
            .is_some_and(|name| name == "cuda_emulator.h")
}

/// The place of a return address; remembered, because debug information is slow to read.
pub(crate) fn place(pc: usize) -> Place {
    static KNOWN: OnceLock<Mutex<HashMap<usize, Place>>> = OnceLock::new();
    let mut known = KNOWN
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    known.entry(pc).or_insert_with(|| resolve(pc)).clone()
}

fn resolve(pc: usize) -> Place {
    let mut place = Place::default();
    // The return address may belong to the next line: the call is just before it.
    backtrace::resolve(pc.wrapping_sub(1) as *mut _, |symbol| {
        let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) else {
            return;
        };
        let location = || Location {
            file: file.display().to_string(),
            line,
        };
        if place.innermost.is_none() {
            place.innermost = Some(location());
        }
        if place.caller.is_none() && !is_wrapper(file) {
            place.caller = Some(location());
        }
    });
    place
}

/// The line of `pc` outside the wrappers; through the callers' addresses if it has none itself.
pub(crate) fn line(pc: usize, callers: &[usize]) -> Option<Location> {
    let own = place(pc);
    own.caller
        .or_else(|| {
            callers
                .iter()
                .rev()
                .find_map(|&caller| place(caller).caller)
        })
        .or(own.innermost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_known_by_their_folder() {
        assert!(is_wrapper(Path::new("kernels/ptx/mbarrier.cuh")));
        assert!(is_wrapper(Path::new("/x/include/cuda_emulator/sync.h")));
        assert!(!is_wrapper(Path::new("kernels/loss/softmax.cu")));
    }
}
