//! The codes shared with `include/cuda_emulator/shim.h`.

#![allow(missing_docs, clippy::enum_variant_names)]

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub(crate) enum $name { $($variant),* }

        impl $name {
            const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The code sent by the headers; an unknown one can only come from a header of
            /// another version and is taken as the first.
            pub(crate) fn from_code(code: u32) -> $name {
                Self::ALL.get(code as usize).copied().unwrap_or(Self::ALL[0])
            }

            #[cfg(test)]
            pub(crate) fn names() -> Vec<&'static str> {
                vec![$(stringify!($variant)),*]
            }
        }
    };
}

codes!(WarpOp {
    Syncwarp,
    Shuffle,
    ShuffleUp,
    ShuffleDown,
    ShuffleXor,
    Ballot,
    All,
    Any,
    MatchAny,
    MatchAll,
    ReduceAdd,
    ReduceMinU,
    ReduceMaxU,
    ReduceMinS,
    ReduceMaxS,
    ReduceAnd,
    ReduceOr,
    ReduceXor,
    Elect,
    Activemask
});
codes!(BarrierOp {
    Syncthreads,
    SyncthreadsCount,
    SyncthreadsAnd,
    SyncthreadsOr,
    BarSync,
    BarArrive
});
codes!(ClusterOp {
    ClusterArrive,
    ClusterWait
});
codes!(MbarrierOp {
    Init,
    Inval,
    Arrive,
    ArriveExpectTx,
    ExpectTx,
    ArriveRemote,
    ArriveRemoteExpectTx,
    TryWaitParity,
    TestWaitParity
});
codes!(FenceOp {
    FenceCta,
    FenceCluster,
    FenceGpu,
    FenceSys,
    FenceProxyAsync,
    FenceMbarrierInit
});
codes!(AtomicOp {
    Load,
    Store,
    Exchange,
    Cas,
    Add,
    Sub,
    And,
    Or,
    Xor,
    MinS,
    MaxS,
    MinU,
    MaxU,
    Inc,
    Dec,
    AddF32,
    AddF64,
    Nand
});
codes!(Order {
    Relaxed,
    Acquire,
    Release,
    AcqRel
});
codes!(Scope {
    ScopeCta,
    ScopeCluster,
    ScopeGpu,
    ScopeSys
});
codes!(CopyOp {
    CpAsync,
    BulkGlobalToShared,
    BulkMulticast,
    BulkSharedToGlobal,
    BulkSharedToShared,
    StAsync
});
codes!(GroupOp {
    CpCommit,
    CpWait,
    CpMbarrierArrive,
    CpMbarrierArriveNoinc,
    BulkCommit,
    BulkWait,
    BulkWaitRead
});

codes!(Element {
    Bf16,
    F16,
    E4m3,
    E5m2
});
codes!(MatrixOp {
    LoadMatrix,
    LoadMatrixTranspose,
    StoreMatrix,
    StoreMatrixTranspose
});
codes!(TensorOp {
    TensorLoad,
    TensorMulticast,
    TensorStore,
    TensorReduceAdd
});
codes!(WgmmaOp {
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait
});

/// Flags of an access hook (shim/hooks.cc).
pub(crate) const WRITE: u32 = 1;
pub(crate) const UNALIGNED: u32 = 2;
pub(crate) const RANGE: u32 = 4;
pub(crate) const VOLATILE: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_lists_the_same_codes() {
        let header = include_str!("../../include/cuda_emulator/shim.h");
        for (name, ours) in [
            ("Warp", WarpOp::names()),
            ("Barrier", BarrierOp::names()),
            ("Cluster", ClusterOp::names()),
            ("Mbarrier", MbarrierOp::names()),
            ("Fence", FenceOp::names()),
            ("Atomic", AtomicOp::names()),
            ("Order", Order::names()),
            ("Scope", Scope::names()),
            ("Copy", CopyOp::names()),
            ("Group", GroupOp::names()),
            ("Element", Element::names()),
            ("Matrix", MatrixOp::names()),
            ("Tensor", TensorOp::names()),
            ("Wgmma", WgmmaOp::names()),
        ] {
            let start = format!("enum {name} : uint32_t {{");
            let body = header
                .split(&start)
                .nth(1)
                .and_then(|rest| rest.split('}').next());
            let theirs: Vec<&str> = body
                .map(|text| {
                    text.split(',')
                        .map(|word| word.trim().trim_start_matches('k'))
                        .collect()
                })
                .unwrap_or_default();
            assert_eq!(theirs, ours, "{name}");
        }
    }
}
