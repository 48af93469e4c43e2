//! Quantised results of [`Dyt`](crate::norm::Dyt).

use super::{allocate, store, validate};
use crate::check::Named;
use crate::norm::arguments::Weights;
use crate::norm::dyt::{input_views, inputs};
use crate::norm::{PreparedDyt, host};
use crate::quant::{
    Quantize, QuantizeArguments, QuantizeOutputs, QuantizedMut, QuantizedTensor, Store,
};
use crate::rows::RowShape;
use crate::{Result, TensorRef};

/// A forward whose arguments fit, into low bits.
#[derive(Debug)]
pub(in crate::norm) struct QuantizedCall<'a> {
    pub(in crate::norm) shape: RowShape,
    /// `[1]` f32.
    pub(in crate::norm) alpha: TensorRef<'a>,
    /// `[columns]` each.
    pub(in crate::norm) weights: Weights<'a>,
    pub(in crate::norm) x: TensorRef<'a>,
    /// Where y goes.
    pub(in crate::norm) store: Store<'a>,
}

impl PreparedDyt {
    /// Quantising its results so, where it is asked to; with the kernels for it.
    pub(in crate::norm) fn quantized(mut self, quantize: Option<Quantize>) -> Result<Self> {
        if let Some(quantize) = &quantize {
            validate("Dyt::quantized", quantize)?;
            if let Some(kernels) = &mut self.kernels {
                kernels.load_quantized(&self.stream)?;
            }
        }
        self.quantize = quantize;
        Ok(self)
    }

    /// y, quantised as [`Dyt::quantized`](crate::norm::Dyt::quantized) said: y is never stored in a
    /// wider type. The values that are quantised are those of [`forward`](Self::forward) in f32.
    /// `arguments` are those of
    /// [`PreparedQuantize::quantize`](crate::quant::PreparedQuantize::quantize), for a row-wise output
    /// without groups. The backward is the plain one, which needs x and never y.
    ///
    /// x is read once, but for a scale of each whole row
    /// ([`Format::Fp8Row`](crate::quant::Format::Fp8Row)) of rows that registers do not hold: more than
    /// 131072 columns where there are clusters of blocks, 8192 elsewhere.
    ///
    /// ```
    /// use evenkeel::norm::{Dyt, Weights};
    /// use evenkeel::quant::{Dequantize, Format, Fp8, Quantize, QuantizeArguments};
    /// use evenkeel::{DType, Device};
    ///
    /// let stream = Device::cpu().stream()?;
    /// let x = stream.upload(&[1, 2], &[1e30_f32, 0.0])?;
    /// let alpha = stream.upload(&[1], &[0.5_f32])?;
    /// let beta = stream.upload(&[2], &[0.5_f32, 0.25])?;
    /// let quantize = Quantize::new(Format::Fp8Row(Fp8::E4m3));
    /// let op = Dyt::new().quantized(quantize).prepare(&stream)?;
    /// let (weights, arguments) = (Weights::default().beta(beta.view()), Default::default());
    /// let y = op.forward_quantized(x.view(), alpha.view(), &weights, arguments)?;
    ///
    /// let values = Dequantize::new().prepare(&stream)?.dequantize(y.view(), DType::F32)?;
    /// let values = values.read::<f32>()?; // tanh is 1 and 0: 1.5, which makes the scale, and 0.25
    /// assert!((values[0] - 1.5).abs() < 1e-6 && (values[1] - 0.25).abs() < 0.25 / 16.0);
    /// # Ok::<(), evenkeel::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and those of the quantisation.
    pub fn forward_quantized(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        weights: &Weights<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<QuantizedTensor> {
        let check = self.check("Dyt::forward_quantized");
        let shape = inputs(&check, &x, &alpha, weights)?;
        let mut y = allocate(&check, &self.stream, self.quantize.as_ref(), shape)?;
        self.forward_quantized_into(x, alpha, weights, arguments, y.view_mut())?;
        Ok(y)
    }

    /// As [`forward_quantized`](Self::forward_quantized), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward_quantized`](Self::forward_quantized).
    pub fn forward_quantized_into(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        weights: &Weights<'_>,
        mut arguments: QuantizeArguments<'_>,
        y: QuantizedMut<'_>,
    ) -> Result<()> {
        let check = self.check("Dyt::forward_quantized");
        let shape = inputs(&check, &x, &alpha, weights)?;
        let mut outputs = QuantizeOutputs::default().rowwise(y);
        let quantize = self.quantize.as_ref();
        let store = store(&check, quantize, shape, &mut arguments, &mut outputs)?;
        let (mut reads, mut writes) = (input_views(alpha, weights), Named::new());
        reads.push(("x", x));
        store.name(&mut reads, &mut writes);
        self.stream.check_views(check.op, &reads, &writes)?;
        let call = QuantizedCall {
            shape,
            alpha,
            weights: *weights,
            x,
            store,
        };
        match &self.kernels {
            Some(kernels) => kernels.forward_quantized(&self.stream, call),
            None => {
                let status = host::dyt::forward_quantized(&self.stream, call)?;
                self.stream.raise(status);
                Ok(())
            }
        }
    }
}
