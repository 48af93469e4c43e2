//! Copies of boxes by a tensor map, against plain loops.

use crate::harness::{SEEDS, caught_by, kernel};
use evenkeel_emulator::{
    Architecture, Emulator, FindingKind, Launch, Memory, Report, TensorMap, TensorMapElement,
    TensorMapSwizzle, TensorTile,
};

const SWIZZLES: [(TensorMapSwizzle, usize); 4] = [
    (TensorMapSwizzle::None, 0x00),
    (TensorMapSwizzle::B32, 0x10),
    (TensorMapSwizzle::B64, 0x30),
    (TensorMapSwizzle::B128, 0x70),
];

fn block() -> Launch {
    Launch::default().block([64, 1, 1]).shared_bytes(9 * 1024)
}

/// A tensor of bytes 0, 1, 2, ... (of words for additions), a box, and where it is copied from.
struct Case {
    tile: TensorTile,
    at: Vec<i32>,
    announced: Option<u32>,
}

struct Run {
    tensor: Memory,
    output: Memory,
    report: Report,
}

fn bytes_of(memory: &Memory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len()];
    memory.read(0, &mut bytes).unwrap();
    bytes
}

/// Bytes from the first element of the tensor to the end of its last one.
fn extent(tile: &TensorTile) -> usize {
    let last: u64 = (1..tile.dims.len())
        .map(|i| (tile.dims[i] - 1) * tile.strides[i - 1])
        .sum();
    last as usize + tile.dims[0] as usize * tile.element.bytes()
}

fn run(case: &Case, name: &str, launch: &Launch, content: impl Fn(usize) -> u8) -> Run {
    let emulator = Emulator::new(Architecture::sm_90());
    let tensor = emulator.alloc(extent(&case.tile)).unwrap();
    let content: Vec<u8> = (0..tensor.len()).map(content).collect();
    tensor.write(0, &content).unwrap();
    let output = emulator.alloc(2 * case.tile.bytes()).unwrap();
    let mut tile = case.tile.clone();
    tile.address = tensor.addr();
    let map = TensorMap::encode(&tile).unwrap();
    let mut params: Vec<u8> = map.words().iter().flat_map(|w| w.to_le_bytes()).collect();
    params.extend(output.addr().to_le_bytes());
    let mut at = case.at.clone();
    at.resize(5, 0);
    let bytes = case.tile.bytes() as i32;
    let announced = case.announced.map_or(bytes, |n| n as i32);
    at.extend([case.at.len() as i32, bytes, announced]);
    params.extend(at.iter().flat_map(|n| n.to_le_bytes()));
    params.resize(params.len().next_multiple_of(64), 0);
    let report = emulator.launch(&kernel(name).0, launch, &params);
    Run {
        tensor,
        output,
        report,
    }
}

/// For each byte of a box in shared memory order: the byte of the tensor, if it is inside.
fn places(case: &Case, mask: usize) -> Vec<Option<usize>> {
    let size = case.tile.element.bytes();
    let mut places = vec![None; case.tile.bytes()];
    for element in 0..places.len() / size {
        let (mut rest, mut offset, mut inside) = (element, 0i64, true);
        for i in 0..case.at.len() {
            let c = i64::from(case.at[i]) + (rest % case.tile.tile[i] as usize) as i64;
            rest /= case.tile.tile[i] as usize;
            inside &= c >= 0 && c < case.tile.dims[i] as i64;
            let stride = if i == 0 {
                size as u64
            } else {
                case.tile.strides[i - 1]
            };
            offset += c * stride as i64;
        }
        for byte in 0..size {
            let place = element * size + byte;
            places[place ^ (place >> 3 & mask)] = inside.then_some(offset as usize + byte);
        }
    }
    places
}

