//! Bar charts as self-contained SVG, readable on light and dark pages.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
/// Where the bars begin and end; the labels are left of them, the last values right.
const LEFT: f64 = 216.0;
const RIGHT: f64 = 780.0;
const BAR: f64 = 10.0;
const BAR_STEP: f64 = 13.0;
const GROUP_GAP: f64 = 14.0;

/// A chart of horizontal bars in groups.
pub struct Chart {
    pub title: String,
    pub subtitle: String,
    pub groups: Vec<Group>,
    /// Where the scale ends: bars beyond it are cut, and say so.
    pub limit: f64,
    /// A line across all groups.
    pub reference: Option<f64>,
    pub show: Box<dyn Fn(f64) -> String>,
}

/// Bars that belong together.
pub struct Group {
    pub label: String,
    pub bars: Vec<Bar>,
}

/// One bar.
pub struct Bar {
    /// Names its colour.
    pub series: &'static str,
    pub value: f64,
    /// Behind its value.
    pub note: String,
}

/// Colours by name of the series, for light and dark pages.
const COLOURS: &[(&str, &str, &str)] = &[
    ("longsplice", "#d9480f", "#ff8a4c"),
    ("nginx", "#868e96", "#868e96"),
    ("nginx-64k", "#bcc3c9", "#5c636a"),
    ("haproxy", "#3b6fd4", "#6f9bf0"),
    ("haproxy-splice", "#9dbaf0", "#3d5a94"),
    ("caddy", "#12a67c", "#2fc79a"),
    ("envoy", "#a545c9", "#c77fe3"),
    ("sozu", "#e0a100", "#f2c037"),
    ("best peer", "#868e96", "#868e96"),
];
const OTHER: &str = "other";

impl Chart {
    /// The whole file.
    pub fn svg(&self) -> String {
        let series = self.series();
        let mut body = String::new();
        let mut y = 92.0;
        let top = y - GROUP_GAP / 2.0;
        for group in &self.groups {
            self.group(&mut body, group, y);
            y += group.bars.len() as f64 * BAR_STEP + GROUP_GAP;
        }
        let bottom = y - GROUP_GAP / 2.0;
        let height = bottom + 34.0;

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
             height=\"{height:.0}\" role=\"img\">\n<title>{}</title>\n{}<rect class=\"page\" width=\"100%\" \
             height=\"100%\" rx=\"8\"/>\n",
            escape(&self.title),
            style(&series),
        );
        text(&mut svg, 20.0, 30.0, "title", &self.title);
        text(&mut svg, 20.0, 49.0, "faint", &self.subtitle);
        legend(&mut svg, &series);
        self.scale(&mut svg, top, bottom);
        if let Some(reference) = self.reference {
            let x = self.x(reference);
            let _ = writeln!(svg, "<path class=\"reference\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>");
        }
        svg.push_str(&body);
        svg.push_str("</svg>\n");
        svg
    }

    /// The series that have a bar, in the order of their first one.
    fn series(&self) -> Vec<&'static str> {
        let mut series = Vec::new();
        for bar in self.groups.iter().flat_map(|group| &group.bars) {
            if !series.contains(&bar.series) {
                series.push(bar.series);
            }
        }
        series.sort_by_key(|name| COLOURS.iter().position(|(of, ..)| of == name));
        series
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value / self.limit).clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn group(&self, svg: &mut String, group: &Group, y: f64) {
        let middle = y + group.bars.len() as f64 * BAR_STEP / 2.0 + 2.5;
        let _ = writeln!(
            svg,
            "<text class=\"label\" x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            escape(&group.label)
        );
        for (index, bar) in group.bars.iter().enumerate() {
            let top = y + index as f64 * BAR_STEP;
            let (end, cut) = (self.x(bar.value), bar.value > self.limit);
            let _ = writeln!(
                svg,
                "<rect class=\"{}\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"1.5\"/>",
                class(bar.series),
                (end - LEFT).max(1.0)
            );
            if cut {
                let _ = writeln!(
                    svg,
                    "<path class=\"cut\" d=\"M{:.1} {:.1}l4 -{h}m4 0l-4 {h}\"/>",
                    end - 16.0,
                    top + BAR + 1.0,
                    h = BAR + 2.0
                );
            }
            let value = format!("{}{}{}", (self.show)(bar.value), if bar.note.is_empty() { "" } else { " " }, bar.note);
            text(svg, end + 5.0, top + BAR - 1.0, "value", &value);
        }
    }

    /// Lines at round values, and the values below.
    fn scale(&self, svg: &mut String, top: f64, bottom: f64) {
        let step = round_step(self.limit / 5.0);
        for count in 0..=(self.limit / step) as u32 {
            let value = f64::from(count) * step;
            let x = self.x(value);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>");
            let _ = writeln!(
                svg,
                "<text class=\"faint\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 17.0,
                escape(&(self.show)(value))
            );
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= least).unwrap_or(power)
}

fn legend(svg: &mut String, series: &[&str]) {
    let mut x = 20.0;
    for name in series {
        let _ = writeln!(
            svg,
            "<rect class=\"{}\" x=\"{x:.0}\" y=\"62\" width=\"{BAR}\" height=\"{BAR}\" rx=\"1.5\"/>",
            class(name)
        );
        text(svg, x + 15.0, 71.0, "value", name);
        x += 38.0 + 6.2 * name.len() as f64;
    }
}

fn style(series: &[&str]) -> String {
    let (mut light, mut dark) = (String::new(), String::new());
    for name in series {
        let colours = COLOURS.iter().find(|(of, ..)| of == name);
        let (on_light, on_dark) = colours.map_or(("#495057", "#ced4da"), |(_, light, dark)| (light, dark));
        let _ = write!(light, ".{}{{fill:{on_light}}}", class(name));
        let _ = write!(dark, ".{}{{fill:{on_dark}}}", class(name));
    }
    format!(
        "<style>\n\
         text{{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif;font-size:11px;fill:#343a40}}\n\
         .title{{font-size:16px;font-weight:600;fill:#1b1e21}}.label{{font-size:12px}}.value{{paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-linejoin:round}}.faint{{fill:#6c757d}}\n\
         .page{{fill:#fff;stroke:#e3e6e8}}.grid{{stroke:#e9ecef;fill:none}}.cut{{stroke:#fff;stroke-width:2;fill:none}}\n\
         .reference{{stroke:#495057;stroke-dasharray:3 3;fill:none}}\n\
         {light}\n\
         @media (prefers-color-scheme:dark){{\n\
         text{{fill:#ced4da}}.title{{fill:#f1f3f5}}.faint{{fill:#8d969e}}\n\
         .page{{fill:#0d1117;stroke:#262c34}}.grid{{stroke:#20262d}}.cut{{stroke:#0d1117}}.reference{{stroke:#adb5bd}}.value{{stroke:#0d1117}}\n\
         {dark}\n\
         }}\n</style>\n"
    )
}

/// A class name of letters.
fn class(series: &str) -> String {
    let known = COLOURS.iter().position(|(name, ..)| *name == series);
    known.map_or_else(|| OTHER.into(), |index| format!("s{index}"))
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, content: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(content));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
