//! What a terminal shows: as much of one as the programs use. It keeps what has scrolled away, so tests look for text in one place,
//! and knows no line too long for it.

/// Rows that are visible; `home` is the first of them.
pub const ROWS: u16 = 50;
/// Columns that the programs are told of; tests type less.
pub const COLUMNS: u16 = 200;

/// The text of a terminal.
#[derive(Default)]
pub struct Screen {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// An escape sequence that isn't whole yet, without its ESC.
    sequence: Option<String>,
}

impl Screen {
    /// Shows what a program has written.
    pub fn write(&mut self, text: &str) {
        for c in text.chars() {
            match self.sequence.take() {
                Some(begun) => self.escape(begun, c),
                None => self.character(c),
            }
        }
    }

    /// All rows, also those that have scrolled away, without blanks at their ends.
    pub fn rows(&self) -> Vec<String> {
        let row = |row: &Vec<char>| row.iter().collect::<String>().trim_end().to_string();
        self.rows.iter().map(row).collect()
    }

    /// The row in which the cursor stands, up to its end, but without blanks there.
    pub fn cursor_row(&self) -> String {
        self.rows().get(self.row).cloned().unwrap_or_default()
    }

    fn character(&mut self, c: char) {
        match c {
            '\x1b' => self.sequence = Some(String::new()),
            '\r' => self.column = 0,
            '\n' => self.row += 1,
            '\x08' => self.column = self.column.saturating_sub(1),
            c if c.is_control() => {}
            c => {
                self.here()[0] = c;
                self.column += 1;
            }
        }
    }

    /// The rest of the row from the cursor; at least one character.
    fn here(&mut self) -> &mut [char] {
        if self.rows.len() <= self.row {
            self.rows.resize(self.row + 1, Vec::new());
        }
        let row = &mut self.rows[self.row];
        if row.len() <= self.column {
            row.resize(self.column + 1, ' ');
        }
        &mut row[self.column..]
    }

    fn escape(&mut self, mut begun: String, c: char) {
        begun.push(c);
        let Some(parameters) = begun.strip_prefix('[') else {
            // A sequence of another kind: two characters, none of which is shown.
            return;
        };
        if parameters.is_empty() || !('@'..='~').contains(&c) {
            self.sequence = Some(begun);
            return;
        }
        let number: Option<usize> = parameters.trim_end_matches(c).parse().ok();
        let by = number.unwrap_or(1);
        match c {
            'A' => self.row = self.row.saturating_sub(by),
            'B' => self.row += by,
            'C' => self.column += by,
            'D' => self.column = self.column.saturating_sub(by),
            'G' => self.column = by.saturating_sub(1),
            'H' => {
                self.row = self.rows.len().saturating_sub(usize::from(ROWS));
                self.column = 0;
            }
            'K' => self.here().fill(' '),
            'J' => {
                if number == Some(2) {
                    self.row = self.rows.len().saturating_sub(usize::from(ROWS));
                    self.column = 0;
                }
                self.here().fill(' ');
                self.rows.truncate(self.row + 1);
            }
            _ => {}
        }
    }
}
