//! wgmma: products of a warpgroup, issued now and carried out in order at a random later point up
//! to the wait.
//!
//! Each warp reads its 16 rows of a and all of b as an author of its own, so that waiting in one
//! warp says nothing of what the others still read. Accumulators hold NaNs from the first product
//! on until their thread has waited.

use super::access::Place;
use super::aligned::{Operands, WarpOperands};
use super::asynchronous::{Completion, ONE_LATE_IN, Operation, Work};
use super::codes::{Element, WgmmaOp};
use super::descriptor::{Descriptor, K_BYTES, PIECE};
use super::{Cluster, Flow, Wait};
use crate::clock::{Class, with_entries};
use crate::heap::first_unmarked;
use crate::report::{FindingKind, SyncOperation};
use crate::tensor_core::step;
use std::collections::VecDeque;

/// What an accumulator holds while its product is under way.
const POISON: u32 = 0x7fff_a55e;
/// Flags of the instruction (shim.h).
const TRANSPOSE_A: u32 = 1;
const TRANSPOSE_B: u32 = 2;
const ACCUMULATE: u32 = 4;

/// The form of a product, the same in all threads of the warpgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) a: Element,
    pub(super) b: Element,
    pub(super) columns: u32,
    pub(super) flags: u32,
}

/// A product that is still to be carried out.
#[derive(Debug)]
struct Product {
    form: Form,
    tile: u64,
    /// Row by row, where a was given in registers.
    a_rows: Option<Vec<u8>>,
    a: Descriptor,
    b: Descriptor,
    /// The start of the block's shared memory.
    base: usize,
}

/// Accumulators in use by products: 64 rows of `columns`, by thread and register.
#[derive(Debug)]
struct Tile {
    name: u64,
    columns: u32,
    registers: Vec<usize>,
    values: Vec<f32>,
    /// Products issued when the last one for this tile was.
    last: u64,
    /// Threads that have waited since.
    delivered: u128,
    pc: usize,
}

/// The products of one warpgroup.
#[derive(Debug, Default)]
pub(super) struct Warpgroup {
    gathered: [Option<Box<WarpOperands>>; 4],
    issued: u64,
    done: u64,
    queue: VecDeque<Product>,
    tiles: Vec<Tile>,
}

/// What a thread knows of its warpgroup's products.
#[derive(Debug, Default)]
pub(super) struct ThreadProducts {
    /// Products issued by the end of each committed group, and what reads for it (the warp's).
    groups: VecDeque<(u64, Vec<Completion>)>,
    /// Whether a fence came after the thread could last touch accumulators.
    fenced: bool,
    /// Register operands since the fence.
    operands: Vec<(usize, [u32; 4])>,
    /// The engines of the open group, kept by lane 0.
    open: Vec<Completion>,
}

impl Cluster {
    fn warpgroup_of(&self, tid: u32) -> usize {
        let per_cta = self.cta_stride.div_ceil(128);
        (tid / self.cta_stride * per_cta + tid % self.cta_stride / 128) as usize
    }

    /// The first thread of the current thread's warpgroup.
    fn leader(&self) -> u32 {
        let tid = self.current;
        tid - tid % self.cta_stride % 128
    }

