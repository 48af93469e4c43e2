//! Asynchronous copies: issued now, carried out at a random later point up to the wait.
//!
//! A copy is an author of its own (an engine) in the clocks. Its accesses are recorded when it is
//! issued, so whoever touches the bytes without having waited is in a race with it, whenever the
//! copy is carried out. Waiting makes the engine's clock known.

use super::access::Place;
use super::codes::CopyOp;
use super::race::Author;
use super::tensor::Tile;
use super::{Cluster, Flow};
use crate::clock::{CLOCK_LIMIT, Class, TID_LIMIT, clock_of, cluster_of, tid_of};
use crate::heap::mark;
use crate::report::FindingKind;
use crate::shadow;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU16;

/// A copy as the kernel asks for it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) op: CopyOp,
    pub(super) destination: usize,
    pub(super) source: usize,
    pub(super) bytes: usize,
    pub(super) bar: usize,
    /// Source bytes (cp.async) or mask of blocks (multicast).
    pub(super) argument: u32,
}

/// An author of asynchronous accesses.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) issuer: u32,
    clock: u32,
}

/// The place in clocks at which an engine's work is complete.
pub(super) type Completion = (u32, u32);

/// Work that is still to be carried out.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) work: Work,
    pub(super) issuer: u32,
    pub(super) pc: usize,
    /// The group it belongs to: kind and number.
    pub(super) group: Option<(bool, u64)>,
    /// Waits until nothing else can go on. A copy may be overtaken by any number of later ones and
    /// of threads: a wait that another copy's completion satisfies shows only then.
    pub(super) late: bool,
}

/// One operation in this many is late.
pub(super) const ONE_LATE_IN: u32 = 4;

#[derive(Debug)]
pub(super) enum Work {
    Copy {
        destination: usize,
        source: usize,
        bytes: usize,
        source_bytes: usize,
        /// The mbarrier that receives the bytes, with the engine that completes.
        bar: Option<(usize, Completion)>,
        /// The source, once it has been read, with the bits of its initialised bytes.
        data: Option<(Vec<u8>, Vec<bool>)>,
    },
    /// The oldest product of a warpgroup.
    Product(usize),
    /// A box of a tensor.
    Tile(Tile),
    /// Arrives at an mbarrier once the issuer's earlier cp.async are complete.
    Arrive {
        address: usize,
        engines: Vec<Completion>,
        before: u64,
    },
}

/// A group of copies of one thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) writes: Vec<Completion>,
    pub(super) reads: Vec<Completion>,
    /// No further copy may join the last engine: something already depends on it.
    pub(super) sealed: bool,
}

/// The groups of one thread, of cp.async (0) and of bulk copies (1).
#[derive(Debug, Default)]
pub(super) struct ThreadCopies {
    pub(super) open: [Group; 2],
    pub(super) committed: [VecDeque<Group>; 2],
    /// The number of the open group.
    pub(super) number: [u64; 2],
    /// Engines this thread has used.
    engines: Vec<u32>,
}

impl Cluster {
    /// An engine whose earlier work the current thread knows to be complete, or a new one.
    pub(super) fn engine(&mut self, pc: usize) -> Result<Completion, Flow> {
        let issuer = self.current;
        let first = self.threads.len() as u32;
        let thread = &self.threads[issuer as usize];
        let idle = thread.copies.engines.iter().copied().find(|&slot| {
            let engine = &self.engines[slot as usize];
            thread.base.get(first + slot) >= engine.clock
        });
        let slot = if let Some(slot) = idle {
            self.engines[slot as usize].clock += 1;
            slot
        } else {
            let slot = self.engines.len() as u32;
            self.engines.push(Engine { issuer, clock: 1 });
            self.me().copies.engines.push(slot);
            slot
        };
        let clock = self.engines[slot as usize].clock;
        if first + slot >= TID_LIMIT || clock >= CLOCK_LIMIT {
            let message = "too many asynchronous copies are in flight for the emulator".to_owned();
            return Err(self.fatal(FindingKind::LaunchLimits, pc, message, 0));
        }
        Ok((first + slot, clock))
    }

