//! The vectors of the row operations.
//!
//! [`load`] reads them, [`Case::mismatches`] compares what any device computed with them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use evenkeel::norm::{
    HeadNormOptions, NormOptions, Pairing, Rotary, SoftmaxKind, SoftmaxOptions, SpectralNormOptions,
};
use evenkeel::reference::norm::heads::RotaryTables;
use evenkeel::reference::norm::rows::{Incoming, Outgoing, Residual};
use evenkeel::reference::norm::softmax::Blocks;
use evenkeel::reference::norm::spectral::{Saved, Vectors};
use evenkeel::reference::norm::{
    Moments, WeightGradients, Weights, dyt, gated, heads, rows, sdd, softmax, spectral, tev,
};
use evenkeel::reference::{FloatRows, FloatRowsMut, Floats, Indices};

use super::{DOUBLE, Tolerance, blocks, numbers};

/// Tensors that cases share.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The element types that hold them exactly, by name.
    pub types: Vec<String>,
    /// Of x: `[tokens, heads, head_dim]`, `[rows, 1, columns]`, or `[batch, m, n]`.
    pub shape: [usize; 3],
    /// By name.
    pub tensors: HashMap<String, Vec<f32>>,
    /// Rotary positions, one for each token.
    pub positions: Vec<i64>,
}

/// What is computed.
#[derive(Clone, Debug)]
pub enum Op {
    Norm(NormOptions),
    /// The residual is the gate.
    Gated(NormOptions),
    /// gamma and beta of the first head for all, if `shared`.
    Heads {
        options: HeadNormOptions,
        shared: bool,
    },
    Dyt {
        alpha: f32,
    },
    /// alpha is gamma, or its first element.
    Sdd {
        scalar: bool,
    },
    Softmax {
        options: SoftmaxOptions,
        queries: usize,
        lengths: Option<Vec<i64>>,
    },
    Spectral(SpectralNormOptions),
    Tev,
}

/// Tensors by the names that the file gives them.
pub type Results = BTreeMap<String, Vec<f64>>;

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its place in the file and its options, for messages.
    pub name: String,
    pub inputs: Arc<Inputs>,
    pub op: Op,
    /// The optional tensors that are used.
    pub with: Vec<String>,
    pub expected: Results,
}

impl Case {
    /// A tensor, if it is used.
    pub fn given(&self, name: &str) -> Option<&[f32]> {
        let used = self.with.iter().any(|with| with == name);
        used.then(|| self.tensor(name))
    }

    /// A tensor of the inputs.
    pub fn tensor(&self, name: &str) -> &[f32] {
        &self.inputs.tensors[name]
    }

    /// What of `got` is not as expected; empty when all that was computed is. The size that the
    /// tolerance is relative to is the largest of a row, or the number itself where there is one for
    /// each row.
    pub fn mismatches(&self, got: &Results, tolerance: Tolerance) -> Vec<String> {
        let mut found = Vec::new();
        let columns = self.inputs.shape[2];
        for (what, got) in got {
            let want = &self.expected[what];
            if got.len() != want.len() {
                let (name, got, want) = (&self.name, got.len(), want.len());
                found.push(format!("{name}: {what} has {got} elements, not {want}"));
                continue;
            }
            let row = if want.len().is_multiple_of(columns) {
                columns
            } else {
                1
            };
            for (i, (&got, &want_here)) in got.iter().zip(want).enumerate() {
                let row = &want[i / row * row..][..row];
                let finite = row.iter().filter(|value| value.is_finite());
                let size = finite.fold(0.0_f64, |size, value| size.max(value.abs()));
                let wrong = tolerance.mismatch(got, want_here, size);
                found.extend(wrong.map(|wrong| format!("{}: {what} {i} {wrong}", self.name)));
            }
        }
        found
    }
}

/// The cases of `norm.txt`.
pub fn load() -> Vec<Case> {
    let mut inputs: HashMap<String, Arc<Inputs>> = HashMap::new();
    let mut cases = Vec::new();
    for block in blocks("norm.txt") {
        let name = &block.name;
        if block.kind == "inputs" {
            inputs.insert(name.clone(), Arc::new(parse_inputs(block.lines())));
        } else {
            let name_of_case = format!("case {} on {name}", cases.len() + 1);
            let inputs = inputs[name].clone();
            cases.push(parse_case(name_of_case, inputs, block.lines()));
        }
    }
    cases
}

