//! ldmatrix, stmatrix and mma.sync.

use super::aligned::{Operands, WarpOperands};
use super::codes::{Element, MatrixOp};
use super::{Cluster, Flow};
use crate::clock::Class;
use crate::report::FindingKind;
use crate::tensor_core::step;

/// Bytes of a row of an 8x8 matrix, and of K in one step.
const ROW: usize = 16;

impl Cluster {
    pub(super) fn matrix(
        &mut self,
        op: MatrixOp,
        count: u32,
        registers: usize,
        row: usize,
        pc: usize,
    ) -> Flow {
        let store = matches!(op, MatrixOp::StoreMatrix | MatrixOp::StoreMatrixTranspose);
        let what = if store { "stmatrix" } else { "ldmatrix" };
        if store && !self.needs_compute((9, 0), what, pc) {
            return Flow::Wait;
        }
        let operands = Operands {
            registers: [registers, 0, 0],
            shared: [row, 0],
            form: [op as u32, count, 0, 0],
            pc,
        };
        let lanes = match self.gather(what, operands) {
            Ok(lanes) => lanes,
            Err(flow) => return flow,
        };
        let last = self.current;
        let warp = last as usize / 32;
        let count = (count as usize).min(4);
        for (lane, operands) in lanes.iter().enumerate().take(8 * count) {
            self.current = (warp * 32 + lane) as u32;
            let address = operands.shared[0];
            if !address.is_multiple_of(ROW) {
                return self.misaligned(address, ROW, pc);
            }
            let place = match self.shared_place(address, ROW, store, true, pc) {
                Ok(place) => place,
                Err(flow) => return flow,
            };
            let class = if store { Class::Write } else { Class::Read };
            self.record(place, address, ROW, class, pc);
            self.count(place, address, ROW, store, pc);
        }
        self.current = last;
        let transpose = matches!(
            op,
            MatrixOp::LoadMatrixTranspose | MatrixOp::StoreMatrixTranspose
        );
        // SAFETY: the rows were checked above; the headers pass `count` registers of each lane, on
        // the stacks of fibers that wait here.
        unsafe { move_matrices(&lanes, count, transpose, store) };
        self.scatter(warp);
        Flow::Done(0)
    }

    /// Ends the launch where the architecture has no such instruction.
    pub(super) fn needs_compute(&mut self, least: (u32, u32), what: &str, pc: usize) -> bool {
        let architecture = &self.run().architecture;
        if architecture.compute >= least {
            return true;
        }
        let message = format!(
            "{what} exists from compute capability {}.{} on; this is {}",
            least.0, least.1, architecture.name
        );
        self.fatal(FindingKind::LaunchLimits, pc, message, 0);
        false
    }

    /// Fraction bits of sums of products of this type.
    pub(super) fn fraction_bits(&self, element: Element) -> u32 {
        let architecture = &self.run().architecture;
        match element.bytes() {
            1 => architecture.fp8_fraction_bits,
            _ => architecture.half_fraction_bits,
        }
    }

    pub(super) fn mma(
        &mut self,
        types: (Element, Element),
        d: usize,
        a: usize,
        b: usize,
        pc: usize,
    ) -> Flow {
        let least = if types.0.bytes() == 1 { (8, 9) } else { (8, 0) };
        if !self.needs_compute(least, "mma.sync of these types", pc) {
            return Flow::Wait;
        }
        if !types.0.matches(types.1) {
            let message = format!("mma.sync of {:?} by {:?}", types.0, types.1);
            return self.fatal(FindingKind::WarpMisuse, pc, message, 0);
        }
        let operands = Operands {
            registers: [d, a, b],
            form: [types.0 as u32, types.1 as u32, 0, 0],
            pc,
            ..Operands::default()
        };
        let lanes = match self.gather("mma.sync", operands) {
            Ok(lanes) => lanes,
            Err(flow) => return flow,
        };
        let bits = self.fraction_bits(types.0);
        let k = 2 * ROW / types.0.bytes();
        let [mut a, mut b] = [Vec::with_capacity(16 * k), Vec::with_capacity(8 * k)];
        // SAFETY: the headers pass four accumulators, four registers of a and two of b of each
        // lane, on the stacks of fibers that wait here.
        unsafe {
            for row in 0..16 {
                let registers = |lane: usize| (lanes[lane].registers[1] as *const u32).add(row / 8);
                types.0.decode(
                    &k_row(|lane, i| *registers(lane).add(2 * i), row % 8),
                    &mut a,
                );
            }
            for row in 0..8 {
                let registers = |lane: usize| lanes[lane].registers[2] as *const u32;
                types
                    .1
                    .decode(&k_row(|lane, i| *registers(lane).add(i), row), &mut b);
            }
            for (lane, operands) in lanes.iter().enumerate() {
                let d = operands.registers[0] as *mut f32;
                for i in 0..4 {
                    let (row, column) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
                    let (a, b) = (&a[row * k..][..k], &b[column * k..][..k]);
                    *d.add(i) = step(*d.add(i), a, b, bits);
                }
            }
        }
        self.counters.traffic.tensor_flops += 2 * 16 * 8 * k as u64;
        self.scatter(self.current as usize / 32);
        Flow::Done(0)
    }
}

/// The 32 bytes of K of row `g` of a fragment: register i of lane 4g + t holds bytes 16i + 4t on.
fn k_row(register: impl Fn(usize, usize) -> u32, g: usize) -> [u8; 2 * ROW] {
    let mut row = [0; 2 * ROW];
    for i in 0..2 {
        for t in 0..4 {
            row[ROW * i + 4 * t..][..4].copy_from_slice(&register(4 * g + t, i).to_le_bytes());
        }
    }
    row
}

/// # Safety
/// The first `8 count` lanes hold addresses of 16 bytes in shared memory, and all of them `count`
/// registers, that nobody else uses now.
unsafe fn move_matrices(lanes: &WarpOperands, count: usize, transpose: bool, store: bool) {
    for matrix in 0..count {
        for (lane, operands) in lanes.iter().enumerate() {
            let register = (operands.registers[0] as *mut u32).wrapping_add(matrix);
            for half in 0..2 {
                let (line, along) = (lane / 4, 2 * (lane % 4) + half);
                let (row, column) = if transpose {
                    (along, line)
                } else {
                    (line, along)
                };
                let element = lanes[8 * matrix + row].shared[0] as *mut u16;
                // SAFETY: by the contract; a row has 8 elements of two bytes, a register two halves.
                unsafe {
                    let element = element.add(column);
                    let half = register.cast::<u16>().add(half);
                    if store {
                        *element = *half;
                    } else {
                        *half = *element;
                    }
                }
            }
        }
    }
}
