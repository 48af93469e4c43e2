//! Softmax, log-softmax and `StableMax` of masked rows on a device.

use super::rows::{tensors, touch};
use super::softmax_params::{RowMask, SoftmaxBackwardParams, SoftmaxForwardParams, kind};
use crate::norm::SoftmaxKind;
use crate::norm::softmax::{BackwardCall, Blocks, ForwardCall};
use crate::rows::RowShape;
use crate::rows::RowTensor;
use crate::rows::{Alignment, Layout};
use crate::rows::{RowKernels, Source};
use crate::{Result, Stream, TensorRef};

/// Those that kernels/norm/softmax_block.cu lists.
const BLOCK_LAYOUTS: [Layout; 6] = [
    Layout::C8U2,
    Layout::C8U4,
    Layout::C8U8,
    Layout::C4U4,
    Layout::C4U8,
    Layout::S4U4,
];

/// Those that kernels/norm/softmax_cluster.cu lists.
const CLUSTER_LAYOUTS: [Layout; 4] = [Layout::C8U4, Layout::C8U8, Layout::C4U8, Layout::S4U4];

/// The loaded kernels of a prepared softmax.
#[derive(Debug)]
pub(in crate::norm) struct SoftmaxKernels {
    forward: RowKernels,
    backward: RowKernels,
}

impl SoftmaxKernels {
    pub(in crate::norm) fn load(stream: &Stream) -> Result<Self> {
        let load = |block, cluster| {
            let block = Source {
                module: "norm_softmax_block",
                stem: block,
                layouts: &BLOCK_LAYOUTS,
            };
            let cluster = Source {
                module: "norm_softmax_cluster",
                stem: cluster,
                layouts: &CLUSTER_LAYOUTS,
            };
            RowKernels::load(stream, block, Some(cluster))
        };
        Ok(Self {
            forward: load("norm_softmax_forward", "norm_softmax_forward_cluster")?,
            backward: load("norm_softmax_backward", "norm_softmax_backward_cluster")?,
        })
    }

    pub(in crate::norm) fn forward(&self, stream: &Stream, call: ForwardCall<'_>) -> Result<()> {
        let ForwardCall {
            options,
            blocks,
            x,
            entropy,
            normalizer,
        } = call;
        if blocks.rows == 0 {
            return Ok(());
        }
        let shape = shape(&blocks);
        let mut alignment = Alignment::default();
        alignment.add_rows(&x.input(), shape);
        alignment.add_rows(&x.output(), shape);
        let plan = self.forward.plan(shape, &alignment, |_| 0)?;
        let (from, to) = tensors(&x, shape);
        let mut params = SoftmaxForwardParams {
            grid: plan.grid,
            x: from,
            y: to,
            mask: RowMask::new(options, &blocks),
            status: stream.status_address(),
            scale: options.scale,
            kind: kind(options.kind),
            ..SoftmaxForwardParams::default()
        };
        let mut reads: Vec<TensorRef<'_>> = blocks.lengths.into_iter().collect();
        let mut writes = Vec::new();
        touch(x, &mut reads, &mut writes);
        for (slot, statistic) in [
            (&mut params.entropy, entropy),
            (&mut params.normalizer, normalizer),
        ] {
            if let Some(statistic) = statistic {
                *slot = statistic.address();
                writes.push(statistic);
            }
        }
        // SAFETY: the parameters are the kernel's, made of these views alone, whose shapes softmax.rs
        // found to fit: it reads and writes the columns of the rows, one length a batch, of which there
        // are as many as divide the rows, and one value a row of the statistics.
        unsafe { stream.launch(plan.kernel, plan.config, &params, &reads, &mut writes) }
    }

    pub(in crate::norm) fn backward(&self, stream: &Stream, call: BackwardCall<'_>) -> Result<()> {
        let BackwardCall {
            options,
            blocks,
            y,
            dy,
            dentropy,
            normalizer,
        } = call;
        if blocks.rows == 0 {
            return Ok(());
        }
        let shape = shape(&blocks);
        let mut alignment = Alignment::default();
        for rows in [&y, &dy.input(), &dy.output()] {
            alignment.add_rows(rows, shape);
        }
        let plan = self.backward.plan(shape, &alignment, |_| 0)?;
        // The others know their normalizer by y.
        let normalizer = normalizer.filter(|_| options.kind == SoftmaxKind::StableMax);
        let address = |view: Option<TensorRef<'_>>| view.map_or(0, |view| view.address());
        let (from, to) = tensors(&dy, shape);
        let params = SoftmaxBackwardParams {
            grid: plan.grid,
            y: RowTensor::new(&y, shape),
            dy: from,
            dx: to,
            mask: RowMask::new(options, &blocks),
            dentropy: address(dentropy),
            normalizer: address(normalizer),
            status: stream.status_address(),
            scale: options.scale,
            kind: kind(options.kind),
        };
        let mut reads = vec![y];
        reads.extend([blocks.lengths, dentropy, normalizer].into_iter().flatten());
        let mut writes = Vec::new();
        touch(dy, &mut reads, &mut writes);
        // SAFETY: as in `forward`: the columns of the rows, one length a batch, one value a row of the
        // gradients of entropies and of the normalizers, which StableMax has.
        unsafe { stream.launch(plan.kernel, plan.config, &params, &reads, &mut writes) }
    }
}

fn shape(blocks: &Blocks<'_>) -> RowShape {
    RowShape {
        tokens: blocks.rows,
        heads: 1,
        columns: blocks.keys,
    }
}
