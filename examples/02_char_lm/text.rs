//! Text as numbered characters, cut into three parts, and targets that may be wrong.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::random::Random;

/// Characters that the model sees before the one it predicts.
pub const CONTEXT: usize = 8;
/// Characters of one block; whole blocks go to one part.
const BLOCK: usize = 500;
/// Fewer characters give parts too small to say anything.
const SHORTEST: usize = 20_000;
/// More characters than the training steps could visit would only cost memory.
const LONGEST: usize = 4_000_000;
/// Classes, the one for rare characters included. Scripts with more characters lose the rare ones.
const MOST_CLASSES: usize = 256;

/// A text whose characters are numbered by how common they are.
pub struct Text {
    ids: Vec<u32>,
    /// The number of classes. The last one stands for all characters too rare to have their own.
    pub classes: usize,
}

/// Characters to predict: where they are, and what the target is there.
#[derive(Clone)]
pub struct Part {
    positions: Vec<usize>,
    pub targets: Vec<u32>,
}

/// Text for the warm start, for training, and held out.
pub struct Parts {
    pub earlier: Part,
    pub training: Part,
    pub held_out: Part,
}

/// The file's text, or this package's own documents and documented sources.
pub fn read(file: Option<&Path>) -> Result<String, String> {
    match file {
        Some(path) => read_file(path),
        None => read_own(),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        format!("{} is not UTF-8 text, from byte {at} on", path.display())
    })
}

fn read_own() -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["src", "kernels"] {
        walk(&root.join(folder), &mut files).map_err(|e| {
            format!(
                "cannot list {}/{folder}: {e}; give a text file as argument",
                root.display()
            )
        })?;
    }
    files.iter().map(|path| read_file(path)).collect()
}

/// Adds the files below `folder`, in the order of their names.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

impl Text {
    pub fn new(text: &str) -> Result<Text, String> {
        let characters: Vec<char> = text.chars().take(LONGEST).collect();
        if characters.len() < SHORTEST {
            return Err(format!(
                "the text has {} characters; at least {SHORTEST} are needed",
                characters.len()
            ));
        }
        let mut counts: HashMap<char, usize> = HashMap::new();
        for &character in &characters {
            *counts.entry(character).or_default() += 1;
        }
        let mut common: Vec<(char, usize)> = counts.into_iter().collect();
        common.sort_by_key(|&(character, count)| (std::cmp::Reverse(count), character));
        common.truncate(MOST_CLASSES - 1);
        let numbers: HashMap<char, u32> = common.iter().map(|&(c, _)| c).zip(0..).collect();
        let rare = numbers.len() as u32;
        let id = |character| numbers.get(character).copied().unwrap_or(rare);
        Ok(Text {
            ids: characters.iter().map(id).collect(),
            classes: numbers.len() + 1,
        })
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The characters before example `index` of a part.
    pub fn context(&self, part: &Part, index: usize) -> &[u32] {
        let position = part.positions[index];
        &self.ids[position - CONTEXT..position]
    }

    /// Cuts the text into blocks and deals them out at random: 60% for the warm start, 25% for
    /// training, the rest held out.
    pub fn split(&self, random: &mut Random) -> Parts {
        let mut blocks: Vec<usize> = (0..self.ids.len() / BLOCK).collect();
        random.shuffle(&mut blocks);
        let (earlier, rest) = blocks.split_at(blocks.len() * 60 / 100);
        let (training, held_out) = rest.split_at(blocks.len() * 25 / 100);
        Parts {
            earlier: self.part(earlier),
            training: self.part(training),
            held_out: self.part(held_out),
        }
    }

    /// The examples whose context lies in the same block.
    fn part(&self, blocks: &[usize]) -> Part {
        let starts = blocks.iter().map(|block| block * BLOCK);
        let positions: Vec<usize> = starts.flat_map(|at| at + CONTEXT..at + BLOCK).collect();
        let targets = positions.iter().map(|&at| self.ids[at]).collect();
        Part { positions, targets }
    }
}

impl Part {
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// The part with a share of its targets replaced by those of other places, drawn at random: the
    /// wrong ones are as common as the right ones, so that frequency does not tell them apart.
    pub fn corrupted(&self, share: f64, random: &mut Random) -> Part {
        let mut part = self.clone();
        for target in &mut part.targets {
            if random.unit() < share {
                *target = self.targets[random.below(self.targets.len())];
            }
        }
        part
    }
}
