//! What is tested: widths, types, ways to draw rows.

use evenkeel::DType;

/// Widths and what each is there for.
///
/// 1: nothing but eps. 2: the least with a spread. 7, 8, 9: around one 16-byte vector of bf16. 31: ragged
/// and within a warp. 64, 65, 128, 129, 3072, 3073, 6144, 6145: at and past the steps of a ladder of
/// threads a row. 100: a few vectors. 257: prime, rows at every alignment. 768, 1000, 4096: models'
/// widths, and one that no power of two divides far. 4099: prime, past the threads of a block.
pub const WIDTHS: [usize; 20] = [
    1, 2, 7, 8, 9, 31, 64, 65, 100, 128, 129, 257, 768, 1000, 3072, 3073, 4096, 4099, 6144, 6145,
];

/// Long rows, at and past what a block keeps, up to the longest: where clusters begin, and their sizes.
pub const LONG_WIDTHS: [usize; 9] = [
    16_384, 16_385, 32_768, 32_771, 65_536, 65_537, 131_072, 131_077, 262_144,
];

/// Lengths of heads: 1, a ragged one, one past a vector, those that models use.
pub const HEAD_WIDTHS: [usize; 8] = [2, 10, 18, 64, 80, 96, 128, 256];

/// Types of rows and weights.
pub const FLOATS: [DType; 3] = [DType::Bf16, DType::F16, DType::F32];

/// Types of positions.
pub const INTEGERS: [DType; 3] = [DType::I64, DType::I32, DType::U32];

/// Which forms of the calls compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Into memory of the caller's.
    Apart,
    /// Over the inputs, where the operation has such a form.
    InPlace,
    /// Into memory that the call allocates.
    Allocating,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Apart, Self::InPlace, Self::Allocating];
}

/// How the rows of a case are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Normal, of standard deviation 2.
    Normal,
    /// A common offset of 1e4 and a spread of a few units of its last place: mean(x^2) - mean(x)^2 has no
    /// digits there.
    Offset,
    /// All the same, 1e4: eps decides.
    Constant,
    /// All zero: eps decides.
    Zero,
    /// Squares overflow f32.
    Huge,
    /// Squares underflow f32, and eps is 0.
    Tiny,
    /// One element far above the rest.
    Spike,
    /// Magnitudes over 40 powers of two.
    Wide,
    /// Ascending: the means of any two parts of a row lie apart.
    Ascending,
}

impl Values {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Normal,
        Self::Offset,
        Self::Constant,
        Self::Zero,
        Self::Huge,
        Self::Tiny,
        Self::Spike,
        Self::Wide,
        Self::Ascending,
    ];
}

/// The type of every tensor of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named as the tensors are.
pub struct Types {
    pub x: DType,
    pub y: DType,
    pub residual: DType,
    pub stream: DType,
    pub z: DType,
    pub gamma: DType,
    pub beta: DType,
    pub tables: DType,
    pub dy: DType,
    pub dx: DType,
    pub dstream: DType,
    pub dresidual: DType,
    pub dz: DType,
}

impl Types {
    /// One type for everything.
    #[must_use]
    pub fn all(dtype: DType) -> Self {
        Self::from_digits(dtype, 0)
    }

    /// x in a type; the others' in base 3, counted from x's.
    #[must_use]
    pub fn from_digits(x: DType, mut digits: u64) -> Self {
        let first = FLOATS.iter().position(|&dtype| dtype == x).unwrap_or(0);
        let mut next = || {
            let digit = digits % 3;
            digits /= 3;
            FLOATS[(first + digit as usize) % 3]
        };
        Self {
            x,
            y: next(),
            residual: next(),
            stream: next(),
            z: next(),
            gamma: next(),
            beta: next(),
            tables: next(),
            dy: next(),
            dx: next(),
            dstream: next(),
            dresidual: next(),
            dz: next(),
        }
    }
}