    pub(super) fn wgmma(
        &mut self,
        form: Form,
        registers: [usize; 2],
        descriptors: [u64; 2],
        pc: usize,
    ) -> Flow {
        if self.run().architecture.compute != (9, 0) {
            let name = self.run().architecture.name;
            let message = format!("wgmma exists on sm_90a alone; this is {name}");
            return self.fatal(FindingKind::LaunchLimits, pc, message, 0);
        }
        let bytes = form.a.bytes();
        let major = form.flags & (TRANSPOSE_A | TRANSPOSE_B);
        if !form.a.matches(form.b) || !form.columns.is_multiple_of(8) || form.columns > 256 {
            return self.wgmma_misuse(pc, format!("no wgmma has the form {form:?}"));
        }
        if bytes == 1 && major != 0 {
            return self.wgmma_misuse(pc, "8-bit operands of wgmma are K-major".to_owned());
        }
        let leader = self.leader();
        if leader % self.cta_stride + 128 > self.cta_threads {
            let message = "wgmma in a warpgroup of fewer than 128 threads".to_owned();
            return self.fatal(FindingKind::WarpMisuse, pc, message, 0);
        }
        let operands = Operands {
            registers: [registers[0], registers[1], 0],
            shared: descriptors.map(|bits| bits as usize),
            form: [form.a as u32, form.b as u32, form.columns, form.flags],
            pc,
        };
        let lanes = match self.gather("wgmma", operands) {
            Ok(lanes) => lanes,
            Err(flow) => return flow,
        };
        let index = self.warpgroup_of(self.current);
        let warp = (self.current - leader) as usize / 32;
        self.warpgroups[index].gathered[warp] = Some(Box::new(lanes));
        let here = self.warpgroups[index].gathered.iter().flatten();
        let other = here.clone().find(|lanes| lanes[0].form != operands.form);
        if let Some(other) = other.map(|lanes| lanes[0].pc) {
            let message = "wgmma, while other warps of the warpgroup wait in another{at}";
            return self.fatal(FindingKind::Divergence, pc, message.to_owned(), other);
        }
        if here.count() < 4 {
            return self.park(Wait::Aligned("wgmma"), pc);
        }
        let gathered = std::mem::take(&mut self.warpgroups[index].gathered);
        let lanes: Vec<Operands> = gathered.into_iter().flatten().flat_map(|w| *w).collect();
        if lanes.iter().any(|lane| lane.shared != operands.shared) {
            let message = "the threads of a warpgroup give wgmma different descriptors".to_owned();
            return self.wgmma_misuse(pc, message);
        }
        let last = self.current;
        if let Err(flow) = self.issue(index, leader, form, &lanes, pc) {
            return flow;
        }
        self.current = last;
        for tid in leader..leader + 128 {
            if tid != last {
                self.wake(tid, 0);
            }
        }
        Flow::Done(0)
    }

    fn wgmma_misuse(&mut self, pc: usize, message: String) -> Flow {
        self.fatal(FindingKind::WgmmaMisuse, pc, message, 0)
    }

    /// All 128 threads are here.
    fn issue(
        &mut self,
        index: usize,
        leader: u32,
        form: Form,
        lanes: &[Operands],
        pc: usize,
    ) -> Result<(), Flow> {
        let [a, b] = lanes[0].shared.map(|bits| Descriptor::decode(bits as u64));
        let in_registers = lanes[0].registers[1] != 0;
        if b.base_offset != 0 || !in_registers && a.base_offset != 0 {
            let message = "a descriptor with a base offset, which is not emulated".to_owned();
            return Err(self.wgmma_misuse(pc, message));
        }
        let element = form.a.bytes();
        let base = self.threads[leader as usize].info.shared;
        let b_pieces = b.pieces(
            0,
            form.columns as usize,
            element,
            form.flags & TRANSPOSE_B != 0,
        );
        for warp in 0..4 {
            self.current = leader + 32 * warp;
            let engine = match self.me().products.open.last() {
                Some(engine) => *engine,
                None => {
                    let engine = self.engine(pc)?;
                    self.me().products.open.push(engine);
                    engine
                }
            };
            let mut pieces = b_pieces.clone();
            if !in_registers {
                let transposed = form.flags & TRANSPOSE_A != 0;
                pieces.extend(a.pieces(16 * warp as usize, 16, element, transposed));
            }
            self.read_operand(base, pieces, engine, pc)?;
        }
        for (i, lane) in lanes.iter().enumerate() {
            self.current = leader + i as u32;
            self.check_fence(lane, in_registers, pc);
        }
        self.current = leader;
        let tile = self.hold_accumulators(index, form, lanes, pc)?;
        let k = (K_BYTES / element) as u64;
        let columns = form.columns as usize;
        let traffic = &mut self.counters.traffic;
        traffic.tensor_flops += 2 * 64 * columns as u64 * k;
        let rows = columns + if in_registers { 0 } else { 64 };
        traffic.shared_load_bytes += (rows * K_BYTES) as u64;
        // SAFETY: the header passes four registers of each of these threads, which wait here.
        let a_rows = in_registers.then(|| unsafe { register_rows(lanes) });
        let group = &mut self.warpgroups[index];
        group.issued += 1;
        group.queue.push_back(Product {
            form,
            tile,
            a_rows,
            a,
            b,
            base,
        });
        let late = self.rng.one_in(ONE_LATE_IN);
        self.operations.push(Operation {
            work: Work::Product(index),
            issuer: leader,
            pc,
            group: None,
            late,
        });
        Ok(())
    }