    /// The thread that issued an engine's present work.
    pub(super) fn issuer(&self, engine: usize) -> u32 {
        self.engines.get(engine).map_or(0, |engine| engine.issuer)
    }

    pub(super) fn copy(&mut self, request: &Request, pc: usize) -> Flow {
        let result = match request.op {
            CopyOp::CpAsync => self.cp_async(request, pc),
            CopyOp::BulkGlobalToShared | CopyOp::BulkMulticast => self.bulk_load(request, pc),
            CopyOp::BulkSharedToGlobal => self.bulk_store(request, pc),
            CopyOp::BulkSharedToShared => self.bulk_exchange(request, pc),
            CopyOp::StAsync => self.st_async(request, pc),
        };
        match result {
            Ok(()) => Flow::Done(0),
            Err(flow) => flow,
        }
    }

    pub(super) fn misuse(&mut self, pc: usize, message: String) -> Flow {
        self.fatal(FindingKind::AsyncMisuse, pc, message, 0)
    }

    fn cp_async(&mut self, r: &Request, pc: usize) -> Result<(), Flow> {
        let source_bytes = r.argument as usize;
        if !matches!(r.bytes, 4 | 8 | 16) || source_bytes > r.bytes {
            let message = format!(
                "cp.async of {} bytes from {source_bytes}: 4, 8 or 16",
                r.bytes
            );
            return Err(self.misuse(pc, message));
        }
        self.aligned(r, r.bytes, pc)?;
        let destination = self.shared_place(r.destination, r.bytes, true, true, pc)?;
        let source = match source_bytes {
            0 => Place::ReadOnly,
            n => self.global_place(r.source, n, false, pc)?,
        };
        let engine = match self.me().copies.open[0].writes.last().copied() {
            Some(engine) if !self.me().copies.open[0].sealed => engine,
            _ => {
                let engine = self.engine(pc)?;
                let open = &mut self.me().copies.open[0];
                open.writes.push(engine);
                open.sealed = false;
                engine
            }
        };
        self.author(source, r.source, source_bytes, Class::Read, engine, pc);
        self.author(
            destination,
            r.destination,
            r.bytes,
            Class::Write,
            engine,
            pc,
        );
        self.count(source, r.source, source_bytes, false, pc);
        self.counters.traffic.shared_store_bytes += r.bytes as u64;
        let number = self.me().copies.number[0];
        self.submit(r, source_bytes, None, Some((false, number)), pc);
        Ok(())
    }

    fn aligned(&mut self, r: &Request, to: usize, pc: usize) -> Result<(), Flow> {
        for (name, address) in [("destination", r.destination), ("source", r.source)] {
            if !address.is_multiple_of(to) {
                let place = self.describe_address(address);
                let message = format!("{:?}: its {name}, {place}, is no multiple of {to}", r.op);
                return Err(self.fatal(FindingKind::Misaligned, pc, message, 0));
            }
        }
        Ok(())
    }

    fn bulk_shape(&mut self, r: &Request, pc: usize) -> Result<(), Flow> {
        if r.bytes == 0 || !r.bytes.is_multiple_of(16) {
            let message = format!("{:?} of {} bytes: a multiple of 16", r.op, r.bytes);
            return Err(self.misuse(pc, message));
        }
        self.aligned(r, 16, pc)
    }

    pub(super) fn shared_place(
        &mut self,
        address: usize,
        bytes: usize,
        write: bool,
        own: bool,
        pc: usize,
    ) -> Result<Place, Flow> {
        let place = self.locate(address, bytes, write, pc)?;
        let mine = self.cta_of(self.current);
        match place {
            Place::Shared { cta, .. } if !own || cta == mine => Ok(place),
            _ => {
                let text = self.describe_address(address);
                let whose = if own {
                    "its own block's"
                } else {
                    "the cluster's"
                };
                Err(self.misuse(
                    pc,
                    format!("a copy at {text}, which is not {whose} shared memory"),
                ))
            }
        }
    }

