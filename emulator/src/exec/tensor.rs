//! Copies of boxes by a tensor map.

use super::access::Place;
use super::asynchronous::{Completion, ONE_LATE_IN, Operation, Work};
use super::codes::TensorOp;
use super::{Cluster, Flow};
use crate::clock::Class;
use crate::heap::{first_unmarked, unmark};
use crate::tensor_map::{TensorMap, TensorMapElement, TensorMapSwizzle, TensorTile};

/// The alignment of a box in shared memory.
const ALIGNMENT: usize = 128;

/// A copy as the kernel asks for it.
#[derive(Clone, Debug)]
pub(super) struct TensorRequest {
    pub(super) op: TensorOp,
    pub(super) shared: usize,
    pub(super) map: usize,
    pub(super) bar: usize,
    pub(super) at: Vec<i32>,
    /// Mask of blocks (multicast).
    pub(super) blocks: u32,
}

/// Bytes that lie together on both sides, at most 16 of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// 0 outside of the tensor.
    global: usize,
    shared: usize,
    bytes: usize,
}

/// A box on its way.
#[derive(Debug)]
pub(super) struct Tile {
    pieces: Vec<Piece>,
    load: bool,
    /// Any address in the block's shared memory that the box uses.
    pub(super) shared: usize,
    /// The mbarrier that receives the bytes, with the engine that completes.
    bar: Option<(usize, usize, Completion)>,
    /// The source, once it has been read, with whether each byte was initialised.
    pub(super) data: Option<(Vec<u8>, Vec<bool>)>,
}

impl Tile {
    /// Whether a store no longer needs its block's shared memory.
    pub(super) fn read(&self) -> bool {
        !self.load && self.data.is_some()
    }
}

impl Cluster {
    pub(super) fn tensor(&mut self, r: &TensorRequest, pc: usize) -> Flow {
        let result = self.tensor_map(r, pc).and_then(|tile| match r.op {
            TensorOp::TensorLoad | TensorOp::TensorMulticast => self.tensor_load(r, &tile, pc),
            TensorOp::TensorStore | TensorOp::TensorReduceAdd => self.tensor_store(r, &tile, pc),
        });
        match result {
            Ok(()) => Flow::Done(0),
            Err(flow) => flow,
        }
    }

    /// The map, which must be one of the emulator's in the parameters.
    fn tensor_map(&mut self, r: &TensorRequest, pc: usize) -> Result<TensorTile, Flow> {
        if !self.needs_compute((9, 0), "a copy by a tensor map", pc) {
            return Err(Flow::Wait);
        }
        if !r.map.is_multiple_of(64) {
            let message = format!("a tensor map at {:#x}, which is no multiple of 64", r.map);
            return Err(self.misuse(pc, message));
        }
        if !self.run().readable(r.map, 128) {
            let message = "a tensor map that is no part of the kernel's parameters".to_owned();
            return Err(self.misuse(pc, message));
        }
        // SAFETY: 128 readable bytes, aligned.
        let words = unsafe { (r.map as *const [u64; 16]).read() };
        let Some(tile) = TensorMap::decode(&words) else {
            let message = "a tensor map that the emulator has not encoded".to_owned();
            return Err(self.misuse(pc, message));
        };
        if tile.dims.len() != r.at.len() {
            let message = format!(
                "a tensor map of {} dimensions in an instruction for {}",
                tile.dims.len(),
                r.at.len()
            );
            return Err(self.misuse(pc, message));
        }
        if r.op == TensorOp::TensorReduceAdd && tile.element != TensorMapElement::F32 {
            let message = format!("an addition of {:?}: only f32 is emulated", tile.element);
            return Err(self.misuse(pc, message));
        }
        if !r.shared.is_multiple_of(ALIGNMENT) {
            return Err(self.misaligned(r.shared, ALIGNMENT, pc));
        }
        Ok(tile)
    }

