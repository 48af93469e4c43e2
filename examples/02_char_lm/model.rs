//! A multilayer perceptron over the last characters, its gradient written out, and Adam.

use std::ops::Range;

use crate::random::Random;
use crate::text::CONTEXT;

const HIDDEN: usize = 128;
const BETA: [f32; 2] = [0.9, 0.99];
const EPSILON: f32 = 1e-8;

/// h = relu(b + sum over i of W[i][character i]), logits = c + h U.
#[derive(Clone)]
pub struct Model {
    classes: usize,
    /// W `[CONTEXT, classes, HIDDEN]`, b `[HIDDEN]`, U `[HIDDEN, classes]`, c `[classes]`.
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    moments: [Vec<f32>; 2],
    steps: i32,
    /// h of the last forward, `[rows, HIDDEN]`.
    hidden: Vec<f32>,
}

impl Model {
    pub fn new(classes: usize, random: &mut Random) -> Model {
        let size = (CONTEXT * classes + 1) * HIDDEN + (HIDDEN + 1) * classes;
        let mut model = Model {
            classes,
            parameters: vec![0.0; size],
            gradient: vec![0.0; size],
            moments: [vec![0.0; size], vec![0.0; size]],
            steps: 0,
            hidden: Vec::new(),
        };
        let [w, _, u, _] = model.layout();
        // Uniform with the variance that keeps the size of what passes through.
        for (range, terms) in [(w, CONTEXT), (u, HIDDEN)] {
            let bound = (3.0 / terms as f64).sqrt();
            for parameter in &mut model.parameters[range] {
                *parameter = (bound * (2.0 * random.unit() - 1.0)) as f32;
            }
        }
        model
    }

    /// The model as it stands, for a new optimisation.
    pub fn warm_start(&self) -> Model {
        let mut model = self.clone();
        model.steps = 0;
        for moment in &mut model.moments {
            moment.fill(0.0);
        }
        model
    }

    fn layout(&self) -> [Range<usize>; 4] {
        let mut end = 0;
        let sizes = [
            CONTEXT * self.classes * HIDDEN,
            HIDDEN,
            HIDDEN * self.classes,
            self.classes,
        ];
        sizes.map(|size| {
            let start = end;
            end += size;
            start..end
        })
    }

    /// Row of W of the character at place `i` of a context.
    fn row(&self, i: usize, character: u32) -> Range<usize> {
        let start = (i * self.classes + character as usize) * HIDDEN;
        start..start + HIDDEN
    }

    /// Logits of one row for each context.
    pub fn forward<'t>(
        &mut self,
        contexts: impl Iterator<Item = &'t [u32]>,
        logits: &mut Vec<f32>,
    ) {
        let [_, b, u, c] = self.layout();
        self.hidden.clear();
        logits.clear();
        for context in contexts {
            let start = self.hidden.len();
            self.hidden.extend_from_slice(&self.parameters[b.clone()]);
            logits.extend_from_slice(&self.parameters[c.clone()]);
            for (i, &character) in context.iter().enumerate() {
                let weights = &self.parameters[self.row(i, character)];
                for (h, w) in self.hidden[start..].iter_mut().zip(weights) {
                    *h += w;
                }
            }
            for h in &mut self.hidden[start..] {
                *h = h.max(0.0);
            }
        }
        multiply_add(logits, &self.hidden, &self.parameters[u], HIDDEN);
    }

    /// One step of Adam against the gradient of the logits of the last forward.
    pub fn step<'t>(
        &mut self,
        contexts: impl Iterator<Item = &'t [u32]>,
        dlogits: &[f32],
        learning_rate: f32,
    ) {
        let [_, b, u, c] = self.layout();
        self.gradient.fill(0.0);
        let rows = self.hidden.len() / HIDDEN;
        let hidden_t = transposed(&self.hidden, HIDDEN);
        multiply_add(&mut self.gradient[u.clone()], &hidden_t, dlogits, rows);
        for row in dlogits.chunks_exact(self.classes) {
            add(&mut self.gradient[c.clone()], row);
        }
        let mut dhidden = vec![0.0; self.hidden.len()];
        let u_t = transposed(&self.parameters[u], self.classes);
        multiply_add(&mut dhidden, dlogits, &u_t, self.classes);
        for (d, h) in dhidden.iter_mut().zip(&self.hidden) {
            if *h == 0.0 {
                *d = 0.0;
            }
        }
        for (context, row) in contexts.zip(dhidden.chunks_exact(HIDDEN)) {
            add(&mut self.gradient[b.clone()], row);
            for (i, &character) in context.iter().enumerate() {
                let weights = self.row(i, character);
                add(&mut self.gradient[weights], row);
            }
        }
        self.adam(learning_rate);
    }

    fn adam(&mut self, learning_rate: f32) {
        self.steps += 1;
        let [mean, square] = &mut self.moments;
        let corrections = BETA.map(|beta| 1.0 / (1.0 - beta.powi(self.steps)));
        let state = mean.iter_mut().zip(square);
        let parameters = self.parameters.iter_mut().zip(&self.gradient);
        for ((parameter, g), (m, s)) in parameters.zip(state) {
            *m += (1.0 - BETA[0]) * (g - *m);
            *s += (1.0 - BETA[1]) * (g * g - *s);
            let size = (*s * corrections[1]).sqrt() + EPSILON;
            *parameter -= learning_rate * *m * corrections[0] / size;
        }
    }
}

/// out += a b for a `[rows, inner]`, b `[inner, columns]`.
fn multiply_add(out: &mut [f32], a: &[f32], b: &[f32], inner: usize) {
    let columns = b.len() / inner;
    for (out, a) in out.chunks_exact_mut(columns).zip(a.chunks_exact(inner)) {
        // Four rows of b for each pass over the output: fewer loads and stores for each product.
        let fours = a.chunks_exact(4);
        for (b, &a) in b[inner / 4 * 4 * columns..]
            .chunks_exact(columns)
            .zip(fours.remainder())
        {
            for (out, b) in out.iter_mut().zip(b) {
                *out += a * b;
            }
        }
        for (a, b) in fours.zip(b.chunks_exact(4 * columns)) {
            let (b01, b23) = b.split_at(2 * columns);
            let ((b0, b1), (b2, b3)) = (b01.split_at(columns), b23.split_at(columns));
            let b = b0.iter().zip(b1).zip(b2.iter().zip(b3));
            for (out, ((b0, b1), (b2, b3))) in out.iter_mut().zip(b) {
                *out += a[0] * b0 + a[1] * b1 + (a[2] * b2 + a[3] * b3);
            }
        }
    }
}

fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    let mut out = vec![0.0; matrix.len()];
    for (i, row) in matrix.chunks_exact(columns).enumerate() {
        for (j, &value) in row.iter().enumerate() {
            out[j * rows + i] = value;
        }
    }
    out
}

fn add(sum: &mut [f32], row: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += value;
    }
}
