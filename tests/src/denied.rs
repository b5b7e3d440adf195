//! The report of the program `denied`, as its readers compare it.

/// What was tried and what is true, and how each must be.
pub struct Report(Vec<Line>);

struct Line {
    /// The role of an attempt; empty for a fact.
    role: String,
    name: String,
    wanted: String,
    got: String,
}

impl Report {
    /// Reads a report; lines that are none of it, such as the firmware's on a console, are passed over.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(Line::parse).collect())
    }

    /// Everything that is not as it must be.
    pub fn wrong(&self) -> Vec<String> {
        let wrong = self.0.iter().filter(|line| !line.good());
        wrong.map(|l| format!("{} {}: wanted {}, got {}", l.role, l.name, l.wanted, l.got)).collect()
    }

    /// How many attempts of `role` were denied.
    pub fn denied(&self, role: &str) -> usize {
        self.0.iter().filter(|line| line.role == role && line.wanted != "-" && line.good()).count()
    }

    /// How many facts there are.
    pub fn facts(&self) -> usize {
        self.0.iter().filter(|line| line.role.is_empty()).count()
    }
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let line = |role: &str, name: String, wanted: &str, got: &str| {
            Some(Self { role: role.into(), name, wanted: wanted.into(), got: got.into() })
        };
        match words.as_slice() {
            ["attempt", role, name @ .., wanted, got] => line(role, name.join(" "), wanted, got),
            ["fact", name, wanted, got] => line("", (*name).into(), wanted, got),
            _ => None,
        }
    }

    /// What is let through may still be unknown to this machine's kernel.
    fn good(&self) -> bool {
        self.got == self.wanted || (!self.role.is_empty() && self.wanted == "-" && self.got == "N")
    }
}
