//! Loads and stores: where they go, whether they may, and what they count as.

use super::codes::{RANGE, UNALIGNED, VOLATILE, WRITE};
use super::{Cluster, Flow};
use crate::clock::Class;
use crate::heap::{first_unmarked, mark};
use crate::report::FindingKind;
use crate::shadow::Granule;
use crate::traffic::Space;
use std::ptr::null_mut;
use std::sync::atomic::AtomicU16;

/// A buffer an instruction accessed last.
#[derive(Clone, Copy, Debug)]
pub(super) struct CachedAllocation {
    start: usize,
    len: usize,
    granules: *mut Granule,
    bits: *const AtomicU16,
}

impl Default for CachedAllocation {
    fn default() -> CachedAllocation {
        CachedAllocation {
            start: 0,
            len: 0,
            granules: null_mut(),
            bits: null_mut(),
        }
    }
}

/// Memory a kernel may access.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Shared memory of a block of this cluster; the offset counts from the first block's.
    Shared { cta: usize, offset: usize },
    /// A buffer.
    Global {
        granules: *mut Granule,
        bits: *const AtomicU16,
        offset: usize,
    },
    /// Parameters and constants.
    ReadOnly,
}

impl Cluster {
    #[inline]
    pub(super) fn access(&mut self, address: usize, size: usize, flags: u32, pc: usize) -> Flow {
        if flags & (UNALIGNED | RANGE) == 0 && !address.is_multiple_of(size) {
            return self.misaligned(address, size, pc);
        }
        if size == 0 {
            return Flow::Done(0);
        }
        let write = flags & WRITE != 0;
        if flags & VOLATILE != 0 {
            return self.volatile(address, size, write, pc);
        }
        let place = match self.locate(address, size, write, pc) {
            Ok(place) => place,
            Err(flow) => return flow,
        };
        let class = if write { Class::Write } else { Class::Read };
        self.record(place, address, size, class, pc);
        self.count(place, address, size, write, pc);
        Flow::Done(0)
    }

    #[cold]
    pub(super) fn misaligned(&mut self, address: usize, size: usize, pc: usize) -> Flow {
        let place = self.describe_address(address);
        let message =
            format!("an access of {size} bytes to {place}, which is no multiple of {size}");
        self.fatal(FindingKind::Misaligned, pc, message, 0)
    }

    /// Finds the memory an access goes to; a wrong access ends the launch before it is made.
    #[inline]
    pub(super) fn locate(
        &mut self,
        address: usize,
        size: usize,
        write: bool,
        pc: usize,
    ) -> Result<Place, Flow> {
        let offset = address.wrapping_sub(self.shared_start);
        if offset < self.shared_stride * self.ctas.len() {
            let own = self.cta_of(self.current) * self.shared_stride;
            if offset.wrapping_sub(own) < self.shared_bytes
                && offset - own + size <= self.shared_bytes
            {
                let cta = own / self.shared_stride;
                return Ok(Place::Shared { cta, offset });
            }
            return self.locate_remote(address, size, offset, write, pc);
        }
        let slot = (pc ^ (pc >> 4)) % self.cache.len();
        let cached = &self.cache[slot];
        let offset = address.wrapping_sub(cached.start);
        if offset < cached.len && size <= cached.len - offset {
            return Ok(Place::Global {
                granules: cached.granules,
                bits: cached.bits,
                offset,
            });
        }
        self.locate_buffer(address, size, slot, write, pc)
    }

