//! Line plots for terminals, in braille: each cell is two dots wide and four high.
//!
//! The lines have a colour each where the terminal shows colours, and their letter at several places in
//! any case, so that a plot can be read in black and white and pasted into a mail.

use std::fmt::{self, Write};

/// A line of a plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is, for the legend.
    pub name: String,
    /// Its points, in order of x.
    pub points: Vec<(f64, f64)>,
    /// Whether a value holds until the next point, rather than to be reached in a straight line.
    pub is_step: bool,
}

/// How an axis is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// Equal steps are equal differences.
    Linear,
    /// Equal steps are equal ratios. What is 0 or less is not drawn.
    Log,
}

/// How to draw.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What the horizontal axis is.
    pub x_title: String,
    /// What the vertical axis is.
    pub y_title: String,
    /// How x is divided.
    pub x_scale: Scale,
    /// How y is divided.
    pub y_scale: Scale,
    /// Columns of the drawing, without the labels.
    pub width: usize,
    /// Rows of the drawing.
    pub height: usize,
    /// Whether to colour it (ANSI).
    pub colour: bool,
    /// A value of x as people read it.
    pub x_label: fn(f64) -> String,
    /// A value of y as people read it.
    pub y_label: fn(f64) -> String,
}

impl Default for Plot {
    /// 72 by 18, linear, without colour.
    fn default() -> Plot {
        Plot {
            x_title: String::new(),
            y_title: String::new(),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            width: 72,
            height: 18,
            colour: false,
            x_label: short,
            y_label: short,
        }
    }
}

/// A number in as few characters as tell it.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{:.1}G", value / 1e9),
        v if v >= 1e6 => format!("{:.1}M", value / 1e6),
        v if v >= 1e4 => format!("{:.0}k", value / 1e3),
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        v if v >= 0.001 => format!("{value:.3}"),
        _ => format!("{value:.0e}"),
    }
}

const COLOURS: [&str; 6] = ["31", "32", "34", "35", "36", "33"];
const LABEL_WIDTH: usize = 9;

/// One axis: from values to dots.
#[derive(Clone, Copy)]
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    dots: usize,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, dots: usize) -> Option<Axis> {
        let put = |value: f64| match scale {
            Scale::Linear => value,
            Scale::Log => value.ln(),
        };
        let (low, high) = values
            .map(put)
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return None;
        }
        // A flat line needs some room above and below it.
        let high = if high > low { high } else { low + 1.0 };
        Some(Axis { scale, low, high, dots })
    }

    #[allow(clippy::cast_sign_loss)] // clamped
    fn dot(&self, value: f64) -> Option<usize> {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.ln(),
        };
        let part = (value - self.low) / (self.high - self.low);
        part.is_finite().then(|| (part.clamp(0.0, 1.0) * (self.dots - 1) as f64).round() as usize)
    }

    /// The value at a part of the axis, from 0 to 1.
    fn value(&self, part: f64) -> f64 {
        let value = self.low + part * (self.high - self.low);
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.exp(),
        }
    }
}

/// Dots and who drew them.
struct Canvas {
    width: usize,
    height: usize,
    dots: Vec<u8>,
    owner: Vec<Option<usize>>,
    letters: Vec<Option<char>>,
}

impl Canvas {
    fn set(&mut self, x: usize, y: usize, line: usize) {
        // Braille's dots 1 2 3 7 lie in the left column from top to bottom, 4 5 6 8 in the right.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let row = self.height - 1 - y / 4;
        let cell = row * self.width + x / 2;
        self.dots[cell] |= BITS[x % 2][3 - y % 4];
        self.owner[cell].get_or_insert(line);
    }

    /// A straight line, dot by dot. (J. E. Bresenham, "Algorithm for Computer Control of a Digital
    /// Plotter", IBM Systems Journal 4(1), 1965.)
    fn draw(&mut self, from: (usize, usize), to: (usize, usize), line: usize) {
        let ((mut x, mut y), (to_x, to_y)) = (from, to);
        let span = |a: usize, b: usize| i32::try_from(a.abs_diff(b)).unwrap_or(i32::MAX);
        let (dx, dy) = (span(to_x, x), -span(to_y, y));
        let mut error = dx + dy;
        // Ends: each step comes nearer to the end in at least one direction.
        loop {
            self.set(x, y, line);
            if (x, y) == (to_x, to_y) {
                return;
            }
            let twice = 2 * error;
            if twice >= dy {
                error += dy;
                x = if to_x > x { x + 1 } else { x - usize::from(to_x < x) };
            }
            if twice <= dx {
                error += dx;
                y = if to_y > y { y + 1 } else { y - usize::from(to_y < y) };
            }
        }
    }
}

impl Plot {
    /// The drawing, with axes and legend; a line of text if there is nothing to draw.
    ///
    /// # Panics
    /// Never: a string takes all that is written to it.
    pub fn render(&self, lines: &[Line]) -> String {
        let (width, height) = (self.width.max(10), self.height.max(4));
        let xs = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
        let ys = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
        // A linear vertical axis begins at zero: a plot that does not makes small things look large.
        let zero = (self.y_scale == Scale::Linear).then_some(0.0);
        let x = Axis::new(self.x_scale, xs, width * 2);
        let y = Axis::new(self.y_scale, ys.chain(zero), height * 4);
        let (Some(x), Some(y)) = (x, y) else { return "nothing to plot\n".to_owned() };
        let mut canvas = Canvas {
            width,
            height,
            dots: vec![0; width * height],
            owner: vec![None; width * height],
            letters: vec![None; width * height],
        };
        for (number, line) in lines.iter().enumerate() {
            let dots: Vec<(usize, usize)> =
                line.points.iter().filter_map(|p| Some((x.dot(p.0)?, y.dot(p.1)?))).collect();
            if let [only] = dots[..] {
                canvas.draw(only, only, number);
            }
            for pair in dots.windows(2) {
                let (from, to) = (pair[0], pair[1]);
                if line.is_step {
                    canvas.draw(from, (to.0, from.1), number);
                    canvas.draw((to.0, from.1), to, number);
                } else {
                    canvas.draw(from, to, number);
                }
            }
            mark(&mut canvas, number, lines.len(), &dots);
        }
        let mut out = String::new();
        self.write(&mut out, lines, &canvas, x, y).expect("strings take everything");
        out
    }