    /// Records a warp's reads of its operands.
    fn read_operand(
        &mut self,
        base: usize,
        mut pieces: Vec<usize>,
        engine: Completion,
        pc: usize,
    ) -> Result<(), Flow> {
        pieces.sort_unstable();
        pieces.dedup();
        for run in pieces.chunk_by(|a, b| a + PIECE == *b) {
            let (address, bytes) = (base + run[0], run.len() * PIECE);
            let place = self.shared_place(address, bytes, false, true, pc)?;
            let Place::Shared { offset, .. } = place else {
                continue;
            };
            // SAFETY: `shared_place` checked the bounds.
            let missing = unsafe { first_unmarked(self.initialised.as_ptr(), offset, bytes) };
            if let Some(missing) = missing {
                self.uninitialised(address + (missing - offset), address, bytes, pc);
            }
            self.check_proxy(place, address, bytes, true, pc);
            self.author(place, address, bytes, Class::Read, engine, pc);
        }
        Ok(())
    }

    /// Registers that the thread may have written since its last fence.
    fn check_fence(&mut self, lane: &Operands, in_registers: bool, pc: usize) {
        let index = self.warpgroup_of(self.current);
        let bit = 1u128 << (self.current - self.leader());
        let pending = self.warpgroups[index].tiles.iter().any(|tile| {
            tile.registers[bit.trailing_zeros() as usize] == lane.registers[0]
                && tile.delivered & bit == 0
        });
        let products = &mut self.me().products;
        let mut fenced = pending || products.fenced;
        if in_registers {
            // SAFETY: the header passes four registers of this thread, which waits here.
            let now = unsafe { (lane.registers[1] as *const [u32; 4]).read() };
            let before = products
                .operands
                .iter()
                .find(|(at, _)| *at == lane.registers[1]);
            fenced &= before.is_none_or(|(_, value)| *value == now);
            if before.is_none() && products.operands.len() < 64 {
                products.operands.push((lane.registers[1], now));
            }
        }
        if !fenced {
            self.finding(FindingKind::WgmmaMisuse, pc, 0, |_| {
                "wgmma without a wgmma.fence since its registers could last be written".to_owned()
            });
        }
    }