    pub(super) fn global_place(
        &mut self,
        address: usize,
        bytes: usize,
        write: bool,
        pc: usize,
    ) -> Result<Place, Flow> {
        let place = self.locate(address, bytes, write, pc)?;
        if matches!(place, Place::Global { .. }) {
            return Ok(place);
        }
        let text = self.describe_address(address);
        Err(self.misuse(pc, format!("a copy at {text}, which is not global memory")))
    }

    /// Records an access of a copy.
    pub(super) fn author(
        &mut self,
        place: Place,
        address: usize,
        size: usize,
        class: Class,
        engine: Completion,
        pc: usize,
    ) {
        if size == 0 {
            return;
        }
        let author = Author {
            tid: engine.0,
            clock: engine.1,
        };
        self.order(place, address, size, class, pc, Some(author));
        if let Place::Shared { cta, offset } = place {
            if !self.ctas[cta].mbarriers.is_empty() {
                self.check_plain(cta, offset, size, pc);
            }
            self.ctas[cta].remote.insert(engine.0, (engine.1, pc));
            if cta != self.cta_of(self.current) {
                self.visit_peer(cta, pc);
            }
        }
        if class == Class::Write {
            let (bits, offset): (*const AtomicU16, usize) = match place {
                Place::Shared { offset, .. } => (self.initialised.as_ptr(), offset),
                Place::Global { bits, offset, .. } => (bits, offset),
                Place::ReadOnly => return,
            };
            // SAFETY: `locate` checked the bounds; until the copy is carried out the bytes are a
            // NaN pattern.
            unsafe {
                mark(bits, offset, size);
                std::ptr::write_bytes(address as *mut u8, 0xff, size);
            }
        }
    }

    /// The async proxy sees generic writes only after their writer's fence.
    pub(super) fn check_proxy(
        &mut self,
        place: Place,
        address: usize,
        size: usize,
        reads: bool,
        pc: usize,
    ) {
        let Place::Shared { offset, .. } = place else {
            return;
        };
        let threads = self.threads.len() as u32;
        let base = &self.threads[self.current as usize].base;
        let me = self.current;
        let mut dirty = None;
        // SAFETY: `locate` checked the bounds; shared memory belongs to this cluster alone.
        unsafe {
            shadow::writers(
                self.granules.as_ptr().cast_mut(),
                self.generation,
                offset,
                size,
                |at, e, from| {
                    let tid = tid_of(e);
                    if cluster_of(e) != self.index || tid >= threads {
                        return true;
                    }
                    let fences = &self.threads[tid as usize].proxy_fences;
                    let next = fences.partition_point(|&clock| clock < clock_of(e));
                    let known = if tid == me { u32::MAX } else { base.get(tid) };
                    if fences.get(next).is_some_and(|&clock| clock <= known) {
                        return true;
                    }
                    dirty = Some((at - offset, e, from));
                    false
                },
            );
        }
        if let Some((skipped, e, from)) = dirty {
            let other = self.run().long_pc(from);
            self.finding(FindingKind::ProxyFence, pc, other, |c| {
                let place = c.describe_address(address + skipped);
                let who = c.describe_author(e);
                let verb = if reads { "reads" } else { "overwrites" };
                format!(
                    "an asynchronous copy {verb} {place}, written by {who}{{at}} without a \
                     fence.proxy.async after it"
                )
            });
        }
    }

