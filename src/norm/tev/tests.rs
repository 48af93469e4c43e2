use super::*;
use crate::norm::fixtures::{FLOATS, Padded, cpu, numbers, read, refused, rounded};
use crate::reference::{FloatRows, norm::tev as reference};
use crate::{Error, Status};

#[test]
fn a_padded_table_of_each_type() {
    let stream = cpu();
    let op = Tev::new().prepare(&stream).unwrap();
    for dtype in FLOATS {
        let table = rounded(dtype, &numbers(12, 8));
        let expected = reference::tev(FloatRows::new(&table, 3, 4, 4).unwrap());
        let table = Padded::new(&stream, dtype, &[3, 4], &table);
        let result = op.measure(table.view()).unwrap();
        let deviations = rounded(DType::F32, &expected.deviations);
        assert_eq!(read(&result.deviations), deviations);
        assert_eq!(result.read().unwrap(), expected.mean as f32);
    }
}

#[test]
fn edges() {
    let stream = cpu();
    let op = Tev::new().prepare(&stream).unwrap();
    let empty = stream.zeros(DType::F16, &[0, 4]).unwrap();
    assert_eq!(op.measure(empty.view()).unwrap().read().unwrap(), 0.0);
    let one = stream.upload(&[2, 1], &[3.0_f32, -9.0]).unwrap();
    assert_eq!(op.measure(one.view()).unwrap().read().unwrap(), 0.0);
    let bad = stream.upload(&[2, 2], &[1.0, 3.0, f32::NAN, 0.0]).unwrap();
    let result = op.measure(bad.view()).unwrap();
    assert!(result.read().unwrap().is_nan());
    assert_eq!(result.deviations.read_range::<f32>(0..1).unwrap(), [1.0]);
    assert_eq!(stream.check(), Err(Error::Data(Status::NON_FINITE_ROW)));
}

#[test]
fn each_wrong_argument_is_named() {
    const OP: &str = "Tev::measure";
    let stream = cpu();
    let op = Tev::new().prepare(&stream).unwrap();
    let zeros = |dtype: DType, shape: &[usize]| stream.zeros(dtype, shape).unwrap();
    let table = zeros(DType::F32, &[3, 4]);
    refused(op.measure(zeros(DType::U8, &[3, 4]).view()), OP, "table");
    refused(op.measure(zeros(DType::F32, &[3, 0]).view()), OP, "table");
    let (mut one, mut three) = (zeros(DType::F32, &[1]), zeros(DType::F32, &[3]));
    let mut half = zeros(DType::F16, &[3]);
    let measure = |tev: TensorMut<'_>, deviations: TensorMut<'_>| {
        op.measure_into(table.view(), tev, deviations)
    };
    refused(measure(half.view_mut(), three.view_mut()), OP, "tev");
    refused(measure(one.view_mut(), half.view_mut()), OP, "deviations");
    let mut two = zeros(DType::F32, &[2]);
    refused(measure(two.view_mut(), three.view_mut()), OP, "tev");
    refused(measure(one.view_mut(), two.view_mut()), OP, "deviations");
    measure(one.view_mut(), three.view_mut()).unwrap();
}