    /// Takes over the accumulators' values and leaves NaNs; the tile's name.
    fn hold_accumulators(
        &mut self,
        index: usize,
        form: Form,
        lanes: &[Operands],
        pc: usize,
    ) -> Result<u64, Flow> {
        let half = form.columns as usize / 2;
        let group = &mut self.warpgroups[index];
        let registers: Vec<usize> = lanes.iter().map(|lane| lane.registers[0]).collect();
        let known = group
            .tiles
            .iter()
            .position(|tile| tile.registers == registers);
        if known.is_some_and(|at| group.tiles[at].columns != form.columns) {
            let message = "wgmma on accumulators of another shape that is still under way";
            return Err(self.wgmma_misuse(pc, message.to_owned()));
        }
        let at = known.unwrap_or_else(|| {
            group.tiles.push(Tile {
                name: group.issued,
                columns: form.columns,
                registers,
                values: vec![0.0; 128 * half],
                last: 0,
                delivered: u128::MAX,
                pc,
            });
            group.tiles.len() - 1
        });
        let tile = &mut group.tiles[at];
        for i in (0..128).filter(|i| tile.delivered >> i & 1 == 1) {
            let d = tile.registers[i] as *mut f32;
            for (j, value) in tile.values[i * half..][..half].iter_mut().enumerate() {
                // SAFETY: the header passes `half` accumulators of each of these threads, which
                // wait here.
                unsafe {
                    *value = *d.add(j);
                    *d.add(j) = f32::from_bits(POISON);
                }
            }
        }
        tile.delivered = 0;
        tile.last = group.issued + 1;
        tile.pc = pc;
        Ok(tile.name)
    }

    /// Carries out the oldest product of a warpgroup.
    pub(super) fn carry_out_product(&mut self, index: usize) {
        let fp8 = self.run().architecture.fp8_fraction_bits;
        let half_bits = self.run().architecture.half_fraction_bits;
        let group = &mut self.warpgroups[index];
        let Some(product) = group.queue.pop_front() else {
            return;
        };
        group.done += 1;
        self.progress += 1;
        let Some(tile) = group
            .tiles
            .iter_mut()
            .find(|tile| tile.name == product.tile)
        else {
            return;
        };
        let form = product.form;
        let element = form.a.bytes();
        let bits = if element == 1 { fp8 } else { half_bits };
        let columns = form.columns as usize;
        // SAFETY: the pieces were checked when the product was issued.
        let load = |d: &Descriptor, rows: usize, transposed: bool| unsafe {
            d.load(product.base, rows, element, transposed)
        };
        let a = match product.a_rows {
            Some(rows) => rows,
            None => load(&product.a, 64, form.flags & TRANSPOSE_A != 0),
        };
        let b = load(&product.b, columns, form.flags & TRANSPOSE_B != 0);
        let (mut a_values, mut b_values) = (Vec::new(), Vec::new());
        form.a.decode(&a, &mut a_values);
        form.b.decode(&b, &mut b_values);
        let k = K_BYTES / element;
        for (at, value) in tile.values.iter_mut().enumerate() {
            let (thread, i) = (at / (columns / 2), at % (columns / 2));
            let row = 16 * (thread / 32) + thread % 32 / 4 + 8 * (i / 2 % 2);
            let column = 8 * (i / 4) + 2 * (thread % 4) + i % 2;
            let c = if form.flags & ACCUMULATE != 0 {
                *value
            } else {
                0.0
            };
            *value = step(
                c,
                &a_values[row * k..][..k],
                &b_values[column * k..][..k],
                bits,
            );
        }
    }

    pub(super) fn wgmma_group(&mut self, op: WgmmaOp, pending: i32, pc: usize) -> Flow {
        let operation = match op {
            WgmmaOp::WgmmaFence => SyncOperation::WgmmaFence,
            WgmmaOp::WgmmaCommit => SyncOperation::CommitGroup,
            WgmmaOp::WgmmaWait => SyncOperation::WaitGroup,
        };
        if self.disabled(pc, operation) {
            return Flow::Done(0);
        }
        let index = self.warpgroup_of(self.current);
        match op {
            WgmmaOp::WgmmaFence => {
                let products = &mut self.me().products;
                products.fenced = true;
                products.operands.clear();
            }
            WgmmaOp::WgmmaCommit => {
                let issued = self.warpgroups[index].issued;
                // The warp's engines: lane 0's, who closes the group for all.
                let first = (self.current / 32 * 32) as usize;
                let open = self.threads[first].products.open.clone();
                self.me().products.groups.push_back((issued, open));
                let lanes = &self.threads[first..first + 32];
                let closed =
                    |t: &super::Thread| t.products.groups.back().is_some_and(|g| g.0 >= issued);
                if lanes.iter().all(|t| t.exited || closed(t)) {
                    self.threads[first].products.open.clear();
                }
            }
            WgmmaOp::WgmmaWait => self.wait_products(index, pending.max(0) as usize, pc),
        }
        Flow::Done(0)
    }

