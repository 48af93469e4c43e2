//! Runs a softmax kernel under the emulator, reads its report, and switches off each of its
//! synchronisation calls to see that every one is needed.
//!
//!     cargo run -p evenkeel-emulator --example softmax --features test-kernels

use evenkeel_emulator::{Architecture, CudaEmulatorKernel, Emulator, Kernel, Launch};

unsafe extern "C" {
    fn example_softmax(count: *mut usize) -> *const CudaEmulatorKernel;
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (rows, columns) = (16, 1000);
    // SAFETY: the table of examples/softmax_kernel.cc, compiled with the crate's flags.
    let kernels = unsafe { Kernel::table(example_softmax) };
    let kernel = kernels.first().ok_or("the table is empty")?;

    let emulator = Emulator::new(Architecture::sm_90());
    let logits = emulator.alloc(rows * columns * 4)?;
    let probabilities = emulator.alloc(rows * columns * 4)?;
    let values = (0..rows * columns).flat_map(|i| ((i % 97) as f32 / 10.0).to_le_bytes());
    logits.write(0, &values.collect::<Vec<u8>>())?;
    let params: Vec<u8> = [logits.addr(), probabilities.addr(), columns as u64]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();

    let launch = Launch::default()
        .grid([rows as u32, 1, 1])
        .block([256, 1, 1])
        .shared_bytes(256);
    let mut sites = Vec::new();
    for seed in 0..4 {
        let report = emulator.launch(kernel, &launch.clone().seed(seed), &params);
        for finding in &report.findings {
            println!("seed {seed}: {finding}");
        }
        println!(
            "seed {seed}: {} findings, {} bytes loaded, {} stored, {:?}",
            report.findings.len(),
            report.traffic.global_load_bytes,
            report.traffic.global_store_bytes,
            report.elapsed
        );
        sites = report.sync_sites;
    }
    let mut row = vec![0; columns * 4];
    probabilities.read(0, &mut row)?;
    let sum: f32 = row
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .sum();
    println!("the first row sums to {sum}");

    for site in sites {
        let mutated = launch.clone().disabled_sites(vec![site.clone()]);
        let report = emulator.launch(kernel, &mutated, &params);
        match report.findings.first() {
            Some(finding) => println!("without {site}: {finding}"),
            None => println!("without {site}: nothing shows"),
        }
    }
    Ok(())
}