fn parse_inputs<'a>(lines: impl Iterator<Item = (&'a str, &'a str)>) -> Inputs {
    let mut inputs = Inputs::default();
    for (key, values) in lines {
        match key {
            "types" => inputs.types = values.split(' ').map(str::to_owned).collect(),
            "shape" => inputs.shape = numbers(values).try_into().unwrap(),
            "positions" => inputs.positions = numbers(values),
            _ => drop(inputs.tensors.insert(key.to_owned(), numbers(values))),
        }
    }
    assert_eq!(
        inputs.tensors["x"].len(),
        inputs.shape.iter().product::<usize>()
    );
    inputs
}

fn parse_case<'a>(
    mut name: String,
    inputs: Arc<Inputs>,
    mut lines: impl Iterator<Item = (&'a str, &'a str)>,
) -> Case {
    // The options come first, the results after the line that says so.
    let options: HashMap<&str, &str> = lines
        .by_ref()
        .take_while(|(key, _)| *key != "results")
        .inspect(|(key, value)| name += &format!(", {key} {value}"))
        .collect();
    let expected = lines
        .map(|(key, values)| (key.to_owned(), numbers(values)))
        .collect();
    let with = options.get("with").copied().unwrap_or_default();
    Case {
        op: parse_op(&options, inputs.shape[0]),
        with: with.split_whitespace().map(str::to_owned).collect(),
        name,
        inputs,
        expected,
    }
}

fn parse_op(options: &HashMap<&str, &str>, rows: usize) -> Op {
    let norm = options.get("norm").map(|norm| norm.parse().unwrap());
    match options["op"] {
        "norm" => Op::Norm(norm.unwrap()),
        "gated" => Op::Gated(norm.unwrap()),
        "heads" => {
            let rotary = options.get("rotary").map(|rotary| {
                let (pairing, width) = rotary.split_once(' ').unwrap();
                Rotary::new(pairing.parse::<Pairing>().unwrap(), width.parse().unwrap())
            });
            let mut of_heads = HeadNormOptions::default();
            (of_heads.norm, of_heads.rotary) = (norm, rotary);
            Op::Heads {
                options: of_heads,
                shared: options.contains_key("shared"),
            }
        }
        "dyt" => Op::Dyt {
            alpha: options["alpha"].parse().unwrap(),
        },
        "sdd" => Op::Sdd {
            scalar: options.contains_key("scalar"),
        },
        "softmax" => {
            let kind: SoftmaxKind = options["kind"].parse().unwrap();
            let mut of_rows = SoftmaxOptions::new(kind);
            of_rows.scale = options
                .get("scale")
                .map_or(1.0, |scale| scale.parse().unwrap());
            of_rows.causal = options.get("causal").map(|causal| causal.parse().unwrap());
            Op::Softmax {
                options: of_rows,
                queries: options
                    .get("queries")
                    .map_or(rows, |queries| queries.parse().unwrap()),
                lengths: options.get("lengths").map(|lengths| numbers(lengths)),
            }
        }
        "spectral" => Op::Spectral(SpectralNormOptions::new(options["steps"].parse().unwrap())),
        "tev" => Op::Tev,
        other => panic!("there is no operation {other:?}"),
    }
}

/// What the reference computes for a case.
struct Reference<'a> {
    case: &'a Case,
    results: Results,
}

impl<'a> Reference<'a> {
    fn compute(case: &'a Case) -> Results {
        let mut this = Self {
            case,
            results: Results::new(),
        };
        match &case.op {
            Op::Norm(options) => this.norm(options),
            Op::Gated(options) => this.gated(options),
            Op::Heads { options, shared } => this.heads(options, *shared),
            Op::Dyt { alpha } => this.dyt(*alpha),
            Op::Sdd { scalar } => this.sdd(*scalar),
            Op::Softmax {
                options,
                queries,
                lengths,
            } => this.softmax(options, *queries, lengths.as_deref()),
            Op::Spectral(options) => this.spectral(options),
            Op::Tev => {
                let found = tev::tev(this.rows("x"));
                this.put("deviations", found.deviations);
                this.put("tev", vec![found.mean]);
            }
        }
        this.results
    }