    fn write(
        &self,
        out: &mut String,
        lines: &[Line],
        canvas: &Canvas,
        x: Axis,
        y: Axis,
    ) -> fmt::Result {
        writeln!(out, "{:>LABEL_WIDTH$} {}", "", self.y_title)?;
        for row in 0..canvas.height {
            let labelled = row % 4 == 0 || row + 1 == canvas.height;
            let part = (canvas.height - 1 - row) as f64 / (canvas.height - 1) as f64;
            let label = if labelled { (self.y_label)(y.value(part)) } else { String::new() };
            write!(out, "{label:>LABEL_WIDTH$} {}", if labelled { '┤' } else { '│' })?;
            for cell in row * canvas.width..(row + 1) * canvas.width {
                let braille = char::from_u32(0x2800 + u32::from(canvas.dots[cell]));
                let blank = canvas.dots[cell] == 0;
                let shown = canvas.letters[cell].or(braille.filter(|_| !blank)).unwrap_or(' ');
                self.paint(out, shown, canvas.owner[cell])?;
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        writeln!(out, "{:>LABEL_WIDTH$} └{}", "", "─".repeat(canvas.width))?;
        let ticks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| (self.x_label)(x.value(part)));
        let mut axis = String::new();
        for (at, tick) in ticks.iter().enumerate() {
            let end = at * canvas.width / 4 + if at == 0 { 0 } else { tick.chars().count() / 2 };
            let end = end.min(canvas.width);
            let gap = end.saturating_sub(axis.chars().count() + tick.chars().count());
            let gap = if at == 0 { 0 } else { gap.max(1) };
            write!(axis, "{}{tick}", " ".repeat(gap))?;
        }
        writeln!(out, "{}", format!("{:>LABEL_WIDTH$}  {axis}  {}", "", self.x_title).trim_end())?;
        write!(out, "{:>LABEL_WIDTH$} ", "")?;
        for (number, line) in lines.iter().enumerate() {
            out.push(' ');
            self.paint(out, letter(number), Some(number))?;
            write!(out, " {} ", line.name)?;
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
        Ok(())
    }

    fn paint(&self, out: &mut String, shown: char, line: Option<usize>) -> fmt::Result {
        match line.filter(|_| self.colour) {
            Some(line) => write!(out, "\x1b[{}m{shown}\x1b[0m", COLOURS[line % COLOURS.len()]),
            None => out.write_char(shown),
        }
    }
}

/// Puts the line's letter at a few places of it, each line's at others.
fn mark(canvas: &mut Canvas, number: usize, lines: usize, dots: &[(usize, usize)]) {
    let slots = 3 * lines.max(1);
    for place in (number..slots).step_by(lines.max(1)) {
        let column = (2 * place + 1) * canvas.width / (2 * slots);
        let cell = (0..canvas.height)
            .map(|row| row * canvas.width + column)
            .find(|&cell| canvas.owner[cell] == Some(number) && canvas.letters[cell].is_none());
        if let Some(cell) = cell {
            canvas.letters[cell] = Some(letter(number));
        }
    }
    if let [(x, y)] = dots {
        canvas.letters[(canvas.height - 1 - y / 4) * canvas.width + x / 2] = Some(letter(number));
    }
}

/// a, b, c, …
fn letter(number: usize) -> char {
    char::from(b'a' + (number % 26) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.to_owned(), points: points.to_vec(), is_step: false }
    }

    #[test]
    fn a_diagonal_goes_from_corner_to_corner() {
        let plot = Plot { width: 12, height: 4, y_title: "y".to_owned(), ..Plot::default() };
        let text = plot.render(&[line("up", &[(0.0, 0.0), (10.0, 1.0)])]);
        let rows: Vec<&str> = text.lines().collect();
        let expected = [
            "          y",
            "      1.0 ┤         ⣀a⠊",
            "          │      a⠔⠊",
            "          │   ⡠⠔⠉",
            "        0 ┤⡠⠔a",
            "          └────────────",
            "           0 2.5 5.0 7.5 10.0",
            "           a up",
        ];
        assert_eq!(rows, expected, "{text}");
    }

    #[test]
    fn logarithms_leave_zeros_out() {
        let plot = Plot { x_scale: Scale::Log, y_scale: Scale::Log, ..Plot::default() };
        let text = plot.render(&[line("l", &[(0.0, 1.0), (1.0, 10.0), (100.0, 0.0), (10.0, 5.0)])]);
        assert!(text.contains(" l\n"), "{text}");
        assert_eq!(plot.render(&[line("none", &[(0.0, 0.0)])]), "nothing to plot\n");
        assert_eq!(plot.render(&[]), "nothing to plot\n");
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        let points = [(0.0, 0.0), (1.0, 1.0)];
        let plain = Plot::default().render(&[line("a", &points)]);
        let coloured = Plot { colour: true, ..Plot::default() }.render(&[line("a", &points)]);
        assert!(!plain.contains('\x1b') && coloured.contains("\x1b[31m"));
    }
}
