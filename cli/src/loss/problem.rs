//! One problem for a loss: its options, its data, and how the data lie in memory.

use evenkeel::DType;
use evenkeel::loss::{
    Criterion, Denominator, KernelPath, LossOptions, Objective, Reduction, Threshold,
    pack_class_mask,
};
use evenkeel::reference::loss::{Row, RowOptions, Target, forward};

use super::cases::{Mode, Values};
use crate::memory::Layout;
use crate::numbers::round_to;
use crate::random::Random;

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// Rows.
    pub tokens: usize,
    /// Classes.
    pub vocab: usize,
    /// Type of the logits.
    pub dtype: DType,
    /// Type of the gradient, the logits' or f32.
    pub gradient: DType,
    /// Where the logits lie.
    pub layout: Layout,
    /// Where the gradient lies.
    pub gradient_layout: Layout,
    /// The loss.
    pub options: LossOptions,
    /// The call.
    pub mode: Mode,
    /// The kernel; the device's best without one, or where the device lacks it.
    pub path: Option<KernelPath>,
    /// Type of targets and offsets.
    pub targets: DType,
    /// How the logits are drawn.
    pub values: Values,
    /// Whether token weights, a class mask and upstream gradients are given.
    pub token_weights: bool,
    /// See above.
    pub class_mask: bool,
    /// See above.
    pub upstream: bool,
    /// The part of the tokens that is ignored.
    pub ignored: f64,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// The mean cross entropy of a plain batch, forward and gradient.
    #[must_use]
    pub fn new(tokens: usize, vocab: usize, dtype: DType) -> Self {
        Self {
            tokens,
            vocab,
            dtype,
            gradient: dtype,
            layout: Layout::default(),
            gradient_layout: Layout::default(),
            options: LossOptions::default(),
            mode: Mode::ForwardBackward,
            path: None,
            targets: DType::I64,
            values: Values::Normal,
            token_weights: false,
            class_mask: false,
            upstream: false,
            ignored: 0.0,
            seed: 1,
        }
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut random = Random::new(self.seed);
        let (tokens, vocab) = (self.tokens, self.vocab);
        let mut options = self.options;
        let signed = self.targets != DType::U32;
        if !signed {
            options.ignore_index = i64::from(u32::MAX);
        }
        let masked: Vec<bool> = (0..vocab)
            .map(|_| self.class_mask && random.chance(0.25))
            .collect();
        let targets: Vec<i64> = (0..tokens)
            .map(|_| {
                if random.chance(self.ignored) {
                    return options.ignore_index;
                }
                // A masked target is a case of its own, in suite/edges.rs.
                let first = random.below(vocab as u64) as usize;
                let live = (0..vocab)
                    .map(|k| (first + k) % vocab)
                    .find(|&class| !masked[class]);
                live.unwrap_or(first) as i64
            })
            .collect();
        let mut logits = Vec::with_capacity(tokens * vocab);
        for &target in &targets {
            self.draw_row(target, &mut random, &mut logits);
        }
        let upstream = |random: &mut Random| -> Vec<f32> {
            (0..tokens)
                .map(|_| (0.2 + random.unit()) as f32 * random.pick(&[1.0, -1.0]))
                .collect()
        };
        let mut problem = Problem {
            name: format!("{self:?}"),
            options,
            mode: self.mode,
            path: self.path,
            dtype: self.dtype,
            gradient: if self.mode.in_place() {
                self.dtype
            } else {
                self.gradient
            },
            target_type: self.targets,
            layout: self.layout,
            gradient_layout: if self.mode.in_place() {
                self.layout
            } else {
                self.gradient_layout
            },
            tokens,
            vocab,
            logits,
            targets,
            weights: self.token_weights.then(|| upstream(&mut random)),
            class_mask: self.class_mask.then(|| pack_class_mask(&masked)),
            divisor: 3.0 + tokens as f32,
            divisor_on_device: random.chance(0.5),
            offsets: offsets(tokens, &mut random),
            upstream_loss: None,
            upstream_statistics: [None, None, None],
        };
        problem.draw_upstream(self, &mut random, upstream);
        problem.settle_threshold();
        problem
    }

    fn draw_row(&self, target: i64, random: &mut Random, out: &mut Vec<f32>) {
        let vocab = self.vocab;
        let spread = if self.values == Values::Wide {
            150.0
        } else {
            3.0
        };
        let offset = match (self.values, self.dtype) {
            // f16 ends at 65504, with steps of 8 at 10000.
            (Values::Shifted, DType::F16) => 512.0,
            (Values::Shifted, _) => 10_000.0,
            _ => 0.0,
        };
        let begin = out.len();
        for class in 0..vocab {
            let x = match self.values {
                Values::Equal => 1.5,
                Values::Ascending => class as f64 * (40.0 / vocab as f64) - 20.0,
                Values::Infinite if class as i64 != target && random.chance(0.33) => {
                    f64::NEG_INFINITY
                }
                _ => spread * random.normal() + offset,
            };
            out.push(round_to(self.dtype, x) as f32);
        }
        let Some(at) = usize::try_from(target).ok().filter(|&class| class < vocab) else {
            return;
        };
        let top = out[begin..]
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        let moved = match self.values {
            Values::Confident => f64::from(top) + 2.0 + 28.0 * random.unit(),
            Values::Surprised => f64::from(top) - 20.0 - 60.0 * random.unit(),
            _ => return,
        };
        out[begin + at] = round_to(self.dtype, moved) as f32;
    }
}

