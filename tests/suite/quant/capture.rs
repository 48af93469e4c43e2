//! Quantisations captured into a CUDA graph and replayed.

use evenkeel::interop::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode_enum};
use evenkeel::quant::{
    Dequantize, Format, Hadamard, OutputArguments, OutputOptions, PreparedDequantize,
    PreparedQuantize, Quantize, QuantizeArguments, QuantizeOptions, Quantized, Rounding,
    WeightCache,
};
use evenkeel::{Buffer, DType, Device, DeviceKind, Stream};
use evenkeel_cli::quant::bits::download;

const ROWS: usize = 160;
const COLUMNS: usize = 144;

/// Prepared operations, and what they read and write.
struct Step {
    op: PreparedQuantize,
    back: PreparedDequantize,
    cache: WeightCache,
    x: Buffer,
    weight: Buffer,
    offset: Buffer,
    q: Quantized,
    workspace: Buffer,
    amax: Buffer,
    values: Buffer,
}

impl Step {
    fn new(stream: &Stream) -> evenkeel::Result<Self> {
        let rounding = Rounding::Stochastic { seed: 3 };
        let plain = OutputOptions::new();
        let op = Quantize::new(QuantizeOptions::new(Format::NvFp4).rounding(rounding))
            .rowwise(plain)
            .transposed(plain.rotation(Hadamard::new(32, 5)))
            .prepare(stream)?;
        let weight = Quantize::new(Format::NvFp4Square)
            .rowwise(plain)
            .transposed(plain);
        let wave = |scale: f32| -> Vec<f32> {
            let all = 0..ROWS * COLUMNS;
            all.map(|index| ((index * index) as f32 * 0.37).sin() * scale)
                .collect()
        };
        let shape = [ROWS, COLUMNS];
        let bytes = op.workspace_bytes(ROWS, COLUMNS, 0);
        Ok(Self {
            back: Dequantize::new().prepare(stream)?,
            cache: WeightCache::new(weight.prepare(stream)?, ROWS, COLUMNS, 0)?,
            x: stream.upload(&shape, &wave(6.0))?,
            weight: stream.upload(&shape, &wave(0.1))?,
            offset: stream.upload(&[1], &[11_i64])?,
            q: op.allocate(ROWS, COLUMNS, 0)?,
            workspace: stream.uninitialised(DType::U8, &[bytes])?,
            amax: stream.zeros(DType::F32, &[1])?,
            values: stream.zeros(DType::Bf16, &[COLUMNS, ROWS])?,
            op,
        })
    }

    fn run(&mut self) -> evenkeel::Result<()> {
        self.cache
            .get(self.weight.view(), 1, QuantizeArguments::default())?;
        let report = OutputArguments::default().amax(self.amax.view_mut());
        let arguments = QuantizeArguments::default()
            .device_offset(self.offset.view())
            .rowwise(report);
        let mut outputs = self.q.outputs().workspace(self.workspace.view_mut());
        self.op
            .quantize_into(self.x.view(), arguments, &mut outputs)?;
        self.back
            .dequantize_into(self.q.transposed()?, self.values.view_mut())
    }

    /// The bytes of everything written.
    fn results(&self) -> Vec<Vec<u8>> {
        let mut all = vec![
            download(&self.values).unwrap(),
            download(&self.amax).unwrap(),
        ];
        for quantized in [Some(&self.q), self.cache.quantized()]
            .into_iter()
            .flatten()
        {
            for tensor in [&quantized.rowwise, &quantized.transposed]
                .into_iter()
                .flatten()
            {
                let scales = tensor.scales.iter().chain(&tensor.tensor_scale);
                let buffers = std::iter::once(&tensor.data).chain(scales);
                all.extend(buffers.map(|buffer| download(buffer).unwrap()));
            }
        }
        all
    }
}

/// The results of a step as it is, and of two replays of the same step captured, the second with
/// other random numbers, which lie on the device.
pub fn step_and_replays(device: &Device) -> [Vec<Vec<u8>>; 3] {
    let stream = device.stream().unwrap();
    let raw = stream.cudarc().unwrap().clone();
    let mut plain = Step::new(&stream).unwrap();
    plain.run().unwrap();

    // Other operations, so that nothing of the captured ones has run before the capture.
    let mut captured = Step::new(&stream).unwrap();
    raw.begin_capture(CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        .unwrap();
    let queued = captured.run();
    let graph = raw.end_capture(CUgraphInstantiate_flags(0)).unwrap();
    queued.unwrap();
    let graph = graph.unwrap();
    graph.launch().unwrap();
    let first = captured.results();
    captured.offset.write(&[12_i64]).unwrap();
    graph.launch().unwrap();
    let second = captured.results();
    stream.check().unwrap();
    [plain.results(), first, second]
}

#[test]
fn a_replay_gives_the_bits_of_the_call() {
    crate::support::run(DeviceKind::Cuda, |device| {
        let [plain, first, second] = step_and_replays(device);
        assert!(plain == first, "a replay differs from the call");
        assert!(
            first[0] != second[0],
            "the offset on the device was not read"
        );
        assert!(first[1] == second[1], "amax depends on the random numbers");
    });
}
