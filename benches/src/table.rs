//! The table that a run ends with: the real thing, its floor, and the ratio of the two.
//!
//! Lines are printed as they are known, so that a run that is stopped has shown something. Figures
//! of one line come from one run; absolute times drift with the machine, ratios much less.

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Of what, in which unit.
    pub unit: &'static str,
    /// The real thing.
    pub real: f64,
    /// What it cannot do without; `None` where there is no floor to compare with.
    pub floor: Option<f64>,
}

impl Row {
    /// A line of the real thing beside its floor.
    pub fn of(what: impl Into<String>, unit: &'static str, real: f64, floor: f64) -> Row {
        Row { what: what.into(), unit, real, floor: Some(floor) }
    }

    /// A line of something that has no floor here.
    pub fn alone(what: impl Into<String>, unit: &'static str, real: f64) -> Row {
        Row { what: what.into(), unit, real, floor: None }
    }

    /// How many times the floor the real thing costs.
    pub fn ratio(&self) -> Option<f64> {
        self.floor.filter(|floor| *floor > 0.0).map(|floor| self.real / floor)
    }
}

/// The heading of a group of lines: its name, and what its floor is.
pub fn heading(name: &str, floor: &str) -> String {
    let columns = format!("{:<52} {:<16} {:>10} {:>10} {:>8}", name, "", "real", "floor", "ratio");
    format!("\n{columns}\n  floor: {floor}")
}

/// One line of the table.
pub fn line(row: &Row) -> String {
    let floor = row.floor.map_or("-".to_owned(), figure);
    let ratio = row.ratio().map_or("-".to_owned(), |ratio| format!("{}x", figure(ratio)));
    let real = figure(row.real);
    format!("  {:<50} {:<16} {real:>10} {floor:>10} {ratio:>8}", row.what, row.unit)
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        it if it >= 100.0 => 0,
        it if it >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::{Row, figure, line};

    #[test]
    fn a_ratio_needs_a_floor_that_is_not_nothing() {
        assert_eq!(Row::of("a", "us", 6.0, 3.0).ratio(), Some(2.0));
        assert_eq!(Row::of("a", "us", 6.0, 0.0).ratio(), None);
        assert_eq!(Row::alone("a", "us", 6.0).ratio(), None);
    }

    #[test]
    fn lines_show_real_floor_and_ratio() {
        let fields = |row| line(&row).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            fields(Row::of("put", "us", 45.04, 13.0)),
            ["put", "us", "45.0", "13.0", "3.46x"]
        );
        assert_eq!(fields(Row::alone("put", "us", 1234.5)), ["put", "us", "1234", "-", "-"]);
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!([0.1234, 1.5, 12.34, 123.4].map(figure), ["0.12", "1.50", "12.3", "123"]);
    }
}
