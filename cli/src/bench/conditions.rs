//! What nvidia-smi says of a GPU. It is only asked: no setting is touched.

use std::process::Command;

use super::record::{Conditions, now};

const FIELDS: &str = "driver_version,power.draw,power.limit,clocks.sm,clocks.mem,temperature.gpu";

/// The driver's version and the GPU's state; nothing where there is no nvidia-smi.
#[must_use]
pub fn ask(ordinal: usize) -> Option<(String, Conditions)> {
    let output = Command::new("nvidia-smi")
        .args([
            "--query-gpu",
            FIELDS,
            "--format",
            "csv,noheader,nounits",
            "--id",
            &ordinal.to_string(),
        ])
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(line: &str) -> Option<(String, Conditions)> {
    let fields: Vec<&str> = line.lines().next()?.split(',').map(str::trim).collect();
    let [driver, power, limit, sm, memory, celsius] = fields[..] else {
        return None;
    };
    // A field that the GPU does not have is `[N/A]`.
    Some((
        driver.to_string(),
        Conditions {
            at: now(),
            power_w: power.parse().ok(),
            power_limit_w: limit.parse().ok(),
            sm_mhz: sm.parse().ok(),
            memory_mhz: memory.parse().ok(),
            celsius: celsius.parse().ok(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_nvidia_smi() {
        let (driver, conditions) = parse("580.95.05, 118.37, 700.00, 1980, 3201, [N/A]\n").unwrap();
        assert_eq!(driver, "580.95.05");
        assert_eq!(conditions.power_limit_w, Some(700.0));
        assert_eq!(
            (conditions.sm_mhz, conditions.celsius),
            (Some(1980.0), None)
        );
        assert_eq!(parse("No devices were found"), None);
    }
}
