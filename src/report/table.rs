//! Columns of text: widths, alignment, style, and bars.
//!
//! Styles are kept apart from the text until it is written, so that widths count what is seen. Whatever writes the
//! result strips styles where they are not wanted.

use anstyle::Style;

/// How wide the output may be, and whether it may draw with block characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// The columns of the terminal.
    pub width: usize,
    /// Whether bars are drawn with block characters; else with `#`.
    pub blocks: bool,
}

/// Where text stands in its column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// At the left edge.
    Left,
    /// At the right edge.
    Right,
}

/// A piece of text and how it looks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Returns whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns the cell with another style.
    #[must_use]
    pub fn styled(mut self, style: Style) -> Cell {
        self.style = style;
        self
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell {
            text: text.to_string(),
            style: Style::new(),
        }
    }
}

/// Rows of cells in aligned columns.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Returns an empty table with columns of the given alignment.
    pub fn new(columns: impl Into<Vec<Align>>) -> Table {
        Table {
            columns: columns.into(),
            rows: Vec::new(),
        }
    }

    /// Appends a row; it may have fewer cells than there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert!(
            cells.len() <= self.columns.len(),
            "a row has a column for each cell"
        );
        self.rows.push(cells);
    }

    /// Returns the width of each column.
    pub fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.columns.len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(shown(&cell.text));
            }
        }
        widths
    }

    /// Returns the table as lines, each indented by two and without blanks at its end.
    pub fn render(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            let mut owed = 2;
            for ((cell, &width), align) in row.iter().zip(&widths).zip(&self.columns) {
                let room = width - shown(&cell.text);
                let (before, after) = match align {
                    Align::Left => (0, room),
                    Align::Right => (room, 0),
                };
                if cell.text.is_empty() {
                    owed += width + 2;
                    continue;
                }
                line.push_str(&" ".repeat(owed + before));
                line.push_str(&painted(&cell.text, cell.style));
                owed = after + 2;
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// Returns the text in its style.
pub fn painted(text: &str, style: Style) -> String {
    if style.is_plain() {
        text.to_string()
    } else {
        format!("{style}{text}{style:#}")
    }
}

/// Returns a bar as long as `share` of `width`, in eighths of a character where those can be drawn.
pub fn bar(share: f64, width: usize, look: Look) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = share.clamp(0.0, 1.0);
    if look.blocks {
        let eighths = (share * (width * 8) as f64).round() as usize;
        "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
    } else {
        "#".repeat((share * width as f64).round() as usize)
    }
}

/// Returns the text cut to `width` characters, with a mark where something is missing.
pub fn clipped(text: &str, width: usize) -> String {
    if shown(text) <= width {
        return text.to_string();
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    kept + ".."
}

/// Returns the text in lines of at most `width` characters, broken between words.
pub fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + shown(&line) + 1 + shown(word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

fn shown(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_end_without_blanks() {
        let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
        table.row([
            "run".into(),
            "1".into(),
            Cell::from("x").styled(Style::new().bold()),
        ]);
        table.row(["longer".into(), "".into(), "y".into()]);
        table.row(["a".into(), "200".into()]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(plain, "  run       1  x\n  longer       y\n  a       200\n");
    }

    #[test]
    fn bars_have_eighths_where_they_can_be_drawn() {
        let look = |blocks| Look { width: 80, blocks };
        assert_eq!(bar(0.5, 10, look(false)), "#####");
        assert_eq!(bar(0.53, 10, look(true)), "█████▎");
        assert_eq!(bar(2.0, 3, look(true)), "███");
    }

    #[test]
    fn long_text_is_clipped_or_wrapped() {
        assert_eq!(clipped("abcdefgh", 5), "abc..");
        assert_eq!(wrapped("one two three", 9, 2), "one two\n  three");
    }
}
