//! One problem for a normalization: its options, its data, and how the data lie in memory.

use evenkeel::DType;
use evenkeel::norm::{NormKind, NormOptions, Rotary, SDD_EPS};

use super::cases::{FLOATS, Form, INTEGERS, Types, Values};
use crate::memory::Layout;
use crate::norm::Operation;
use crate::numbers::round_to;
use crate::random::Random;

/// Rows by their tokens and heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens.
    pub tokens: usize,
    /// Heads of a token; 1 but for heads.
    pub heads: usize,
    /// Elements that are normalized together.
    pub columns: usize,
    /// Whether a row of the memory is a token with all its heads, or one head.
    pub packed: bool,
}

impl Shape {
    /// Rows that are normalized.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tokens * self.heads
    }

    /// Elements of a matrix.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.rows() * self.columns
    }

    /// Columns of a row in memory.
    #[must_use]
    pub fn width(&self) -> usize {
        if self.packed {
            self.heads * self.columns
        } else {
            self.columns
        }
    }

    /// Rows in memory.
    #[must_use]
    pub fn memory_rows(&self) -> usize {
        if self.packed {
            self.tokens
        } else {
            self.rows()
        }
    }

    /// The shape of the views.
    #[must_use]
    pub fn dims(&self) -> Vec<usize> {
        if self.packed {
            vec![self.tokens, self.heads * self.columns]
        } else {
            vec![self.tokens, self.heads, self.columns]
        }
    }
}

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// The operation.
    pub operation: Operation,
    /// The normalization; heads may be turned without one.
    pub norm: Option<NormOptions>,
    /// The rotary embedding of heads.
    pub rotary: Option<Rotary>,
    /// Whether tokens have position ids, among them one twice.
    pub positions: bool,
    /// Tokens.
    pub tokens: usize,
    /// Heads, of heads.
    pub heads: usize,
    /// Columns.
    pub columns: usize,
    /// Whether heads lie side by side, as in a packed QKV.
    pub packed: bool,
    /// The calls.
    pub form: Form,
    /// Types; where a form makes two the same, the input's.
    pub types: Types,
    /// Where x lies.
    pub layout: Layout,
    /// Where y and dx lie.
    pub out_layout: Layout,
    /// Where everything else lies.
    pub side_layout: Layout,
    /// Whether gamma and beta are given.
    pub gamma: bool,
    /// See above.
    pub beta: bool,
    /// Whether weights are one for each element of each head; of Sdd, alpha for each column.
    pub whole_weights: bool,
    /// Whether there is a residual.
    pub residual: bool,
    /// Whether the stream has a gradient from elsewhere, and the residual's is asked for.
    pub stream_gradients: bool,
    /// Whether the forward saves what the backward reads; if not, the backward reads exact values.
    pub statistics: bool,
    /// Whether there is a backward.
    pub backward: bool,
    /// Whether the gradients of the weights are asked for.
    pub weight_gradients: bool,
    /// Whether they are added to what is there.
    pub accumulate: bool,
    /// How x is drawn.
    pub values: Values,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// A plain batch in one type: `RmsNorm`, its saved statistics and its backward.
    #[must_use]
    pub fn new(operation: Operation, tokens: usize, columns: usize, dtype: DType) -> Self {
        Self {
            operation,
            norm: Some(NormOptions::rms()),
            rotary: None,
            positions: false,
            tokens,
            heads: 1,
            columns,
            packed: true,
            form: Form::Apart,
            types: Types::all(dtype),
            layout: Layout::default(),
            out_layout: Layout::default(),
            side_layout: Layout::default(),
            gamma: true,
            beta: false,
            whole_weights: true,
            residual: false,
            stream_gradients: false,
            statistics: true,
            backward: true,
            weight_gradients: true,
            accumulate: false,
            values: Values::Normal,
            seed: 1,
        }
    }

    /// Draws the data. What the operation does not have is left out.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let case = self.settled();
        let mut random = Random::new(case.seed);
        let shape = Shape {
            tokens: case.tokens,
            heads: case.heads,
            columns: case.columns,
            packed: case.packed,
        };
        let types = case.types;
        let mut values: Vec<f64> = Vec::with_capacity(shape.elements());
        for _ in 0..shape.rows() {
            case.draw_row(&mut random, &mut values);
        }
        let normal = |random: &mut Random, dtype, scale: f64| -> Vec<f64> {
            (0..shape.elements())
                .map(|_| round_to(dtype, scale * random.normal()))
                .collect()
        };
        let residual = case.residual.then(|| {
            let scale = if case.values == Values::Tiny {
                1e-30
            } else {
                1.0
            };
            Matrix {
                dtype: types.residual,
                layout: case.side_layout,
                values: normal(&mut random, types.residual, scale),
            }
        });
        let side = |random: &mut Random, dtype, scale| Matrix {
            dtype,
            layout: case.side_layout,
            values: normal(random, dtype, scale),
        };
        let z = (case.operation == Operation::GatedNorm).then(|| side(&mut random, types.z, 4.0));
        let length = match (case.whole_weights, case.operation) {
            (true, Operation::HeadNorm) => case.heads * case.columns,
            (false, Operation::Sdd) => 1,
            _ => case.columns,
        };
        let weight = |random: &mut Random, dtype, centre: f64| Vector {
            dtype,
            values: (0..length)
                .map(|_| round_to(dtype, centre + 0.5 * random.normal()))
                .collect(),
        };
        let centre = match case.norm {
            Some(norm) if !norm.zero_centred => 1.0,
            _ => 0.0,
        };
        let gamma = case.gamma.then(|| weight(&mut random, types.gamma, centre));
        let beta = case.beta.then(|| weight(&mut random, types.beta, 0.0));
        let tables = case.rotary.map(|rotary| case.tables(rotary, &mut random));
        let backward = case.backward.then(|| Backward {
            dy: side(&mut random, types.dy, 1.0),
            dx: (types.dx, case.out_layout),
            dstream: case
                .stream_gradients
                .then(|| side(&mut random, types.dstream, 1.0)),
            dresidual: (case.stream_gradients && case.form != Form::Allocating)
                .then_some((types.dresidual, case.side_layout)),
            weight_gradients: case.weight_gradients,
            before: case.accumulate.then(|| {
                [0, 1].map(|_| {
                    (0..length)
                        .map(|_| round_to(DType::F32, random.normal()))
                        .collect()
                })
            }),
        });
        Problem {
            name: format!("{case:?}"),
            operation: case.operation,
            norm: case.norm,
            rotary: case.rotary,
            shape,
            form: case.form,
            statistics: case.statistics,
            x: Matrix {
                dtype: types.x,
                layout: case.layout,
                values,
            },
            y: (types.y, case.out_layout),
            residual,
            stream: (types.stream, case.side_layout),
            z,
            dz: (types.dz, case.side_layout),
            gamma,
            beta,
            tables,
            backward,
        }
    }

    /// The case as its operation and its form have it.
    fn settled(&self) -> Self {
        let mut case = self.clone();
        let operation = case.operation;
        if operation != Operation::HeadNorm {
            (case.heads, case.packed, case.rotary) = (1, true, None);
            case.whole_weights |= operation != Operation::Sdd;
        }
        if operation != Operation::Norm {
            (case.residual, case.stream_gradients) = (false, false);
        }
        if operation == Operation::Sdd {
            case.norm = Some(NormOptions::rms().eps(SDD_EPS));
            (case.gamma, case.beta) = (true, false);
        }
        if operation == Operation::GatedNorm && case.form == Form::InPlace {
            case.form = Form::Apart;
        }
        if case.norm.is_none() && case.rotary.is_none() {
            case.norm = Some(NormOptions::rms());
        }
        if case.norm.is_none() {
            (case.gamma, case.beta, case.statistics) = (false, false, false);
        }
        if let (Some(norm), Values::Tiny) = (&mut case.norm, case.values)
            && operation != Operation::Sdd
        {
            norm.eps = 0.0;
        }
        case.weight_gradients &= case.gamma || case.beta;
        case.accumulate &= case.weight_gradients;
        match case.form {
            Form::Apart => {}
            Form::InPlace => {
                let types = &mut case.types;
                (types.y, types.stream, types.dx) = (types.x, types.residual, types.dy);
            }
            Form::Allocating => {
                // What the allocating forms choose. They have no use for what they do not return.
                let types = &mut case.types;
                (types.y, types.stream, types.dz) = (types.x, types.residual, types.z);
                types.dx = match operation {
                    Operation::HeadNorm => types.dy,
                    // With a residual, the backward's x is the stream.
                    _ if case.residual => types.stream,
                    _ => types.x,
                };
                case.accumulate = false;
                case.weight_gradients = case.gamma || case.beta;
            }
        }
        case
    }

    fn draw_row(&self, random: &mut Random, out: &mut Vec<f64>) {
        let dtype = self.types.x;
        let half = dtype == DType::F16;
        let begin = out.len();
        let spike = random.below(self.columns.max(1) as u64) as usize;
        for column in 0..self.columns {
            let normal = random.normal();
            let x = match self.values {
                Values::Normal => 2.0 * normal,
                Values::Offset => {
                    let spread = match dtype {
                        DType::Bf16 => 60.0,
                        DType::F16 => 8.0,
                        _ => 1.0,
                    };
                    1e4 + spread * normal
                }
                Values::Constant => 1e4,
                Values::Zero => 0.0,
                Values::Huge => normal * if half { 1e4 } else { 1e30 },
                Values::Tiny => normal * if half { 1e-5 } else { 1e-30 },
                Values::Ascending => 8.0 * column as f64 / self.columns as f64 - 3.0,
                Values::Spike if column == spike => 1000.0,
                Values::Spike => 0.1 * normal,
                Values::Wide => {
                    let range = if half { 20.0 } else { 40.0 };
                    normal * (range * (random.unit() - 0.5)).exp2()
                }
            };
            out.push(round_to(dtype, x));
        }
        // eps 0 needs a spread, also of layers.
        if self.values == Values::Tiny && self.columns > 0 {
            out[begin] = round_to(dtype, if half { 3e-5 } else { 3e-30 });
            if self.columns > 1 {
                out[begin + 1] = round_to(dtype, if half { -1e-5 } else { -1e-30 });
            }
        }
    }

    fn tables(&self, rotary: Rotary, random: &mut Random) -> Tables {
        let pairs = rotary.width / 2;
        let positions = self.tokens.max(1) + 3;
        let angle = |position: usize, pair: usize| {
            position as f64 * 1e4_f64.powf(-(pair as f64) / pairs as f64)
        };
        let table = |of: fn(f64) -> f64| -> Vec<f64> {
            (0..positions * pairs)
                .map(|i| round_to(self.types.tables, of(angle(i / pairs, i % pairs))))
                .collect()
        };
        Tables {
            dtype: self.types.tables,
            pairs,
            cos: table(f64::cos),
            sin: table(f64::sin),
            positions: self.positions.then(|| {
                let ids = (0..self.tokens)
                    .map(|_| random.below(positions as u64) as i64)
                    .collect();
                (random.pick(&INTEGERS), ids)
            }),
        }
    }

    /// The same case with types drawn from a number.
    #[must_use]
    pub fn typed(mut self, digits: u64) -> Self {
        self.types = Types::from_digits(FLOATS[(digits % 3) as usize], digits / 3);
        self
    }
}

