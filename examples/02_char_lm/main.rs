//! Which objective suits which training: a small character model, trained on real text.
//!
//!     cargo run --release --example 02_char_lm -- [FILE] [--corrupted SHARE] [--device D] [--seed N]
//!
//! "Beyond Log Likelihood" (arXiv 2510.00526) orders tasks along a model-capability continuum. Where
//! the model's prior is weak, the negative log-likelihood is hard to beat: it learns most from what
//! the model did not expect. Where the prior is strong and the targets are noisy, objectives that
//! lean on the prior win: they learn least from what the model did not expect, which is where the
//! wrong targets are.
//!
//! Here each objective trains the same model on the same examples in the same order, with the same
//! optimizer and schedule, four times: from scratch and from a warm start (a model trained before on
//! other parts of the text), with the targets as they are and with a share of them replaced by
//! characters from elsewhere. What counts is the held-out text, which is always clean. Adam's steps
//! do not depend on the gradient's size, so objectives with small gradients take no smaller steps,
//! unless they fall below its epsilon, as those of Power(10) do from scratch.
//!
//! What to look for in the table:
//! - from scratch, where the prior knows nothing: whether anything but Nll has the lowest cross
//!   entropy, and how little is learnt by what counts only the tokens that the model already
//!   believes in (thresholds, Power(10));
//! - from the warm start with wrong targets: which objectives fall below the model they began with,
//!   those that chase what it did not expect (Nll, Focal, Power(-0.5)) or those that lean on it
//!   (Power(0.5), Deft, Linear, the threshold);
//! - that leaning on the prior also sharpens it: accuracy gained is often paid for in cross entropy.
//!   A prior can be too weak to lean on as far as Power(10) does.
//!
//! The text is the file's, or this package's own documents and sources. Everything that is random
//! follows from the seed.

mod arguments;
mod model;
mod random;
mod table;
mod text;
mod train;

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use evenkeel::loss::{Criterion, Objective};

use arguments::Arguments;
use model::Model;
use random::{Purpose, Random};
use table::Table;
use text::{Part, Text};
use train::{Schedule, Score, score, train};

/// Of the first step of every run; it falls to 0 along a line. Of 3e-4, 1e-3, 2e-3 and 4e-3, the
/// slow ones hardly move a warm start, so that nothing can be told apart.
const LEARNING_RATE: f32 = 3e-3;
/// Steps of the model for the warm start, for each step of the runs that start from it.
const EARLIER: usize = 8;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => match experiment(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Ok(None) => match say(arguments::USAGE) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => fail(&format!("{error}\n\n{}", arguments::USAGE.trim_end()), 2),
    }
}

fn fail(error: &str, code: u8) -> ExitCode {
    // If the message cannot be written either, the exit status is all that is left.
    let _ = writeln!(std::io::stderr(), "02_char_lm: {error}");
    ExitCode::from(code)
}

/// Prints; a reader that has gone away, such as `head`, is no error.
fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write the output: {error}"))
        }
        _ => Ok(()),
    }
}

fn experiment(arguments: &Arguments) -> Result<(), String> {
    let device = arguments.device()?;
    let text = Text::new(&text::read(arguments.file.as_deref())?)?;
    let random = |purpose| Random::new(arguments.seed, purpose);
    let parts = text.split(&mut random(Purpose::Split));
    let training = &parts.training;
    let corrupted = &training.corrupted(arguments.corrupted, &mut random(Purpose::Corruption));
    say(&format!(
        "{}: {} characters, {} classes; {} examples to train on, {} held out\n",
        device.name(),
        text.len(),
        text.classes,
        training.len(),
        parts.held_out.len()
    ))?;

    let run = |task: Task| -> Result<(Model, Score), String> {
        let mut model = task.start.warm_start();
        let order = &mut random(Purpose::Order);
        train(
            &device,
            &mut model,
            &text,
            task.part,
            task.criterion,
            Schedule {
                steps: task.steps,
                learning_rate: LEARNING_RATE,
            },
            order,
        )
        .and_then(|()| score(&device, &mut model, &text, &parts.held_out))
        .map(|score| (model, score))
        .map_err(|error| format!("{}: {error}", task.criterion))
    };
    let fresh = Model::new(text.classes, &mut random(Purpose::Model));
    let criteria = &arguments.criteria;
    let tasks = |start| {
        let criteria = criteria.iter();
        criteria.flat_map(move |&criterion| {
            [training, corrupted].map(|part| Task {
                start,
                part,
                criterion,
                steps: arguments.steps,
            })
        })
    };
    // The model for the warm start is trained beside the runs from scratch.
    let earlier = Task {
        start: &fresh,
        part: &parts.earlier,
        criterion: Objective::Nll.into(),
        steps: EARLIER * arguments.steps,
    };
    let progress = Progress::new(1 + 4 * arguments.criteria.len());
    let first = in_parallel(
        std::iter::once(earlier).chain(tasks(&fresh)),
        &run,
        &progress,
    )?;
    let Some(((warm, warm_score), from_scratch)) = first.split_first() else {
        return Err("there was nothing to run".into());
    };
    let from_warm = in_parallel(tasks(warm), &run, &progress)?;

    let scores = from_scratch.chunks(2).zip(from_warm.chunks(2));
    let rows = arguments
        .criteria
        .iter()
        .zip(scores)
        .map(|(criterion, (scratch, warm))| {
            let scores = [&scratch[0], &scratch[1], &warm[0], &warm[1]].map(|(_, score)| *score);
            (criterion.to_string(), scores)
        });
    let fresh_score = score(&device, &mut fresh.clone(), &text, &parts.held_out)
        .map_err(|error| error.to_string())?;
    let table = Table {
        corrupted: arguments.corrupted,
        held_out: parts.held_out.len(),
        before: [fresh_score, *warm_score],
        rows: rows.collect(),
    };
    say(&table.to_string())
}

/// One training run.
struct Task<'a> {
    start: &'a Model,
    part: &'a Part,
    criterion: Criterion,
    steps: usize,
}

/// Runs each task on one of as many threads as there are cores; the results are in the tasks' order.
fn in_parallel<'a, T: Send>(
    tasks: impl Iterator<Item = Task<'a>> + Send,
    run: &(impl Fn(Task<'a>) -> Result<T, String> + Sync),
    progress: &Progress,
) -> Result<Vec<T>, String> {
    let tasks = Mutex::new(tasks.enumerate());
    let next = || tasks.lock().ok().and_then(|mut tasks| tasks.next());
    let work = || {
        let mut done = Vec::new();
        while let Some((at, task)) = next() {
            done.push((at, run(task)?));
            progress.advance();
        }
        Ok(done)
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let done: Result<Vec<_>, String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined
            .map(|done| done.unwrap_or_else(|_| Err("a thread of the training panicked".into())))
            .collect()
    });
    let mut done: Vec<_> = done?.into_iter().flatten().collect();
    done.sort_by_key(|&(at, _)| at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Says on a terminal how many runs are done.
struct Progress {
    done: AtomicUsize,
    runs: usize,
}

impl Progress {
    fn new(runs: usize) -> Progress {
        Progress {
            done: AtomicUsize::new(0),
            runs,
        }
    }

    fn advance(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let mut terminal = std::io::stderr();
        if terminal.is_terminal() {
            let end = if done == self.runs { "\r\x1b[K" } else { "" };
            let _ = write!(terminal, "\r{done} of {} runs{end}", self.runs);
        }
    }
}