    /// The mbarrier a copy completes on: in the destination's block, initialised and fenced.
    pub(super) fn check_bar(
        &mut self,
        bar: usize,
        destination: usize,
        pc: usize,
    ) -> Result<(), Flow> {
        let place = self.shared_place(bar, 8, true, false, pc)?;
        let Place::Shared { cta, offset } = place else {
            return Ok(());
        };
        let key = (offset % self.shared_stride) as u32;
        if (destination - self.shared_start) / self.shared_stride != cta {
            let message = "a copy completes on an mbarrier of another block than its destination's";
            return Err(self.misuse(pc, message.to_owned()));
        }
        match self.ctas[cta].mbarriers.get(&key) {
            None => {
                let text = self.describe_address(bar);
                let message =
                    format!("a copy completes on {text}, where no mbarrier is initialised");
                return Err(self.misuse(pc, message));
            }
            Some(mbarrier) if !mbarrier.fenced => {
                let by = mbarrier.init_by;
                self.finding(FindingKind::ProxyFence, pc, 0, |c| {
                    let who = c.name(by);
                    format!(
                        "a copy completes on an mbarrier that {who} initialised without \
                         fence.mbarrier_init or fence.proxy.async after it"
                    )
                });
            }
            Some(_) => {}
        }
        self.order(place, bar, 8, Class::AtomicRead, pc, None);
        Ok(())
    }

    fn bulk_load(&mut self, r: &Request, pc: usize) -> Result<(), Flow> {
        self.bulk_shape(r, pc)?;
        let source = self.global_place(r.source, r.bytes, false, pc)?;
        let multicast = r.op == CopyOp::BulkMulticast;
        if !multicast {
            self.shared_place(r.destination, r.bytes, true, false, pc)?;
        } else {
            self.shared_place(r.destination, r.bytes, true, true, pc)?;
            if r.argument == 0 || u64::from(r.argument) >> self.ctas.len() != 0 {
                let message = format!(
                    "multicast to blocks {:#06x} of a cluster of {}",
                    r.argument,
                    self.ctas.len()
                );
                return Err(self.misuse(pc, message));
            }
        }
        let engine = self.engine(pc)?;
        self.author(source, r.source, r.bytes, Class::Read, engine, pc);
        self.counters.traffic.global_load_bytes += r.bytes as u64;
        self.counters.contiguous(r.source, r.bytes, false);
        let mine = self.cta_of(self.current);
        let targets: Vec<usize> = if multicast {
            (0..self.ctas.len())
                .filter(|rank| r.argument >> rank & 1 == 1)
                .collect()
        } else {
            vec![(r.destination - self.shared_start) / self.shared_stride]
        };
        for (i, &cta) in targets.iter().enumerate() {
            let mut piece = r.clone();
            if multicast {
                let shift = |address: usize| {
                    address
                        .wrapping_add(cta * self.shared_stride)
                        .wrapping_sub(mine * self.shared_stride)
                };
                (piece.destination, piece.bar) = (shift(r.destination), shift(r.bar));
            }
            // Each destination completes on its own.
            let engine = if i == 0 {
                engine
            } else {
                self.engine_beside(pc)?
            };
            self.deliver(&piece, engine, pc)?;
        }
        Ok(())
    }

    /// A new engine, whatever others are idle: one of those may just have been handed out.
    pub(super) fn engine_beside(&mut self, pc: usize) -> Result<Completion, Flow> {
        let kept = std::mem::take(&mut self.me().copies.engines);
        let engine = self.engine(pc);
        let fresh = std::mem::replace(&mut self.me().copies.engines, kept);
        self.me().copies.engines.extend(fresh);
        engine
    }

    /// The destination side of a copy that completes on an mbarrier.
    fn deliver(&mut self, r: &Request, engine: Completion, pc: usize) -> Result<(), Flow> {
        let place = self.shared_place(r.destination, r.bytes, true, false, pc)?;
        self.check_bar(r.bar, r.destination, pc)?;
        self.check_proxy(place, r.destination, r.bytes, false, pc);
        self.author(place, r.destination, r.bytes, Class::Write, engine, pc);
        self.count_delivery(place, r.bytes);
        self.submit(r, r.bytes, Some((r.bar, engine)), None, pc);
        Ok(())
    }

    pub(super) fn count_delivery(&mut self, place: Place, bytes: usize) {
        let own = matches!(place, Place::Shared { cta, .. } if cta == self.cta_of(self.current));
        let traffic = &mut self.counters.traffic;
        if own {
            traffic.shared_store_bytes += bytes as u64;
        } else {
            traffic.distributed_store_bytes += bytes as u64;
        }
    }

