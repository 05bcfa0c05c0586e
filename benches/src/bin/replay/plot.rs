//! The plot: three panels over the load, a line per policy.

use std::fmt::Write;

use crate::measure::Figures;

/// What a policy did at a load.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) order: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) load: f64,
    pub(crate) figures: Figures,
}

const WIDTH: f64 = 250.0;
const HEIGHT: f64 = 220.0;
/// Colours that people who do not see red or green can tell apart.
const COLOURS: [(&str, &str); 3] = [("fifo", "#0072b2"), ("drf", "#d55e00"), ("fair-share", "#009e73")];

struct Panel {
    title: &'static str,
    value: fn(&Figures) -> Option<f64>,
    ticks: &'static [f64],
    logarithmic: bool,
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "mean wait, minutes",
        value: |figures| Some(figures.wait / 60.0),
        ticks: &[1.0, 10.0, 100.0, 1_000.0, 10_000.0],
        logarithmic: true,
    },
    Panel {
        title: "utilisation, %",
        value: |figures| Some(figures.utilisation * 100.0),
        ticks: &[50.0, 60.0, 70.0, 80.0, 90.0, 100.0],
        logarithmic: false,
    },
    Panel {
        title: "Jain's index of the shares",
        value: |figures| figures.fairness,
        ticks: &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        logarithmic: false,
    },
];

/// The whole picture.
pub(crate) fn svg(points: &[Point]) -> String {
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 930 330\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#333\">\n\
         <rect width=\"930\" height=\"330\" fill=\"white\"/>\n",
    );
    for (column, panel) in (0_u8..).zip(&PANELS) {
        panel.draw(&mut out, 45.0 + f64::from(column) * 305.0, points);
    }
    legend(&mut out);
    out.push_str("</svg>\n");
    out
}

impl Panel {
    fn draw(&self, out: &mut String, left: f64, points: &[Point]) {
        add(out, format_args!("<g transform=\"translate({left:.0} 30)\">"));
        add(out, format_args!("<text x=\"0\" y=\"-12\" font-weight=\"bold\">{}</text>", self.title));
        for tick in self.ticks {
            let y = self.height(*tick);
            add(out, format_args!("<path d=\"M0 {y:.1}H{WIDTH}\" stroke=\"#ddd\"/>"));
            add(out, format_args!("<text x=\"-5\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>", y + 4.0));
        }
        let loads = Loads::of(points);
        for load in &loads.0 {
            let x = loads.place(*load);
            add(out, format_args!("<text x=\"{x:.1}\" y=\"238\" text-anchor=\"middle\">{load:.2}</text>"));
        }
        for (order, colour) in COLOURS {
            for mode in ["strict", "easy"] {
                let mine = points.iter().filter(|point| point.order == order && point.mode == mode);
                let places = mine.filter_map(|point| {
                    let value = (self.value)(&point.figures)?;
                    Some((loads.place(point.load), self.height(value)))
                });
                line(out, colour, mode, &places.collect::<Vec<_>>());
            }
        }
        out.push_str("</g>\n");
    }

    /// Where a value is, from above.
    fn height(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.max(1e-9).log10() } else { value };
        let first = self.ticks.first().copied().map_or(0.0, scale);
        let last = self.ticks.last().copied().map_or(1.0, scale);
        let part = (scale(value) - first) / (last - first);
        HEIGHT * (1.0 - part.clamp(0.0, 1.0))
    }
}

/// The loads, in rising order.
struct Loads(Vec<f64>);

impl Loads {
    fn of(points: &[Point]) -> Self {
        let mut loads: Vec<f64> = points.iter().map(|point| point.load).collect();
        loads.sort_unstable_by(f64::total_cmp);
        loads.dedup();
        Self(loads)
    }

    fn place(&self, load: f64) -> f64 {
        let (first, last) = (self.0.first().copied().unwrap_or(0.0), self.0.last().copied().unwrap_or(1.0));
        let part = if last > first { (load - first) / (last - first) } else { 0.5 };
        10.0 + part * (WIDTH - 20.0)
    }
}

fn line(out: &mut String, colour: &str, mode: &str, places: &[(f64, f64)]) {
    let dashes = if mode == "strict" { " stroke-dasharray=\"5 3\"" } else { "" };
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    add(
        out,
        format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
            path.join(" ")
        ),
    );
    for (x, y) in places {
        add(out, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>"));
    }
}

fn legend(out: &mut String) {
    out.push_str("<text x=\"45\" y=\"290\">over the load</text>\n");
    let policies = COLOURS.iter().flat_map(|colour| ["strict", "easy"].map(|mode| (colour, mode)));
    for (column, ((order, colour), mode)) in (0_u8..).zip(policies) {
        let left = 45.0 + f64::from(column) * 145.0;
        add(out, format_args!("<g transform=\"translate({left:.0} 310)\">"));
        line(out, colour, mode, &[(0.0, -4.0), (25.0, -4.0)]);
        add(out, format_args!("<text x=\"32\" y=\"0\">{order}, {mode}</text></g>"));
    }
}

fn add(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_a_line_in_every_panel() {
        let figures = |wait| Figures {
            wait,
            wait_p95: 0.0,
            slowdown: 1.0,
            utilisation: 0.5,
            fairness: Some(0.5),
            evenness: None,
        };
        let mut points = Vec::new();
        for load in [0.5, 1.0] {
            for (order, _) in COLOURS {
                points.extend(["strict", "easy"].map(|mode| Point {
                    order,
                    mode,
                    load,
                    figures: figures(600.0),
                }));
            }
        }
        let svg = svg(&points);
        assert_eq!(svg.matches("<polyline").count(), 3 * 6 + 6);
        // Ten minutes are at a quarter of the height of the first panel: 1 is at the bottom, 10,000 at the top.
        assert!(svg.contains("<polyline points=\"10.0,165.0 240.0,165.0\""), "{svg}");
    }
}