/// Ascending offsets with empty sequences among them, from 0 to all tokens or nearly.
fn offsets(tokens: usize, random: &mut Random) -> Vec<i64> {
    let inner = random.below(5);
    let mut offsets: Vec<i64> = (0..inner)
        .map(|_| random.below(tokens as u64 + 1) as i64)
        .collect();
    offsets.push(0);
    offsets.push(tokens as i64);
    offsets.sort_unstable();
    offsets
}

/// A loss with all its data, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// The loss.
    pub options: LossOptions,
    /// The call.
    pub mode: Mode,
    /// The kernel; the device's best without one.
    pub path: Option<KernelPath>,
    /// Type of the logits.
    pub dtype: DType,
    /// Type of the gradient.
    pub gradient: DType,
    /// Type of targets and offsets.
    pub target_type: DType,
    /// Where the logits lie.
    pub layout: Layout,
    /// Where the gradient lies; in place: where the logits do.
    pub gradient_layout: Layout,
    /// Rows.
    pub tokens: usize,
    /// Classes.
    pub vocab: usize,
    /// `[tokens, vocab]`, exact in `dtype`.
    pub logits: Vec<f32>,
    /// `[tokens]`.
    pub targets: Vec<i64>,
    /// `[tokens]`.
    pub weights: Option<Vec<f32>>,
    /// `[ceil(vocab / 32)]`.
    pub class_mask: Option<Vec<u32>>,
    /// The divisor of `mean:tokens`.
    pub divisor: f32,
    /// Whether it is given on the device.
    pub divisor_on_device: bool,
    /// The sequences of `mean:sequence`.
    pub offsets: Vec<i64>,
    /// The gradient of the loss from above: one value, or one a token.
    pub upstream_loss: Option<Vec<f32>>,
    /// Those of lp, H and lse, for a backward.
    pub upstream_statistics: [Option<Vec<f32>>; 3],
}

impl Problem {
    fn draw_upstream(
        &mut self,
        case: &Case,
        random: &mut Random,
        draw: impl Fn(&mut Random) -> Vec<f32>,
    ) {
        let per_token = self.options.reduction == Reduction::None;
        if self.mode == Mode::LogProbs {
            for slot in &mut self.upstream_statistics {
                if !case.upstream || random.chance(0.7) {
                    *slot = Some(draw(random));
                }
            }
            return;
        }
        // A backward without a gradient of the loss has none: give one always.
        if case.upstream || self.mode.from_state() {
            self.upstream_loss = Some(if per_token { draw(random) } else { vec![1.75] });
        }
        if case.upstream && self.mode.from_state() {
            for slot in &mut self.upstream_statistics {
                if random.chance(0.5) {
                    *slot = Some(draw(random));
                }
            }
        }
    }