/// Boxes of one to five dimensions, inside, across every edge, and wholly outside.
fn cases() -> Vec<Case> {
    let tile = |element, dims: &[u64], strides: &[u64], tile: &[u32]| TensorTile {
        address: 0,
        element,
        dims: dims.to_vec(),
        strides: strides.to_vec(),
        tile: tile.to_vec(),
        swizzle: TensorMapSwizzle::None,
    };
    use TensorMapElement::{Bf16, F32, U8};
    let case = |tile: &TensorTile, at: &[i32]| Case {
        tile: tile.clone(),
        at: at.to_vec(),
        announced: None,
    };
    let one = tile(F32, &[37], &[], &[8]);
    let two = tile(Bf16, &[40, 30], &[96], &[16, 16]);
    let wide = tile(U8, &[200, 9], &[208], &[32, 16]);
    let tall = tile(U8, &[40, 70], &[48], &[32, 64]);
    let three = tile(F32, &[10, 5, 4], &[48, 256], &[8, 4, 2]);
    let five = tile(
        Bf16,
        &[17, 3, 2, 3, 2],
        &[48, 144, 288, 864],
        &[8, 2, 2, 2, 2],
    );
    vec![
        case(&one, &[4]),
        case(&one, &[33]),
        case(&two, &[8, 3]),
        case(&two, &[-3, 20]),
        case(&two, &[33, -7]),
        case(&two, &[100, 0]),
        case(&wide, &[-1, -1]),
        case(&wide, &[187, 3]),
        case(&three, &[4, 3, 3]),
        case(&three, &[-4, -1, -1]),
        case(&five, &[1, 0, 0, 1, 0]),
        case(&five, &[13, 2, -1, 2, 1]),
        case(&tall, &[4, 9]),
    ]
}

