//! Softmaxes of masked rows.

use super::rows::open;
use crate::host::{fill, floats, indices, matrix};
use crate::norm::softmax::{BackwardCall, Blocks, ForwardCall};
use crate::reference::norm::softmax::{self, Incoming};
use crate::rows::RowShape;
use crate::{Result, Status};

/// Runs a checked forward. Gives what was found wrong with the data.
pub(in crate::norm) fn forward(mut call: ForwardCall<'_>) -> Result<Status> {
    let mut copy = Vec::new();
    let (x, y) = open(shape(&call.blocks), &mut call.x, &mut copy)?;
    let forward = softmax::forward(call.options, &blocks(&call.blocks)?, x, y)?;
    if let Some(mut entropy) = call.entropy {
        fill(&mut entropy, forward.entropies)?;
    }
    if let Some(mut normalizer) = call.normalizer {
        fill(&mut normalizer, forward.normalizers)?;
    }
    Ok(forward.status)
}

/// Runs a checked backward. Gives what was found wrong with the data.
pub(in crate::norm) fn backward(mut call: BackwardCall<'_>) -> Result<Status> {
    let mut copy = Vec::new();
    let (dy, dx) = open(shape(&call.blocks), &mut call.dy, &mut copy)?;
    let incoming = Incoming {
        dy,
        dentropy: call.dentropy.as_ref().map(floats).transpose()?,
        normalizers: call.normalizer.as_ref().map(floats).transpose()?,
    };
    let blocks = blocks(&call.blocks)?;
    softmax::backward(call.options, &blocks, matrix(&call.y)?, incoming, dx)
}

fn shape(blocks: &Blocks<'_>) -> RowShape {
    RowShape {
        tokens: blocks.rows,
        heads: 1,
        columns: blocks.keys,
    }
}

fn blocks<'a>(blocks: &Blocks<'a>) -> Result<softmax::Blocks<'a>> {
    Ok(softmax::Blocks {
        queries: blocks.queries,
        lengths: blocks.lengths.as_ref().map(indices).transpose()?,
    })
}
