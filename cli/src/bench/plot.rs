//! A run as a picture: a bar for each row and each peer, against the ceiling.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::record::{Row, Run};

const WIDTH: u32 = 1200;
const LABELS: i32 = 330;
const RIGHT: i32 = 110;
const TOP: i32 = 86;
const BAR: i32 = 15;
const GAP: i32 = 12;

/// Ours; then the peers', in the order in which they appear. Distinct in grey too.
const OURS: RGBColor = RGBColor(24, 90, 157);
const PEERS: [RGBColor; 5] = [
    RGBColor(214, 120, 30),
    RGBColor(95, 140, 70),
    RGBColor(190, 100, 140),
    RGBColor(115, 115, 115),
    RGBColor(150, 135, 40),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(222, 222, 222);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// One bar: whose, and how long.
struct Bar {
    color: RGBColor,
    value: f64,
    text: String,
}

/// What the bars of a run measure.
struct Scale {
    title: &'static str,
    unit: &'static str,
    most: f64,
}

/// Draws the run into an SVG file.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(run: &Run, path: &Path) -> Result<(), String> {
    drawn(run, path).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn drawn(run: &Run, path: &Path) -> Drawn {
    let names = peer_names(&run.rows);
    let groups: Vec<(&Row, Vec<Bar>)> = run
        .rows
        .iter()
        .map(|row| (row, bars(row, &names)))
        .collect();
    let height = TOP
        + groups
            .iter()
            .map(|(_, bars)| bars.len() as i32 * BAR + GAP)
            .sum::<i32>()
        + 46;
    let root = SVGBackend::new(path, (WIDTH, height.max(200) as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let scale = scale(run, &groups);
    header(&root, run, &scale, &names)?;
    let right = WIDTH as i32 - RIGHT;
    let x = |value: f64| {
        LABELS + (f64::from(right - LABELS) * (value / scale.most).clamp(0.0, 1.0)) as i32
    };
    let bottom = height - 40;
    axis(&root, &scale, bottom, &x)?;
    for (ceiling, name) in [
        (run.ceilings.copy_gbs, "copy"),
        (run.ceilings.read_gbs, "read"),
    ] {
        if let Some(ceiling) =
            ceiling.filter(|&ceiling| scale.unit == "GB/s" && ceiling <= scale.most)
        {
            let at = x(ceiling);
            let stroke = ShapeStyle::from(&RED).stroke_width(1);
            root.draw(&PathElement::new(vec![(at, TOP - 6), (at, bottom)], stroke))?;
            let place = if name == "copy" {
                HPos::Right
            } else {
                HPos::Left
            };
            let shift = if name == "copy" { -3 } else { 3 };
            write(
                &root,
                &format!("{name} {ceiling:.0}"),
                (at + shift, TOP - 8),
                11,
                &RED,
                (place, VPos::Bottom),
            )?;
        }
    }
    if scale.unit != "GB/s" {
        let stroke = ShapeStyle::from(&RED).stroke_width(1);
        root.draw(&PathElement::new(
            vec![(x(1.0), TOP - 6), (x(1.0), bottom)],
            stroke,
        ))?;
    }
    let mut y = TOP;
    for (row, bars) in &groups {
        let middle = y + bars.len() as i32 * BAR / 2;
        let label = format!("{}  {} {}", row.variant, row.shape, row.dtype);
        write(
            &root,
            &label,
            (LABELS - 8, middle),
            12,
            &INK,
            (HPos::Right, VPos::Center),
        )?;
        for bar in bars {
            let end = x(bar.value);
            root.draw(&Rectangle::new(
                [(LABELS, y + 1), (end, y + BAR - 1)],
                bar.color.filled(),
            ))?;
            // Within a long bar, beside a short one: never across the ceilings.
            let (at, ink, side) = if end - LABELS > 8 * bar.text.len() as i32 {
                (end - 5, &WHITE, HPos::Right)
            } else {
                (end + 5, &INK, HPos::Left)
            };
            write(
                &root,
                &bar.text,
                (at, y + BAR / 2),
                11,
                ink,
                (side, VPos::Center),
            )?;
            y += BAR;
        }
        y += GAP;
    }
    root.present()?;
    Ok(())
}

fn peer_names(rows: &[Row]) -> Vec<String> {
    let mut names = Vec::new();
    for peer in rows.iter().flat_map(|row| &row.peers) {
        if !names.contains(&peer.name) {
            names.push(peer.name.clone());
        }
    }
    names
}

fn bars(row: &Row, names: &[String]) -> Vec<Bar> {
    if let Some(of_least) = row.bytes_of_least {
        let us = row
            .predicted_us
            .map_or(String::new(), |us| format!(", predicted {us:.0} us"));
        return vec![Bar {
            color: OURS,
            value: of_least,
            text: format!("{of_least:.3}{us}"),
        }];
    }
    let rate = |us: f64| row.bytes as f64 / us / 1e3;
    let mut bars: Vec<Bar> = row
        .us
        .map(|us| Bar {
            color: OURS,
            value: rate(us.median),
            text: match row.of_ceiling {
                Some(share) => format!("{:.0} us, {:.1}%", us.median, share * 100.0),
                None => format!("{:.0} us", us.median),
            },
        })
        .into_iter()
        .collect();
    for peer in &row.peers {
        let place = names
            .iter()
            .position(|name| *name == peer.name)
            .unwrap_or(0);
        bars.push(Bar {
            color: PEERS[place % PEERS.len()],
            value: rate(peer.us.median),
            text: format!("{:.0} us", peer.us.median),
        });
    }
    bars
}

fn scale(run: &Run, groups: &[(&Row, Vec<Bar>)]) -> Scale {
    let longest = groups
        .iter()
        .flat_map(|(_, bars)| bars)
        .map(|bar| bar.value)
        .fold(0.0, f64::max);
    if run.rows.iter().any(|row| row.bytes_of_least.is_some()) {
        return Scale {
            title: "bytes moved on the emulator, over the least there is",
            unit: "of the least",
            most: longest.max(1.0) * 1.15,
        };
    }
    // Where the ceilings dwarf the bars (the CPU's f64), the bars are compared with each other.
    let ceilings = [run.ceilings.copy_gbs, run.ceilings.read_gbs];
    let most = ceilings.into_iter().flatten().fold(longest, f64::max);
    Scale {
        title: "least bytes over time: longer is faster",
        unit: "GB/s",
        most: if longest < 0.2 * most {
            longest * 1.3
        } else {
            most * 1.08
        }
        .max(1e-6),
    }
}

fn header(root: &Area<'_>, run: &Run, scale: &Scale, names: &[String]) -> Drawn {
    let (name, arch) = (&run.device.name, &run.device.arch);
    let title = if name.contains(arch.as_str()) {
        format!("evenkeel on {name}")
    } else {
        format!("evenkeel on {name}, {arch}")
    };
    let left = (HPos::Left, VPos::Center);
    write(root, &title, (16, 20), 18, &INK, left)?;
    write(
        root,
        &format!("{}, {}", scale.title, run.date),
        (16, 42),
        12,
        &INK,
        left,
    )?;
    let mut x = LABELS;
    let legend = std::iter::once((OURS, "evenkeel")).chain(
        names
            .iter()
            .enumerate()
            .map(|(place, name)| (PEERS[place % PEERS.len()], name.as_str())),
    );
    for (color, name) in legend {
        root.draw(&Rectangle::new([(x, 55), (x + 11, 66)], color.filled()))?;
        write(root, name, (x + 16, 61), 12, &INK, left)?;
        x += 34 + 7 * name.len() as i32;
    }
    Ok(())
}

/// Ticks at round values.
fn axis(root: &Area<'_>, scale: &Scale, bottom: i32, x: &impl Fn(f64) -> i32) -> Drawn {
    let rough = scale.most / 6.0;
    let power = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let mut value = 0.0;
    while value <= scale.most {
        let at = x(value);
        root.draw(&PathElement::new(vec![(at, TOP - 4), (at, bottom)], FAINT))?;
        // As many decimals as tell the ticks apart.
        let decimals = (-power.log10()).max(0.0) as usize;
        let text = format!("{value:.decimals$}");
        write(
            root,
            &text,
            (at, bottom + 6),
            11,
            &INK,
            (HPos::Center, VPos::Top),
        )?;
        value += step;
    }
    write(
        root,
        scale.unit,
        (WIDTH as i32 - RIGHT + 14, bottom + 6),
        11,
        &INK,
        (HPos::Left, VPos::Top),
    )
}

fn write(
    root: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: u32,
    color: &RGBColor,
    anchor: (HPos, VPos),
) -> Drawn {
    let style = TextStyle::from(("sans-serif", size))
        .color(color)
        .pos(Pos::new(anchor.0, anchor.1));
    root.draw(&Text::new(text.to_string(), at, style))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::{Ceilings, DeviceInfo, Logits, Peer, ShapeOf, Times};

    /// A run with peers, made up.
    fn run() -> Run {
        let times = |median: f64| Times {
            median,
            p10: median,
            p90: median,
        };
        let row = |variant: &str, vocab: usize, us: f64| {
            let shape = ShapeOf::Logits(Logits {
                tokens: 8192,
                vocab,
            });
            let bytes = (shape.elements() * 4) as u64;
            let peer = |name: &str, ratio: f64| Peer {
                name: name.into(),
                version: "1".into(),
                us: times(us * ratio),
            };
            Row {
                variant: variant.into(),
                shape,
                dtype: "bf16".into(),
                us: Some(times(us)),
                bytes,
                of_ceiling: Some(0.95),
                peers: vec![
                    peer("unfused", 7.0),
                    peer("torch eager", 4.0),
                    peer("torch.compile", 2.0),
                    peer("liger", 1.5),
                ],
                ..Row::default()
            }
        };
        Run {
            device: DeviceInfo {
                name: "Made & up".into(),
                arch: "sm_90".into(),
                ..DeviceInfo::default()
            },
            ceilings: Ceilings {
                copy_gbs: Some(4300.0),
                read_gbs: Some(4500.0),
                ..Ceilings::default()
            },
            rows: vec![
                row("nll forward_backward", 32_000, 260.0),
                row("nll in place", 32_000, 255.0),
                row("nll forward_backward", 128_256, 1030.0),
                row("nll in place", 128_256, 1010.0),
            ],
            ..Run::default()
        }
    }

    #[test]
    fn every_row_and_peer_is_drawn() {
        let path = std::env::temp_dir().join(format!("evenkeel-plot-{}.svg", std::process::id()));
        draw(&run(), &path).unwrap();
        let picture = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for text in [
            "Made &amp; up",
            "nll in place  8192x128256 bf16",
            "torch.compile",
            "copy 4300",
            "1010 us, 95.0%",
            "GB/s",
        ] {
            assert!(picture.contains(text), "{text} is not in the picture");
        }
        // A bar for each row and each of its peers, and the legend's five.
        let bars = picture.matches("<rect").count();
        assert!(bars >= 4 * 5 + 5, "{bars} rectangles");
    }

    #[test]
    fn an_empty_run_is_a_picture_too() {
        let path = std::env::temp_dir().join(format!("evenkeel-empty-{}.svg", std::process::id()));
        draw(&Run::default(), &path).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
