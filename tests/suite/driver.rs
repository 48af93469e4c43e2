//! The CUDA device against a stand-in for the driver, on machines that have no GPU.
//!
//! The stand-in (driver.c) computes nothing; what it proves is how the driver is spoken to:
//! contexts, the order and the lifetime of memory, captures, and what is said of a driver or a GPU
//! that does not fit. The tests run this same program again, with the stand-in where the driver's
//! library is looked for.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use evenkeel::{DType, Device, DeviceKind, Error, Stream, TensorMut, TensorRef};

use crate::device::expect_error;

/// Tells the program, run again, which test it is.
const INNER: &str = "EVENKEEL_TEST_INNER";

/// The folder of the stand-in, compiled once; the reason where it cannot be.
fn stand_in() -> Result<&'static Path, String> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/driver.c"));
        if !source.exists() {
            return Err("this is not the machine that the tests were compiled on".into());
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("driver");
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        // A name of its own, then a rename: other test processes may be using the library.
        let fresh = folder.join(format!("{}.so", std::process::id()));
        let output = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
            .args(["-shared", "-fPIC", "-pthread", "-O1", "-o"])
            .args([fresh.as_os_str(), source.as_os_str()])
            .output()
            .map_err(|error| format!("no C compiler: {error}"))?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::rename(fresh, folder.join("libcuda.so.1")).map_err(|error| error.to_string())?;
        // Where a driver is installed its libcuda.so would be found first.
        std::fs::copy(folder.join("libcuda.so.1"), folder.join("libcuda.so"))
            .map_err(|error| error.to_string())?;
        Ok(folder)
    });
    made.as_deref().map_err(String::clone)
}

/// Runs tests of this program with the stand-in as the driver; `None` where they cannot be.
fn again(tests: &str, inner: &str, settings: &[(&str, &str)]) -> Option<Output> {
    let folder = match stand_in() {
        Ok(folder) => folder,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return None;
        }
    };
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command
        .args([tests, "--nocapture"])
        .env("LD_LIBRARY_PATH", folder)
        .env("EVENKEEL_TEST_DEVICE", "cuda")
        .env(INNER, inner)
        .envs(settings.iter().copied());
    Some(command.output().unwrap())
}

/// That `again` went well, or was refused because this build has no kernels.
#[track_caller]
fn expect_success(output: Option<Output>) {
    let Some(output) = output else { return };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if text.contains("this build has no kernels") {
        eprintln!("skipped: this build has no CUDA kernels");
        return;
    }
    assert!(output.status.success(), "{}\n{text}", output.status);
}

#[test]
fn the_suite_passes_on_a_stand_in() {
    expect_success(again("device::cuda::", "suite", &[]));
}

#[test]
fn the_suite_passes_without_memory_pools() {
    expect_success(again(
        "device::cuda::",
        "suite",
        &[("EVENKEEL_FAKE_POOLS", "0")],
    ));
}

#[test]
fn other_streams_and_captures() {
    for test in [
        "captured_streams_are_spared",
        "slices_and_streams_of_others",
    ] {
        let name = format!("driver::inner::{test}");
        expect_success(again(&name, test, &[]));
    }
}

#[test]
fn refusals_name_the_versions() {
    let old_driver = [("EVENKEEL_FAKE_VERSION", "11080")];
    expect_success(again(
        "driver::inner::old_driver",
        "old_driver",
        &old_driver,
    ));
    let old_gpu = [("EVENKEEL_FAKE_CAPABILITY", "75")];
    expect_success(again("driver::inner::old_gpu", "old_gpu", &old_gpu));
    let no_gpu = [("EVENKEEL_FAKE_DEVICES", "0")];
    expect_success(again("driver::inner::no_gpu", "no_gpu", &no_gpu));
}

/// What the program does when it is run again.
mod inner {
    use evenkeel::interop::cudarc::driver::{
        CudaContext,
        sys::{CUgraphInstantiate_flags, CUstreamCaptureMode_enum},
    };
    use evenkeel::loss::{LossInputs, LossOutputs, Objective, SoftmaxLoss};

    use super::*;

    /// What `Device::cuda` says, if this is the program, run again, as `test`; `None` without
    /// kernels.
    fn cuda(test: &str) -> Option<Result<Device, Error>> {
        if !std::env::var(INNER).is_ok_and(|inner| inner == test) {
            return None;
        }
        let device = Device::cuda(0);
        if let Err(error @ Error::NotBuilt { .. }) = &device {
            println!("{error}");
            return None;
        }
        Some(device)
    }

    #[test]
    fn old_driver() {
        if let Some(device) = cuda("old_driver") {
            expect_error(
                device,
                &["CUDA 11.8", "compiled with CUDA", "install driver 5"],
            );
            assert_eq!(Device::best().unwrap().kind(), DeviceKind::Cpu);
        }
    }

    #[test]
    fn old_gpu() {
        if let Some(device) = cuda("old_gpu") {
            assert!(
                matches!(device, Err(Error::Unsupported { .. })),
                "{device:?}"
            );
            expect_error(
                device,
                &[
                    "Stand-in 0",
                    "compute capability 7.5",
                    "8.0",
                    "Device::cpu()",
                ],
            );
            assert_eq!(Device::best().unwrap().kind(), DeviceKind::Cpu);
        }
    }

    #[test]
    fn no_gpu() {
        if let Some(device) = cuda("no_gpu") {
            assert!(matches!(device, Err(Error::NoDriver { .. })), "{device:?}");
            expect_error(device, &["CUDA 13.0", "cuInit", "CUDA_ERROR_NO_DEVICE"]);
        }
    }