/// Rows that are read.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Of the elements.
    pub dtype: DType,
    /// Where they lie.
    pub layout: Layout,
    /// Exact in `dtype`, side by side.
    pub values: Vec<f64>,
}

/// A vector that is read.
#[derive(Clone, Debug)]
pub struct Vector {
    /// Of the elements.
    pub dtype: DType,
    /// Exact in `dtype`.
    pub values: Vec<f64>,
}

/// What a rotary embedding reads.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Of the tables.
    pub dtype: DType,
    /// Columns of the tables.
    pub pairs: usize,
    /// `[positions, pairs]`.
    pub cos: Vec<f64>,
    /// `[positions, pairs]`.
    pub sin: Vec<f64>,
    /// Type and values, `[tokens]`.
    pub positions: Option<(DType, Vec<i64>)>,
}

/// What is given to a backward and asked of it.
#[derive(Clone, Debug)]
pub struct Backward {
    /// Gradient of y.
    pub dy: Matrix,
    /// Type and place of dx.
    pub dx: (DType, Layout),
    /// Gradient of the stream from elsewhere.
    pub dstream: Option<Matrix>,
    /// Type and place of the residual's gradient.
    pub dresidual: Option<(DType, Layout)>,
    /// Whether gradients of the weights are asked for.
    pub weight_gradients: bool,
    /// What they are added to: dgamma's (or dalpha's) and dbeta's.
    pub before: Option<[Vec<f64>; 2]>,
}