    #[cold]
    fn locate_buffer(
        &mut self,
        address: usize,
        size: usize,
        slot: usize,
        write: bool,
        pc: usize,
    ) -> Result<Place, Flow> {
        let run = self.run();
        let verb = if write { "writes" } else { "reads" };
        if let Some(allocation) = run.heap().find(address) {
            let offset = address - allocation.start;
            if offset < allocation.len && size <= allocation.len - offset {
                if allocation.freed {
                    let message = format!(
                        "{verb} {size} bytes at offset {offset} of a buffer of {} bytes that has been dropped",
                        allocation.len
                    );
                    return Err(self.fatal(FindingKind::UseAfterFree, pc, message, 0));
                }
                self.cache[slot] = CachedAllocation {
                    start: allocation.start,
                    len: allocation.len,
                    granules: allocation.granules(),
                    bits: allocation.bits(),
                };
                return Ok(Place::Global {
                    granules: allocation.granules(),
                    bits: allocation.bits(),
                    offset,
                });
            }
        }
        if !write && run.readable(address, size) {
            return Ok(Place::ReadOnly);
        }
        let place = self.describe_address(address);
        let message = format!("{verb} {size} bytes at {place}");
        Err(self.fatal(FindingKind::OutOfBounds, pc, message, 0))
    }

    fn locate_remote(
        &mut self,
        address: usize,
        size: usize,
        offset: usize,
        write: bool,
        pc: usize,
    ) -> Result<Place, Flow> {
        let cta = offset / self.shared_stride;
        let within = offset % self.shared_stride;
        if within + size > self.shared_bytes {
            let verb = if write { "writes" } else { "reads" };
            let place = self.describe_address(address);
            let message = format!("{verb} {size} bytes at {place}");
            return Err(self.fatal(FindingKind::OutOfBounds, pc, message, 0));
        }
        self.visit_peer(cta, pc);
        Ok(Place::Shared { cta, offset })
    }

    /// The current thread touches shared memory of another block.
    pub(super) fn visit_peer(&mut self, cta: usize, pc: usize) {
        let tid = self.current;
        if cta == self.cta_of(tid) {
            return;
        }
        if self.ctas[cta].exited {
            self.finding(FindingKind::ExitedPeer, pc, 0, |c| {
                let [x, y, z] = c.ctas[cta].block;
                format!("accesses shared memory of block ({x}, {y}, {z}), which has exited")
            });
        }
        let first = cta * self.cta_stride as usize;
        let thread = &mut self.threads[tid as usize];
        if thread.peers_seen >> cta & 1 == 0 {
            let clocks = &thread.base.clocks;
            let known = clocks.iter().skip(first).take(self.cta_stride as usize);
            if known.copied().any(|clock| clock > 0) {
                thread.peers_seen |= 1 << cta;
            } else {
                self.finding(FindingKind::UnstartedPeer, pc, 0, |c| {
                    let [x, y, z] = c.ctas[cta].block;
                    format!(
                        "accesses shared memory of block ({x}, {y}, {z}) without a cluster barrier \
                         since the start, so that block may not have started"
                    )
                });
            }
        }
        let clock = self.threads[tid as usize].clock;
        self.ctas[cta].remote.insert(tid, (clock, pc));
    }

    /// A block's last thread has returned: nobody may still access its shared memory.
    pub(super) fn exit_cta(&mut self, cta: usize) {
        self.ctas[cta].exited = true;
        let remote = std::mem::take(&mut self.ctas[cta].remote);
        let first = cta * self.cta_stride as usize;
        let mut accesses: Vec<_> = remote.into_iter().collect();
        accesses.sort_unstable();
        for (tid, (clock, pc)) in accesses {
            let threads = &self.threads[first..first + self.cta_threads as usize];
            if !threads.iter().any(|thread| thread.base.get(tid) >= clock) {
                let exiting = self.current;
                let engine = (tid as usize).checked_sub(self.threads.len());
                self.current = engine.map_or(tid, |engine| self.issuer(engine));
                self.finding(FindingKind::ExitedPeer, pc, 0, |c| {
                    let [x, y, z] = c.ctas[cta].block;
                    let what = if engine.is_some() {
                        "starts a copy that uses"
                    } else {
                        "accesses"
                    };
                    format!(
                        "{what} shared memory of block ({x}, {y}, {z}), and nothing orders that \
                         before the block's exit"
                    )
                });
                self.current = exiting;
            }
        }
        self.exit_with_copies(cta);
    }

