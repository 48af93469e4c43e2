//! Operations captured into a CUDA graph and replayed.

use evenkeel::{
    Buffer, DType, Device, DeviceKind, Stream,
    interop::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode_enum},
    loss::{LossInputs, LossOutputs, Objective, PreparedSoftmaxLoss, SoftmaxLoss},
};
use half::bf16;

const TOKENS: usize = 37;
const VOCAB: usize = 1003;

/// What an operation reads and writes.
struct Memory {
    logits: Buffer,
    targets: Buffer,
    loss: Buffer,
    workspace: Buffer,
}

/// The bits of the gradient and of the loss.
type Results = (Vec<bf16>, Vec<f32>);

impl Memory {
    fn new(stream: &Stream, op: &PreparedSoftmaxLoss, logits: &[bf16]) -> Memory {
        let targets: Vec<i64> = (0..TOKENS as i64)
            .map(|token| token * 27 % VOCAB as i64)
            .collect();
        let workspace = [op.workspace_bytes(TOKENS)];
        Memory {
            logits: stream.upload(&[TOKENS, VOCAB], logits).unwrap(),
            targets: stream.upload(&[TOKENS], &targets).unwrap(),
            loss: stream.zeros(DType::F32, &[1]).unwrap(),
            workspace: stream.zeros(DType::U8, &workspace).unwrap(),
        }
    }

    fn run(&mut self, op: &PreparedSoftmaxLoss) -> evenkeel::Result<()> {
        let mut outputs = LossOutputs::new(self.workspace.view_mut()).loss(self.loss.view_mut());
        let inputs = LossInputs::new(self.targets.view());
        op.forward_backward_in_place_into(self.logits.view_mut(), &inputs, &mut outputs)
    }

    fn results(&self) -> Results {
        (self.logits.read().unwrap(), self.loss.read().unwrap())
    }
}

fn logits() -> Vec<bf16> {
    let wave = |index: usize| ((index * index) as f32 * 0.37).sin() * 6.0;
    (0..TOKENS * VOCAB)
        .map(|index| bf16::from_f32(wave(index)))
        .collect()
}

/// The results of a call as it is, and of two replays of the same call captured.
pub fn call_and_replays(device: &Device) -> [Results; 3] {
    let stream = device.stream().unwrap();
    let raw = stream.cudarc().unwrap().clone();
    let op = SoftmaxLoss::new(Objective::Power(0.5))
        .z_loss(1e-4)
        .prepare(&stream)
        .unwrap();
    let logits = logits();
    let mut plain = Memory::new(&stream, &op, &logits);
    plain.run(&op).unwrap();

    // Another operation, so that nothing of the captured one has run before the capture.
    let op = SoftmaxLoss::new(Objective::Power(0.5))
        .z_loss(1e-4)
        .prepare(&stream)
        .unwrap();
    let mut captured = Memory::new(&stream, &op, &logits);
    raw.begin_capture(CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        .unwrap();
    let queued = captured.run(&op);
    let graph = raw.end_capture(CUgraphInstantiate_flags(0)).unwrap();
    queued.unwrap();
    let graph = graph.unwrap();
    assert_eq!(
        captured.logits.read::<bf16>().unwrap(),
        logits,
        "captured, not done"
    );
    graph.launch().unwrap();
    let first = captured.results();
    captured.logits.write(&logits).unwrap();
    graph.launch().unwrap();
    let second = captured.results();
    stream.check().unwrap();
    [plain.results(), first, second]
}

#[test]
fn a_replay_gives_the_bits_of_the_call() {
    crate::support::run(DeviceKind::Cuda, |device| {
        let [plain, first, second] = call_and_replays(device);
        assert!(plain.1[0].is_finite() && plain.1[0] > 0.0);
        assert!(plain == first, "a replay differs from the call");
        assert!(plain == second, "a second replay differs from the first");
    });
}
