//! Products of a warpgroup, against plain loops; and everything that must not be left out.

use crate::harness::{SEEDS, caught_by, kernel};
use crate::tensor_core::{BF16, E4M3, E5M2, F16, Format, bytes, integers};
use evenkeel_emulator::{Architecture, Emulator, FindingKind, Launch, Report};

/// How an operand lies in shared memory.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Bytes of a span; 16 without a swizzle.
    span: usize,
    /// Rows of K where false, columns of K where true.
    transposed: bool,
}

impl Layout {
    fn mode(self) -> u64 {
        match self.span {
            128 => 1,
            64 => 2,
            32 => 3,
            _ => 0,
        }
    }

    /// The bytes of an operand of `rows` by `k` elements, its leading and stride offsets, and the
    /// bytes from one K step to the next.
    fn lay_out(self, values: &[f64], rows: usize, format: Format) -> (Vec<u8>, u64, u64, usize) {
        let size = format.2;
        let k = values.len() / rows;
        let encoded = bytes(values, format);
        let mut image = vec![0xff; encoded.len()];
        let mask = (self.span / 16 - 1) << 4;
        // Without a swizzle: 8 rows of 16 bytes packed, such pieces along K, then along rows (or
        // the reverse where transposed). With one: lines of a span, 8 a pattern.
        let place = |row: usize, byte: usize| -> usize {
            if self.transposed {
                let (k_index, line) = (byte / size, row * size);
                let chunk = self.span * k;
                line / self.span * chunk + k_index * self.span + line % self.span + byte % size
            } else {
                let chunk = self.span * rows;
                byte / self.span * chunk + row * self.span + byte % self.span
            }
        };
        for row in 0..rows {
            for byte in 0..k * size {
                let at = place(row, byte);
                image[at ^ (at >> 3 & mask)] = encoded[row * k * size + byte];
            }
        }
        let eight = 8 * self.span as u64;
        let lines = if self.transposed { k } else { rows } * self.span;
        let (leading, stride) = match (self.transposed, self.span) {
            // Without a swizzle the two change places.
            (true, 16) => (eight, lines as u64),
            _ => (lines as u64, eight),
        };
        let step = match (self.transposed, self.span) {
            (true, span) => span * 32 / size,
            (false, 16) => 2 * lines,
            (false, 32) => lines,
            (false, _) => 32,
        };
        (image, leading, stride, step)
    }
}

fn descriptor(start: usize, leading: u64, stride: u64, layout: Layout) -> u64 {
    start as u64 >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | layout.mode() << 62
}

/// One product of `[64, K]` by `[columns, K]`.
#[derive(Clone, Copy, Debug)]
struct Case {
    a: Layout,
    b: Layout,
    formats: (Format, Format),
    columns: usize,
    k: usize,
    in_registers: bool,
    groups: bool,
}

const K_MAJOR: Layout = Layout {
    span: 128,
    transposed: false,
};

impl Case {
    fn new(formats: (Format, Format), columns: usize, k: usize) -> Case {
        Case {
            a: K_MAJOR,
            b: K_MAJOR,
            formats,
            columns,
            k,
            in_registers: false,
            groups: false,
        }
    }

    fn values(&self) -> (Vec<f64>, Vec<f64>) {
        let a = integers(64 * self.k, 5, 2);
        (a, integers(self.columns * self.k, 9, 4))
    }

    fn expected(&self) -> Vec<f32> {
        let (a, b) = self.values();
        let row = |v: &'_ [f64], i: usize| v[i * self.k..(i + 1) * self.k].to_vec();
        let mut out = Vec::new();
        for m in 0..64 {
            for n in 0..self.columns {
                let products = row(&a, m).into_iter().zip(row(&b, n)).map(|(x, y)| x * y);
                out.push(products.sum::<f64>() as f32);
            }
        }
        out
    }

    fn run(&self, name: &str, launch: Launch) -> (Report, Vec<f32>) {
        let (a, b) = self.values();
        let code = |format: Format| match format {
            BF16 => 0u32,
            F16 => 1,
            E4M3 => 2,
            _ => 3,
        };
        let (mut image, a_leading, a_stride, a_step) = match self.in_registers {
            // Rows of 32 bytes, as the kernel takes them.
            true => (bytes(&a, self.formats.0), 0, 0, 0),
            false => self.a.lay_out(&a, 64, self.formats.0),
        };
        image.resize(image.len().next_multiple_of(1024), 0);
        let b_start = image.len();
        let (b_image, b_leading, b_stride, b_step) =
            self.b.lay_out(&b, self.columns, self.formats.1);
        image.extend(b_image);
        let emulator = Emulator::new(Architecture::sm_90());
        let memory = emulator.alloc(image.len()).unwrap();
        memory.write(0, &image).unwrap();
        let output = emulator.alloc(64 * self.columns * 4).unwrap();
        let mut params: Vec<u8> = [
            memory.addr(),
            output.addr(),
            descriptor(0, a_leading, a_stride, self.a),
            descriptor(b_start, b_leading, b_stride, self.b),
        ]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
        let steps = self.k * self.formats.0.2 / 32;
        let words = [
            image.len() as u32,
            code(self.formats.0),
            code(self.formats.1),
            self.columns as u32,
            u32::from(self.a.transposed && !self.in_registers),
            u32::from(self.b.transposed),
            u32::from(self.in_registers),
            steps as u32,
            a_step as u32,
            b_step as u32,
            u32::from(self.groups),
        ];
        params.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        params.resize(params.len().next_multiple_of(8), 0);
        let launch = launch.block([128, 1, 1]).shared_bytes(image.len() as u32);
        let report = emulator.launch(&kernel(name).0, &launch, &params);
        let mut out = vec![0; output.len()];
        output.read(0, &mut out).unwrap();
        let floats = out
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        (report, floats.collect())
    }

