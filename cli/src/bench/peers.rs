//! Other software at the same work: a Python script run as a child, asked in one line of JSON and
//! answering in lines of JSON.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{Peer, Row, Times};

#[derive(Serialize)]
struct Request {
    repetitions: usize,
    cases: Vec<Value>,
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

/// The folder of the scripts: the bundle's, or the repository's.
fn folder() -> PathBuf {
    std::env::var_os("EVENKEEL_PEERS_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/peers")),
        PathBuf::from,
    )
}

/// Adds the peers' times to the rows that `question` has a question for; one that several rows have in
/// common is asked once. What could not be measured is told.
pub fn measure(
    script: &str,
    rows: &mut [Row],
    repetitions: usize,
    question: impl Fn(&Row) -> Option<Value>,
) -> Vec<String> {
    let questions: Vec<Option<Value>> = rows.iter().map(question).collect();
    let mut cases: Vec<Value> = Vec::new();
    for asked in questions.iter().flatten() {
        if !cases.contains(asked) {
            cases.push(asked.clone());
        }
    }
    if cases.is_empty() {
        return Vec::new();
    }
    let request = Request { repetitions, cases };
    let answers = serde_json::to_string(&request)
        .map_err(|error| error.to_string())
        .and_then(|request| run(&folder().join(script), &request))
        .and_then(|text| answers(&text));
    match answers {
        Ok(answers) => spread(rows, &questions, &request.cases, answers),
        Err(reason) => vec![format!("peers of {script} skipped: {reason}")],
    }
}

fn answers(text: &str) -> Result<Vec<Answer>, String> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| {
            serde_json::from_str(line)
                .map_err(|error| format!("an answer is no JSON: {error}: {line}"))
        })
        .collect()
}

/// Gives each row the answers to its question; what was skipped in words, each reason once.
fn spread(
    rows: &mut [Row],
    questions: &[Option<Value>],
    cases: &[Value],
    answers: Vec<Answer>,
) -> Vec<String> {
    let mut skipped: Vec<(String, Vec<String>)> = Vec::new();
    for answer in answers {
        let asked = answer.case.and_then(|case| cases.get(case));
        let mut of_it = rows
            .iter_mut()
            .zip(questions)
            .filter(|(_, question)| asked.is_some() && question.as_ref() == asked)
            .map(|(row, _)| row);
        if let Some(reason) = answer.skipped {
            let at = of_it.next().map(|row| row.key());
            let reason = format!("{} skipped: {reason}", answer.name);
            match skipped.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, places)) => places.extend(at),
                None => skipped.push((reason, at.into_iter().collect())),
            }
        } else if let Some(us) = Times::of(answer.us) {
            for row in of_it {
                row.peers.push(Peer {
                    name: answer.name.clone(),
                    version: answer.version.clone(),
                    us,
                });
            }
        }
    }
    skipped
        .into_iter()
        .map(|(reason, places)| match places.as_slice() {
            [] => reason,
            [place] => format!("{reason} (at {place})"),
            [place, rest @ ..] => format!("{reason} (at {place} and {} others)", rest.len()),
        })
        .collect()
}

fn run(script: &Path, request: &str) -> Result<String, String> {
    let python = std::env::var("EVENKEEL_PYTHON").unwrap_or_else(|_| "python3".into());
    if !script.is_file() {
        return Err(format!(
            "{} is not there; EVENKEEL_PEERS_DIR says where it is",
            script.display()
        ));
    }
    let mut child = Command::new(&python)
        // No compiled copy of what the scripts share beside them.
        .arg("-B")
        .arg(script)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_find_their_rows_and_reasons_are_told_once() {
        let mut rows: Vec<Row> = ["a", "b", "c"]
            .map(|variant| Row {
                op: "norm".into(),
                variant: variant.into(),
                ..Row::default()
            })
            .to_vec();
        let cases = [json!({"width": 1}), json!({"width": 2})];
        let questions = [Some(cases[0].clone()), Some(cases[1].clone()), None];
        let text = r#"a warning
            {"case": 0, "name": "torch", "version": "2", "us": [3.0, 1.0, 2.0]}
            {"case": 0, "name": "liger", "skipped": "why"}
            {"case": 1, "name": "liger", "skipped": "why"}
            {"case": null, "name": "quack", "skipped": "not installed"}"#
            .replace("            ", "");
        let notes = spread(&mut rows, &questions, &cases, answers(&text).unwrap());
        assert_eq!(rows[0].peers.len(), 1);
        assert_eq!(rows[0].peers[0].us.median, 2.0);
        assert!(rows[1].peers.is_empty() && rows[2].peers.is_empty());
        assert_eq!(
            notes,
            [
                "liger skipped: why (at norm a 0x0  and 1 others)",
                "quack skipped: not installed"
            ]
        );
        assert!(answers("{").is_err());
    }

    #[test]
    fn nothing_is_run_for_rows_without_a_question() {
        let mut rows = [Row::default()];
        assert!(measure("none.py", &mut rows, 1, |_| None).is_empty());
        let notes = measure("none.py", &mut rows, 1, |_| Some(json!(1)));
        assert!(notes[0].contains("none.py"), "{notes:?}");
    }

    #[test]
    fn the_scripts_are_there() {
        for script in ["cross_entropy.py", "norm.py", "quant.py", "protocol.py"] {
            assert!(folder().join(script).is_file(), "{script}");
        }
    }
}