    /// Carries out the current thread's groups but the latest, and hands their results over.
    fn wait_products(&mut self, index: usize, pending: usize, pc: usize) {
        let products = &mut self.me().products;
        let count = products.groups.len().saturating_sub(pending);
        let Some(target) = count.checked_sub(1).map(|last| products.groups[last].0) else {
            return;
        };
        let engines: Vec<Completion> = products.groups.drain(..count).flat_map(|g| g.1).collect();
        while self.warpgroups[index].done < target {
            let token = |o: &Operation| matches!(o.work, Work::Product(of) if of == index);
            if let Some(at) = self.operations.iter().position(token) {
                self.operations.remove(at);
            }
            self.carry_out_product(index);
        }
        let thread = self.me();
        thread.base = with_entries(&thread.base, &engines);
        let lane = (self.current - self.leader()) as usize;
        let mut written = false;
        let mut any = false;
        for tile in &mut self.warpgroups[index].tiles {
            if tile.last > target || tile.delivered >> lane & 1 == 1 {
                continue;
            }
            any = true;
            tile.delivered |= 1 << lane;
            let half = tile.columns as usize / 2;
            let d = tile.registers[lane] as *mut f32;
            // SAFETY: the thread's stack is alive; what lies there is only overwritten where it is
            // still the pattern that `hold_accumulators` left.
            unsafe {
                if (0..half).any(|i| (*d.add(i)).to_bits() != POISON) {
                    written = true;
                    continue;
                }
                for i in 0..half {
                    *d.add(i) = tile.values[lane * half + i];
                }
            }
        }
        if any {
            self.me().products.fenced = false;
            self.warpgroups[index]
                .tiles
                .retain(|tile| tile.delivered != u128::MAX);
        }
        if written {
            self.finding(FindingKind::WgmmaMisuse, pc, 0, |_| {
                "accumulators were written, or left their scope, between wgmma and its wait"
                    .to_owned()
            });
        }
    }

    /// A block has exited: its products must have been waited for.
    pub(super) fn exit_with_products(&mut self, cta: usize) {
        let per_cta = self.cta_stride.div_ceil(128) as usize;
        for index in cta * per_cta..(cta + 1) * per_cta {
            let Some(tile) = self.warpgroups[index].tiles.first() else {
                continue;
            };
            let pc = tile.pc;
            let lane = (!tile.delivered).trailing_zeros();
            self.current = cta as u32 * self.cta_stride + (index % per_cta) as u32 * 128 + lane;
            self.finding(FindingKind::WgmmaMisuse, pc, 0, |_| {
                "a product that its thread never waits for".to_owned()
            });
            self.warpgroups[index] = Warpgroup::default();
            self.operations
                .retain(|o| !matches!(o.work, Work::Product(of) if of == index));
        }
    }
}

/// The rows of a that the warpgroup's threads hold in registers.
///
/// # Safety
/// Each lane passes the address of four registers that nobody writes now.
unsafe fn register_rows(lanes: &[Operands]) -> Vec<u8> {
    let mut rows = vec![0; 64 * K_BYTES];
    for (thread, lane) in lanes.iter().enumerate() {
        // SAFETY: by the contract.
        let registers = unsafe { (lane.registers[1] as *const [u32; 4]).read() };
        for (i, register) in registers.iter().enumerate() {
            let row = 16 * (thread / 32) + thread % 32 / 4 + 8 * (i % 2);
            let at = row * K_BYTES + PIECE * (i / 2) + 4 * (thread % 4);
            rows[at..at + 4].copy_from_slice(&register.to_le_bytes());
        }
    }
    rows
}
