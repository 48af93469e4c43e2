//! Tensors as their bytes: what is compared bit for bit, and what must stay untouched around it.

use evenkeel::{Buffer, DType, E2m1x2, E4m3, E5m2, E8m0, Element, Result, Stream};
use half::{bf16, f16};

use crate::compare::Verdict;
use crate::norm::placed::Place;
use crate::numbers::Interval;

/// What lies in an output's memory before the call, and around it after: as bf16 and f32 a number, as
/// any low-bit element a code that few values have.
pub const AROUND: u8 = 0x5b;

/// Values of a type made of the bytes of each.
fn typed<const N: usize, T>(bytes: &[u8], value: fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&bytes| value(bytes))
        .collect()
}

/// Uploads memory of `dtype`, given as bytes.
///
/// # Errors
/// The device's.
pub fn upload(stream: &Stream, dtype: DType, bytes: &[u8]) -> Result<Buffer> {
    let shape = [bytes.len() / dtype.size()];
    match dtype {
        DType::E4m3 => stream.upload(&shape, &typed(bytes, |[b]| E4m3::from_bits(b))),
        DType::E5m2 => stream.upload(&shape, &typed(bytes, |[b]| E5m2::from_bits(b))),
        DType::E8m0 => stream.upload(&shape, &typed(bytes, |[b]| E8m0::from_bits(b))),
        DType::E2m1x2 => stream.upload(&shape, &typed(bytes, |[b]| E2m1x2::from_bits(b))),
        DType::Bf16 => stream.upload(&shape, &typed(bytes, bf16::from_ne_bytes)),
        DType::F16 => stream.upload(&shape, &typed(bytes, f16::from_ne_bytes)),
        DType::F32 => stream.upload(&shape, &typed(bytes, f32::from_ne_bytes)),
        DType::F64 => stream.upload(&shape, &typed(bytes, f64::from_ne_bytes)),
        DType::I64 => stream.upload(&shape, &typed(bytes, i64::from_ne_bytes)),
        DType::I32 => stream.upload(&shape, &typed(bytes, i32::from_ne_bytes)),
        DType::U32 => stream.upload(&shape, &typed(bytes, u32::from_ne_bytes)),
        _ => stream.upload(&shape, bytes),
    }
}

/// The bytes of a buffer.
///
/// # Errors
/// The device's.
pub fn download(buffer: &Buffer) -> Result<Vec<u8>> {
    fn bytes<const N: usize, T: Element>(
        buffer: &Buffer,
        bytes: fn(T) -> [u8; N],
    ) -> Result<Vec<u8>> {
        Ok(buffer.read::<T>()?.into_iter().flat_map(bytes).collect())
    }
    match buffer.dtype() {
        DType::E4m3 => bytes(buffer, |x: E4m3| [x.to_bits()]),
        DType::E5m2 => bytes(buffer, |x: E5m2| [x.to_bits()]),
        DType::E8m0 => bytes(buffer, |x: E8m0| [x.to_bits()]),
        DType::E2m1x2 => bytes(buffer, |x: E2m1x2| [x.to_bits()]),
        DType::Bf16 => bytes(buffer, bf16::to_ne_bytes),
        DType::F16 => bytes(buffer, f16::to_ne_bytes),
        DType::F32 => bytes(buffer, f32::to_ne_bytes),
        DType::F64 => bytes(buffer, f64::to_ne_bytes),
        DType::I64 => bytes(buffer, i64::to_ne_bytes),
        DType::I32 => bytes(buffer, i32::to_ne_bytes),
        DType::U32 => bytes(buffer, u32::to_ne_bytes),
        _ => buffer.read::<u8>(),
    }
}

/// The bytes of f32 values.
#[must_use]
pub fn of_f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_ne_bytes()).collect()
}

/// The memory of an output after a call, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits {
    /// The output's bytes, row by row.
    pub bytes: Vec<u8>,
    /// The length of a row in bytes.
    pub width: usize,
    /// Bytes around the rows that are not [`AROUND`] any more.
    pub touched: Vec<usize>,
}

impl Bits {
    /// Memory to be written where `place` says, [`AROUND`] everywhere but for what the output is added
    /// to, which `before` has the bytes of.
    ///
    /// # Errors
    /// The device's.
    pub fn memory(stream: &Stream, place: &Place, before: &[u8]) -> Result<Buffer> {
        let size = place.dtype.size();
        let (rows, width) = (place.rows(), place.width());
        let mut memory = vec![AROUND; place.layout.elements(rows, width) * size];
        for (row, values) in before.chunks((width * size).max(1)).enumerate() {
            let begin = (place.layout.phase + row * place.layout.stride(width)) * size;
            memory[begin..begin + values.len()].copy_from_slice(values);
        }
        upload(stream, place.dtype, &memory)
    }

