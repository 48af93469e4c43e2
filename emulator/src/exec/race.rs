//! Races: accesses that nothing orders.

use super::Cluster;
use super::access::Place;
use crate::clock::{Class, Epoch, class_of, cluster_of, tid_of};
use crate::report::FindingKind;
use crate::shadow::{self, Accessor, Conflict};

/// An asynchronous copy as the author of an access: its engine's place in clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Author {
    pub(super) tid: u32,
    pub(super) clock: u32,
}

impl Cluster {
    /// Checks an access against what happened to these bytes before, and records it.
    #[inline]
    pub(super) fn order(
        &mut self,
        place: Place,
        address: usize,
        size: usize,
        class: Class,
        pc: usize,
        author: Option<Author>,
    ) {
        let run = self.run();
        let thread = &self.threads[self.current as usize];
        let short_pc = run.short_pc(pc);
        let who = match author {
            None => Accessor {
                base: &thread.base,
                cluster: self.index,
                tid: self.current,
                clock: thread.clock,
                pc: short_pc,
                issuer: None,
            },
            Some(author) => Accessor {
                base: &thread.base,
                cluster: self.index,
                tid: author.tid,
                clock: author.clock,
                pc: short_pc,
                issuer: Some((self.current, thread.clock)),
            },
        };
        // SAFETY: `locate` checked the bounds; shared memory belongs to this cluster alone, and
        // granules of global memory are locked where several workers run.
        let conflict = unsafe {
            match place {
                Place::Shared { offset, .. } => shadow::access(
                    self.granules.as_mut_ptr(),
                    self.generation,
                    false,
                    &mut self.store,
                    offset,
                    size,
                    class,
                    &who,
                ),
                Place::Global {
                    granules, offset, ..
                } => shadow::access(
                    granules,
                    run.generation,
                    run.locked,
                    &mut self.global_store,
                    offset,
                    size,
                    class,
                    &who,
                ),
                Place::ReadOnly => None,
            }
        };
        if let Some(conflict) = conflict {
            self.race(conflict, address, size, class, pc, author.is_some());
        }
    }

    #[cold]
    fn race(
        &mut self,
        c: Conflict,
        address: usize,
        size: usize,
        class: Class,
        pc: usize,
        copy: bool,
    ) {
        let other = self.run().long_pc(c.earlier_pc);
        let verb = match (copy, class) {
            (false, Class::Read) => "reads",
            (false, Class::Write) => "writes",
            (false, _) => "accesses atomically",
            (true, Class::Write) => "starts a copy that writes",
            (true, _) => "starts a copy that reads",
        };
        let done = match class_of(c.earlier) {
            Class::Read => "read",
            Class::Write => "written",
            _ => "accessed atomically",
        };
        self.finding(FindingKind::Race, pc, other, |cluster| {
            format!(
                "{verb} {size} bytes at {}, {done} by {}{{at}}; nothing orders the two",
                cluster.describe_address(address),
                cluster.describe_author(c.earlier),
            )
        });
    }

    /// Who an epoch belongs to, in words.
    pub(super) fn describe_author(&self, e: Epoch) -> String {
        let tid = tid_of(e) as usize;
        let run = self.run();
        if cluster_of(e) == self.index {
            if tid < self.threads.len() {
                return self.name(tid as u32);
            }
            let issuer = self.issuer(tid - self.threads.len());
            return format!("an asynchronous copy of {}", self.name(issuer));
        }
        run.name_foreign(cluster_of(e), tid as u32)
    }
}
