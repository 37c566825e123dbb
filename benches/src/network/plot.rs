//! Plots side by side as SVG, both axes logarithmic.

use std::fmt::Write as _;

/// A curve.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Curves with the same unit.
pub struct Plot<'a> {
    pub y_axis: &'a str,
    pub series: Vec<Series>,
}

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 50.0;
const RIGHT: f64 = 20.0;
const COLOURS: [&str; 3] = ["#1f5fa8", "#c0532a", "#3a8a4f"];

/// The document. Points must be greater than 0.
pub fn draw(x_axis: &str, plots: &[Plot<'_>]) -> String {
    let width = WIDTH * plots.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (number, plot) in plots.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate({} 0)\">", WIDTH * number as f64);
        panel(&mut svg, x_axis, plot);
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, x_axis: &str, plot: &Plot<'_>) {
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let x = Axis::over(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let y = Axis::over(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in y.ticks() {
        let at = y.place(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            number(tick)
        );
    }
    // Each measured place is named, not each power of ten.
    let mut places: Vec<f64> = points().map(|point| point.0).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    for place in places {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x.place(place),
            bottom + 16.0,
            number(place)
        );
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#444\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{x_axis}</text>\
         <text x=\"8\" y=\"12\">{}</text>",
        (LEFT + right) / 2.0,
        bottom + 36.0,
        plot.y_axis
    );
    for (row, (series, colour)) in plot.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let path: Vec<String> = series
            .points
            .iter()
            .map(|(at, value)| format!("{:.1} {:.1}", x.place(*at), y.place(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>",
            path.join("L"),
            LEFT + 30.0,
            14.0 + 14.0 * row as f64,
            series.name
        );
    }
}

/// From values to places, by powers of ten.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Over all these values, with the powers of ten around them, drawn between two places.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) = values
            .map(f64::log10)
            .fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = ((least + 1e-9).floor(), (most - 1e-9).ceil());
        Self { least, most: most.max(least + 1.0), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.log10() - self.least) / (self.most - self.least);
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.least as i32..=self.most as i32).map(|power| 10_f64.powi(power))
    }
}

/// A number as people say it: 20 k, 5 M.
fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_ten_are_equally_far_apart() {
        let axis = Axis::over([20.0, 3_000.0].into_iter(), 0.0, 300.0);
        let places: Vec<f64> = axis.ticks().map(|tick| axis.place(tick)).collect();
        for (place, expected) in places.iter().zip([0.0, 100.0, 200.0, 300.0]) {
            assert!((place - expected).abs() < 1e-6, "{places:?}");
        }
        assert_eq!(places.len(), 4);
    }

    #[test]
    fn a_curve_is_drawn_with_its_name() {
        let series = vec![Series { name: "rate".into(), points: vec![(1.0, 10.0), (7.0, 100.0)] }];
        let svg = draw("nodes", &[Plot { y_axis: "per second", series }]);
        assert!(svg.contains(">rate</text>") && svg.contains(">nodes</text>"));
        assert!(svg.contains("M60.0 230.0L"), "{svg}");
    }
}