    /// What a device left in such a memory.
    ///
    /// # Errors
    /// The device's.
    pub fn take(place: &Place, memory: &Buffer) -> Result<Self> {
        let memory = download(memory)?;
        let size = place.dtype.size();
        let (begin, width) = (place.layout.phase * size, place.width() * size);
        let (stride, rows) = (place.layout.stride(place.width()) * size, place.rows());
        let mut bytes = Vec::with_capacity(rows * width);
        let mut touched = Vec::new();
        for (at, &byte) in memory.iter().enumerate() {
            let within = at
                .checked_sub(begin)
                .is_some_and(|at| at / stride.max(1) < rows && at % stride.max(1) < width);
            if within {
                bytes.push(byte);
            } else if byte != AROUND {
                touched.push(at);
            }
        }
        Ok(Self {
            bytes,
            width,
            touched,
        })
    }

    /// A buffer that the library made: nothing surrounds its elements.
    ///
    /// # Errors
    /// The device's.
    pub fn whole(buffer: &Buffer) -> Result<Self> {
        let bytes = download(buffer)?;
        let width = buffer.view().columns() * buffer.dtype().size();
        Ok(Self {
            bytes,
            width,
            touched: Vec::new(),
        })
    }

    /// A row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.width..(row + 1) * self.width]
    }

    /// Its values, where it is of f32.
    #[must_use]
    pub fn floats(&self) -> Vec<f32> {
        typed(&self.bytes, f32::from_ne_bytes)
    }

    /// Its values, where it is of bf16, f16 or f32.
    #[must_use]
    pub fn numbers(&self, dtype: DType) -> Vec<f64> {
        match dtype {
            DType::Bf16 => typed(&self.bytes, |b| bf16::from_ne_bytes(b).to_f64()),
            DType::F16 => typed(&self.bytes, |b| f16::from_ne_bytes(b).to_f64()),
            _ => typed(&self.bytes, |b| f32::from_ne_bytes(b).into()),
        }
    }

    /// Its values, where it is of u32.
    #[must_use]
    pub fn counts(&self) -> Vec<u32> {
        typed(&self.bytes, u32::from_ne_bytes)
    }

    /// That it is exactly `expected`, and nothing around it was written. `size` bytes are one value.
    pub fn check(&self, name: &'static str, size: usize, expected: &[u8], verdict: &mut Verdict) {
        if let Some(first) = self.touched.first() {
            let count = self.touched.len();
            verdict.wrong(|| {
                format!("{count} bytes around {name} were written, the first of them {first}")
            });
        }
        if self.bytes.len() != expected.len() {
            let got = self.bytes.len();
            let expected = expected.len();
            verdict.wrong(|| format!("{name} has {got} bytes, expected {expected}"));
            return;
        }
        let worst = verdict.worst.entry(name).or_default();
        worst.compared += (expected.len() / size.max(1)) as u64;
        if self.bytes == expected {
            return;
        }
        worst.add(DType::F32, 1.0, Interval::only(0.0));
        let width = (self.width / size).max(1);
        let pairs = self.bytes.chunks(size).zip(expected.chunks(size));
        for (at, (got, want)) in pairs.enumerate() {
            if got != want {
                let (row, column) = (at / width, at % width);
                verdict.wrong(|| {
                    let (got, want) = (shown(got), shown(want));
                    format!("{name} of row {row}, place {column} is {got}, expected {want}")
                });
            }
        }
    }
}

/// Bytes as one number in hexadecimal, and as an f32 where there are four.
fn shown(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().rev().map(|b| format!("{b:02x}")).collect();
    match bytes.try_into().map(f32::from_ne_bytes) {
        Ok(value) => format!("0x{digits} ({value:e})"),
        Err(_) => format!("0x{digits}"),
    }
}

#[cfg(test)]
mod tests {
    use evenkeel::Device;

    use super::*;
    use crate::memory::Layout;

    #[test]
    fn what_is_written_around_an_output_shows() {
        let stream = Device::cpu().stream().unwrap();
        let place = Place::new(DType::E4m3, &[2, 3]).at(Layout {
            phase: 1,
            padding: 0,
            gap: 2,
        });
        let expected = [1, 2, 3, 4, 5, 6];
        let mut memory = Bits::memory(&stream, &place, &expected).unwrap();
        let mut right = Verdict::default();
        let bits = Bits::take(&place, &memory).unwrap();
        bits.check("data", 1, &expected, &mut right);
        assert!(right.is_right() && right.worst["data"].compared == 6);
        assert_eq!(bits.row(1), [4, 5, 6]);
        memory.write_range(4, &[E4m3::from_bits(0)]).unwrap();
        memory.write_range(6, &[E4m3::from_bits(9)]).unwrap();
        let mut wrong = Verdict::default();
        Bits::take(&place, &memory)
            .unwrap()
            .check("data", 1, &expected, &mut wrong);
        assert_eq!(wrong.wrong, 2, "{:?}", wrong.mismatches);
    }

    #[test]
    fn every_type_returns_its_bytes() {
        let stream = Device::cpu().stream().unwrap();
        let bytes: Vec<u8> = (0..=255).collect();
        for dtype in DType::ALL {
            let buffer = upload(&stream, dtype, &bytes).unwrap();
            assert_eq!(buffer.dtype(), dtype);
            assert_eq!(download(&buffer).unwrap(), bytes, "{dtype}");
        }
    }
}