    /// Initialisation and happens-before of an access of the current thread.
    #[inline]
    pub(super) fn record(
        &mut self,
        place: Place,
        address: usize,
        size: usize,
        class: Class,
        pc: usize,
    ) {
        let (bits, offset): (*const AtomicU16, usize) = match place {
            Place::Shared { cta, offset } => {
                if !self.ctas[cta].mbarriers.is_empty() {
                    self.check_plain(cta, offset, size, pc);
                }
                (self.initialised.as_ptr(), offset)
            }
            Place::Global { bits, offset, .. } => (bits, offset),
            Place::ReadOnly => return,
        };
        if class != Class::Write && class != Class::AtomicWrite {
            // SAFETY: `locate` checked the bounds.
            if let Some(first) = unsafe { first_unmarked(bits, offset, size) } {
                self.uninitialised(address + (first - offset), address, size, pc);
            }
        } else {
            if class == Class::AtomicWrite {
                // SAFETY: as above.
                if let Some(first) = unsafe { first_unmarked(bits, offset, size) } {
                    self.uninitialised(address + (first - offset), address, size, pc);
                }
            }
            self.progress += 1;
            // SAFETY: as above.
            unsafe { mark(bits, offset, size) };
        }
        self.order(place, address, size, class, pc, None);
    }

    #[cold]
    pub(super) fn uninitialised(&mut self, first: usize, address: usize, size: usize, pc: usize) {
        self.finding(FindingKind::Uninitialised, pc, 0, |c| {
            let place = c.describe_address(address);
            let skipped = first - address;
            if skipped == 0 {
                format!("reads {size} bytes at {place}, which nobody has written")
            } else {
                format!(
                    "reads {size} bytes at {place}; from byte {skipped} on nobody has written them"
                )
            }
        });
    }

    #[inline]
    pub(super) fn count(
        &mut self,
        place: Place,
        address: usize,
        size: usize,
        write: bool,
        pc: usize,
    ) {
        let bytes = size as u64;
        let traffic = &mut self.counters.traffic;
        let space = match place {
            Place::Global { .. } => {
                if write {
                    traffic.global_store_bytes += bytes;
                } else {
                    traffic.global_load_bytes += bytes;
                }
                Space::Global
            }
            Place::Shared { cta, .. } if cta == (self.current / self.cta_stride) as usize => {
                if write {
                    traffic.shared_store_bytes += bytes;
                } else {
                    traffic.shared_load_bytes += bytes;
                }
                Space::Shared
            }
            Place::Shared { .. } => {
                if write {
                    traffic.distributed_store_bytes += bytes;
                } else {
                    traffic.distributed_load_bytes += bytes;
                }
                return;
            }
            Place::ReadOnly => return,
        };
        let index = self.current as usize / 32;
        let warp = &self.warps[index];
        let live = warp.exists & !warp.exited;
        let lane = self.current % 32;
        self.warp_traffic[index].add(
            &mut self.counters,
            space,
            write,
            lane,
            address,
            size,
            pc,
            live,
        );
    }

    /// An address in words.
    pub(super) fn describe_address(&self, address: usize) -> String {
        let offset = address.wrapping_sub(self.shared_start);
        if offset < self.shared_stride * self.ctas.len() {
            let [x, y, z] = self.ctas[offset / self.shared_stride].block;
            let within = offset % self.shared_stride;
            return format!(
                "offset {within} of the {} bytes of shared memory of block ({x}, {y}, {z})",
                self.shared_bytes
            );
        }
        if let Some(allocation) = self.run().heap().find(address) {
            let within = address - allocation.start;
            let len = allocation.len;
            if within < len {
                return format!("offset {within} of a buffer of {len} bytes");
            }
            if within < len + (1 << 30) {
                let past = within - len;
                return format!("{past} bytes past the end of a buffer of {len} bytes");
            }
        }
        if self.run().readable(address, 1) {
            return format!("{address:#x}, in read-only memory (parameters or constants)");
        }
        format!("{address:#x}, which is no memory of this launch")
    }
}
