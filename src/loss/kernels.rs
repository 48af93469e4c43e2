//! The loss on a device: which kernels are loaded, what they are given, in which order they run.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::arguments::{LossInputs, LossOutputs, Statistic, TokenCount, Upstream};
use super::check::Checked;
use super::launch::{
    ClusterShape, KernelPath, batch_launch, block_launch, rescale_launch, row_kernel, short,
};
use super::params::{
    Moments, PerToken, ScaleGradientParams, SoftmaxLossParams, SoftmaxReduceParams, denominator,
    integer_type, objective, threshold,
};
use super::{Denominator, LossOptions, Objective, Reduction};
use crate::device::launch::{Kernel, LaunchConfig};
use crate::{DType, Result, Stream, TensorMut, TensorRef};

/// Which of the modes a call is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pass<'a> {
    Forward,
    ForwardBackward,
    /// From the saved state and the gradients from above.
    Backward(&'a TensorRef<'a>, &'a Upstream<'a>),
}

/// A call whose arguments fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) options: &'a LossOptions,
    pub(super) pass: Pass<'a>,
    pub(super) checked: Checked,
    pub(super) inputs: &'a LossInputs<'a>,
}

/// The logits and where their gradient goes.
#[derive(Debug)]
pub(super) enum Rows<'l, 'g> {
    Read(TensorRef<'l>),
    Apart(TensorRef<'l>, TensorMut<'g>),
    InPlace(TensorMut<'g>),
}

impl Rows<'_, '_> {
    pub(super) fn logits(&self) -> TensorRef<'_> {
        match self {
            Rows::Read(logits) | Rows::Apart(logits, _) => *logits,
            Rows::InPlace(logits) => logits.as_ref(),
        }
    }

    pub(super) fn gradient(&self) -> Option<TensorRef<'_>> {
        match self {
            Rows::Read(_) => None,
            Rows::Apart(_, gradient) => Some(gradient.as_ref()),
            Rows::InPlace(logits) => Some(logits.as_ref()),
        }
    }
}

/// Bytes of the workspace: the header, then scale, loss and flags of each token.
pub(super) fn workspace_bytes(tokens: usize) -> usize {
    let flags = Workspace::new(0, tokens).flags as usize;
    flags + tokens.next_multiple_of(16)
}

/// Addresses within the workspace.
struct Workspace {
    scale: u64,
    reduced_loss: u64,
    counts: u64,
    token_scale: u64,
    loss: u64,
    flags: u64,
}

impl Workspace {
    const HEADER: u64 = 32;

    fn new(base: u64, tokens: usize) -> Self {
        let floats = (tokens * 4).next_multiple_of(16) as u64;
        Self {
            scale: base,
            reduced_loss: base + 4,
            counts: base + 16,
            token_scale: base + Self::HEADER,
            loss: base + Self::HEADER + floats,
            flags: base + Self::HEADER + 2 * floats,
        }
    }
}

type RowKey = (KernelPath, DType, DType, Moments);

/// The loaded kernels of a prepared loss.
pub(super) struct LossKernels {
    path: KernelPath,
    rows: HashMap<RowKey, Kernel>,
    scale: Kernel,
    reduce: Kernel,
    rescale: HashMap<DType, Kernel>,
    /// How many clusters of a launch the device holds at once; asked of the driver once each.
    active: Mutex<HashMap<(RowKey, ClusterOrBlock), u32>>,
}

type ClusterOrBlock = (u32, u32, u32);

impl fmt::Debug for LossKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LossKernels({:?}, {} row kernels)",
            self.path,
            self.rows.len()
        )
    }
}