    /// Moves the threshold between two of the batch's probabilities, where rounding cannot decide
    /// which tokens are kept.
    fn settle_threshold(&mut self) {
        let Some(threshold) = self.options.criterion.threshold else {
            return;
        };
        let options = RowOptions::from(&self.options);
        let mut wide = Vec::new();
        let mut probabilities: Vec<f64> = (0..self.tokens)
            .map(|token| forward(&self.row(token, &mut wide), &options).p)
            // What underflows in f32 is on the same side of any of these.
            .filter(|p| *p > 1e-30)
            .collect();
        probabilities.sort_by(f64::total_cmp);
        let widest = probabilities
            .windows(2)
            .filter(|pair| pair[1] > 1.01 * pair[0])
            .min_by_key(|pair| {
                // The gap nearest the middle.
                let below = probabilities.iter().filter(|&p| p <= &pair[0]).count();
                below.abs_diff(probabilities.len() / 2)
            });
        let tau = match (widest, probabilities.first()) {
            (Some(pair), _) => (pair[0] * pair[1]).sqrt(),
            (None, Some(only)) => 0.5 * only,
            (None, None) => 1e-20,
        };
        let objective = self.options.criterion.objective;
        self.options.criterion = match threshold {
            Threshold::Above(_) => objective.above(tau as f32),
            Threshold::Below(_) => objective.below(tau as f32),
        };
    }

    /// The options that the call uses: log-probabilities have no loss.
    #[must_use]
    pub fn effective_options(&self) -> LossOptions {
        if self.mode != Mode::LogProbs {
            return self.options;
        }
        let mut plain = LossOptions::new(Criterion::from(Objective::Nll));
        plain.softcap = self.options.softcap;
        plain.temperature = self.options.temperature;
        plain.ignore_index = self.options.ignore_index;
        plain.reduction = Reduction::None;
        plain
    }

    /// The row of a token for the reference; `wide` holds its logits.
    pub fn row<'a>(&'a self, token: usize, wide: &'a mut Vec<f64>) -> Row<'a> {
        wide.clear();
        let logits = &self.logits[token * self.vocab..(token + 1) * self.vocab];
        wide.extend(logits.iter().map(|&x| f64::from(x)));
        Row {
            logits: wide,
            class_mask: self.class_mask.as_deref(),
            target: Target::classify(self.targets[token], self.vocab, self.options.ignore_index),
            weight: self.weight(token),
        }
    }

    fn weight(&self, token: usize) -> f64 {
        let used = self.mode != Mode::LogProbs;
        match &self.weights {
            Some(weights) if used => weights[token].into(),
            _ => 1.0,
        }
    }

    /// Tokens whose target is not the ignored one.
    #[must_use]
    pub fn counted(&self, token: usize) -> bool {
        self.targets[token] != self.options.ignore_index
    }

    /// Whether the reduction is by sequences whose offsets do not ascend within the tokens.
    #[must_use]
    pub fn offsets_are_bad(&self) -> bool {
        let by_sequence = Reduction::Mean(Denominator::Sequence);
        let within = |at: &i64| (0..=self.tokens as i64).contains(at);
        self.effective_options().reduction == by_sequence
            && !(self.offsets.is_sorted() && self.offsets.iter().all(within))
    }

    /// 1/D of every token, from the definition.
    #[must_use]
    pub fn scales(&self, kept: &[bool]) -> Vec<f64> {
        let reciprocal = |count: f64| if count == 0.0 { 0.0 } else { 1.0 / count };
        let all = |count: f64| vec![reciprocal(count); self.tokens];
        let counted = |range: std::ops::Range<usize>| {
            range.filter(|&token| self.counted(token)).count() as f64
        };
        match self.effective_options().reduction {
            _ if self.offsets_are_bad() => vec![0.0; self.tokens],
            Reduction::Mean(Denominator::Valid) => all(counted(0..self.tokens)),
            Reduction::Mean(Denominator::Kept) => {
                all(kept.iter().filter(|&&kept| kept).count() as f64)
            }
            Reduction::Mean(Denominator::Tokens) => all(f64::from(self.divisor)),
            Reduction::Mean(Denominator::Sequence) => {
                let ranges: Vec<_> = self
                    .offsets
                    .windows(2)
                    .map(|pair| pair[0] as usize..pair[1] as usize)
                    .collect();
                let live = ranges
                    .iter()
                    .filter(|r| counted((*r).clone()) > 0.0)
                    .count() as f64;
                let mut scales = vec![0.0; self.tokens];
                for range in ranges {
                    let count = counted(range.clone());
                    scales[range].fill(reciprocal(count * live));
                }
                scales
            }
            _ => all(1.0),
        }
    }
}
