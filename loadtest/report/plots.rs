//! A page with plots: how long changes took, and when. One file, SVG inside, that
//! can be sent to anybody.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use plotters::prelude::{ChartBuilder, IntoDrawingArea as _, IntoLogRange as _, SVGBackend};
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color as _, RGBColor, WHITE};
use serde::Serialize;

use super::{Measured, Report, Spread, write_json};
use crate::client::Way;

const SIZE: (u32, u32) = (900, 420);

/// Told apart also by those who see few colours (Okabe and Ito's palette).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// The shortest time on a logarithmic axis, in milliseconds.
const SHORTEST: f64 = 0.01;

/// A named line.
type Curve = (String, Vec<(f64, f64)>);

/// Writes `index.html` and `result.json` into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write<T: Measured + Serialize>(folder: &Path, report: &Report<T>) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("--report {}", folder.display()))?;
    let json = folder.join("result.json");
    write_json(report, &json)?;
    let page = page(report.conditions.scenario, &report.found.spreads(), &std::fs::read_to_string(&json)?)?;
    let file = folder.join("index.html");
    std::fs::write(&file, page).with_context(|| file.display().to_string())
}

fn page(scenario: &str, spreads: &[(String, &Spread)], json: &str) -> anyhow::Result<String> {
    let mut page = format!(
        "<!doctype html>\n<meta charset=utf-8>\n<title>{scenario}</title>\n\
         <style>body{{font:15px sans-serif;max-width:60em;margin:2em auto}}pre{{overflow:auto}}</style>\n\
         <h1>{scenario}</h1>\n"
    );
    if !spreads.is_empty() {
        let of = |pick: fn(&Spread) -> Vec<(f64, f64)>| -> Vec<Curve> {
            spreads.iter().map(|(name, spread)| (name.clone(), pick(spread))).collect()
        };
        let last = of(|spread| cumulative(&spread.tally.last));
        let by_time = of(|spread| course(spread, |way| Some(way.last)));
        let ready = of(|spread| course(spread, |way| way.ready));
        write!(page, "<h2>Changes by the time to the last gateway</h2>\n{}", distribution(&last)?)?;
        for (name, spread) in spreads {
            let stages = [
                ("first gateway", &spread.tally.first),
                ("median gateway", &spread.tally.median),
                ("last gateway", &spread.tally.last),
                ("last of those that stayed", &spread.tally.stayed),
                ("last acknowledgement", &spread.tally.acknowledged),
                ("status Ready", &spread.tally.ready),
            ];
            let known = stages.iter().filter(|(_, found)| !found.is_empty());
            let curves: Vec<Curve> =
                known.map(|(stage, found)| ((*stage).to_owned(), cumulative(found))).collect();
            write!(page, "<h2>{name}: every stage</h2>\n{}", distribution(&curves)?)?;
        }
        write!(page, "<h2>Time to the last gateway in the course of the run</h2>\n{}", series(&by_time)?)?;
        if ready.iter().any(|(_, points)| !points.is_empty()) {
            write!(page, "<h2>Time to the status Ready in the course of the run</h2>\n{}", series(&ready)?)?;
        }
    }
    write!(page, "<h2>Everything</h2>\n<pre>{}</pre>\n", json.replace('&', "&amp;").replace('<', "&lt;"))?;
    Ok(page)
}

/// Milliseconds, and the share of changes in percent that took no longer.
fn cumulative(micros: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = micros.iter_recorded();
    steps.map(|step| ((step.value_iterated_to() as f64 / 1000.0).max(SHORTEST), step.percentile())).collect()
}

/// Seconds since the first change, and milliseconds.
fn course(spread: &Spread, took: impl Fn(&Way) -> Option<Duration>) -> Vec<(f64, f64)> {
    let mut ways = spread.tally.course.clone();
    ways.sort_unstable_by_key(|way| way.answered);
    let begun = ways.first().map(|way| way.answered).unwrap_or_default();
    let point = |way: &Way| {
        let took = took(way)?.as_secs_f64() * 1000.0;
        Some(((way.answered - begun).as_secs_f64(), took.max(SHORTEST)))
    };
    ways.iter().filter_map(point).collect()
}

fn distribution(curves: &[Curve]) -> anyhow::Result<String> {
    let longest = most(curves, |(x, _)| *x).max(SHORTEST * 10.0);
    draw(|root| {
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d((SHORTEST..longest).log_scale(), 0.0..100.0)?;
        chart.configure_mesh().x_desc("milliseconds").y_desc("percent of changes").draw()?;
        for ((name, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| line(x, y, *colour));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()
    })
}

fn series(curves: &[Curve]) -> anyhow::Result<String> {
    let (seconds, longest) = (most(curves, |(x, _)| *x).max(1.0), most(curves, |(_, y)| *y));
    draw(|root| {
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..seconds, (SHORTEST..longest.max(SHORTEST * 10.0)).log_scale())?;
        chart.configure_mesh().x_desc("seconds").y_desc("milliseconds").draw()?;
        for ((name, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour))?
                .label(name)
                .legend(move |(x, y)| line(x, y, *colour));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()
    })
}

fn line(x: i32, y: i32, colour: RGBColor) -> plotters::element::PathElement<(i32, i32)> {
    plotters::element::PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
}

fn most(curves: &[Curve], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    curves.iter().flat_map(|(_, points)| points).map(of).fold(0.0, f64::max)
}

type Area<'a> = plotters::drawing::DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failed<'a> =
    plotters::drawing::DrawingAreaErrorKind<<SVGBackend<'a> as plotters::prelude::DrawingBackend>::ErrorType>;

fn draw(plot: impl for<'a> FnOnce(&Area<'a>) -> Result<(), Failed<'a>>) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let failed = |error: Failed<'_>| anyhow::anyhow!("a plot cannot be drawn: {error}");
        root.fill(&WHITE).map_err(failed)?;
        plot(&root).map_err(failed)?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Board;
    use crate::process::Usage;

    #[test]
    fn a_page_has_a_line_for_each_distribution_even_for_empty_ones() {
        let board = Board::new(1, false);
        let empty = Spread::new(board.tally(), 1, 0, 0, Usage::default());
        for (generation, micros) in [(1, 100), (2, 5_000), (3, 70)] {
            let at = Duration::from_millis(generation * 10);
            board.written(7, generation, at, true);
            let then = at + Duration::from_micros(micros);
            board.applied(0, &[(7, generation)], then);
            board.acknowledged(0, &[(7, generation)], then);
        }
        let full = Spread::new(board.tally(), 1, 3, 300, Usage::default());
        let spreads = [("full".to_owned(), &full), ("empty".to_owned(), &empty)];
        let page = page("test", &spreads, "{\"a\": \"<b>\"}").unwrap();
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(page.contains("full: every stage") && page.contains("last acknowledgement"));
        assert!(page.contains("&lt;b>"), "JSON is text");
    }
}
