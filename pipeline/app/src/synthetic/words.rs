//! The texts of synthetic events: short sentences from a few word lists, in several scripts.
//!
//! No word needs an escape in JSON, which keeps the generator cheaper than the pipeline it feeds; a
//! test holds that.

use super::rng::TrafficRng;

const OPENINGS: &[&str] = &[
    "Just landed:",
    "Can't stop thinking about",
    "Small win today,",
    "Unpopular opinion:",
    "Reading about",
    "Who else loves",
    "Morning notes on",
    "Today I learned:",
    "Half asleep but excited about",
    "Finally understood",
];
const SUBJECTS: &[&str] = &[
    "tide tables",
    "the night train",
    "sourdough",
    "a new telescope",
    "open data",
    "the harbour lights",
    "wind turbines",
    "old maps",
    "street football",
    "the first frost",
    "city gardens",
    "a quiet library",
    "analogue synths",
    "long bridges",
];
const ENDINGS: &[&str] = &[
    "and it works.",
    "in the rain.",
    "with friends.",
    "before breakfast.",
    "on a Tuesday.",
    "again!",
    "from the ferry.",
    "— thread below.",
    "🌊",
    "🚲✨",
];
const ELSEWHERE: &[&str] = &[
    "海の音が好きです。",
    "今日はいい天気ですね ☀️",
    "El mar está tranquilo esta tarde.",
    "Die Flut kommt um halb sieben.",
    "La marée monte, on y va !",
    "오늘도 파도가 높네요",
    "Прилив начинается в шесть.",
    "المدّ يرتفع الليلة",
];
/// The topics of posts and trends.
pub const TOPICS: &[&str] =
    &["tides", "rust", "football", "gardening", "astronomy", "trains", "cooking", "music", "maps"];
const GIVEN_NAMES: &[&str] = &[
    "Ann", "Bao", "Chidi", "Dana", "Emil", "Fatou", "Goran", "Hana", "Ines", "Jun", "Kofi", "Lena",
    "Mei", "Noor", "Olga", "Pau", "Rui", "Sara", "Tariq", "Yuki",
];

/// One short post.
pub fn post(rng: &mut TrafficRng, out: &mut String) {
    if rng.below(4) == 0 {
        out.push_str(rng.pick(ELSEWHERE));
        return;
    }
    out.push_str(rng.pick(OPENINGS));
    out.push(' ');
    out.push_str(rng.pick(SUBJECTS));
    out.push(' ');
    out.push_str(rng.pick(ENDINGS));
}

/// The name of synthetic user number `user`, always the same.
pub fn name(user: u32) -> &'static str {
    GIVEN_NAMES[user as usize % GIVEN_NAMES.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_needs_escaping_in_json() {
        let lists = [OPENINGS, SUBJECTS, ENDINGS, ELSEWHERE, TOPICS, GIVEN_NAMES];
        for word in lists.concat() {
            assert_eq!(serde_json::to_string(word).expect("text"), format!("\"{word}\""));
        }
    }
}
