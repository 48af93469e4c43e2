//! Other software at the same work: a Python script run as a child, asked in one line of JSON and
//! answering in lines of JSON.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::record::{Peer, Row, ShapeOf, Times};

#[derive(Serialize)]
struct Request {
    repetitions: usize,
    cases: Vec<Case>,
}

#[derive(Serialize)]
struct Case {
    tokens: usize,
    vocab: usize,
    dtype: String,
    backward: bool,
}

#[derive(Deserialize)]
struct Answer {
    case: Option<usize>,
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    us: Vec<f64>,
    skipped: Option<String>,
}

/// The folder that holds benches/: the repository's, or the bundle's.
fn root() -> PathBuf {
    std::env::var_os("EVENKEEL_ROOT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
        PathBuf::from,
    )
}

/// Adds the peers' times to the rows of cross entropy. What could not be measured is told.
pub fn measure(rows: &mut [Row], repetitions: usize) -> Vec<String> {
    match ask(rows, repetitions) {
        Ok(notes) => notes,
        Err(reason) => vec![format!("peers skipped: {reason}")],
    }
}

fn ask(rows: &mut [Row], repetitions: usize) -> Result<Vec<String>, String> {
    // One question for each size, type and direction; every mode of ours is compared with it.
    let key = |row: &Row| {
        (
            row.shape,
            row.dtype.clone(),
            !row.variant.contains(" forward") || row.variant.contains("backward"),
        )
    };
    let mut keys = Vec::new();
    for row in rows.iter().filter(|row| row.variant.starts_with("nll ")) {
        if !keys.contains(&key(row)) {
            keys.push(key(row));
        }
    }
    let cases = keys
        .iter()
        .map(|(ShapeOf { tokens, vocab }, dtype, backward)| Case {
            tokens: *tokens,
            vocab: *vocab,
            dtype: dtype.clone(),
            backward: *backward,
        })
        .collect();
    let request = serde_json::to_string(&Request { repetitions, cases })
        .map_err(|error| error.to_string())?;
    let text = run(&request)?;
    let mut notes = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let answer: Answer = serde_json::from_str(line)
            .map_err(|error| format!("an answer is no JSON: {error}: {line}"))?;
        if let Some(reason) = answer.skipped {
            let at = answer.case.and_then(|case| keys.get(case));
            let at = at.map_or(String::new(), |(shape, dtype, _)| {
                format!(" at {}x{} {dtype}", shape.tokens, shape.vocab)
            });
            notes.push(format!("{} skipped{at}: {reason}", answer.name));
            continue;
        }
        let (Some(asked), Some(us)) = (
            answer.case.and_then(|case| keys.get(case)),
            Times::of(answer.us),
        ) else {
            continue;
        };
        for row in rows
            .iter_mut()
            .filter(|row| row.variant.starts_with("nll ") && key(row) == *asked)
        {
            row.peers.push(Peer {
                name: answer.name.clone(),
                version: answer.version.clone(),
                us,
            });
        }
    }
    Ok(notes)
}

fn run(request: &str) -> Result<String, String> {
    let python = std::env::var("EVENKEEL_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = root().join("benches/peers/cross_entropy.py");
    if !script.is_file() {
        return Err(format!(
            "{} is not there; EVENKEEL_ROOT says where benches/ is",
            script.display()
        ));
    }
    let mut child = Command::new(&python)
        .arg(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| {
            format!("{python} does not run: {error} (EVENKEEL_PYTHON names another)")
        })?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(request.as_bytes())
            .map_err(|error| format!("the script stopped listening: {error}"))?;
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{} ended with {}", script.display(), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
