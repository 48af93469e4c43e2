//! Training and measuring: the loss and its gradient on the device, the model on the host.

use evenkeel::loss::{Criterion, Objective, PreparedSoftmaxLoss, SoftmaxLoss};
use evenkeel::{Buffer, DType, Device, Result, Stream};

use crate::model::Model;
use crate::random::Random;
use crate::text::{Part, Text};

pub const BATCH: usize = 256;

/// How long and how fast a model is trained.
#[derive(Clone, Copy)]
pub struct Schedule {
    pub steps: usize,
    /// Of the first step; it falls to 0 along a line.
    pub learning_rate: f32,
}

/// What a model does on held-out text.
#[derive(Clone, Copy)]
pub struct Score {
    /// Share of the characters that were the most probable one.
    pub accuracy: f64,
    /// Nats a character.
    pub cross_entropy: f64,
}

/// A batch's logits, which become their gradients, and targets: memory of the device.
struct Batch {
    logits: Buffer,
    targets: Buffer,
}

impl Batch {
    fn new(stream: &Stream, rows: usize, classes: usize) -> Result<Batch> {
        Ok(Batch {
            logits: stream.uninitialised(DType::F32, &[rows, classes])?,
            targets: stream.uninitialised(DType::U32, &[rows])?,
        })
    }
}

pub fn train(
    device: &Device,
    model: &mut Model,
    text: &Text,
    part: &Part,
    criterion: Criterion,
    schedule: Schedule,
    random: &mut Random,
) -> Result<()> {
    let stream = device.stream()?;
    let op = SoftmaxLoss::new(criterion).prepare(&stream)?;
    let mut batch = Batch::new(&stream, BATCH, text.classes)?;
    let mut order: Vec<usize> = (0..part.len()).collect();
    let mut next = order.len();
    let mut logits = Vec::new();
    for step in 0..schedule.steps {
        if next + BATCH > order.len() {
            random.shuffle(&mut order);
            next = 0;
        }
        let examples = &order[next..next + BATCH];
        next += BATCH;
        let contexts = || examples.iter().map(|&i| text.context(part, i));
        let targets: Vec<u32> = examples.iter().map(|&i| part.targets[i]).collect();

        model.forward(contexts(), &mut logits);
        batch.logits.write(&logits)?;
        batch.targets.write(&targets)?;
        op.forward_backward_in_place(batch.logits.view_mut(), batch.targets.view())?;
        let gradient = batch.logits.read::<f32>()?;
        let left = 1.0 - step as f32 / schedule.steps as f32;
        model.step(contexts(), &gradient, schedule.learning_rate * left);
    }
    stream.check()
}

/// Cross entropy and accuracy, whatever the model was trained with.
pub fn score(device: &Device, model: &mut Model, text: &Text, part: &Part) -> Result<Score> {
    let stream = device.stream()?;
    let op: PreparedSoftmaxLoss = SoftmaxLoss::new(Objective::Nll).prepare(&stream)?;
    let mut logits = Vec::new();
    let (mut loss, mut correct) = (0.0, 0.0);
    let examples: Vec<usize> = (0..part.len()).collect();
    for examples in examples.chunks(4 * BATCH) {
        model.forward(examples.iter().map(|&i| text.context(part, i)), &mut logits);
        let targets: Vec<u32> = examples.iter().map(|&i| part.targets[i]).collect();
        let mut batch = Batch::new(&stream, examples.len(), text.classes)?;
        batch.logits.write(&logits)?;
        batch.targets.write(&targets)?;
        let result = op.forward(batch.logits.view(), batch.targets.view())?;
        loss += f64::from(result.read()?) * examples.len() as f64;
        correct += f64::from(result.counts()?.correct);
    }
    let characters = part.len() as f64;
    Ok(Score {
        accuracy: correct / characters,
        cross_entropy: loss / characters,
    })
}
