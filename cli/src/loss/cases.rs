//! What is tested and measured: vocabularies, types, criteria, options. One table of each.

use evenkeel::DType;
use evenkeel::loss::{Criterion, LossOptions, Objective};

/// Vocabularies that models use, for benchmarks and for tests: 32000 Llama 1 and 2, Mistral; 50257
/// GPT-2 (odd: one row in eight is 16-byte aligned in bf16); 128256 Llama 3; 151936 Qwen 2 and 3;
/// 262144 Gemma 3.
pub const VOCABULARIES: [usize; 5] = [32_000, 50_257, 128_256, 151_936, 262_144];

/// Tokens of the real shapes.
pub const TOKENS: [usize; 3] = [2048, 8192, 16_384];

/// Small vocabularies and what each is there for.
///
/// 1: nothing but the target. 2: the least with a choice. 7, 8, 9: around one 16-byte vector of bf16.
/// 31: ragged and within a warp. 100: a few vectors. 257: prime, rows at every alignment. 1000: each
/// thread of a group has some. 4099: prime, past the threads of the block kernel.
pub const SMALL_VOCABULARIES: [usize; 10] = [1, 2, 7, 8, 9, 31, 100, 257, 1000, 4099];

/// Types of logits.
pub const LOGITS: [DType; 3] = [DType::Bf16, DType::F16, DType::F32];

/// Types of targets and offsets.
pub const INTEGERS: [DType; 3] = [DType::I64, DType::I32, DType::U32];

/// Every member of the family; powers below, between and above the members that have names.
#[must_use]
pub fn objectives() -> Vec<Objective> {
    vec![
        Objective::Nll,
        Objective::Linear,
        Objective::Power(0.5),
        Objective::Power(-0.5),
        Objective::Power(10.0),
        Objective::Power(0.0),
        Objective::Dft,
        Objective::Focal(2.0),
        Objective::Focal(0.5),
        Objective::Focal(0.0),
        Objective::Poly1(1.0),
        Objective::Poly1(-1.0),
        Objective::Gce(0.7),
        Objective::Deft,
    ]
}

/// The family, and each side of a threshold; `tau` is replaced by one that divides the batch.
#[must_use]
pub fn criteria() -> Vec<Criterion> {
    let mut all: Vec<Criterion> = objectives().into_iter().map(Criterion::from).collect();
    all.push(Objective::Nll.above(0.1));
    all.push(Objective::Linear.below(0.1));
    all.push(Objective::Power(0.5).above(0.1));
    all
}

/// One option of a loss, and what it is called in tables.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Its name.
    pub name: &'static str,
    /// Sets it.
    pub set: fn(&mut LossOptions),
    /// Whether a class mask is given.
    pub class_mask: bool,
    /// Whether token weights are given.
    pub token_weights: bool,
}

impl Variant {
    const fn new(name: &'static str, set: fn(&mut LossOptions)) -> Self {
        Self {
            name,
            set,
            class_mask: false,
            token_weights: false,
        }
    }
}

/// Every option alone, and all together.
pub const VARIANTS: [Variant; 10] = [
    Variant::new("plain", |_| {}),
    Variant::new("softcap", |o| o.softcap = Some(15.0)),
    Variant::new("temperature", |o| o.temperature = 0.7),
    Variant {
        class_mask: true,
        ..Variant::new("class mask", |_| {})
    },
    Variant {
        token_weights: true,
        ..Variant::new("token weights", |_| {})
    },
    Variant::new("z-loss", |o| o.z_loss = 1e-3),
    Variant::new("label smoothing", |o| o.label_smoothing = 0.1),
    Variant::new("entropy", |o| o.entropy = -0.3),
    Variant::new("spectral decoupling", |o| o.spectral_decoupling = 1e-2),
    Variant {
        class_mask: true,
        token_weights: true,
        ..Variant::new("all of them", |o| {
            o.softcap = Some(20.0);
            o.temperature = 1.3;
            o.z_loss = 1e-4;
            o.label_smoothing = 0.05;
            o.entropy = 0.2;
            o.spectral_decoupling = 1e-3;
        })
    },
];

/// How the logits of a case are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Normal, of standard deviation 3: a model at work.
    Normal,
    /// Normal, the target 2 to 30 above the rest: p near 1, where 1 - exp(lp) has no digits.
    Confident,
    /// Normal, the target far below: p to 1e-30 and less.
    Surprised,
    /// All the same: the lowest class is the argmax, the entropy log V.
    Equal,
    /// Ascending: every vector raises the maximum.
    Ascending,
    /// A large common offset.
    Shifted,
    /// A third of the classes at -inf: masked by value.
    Infinite,
    /// Spread over hundreds: most exponentials underflow.
    Wide,
}

impl Values {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::Confident,
        Self::Surprised,
        Self::Equal,
        Self::Ascending,
        Self::Shifted,
        Self::Infinite,
        Self::Wide,
    ];
}

/// Which call computes, and where the gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Loss and statistics.
    Forward,
    /// With the gradient in memory of its own.
    ForwardBackward,
    /// With the gradient over the logits.
    InPlace,
    /// Forward, then backward from the saved state.
    Backward,
    /// The same, over the logits.
    BackwardInPlace,
    /// Log-probabilities, then backward from gradients of lp, H and lse.
    LogProbs,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Forward,
        Self::ForwardBackward,
        Self::InPlace,
        Self::Backward,
        Self::BackwardInPlace,
        Self::LogProbs,
    ];

    /// Whether the gradient is over the logits, and so of their type.
    #[must_use]
    pub fn in_place(self) -> bool {
        matches!(self, Self::InPlace | Self::BackwardInPlace)
    }

    /// Whether a gradient is computed in the forward.
    #[must_use]
    pub fn fused(self) -> bool {
        matches!(self, Self::ForwardBackward | Self::InPlace)
    }

    /// Whether the gradient comes from a saved state.
    #[must_use]
    pub fn from_state(self) -> bool {
        matches!(
            self,
            Self::Backward | Self::BackwardInPlace | Self::LogProbs
        )
    }
}