#[test]
fn boxes_are_loaded() {
    for (i, mut case) in cases().into_iter().enumerate() {
        for (swizzle, mask) in SWIZZLES {
            case.tile.swizzle = swizzle;
            for seed in SEEDS {
                let run = run(&case, "tensor_box", &block().seed(seed), |i| (i * 7) as u8);
                let what = format!("case {i}, {swizzle:?}, seed {seed}");
                assert!(run.report.is_clean(), "{what}: {:?}", run.report.findings);
                let (tensor, out) = (bytes_of(&run.tensor), bytes_of(&run.output));
                let places = places(&case, mask);
                for (at, place) in places.iter().enumerate() {
                    assert_eq!(out[at], place.map_or(0, |p| tensor[p]), "{what}, byte {at}");
                }
                let inside = places.iter().filter(|place| place.is_some()).count();
                assert_eq!(
                    run.report.traffic.global_load_bytes, inside as u64,
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn boxes_are_stored() {
    for (i, mut case) in cases().into_iter().enumerate() {
        for (swizzle, mask) in SWIZZLES {
            case.tile.swizzle = swizzle;
            for seed in SEEDS {
                let run = run(&case, "tensor_store_box", &block().seed(seed), |_| 0xee);
                let what = format!("case {i}, {swizzle:?}, seed {seed}");
                assert!(run.report.is_clean(), "{what}: {:?}", run.report.findings);
                let mut expected = vec![0xee; run.tensor.len()];
                for (at, place) in places(&case, mask).iter().enumerate() {
                    if let Some(place) = place {
                        expected[*place] = (at as u32 / 4 + 1).to_le_bytes()[at % 4];
                    }
                }
                assert_eq!(bytes_of(&run.tensor), expected, "{what}");
            }
        }
    }
}

#[test]
fn boxes_of_all_blocks_are_added() {
    let case = &cases()[9];
    for seed in SEEDS {
        let launch = block().grid([5, 1, 1]).seed(seed);
        let run = run(case, "tensor_add", &launch, |_| 0);
        assert!(run.report.is_clean(), "{:?}", run.report.findings);
        let tensor = bytes_of(&run.tensor);
        let float = |at: usize| f32::from_le_bytes([0, 1, 2, 3].map(|i| tensor[at + i]));
        let mut sum = 0.0;
        for (at, place) in places(case, 0).iter().enumerate().step_by(4) {
            if let Some(place) = place {
                assert_eq!(float(*place), (at / 4 * 15) as f32, "seed {seed}");
                sum += float(*place);
            }
        }
        // Nothing else was touched.
        let all: f32 = (0..tensor.len() / 4).map(|i| float(4 * i)).sum();
        assert_eq!(all, sum);
    }
}

/// The order of additions is the seed's, however many workers there are.
#[test]
fn additions_have_an_order() {
    let mut case = cases().swap_remove(9);
    case.announced = Some(0);
    let sums = |seed, workers| {
        let launch = block().grid([64, 1, 1]).seed(seed).workers(workers);
        let run = run(&case, "tensor_add", &launch, |_| 0);
        assert!(run.report.is_clean(), "{:?}", run.report.findings);
        bytes_of(&run.tensor)
    };
    let first = sums(0, 1);
    for seed in SEEDS {
        assert_eq!(sums(seed, 1), sums(seed, 4), "seed {seed}");
    }
    assert!(SEEDS.into_iter().any(|seed| sums(seed, 1) != first));
}

#[test]
fn a_box_goes_to_every_block_of_a_mask() {
    let mut case = cases().swap_remove(3);
    case.tile.swizzle = TensorMapSwizzle::B32;
    for seed in SEEDS {
        let launch = block().grid([2, 1, 1]).cluster([2, 1, 1]).seed(seed);
        let run = run(&case, "tensor_multicast", &launch, |i| i as u8);
        assert!(run.report.is_clean(), "{:?}", run.report.findings);
        let out = bytes_of(&run.output);
        let half = out.len() / 2;
        assert_eq!(out[..half], out[half..]);
        let inside = places(&case, 0x10).iter().flatten().count();
        assert_eq!(run.report.traffic.global_load_bytes, inside as u64);
    }
}

/// Asserts that the kernel is caught at the marked line under every seed.
fn caught(case: &Case, name: &str, launch: &Launch, kind: FindingKind, marker: &str) {
    for seed in SEEDS {
        let run = run(case, name, &launch.clone().seed(seed), |_| 0);
        caught_by(&run.report, name, kind, marker);
    }
}

#[test]
fn wrong_copies_are_caught() {
    let mut case = cases().swap_remove(2);
    let one = &block();
    caught(
        &case,
        "tensor_no_wait",
        one,
        FindingKind::Race,
        "tensor-wait",
    );
    caught(
        &case,
        "tensor_shifted",
        one,
        FindingKind::Misaligned,
        "tensor-load",
    );
    caught(
        &case,
        "tensor_local_map",
        one,
        FindingKind::AsyncMisuse,
        "tensor-local-map",
    );
    caught(
        &case,
        "tensor_store_unfenced",
        one,
        FindingKind::ProxyFence,
        "tensor-store",
    );
    caught(
        &case,
        "tensor_store_reused",
        one,
        FindingKind::Race,
        "tensor-reuse",
    );
    // Two blocks store the same box.
    let two = block().grid([2, 1, 1]);
    caught(
        &case,
        "tensor_store_box",
        &two,
        FindingKind::Race,
        "tensor-store",
    );
    // Only f32 is added up.
    caught(
        &case,
        "tensor_add",
        one,
        FindingKind::AsyncMisuse,
        "tensor-add",
    );
    // Two blocks are named, where there is one.
    caught(
        &case,
        "tensor_multicast",
        one,
        FindingKind::AsyncMisuse,
        "multicast",
    );
    // A map of three dimensions, copied with coordinates of two.
    case.at.push(0);
    caught(
        &case,
        "tensor_box",
        one,
        FindingKind::AsyncMisuse,
        "tensor-load",
    );
}

/// The bytes to expect are the box's, not those inside of the tensor.
#[test]
fn clipped_bytes_are_too_few() {
    let mut case = cases().swap_remove(3);
    let report = run(&case, "tensor_box", &block(), |_| 0).report;
    assert!(report.is_clean(), "{:?}", report.findings);
    let inside = places(&case, 0).iter().flatten().count() as u32;
    case.announced = Some(inside);
    caught(
        &case,
        "tensor_box",
        &block(),
        FindingKind::Deadlock,
        "tensor-bytes",
    );
}
