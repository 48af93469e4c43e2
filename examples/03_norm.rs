//! The normalizations of a pre-norm transformer block, forward and backward, on the best device there
//! is: `cargo run --release --example 03_norm`.
//!
//! The residual stream and the weights are f32, all else is bf16: every tensor has a type of its own.
//! Projections and attention are left out; made-up numbers stand for what they give.

use evenkeel::norm::{
    GradientOutputs, HeadNorm, HeadNormOptions, Norm, NormOptions, Pairing, RotaryTables, Saved,
    Statistics, Weights,
};
use evenkeel::{Buffer, DType, Device, Result, Stream};
use half::bf16;

const TOKENS: usize = 32;
const HIDDEN: usize = 256;
const HEAD_DIM: usize = 64;
const QUERY_HEADS: usize = 4;
/// What a token has of queries, and of queries, keys and values side by side.
const QUERIES: usize = QUERY_HEADS * HEAD_DIM;
const PACKED: usize = 2 * QUERIES;

fn main() -> Result<()> {
    let device = Device::best()?; // a GPU where one answers, else the CPU
    let stream = device.stream()?;
    println!("{device}: {}", device.name());

    // Once: the options are checked, the kernels loaded.
    let norm = Norm::rms().prepare(&stream)?;
    let per_head = HeadNormOptions::new(NormOptions::rms()).rotary(Pairing::HalfSplit, HEAD_DIM);
    let q_norm = HeadNorm::new(per_head, QUERY_HEADS).prepare(&stream)?;

    let gamma = stream.upload(&[HIDDEN], &[1.0_f32; HIDDEN])?;
    let weights = Weights::gamma(gamma.view());
    let q_gamma = stream.upload(&[HEAD_DIM], &[1.0_f32; HEAD_DIM])?; // the same for all heads
    let q_weights = Weights::gamma(q_gamma.view());
    let (cos, sin) = rotary_tables(&stream)?;
    let tables = RotaryTables::new(cos.view(), sin.view());

    // Where gradients of weights add up, and the scratch for their sums over rows.
    let mut dgamma = stream.zeros(DType::F32, &[HIDDEN])?;
    let mut dq_gamma = stream.zeros(DType::F32, &[HEAD_DIM])?;
    let of_rows = norm.backward_workspace_bytes(TOKENS, HIDDEN);
    let of_heads = q_norm.backward_workspace_bytes(TOKENS, HEAD_DIM);
    let mut workspace = stream.uninitialised(DType::U8, &[of_rows.max(of_heads)])?;

    for micro_batch in 0..2 {
        let made_up = |columns, what: u64| activations(&stream, columns, what + 10 * micro_batch);

        // The sum with the residual and its norm in one pass and in place: the block's output becomes
        // what the next projections read, the residual becomes the new stream.
        let mut y = made_up(HIDDEN, 0)?;
        let mut residual = stream.upload(&[TOKENS, HIDDEN], &numbers(TOKENS * HIDDEN, 1))?;
        let mut rstd = stream.uninitialised(DType::F32, &[TOKENS])?;
        let mut statistics = Statistics::rstd(rstd.view_mut());
        norm.forward_residual_in_place(
            y.view_mut(),
            residual.view_mut(),
            &weights,
            &mut statistics,
        )?;

        // Queries are columns of the packed projection: a view of it, and no copy. Keys go likewise.
        let qkv = made_up(PACKED, 2)?;
        let x = qkv.view().slice_columns(0..QUERIES)?;
        let q = q_norm.forward(x, &q_weights, Some(&tables))?;

        // Backward: attention gives dq; the gradient goes where the projection's backward reads it.
        let dq = made_up(QUERIES, 3)?;
        let mut dqkv = stream.zeros(DType::Bf16, &[TOKENS, PACKED])?;
        q_norm.backward_into(
            Some(x),
            &q_weights,
            q.saved().as_ref(),
            Some(&tables),
            dq.view(),
            dqkv.view_mut().slice_columns(0..QUERIES)?,
            &mut GradientOutputs::default()
                .dgamma(dq_gamma.view_mut())
                .workspace(workspace.view_mut())
                .accumulate(),
        )?;

        // dy becomes the gradient of the block's output and of the residual alike; what reaches the
        // stream from above is added in the same pass.
        let mut dy = made_up(HIDDEN, 4)?;
        let dstream = made_up(HIDDEN, 5)?;
        norm.backward_in_place(
            residual.view(), // the stream, which is what was normalized
            &weights,
            &Saved::new(rstd.view()),
            dy.view_mut(),
            Some(dstream.view()),
            &mut GradientOutputs::default()
                .dgamma(dgamma.view_mut())
                .workspace(workspace.view_mut())
                .accumulate(),
        )?;

        // The calls above queued their work; reading waits for it.
        println!("micro-batch {micro_batch}");
        println!(
            "    mean square of y {:.3}, of q {:.3}",
            mean_square(&y)?,
            mean_square(&q.y)?
        );
        println!("    dgamma    {:+.3?} ..", dgamma.read_range::<f32>(0..4)?);
        println!(
            "    dgamma(q) {:+.3?} ..",
            dq_gamma.read_range::<f32>(0..4)?
        );
    }

    // What does not fit is an error that names it, before anything is launched.
    let narrow = activations(&stream, HIDDEN - 1, 0)?;
    if let Err(error) = norm.forward(narrow.view(), &weights) {
        println!("{error}");
    }
    stream.check() // the device found nothing wrong with the data
}

/// The cosine and sine of each position and pair, at the frequencies of RoFormer.
fn rotary_tables(stream: &Stream) -> Result<(Buffer, Buffer)> {
    let pairs = HEAD_DIM / 2;
    let angle = |i: usize| {
        let (position, pair) = (i / pairs, i % pairs);
        position as f32 * 10_000_f32.powf(-(pair as f32) / pairs as f32)
    };
    let table =
        |of: fn(f32) -> f32| -> Vec<f32> { (0..TOKENS * pairs).map(|i| of(angle(i))).collect() };
    let shape = [TOKENS, pairs];
    let cos = stream.upload(&shape, &table(f32::cos))?;
    Ok((cos, stream.upload(&shape, &table(f32::sin))?))
}

fn activations(stream: &Stream, columns: usize, seed: u64) -> Result<Buffer> {
    let values = numbers(TOKENS * columns, seed);
    let values: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
    stream.upload(&[TOKENS, columns], &values)
}

/// Between -1 and 1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as i32 as f32 / 2_147_483_648.0
    };
    (0..count).map(next).collect()
}

fn mean_square(rows: &Buffer) -> Result<f32> {
    let values = rows.read::<bf16>()?;
    let sum: f32 = values.iter().map(|x| x.to_f32() * x.to_f32()).sum();
    Ok(sum / values.len() as f32)
}
