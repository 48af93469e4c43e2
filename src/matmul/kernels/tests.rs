//! The portable kernels on the emulator, against products in f64; on GPUs other than Hopper, whose own
//! kernels would take most of these.
//!
//! Elements and scales are small integers and powers of two, so that every sum is exact in fp32 and
//! results are compared bit for bit; what rounds is compared within a bound where it is tested.

use crate::matmul::OperandFormat;
use crate::quant::{Format, Fp8};
use crate::{Buffer, DType, Device, E4m3, E5m2, EmulatorOptions, Stream, TensorMut, TensorRef};
use evenkeel_emulator::Architecture;
use half::{bf16, f16};

mod case;
mod epilogue;
mod groups;
mod shapes;
mod synchronisation;

use case::{Case, Grouped};

/// Numbers without structure.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// An integer of -`most` to `most`.
    fn integer(&mut self, most: u32) -> f32 {
        (self.bits() % (2 * most + 1)) as f32 - most as f32
    }
}

const BF16: OperandFormat = OperandFormat::Bf16;
const F16: OperandFormat = OperandFormat::F16;
const E4: Fp8 = Fp8::E4m3;
const E5: Fp8 = Fp8::E5m2;

fn quantized(format: Format) -> OperandFormat {
    OperandFormat::Quantized(format)
}

fn emulated(architecture: Architecture, seed: u64) -> Stream {
    let options = EmulatorOptions::new().architecture(architecture).seed(seed);
    Device::emulated_with(options).unwrap().stream().unwrap()
}

/// A matrix that lies in rows of `stride` elements, `first` elements into its buffer.
#[derive(Clone, Copy, Debug)]
struct Place {
    first: usize,
    stride: usize,
}

/// `[rows, columns]` of some type in a buffer.
struct Matrix {
    buffer: Buffer,
    rows: usize,
    columns: usize,
    place: Place,
}

impl Matrix {
    /// What lies between the rows is a number that would show in any sum.
    fn upload(
        stream: &Stream,
        dtype: DType,
        values: &[f32],
        columns: usize,
        [first, padding]: [usize; 2],
    ) -> Self {
        let rows = values.len() / columns;
        let stride = columns + padding;
        let mut all = vec![448.0_f32; first + rows * stride];
        for (row, values) in values.chunks(columns).enumerate() {
            all[first + row * stride..][..columns].copy_from_slice(values);
        }
        let shape = [all.len()];
        let all = all.iter();
        let buffer = match dtype {
            DType::Bf16 => {
                stream.upload(&shape, &all.map(|x| bf16::from_f32(*x)).collect::<Vec<_>>())
            }
            DType::F16 => {
                stream.upload(&shape, &all.map(|x| f16::from_f32(*x)).collect::<Vec<_>>())
            }
            DType::E4m3 => {
                stream.upload(&shape, &all.map(|x| E4m3::from_f32(*x)).collect::<Vec<_>>())
            }
            DType::E5m2 => {
                stream.upload(&shape, &all.map(|x| E5m2::from_f32(*x)).collect::<Vec<_>>())
            }
            _ => stream.upload(&shape, &all.copied().collect::<Vec<_>>()),
        };
        Self {
            buffer: buffer.unwrap(),
            rows,
            columns,
            place: Place { first, stride },
        }
    }

    fn view(&self) -> TensorRef<'_> {
        let whole = self.buffer.view();
        let address = whole.address() + (self.place.first * whole.dtype().size()) as u64;
        let shape = [self.rows, self.columns];
        // SAFETY: within the buffer, whose size `upload` chose.
        unsafe {
            TensorRef::from_raw(
                whole.device(),
                whole.dtype(),
                address,
                &shape,
                Some(self.place.stride),
            )
        }
        .unwrap()
    }

    fn view_mut(&mut self) -> TensorMut<'_> {
        let whole = self.buffer.view_mut();
        let address = whole.address() + (self.place.first * whole.dtype().size()) as u64;
        let shape = [self.rows, self.columns];
        let stride = Some(self.place.stride);
        // SAFETY: as above, and borrowed mutably.
        unsafe { TensorMut::from_raw(whole.device(), whole.dtype(), address, &shape, stride) }
            .unwrap()
    }

    /// The values; and that nothing between the rows has changed.
    fn read(&self) -> Vec<f32> {
        let all: Vec<f32> = match self.buffer.view().dtype() {
            DType::Bf16 => self
                .buffer
                .read::<bf16>()
                .unwrap()
                .iter()
                .map(|x| x.to_f32())
                .collect(),
            DType::F16 => self
                .buffer
                .read::<f16>()
                .unwrap()
                .iter()
                .map(|x| x.to_f32())
                .collect(),
            DType::E4m3 => self
                .buffer
                .read::<E4m3>()
                .unwrap()
                .iter()
                .map(|x| x.to_f32())
                .collect(),
            DType::E5m2 => self
                .buffer
                .read::<E5m2>()
                .unwrap()
                .iter()
                .map(|x| x.to_f32())
                .collect(),
            _ => self.buffer.read::<f32>().unwrap(),
        };
        let Place { first, stride } = self.place;
        let inside = |index: usize| index >= first && (index - first) % stride < self.columns;
        for (index, value) in all.iter().enumerate() {
            assert!(
                inside(index) || *value == 448.0,
                "element {index} between rows is {value}"
            );
        }
        let rows = (0..self.rows).flat_map(|row| &all[first + row * stride..][..self.columns]);
        rows.copied().collect()
    }
}
