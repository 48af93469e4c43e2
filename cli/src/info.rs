//! `evenkeel info`.

use evenkeel::device::Build;
use evenkeel::{Device, Error};

/// Prints what is here. True unless something that should work does not.
///
/// # Errors
/// None; what is missing is part of what is told.
pub fn run() -> Result<bool, String> {
    print!("{}", text());
    Ok(true)
}

/// What there is, and how to get what there is not.
#[must_use]
pub fn text() -> String {
    let build = Build::current();
    let mut lines = vec![
        format!("evenkeel {}", env!("CARGO_PKG_VERSION")),
        format!("sources      {}", build.source_hash),
        String::new(),
        "devices".to_string(),
        format!("  cuda       {}", described(Device::cuda(0))),
        format!("  emulated   {}", emulated()),
        format!(
            "  cpu        {}, {} threads",
            Device::cpu().name(),
            rayon::current_num_threads()
        ),
        format!(
            "  best       {}",
            Device::best().map_or_else(|error| error.to_string(), |d| d.to_string())
        ),
        String::new(),
        "CUDA kernels".to_string(),
    ];
    match build.not_built {
        Some(reason) => {
            lines.push(format!("  none in this build: {reason}"));
            lines.push(
                "  to have them: cargo xtask toolchain (or CUDA 12.9 or newer), then build again"
                    .into(),
            );
        }
        None => {
            lines.push(format!("  compiler   nvcc {}", build.cuda_version));
            lines.push(format!("  targets    {}", build.targets.join(" ")));
            lines.push(format!("  modules    {}", build.cuda_modules().join(" ")));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn described(device: Result<Device, Error>) -> String {
    match device {
        Ok(device) => {
            let capability = device
                .compute_capability()
                .map_or(String::new(), |(major, minor)| {
                    format!(", compute capability {major}.{minor}")
                });
            format!("{}{capability}", device.name())
        }
        Err(error) => format!("not here: {error}"),
    }
}

fn emulated() -> String {
    #[cfg(feature = "emulator")]
    {
        described(Device::emulated())
    }
    #[cfg(not(feature = "emulator"))]
    {
        "not in this build; to have it: --features evenkeel-cli/emulator, with a C++20 compiler"
            .into()
    }
}