/// A normalization with all its data, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// The operation.
    pub operation: Operation,
    /// The normalization, if any.
    pub norm: Option<NormOptions>,
    /// The rotary embedding, if any.
    pub rotary: Option<Rotary>,
    /// Of all matrices.
    pub shape: Shape,
    /// The calls.
    pub form: Form,
    /// Whether the forward saves what the backward reads.
    pub statistics: bool,
    /// Rows.
    pub x: Matrix,
    /// Type and place of y.
    pub y: (DType, Layout),
    /// What is added to x.
    pub residual: Option<Matrix>,
    /// Type and place of their sum.
    pub stream: (DType, Layout),
    /// The gate.
    pub z: Option<Matrix>,
    /// Type and place of its gradient.
    pub dz: (DType, Layout),
    /// gamma; alpha of Sdd.
    pub gamma: Option<Vector>,
    /// beta.
    pub beta: Option<Vector>,
    /// Of the rotary embedding.
    pub tables: Option<Tables>,
    /// The backward, if any.
    pub backward: Option<Backward>,
}

impl Problem {
    /// Whether rows have a mean.
    #[must_use]
    pub fn is_layer(&self) -> bool {
        self.norm.is_some_and(|norm| norm.kind == NormKind::Layer)
    }

    /// The position of a token, if the tables have it.
    #[must_use]
    pub fn position(&self, token: usize) -> Option<usize> {
        let tables = self.tables.as_ref()?;
        let position = match &tables.positions {
            Some((_, ids)) => usize::try_from(ids[token]).ok()?,
            None => token,
        };
        (position < tables.cos.len() / tables.pairs).then_some(position)
    }
}
