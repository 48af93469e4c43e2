//! Quantised tensors: the views that operations read, and what the allocating forms give back.

use super::arguments::{QuantizeOutputs, QuantizedMut};
use super::check::{data, group_count, options, scales, tensor_scale};
use super::form::{QuantShape, QuantizedForm};
use super::{Format, Hadamard, OutputOptions, Quantize, ScaleLayout};
use crate::check::{Check, Named, read};
use crate::{Buffer, DType, Error, Result, Stream, TensorRef};

/// A quantised tensor `[outer, inner]` as operations read it: elements, scales, and what they mean.
///
/// value = element x scale, with blocks along the inner dimension. The operation that is given one
/// checks that its parts fit each other.
///
/// ```
/// use evenkeel::quant::{Dequantize, Format, QuantizedRef, ScaleLayout};
/// use evenkeel::{DType, Device, E2m1x2, E8m0};
///
/// let stream = Device::cpu().stream()?;
/// let elements = [E2m1x2::from_f32([1.0, -6.0]); 16];
/// let data = stream.upload(&[1, 16], &elements)?;
/// let scales = stream.upload(&[1, 1], &[E8m0::from_f32(0.5)])?;
/// let tensor = QuantizedRef::new(Format::MxFp4, 1, 32, data.view())
///     .scales(scales.view(), ScaleLayout::RowMajor);
/// let values = Dequantize::new().prepare(&stream)?.dequantize(tensor, DType::F32)?;
/// assert_eq!(values.read_range::<f32>(0..2)?, [0.5, -3.0]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct QuantizedRef<'a> {
    /// Elements, scales and blocks.
    pub format: Format,
    /// Rows.
    pub outer: usize,
    /// Elements of a row.
    pub inner: usize,
    /// Whether this is the transpose of the input, so that groups are ranges of the inner dimension
    /// and not of the outer one.
    pub transposed: bool,
    /// The rotation along the inner dimension that the elements have been through.
    pub rotation: Option<Hadamard>,
    /// Where the scales lie.
    pub layout: ScaleLayout,
    /// The elements, of the shape of [`QuantizedForm::data_shape`], rows at any stride.
    pub data: TensorRef<'a>,
    /// The scales of rows or blocks, where the format has such, of as many elements as
    /// [`QuantizedForm::scale_shape`] has; contiguous.
    pub scales: Option<TensorRef<'a>>,
    /// The f32 scale of the tensor, or of each group, where the format has such.
    pub tensor_scale: Option<TensorRef<'a>>,
    /// Where groups of the input's rows begin and end, `[groups + 1]` i64 or i32.
    pub groups: Option<TensorRef<'a>>,
}

impl<'a> QuantizedRef<'a> {
    /// The elements of `[outer, inner]`, without scales yet.
    #[must_use]
    pub fn new(format: Format, outer: usize, inner: usize, data: TensorRef<'a>) -> Self {
        Self {
            format,
            outer,
            inner,
            transposed: false,
            rotation: None,
            layout: ScaleLayout::RowMajor,
            data,
            scales: None,
            tensor_scale: None,
            groups: None,
        }
    }

    /// The transpose of its input.
    #[must_use]
    pub fn transposed(mut self) -> Self {
        self.transposed = true;
        self
    }

    /// Rotated along the inner dimension.
    #[must_use]
    pub fn rotation(mut self, rotation: Hadamard) -> Self {
        self.rotation = Some(rotation);
        self
    }

    /// With the scales of rows or blocks.
    #[must_use]
    pub fn scales(mut self, scales: TensorRef<'a>, layout: ScaleLayout) -> Self {
        self.scales = Some(scales);
        self.layout = layout;
        self
    }

    /// With the scale of the tensor, or of each group.
    #[must_use]
    pub fn tensor_scale(mut self, scale: TensorRef<'a>) -> Self {
        self.tensor_scale = Some(scale);
        self
    }

    /// Of groups of the input's rows.
    #[must_use]
    pub fn groups(mut self, offsets: TensorRef<'a>) -> Self {
        self.groups = Some(offsets);
        self
    }

    /// Its shapes.
    #[must_use]
    pub fn form(&self) -> QuantizedForm {
        let (rows, columns) = if self.transposed {
            (self.inner, self.outer)
        } else {
            (self.outer, self.inner)
        };
        let offsets = self.groups.map_or(0, |groups| groups.elements());
        let shape = QuantShape {
            rows,
            columns,
            groups: offsets.saturating_sub(1),
        };
        let output = OutputOptions {
            rotation: self.rotation,
            layout: self.layout,
        };
        QuantizedForm::new(self.format, output, self.transposed, shape)
    }

    /// That its parts fit each other and the device.
    pub(crate) fn check(&self, check: &Check) -> Result<QuantizedForm> {
        group_count(check, self.groups.as_ref())?;
        let form = self.form();
        // Of an input without rows the transpose has no columns.
        let (rows, columns) = if form.transposed {
            (form.inner, form.outer)
        } else {
            (form.outer, form.inner)
        };
        check.row_count("data", rows, columns)?;
        options(check, &form, ["rotation", "layout"])?;
        data(check, &form, "data", &self.data)?;
        scales(check, &form, "scales", self.scales.as_ref())?;
        tensor_scale(check, &form, "tensor_scale", self.tensor_scale.as_ref())?;
        Ok(form)
    }

