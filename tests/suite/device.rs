//! Devices, streams, buffers and views.

use std::fmt::Debug;

use evenkeel::{
    Buffer, DType, Device, DeviceId, DeviceKind, E2m1x2, E4m3, E5m2, E8m0, Element, Error, Event,
    Result, Status, Stream, TensorMut, TensorRef,
};
use half::{bf16, f16};

use crate::support::on_every_device;

on_every_device!(
    every_type_returns_as_it_went,
    every_shape_returns_as_it_went,
    zeros_are_zeros,
    a_write_replaces_everything,
    parts_are_read_and_written,
    large_buffers_are_sparse,
    wrong_lengths_and_types_are_named,
    impossible_sizes_are_errors,
    buffers_give_views,
    events_measure_time,
    events_of_other_devices_are_refused,
    a_fresh_stream_has_no_complaint,
    streams_are_shared_by_threads,
    buffers_outlive_their_stream,
    devices_describe_themselves,
);

fn stream(device: &Device) -> Stream {
    device.stream().unwrap()
}

/// The error's message must hold every one of the words.
#[track_caller]
pub fn expect_error<T: Debug>(result: Result<T>, words: &[&str]) {
    let error = result.expect_err("an error was expected");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

fn every_type_returns_as_it_went(device: &Device) {
    fn check<T: Element>(stream: &Stream, data: &[T]) {
        let buffer = stream.upload(&[data.len()], data).unwrap();
        assert_eq!(buffer.dtype(), T::DTYPE);
        // Bits, not values: NaN must come back too.
        let back = buffer.read::<T>().unwrap();
        assert_eq!(
            bytemuck::cast_slice::<T, u8>(&back),
            bytemuck::cast_slice::<T, u8>(data)
        );
    }
    let stream = stream(device);
    check(
        &stream,
        &[
            0.0_f32,
            -0.0,
            1.5,
            f32::NAN,
            f32::INFINITY,
            f32::MIN_POSITIVE / 2.0,
        ],
    );
    check(&stream, &[0.0_f64, 1.0 / 3.0, -f64::NAN, f64::MAX]);
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    check(&stream, &halves);
    let halves: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    check(&stream, &halves);
    check(&stream, &[i64::MIN, -1, 0, i64::MAX]);
    check(&stream, &[i32::MIN, -1, 0, i32::MAX]);
    check(&stream, &[0_u32, u32::MAX]);
    check(&stream, &[0_u8, 1, 255]);
}

fn every_shape_returns_as_it_went(device: &Device) {
    let stream = stream(device);
    let shapes: [&[usize]; 9] = [
        &[],
        &[1],
        &[7],
        &[0],
        &[3, 5],
        &[0, 4],
        &[4, 0],
        &[2, 3, 4],
        &[2, 1, 3, 5],
    ];
    for shape in shapes {
        let data: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
        let buffer = stream.upload(shape, &data).unwrap();
        assert_eq!(buffer.shape(), shape);
        assert_eq!(buffer.elements(), data.len());
        assert_eq!(buffer.view().elements(), data.len());
        assert_eq!(buffer.read::<u32>().unwrap(), data, "{shape:?}");
    }
    expect_error(
        stream.zeros(DType::F32, &[1; 5]),
        &["shape", "at most 4 dimensions", "5 of them"],
    );
}

fn zeros_are_zeros(device: &Device) {
    let stream = stream(device);
    for dtype in DType::ALL {
        let buffer = stream.zeros(dtype, &[3, 1001]).unwrap();
        assert_eq!(buffer.dtype(), dtype);
        match dtype {
            DType::F32 => assert_eq!(buffer.read::<f32>().unwrap(), [0.0; 3003]),
            DType::F64 => assert_eq!(buffer.read::<f64>().unwrap(), [0.0; 3003]),
            DType::F16 => assert_eq!(buffer.read::<f16>().unwrap(), [f16::ZERO; 3003]),
            DType::Bf16 => assert_eq!(buffer.read::<bf16>().unwrap(), [bf16::ZERO; 3003]),
            DType::I64 => assert_eq!(buffer.read::<i64>().unwrap(), [0; 3003]),
            DType::I32 => assert_eq!(buffer.read::<i32>().unwrap(), [0; 3003]),
            DType::U32 => assert_eq!(buffer.read::<u32>().unwrap(), [0; 3003]),
            DType::E4m3 => assert_eq!(buffer.read::<E4m3>().unwrap(), [E4m3::default(); 3003]),
            DType::E5m2 => assert_eq!(buffer.read::<E5m2>().unwrap(), [E5m2::default(); 3003]),
            DType::E8m0 => assert_eq!(buffer.read::<E8m0>().unwrap(), [E8m0::default(); 3003]),
            DType::E2m1x2 => {
                assert_eq!(buffer.read::<E2m1x2>().unwrap(), [E2m1x2::default(); 3003])
            }
            _ => assert_eq!(buffer.read::<u8>().unwrap(), [0; 3003]),
        }
    }
}

fn a_write_replaces_everything(device: &Device) {
    let mut buffer = stream(device).zeros(DType::I32, &[2, 2]).unwrap();
    buffer.write(&[1, 2, 3, 4]).unwrap();
    assert_eq!(buffer.read::<i32>().unwrap(), [1, 2, 3, 4]);
    buffer.write(&[5, 6, 7, 8]).unwrap();
    assert_eq!(buffer.read::<i32>().unwrap(), [5, 6, 7, 8]);
}

fn parts_are_read_and_written(device: &Device) {
    let mut buffer = stream(device).zeros(DType::I64, &[3, 4]).unwrap();
    buffer.write_range(5, &[1_i64, 2, 3]).unwrap();
    buffer.write_range::<i64>(12, &[]).unwrap();
    assert_eq!(buffer.read_range::<i64>(4..9).unwrap(), [0, 1, 2, 3, 0]);
    assert!(buffer.read_range::<i64>(12..12).unwrap().is_empty());
    assert_eq!(
        buffer.read::<i64>().unwrap(),
        [0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0]
    );
    expect_error(
        buffer.write_range(11, &[1_i64, 2]),
        &["Buffer::write_range", "0..12", "11..13"],
    );
    expect_error(
        buffer.write_range(usize::MAX, &[1_i64]),
        &["Buffer::write_range", "0..12"],
    );
    expect_error(
        buffer.read_range::<i64>(3..13),
        &["Buffer::read_range", "0..12", "3..13"],
    );
    expect_error(buffer.read_range::<u32>(0..1), &["`T`", "i64", "u32"]);
}

/// 16385 x 262144 half-precision logits: more than 2^32 elements, of which few are touched here.
fn large_buffers_are_sparse(device: &Device) {
    if device.kind() == DeviceKind::Cuda {
        return; // 8.6 GB for real; the tests of the operations do that where there is room
    }
    let (rows, columns) = (16385, 262_144);
    let mut buffer = stream(device)
        .uninitialised(DType::Bf16, &[rows, columns])
        .unwrap();
    let last = rows * columns - 2;
    assert!(last > 1 << 32);
    let marks = [bf16::from_f32(1.5), bf16::from_f32(-2.5)];
    buffer.write_range(0, &marks).unwrap();
    buffer.write_range(last, &marks).unwrap();
    assert_eq!(buffer.read_range::<bf16>(last..last + 2).unwrap(), marks);
    assert_eq!(buffer.read_range::<bf16>(0..2).unwrap(), marks);
    let view = buffer.view().slice_rows(rows - 1..rows).unwrap();
    assert_eq!(
        view.address() - buffer.view().address(),
        2 * (rows as u64 - 1) * columns as u64
    );
}

fn wrong_lengths_and_types_are_named(device: &Device) {
    let stream = stream(device);
    expect_error(
        stream.upload(&[2, 3], &[0.0_f32; 5]),
        &[
            "Stream::upload",
            "`data`",
            "6 elements",
            "[2, 3]",
            "5 elements",
        ],
    );
    let mut buffer = stream.upload(&[2], &[1.0_f32, 2.0]).unwrap();
    expect_error(buffer.read::<i32>(), &["Buffer::read", "`T`", "f32", "i32"]);
    expect_error(
        buffer.write(&[1_u8, 2]),
        &["Buffer::write", "`T`", "f32", "u8"],
    );
    expect_error(
        buffer.write(&[1.0_f32]),
        &["Buffer::write", "2 elements", "1 elements"],
    );
    assert_eq!(buffer.read::<f32>().unwrap(), [1.0, 2.0]);
}

fn impossible_sizes_are_errors(device: &Device) {
    let stream = stream(device);
    for shape in [
        &[usize::MAX, 2][..],
        &[usize::MAX],
        &[1 << 32, 1 << 32],
        &[1 << 61, 1],
    ] {
        expect_error(stream.zeros(DType::F64, shape), &["shape", "2^63 bytes"]);
    }
    // No address space is that large; nor is any memory.
    let result = stream.zeros(DType::U8, &[1 << 62]);
    assert!(
        matches!(result, Err(Error::OutOfMemory { bytes }) if bytes == 1 << 62),
        "{result:?}"
    );
    expect_error(result, &["4611686018427387904 bytes"]);
    // Where one dimension is 0, nothing is too large.
    assert_eq!(
        stream
            .zeros(DType::F64, &[usize::MAX, 4, 0])
            .unwrap()
            .elements(),
        0
    );
    expect_error(
        stream.upload(&[usize::MAX, 2], &[0_u8]),
        &["data", "1 elements"],
    );
}

fn buffers_give_views(device: &Device) {
    let stream = stream(device);
    let mut buffer = stream.zeros(DType::Bf16, &[4, 6]).unwrap();
    let id = device.id();
    let start = {
        let view = buffer.view();
        assert_eq!(
            (view.device(), view.dtype(), view.shape()),
            (id, DType::Bf16, &[4, 6][..])
        );
        assert_eq!((view.rows(), view.columns(), view.row_stride()), (4, 6, 6));
        assert!(view.is_contiguous());
        view.address()
    };
    assert!(start != 0 && start.is_multiple_of(128));
    let mut view = buffer.view_mut();
    let part = view
        .reborrow()
        .slice_rows(1..3)
        .unwrap()
        .slice_columns(2..5)
        .unwrap();
    assert_eq!((part.shape(), part.row_stride()), (&[2, 3][..], 6));
    assert_eq!(part.address(), start + 2 * (6 + 2));
    assert!(!part.is_contiguous());
    assert_eq!(view.as_ref().address(), start);
    if device.kind() != DeviceKind::Cpu {
        let message = ["host_slice", "cpu (Buffer::read", &id.to_string()];
        expect_error(view.as_ref().host_slice::<bf16>(), &message);
        expect_error(view.host_slice_mut::<bf16>(), &message);
    }
}

fn events_measure_time(device: &Device) {
    let stream = stream(device);
    let start = stream.record().unwrap();
    let buffer = stream.upload(&[1 << 20], &vec![1_u8; 1 << 20]).unwrap();
    let end = stream.record().unwrap();
    let other = device.stream().unwrap();
    other.wait(&end).unwrap();
    other.synchronize().unwrap();
    let us = end.elapsed_us(&start).unwrap();
    assert!(us > 0.0 && us < 60e6, "{us} us");
    drop(buffer);
}

fn events_of_other_devices_are_refused(device: &Device) {
    let stream = stream(device);
    if device.kind() == DeviceKind::Cpu {
        return;
    }
    let event = Device::cpu().stream().unwrap().record().unwrap();
    let name = device.to_string();
    expect_error(
        stream.wait(&event),
        &["Stream::wait", "`event`", &name, "cpu"],
    );
}

fn a_fresh_stream_has_no_complaint(device: &Device) {
    let stream = stream(device);
    stream.check().unwrap();
    stream.synchronize().unwrap();
    stream.check().unwrap();
    assert_eq!(stream.device().id(), device.id());
}

fn streams_are_shared_by_threads(device: &Device) {
    let stream = stream(device);
    std::thread::scope(|scope| {
        for number in 0..4_i64 {
            let stream = &stream;
            scope.spawn(move || {
                for repeat in 0..8 {
                    let data = vec![number * 100 + repeat; 1000];
                    let buffer = stream.upload(&[10, 100], &data).unwrap();
                    stream.check().unwrap();
                    assert_eq!(buffer.read::<i64>().unwrap(), data);
                }
            });
        }
    });
}

fn buffers_outlive_their_stream(device: &Device) {
    let buffer = stream(device).upload(&[3], &[1_u32, 2, 3]).unwrap();
    assert_eq!(buffer.stream().device().id(), device.id());
    assert_eq!(buffer.read::<u32>().unwrap(), [1, 2, 3]);
}

fn devices_describe_themselves(device: &Device) {
    assert!(device.to_string().starts_with(&device.kind().to_string()));
    assert!(!device.name().is_empty());
    assert_eq!(
        device.compute_capability().is_none(),
        device.kind() == DeviceKind::Cpu
    );
    assert_eq!(device.clone().id(), device.id());
    let buffer = stream(device).zeros(DType::F16, &[2, 3]).unwrap();
    assert_eq!(
        format!("{buffer:?}"),
        format!("Buffer(f16 [2, 3] on {device})")
    );
    assert!(format!("{:?}", buffer.view()).starts_with("TensorRef(f16 [2, 3] on "));
}

#[test]
fn shared_by_threads() {
    fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Device>();
    assert_send_sync::<Stream>();
    assert_send_sync::<Buffer>();
    assert_send_sync::<Event>();
    assert_send_sync::<TensorRef<'_>>();
    assert_send_sync::<TensorMut<'_>>();
    assert_send_sync::<Error>();
}

#[test]
fn without_a_driver_cuda_says_so() {
    let absent = ["libcuda.so", "libcuda.so.1", "nvcuda.dll"]
        .iter()
        // SAFETY: loading the driver's library runs its initialisers, as every CUDA program does.
        .all(|name| unsafe { libloading::Library::new(*name) }.is_err());
    if !absent {
        return;
    }
    let result = Device::cuda(0);
    assert!(matches!(result, Err(Error::NoDriver { .. })), "{result:?}");
    expect_error(
        result,
        &["no CUDA driver", "libcuda", "install", "Device::cpu()"],
    );
    assert_eq!(Device::best().unwrap().kind(), DeviceKind::Cpu);
}

#[test]
fn cuda_counts_its_devices() {
    if let Ok(_first) = Device::cuda(0) {
        expect_error(Device::cuda(4096), &["Device::cuda", "`ordinal`", "4096"]);
        assert_eq!(Device::cuda(0).unwrap().id(), Device::cuda(0).unwrap().id());
    }
}

#[test]
fn views_are_cut_and_shaped() {
    let data: Vec<u32> = (0..24).collect();
    let view = TensorRef::from_slice(&[2, 3, 4], &data).unwrap();
    assert_eq!((view.rows(), view.columns(), view.row_stride()), (6, 4, 4));

    let second = view.slice_rows(1..2).unwrap();
    assert_eq!((second.shape(), second.rows()), (&[1, 3, 4][..], 3));
    assert_eq!(second.host_slice::<u32>().unwrap(), &data[12..]);

    let middle = view.slice_columns(1..3).unwrap();
    assert_eq!((middle.shape(), middle.row_stride()), (&[2, 3, 2][..], 4));
    assert!(!middle.is_contiguous());
    assert_eq!(
        middle.host_slice::<u32>().unwrap(),
        &data[1..23],
        "padding between rows included"
    );

    // Leading dimensions of padded rows may change, the rows may not.
    assert_eq!(middle.reshape(&[6, 2]).unwrap().row_stride(), 4);
    expect_error(
        middle.reshape(&[4, 3]),
        &["reshape", "same 2 columns", "4 apart", "[4, 3]"],
    );
    assert_eq!(view.reshape(&[24]).unwrap().shape(), [24]);
    assert_eq!(view.reshape(&[4, 6]).unwrap().row_stride(), 6);
    expect_error(view.reshape(&[5, 5]), &["reshape", "24", "[5, 5]"]);
    expect_error(view.reshape(&[2, 3]), &["reshape", "24 elements", "[2, 3]"]);

    let padded = view.strided(&[3, 5], 8).unwrap();
    assert_eq!((padded.rows(), padded.row_stride()), (3, 8));
    assert_eq!(padded.host_slice::<u32>().unwrap().len(), 2 * 8 + 5);
    expect_error(view.strided(&[3, 9], 8), &["row_stride", "9 columns", "8"]);
    expect_error(
        view.strided(&[4, 5], 8),
        &["24 elements", "stride 8", "spans 29"],
    );
    expect_error(
        padded.strided(&[2], 2),
        &["strided", "contiguous", "8 apart"],
    );

    let line = TensorRef::from_slice(&[24], &data)
        .unwrap()
        .slice_rows(20..24)
        .unwrap();
    assert_eq!((line.shape(), line.rows()), (&[4][..], 1));
    assert_eq!(line.host_slice::<u32>().unwrap(), [20, 21, 22, 23]);
}

#[test]
fn cuts_out_of_range_are_errors() {
    let view = TensorRef::from_slice(&[2, 3], &[0_u8; 6]).unwrap();
    expect_error(
        view.slice_rows(1..3),
        &["slice_rows", "within 0..2", "1..3"],
    );
    expect_error(
        view.slice_columns(4..4),
        &["slice_columns", "within 0..3", "4..4"],
    );
    #[expect(clippy::reversed_empty_ranges, reason = "the point of the test")]
    let reversed = view.slice_rows(2..1);
    expect_error(reversed, &["slice_rows", "within 0..2", "2..1"]);
    let scalar = TensorRef::from_slice(&[], &[1_u8]).unwrap();
    expect_error(scalar.slice_rows(0..1), &["at least 1 dimension", "scalar"]);
    expect_error(
        scalar.slice_columns(0..1),
        &["at least 1 dimension", "scalar"],
    );
    expect_error(
        TensorRef::from_slice(&[2, 3], &[0_u8; 7]),
        &["data", "6 elements", "7 elements"],
    );
}

#[test]
fn empty_views_are_views() {
    let view = TensorRef::from_slice::<f32>(&[0, 5], &[]).unwrap();
    assert_eq!((view.rows(), view.columns(), view.elements()), (0, 5, 0));
    assert!(view.host_slice::<f32>().unwrap().is_empty());
    assert!(
        view.slice_rows(0..0)
            .unwrap()
            .slice_columns(5..5)
            .unwrap()
            .is_contiguous()
    );
    let mut none: [i32; 0] = [];
    let mut view = TensorMut::from_slice(&[3, 0], &mut none).unwrap();
    assert_eq!((view.rows(), view.columns()), (3, 0));
    assert!(view.host_slice_mut::<i32>().unwrap().is_empty());
    let whole = TensorRef::from_slice(&[2, 3], &[1_u8; 6]).unwrap();
    let end = whole.slice_rows(2..2).unwrap();
    assert!(end.host_slice::<u8>().unwrap().is_empty());
    assert!(end.strided(&[0, 3], usize::MAX).is_ok());
}

#[test]
fn every_cut_holds_what_its_indices_say() {
    let data: Vec<i64> = (0..7 * 5).collect();
    let view = TensorRef::from_slice(&[7, 5], &data).unwrap();
    for (top, bottom) in (0..8).flat_map(|top| (top..8).map(move |bottom| (top, bottom))) {
        for (left, right) in (0..6).flat_map(|left| (left..6).map(move |right| (left, right))) {
            let cut = view
                .slice_rows(top..bottom)
                .unwrap()
                .slice_columns(left..right)
                .unwrap();
            let memory = cut.host_slice::<i64>().unwrap();
            assert_eq!(cut.shape(), [bottom - top, right - left]);
            for row in 0..cut.rows() {
                for column in 0..cut.columns() {
                    let expected = data[(top + row) * 5 + left + column];
                    assert_eq!(memory[row * cut.row_stride() + column], expected);
                }
            }
        }
    }
}

#[test]
fn mutable_views_write_where_they_say() {
    let mut data = [0_i32; 12];
    let mut view = TensorMut::from_slice(&[3, 4], &mut data).unwrap();
    let mut part = view
        .reborrow()
        .slice_rows(1..3)
        .unwrap()
        .slice_columns(1..2)
        .unwrap();
    part.host_slice_mut::<i32>().unwrap()[4] = 5;
    expect_error(part.host_slice_mut::<u32>(), &["`T`", "i32", "u32"]);
    let mut padded = view.reborrow().strided(&[2, 3], 5).unwrap();
    padded.host_slice_mut::<i32>().unwrap()[0] = 3;
    assert_eq!(view.reborrow().reshape(&[12]).unwrap().shape(), [12]);
    assert_eq!(
        view.as_ref().host_slice::<i32>().unwrap(),
        [3, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0]
    );
}

#[test]
fn raw_views_are_checked() {
    let data = [1.0_f32, 2.0, 3.0, 4.0];
    let address = data.as_ptr() as u64;
    let raw = |dtype, address, shape: &[usize], stride| {
        // SAFETY: the addresses that are accepted below lie in `data`, which outlives the views.
        unsafe { TensorRef::from_raw(DeviceId::CPU, dtype, address, shape, stride) }
    };
    let view = raw(DType::F32, address, &[2, 1], Some(3)).unwrap();
    assert_eq!(view.host_slice::<f32>().unwrap(), data);
    expect_error(raw(DType::F32, 0, &[1], None), &["address", "null"]);
    expect_error(
        raw(DType::F32, address + 2, &[1], None),
        &["address", "multiple of the 4 bytes"],
    );
    expect_error(
        raw(DType::F32, address, &[2, 2], Some(1)),
        &["row_stride", "2 columns", "1"],
    );
    expect_error(
        raw(DType::F32, address, &[1 << 40, 1 << 40], None),
        &["shape", "2^63 bytes"],
    );
    expect_error(
        raw(DType::F32, address, &[3, 2], Some(1 << 62)),
        &["shape", "2^63 bytes"],
    );
    expect_error(
        raw(DType::U8, u64::MAX, &[2], None),
        &["address", "2 bytes of memory"],
    );
    assert!(
        raw(DType::F32, 0, &[0, 3], None).is_ok(),
        "nothing is nowhere"
    );
    // SAFETY: as above; refused before it is used.
    let view = unsafe { TensorMut::from_raw(DeviceId::CPU, DType::I64, 4, &[1], None) };
    expect_error(
        view,
        &["TensorMut::from_raw", "multiple of the 8 bytes of i64"],
    );
}

#[test]
fn the_status_says_what_it_means() {
    assert_eq!(Status::empty().to_string(), "nothing to report");
    let all = Status::TARGET_OUT_OF_RANGE
        | Status::NON_FINITE_ROW
        | Status::TARGET_MASKED
        | Status::SATURATED;
    assert_eq!(all.bits(), 0b1111);
    let text = Error::Data(all | Status::from_bits(1 << 31)).to_string();
    for word in [
        "outside the vocabulary",
        "NaN or +inf",
        "masked",
        "its end",
        "0x80000000",
    ] {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert_eq!(
        format!("{:?}", Status::TARGET_MASKED),
        "Status(TARGET_MASKED)"
    );
}
