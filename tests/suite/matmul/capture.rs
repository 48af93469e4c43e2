//! Products captured into a CUDA graph and replayed.

use evenkeel::interop::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode_enum};
use evenkeel::matmul::{Matmul, MatmulArguments, MatmulOutputs, OperandFormat, PreparedMatmul};
use evenkeel::{Buffer, DType, Device, DeviceKind, Stream};
use evenkeel_cli::quant::bits::download;
use half::bf16;

/// Of several of Hopper's tiles, whose results leave by the copy engine; and of few rows and a long
/// contraction, which is split.
const SHAPES: [[usize; 3]; 2] = [[300, 264, 200], [4, 40, 4096]];

/// A prepared product, and what it reads and writes.
struct Product {
    op: PreparedMatmul,
    a: Buffer,
    b: Buffer,
    out: Buffer,
    workspace: Buffer,
}

impl Product {
    fn new(stream: &Stream, [m, n, k]: [usize; 3]) -> evenkeel::Result<Self> {
        let op = Matmul::new(OperandFormat::Bf16, OperandFormat::Bf16).prepare(stream)?;
        let wave = |rows: usize, step: f32| -> Vec<bf16> {
            let all = 0..rows * k;
            all.map(|index| bf16::from_f32((index as f32 * step).sin()))
                .collect()
        };
        let bytes = op.workspace_bytes(m, n, k, 0);
        Ok(Self {
            a: stream.upload(&[m, k], &wave(m, 0.37))?,
            b: stream.upload(&[n, k], &wave(n, 0.73))?,
            out: stream.zeros(DType::Bf16, &[m, n])?,
            workspace: stream.uninitialised(DType::U8, &[bytes])?,
            op,
        })
    }

    fn run(&mut self) -> evenkeel::Result<()> {
        let mut outputs =
            MatmulOutputs::new(self.out.view_mut()).workspace(self.workspace.view_mut());
        let arguments = MatmulArguments::default();
        self.op
            .multiply_into(self.a.view(), self.b.view(), arguments, &mut outputs)
    }
}

/// The results of products as they are, and of two replays of the same products captured.
pub fn products_and_replays(device: &Device) -> [Vec<Vec<u8>>; 3] {
    let stream = device.stream().unwrap();
    let raw = stream.cudarc().unwrap().clone();
    let products = || SHAPES.map(|shape| Product::new(&stream, shape).unwrap());
    let results = |products: &[Product]| -> Vec<Vec<u8>> {
        let outs = products.iter().map(|product| &product.out);
        outs.map(|out| download(out).unwrap()).collect()
    };
    let mut plain = products();
    for product in &mut plain {
        product.run().unwrap();
    }

    // Other operations, so that nothing of the captured ones has run before the capture.
    let mut captured = products();
    raw.begin_capture(CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        .unwrap();
    let queued = captured.iter_mut().try_for_each(Product::run);
    let graph = raw.end_capture(CUgraphInstantiate_flags(0)).unwrap();
    queued.unwrap();
    let graph = graph.unwrap();
    let replays = [(); 2].map(|()| {
        graph.launch().unwrap();
        results(&captured)
    });
    stream.check().unwrap();
    let [first, second] = replays;
    [results(&plain), first, second]
}

#[test]
fn a_replay_gives_the_bits_of_the_product() {
    crate::support::run(DeviceKind::Cuda, |device| {
        let [plain, first, second] = products_and_replays(device);
        assert!(plain == first, "a replay differs from the call");
        assert!(first == second, "a second replay differs from the first");
        let written = plain.iter().all(|out| out.iter().any(|&byte| byte != 0));
        assert!(written, "a product is nothing but zeros");
    });
}
