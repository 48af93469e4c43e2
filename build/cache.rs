//! Compiled objects, each under the hash of everything that went into it. The cache lies in cargo's
//! target directory rather than in OUT_DIR, because build, test, clippy, doc and package have an
//! OUT_DIR each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime};

use super::{nvcc, sha256};

/// Objects that no build used for so long are removed.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// The cache of the target directory that `out_dir` is in; one of its own where there is none.
    pub fn open(out_dir: &Path) -> io::Result<Self> {
        let parent = nvcc::target_directory(out_dir).unwrap_or_else(|| out_dir.to_path_buf());
        let directory = parent.join("evenkeel-kernels");
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    /// Where the object made from `ingredients` belongs, and whether it is there.
    pub fn entry(&self, ingredients: &Ingredients, extension: &str) -> Entry {
        let key = sha256::hex(&ingredients.bytes);
        Entry {
            object: self.directory.join(format!("{}.{extension}", &key[..40])),
        }
    }

    /// Removes what has not been used for a month. Failures do not matter: the next build tries
    /// again.
    pub fn prune(&self) {
        let Some(oldest) = SystemTime::now().checked_sub(KEPT) else {
            return;
        };
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|modified| modified < oldest) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// What an object depends on, length by length so that no two lists run into each other.
#[derive(Default)]
pub struct Ingredients {
    bytes: Vec<u8>,
}

impl Ingredients {
    pub fn add(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.bytes
            .extend_from_slice(&(part.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(part);
        self
    }
}

/// An object and the compiler's log beside it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub object: PathBuf,
}

impl Entry {
    pub fn log(&self) -> PathBuf {
        self.object.with_extension("log")
    }

    /// The log of an object that is there. Marks both as used.
    pub fn lookup(&self) -> Option<String> {
        let log = fs::read_to_string(self.log()).ok()?;
        for path in [&self.object, &self.log()] {
            let file = fs::File::options().append(true).open(path).ok()?;
            let _ = file.set_modified(SystemTime::now());
        }
        Some(log)
    }

    /// A name in the same folder for the compiler to write to: another build may be making the same
    /// object.
    pub fn scratch(&self) -> PathBuf {
        self.object.with_extension(format!("{}.tmp", process::id()))
    }

    /// Makes a finished scratch object the entry. The log comes last: an entry counts once it has
    /// one.
    pub fn store(&self, log: &str) -> io::Result<()> {
        fs::rename(self.scratch(), &self.object)?;
        let scratch = self.scratch();
        fs::write(&scratch, log)?;
        fs::rename(scratch, self.log())
    }
}