impl LossKernels {
    /// Loads everything a call may need: loading lazily within a graph capture may fail.
    pub(super) fn load(stream: &Stream, path: KernelPath) -> Result<Self> {
        use DType::{Bf16, F16, F32};
        const TYPES: [(DType, DType); 5] = [
            (Bf16, Bf16),
            (Bf16, F32),
            (F16, F16),
            (F16, F32),
            (F32, F32),
        ];
        let mut rows = HashMap::new();
        let paths: &[KernelPath] = match path {
            KernelPath::Cluster => &[KernelPath::Cluster, KernelPath::Block],
            _ => &[KernelPath::Block],
        };
        for &path in paths {
            for (logits, gradient) in TYPES {
                for moments in [Moments::None, Moments::All] {
                    let (module, name) = row_kernel(path, logits, gradient, moments);
                    let kernel = stream.kernel(module, &name)?;
                    rows.insert((path, logits, gradient, moments), kernel);
                }
            }
        }
        const BATCH: &str = "loss_softmax_batch";
        let mut rescale = HashMap::new();
        for dtype in [Bf16, F16, F32] {
            let name = format!("softmax_loss_rescale_{}", short(dtype));
            rescale.insert(dtype, stream.kernel(BATCH, &name)?);
        }
        Ok(Self {
            path,
            rows,
            scale: stream.kernel(BATCH, "softmax_loss_scale")?,
            reduce: stream.kernel(BATCH, "softmax_loss_reduce")?,
            rescale,
            active: Mutex::default(),
        })
    }

    /// Whether a cluster's shared memory holds a row.
    pub(super) fn cluster_holds(&self, vocab: usize, logits: DType) -> bool {
        !ClusterShape::candidates(vocab, logits.size()).is_empty()
    }

    pub(super) fn run(
        &self,
        stream: &Stream,
        call: &Call<'_>,
        mut rows: Rows<'_, '_>,
        outputs: &mut LossOutputs<'_>,
    ) -> Result<()> {
        let launches = Launches {
            kernels: self,
            stream,
            call,
            workspace: Workspace::new(outputs.workspace.address(), call.checked.tokens),
        };
        launches.scale(outputs)?;
        launches.rows(&mut rows, outputs)?;
        match call.pass {
            Pass::Backward(..) => Ok(()),
            Pass::Forward | Pass::ForwardBackward => launches.reduce(outputs),
        }
    }

    pub(super) fn scale_gradient(
        &self,
        stream: &Stream,
        gradient: TensorMut<'_>,
        kept: TensorRef<'_>,
        scale: TensorRef<'_>,
    ) -> Result<()> {
        let Some(kernel) = self.rescale.get(&gradient.dtype()) else {
            return Ok(()); // the caller checked the type: there is a kernel for each
        };
        let params = ScaleGradientParams {
            gradient: gradient.address(),
            factor: scale.address(),
            kept: kept.address(),
            tokens: kept.elements() as i64,
            vocab: gradient.columns() as i64,
            stride: gradient.row_stride() as i64,
        };
        let active = kernel.max_active_clusters(&rescale_launch(1))?;
        let blocks = (kept.elements() as u64).min(u64::from(active)) as u32;
        // SAFETY: the parameters are the kernel's, made of these views alone; it reads `kept` and
        // `scale` and writes rows of `gradient` within its columns.
        unsafe {
            stream.launch(
                kernel,
                rescale_launch(blocks),
                &params,
                &[kept, scale],
                &mut [gradient],
            )
        }
    }

    /// The largest useful grid of a row kernel, in clusters.
    fn active(&self, key: RowKey, kernel: &Kernel, launch: &LaunchConfig) -> Result<u32> {
        let shape = (launch.cluster, launch.block, launch.shared_bytes);
        let mut cache = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&active) = cache.get(&(key, shape)) {
            return Ok(active);
        }
        let active = kernel.max_active_clusters(launch)?;
        cache.insert((key, shape), active);
        Ok(active)
    }
}

/// The launches of one call, and what they share.
struct Launches<'c, 'a> {
    kernels: &'c LossKernels,
    stream: &'c Stream,
    call: &'c Call<'a>,
    workspace: Workspace,
}