    fn put(&mut self, name: &str, values: Vec<f64>) {
        self.results.insert(name.to_owned(), values);
    }

    fn strides(&self) -> [usize; 2] {
        let [_, heads, columns] = self.case.inputs.shape;
        [heads * columns, columns]
    }

    fn rows(&self, name: &str) -> FloatRows<'a> {
        let data = self.case.tensor(name);
        FloatRows::heads(data, self.case.inputs.shape, self.strides()).unwrap()
    }

    fn rows_of<'v>(&self, data: &'v [f64]) -> FloatRows<'v> {
        FloatRows::heads(data, self.case.inputs.shape, self.strides()).unwrap()
    }

    fn rows_mut<'v>(&self, data: &'v mut [f64]) -> FloatRowsMut<'v> {
        FloatRowsMut::heads(data, self.case.inputs.shape, self.strides()).unwrap()
    }

    /// Somewhere to write a tensor like x.
    fn blank(&self) -> Vec<f64> {
        vec![f64::NAN; self.case.inputs.shape.iter().product()]
    }

    /// The weights that are used, of so many elements.
    fn weights(&self, len: usize) -> Weights<'a> {
        Weights {
            gamma: self
                .case
                .given("gamma")
                .map(|gamma| Floats::F32(&gamma[..len])),
            beta: self
                .case
                .given("beta")
                .map(|beta| Floats::F32(&beta[..len])),
        }
    }

    /// Runs a backward with room for the gradients of the weights, and keeps them.
    fn with_weight_gradients(
        &mut self,
        weights: &Weights,
        backward: impl FnOnce(&Self, WeightGradients),
    ) {
        let len = |weight: Option<Floats>| weight.map_or(0, |weight| weight.len());
        let mut dgamma = vec![f64::NAN; len(weights.gamma)];
        let mut dbeta = vec![f64::NAN; len(weights.beta)];
        let into = WeightGradients {
            gamma: weights.gamma.map(|_| (&mut dgamma).into()),
            beta: weights.beta.map(|_| (&mut dbeta).into()),
            accumulate: false,
        };
        backward(self, into);
        for (name, weight, gradient) in [
            ("dgamma", weights.gamma, dgamma),
            ("dbeta", weights.beta, dbeta),
        ] {
            if weight.is_some() {
                self.put(name, gradient);
            }
        }
    }

    fn norm(&mut self, options: &NormOptions) {
        let weights = self.weights(self.case.inputs.shape[2]);
        let (mut stream, mut y, mut dx) = (self.blank(), self.blank(), self.blank());
        let residual = self.case.given("residual").map(|_| self.rows("residual"));
        let added = residual.map(|residual| Residual {
            residual,
            stream: self.rows_mut(&mut stream),
        });
        let into = self.rows_mut(&mut y);
        let found = rows::forward(options, &weights, self.rows("x"), added, into).unwrap();
        assert!(found.status.is_empty());
        if residual.is_none() {
            stream = self.case.tensor("x").iter().map(|&x| x.into()).collect();
        }
        self.with_weight_gradients(&weights, |this, dweights| {
            let incoming = Incoming {
                dy: this.rows("dy"),
                dstream: this.case.given("dstream").map(|_| this.rows("dstream")),
            };
            let outgoing = Outgoing {
                dx: this.rows_mut(&mut dx),
                dresidual: None,
                weights: dweights,
            };
            let x = this.rows_of(&stream);
            rows::backward(options, &weights, x, incoming, outgoing).unwrap();
        });
        if residual.is_some() {
            self.put("stream", stream);
        }
        let each = |of: fn(&Moments) -> f64| found.moments.iter().map(of).collect();
        self.put("mean", each(|moments| moments.mean));
        self.put("rstd", each(|moments| moments.rstd));
        self.put("y", y);
        self.put("dx", dx);
    }

    fn gated(&mut self, options: &NormOptions) {
        let weights = self.weights(self.case.inputs.shape[2]);
        let (mut y, mut dx, mut dz) = (self.blank(), self.blank(), self.blank());
        let (x, z) = (self.rows("x"), self.rows("residual"));
        gated::forward(options, &weights, x, z, self.rows_mut(&mut y)).unwrap();
        self.with_weight_gradients(&weights, |this, dweights| {
            let incoming = Incoming {
                dy: this.rows("dy"),
                dstream: None,
            };
            let outgoing = Outgoing {
                dx: this.rows_mut(&mut dx),
                dresidual: None,
                weights: dweights,
            };
            let dz = this.rows_mut(&mut dz);
            gated::backward(options, &weights, x, z, incoming, outgoing, dz).unwrap();
        });
        self.put("y", y);
        self.put("dx", dx);
        self.put("dz", dz);
    }

    fn heads(&mut self, options: &HeadNormOptions, shared: bool) {
        let [_, heads, columns] = self.case.inputs.shape;
        let weights = self.weights(if shared { columns } else { heads * columns });
        let positions = &self.case.inputs.positions;
        // As many positions as the whole table has, at the width of the case.
        let width = options.rotary.map_or(2, |rotary| rotary.width);
        let used = self.case.tensor("cos").len() / (columns / 2) * (width / 2);
        let tables = RotaryTables {
            cos: Floats::F32(&self.case.tensor("cos")[..used]),
            sin: Floats::F32(&self.case.tensor("sin")[..used]),
            positions: Some(Indices::I64(positions)),
        };
        let tables = options.rotary.map(|_| &tables);
        let (mut y, mut dx) = (self.blank(), self.blank());
        let into = self.rows_mut(&mut y);
        heads::forward(options, &weights, tables, self.rows("x"), into).unwrap();
        self.with_weight_gradients(&weights, |this, dweights| {
            let (x, dy) = (this.rows("x"), this.rows("dy"));
            let into = this.rows_mut(&mut dx);
            heads::backward(options, &weights, tables, x, dy, into, dweights).unwrap();
        });
        self.put("y", y);
        self.put("dx", dx);
    }

    fn dyt(&mut self, alpha: f32) {
        let weights = self.weights(self.case.inputs.shape[2]);
        let (mut y, mut dx, mut dalpha) = (self.blank(), self.blank(), vec![f64::NAN]);
        dyt::forward(alpha, &weights, self.rows("x"), self.rows_mut(&mut y)).unwrap();
        self.with_weight_gradients(&weights, |this, dweights| {
            let (x, dy) = (this.rows("x"), this.rows("dy"));
            let (dx, dalpha) = (this.rows_mut(&mut dx), Some((&mut dalpha).into()));
            dyt::backward(alpha, &weights, x, dy, dx, dalpha, dweights).unwrap();
        });
        self.put("y", y);
        self.put("dx", dx);
        self.put("dalpha", dalpha);
    }

    fn sdd(&mut self, scalar: bool) {
        let gamma = self.case.tensor("gamma");
        let alpha = Floats::F32(if scalar { &gamma[..1] } else { gamma });
        let (mut y, mut dx) = (self.blank(), self.blank());
        let mut dalpha = vec![f64::NAN; alpha.len()];
        sdd::forward(alpha, self.rows("x"), self.rows_mut(&mut y)).unwrap();
        let (x, dy, into) = (self.rows("x"), self.rows("dy"), self.rows_mut(&mut dx));
        sdd::backward(alpha, x, dy, into, (&mut dalpha).into(), false).unwrap();
        self.put("y", y);
        self.put("dx", dx);
        self.put("dalpha", dalpha);
    }

    fn softmax(&mut self, options: &SoftmaxOptions, queries: usize, lengths: Option<&[i64]>) {
        let blocks = Blocks {
            queries,
            lengths: lengths.map(Indices::I64),
        };
        let (mut y, mut dx) = (self.blank(), self.blank());
        let into = self.rows_mut(&mut y);
        let found = softmax::forward(options, &blocks, self.rows("x"), into).unwrap();
        assert!(found.status.is_empty());
        let incoming = softmax::Incoming {
            dy: self.rows("dy"),
            dentropy: self.case.given("dentropy").map(Floats::F32),
            normalizers: Some((&found.normalizers).into()),
        };
        let into = self.rows_mut(&mut dx);
        softmax::backward(options, &blocks, self.rows_of(&y), incoming, into).unwrap();
        self.put("y", y);
        self.put("dx", dx);
        self.put("entropy", found.entropies);
        self.put("normalizer", found.normalizers);
    }

    fn spectral(&mut self, options: &SpectralNormOptions) {
        let [batch, m, _] = self.case.inputs.shape;
        let gamma = self.case.given("gamma").map(Floats::F32);
        let mut u: Vec<f64> = Floats::F32(self.case.tensor("u")).to_f64();
        let mut v = vec![f64::NAN; batch * m];
        let (mut y, mut dx) = (self.blank(), self.blank());
        let vectors = Vectors {
            u: (&mut u).into(),
            v: (&mut v).into(),
        };
        let into = Some(self.rows_mut(&mut y));
        let found = spectral::forward(options, self.rows("x"), vectors, gamma, into).unwrap();
        assert!(found.status.is_empty());
        let saved = Saved {
            u: (&u).into(),
            v: (&v).into(),
            sigmas: (&found.sigmas).into(),
        };
        let mut dgamma = vec![f64::NAN; batch];
        let (w, dscaled, into) = (self.rows("x"), self.rows("dy"), self.rows_mut(&mut dx));
        let dgamma_into = gamma.map(|_| (&mut dgamma).into());
        spectral::backward(w, saved, gamma, dscaled, into, dgamma_into, false).unwrap();
        if gamma.is_some() {
            self.put("dgamma", dgamma);
        }
        self.put("y", y);
        self.put("dx", dx);
        self.put("sigma", found.sigmas);
        self.put("u", u);
        self.put("v", v);
    }
}