    /// The pieces of a box, and its rows in global memory (address and length).
    fn pieces(&self, r: &TensorRequest, tile: &TensorTile) -> (Vec<Piece>, Vec<(usize, usize)>) {
        let size = tile.element.bytes();
        let row_bytes = tile.tile[0] as usize * size;
        let rows: usize = tile.tile[1..].iter().map(|&n| n as usize).product();
        // The swizzle looks at addresses as the block sees them.
        let base = (r.shared - self.shared_start) / self.shared_stride * self.shared_stride
            + self.shared_start;
        let inside = |i: usize, c: i64| c >= 0 && (c as u64) < tile.dims[i];
        let first = i64::from(r.at[0]);
        let low = (-first).clamp(0, i64::from(tile.tile[0])) as usize * size;
        let high = (tile.dims[0] as i64 - first).clamp(0, i64::from(tile.tile[0])) as usize * size;
        let (mut pieces, mut lines) = (Vec::new(), Vec::new());
        for row in 0..rows {
            let mut rest = row;
            let mut address = tile.address as i64 + first * size as i64;
            let mut outside = low >= high;
            for i in 1..tile.dims.len() {
                let extent = tile.tile[i] as usize;
                let c = i64::from(r.at[i]) + (rest % extent) as i64;
                rest /= extent;
                outside |= !inside(i, c);
                address = address.wrapping_add(c.wrapping_mul(tile.strides[i - 1] as i64));
            }
            let (low, high) = if outside {
                (row_bytes, row_bytes)
            } else {
                (low, high)
            };
            if low < high {
                lines.push((address as usize + low, high - low));
            }
            let mut at = 0;
            while at < row_bytes {
                let known = (low..high).contains(&at);
                let edge = if known {
                    high
                } else if at < low {
                    low
                } else {
                    row_bytes
                };
                let bytes = edge.min((at / 16 + 1) * 16) - at;
                let offset = r.shared - base + row * row_bytes + at;
                pieces.push(Piece {
                    global: if known { address as usize + at } else { 0 },
                    shared: base + tile.swizzle.place(offset),
                    bytes,
                });
                at += bytes;
            }
        }
        (pieces, lines)
    }

    fn tensor_load(&mut self, r: &TensorRequest, tile: &TensorTile, pc: usize) -> Result<(), Flow> {
        let bytes = tile.bytes();
        let span = shared_span(tile);
        let multicast = r.op == TensorOp::TensorMulticast;
        let place = self.shared_place(r.shared, span, true, multicast, pc)?;
        let Place::Shared { cta: own, .. } = place else {
            return Ok(());
        };
        if multicast && (r.blocks == 0 || u64::from(r.blocks) >> self.ctas.len() != 0) {
            let count = self.ctas.len();
            let message = format!(
                "multicast to blocks {:#06x} of a cluster of {count}",
                r.blocks
            );
            return Err(self.misuse(pc, message));
        }
        let (pieces, lines) = self.pieces(r, tile);
        let engine = self.engine(pc)?;
        for &(address, bytes) in &lines {
            let source = self.global_place(address, bytes, false, pc)?;
            self.author(source, address, bytes, Class::Read, engine, pc);
            self.counters.traffic.global_load_bytes += bytes as u64;
            self.counters.contiguous(address, bytes, false);
        }
        let blocks = if multicast { r.blocks } else { 1 << own };
        let mut first = true;
        for cta in (0..self.ctas.len()).filter(|rank| blocks >> rank & 1 == 1) {
            let shift = (cta * self.shared_stride).wrapping_sub(own * self.shared_stride);
            let (shared, bar) = (r.shared.wrapping_add(shift), r.bar.wrapping_add(shift));
            let engine = if std::mem::take(&mut first) {
                engine
            } else {
                self.engine_beside(pc)?
            };
            let place = self.shared_place(shared, span, true, false, pc)?;
            self.check_bar(bar, shared, pc)?;
            self.check_proxy(place, shared, span, false, pc);
            self.author(place, shared, span, Class::Write, engine, pc);
            self.count_delivery(place, bytes);
            let mut pieces = pieces.clone();
            for piece in &mut pieces {
                piece.shared = piece.shared.wrapping_add(shift);
            }
            let tile = Tile {
                pieces,
                load: true,
                shared,
                bar: Some((bar, bytes, engine)),
                data: None,
            };
            self.submit_tile(tile, None, pc);
        }
        Ok(())
    }