    fn bulk_store(&mut self, r: &Request, pc: usize) -> Result<(), Flow> {
        self.bulk_shape(r, pc)?;
        let source = self.shared_place(r.source, r.bytes, false, true, pc)?;
        let destination = self.global_place(r.destination, r.bytes, true, pc)?;
        self.check_proxy(source, r.source, r.bytes, true, pc);
        let (reader, writer) = self.bulk_engines(pc)?;
        self.author(source, r.source, r.bytes, Class::Read, reader, pc);
        self.author(
            destination,
            r.destination,
            r.bytes,
            Class::Write,
            writer,
            pc,
        );
        let traffic = &mut self.counters.traffic;
        traffic.shared_load_bytes += r.bytes as u64;
        traffic.global_store_bytes += r.bytes as u64;
        self.counters.contiguous(r.destination, r.bytes, true);
        let number = self.me().copies.number[1];
        self.submit(r, r.bytes, None, Some((true, number)), pc);
        Ok(())
    }

    /// The engines that read and write for this thread's open bulk group.
    pub(super) fn bulk_engines(&mut self, pc: usize) -> Result<(Completion, Completion), Flow> {
        let open = &self.me().copies.open[1];
        if let (Some(reader), Some(writer)) = (open.reads.last(), open.writes.last()) {
            return Ok((*reader, *writer));
        }
        let reader = self.engine_beside(pc)?;
        let writer = self.engine_beside(pc)?;
        let open = &mut self.me().copies.open[1];
        open.reads.push(reader);
        open.writes.push(writer);
        Ok((reader, writer))
    }

    fn bulk_exchange(&mut self, r: &Request, pc: usize) -> Result<(), Flow> {
        self.bulk_shape(r, pc)?;
        let source = self.shared_place(r.source, r.bytes, false, true, pc)?;
        self.shared_place(r.destination, r.bytes, true, false, pc)?;
        self.check_proxy(source, r.source, r.bytes, true, pc);
        let engine = self.engine(pc)?;
        self.author(source, r.source, r.bytes, Class::Read, engine, pc);
        self.counters.traffic.shared_load_bytes += r.bytes as u64;
        self.deliver(r, engine, pc)
    }

    fn st_async(&mut self, r: &Request, pc: usize) -> Result<(), Flow> {
        if !matches!(r.bytes, 4 | 8 | 16) {
            return Err(self.misuse(pc, format!("st.async of {} bytes: 4, 8 or 16", r.bytes)));
        }
        if !r.destination.is_multiple_of(r.bytes) {
            return Err(self.misaligned(r.destination, r.bytes, pc));
        }
        let place = self.shared_place(r.destination, r.bytes, true, false, pc)?;
        self.check_bar(r.bar, r.destination, pc)?;
        let engine = self.engine(pc)?;
        self.author(place, r.destination, r.bytes, Class::Write, engine, pc);
        self.count_delivery(place, r.bytes);
        // The value is an operand, read at once.
        // SAFETY: the header passes the address of a local of `bytes` bytes.
        let value = unsafe { std::slice::from_raw_parts(r.source as *const u8, r.bytes) }.to_vec();
        self.submit(r, r.bytes, Some((r.bar, engine)), None, pc);
        if let Some(Operation {
            work: Work::Copy { data, .. },
            ..
        }) = self.operations.last_mut()
        {
            *data = Some((value, vec![true; r.bytes]));
        }
        Ok(())
    }

    fn submit(
        &mut self,
        r: &Request,
        source_bytes: usize,
        bar: Option<(usize, Completion)>,
        group: Option<(bool, u64)>,
        pc: usize,
    ) {
        let late = self.rng.one_in(ONE_LATE_IN);
        self.operations.push(Operation {
            late,
            work: Work::Copy {
                destination: r.destination,
                source: r.source,
                bytes: r.bytes,
                source_bytes,
                bar,
                data: None,
            },
            issuer: self.current,
            pc,
            group,
        });
    }
}
