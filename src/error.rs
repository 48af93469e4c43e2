//! What can go wrong, in words that say what to do about it.

use std::fmt;

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong. Nothing in this crate panics on what a caller passes in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument that does not fit: a shape, a type, a device, an option.
    #[error("{op}: `{argument}` should be {expected}, but is {got}")]
    Argument {
        /// The operation that was asked for.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What it should have been.
        expected: String,
        /// What it was.
        got: String,
    },
    /// A combination that this device or build does not do.
    #[error("{op} does not support {what}; {remedy}")]
    Unsupported {
        /// The operation that was asked for.
        op: &'static str,
        /// What is not supported.
        what: String,
        /// What to do instead.
        remedy: String,
    },
    /// The kernels were not compiled into this program.
    #[error("this build has no kernels for the device: {reason}")]
    NotBuilt {
        /// Why they were not compiled, and how to have them.
        reason: String,
    },
    /// There is no CUDA driver here.
    #[error("no CUDA driver found ({tried}); install NVIDIA's driver, or use Device::cpu()")]
    NoDriver {
        /// What was looked for.
        tried: String,
    },
    /// A call to the CUDA driver failed.
    #[error("{call} failed with CUDA error {code} ({name})")]
    Cuda {
        /// The driver's function.
        call: &'static str,
        /// The driver's code.
        code: u32,
        /// The driver's name for the code.
        name: String,
    },
    /// The device has no such block of memory left.
    #[error("out of memory: {bytes} bytes could not be allocated")]
    OutOfMemory {
        /// The bytes that were asked for.
        bytes: u64,
    },
    /// Kernels met data that they cannot use; [`Stream::check`](crate::Stream::check) reports it.
    #[error("the data given to an earlier operation on this stream was faulty: {0}")]
    Data(Status),
    /// The emulator found faults in a kernel, or a read of memory that nothing wrote.
    #[error("the emulator found faults in {kernel}:\n{}", findings.join("\n"))]
    Findings {
        /// The kernel, or the host operation, that was at fault.
        kernel: String,
        /// What was found, one line each.
        findings: Vec<String>,
    },
}

impl Error {
    /// An [`Error::Argument`].
    pub(crate) fn argument(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Error {
        Error::Argument {
            op,
            argument,
            expected: expected.into(),
            got: got.into(),
        }
    }

    /// An [`Error::Unsupported`].
    pub(crate) fn unsupported(
        op: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Error {
        Error::Unsupported {
            op,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// What operations found wrong with their data, gathered on the device.
///
/// A kernel that meets a target outside the vocabulary or a row of NaN goes on (its documentation
/// says with what result) and sets a bit in its stream's status word.
/// [`Stream::check`](crate::Stream::check) reads and clears the word when the caller asks.
///
/// ```
/// use evenkeel::Status;
/// let status = Status::TARGET_OUT_OF_RANGE | Status::SATURATED;
/// assert!(status.contains(Status::SATURATED));
/// assert!(status.to_string().starts_with("a target is outside the vocabulary"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Status(u32);

impl Status {
    /// A target is neither `ignore_index` nor in `0..vocab`.
    pub const TARGET_OUT_OF_RANGE: Status = Status(1);
    /// A row of logits holds NaN or +inf, or no class that is neither masked nor -inf.
    pub const NON_FINITE_ROW: Status = Status(2);
    /// A target's class is masked, or its logit is -inf.
    pub const TARGET_MASKED: Status = Status(4);
    /// A value left the range of its type and was held at its end.
    pub const SATURATED: Status = Status(8);
    /// The offsets of the sequences do not ascend within the tokens.
    pub const BAD_SEQUENCE_OFFSETS: Status = Status(16);
    /// A position is outside the tables of a rotary embedding.
    pub const POSITION_OUT_OF_RANGE: Status = Status(32);
    /// A weight's largest singular value was found to be 0: nothing can be divided by it.
    pub const ZERO_SIGMA: Status = Status(64);
    /// A block of 4-bit values holds NaN or an infinity, which they cannot say: its scale is NaN.
    pub const NON_FINITE_BLOCK: Status = Status(128);
    /// The offsets of groups of rows do not ascend within the rows.
    pub const BAD_GROUP_OFFSETS: Status = Status(256);
    /// A group of rows begins or ends inside a byte of two values, or inside a rotation's block.
    pub const RAGGED_GROUP: Status = Status(512);

    /// The bits and what they mean: the one list.
    const MEANINGS: [(Status, &'static str, &'static str); 10] = [
        (
            Status::TARGET_OUT_OF_RANGE,
            "TARGET_OUT_OF_RANGE",
            "a target is outside the vocabulary and is not ignore_index",
        ),
        (
            Status::NON_FINITE_ROW,
            "NON_FINITE_ROW",
            "a row holds NaN or +inf, or no class that is neither masked nor -inf",
        ),
        (
            Status::TARGET_MASKED,
            "TARGET_MASKED",
            "a target's class is masked, or its logit is -inf",
        ),
        (
            Status::SATURATED,
            "SATURATED",
            "a value left the range of its type and was held at its end",
        ),
        (
            Status::BAD_SEQUENCE_OFFSETS,
            "BAD_SEQUENCE_OFFSETS",
            "the offsets of the sequences do not ascend within the tokens",
        ),
        (
            Status::POSITION_OUT_OF_RANGE,
            "POSITION_OUT_OF_RANGE",
            "a position is outside the tables of a rotary embedding",
        ),
        (
            Status::ZERO_SIGMA,
            "ZERO_SIGMA",
            "a weight's largest singular value was found to be 0",
        ),
        (
            Status::NON_FINITE_BLOCK,
            "NON_FINITE_BLOCK",
            "a block of 4-bit values holds NaN or an infinity, and its scale is NaN",
        ),
        (
            Status::BAD_GROUP_OFFSETS,
            "BAD_GROUP_OFFSETS",
            "the offsets of groups of rows do not ascend within the rows",
        ),
        (
            Status::RAGGED_GROUP,
            "RAGGED_GROUP",
            "a group of rows begins or ends inside a byte of two values or a rotation's block",
        ),
    ];

    /// No bit set.
    pub const fn empty() -> Status {
        Status(0)
    }

    /// The status with these bits.
    pub const fn from_bits(bits: u32) -> Status {
        Status(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether nothing was found.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Status) -> bool {
        self.0 & other.0 == other.0
    }

    /// `Ok` when nothing was found, [`Error::Data`] otherwise.
    pub(crate) fn into_result(self) -> Result<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Error::Data(self))
        }
    }
}

impl std::ops::BitOr for Status {
    type Output = Status;
    fn bitor(self, other: Status) -> Status {
        Status(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Status {
    fn bitor_assign(&mut self, other: Status) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing to report");
        }
        let mut unknown = self.0;
        let mut separator = "";
        for (bit, _, meaning) in Status::MEANINGS {
            if self.contains(bit) {
                write!(f, "{separator}{meaning}")?;
                separator = "; ";
                unknown &= !bit.0;
            }
        }
        if unknown != 0 {
            write!(f, "{separator}unknown bits {unknown:#x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<String> = Vec::new();
        let mut unknown = self.0;
        for (bit, name, _) in Status::MEANINGS {
            if self.contains(bit) {
                names.push(name.into());
                unknown &= !bit.0;
            }
        }
        if unknown != 0 {
            names.push(format!("{unknown:#x}"));
        }
        write!(f, "Status({})", names.join(" | "))
    }
}