    /// Its views with their names, for messages.
    pub(crate) fn name(&self, reads: &mut Named<'a>) {
        read(
            reads,
            [
                ("data", Some(self.data)),
                ("scales", self.scales),
                ("tensor_scale", self.tensor_scale),
                ("groups", self.groups),
            ],
        );
    }
}

/// One output of a quantisation, on the device.
#[derive(Debug)]
pub struct QuantizedTensor {
    /// The elements.
    pub data: Buffer,
    /// The scales of rows or blocks, where the format has such.
    pub scales: Option<Buffer>,
    /// The f32 scale of the tensor, or of each group, where the format has such.
    pub tensor_scale: Option<Buffer>,
    form: QuantizedForm,
}

impl QuantizedTensor {
    pub(crate) fn allocate(stream: &Stream, form: QuantizedForm) -> Result<Self> {
        let scales = form.scale_shape().zip(form.scale_dtype());
        let tensor_scales = form.tensor_scales();
        Ok(Self {
            data: stream.uninitialised(form.data_dtype(), &form.data_shape())?,
            scales: scales
                .map(|(shape, dtype)| stream.uninitialised(dtype, &shape))
                .transpose()?,
            tensor_scale: (tensor_scales > 0)
                .then(|| stream.uninitialised(DType::F32, &[tensor_scales]))
                .transpose()?,
            form,
        })
    }

    /// What it is.
    #[must_use]
    pub fn form(&self) -> &QuantizedForm {
        &self.form
    }

    /// For operations that read it. Where its input had groups, add them by
    /// [`QuantizedRef::groups`].
    #[must_use]
    pub fn view(&self) -> QuantizedRef<'_> {
        let QuantizedForm {
            format,
            transposed,
            outer,
            inner,
            rotation,
            layout,
            ..
        } = self.form;
        QuantizedRef {
            format,
            outer,
            inner,
            transposed,
            rotation,
            layout,
            data: self.data.view(),
            scales: self.scales.as_ref().map(Buffer::view),
            tensor_scale: self.tensor_scale.as_ref().map(Buffer::view),
            groups: None,
        }
    }

    /// To be written.
    pub fn view_mut(&mut self) -> QuantizedMut<'_> {
        QuantizedMut {
            data: self.data.view_mut(),
            scales: self.scales.as_mut().map(Buffer::view_mut),
            tensor_scale: self.tensor_scale.as_mut().map(Buffer::view_mut),
        }
    }
}

/// What a quantisation gives: the outputs that were asked for, on the device.
#[derive(Debug)]
pub struct Quantized {
    /// X, quantised along its rows.
    pub rowwise: Option<QuantizedTensor>,
    /// The transpose of X, quantised along X's columns.
    pub transposed: Option<QuantizedTensor>,
}

impl Quantized {
    /// Memory for the outputs of an input of this shape.
    pub(crate) fn allocate(
        stream: &Stream,
        quantize: &Quantize,
        shape: QuantShape,
    ) -> Result<Self> {
        let [rowwise, transposed] = quantize.forms(shape);
        let allocate = |form: QuantizedForm| QuantizedTensor::allocate(stream, form);
        Ok(Self {
            rowwise: rowwise.map(allocate).transpose()?,
            transposed: transposed.map(allocate).transpose()?,
        })
    }

    /// The row-wise output, for operations that read it.
    ///
    /// # Errors
    /// [`Error::Argument`] where it was not asked for.
    pub fn rowwise(&self) -> Result<QuantizedRef<'_>> {
        view_of(self.rowwise.as_ref(), "Quantized::rowwise", "rowwise")
    }

    /// The transposed output, for operations that read it.
    ///
    /// # Errors
    /// [`Error::Argument`] where it was not asked for.
    pub fn transposed(&self) -> Result<QuantizedRef<'_>> {
        view_of(
            self.transposed.as_ref(),
            "Quantized::transposed",
            "transposed",
        )
    }

    /// Both to be written, without a workspace.
    pub fn outputs(&mut self) -> QuantizeOutputs<'_> {
        QuantizeOutputs {
            rowwise: self.rowwise.as_mut().map(QuantizedTensor::view_mut),
            transposed: self.transposed.as_mut().map(QuantizedTensor::view_mut),
            workspace: None,
        }
    }

    /// Bytes of all elements and scales.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let outputs = [&self.rowwise, &self.transposed];
        outputs
            .into_iter()
            .flatten()
            .map(|tensor| tensor.form.bytes())
            .sum()
    }
}

fn view_of<'a>(
    tensor: Option<&'a QuantizedTensor>,
    op: &'static str,
    output: &'static str,
) -> Result<QuantizedRef<'a>> {
    tensor.map(QuantizedTensor::view).ok_or_else(|| {
        let expected = format!("configured: Quantize::{output} asks for it");
        Error::argument(op, output, expected, "not made")
    })
}