    fn tensor_store(
        &mut self,
        r: &TensorRequest,
        tile: &TensorTile,
        pc: usize,
    ) -> Result<(), Flow> {
        let bytes = tile.bytes();
        let adds = r.op == TensorOp::TensorReduceAdd;
        if adds && self.await_turn(pc) {
            return Err(Flow::Again);
        }
        let span = shared_span(tile);
        let source = self.shared_place(r.shared, span, false, true, pc)?;
        self.check_proxy(source, r.shared, span, true, pc);
        let (mut pieces, lines) = self.pieces(r, tile);
        pieces.retain(|piece| piece.global != 0);
        let (reader, writer) = self.bulk_engines(pc)?;
        self.author(source, r.shared, span, Class::Read, reader, pc);
        self.counters.traffic.shared_load_bytes += bytes as u64;
        let class = if adds {
            Class::AtomicWrite
        } else {
            Class::Write
        };
        for &(address, bytes) in &lines {
            let place = self.global_place(address, bytes, true, pc)?;
            if adds && let Some((bits, offset)) = self.bits_of(address) {
                // SAFETY: `global_place` checked the bounds.
                if let Some(at) = unsafe { first_unmarked(bits, offset, bytes) } {
                    self.uninitialised(address + (at - offset), address, bytes, pc);
                }
                self.counters.traffic.global_load_bytes += bytes as u64;
                self.counters.contiguous(address, bytes, false);
            }
            self.author(place, address, bytes, class, writer, pc);
            self.counters.traffic.global_store_bytes += bytes as u64;
            self.counters.contiguous(address, bytes, true);
        }
        let mut tile = Tile {
            pieces,
            load: false,
            shared: r.shared,
            bar: None,
            data: None,
        };
        if adds {
            // Additions of all clusters keep the order of their turns: carried out at once.
            self.read_tile(&mut tile);
            // SAFETY: every piece lies within a buffer and within shared memory, and this cluster
            // has the turn.
            unsafe { add_tile(&tile) };
            return Ok(());
        }
        let number = self.me().copies.number[1];
        self.submit_tile(tile, Some((true, number)), pc);
        Ok(())
    }

    fn submit_tile(&mut self, tile: Tile, group: Option<(bool, u64)>, pc: usize) {
        let late = self.rng.one_in(ONE_LATE_IN);
        self.operations.push(Operation {
            late,
            work: Work::Tile(tile),
            issuer: self.current,
            pc,
            group,
        });
    }

    pub(super) fn read_tile(&mut self, tile: &mut Tile) {
        if tile.data.is_some() {
            return;
        }
        let total = tile.pieces.iter().map(|piece| piece.bytes).sum();
        let mut data = Vec::with_capacity(total);
        let mut known = Vec::with_capacity(total);
        for piece in &tile.pieces {
            let from = if tile.load {
                piece.global
            } else {
                piece.shared
            };
            if from == 0 {
                data.resize(data.len() + piece.bytes, 0);
                known.resize(known.len() + piece.bytes, true);
                continue;
            }
            // SAFETY: the bounds were checked when the copy was issued, and the buffers of a
            // launch live as long as it.
            unsafe {
                data.extend_from_slice(std::slice::from_raw_parts(from as *const u8, piece.bytes));
                match self.bits_of(from) {
                    Some((bits, offset)) if first_unmarked(bits, offset, piece.bytes).is_some() => {
                        let marked = |i| first_unmarked(bits, offset + i, 1).is_none();
                        known.extend((0..piece.bytes).map(marked));
                    }
                    _ => known.resize(known.len() + piece.bytes, true),
                }
            }
        }
        tile.data = Some((data, known));
    }

    pub(super) fn carry_out_tile(&mut self, mut tile: Tile) {
        self.read_tile(&mut tile);
        let Some((data, known)) = &tile.data else {
            return;
        };
        let mut at = 0;
        for piece in &tile.pieces {
            let to = if tile.load {
                piece.shared
            } else {
                piece.global
            };
            let missing = known[at..at + piece.bytes].contains(&false);
            // SAFETY: as in `read_tile`.
            unsafe {
                let from = data[at..at + piece.bytes].as_ptr();
                std::ptr::copy_nonoverlapping(from, to as *mut u8, piece.bytes);
                if let (true, Some((bits, offset))) = (missing, self.bits_of(to)) {
                    for i in (0..piece.bytes).filter(|i| !known[at + i]) {
                        unmark(bits, offset + i, 1);
                    }
                }
            }
            at += piece.bytes;
        }
        if let Some((bar, bytes, engine)) = tile.bar {
            self.complete_transactions(bar, bytes, engine);
        }
    }
}

/// Bytes of shared memory in which a box may lie: a swizzle moves pieces within whole lines.
fn shared_span(tile: &TensorTile) -> usize {
    match tile.swizzle {
        TensorMapSwizzle::None => tile.bytes(),
        _ => tile.bytes().next_multiple_of(ALIGNMENT),
    }
}

/// # Safety
/// The pieces' global bytes are f32 of live buffers that nobody else uses now.
unsafe fn add_tile(tile: &Tile) {
    let Some((data, _)) = &tile.data else {
        return;
    };
    let mut at = 0;
    for piece in &tile.pieces {
        for (i, bytes) in data[at..at + piece.bytes].chunks_exact(4).enumerate() {
            let term = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let sum = (piece.global + 4 * i) as *mut f32;
            // SAFETY: by the contract; elements are aligned, as the map's address and strides are.
            unsafe { *sum += term };
        }
        at += piece.bytes;
    }
}