impl<'a> Launches<'_, 'a> {
    fn reduction(&self) -> Reduction {
        self.call.options.reduction
    }

    fn by_sequence(&self) -> bool {
        self.reduction() == Reduction::Mean(Denominator::Sequence)
    }

    /// Whether the denominator is known before the rows: always but under Kept, which backward
    /// takes from the saved states.
    fn scales_first(&self) -> bool {
        match self.reduction() {
            Reduction::None | Reduction::Sum => false,
            Reduction::Mean(Denominator::Kept) => matches!(self.call.pass, Pass::Backward(..)),
            _ => true,
        }
    }

    /// 1 / denominator, into the workspace.
    fn scale(&self, outputs: &mut LossOutputs<'_>) -> Result<()> {
        if !self.scales_first() {
            return Ok(());
        }
        let mut reads = vec![self.call.inputs.targets];
        let mut params = self.reduce_params(&mut reads);
        if let Pass::Backward(state, _) = self.call.pass {
            params.state = state.address();
            reads.push(*state);
        }
        let writes = &mut [outputs.workspace.reborrow()];
        // SAFETY: the parameters are the kernel's; it reads targets, offsets, token count and state
        // within their checked lengths and writes the workspace's scales.
        unsafe {
            self.stream
                .launch(&self.kernels.scale, batch_launch(), &params, &reads, writes)
        }
    }

    /// Sum of the losses and counts.
    fn reduce(&self, outputs: &mut LossOutputs<'_>) -> Result<()> {
        let mut reads = Vec::new();
        let mut params = self.reduce_params(&mut reads);
        params.loss = match &outputs.statistics[Statistic::Loss as usize] {
            Some(loss) => loss.address(),
            None => self.workspace.loss,
        };
        params.flags = self.workspace.flags;
        if let Some(upstream) = &self.call.inputs.upstream {
            params.upstream = upstream.address();
            reads.push(*upstream);
        }
        if !self.scales_first() {
            params.scale = 0;
        }
        let mut writes = vec![outputs.workspace.reborrow()];
        for (slot, output) in [
            (&mut params.reduced_loss, &mut outputs.loss),
            (&mut params.counts, &mut outputs.counts),
            (&mut params.gradient_scale, &mut outputs.gradient_scale),
        ] {
            if let Some(output) = output {
                *slot = output.address();
                writes.push(output.reborrow());
            }
        }
        if let Some(loss) = &mut outputs.statistics[Statistic::Loss as usize] {
            writes.push(loss.reborrow());
        }
        // SAFETY: the parameters are the kernel's; it reads the tokens' losses, flags and scales
        // within their checked lengths and writes single values into the outputs or the workspace.
        unsafe {
            self.stream.launch(
                &self.kernels.reduce,
                batch_launch(),
                &params,
                &reads,
                &mut writes,
            )
        }
    }

    /// What both kernels of the batch are given.
    fn reduce_params(&self, reads: &mut Vec<TensorRef<'a>>) -> SoftmaxReduceParams {
        let inputs = self.call.inputs;
        let mut params = SoftmaxReduceParams {
            targets: inputs.targets.address(),
            scale: if self.by_sequence() {
                self.workspace.token_scale
            } else {
                self.workspace.scale
            },
            reduced_loss: self.workspace.reduced_loss,
            counts: self.workspace.counts,
            status: self.stream.status_address(),
            tokens: self.call.checked.tokens as i64,
            ignore_index: self.call.options.ignore_index,
            target_type: integer_type(inputs.targets.dtype()),
            denominator: denominator(self.reduction()),
            ..SoftmaxReduceParams::default()
        };
        match inputs.tokens {
            Some(TokenCount::Host(count)) => params.host_divisor = count,
            Some(TokenCount::Device(count)) => {
                params.tokens_divisor = count.address();
                reads.push(count);
            }
            None => {}
        }
        if let Some(offsets) = inputs.sequences {
            params.offsets = offsets.address();
            params.offset_type = integer_type(offsets.dtype());
            params.sequences = offsets.elements() as i64 - 1;
            reads.push(offsets);
        }
        params
    }

    /// The kernel over the rows.
    fn rows(&self, rows: &mut Rows<'_, '_>, outputs: &mut LossOutputs<'_>) -> Result<()> {
        if self.call.checked.tokens == 0 {
            return Ok(());
        }
        let mut reads = vec![self.call.inputs.targets];
        let moments = self.moments(rows, outputs);
        let mut params = self.row_params(rows, moments, &mut reads);
        params.find_argmax =
            u32::from(outputs.wants(Statistic::Argmax) || outputs.wants(Statistic::Correct));
        self.output_addresses(&mut params, outputs);
        // The counts include the correct tokens.
        params.find_argmax |= u32::from(outputs.counts.is_some());

        let logits = rows.logits().dtype();
        let gradient = rows.gradient().map_or(logits, |gradient| gradient.dtype());
        let (kernel, launch) = self.choose(&mut params, logits, gradient, moments)?;

        let mut writes = vec![outputs.workspace.reborrow()];
        if let Some(state) = &mut outputs.state {
            writes.push(state.reborrow());
        }
        for statistic in outputs.statistics.iter_mut().flatten() {
            writes.push(statistic.reborrow());
        }
        match rows {
            Rows::Read(logits) => reads.push(*logits),
            Rows::Apart(logits, gradient) => {
                reads.push(*logits);
                writes.push(gradient.reborrow());
            }
            Rows::InPlace(logits) => writes.push(logits.reborrow()),
        }
        // SAFETY: the parameters are the kernel's, made of these views alone, whose shapes check.rs
        // found to fit; it reads columns below `vocab`, writes those below `vocab_padded`, one value a
        // token of each statistic, and skips tokens whose target is not a class.
        unsafe {
            self.stream
                .launch(kernel, launch, &params, &reads, &mut writes)
        }
    }

    /// How much of each row this call gathers.
    fn moments(&self, rows: &Rows<'_, '_>, outputs: &LossOutputs<'_>) -> Moments {
        let options = self.call.options;
        let upstream_entropy =
            matches!(self.call.pass, Pass::Backward(_, upstream) if upstream.entropy.is_some());
        let transforms = options.softcap.is_some()
            || options.temperature != 1.0
            || self.call.inputs.class_mask.is_some();
        let terms = options.label_smoothing != 0.0
            || options.spectral_decoupling != 0.0
            || (options.entropy != 0.0 && rows.gradient().is_some());
        if transforms || terms || upstream_entropy {
            return Moments::All;
        }
        let statistics = [Statistic::Entropy, Statistic::SumP2, Statistic::El2n];
        let wanted = statistics.iter().any(|&s| outputs.wants(s)) || outputs.state.is_some();
        let needed = options.criterion.objective == Objective::Deft || options.entropy != 0.0;
        if wanted || needed {
            Moments::Some
        } else {
            Moments::None
        }
    }

    fn row_params(
        &self,
        rows: &Rows<'_, '_>,
        moments: Moments,
        reads: &mut Vec<TensorRef<'a>>,
    ) -> SoftmaxLossParams {
        let options = self.call.options;
        let inputs = self.call.inputs;
        let logits = rows.logits();
        let gradient = rows.gradient();
        let (objective, objective_parameter) = objective(options.criterion.objective);
        let (threshold_side, tau) = threshold(options.criterion);
        let mut per_token = |view: Option<TensorRef<'a>>| {
            let Some(view) = view else {
                return PerToken::default();
            };
            reads.push(view);
            PerToken {
                values: view.address(),
                stride: i64::from(view.elements() != 1),
            }
        };
        let token_weight = per_token(inputs.token_weights);
        let upstream = match self.call.pass {
            Pass::Forward => Upstream::default(),
            // Under Kept the upstream is part of the scale that remains.
            Pass::ForwardBackward if !self.defers_scale() => Upstream {
                loss: inputs.upstream,
                ..Upstream::default()
            },
            Pass::ForwardBackward => Upstream::default(),
            Pass::Backward(_, upstream) => *upstream,
        };
        let mut params = SoftmaxLossParams {
            logits: logits.address(),
            gradient: gradient.map_or(0, |gradient| gradient.address()),
            targets: inputs.targets.address(),
            class_mask: inputs.class_mask.map_or(0, |mask| mask.address()),
            token_weight,
            upstream_loss: per_token(upstream.loss),
            upstream_lp: per_token(upstream.lp),
            upstream_entropy: per_token(upstream.entropy),
            upstream_lse: per_token(upstream.lse),
            absent_upstream: if matches!(self.call.pass, Pass::Backward(..)) {
                0.0
            } else {
                1.0
            },
            status: self.stream.status_address(),
            tokens: self.call.checked.tokens as i64,
            vocab: self.call.checked.vocab as i64,
            vocab_padded: gradient.map_or(self.call.checked.vocab, |g| g.columns()) as i64,
            logits_stride: logits.row_stride() as i64,
            gradient_stride: gradient.map_or(0, |gradient| gradient.row_stride()) as i64,
            ignore_index: options.ignore_index,
            objective,
            threshold_side,
            target_type: integer_type(inputs.targets.dtype()),
            moments: moments as u32,
            objective_parameter,
            tau,
            softcap: options.softcap.unwrap_or(0.0),
            inverse_temperature: 1.0 / options.temperature,
            z_loss: options.z_loss,
            label_smoothing: options.label_smoothing,
            entropy_weight: options.entropy,
            spectral_decoupling: options.spectral_decoupling,
            ..SoftmaxLossParams::default()
        };
        if let Some(mask) = inputs.class_mask {
            reads.push(mask);
        }
        if self.scales_first() {
            params.scale = PerToken {
                values: if self.by_sequence() {
                    self.workspace.token_scale
                } else {
                    self.workspace.scale
                },
                stride: i64::from(self.by_sequence()),
            };
        }
        if let Pass::Backward(state, _) = self.call.pass {
            params.state = state.address();
            params.from_state = 1;
            reads.push(*state);
        }
        params
    }

    fn defers_scale(&self) -> bool {
        self.reduction() == Reduction::Mean(Denominator::Kept)
    }

    fn output_addresses(&self, params: &mut SoftmaxLossParams, outputs: &LossOutputs<'_>) {
        if params.from_state != 0 {
            return;
        }
        let of = |statistic: Statistic| {
            let values = &outputs.statistics[statistic as usize];
            values.as_ref().map_or(0, |values| values.address())
        };
        params.loss = match of(Statistic::Loss) {
            0 => self.workspace.loss,
            loss => loss,
        };
        params.lse = of(Statistic::Lse);
        params.lp = of(Statistic::Lp);
        params.p = of(Statistic::P);
        params.entropy = of(Statistic::Entropy);
        params.sum_p2 = of(Statistic::SumP2);
        params.el2n = of(Statistic::El2n);
        params.argmax = of(Statistic::Argmax);
        params.correct = of(Statistic::Correct);
        params.kept = of(Statistic::Kept);
        params.flags = self.workspace.flags;
        params.state = outputs.state.as_ref().map_or(0, |state| state.address());
    }

    /// The kernel and its launch; completes the parameters of the cluster kernel.
    fn choose(
        &self,
        params: &mut SoftmaxLossParams,
        logits: DType,
        gradient: DType,
        moments: Moments,
    ) -> Result<(&Kernel, LaunchConfig)> {
        let full = if moments == Moments::All {
            Moments::All
        } else {
            Moments::None
        };
        let vocab = self.call.checked.vocab;
        let tokens = self.call.checked.tokens as u64;
        let fit = |active: u32| tokens.min(u64::from(active)) as u32;
        let find = |path| {
            let key = (path, logits, gradient, full);
            self.kernels.rows.get(&key).map(|kernel| (key, kernel))
        };
        if self.kernels.path == KernelPath::Cluster
            && params.from_state == 0
            && let Some((key, kernel)) = find(KernelPath::Cluster)
        {
            for shape in ClusterShape::candidates(vocab, logits.size()) {
                let active = self.kernels.active(key, kernel, &shape.launch(1))?;
                if active > 0 {
                    params.stages = shape.stages;
                    params.stage_bytes = shape.stage_bytes;
                    return Ok((kernel, shape.launch(fit(active))));
                }
            }
        }
        match find(KernelPath::Block) {
            Some((key, kernel)) => {
                let one = block_launch(vocab, logits.size(), 1);
                let active = self.kernels.active(key, kernel, &one)?;
                Ok((kernel, block_launch(vocab, logits.size(), fit(active))))
            }
            // The callers checked the types, and `load` has a kernel for each pair.
            None => Err(crate::Error::unsupported(
                "SoftmaxLoss",
                format!("{logits} logits with {gradient} gradients"),
                "use gradients of the logits' type or f32",
            )),
        }
    }
}
