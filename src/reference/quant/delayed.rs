//! Delayed scaling: the scales of many tensors, each from the largest elements that it had before.
//!
//! ```text
//! ring[t, cursor] <- amax[t]        a = max over the ring, or amax[t] itself
//! scale[t] <- a / largest[t], where a > 0; else it stays
//! amax[t] <- 0
//! ```
//!
//! An amax that is negative or not finite counts as 0. Quotients are correctly rounded f32 between
//! 2^-149 and the largest f32, or the smallest power of two that is no less, between 2^-127 and
//! 2^127.

use super::scale;
use crate::Error;

/// How a history becomes a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Steps of a ring.
    pub length: usize,
    /// Whether the last step alone counts.
    pub most_recent: bool,
    /// Whether scales are powers of two.
    pub power_of_two: bool,
}

/// The memory of T tensors.
#[derive(Debug)]
pub struct Memory<'a> {
    /// `[T]`: of this step.
    pub amax: &'a mut [f32],
    /// `[T, length]`.
    pub history: &'a mut [f32],
    /// `[T]`.
    pub scales: &'a mut [f32],
    /// `[T]`: where each ring is written next.
    pub cursors: &'a mut [u32],
    /// `[T]`: what an amax is divided by.
    pub largest: &'a [f32],
}

/// The scale of a positive, finite amax.
#[must_use]
pub fn scale_of(amax: f32, largest: f32, power_of_two: bool) -> f32 {
    if power_of_two {
        scale::power_of_two(amax, largest)
    } else {
        scale::exact(amax, largest).min(f32::MAX)
    }
}

/// One step of all tensors.
///
/// # Errors
/// [`Error::Argument`] for lengths that do not fit, or a cursor outside its ring.
pub fn update(rule: Rule, memory: Memory) -> Result<(), Error> {
    let Memory {
        amax,
        history,
        scales,
        cursors,
        largest,
    } = memory;
    let tensors = amax.len();
    let fits = rule.length > 0
        && Some(history.len()) == tensors.checked_mul(rule.length)
        && [scales.len(), cursors.len(), largest.len()] == [tensors; 3]
        && cursors.iter().all(|at| (*at as usize) < rule.length);
    if !fits {
        return Err(Error::argument(
            "delayed scaling",
            "history",
            format!("[{tensors}, {}], with a cursor in each row", rule.length),
            format!("{} elements", history.len()),
        ));
    }
    for (t, ring) in history.chunks_exact_mut(rule.length).enumerate() {
        let latest = match amax[t] {
            latest if latest > 0.0 && latest.is_finite() => latest,
            _ => 0.0,
        };
        let cursor = cursors[t] as usize;
        ring[cursor] = latest;
        cursors[t] = ((cursor + 1) % rule.length) as u32;
        amax[t] = 0.0;
        let reduced = if rule.most_recent {
            latest
        } else {
            ring.iter().copied().fold(0.0, f32::max)
        };
        if reduced > 0.0 {
            scales[t] = scale_of(reduced, largest[t], rule.power_of_two);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct State {
        amax: Vec<f32>,
        history: Vec<f32>,
        scales: Vec<f32>,
        cursors: Vec<u32>,
        largest: Vec<f32>,
    }

    impl State {
        fn new(tensors: usize, length: usize, largest: f32) -> Self {
            Self {
                amax: vec![0.0; tensors],
                history: vec![0.0; tensors * length],
                scales: vec![1.0; tensors],
                cursors: vec![0; tensors],
                largest: vec![largest; tensors],
            }
        }

        fn step(&mut self, rule: Rule, amax: &[f32]) -> Vec<f32> {
            self.amax.copy_from_slice(amax);
            let memory = Memory {
                amax: &mut self.amax,
                history: &mut self.history,
                scales: &mut self.scales,
                cursors: &mut self.cursors,
                largest: &self.largest,
            };
            update(rule, memory).unwrap();
            assert_eq!(self.amax, vec![0.0; amax.len()]);
            self.scales.clone()
        }
    }

    const MAX: Rule = Rule {
        length: 3,
        most_recent: false,
        power_of_two: false,
    };

    #[test]
    fn the_largest_of_the_last_steps_decides() {
        let mut state = State::new(1, 3, 448.0);
        let mut step = |amax: f32| state.step(MAX, &[amax])[0] * 448.0;
        assert_eq!(step(896.0), 896.0);
        assert_eq!(step(448.0), 896.0);
        assert_eq!(step(1.75), 896.0);
        assert_eq!(step(3.5), 448.0); // the first has left
        assert_eq!(step(7.0), 7.0);
    }

    #[test]
    fn the_most_recent_step_decides_alone() {
        let rule = Rule {
            most_recent: true,
            ..MAX
        };
        let mut state = State::new(2, 3, 448.0);
        assert_eq!(state.step(rule, &[896.0, 448.0]), [2.0, 1.0]);
        assert_eq!(state.step(rule, &[44.8, 0.0]), [44.8 / 448.0, 1.0]);
        assert_eq!(state.cursors, [2, 2]);
    }

    #[test]
    fn what_is_no_amax_keeps_the_scale() {
        for most_recent in [false, true] {
            let rule = Rule {
                length: 1,
                most_recent,
                power_of_two: false,
            };
            let mut state = State::new(5, 1, 448.0);
            state.step(rule, &[896.0; 5]);
            let amax = [0.0, f32::NAN, f32::INFINITY, -1.0, -0.0];
            assert_eq!(state.step(rule, &amax), [2.0; 5]);
            assert_eq!(state.history, [0.0; 5]);
        }
    }

    #[test]
    fn scales_stay_in_range() {
        assert_eq!(
            scale_of(f32::from_bits(1), 57344.0, false),
            f32::from_bits(1)
        );
        assert_eq!(scale_of(f32::MAX, 448.0 / 65536.0, false), f32::MAX);
        assert_eq!(scale_of(f32::from_bits(1), 57344.0, true), 2_f32.powi(-127));
        assert_eq!(scale_of(f32::MAX, 448.0 / 65536.0, true), 2_f32.powi(127));
        assert_eq!(scale_of(448.0, 448.0, true), 1.0);
        assert_eq!(scale_of(448.0_f32.next_up(), 448.0, true), 2.0);
    }

    #[test]
    fn lengths_are_checked() {
        let mut state = State::new(2, 3, 448.0);
        state.cursors[1] = 3;
        let memory = Memory {
            amax: &mut state.amax,
            history: &mut state.history,
            scales: &mut state.scales,
            cursors: &mut state.cursors,
            largest: &state.largest,
        };
        assert!(update(MAX, memory).is_err());
    }
}