#[test]
fn there_is_a_case_for_everything() {
    let cases = load();
    assert!(cases.len() > 150);
    let some = |of: fn(&Case) -> bool| assert!(cases.iter().any(of));
    some(|case| case.given("residual").is_some() && case.given("dstream").is_some());
    some(|case| case.given("beta").is_some() && case.name.contains("layer:1e-5:zero-centred"));
    some(|case| case.name.contains("offset, op norm, norm layer"));
    some(|case| matches!(&case.op, Op::Heads { options, .. } if options.norm.is_none()));
    some(
        |case| matches!(&case.op, Op::Heads { shared: true, options } if options.rotary.is_some()),
    );
    some(|case| matches!(case.op, Op::Dyt { alpha } if alpha < 0.0));
    some(|case| matches!(case.op, Op::Sdd { scalar: true }));
    some(|case| matches!(&case.op, Op::Spectral(options) if options.steps > 100));
    some(|case| matches!(case.op, Op::Tev));
    for kind in SoftmaxKind::ALL {
        assert!(cases.iter().any(|case| matches!(
            &case.op,
            Op::Softmax { options, lengths: Some(_), .. }
                if options.kind == kind && options.causal.is_some() && options.scale != 1.0
        )));
    }
}

#[test]
fn the_reference_agrees() {
    for case in &load() {
        let got = Reference::compute(case);
        let keys: Vec<&String> = got.keys().collect();
        assert_eq!(
            keys,
            case.expected.keys().collect::<Vec<_>>(),
            "{}",
            case.name
        );
        let found = case.mismatches(&got, DOUBLE);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn a_wrong_result_is_a_mismatch() {
    let case = &load()[1];
    assert!(case.mismatches(&case.expected, DOUBLE).is_empty());
    let wrong: [fn(&mut Results); 4] = [
        |got| got.get_mut("y").unwrap()[0] = f64::NAN,
        |got| got.get_mut("rstd").unwrap()[1] *= 1.0 + 1e-11,
        |got| got.get_mut("dx").unwrap()[3] *= -1.0,
        |got| got.get_mut("dgamma").unwrap().truncate(6),
    ];
    for change in wrong {
        let mut got = case.expected.clone();
        change(&mut got);
        assert_eq!(case.mismatches(&got, DOUBLE).len(), 1);
    }
}