    #[test]
    fn captured_streams_are_spared() {
        let Some(device) = cuda("captured_streams_are_spared") else {
            return;
        };
        let stream = device.unwrap().stream().unwrap();
        let raw = stream.cudarc().unwrap().clone();
        let mut kept = stream.upload(&[2], &[1_i32, 2]).unwrap();
        let dropped = stream.zeros(DType::I32, &[2]).unwrap();
        let capture = CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        raw.begin_capture(capture).unwrap();
        let words = ["captured into a graph"];
        expect_error(stream.zeros(DType::U8, &[1]), &words);
        expect_error(kept.write(&[3, 4]), &words);
        expect_error(kept.read::<i32>(), &words);
        expect_error(stream.check(), &words);
        expect_error(stream.synchronize(), &words);
        expect_error(Stream::from_cudarc(&raw), &words);
        drop(dropped);
        let graph = raw
            .end_capture(CUgraphInstantiate_flags(0))
            .unwrap()
            .unwrap();
        graph.launch().unwrap();
        // What was dropped in between is freed now; the stand-in would complain at the end
        // otherwise.
        stream.synchronize().unwrap();
        assert_eq!(kept.read::<i32>().unwrap(), [1, 2]);
    }

    #[test]
    fn slices_and_streams_of_others() {
        let Some(device) = cuda("slices_and_streams_of_others") else {
            return;
        };
        let context = CudaContext::new(0).unwrap();
        let raw = context.default_stream();
        let stream = Stream::from_cudarc(&raw).unwrap();
        assert_eq!(stream.device().id(), device.unwrap().id());
        assert!(stream.device().cudarc().is_some());
        expect_error(
            Stream::from_cudarc(&context.per_thread_stream()),
            &["per-thread default stream", "same on every thread"],
        );
        let mut slice = raw.clone_htod(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let view = TensorRef::from_cudarc(&slice, &[2, 3]).unwrap();
        assert_eq!(
            (view.dtype(), view.device()),
            (DType::F32, stream.device().id())
        );
        assert_eq!(
            view.slice_rows(1..2).unwrap().address(),
            view.address() + 12
        );
        let part = slice.slice(2..4);
        assert_eq!(
            TensorRef::from_cudarc(&part, &[2]).unwrap().address(),
            view.address() + 8
        );
        expect_error(
            TensorRef::from_cudarc(&slice, &[7]),
            &["6 elements", "spans 7"],
        );
        let mut view = TensorMut::from_cudarc(&mut slice, &[3]).unwrap();
        assert_eq!(view.reborrow().as_ref().shape(), [3]);
        expect_error(view.host_slice_mut::<f32>(), &["cuda:0"]);

        // SAFETY: the null handle is the default stream of every context.
        let stream = unsafe { Stream::from_raw(stream.device(), std::ptr::null_mut()) };
        let buffer = stream.unwrap().upload(&[1], &[7_u8]).unwrap();
        assert_eq!(buffer.read::<u8>().unwrap(), [7]);
        // SAFETY: refused before the handle is used.
        let on_cpu = unsafe { Stream::from_raw(&Device::cpu(), std::ptr::null_mut()) };
        expect_error(on_cpu, &["`device`", "a CUDA device", "cpu"]);
    }

    #[test]
    fn operations_are_queued() {
        let Some(device) = cuda("operations_are_queued") else {
            return;
        };
        let device = device.unwrap();
        // The stand-in computes nothing; it sees that nothing in a capture allocates or waits.
        crate::capture::call_and_replays(&device);
        #[cfg(feature = "quant")]
        crate::quant::capture::step_and_replays(&device);
        #[cfg(feature = "matmul")]
        crate::matmul::capture::products_and_replays(&device);

        let stream = device.stream().unwrap();
        let raw = stream.cudarc().unwrap().clone();
        let op = SoftmaxLoss::new(Objective::Nll).prepare(&stream).unwrap();
        let targets = stream.upload(&[2], &[1_i64, 2]).unwrap();
        let host = [0.5_f32; 8];

        // Buffers of another stream, given up at once.
        let other = device.stream().unwrap();
        let mut logits = other.upload(&[2, 4], &host).unwrap();
        let loss = op
            .forward_backward_in_place(logits.view_mut(), targets.view())
            .unwrap();
        drop((logits, other));
        loss.read().unwrap();

        // A slice of cudarc's, whose events its context manages.
        let mut slice = raw.clone_htod(&host).unwrap();
        let view = TensorMut::from_cudarc(&mut slice, &[2, 4]).unwrap();
        op.forward_backward_in_place(view, targets.view()).unwrap();
        assert_eq!(raw.clone_dtoh(&slice).unwrap(), host);

        // Host memory is not the device's.
        let elsewhere = TensorRef::from_slice(&[2, 4], &host).unwrap();
        let words = ["`logits`", "cuda:0", "cpu"];
        expect_error(op.forward(elsewhere, targets.view()), &words);

        // A buffer of another stream cannot take part in a capture.
        let other = device.stream().unwrap();
        let mut logits = other.upload(&[2, 4], &host).unwrap();
        let mut workspace = stream.zeros(DType::U8, &[op.workspace_bytes(2)]).unwrap();
        let capture = CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        raw.begin_capture(capture).unwrap();
        let result = op.forward_backward_in_place_into(
            logits.view_mut(),
            &LossInputs::new(targets.view()),
            &mut LossOutputs::new(workspace.view_mut()),
        );
        raw.end_capture(CUgraphInstantiate_flags(0)).unwrap();
        expect_error(result, &["captured stream", "buffer of another stream"]);
    }
}
