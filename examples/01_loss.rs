//! A loss and its gradient, on the best device there is: `cargo run --release --example 01_loss`.

use evenkeel::Device;
use evenkeel::loss::{Objective, SoftmaxLoss};

fn main() -> evenkeel::Result<()> {
    let device = Device::best()?; // a GPU where one answers, else the CPU
    let stream = device.stream()?;

    // Two tokens over four classes. The model favours class 1 for both; the targets are 1 and 3.
    let logits = [0.0_f32, 4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0];
    let targets = stream.upload(&[2], &[1_i64, 3])?;

    println!("{device}: {}", device.name());
    for objective in [Objective::Nll, Objective::Power(0.5), Objective::Linear] {
        let op = SoftmaxLoss::new(objective).prepare(&stream)?;
        let mut logits = stream.upload(&[2, 4], &logits)?;
        let loss = op.forward_backward_in_place(logits.view_mut(), targets.view())?;
        println!("{objective}: loss {:.4}", loss.read()?);
        for gradient in logits.read::<f32>()?.chunks(4) {
            println!("    gradient {gradient:+.4?}"); // prior-leaning objectives doubt the second target
        }
    }
    stream.check() // the device found nothing wrong with the data
}