    fn passes(&self, seeds: std::ops::Range<u64>) {
        for seed in seeds {
            let (report, out) = self.run("wgmma_right", Launch::default().seed(seed));
            assert!(report.is_clean(), "{self:?}: {:#?}", report.findings);
            assert_eq!(out, self.expected(), "{self:?}, seed {seed}");
            let flops = 2 * 64 * self.columns * self.k;
            assert_eq!(report.traffic.tensor_flops, flops as u64);
        }
    }

    fn caught(&self, name: &str, kind: FindingKind, marker: &str) {
        for seed in SEEDS {
            let (report, _) = self.run(name, Launch::default().seed(seed));
            caught_by(&report, name, kind, marker);
        }
    }
}

#[test]
fn every_type_and_width() {
    for formats in [
        (BF16, BF16),
        (F16, F16),
        (E4M3, E4M3),
        (E4M3, E5M2),
        (E5M2, E4M3),
        (E5M2, E5M2),
    ] {
        for columns in [8, 32, 128, 256] {
            Case::new(formats, columns, 128 / formats.0.2).passes(0..2);
        }
    }
}

/// Every swizzle, K-major, with K steps within a span and from span to span.
#[test]
fn rows_of_k() {
    for span in [16, 32, 64, 128] {
        let layout = Layout {
            span,
            transposed: false,
        };
        let mut case = Case::new((E4M3, E5M2), 64, span.max(64));
        if span == 64 || span == 128 {
            case.k = span;
        }
        (case.a, case.b) = (layout, layout);
        case.passes(0..2);
        case.formats = (BF16, BF16);
        case.k /= 2;
        case.passes(0..2);
    }
}

/// Every swizzle, M- and N-major.
#[test]
fn columns_of_k() {
    for span in [16, 32, 64, 128] {
        let layout = Layout {
            span,
            transposed: true,
        };
        for (a, b) in [(layout, layout), (K_MAJOR, layout), (layout, K_MAJOR)] {
            let mut case = Case::new((BF16, BF16), 128, 64);
            (case.a, case.b) = (a, b);
            case.passes(0..2);
        }
    }
}

#[test]
fn operands_in_registers() {
    for formats in [(BF16, BF16), (E4M3, E5M2)] {
        let mut case = Case::new(formats, 64, 32 / formats.0.2);
        case.b.span = 32;
        case.in_registers = true;
        case.passes(SEEDS);
    }
}

#[test]
fn a_group_for_each_product() {
    let mut case = Case::new((E4M3, E4M3), 64, 128);
    case.groups = true;
    case.passes(SEEDS);
}

#[test]
fn what_must_not_be_left_out() {
    let case = Case::new((E4M3, E4M3), 64, 128);
    case.passes(SEEDS);
    case.caught("wgmma_no_fence", FindingKind::WgmmaMisuse, "wgmma");
    case.caught("wgmma_no_proxy_fence", FindingKind::ProxyFence, "wgmma");
    case.caught("wgmma_reuse", FindingKind::Race, "wgmma-reuse");
    case.caught("wgmma_one_waits", FindingKind::Race, "wgmma-one-waits");
    case.caught("wgmma_touch", FindingKind::WgmmaMisuse, "wgmma-wait");
    case.caught("wgmma_divergent", FindingKind::WgmmaMisuse, "wgmma");
    for name in ["wgmma_no_commit", "wgmma_no_wait"] {
        case.caught(name, FindingKind::WgmmaMisuse, "wgmma");
        let (_, out) = case.run(name, Launch::default());
        assert!(out.iter().all(|x| x.is_nan()), "{name}");
    }
    let (report, _) = case.run("wgmma_three_warps", Launch::default());
    assert!(!report.is_clean());
    // A second group on accumulators that were handed over needs another fence.
    let mut grouped = case;
    grouped.groups = true;
    grouped.caught("wgmma_fence_after_wait", FindingKind::WgmmaMisuse, "wgmma");
}

/// Each synchronisation call that is switched off is noticed.
#[test]
fn every_call_counts() {
    let case = Case::new((BF16, BF16), 64, 64);
    let (report, _) = case.run("wgmma_right", Launch::default());
    assert_eq!(report.sync_sites.len(), 5, "{:?}", report.sync_sites);
    for site in report.sync_sites {
        let noticed = SEEDS.into_iter().any(|seed| {
            let launch = Launch::default().seed(seed);
            let (report, out) = case.run("wgmma_right", launch.disabled_sites(vec![site.clone()]));
            !report.is_clean() || out != case.expected()
        });
        assert!(noticed, "{site} may be left out");
    }
}
