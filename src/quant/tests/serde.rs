//! Options as serde values: all that their setters say comes back.

use std::fmt::Debug;

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;

use crate::quant::{
    AmaxHistory, DelayedScaling, DelayedState, Estimator, Format, Fp8, GaussWs, GeluKind, Hadamard,
    OutputOptions, Quantize, QuantizeOptions, Rounding, ScaleLayout, ScaleRounding, Scaling,
    Smoothing,
};

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap();
    let again: T = serde_json::from_str(&text).unwrap();
    assert_eq!(again, *value, "{text}");
    text
}

/// Every value of every option: one that a setter forgot to keep, or a text form that loses a digit,
/// shows.
#[test]
fn quantisations_come_back_with_every_option() {
    let roundings = [
        Rounding::Nearest,
        Rounding::Stochastic { seed: 0 },
        Rounding::Stochastic { seed: u64::MAX },
    ];
    let mut outputs = vec![None, Some(OutputOptions::new())];
    for layout in ScaleLayout::ALL {
        let output = OutputOptions::new().layout(layout);
        let rotations = [16, 32, 128].map(|n| output.rotation(Hadamard::new(n, 1 << 63)));
        outputs.push(Some(output));
        outputs.extend(rotations.map(Some));
    }
    let mut texts = std::collections::BTreeSet::new();
    let mut count = 0;
    for format in Format::ALL {
        for rounding in roundings {
            for index in 0..8 {
                let mut options = QuantizeOptions::new(format).rounding(rounding);
                if index & 1 != 0 {
                    options = options.scaling(Scaling::Given);
                }
                if index & 2 != 0 {
                    options = options.power_of_two();
                }
                if index & 4 != 0 {
                    options = options.scale_rounding(ScaleRounding::Ceil);
                }
                comes_back(&options);
                for (at, &rowwise) in outputs.iter().enumerate() {
                    let transposed = outputs[(5 * at + index) % outputs.len()];
                    let mut quantize = Quantize::new(options);
                    quantize = rowwise.map_or(quantize, |output| quantize.rowwise(output));
                    quantize = transposed.map_or(quantize, |output| quantize.transposed(output));
                    texts.insert(comes_back(&quantize));
                    count += 1;
                }
            }
        }
    }
    assert_eq!(texts.len(), count, "two quantisations have one text");
}

/// A file that names a format alone has the defaults of the setters; what nobody knows is refused.
#[test]
fn what_is_not_said_is_the_default() {
    let short = r#"{"options":{"format":"mxfp8:e4m3"}}"#;
    let read: Quantize = serde_json::from_str(short).unwrap();
    assert_eq!(read, Quantize::new(Format::MxFp8(Fp8::E4m3)));
    let output: OutputOptions = serde_json::from_str("{}").unwrap();
    assert_eq!(output, OutputOptions::new());
    for wrong in [
        r#"{"options":{"format":"mxfp9"}}"#,
        r#"{"options":{"format":"nvfp4","rounding":"up"}}"#,
        r#"{"options":{"format":"nvfp4","seed":3}}"#,
        r#"{"options":{"format":"nvfp4"},"rowwise":{"rotation":"hadamard:17:1"}}"#,
        r#"{"options":{"format":"nvfp4"},"columnwise":{}}"#,
        r#"{"options":{}}"#,
    ] {
        let read = serde_json::from_str::<Quantize>(wrong);
        assert!(read.is_err(), "{wrong} is {read:?}");
    }
}

#[test]
fn the_other_operations_come_back() {
    for history in AmaxHistory::ALL {
        for margin in [-3, 0, 2] {
            let scaling = DelayedScaling::new().history(history).margin(margin);
            comes_back(&scaling);
            comes_back(&scaling.length(7).power_of_two());
        }
    }
    comes_back(&DelayedState {
        length: 2,
        cursors: vec![1],
        amax: vec![f32::MIN_POSITIVE / 4.0],
        history: vec![0.1, f32::MAX],
        scales: vec![1.0 / 3.0],
    });
    comes_back(&GaussWs::new(u64::MAX));
    for kind in GeluKind::ALL {
        comes_back(&kind);
    }
    for smoothing in Smoothing::ALL {
        comes_back(&smoothing);
    }
    comes_back(&Estimator::saturation(Format::MxFp8(Fp8::E5m2)));
    comes_back(&Estimator::reste(3.7));
}
